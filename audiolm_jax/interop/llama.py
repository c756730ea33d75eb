"""Llama and its kin as transformers has them: Mistral, Qwen2, Qwen3."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from audiolm_jax.decoders import mlps
from audiolm_jax.decoders import stack
from audiolm_jax.decoders.mixers import attention
from audiolm_jax.interop import base
from audiolm_jax.interop import language_model
from audiolm_jax.interop import stacks

_TABLE = 'model.embed_tokens.weight'
SLIDING = 'sliding_attention'
FULL = 'full_attention'


@dataclasses.dataclass(frozen=True)
class Llama(base.Family):
  """Pre-normed layers of rotary attention and a SwiGLU perceptron.

  Attributes:
    model_type: transformers' name.
    architecture: its class.
    qk_norm: whether queries and keys are normed.
    biased: which of attention's projections have biases: as the config's
      `attention_bias` says, of queries, keys and values only, or none.
    windows: which layers see a window only: none, all, or as the config's
      `layer_types` say.
  """

  model_type: str
  architecture: str
  qk_norm: str = 'none'
  biased: str = 'config'
  windows: str = 'none'

  def recognises(self, config):
    return config.get('model_type') == self.model_type

  def build(self, config, options):
    stacks.require(config, {'hidden_act': 'silu'})
    width, heads = config['hidden_size'], config['num_attention_heads']
    use_bias, out_bias = {
        'config': (config.get('attention_bias', False),) * 2,
        'inputs': (True, False),
        'none': (False, False),
    }[self.biased]
    mixer = attention.Attention(
        heads=heads,
        kv_heads=config.get('num_key_value_heads') or heads,
        head_width=config.get('head_dim') or width // heads,
        positions=stacks.rope(config, 10_000.0),
        qk_norm=self.qk_norm,
        qk_epsilon=config['rms_norm_eps'],
        use_bias=use_bias,
        out_bias=out_bias,
    )
    mixers = [mixer.clone(window=w) for w in self._windows(config)]
    backbone = stack.Stack(
        width=width,
        layers=config['num_hidden_layers'],
        mixers=stacks.period(mixers),
        mlp=mlps.Dense(
            hidden=config['intermediate_size'],
            activation='swiglu',
            use_bias=config.get('mlp_bias', False),
        ),
        norm='rms',
        norm_epsilon=config['rms_norm_eps'],
        scan=False,
        dtype=options.dtype,
    )
    return language_model.LanguageModel(
        decoder=language_model.decoder(
            config['vocab_size'],
            backbone,
            config.get('tie_word_embeddings', False),
        ),
        positions=config['max_position_embeddings'],
        **stacks.special_ids(config),
    )

  def _windows(self, config: Mapping[str, Any]) -> list[int | None]:
    """The window of each layer."""
    layers = config['num_hidden_layers']
    if self.windows == 'none':
      return [None] * layers
    window = config['sliding_window']
    if self.windows == 'all':
      return [window] * layers
    if not config.get('use_sliding_window', False):
      window = None
    types = config.get('layer_types')
    if types is None:
      first = config['max_window_layers']
      types = [SLIDING if i >= first else FULL for i in range(layers)]
    return [window if kind == SLIDING else None for kind in types]

  def config_of(self, model):
    config = shared_config(model, self.model_type, self.architecture)
    backbone = model.backbone
    if self.biased == 'config':
      config['attention_bias'] = backbone.mixers[0].use_bias
    if self.model_type == 'llama':
      config['mlp_bias'] = backbone.mlp.use_bias
    if self.windows != 'none':
      config |= window_config(backbone)
    if self.windows == 'config':
      config['use_sliding_window'] = config['sliding_window'] is not None
    elif self.windows == 'all':
      del config['layer_types']
    return stacks.checked(self, model, config)

  def canonical(self, model, tensors):
    ignored = ('.rotary_emb.inv_freq',)
    return stacks.canonical(model, tensors, 'model.', _TABLE, ignored)

  def entries(self, model):
    backbone = model.backbone
    found = stacks.ends(model, _TABLE)
    for i in range(backbone.layers):
      ours, theirs = f'{stacks.BACKBONE}.layer_{i}', f'model.layers.{i}'
      mixer = backbone.mixers[i % len(backbone.mixers)]
      found += stacks.attention(mixer, f'{ours}.mixer', f'{theirs}.self_attn')
      for name in ('gate', 'up', 'down'):
        found += stacks.projection(
            f'{ours}.mlp.{name}',
            f'{theirs}.mlp.{name}_proj',
            backbone.mlp.use_bias,
        )
      found += norms(ours, theirs)
    return found + stacks.norm(f'{stacks.BACKBONE}.norm', 'model.norm')


def shared_config(
    model: language_model.LanguageModel, model_type: str, architecture: str
) -> dict[str, Any]:
  """What the config.json of every kin of Llama says."""
  backbone = model.backbone
  mixer = backbone.mixers[0]
  return {
      **stacks.common_config(model, model_type, architecture),
      'hidden_size': backbone.width,
      'intermediate_size': backbone.mlp.hidden,
      'num_hidden_layers': backbone.layers,
      'num_attention_heads': mixer.heads,
      'num_key_value_heads': mixer.kv_heads,
      'head_dim': mixer.head_width,
      'max_position_embeddings': model.positions,
      'rms_norm_eps': backbone.norm_epsilon,
      'rope_parameters': stacks.rope_config(mixer.positions),
      'hidden_act': 'silu',
  }


def window_config(backbone: stack.Stack) -> dict[str, Any]:
  """Which layers see a window only, and its size."""
  windows = [m.window for m in backbone.mixers]
  windows *= backbone.layers // len(windows)
  return {
      'sliding_window': next(filter(None, windows), None),
      'layer_types': [SLIDING if w else FULL for w in windows],
  }


def norms(ours: str, theirs: str) -> list[base.Entry]:
  """Of a layer's two branches."""
  return [
      *stacks.norm(f'{ours}.mixer_norm', f'{theirs}.input_layernorm'),
      *stacks.norm(f'{ours}.mlp_norm', f'{theirs}.post_attention_layernorm'),
  ]
