"""Mamba-2 as transformers has it (`Mamba2ForCausalLM`)."""

import math

from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import mamba2
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import stacks

_TABLE = 'backbone.embeddings.weight'


class Mamba2(interop_base.Family):
  """Layers that are mixers only, each after a norm.

  Where its rows are padded on the left and projections have biases,
  transformers lets the padding into the convolution; here a row is what it is
  alone. Nor do its steps with a cache keep to `time_step_limit`; these do.
  """

  defaults = {
      'vocab_size': 32768,
      'hidden_size': 4096,
      'num_hidden_layers': 64,
      'num_heads': 128,
      'head_dim': 64,
      'expand': 2,
      'state_size': 128,
      'n_groups': 8,
      'conv_kernel': 4,
      'chunk_size': 256,
      'use_bias': False,
      'use_conv_bias': True,
      'layer_norm_epsilon': 1e-5,
      'time_step_min': 0.001,
      'time_step_max': 0.1,
      'time_step_limit': (0.0, math.inf),
      'bos_token_id': 0,
      'eos_token_id': 2,
      'tie_word_embeddings': False,
  }

  def recognises(self, config):
    return config.get('model_type') == 'mamba2'

  def make(self, config, options):
    config.require({'hidden_act': 'silu'})
    width, expand = config.size('hidden_size'), config.size('expand')
    heads, head_width = config.size('num_heads'), config.size('head_dim')
    if heads * head_width != width * expand:
      raise interop_base.PretrainedError(
          f'{heads} heads of {head_width} are not {expand} times the width'
          f' {width}'
      )
    groups = config.size('n_groups')
    if heads % groups:
      raise config.error('n_groups', f'a divisor of {heads} heads')
    limits = config.items('time_step_limit')
    if len(limits) != 2:
      raise config.error('time_step_limit', 'two numbers')
    floor, ceiling = (_number(config, limit) for limit in limits)
    if not 0 <= floor < ceiling or math.isinf(floor):
      raise config.error('time_step_limit', 'two numbers from 0, ascending')
    epsilon = config.number('layer_norm_epsilon', least=0.0)
    mixer = mamba2.Mamba2(
        expand=expand,
        state_width=config.size('state_size'),
        head_width=head_width,
        groups=groups,
        conv_width=config.size('conv_kernel'),
        chunk=config.whole('chunk_size'),
        dt_min=config.number('time_step_min', above=0.0),
        dt_max=config.number('time_step_max', above=0.0),
        dt_floor=floor,
        dt_ceiling=None if math.isinf(ceiling) else ceiling,
        use_bias=config.flag('use_bias'),
        conv_bias=config.flag('use_conv_bias'),
        norm_epsilon=epsilon,
    )
    backbone = stack_lib.Stack(
        width=width,
        layers=config.count('num_hidden_layers'),
        mixers=(mixer,),
        mlp=None,
        norm='rms',
        norm_epsilon=epsilon,
        scan=False,
        dtype=options.dtype,
    )
    return stacks.built(config, backbone)

  def config_of(self, model):
    backbone = model.backbone
    mixer = backbone.mixers[0]
    ceiling = math.inf if mixer.dt_ceiling is None else mixer.dt_ceiling
    config = {
        **stacks.common_config(model, 'mamba2', 'Mamba2ForCausalLM'),
        'hidden_size': backbone.width,
        'num_hidden_layers': backbone.layers,
        'layer_norm_epsilon': backbone.norm_epsilon,
        'hidden_act': 'silu',
        'expand': mixer.expand,
        'state_size': mixer.state_width,
        'head_dim': mixer.head_width,
        'num_heads': backbone.width * mixer.expand // mixer.head_width,
        'n_groups': mixer.groups,
        'conv_kernel': mixer.conv_width,
        'chunk_size': mixer.chunk,
        'time_step_min': mixer.dt_min,
        'time_step_max': mixer.dt_max,
        'time_step_limit': [mixer.dt_floor, ceiling],
        'use_bias': mixer.use_bias,
        'use_conv_bias': mixer.conv_bias,
    }
    return stacks.checked(self, model, config)

  def canonical(self, model, tensors):
    return stacks.canonical(model, tensors, 'backbone.', _TABLE, ())

  def entries(self, model):
    backbone = model.backbone
    mixer = backbone.mixers[0]
    entries = stacks.ends(model, _TABLE)
    for i in range(backbone.layers):
      ours, theirs = f'{stacks.BACKBONE}.layer_{i}', f'backbone.layers.{i}'
      entries += stacks.norm(f'{ours}.mixer_norm', f'{theirs}.norm')
      ours, theirs = f'{ours}.mixer', f'{theirs}.mixer'
      for name, short in (('input', 'in'), ('out', 'out')):
        entries += stacks.projection(
            f'{ours}.{name}', f'{theirs}.{short}_proj', mixer.use_bias
        )
      # One filter a channel: [channels, 1, taps].
      kernel = interop_base.Layout(
          (f'{theirs}.conv1d.weight',),
          lambda w: (w[:, 0].T,),
          lambda w: (w.T[:, None],),
      )
      entries.append(interop_base.Entry((f'{ours}.conv.kernel',), (kernel,)))
      vectors = {
          'dt_bias': 'dt_bias',
          'log_rate': 'A_log',
          'skip': 'D',
          'norm': 'norm.weight',
      }
      if mixer.conv_bias:
        vectors['conv.bias'] = 'conv1d.bias'
      entries += [
          interop_base.plain(f'{ours}.{here}', f'{theirs}.{there}')
          for here, there in vectors.items()
      ]
    return entries + stacks.norm(f'{stacks.BACKBONE}.norm', 'backbone.norm_f')


def _number(config, value) -> float:
  """A number of a limit, in which transformers spells infinity out."""
  spelled = isinstance(value, dict) and value.get('__float__') == 'Infinity'
  value = math.inf if spelled else value
  if isinstance(value, bool) or not isinstance(value, int | float):
    raise config.error('time_step_limit', 'two numbers')
  return float(value)
