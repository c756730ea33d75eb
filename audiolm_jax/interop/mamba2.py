"""Mamba-2 as transformers has it (`Mamba2ForCausalLM`)."""

import math

from audiolm_jax.decoders import stack
from audiolm_jax.decoders.mixers import mamba2
from audiolm_jax.interop import base
from audiolm_jax.interop import language_model
from audiolm_jax.interop import stacks

_TABLE = 'backbone.embeddings.weight'


class Mamba2(base.Family):
  """Layers that are mixers only, each after a norm.

  Where its rows are padded on the left and projections have biases,
  transformers lets the padding into the convolution; here a row is what it is
  alone. Nor do its steps with a cache keep to `time_step_limit`; these do.
  """

  def recognises(self, config):
    return config.get('model_type') == 'mamba2'

  def build(self, config, options):
    stacks.require(config, {'hidden_act': 'silu'})
    width, inner = config['hidden_size'], config['head_dim']
    inner *= config['num_heads']
    if inner != width * config['expand']:
      raise base.PretrainedError(
          f'{config["num_heads"]} heads of {config["head_dim"]} are not'
          f' {config["expand"]} times the width {width}'
      )
    floor, ceiling = map(_number, config['time_step_limit'])
    mixer = mamba2.Mamba2(
        expand=config['expand'],
        state_width=config['state_size'],
        head_width=config['head_dim'],
        groups=config['n_groups'],
        conv_width=config['conv_kernel'],
        chunk=config['chunk_size'],
        dt_min=config['time_step_min'],
        dt_max=config['time_step_max'],
        dt_floor=floor,
        dt_ceiling=None if math.isinf(ceiling) else ceiling,
        use_bias=config['use_bias'],
        conv_bias=config['use_conv_bias'],
        norm_epsilon=config['layer_norm_epsilon'],
    )
    backbone = stack.Stack(
        width=width,
        layers=config['num_hidden_layers'],
        mixers=(mixer,),
        mlp=None,
        norm='rms',
        norm_epsilon=config['layer_norm_epsilon'],
        scan=False,
        dtype=options.dtype,
    )
    return language_model.LanguageModel(
        decoder=language_model.decoder(
            config['vocab_size'],
            backbone,
            config.get('tie_word_embeddings', False),
        ),
        **stacks.special_ids(config),
    )

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
    found = stacks.ends(model, _TABLE)
    for i in range(backbone.layers):
      ours, theirs = f'{stacks.BACKBONE}.layer_{i}', f'backbone.layers.{i}'
      found += stacks.norm(f'{ours}.mixer_norm', f'{theirs}.norm')
      ours, theirs = f'{ours}.mixer', f'{theirs}.mixer'
      for name, short in (('input', 'in'), ('out', 'out')):
        found += stacks.projection(
            f'{ours}.{name}', f'{theirs}.{short}_proj', mixer.use_bias
        )
      # One filter a channel: [channels, 1, taps].
      kernel = base.Layout(
          (f'{theirs}.conv1d.weight',),
          lambda w: (w[:, 0].T,),
          lambda w: (w.T[:, None],),
      )
      found.append(base.Entry((f'{ours}.conv.kernel',), (kernel,)))
      vectors = {
          'dt_bias': 'dt_bias',
          'log_rate': 'A_log',
          'skip': 'D',
          'norm': 'norm.weight',
      }
      if mixer.conv_bias:
        vectors['conv.bias'] = 'conv1d.bias'
      found += [
          base.plain(f'{ours}.{here}', f'{theirs}.{there}')
          for here, there in vectors.items()
      ]
    return found + stacks.norm(f'{stacks.BACKBONE}.norm', 'backbone.norm_f')


def _number(value) -> float:
  """A number of a config.json, in which transformers spells infinity out."""
  return float(value['__float__'] if isinstance(value, dict) else value)
