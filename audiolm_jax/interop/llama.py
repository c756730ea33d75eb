"""Llama and its kin as transformers has them: Mistral, Qwen2, Qwen3."""

import dataclasses
from typing import Any

from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import fields
from audiolm_jax.interop import language_model
from audiolm_jax.interop import stacks

_TABLE = 'model.embed_tokens.weight'
SLIDING = 'sliding_attention'
FULL = 'full_attention'
# Those of transformers' configs. What only some have says nothing elsewhere.
_SHARED = {
    'hidden_size': 4096,
    'num_hidden_layers': 32,
    'num_attention_heads': 32,
    'head_dim': None,
    'rms_norm_eps': 1e-6,
    'tie_word_embeddings': False,
    'attention_bias': False,
    'mlp_bias': False,
    'bos_token_id': None,
    'eos_token_id': None,
}
_QWEN = {
    **_SHARED,
    'vocab_size': 151936,
    'intermediate_size': 22016,
    'num_key_value_heads': 32,
    'max_position_embeddings': 32768,
    'use_sliding_window': False,
    'sliding_window': 4096,
    'max_window_layers': 28,
    'layer_types': None,
}
_DEFAULTS = {
    'llama': {
        **_SHARED,
        'vocab_size': 32000,
        'intermediate_size': 11008,
        'num_key_value_heads': None,
        'max_position_embeddings': 2048,
        'bos_token_id': 1,
        'eos_token_id': 2,
    },
    'mistral': {
        **_SHARED,
        'vocab_size': 32000,
        'intermediate_size': 14336,
        'num_key_value_heads': 8,
        'max_position_embeddings': 131072,
        'sliding_window': 4096,
        'bos_token_id': 1,
        'eos_token_id': 2,
    },
    'qwen2': _QWEN,
    'qwen3': {**_QWEN, 'head_dim': 128},
}


@dataclasses.dataclass(frozen=True)
class Llama(interop_base.Family):
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

  @property
  def defaults(self):
    return _DEFAULTS[self.model_type]

  def make(self, config, options):
    config.require({'hidden_act': 'silu'})
    width = config.size('hidden_size')
    layers = config.count('num_hidden_layers')
    biased = config.flag('attention_bias')
    use_bias, out_bias = {
        'config': (biased, biased),
        'inputs': (True, False),
        'none': (False, False),
    }[self.biased]
    epsilon = config.number('rms_norm_eps', least=0.0)
    mixer = attention.Attention(
        **stacks.heads(config, width),
        positions=stacks.rope(config, 10_000.0),
        qk_norm=self.qk_norm,
        qk_epsilon=epsilon,
        use_bias=use_bias,
        out_bias=out_bias,
    )
    mixers = [mixer.clone(window=w) for w in self._windows(config, layers)]
    backbone = stack_lib.Stack(
        width=width,
        layers=layers,
        mixers=stacks.period(mixers),
        mlp=mlps.Dense(
            hidden=config.size('intermediate_size'),
            activation='swiglu',
            use_bias=config.flag('mlp_bias'),
        ),
        norm='rms',
        norm_epsilon=epsilon,
        scan=False,
        dtype=options.dtype,
    )
    return stacks.built(
        config, backbone, positions=config.whole('max_position_embeddings')
    )

  def _windows(self, config: fields.Fields, layers: int) -> list[int | None]:
    """The window of each layer."""
    if self.windows == 'none':
      return [None] * layers
    window = config.whole('sliding_window', null=True)
    if self.windows == 'all':
      return [window] * layers
    if not config.flag('use_sliding_window'):
      window = None
    first = config.whole('max_window_layers', least=0)
    kinds = layer_types(
        config, [SLIDING if i >= first else FULL for i in range(layers)]
    )
    return [window if kind == SLIDING else None for kind in kinds]

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
    entries = stacks.ends(model, _TABLE)
    for i in range(backbone.layers):
      ours, theirs = f'{stacks.BACKBONE}.layer_{i}', f'model.layers.{i}'
      mixer = backbone.mixers[i % len(backbone.mixers)]
      entries += stacks.attention_names(
          mixer, f'{ours}.mixer', f'{theirs}.self_attn'
      )
      for name in ('gate', 'up', 'down'):
        entries += stacks.projection(
            f'{ours}.mlp.{name}',
            f'{theirs}.mlp.{name}_proj',
            backbone.mlp.use_bias,
        )
      entries += norms(ours, theirs)
    return entries + stacks.norm(f'{stacks.BACKBONE}.norm', 'model.norm')


def layer_types(config: fields.Fields, default: list[str]) -> list[str]:
  """The kind of attention of each layer.

  Args:
    config: its `layer_types`, or null.
    default: for null.
  """
  if config.raw('layer_types') is None:
    return default
  kinds = config.items('layer_types')
  if len(kinds) != len(default) or not set(kinds) <= {SLIDING, FULL}:
    raise config.error(
        'layer_types', f'{SLIDING} or {FULL} for each of {len(default)} layers'
    )
  return kinds


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


def window_config(backbone: stack_lib.Stack) -> dict[str, Any]:
  """Which layers see a window only, and its size."""
  windows = [m.window for m in backbone.mixers]
  windows *= backbone.layers // len(windows)
  return {
      'sliding_window': next(filter(None, windows), None),
      'layer_types': [SLIDING if w else FULL for w in windows],
  }


def norms(ours: str, theirs: str) -> list[interop_base.Entry]:
  """Of a layer's two branches."""
  return [
      *stacks.norm(f'{ours}.mixer_norm', f'{theirs}.input_layernorm'),
      *stacks.norm(f'{ours}.mlp_norm', f'{theirs}.post_attention_layernorm'),
  ]
