"""GPT-2 as transformers has it (`openai-community/gpt2`)."""

import numpy as np

from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.interop import base as interop_base
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


class Gpt2(interop_base.Family):
  """`GPT2LMHeadModel`.

  Its dropout of embeddings and of attention weights is not here.
  """

  defaults = {
      'vocab_size': 50257,
      'n_positions': 1024,
      'n_embd': 768,
      'n_layer': 12,
      'n_head': 12,
      'n_inner': None,
      'activation_function': 'gelu_new',
      'resid_pdrop': 0.1,
      'layer_norm_epsilon': 1e-5,
      'scale_attn_weights': True,
      'bos_token_id': 50256,
      'eos_token_id': 50256,
      'tie_word_embeddings': True,
  }
  aliases = {
      'hidden_size': 'n_embd',
      'max_position_embeddings': 'n_positions',
      'num_attention_heads': 'n_head',
      'num_hidden_layers': 'n_layer',
  }

  def recognises(self, config):
    return config.get('model_type') == 'gpt2'

  def make(self, config, options):
    config.require(_GIVEN)
    width, heads = config.size('n_embd'), config.size('n_head')
    if width % heads:
      raise config.error('n_head', f'a divisor of {width}')
    positions = config.size('n_positions')
    mixer = attention.Attention(
        heads=heads,
        positions=None,
        use_bias=True,
        out_bias=True,
        softmax_scale=None if config.flag('scale_attn_weights') else 1.0,
    )
    backbone = stack_lib.Stack(
        width=width,
        layers=config.count('n_layer'),
        mixers=(mixer,),
        mlp=mlps.Dense(
            hidden=config.size('n_inner', null=True) or 4 * width,
            activation=config.choice('activation_function', _ACTIVATIONS),
            use_bias=True,
        ),
        norm='layer',
        norm_epsilon=config.number('layer_norm_epsilon', least=0.0),
        norm_bias=True,
        positions='learned',
        max_positions=positions,
        dropout=config.number('resid_pdrop', least=0.0, most=1.0),
        scan=False,
        dtype=options.dtype,
    )
    return stacks.built(config, backbone, positions=positions)

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
    entries = stacks.ends(model, _TABLE)
    entries.append(
        interop_base.plain(
            f'{stacks.BACKBONE}.position', 'transformer.wpe.weight'
        )
    )
    for i in range(backbone.layers):
      ours, theirs = f'{stacks.BACKBONE}.layer_{i}', f'transformer.h.{i}'
      entries += [
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
        entries += stacks.projection(
            f'{ours}.{here}', f'{theirs}.{there}', bias=True, transposed=False
        )
    return entries + stacks.norm(
        f'{stacks.BACKBONE}.norm', 'transformer.ln_f', bias=True
    )


def _fused(ours, theirs, suffix):
  """Queries, keys and values side by side."""
  paths = tuple(f'{ours}.{n}{suffix}' for n in ('query', 'key', 'value'))
  layout = interop_base.Layout(
      (theirs,),
      lambda w: tuple(np.split(w, 3, axis=-1)),
      lambda *w: (np.concatenate(w, axis=-1),),
  )
  return interop_base.Entry(paths, (layout,))
