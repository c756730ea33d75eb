"""GPT-2 as transformers has it (`openai-community/gpt2`)."""

import numpy as np

from audiolm_jax.decoders import mlps
from audiolm_jax.decoders import stack
from audiolm_jax.decoders.mixers import attention
from audiolm_jax.interop import base
from audiolm_jax.interop import language_model
from audiolm_jax.interop import stacks

_TABLE = 'transformer.wte.weight'
_GIVEN = {
    'scale_attn_by_inverse_layer_idx': False,
    'add_cross_attention': False,
}
# transformers' names of activations, those that are alike after each other.
_ACTIVATIONS = {
    'gelu_new': 'gelu_tanh',
    'gelu_pytorch_tanh': 'gelu_tanh',
    'gelu': 'gelu',
    'relu': 'relu',
    'silu': 'silu',
}


class Gpt2(base.Family):
  """`GPT2LMHeadModel`.

  Its dropout of embeddings and of attention weights is not here.
  """

  def recognises(self, config):
    return config.get('model_type') == 'gpt2'

  def build(self, config, options):
    stacks.require(config, _GIVEN)
    activation = config.get('activation_function', 'gelu_new')
    if activation not in _ACTIVATIONS:
      raise base.PretrainedError(
          f'activation_function = {activation!r}: one of {list(_ACTIVATIONS)}'
      )
    width = config['n_embd']
    mixer = attention.Attention(
        heads=config['n_head'],
        positions=None,
        use_bias=True,
        out_bias=True,
        softmax_scale=None if config.get('scale_attn_weights', True) else 1.0,
    )
    backbone = stack.Stack(
        width=width,
        layers=config['n_layer'],
        mixers=(mixer,),
        mlp=mlps.Dense(
            hidden=config.get('n_inner') or 4 * width,
            activation=_ACTIVATIONS[activation],
            use_bias=True,
        ),
        norm='layer',
        norm_epsilon=config['layer_norm_epsilon'],
        norm_bias=True,
        positions='learned',
        max_positions=config['n_positions'],
        dropout=config.get('resid_pdrop', 0.1),
        scan=False,
        dtype=options.dtype,
    )
    return language_model.LanguageModel(
        decoder=language_model.decoder(
            config['vocab_size'],
            backbone,
            config.get('tie_word_embeddings', True),
        ),
        positions=config['n_positions'],
        **stacks.special_ids(config),
    )

  def config_of(self, model):
    backbone = model.backbone
    mixer, mlp = backbone.mixers[0], backbone.mlp
    names = {ours: name for name, ours in reversed(_ACTIVATIONS.items())}
    config = {
        **stacks.common_config(model, 'gpt2', 'GPT2LMHeadModel'),
        **_GIVEN,
        'n_embd': backbone.width,
        'n_layer': backbone.layers,
        'n_head': mixer.heads,
        'n_inner': mlp.hidden,
        'n_positions': model.positions,
        'activation_function': names.get(mlp.activation),
        'layer_norm_epsilon': backbone.norm_epsilon,
        'scale_attn_weights': mixer.softmax_scale is None,
        'resid_pdrop': backbone.dropout,
    }
    return stacks.checked(self, model, config)

  def canonical(self, model, tensors):
    # Causal masks.
    ignored = ('.attn.bias', '.attn.masked_bias')
    return stacks.canonical(model, tensors, 'transformer.', _TABLE, ignored)

  def entries(self, model):
    backbone = model.backbone
    found = stacks.ends(model, _TABLE)
    found.append(
        base.plain(f'{stacks.BACKBONE}.position', 'transformer.wpe.weight')
    )
    for i in range(backbone.layers):
      ours, theirs = f'{stacks.BACKBONE}.layer_{i}', f'transformer.h.{i}'
      found += [
          *stacks.norm(f'{ours}.mixer_norm', f'{theirs}.ln_1', bias=True),
          *stacks.norm(f'{ours}.mlp_norm', f'{theirs}.ln_2', bias=True),
          _fused(f'{ours}.mixer', f'{theirs}.attn.c_attn.weight', ''),
          _fused(f'{ours}.mixer', f'{theirs}.attn.c_attn.bias', '_bias'),
      ]
      for here, there in (
          ('mixer.out', 'attn.c_proj'),
          ('mlp.up', 'mlp.c_fc'),
          ('mlp.down', 'mlp.c_proj'),
      ):
        # Its Conv1D is [in, out].
        found += stacks.projection(
            f'{ours}.{here}', f'{theirs}.{there}', bias=True, transposed=False
        )
    return found + stacks.norm(
        f'{stacks.BACKBONE}.norm', 'transformer.ln_f', bias=True
    )


def _fused(ours, theirs, suffix):
  """Queries, keys and values side by side."""
  paths = tuple(f'{ours}.{n}{suffix}' for n in ('query', 'key', 'value'))
  layout = base.Layout(
      (theirs,),
      lambda w: tuple(np.split(w, 3, axis=-1)),
      lambda *w: (np.concatenate(w, axis=-1),),
  )
  return base.Entry(paths, (layout,))
