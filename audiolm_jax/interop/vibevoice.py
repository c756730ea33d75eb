"""VibeVoice's acoustic tokenizer and its head as transformers has them."""

import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from audiolm_jax.data import moments as moments_lib
from audiolm_jax.decoders import latent_heads
from audiolm_jax.decoders import time_embedding
from audiolm_jax.decoders.latent_heads import network as network_lib
from audiolm_jax.interop import adaln
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import codecs
from audiolm_jax.interop import fields
from audiolm_jax.interop import files
from audiolm_jax.interop import stacks
from audiolm_jax.processes import gaussian
from audiolm_jax.processes import solvers
from audiolm_jax.processes import times as times_lib
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers.parts import convnext


class VibeVoiceTokenizer(interop_base.Family):
  """`VibeVoiceAcousticTokenizerModel`.

  Its rate is in no config.json, but in that of what prepares its audio, which
  also makes clips equally loud (-25 dB of full scale). The latter is not here.
  """

  defaults = {
      'sampling_rate': 24000,
      'channels': 1,
      'hidden_size': 64,
      'kernel_size': 7,
      'rms_norm_eps': 1e-5,
      'layer_scale_init_value': 1e-6,
      'num_filters': 32,
      'downsampling_ratios': (2, 2, 4, 5, 5, 8),
      'depths': (3, 3, 3, 3, 3, 3, 8),
      'hidden_act': 'gelu',
      'ffn_expansion': 4,
      'vae_std': 0.625,
  }

  def recognises(self, config):
    return config.get('model_type') == 'vibevoice_acoustic_tokenizer'

  def make(self, config, options):
    config.require({'hidden_act': 'gelu'})
    strides = config.wholes('downsampling_ratios', least=2)
    depths = config.wholes('depths')
    if len(depths) != len(strides) + 1:
      raise config.error('depths', f'{len(strides) + 1}, one more than strides')
    for depth in depths:
      config.check_count('depths', depth)
    filters = config.size('num_filters')
    config.check_size('num_filters', filters * 2 ** len(strides))
    dimension = config.size('hidden_size')
    sizes = {
        'channels': config.size('channels'),
        'dimension': dimension,
        'filters': filters,
        'kernel': config.size('kernel_size'),
        'expansion': config.size('ffn_expansion'),
        'norm_epsilon': config.number('rms_norm_eps', least=0.0),
        'layer_scale': config.number('layer_scale_init_value'),
    }
    return codec_lib.Codec(
        encoder=convnext.ConvNextEncoder(
            strides=strides, depths=depths, **sizes
        ),
        bottleneck=bottlenecks.BOTTLENECKS['sigma_vae'](
            dimension=dimension,
            project=False,
            std=config.number('vae_std', least=0.0),
        ),
        decoder=convnext.ConvNextDecoder(
            strides=strides[::-1], depths=depths[::-1], **sizes
        ),
        sample_rate=codecs.sample_rate(config),
        whole_frames=True,
        objective=('GAN', 'Feat', 'Rec'),
        domain=('speech',),
    )

  def config_of(self, codec):
    part = codec.encoder
    config = {
        'model_type': 'vibevoice_acoustic_tokenizer',
        'architectures': ['VibeVoiceAcousticTokenizerModel'],
        'sampling_rate': codec.sample_rate,
        'channels': part.channels,
        'hidden_size': part.dimension,
        'kernel_size': part.kernel,
        'rms_norm_eps': part.norm_epsilon,
        'layer_scale_init_value': part.layer_scale,
        'num_filters': part.filters,
        'downsampling_ratios': list(part.strides),
        'depths': list(part.depths),
        'hidden_act': 'gelu',
        'ffn_expansion': part.expansion,
        'vae_std': codec.bottleneck.std,
    }
    return codecs.checked(self, codec, config, weight_norm=False)

  def entries(self, codec):
    entries = []
    for name in ('encoder', 'decoder'):
      entries += _part_entries(getattr(codec, name), name)
    return entries


def _part_entries(part, name):
  """Of an encoder or a decoder."""
  ours, up = f'params.{name}', isinstance(part, convnext.ConvNextDecoder)
  last = len(part.depths)
  entries = interop_base.conv(f'{ours}.layers_{last}', f'{name}.head.conv')
  for i, depth in enumerate(part.depths):
    here = f'{ours}.layers_{i}'
    there = f'{name}.conv_layers.{i - 1}' if i else f'{name}.stem'
    transposed = up and i > 0
    conv = 'convtr.convtr' if transposed else 'conv.conv'
    entries += interop_base.conv(
        f'{here}.layers_0', f'{there}.{conv}', transposed=transposed
    )
    for j in range(depth):
      entries += _block_entries(f'{here}.layers_{j + 1}', f'{there}.stage.{j}')
  return entries


def _block_entries(ours, theirs):
  mixer, perceptron = (f'{ours}.layers_{i}.body' for i in (0, 1))
  return [
      *interop_base.conv(f'{mixer}.layers_1', f'{theirs}.mixer.conv'),
      *interop_base.linear(f'{perceptron}.layers_1', f'{theirs}.ffn.linear1'),
      *interop_base.linear(f'{perceptron}.layers_3', f'{theirs}.ffn.linear2'),
      *[
          interop_base.plain(f'{here}.scale', f'{theirs}.{there}')
          for here, there in (
              (f'{mixer}.layers_0', 'norm.weight'),
              (f'{mixer}.layers_2', 'gamma'),
              (f'{perceptron}.layers_0', 'ffn_norm.weight'),
              (f'{perceptron}.layers_4', 'ffn_gamma'),
          )
      ],
  ]


# -- the head of the language model -------------------------------------------


class DiffusionHead(NamedTuple):
  """VibeVoice's head, by itself.

  Attributes:
    head: `head.apply({'params': params}, ...)`; see `latent_heads.LatentHead`.
    params: its parameters.
    moments: of the latents that it sees normalised.
    width: of what it is given of the language model.
  """

  head: latent_heads.Diffusion
  params: Any
  moments: moments_lib.Moments
  width: int


def load_head(directory: str | os.PathLike) -> DiffusionHead:
  """The head of a `VibeVoiceForConditionalGeneration`, without the rest.

  At time t it is theirs at step 1000 t of 1000. The noise there is nearly the same:
  our cosine has neither the offset of .008 nor the last steps' bound of theirs
  (squaredcos_cap_v2), whose numbers a and b differ from ours by less than
  .006 and .013.

  Args:
    directory: with config.json and model.safetensors.

  Raises:
    PretrainedError: naming what is missing, damaged or does not fit.
  """
  config, tensors = files.scan(directory)
  family = _HeadFamily()
  try:
    if not family.recognises(config):
      found = fields.shown(config.get('model_type'))
      raise interop_base.PretrainedError(
          f"{fields.CONFIG}: model_type = {found}: expected 'vibevoice'"
      )
    limits = files.limits(tensors)
    model = family.build(config, interop_base.Options(), limits)
    variables = interop_base.load(family, model, tensors)
    moments = _moments(tensors, model.dimension)
  except interop_base.PretrainedError as error:
    raise interop_base.PretrainedError(f'{directory}: {error}') from error
  params = jax.tree.map(jnp.asarray, variables['params'])
  return DiffusionHead(model.head, params, moments, model.width)


class _HeadFamily(interop_base.Family):
  """Its object of the config.json, and its tensors; others are left alone."""

  def recognises(self, config):
    return config.get('model_type') == 'vibevoice'

  def make(self, config, options):
    config = config.part('diffusion_head_config', _HEAD_DEFAULTS)
    config.require({'hidden_act': 'silu', 'mlp_bias': False})
    waves = config.size('frequency_embedding_size', least=2)
    if waves % 2:
      raise config.error('frequency_embedding_size', 'an even number')
    width = config.size('hidden_size')
    network = network_lib.AdalnMlp(
        width=width,
        layers=config.count('num_hidden_layers'),
        time=time_embedding.TimeEmbedding(
            frequencies=waves // 2,
            span=config.number('diffusion_max_period', least=1.0),
            use_bias=False,
        ),
        hidden=config.size('intermediate_size'),
        activation='swiglu',
        norm='rms',
        norm_epsilon=config.number('rms_norm_eps', least=0.0),
        last_scale=False,
        use_bias=False,
    )
    head = latent_heads.Diffusion(
        network=network,
        process=gaussian.Cosine(),
        target='v',
        grid=times_lib.Grid(steps=10),
        solver=solvers.Dpm2m(),
    )
    return adaln.Head(head, width, config.size('latent_size'))

  def config_of(self, model):
    raise interop_base.PretrainedError('a head by itself is not written')

  def canonical(self, model, tensors):
    return {
        name.removeprefix(_HEAD): tensor
        for name, tensor in tensors.items()
        if name.startswith(_HEAD)
    }

  def entries(self, model):
    ours, network = 'params.network', model.head.network
    entries = []
    for here, there in (
        ('noisy', 'noisy_images_proj'),
        ('condition', 'cond_proj'),
        ('time_0.inner', 'timestep_proj.fc1'),
        ('time_0.outer', 'timestep_proj.fc2'),
        ('denoised', 'final_layer.linear_2'),
    ):
      entries += stacks.projection(f'{ours}.{here}', there, bias=False)
    for i in range(network.layers):
      block, theirs = f'{ours}.block_{i}', f'layers.{i}'
      entries += stacks.norm(f'{block}_norm', f'{theirs}.norm')
      entries += adaln.modulation(
          f'{block}_modulation', f'{theirs}.linear', 3, bias=False
      )
      for here, there in (('inner', 'up'), ('gate', 'gate'), ('outer', 'down')):
        entries += stacks.projection(
            f'{block}_{here}', f'{theirs}.ffn.{there}_proj', bias=False
        )
    return entries + adaln.modulation(
        f'{ours}.last_modulation', 'final_layer.linear_1', 2, bias=False
    )


_HEAD = 'model.diffusion_head.'
# But for sizes that are those of other parts.
_HEAD_DEFAULTS = {
    'num_hidden_layers': 4,
    'intermediate_size': 4608,
    'rms_norm_eps': 1e-5,
    'frequency_embedding_size': 256,
    'diffusion_max_period': 10_000,
}


def _moments(tensors, dimension):
  """Theirs is (latents + bias) scale, of two numbers."""
  numbers = []
  for name in ('latent_bias_factor', 'latent_scaling_factor'):
    name = f'model.{name}'
    if name not in tensors:
      raise interop_base.PretrainedError(f'missing: {name}')
    value = np.asarray(tensors[name], np.float64)
    if value.shape or not np.isfinite(value):
      raise interop_base.PretrainedError(
          f'{name} = {value}: expected one finite number'
      )
    numbers.append(float(value))
  bias, scale = numbers
  if scale <= 0:
    raise interop_base.PretrainedError(
        f'model.latent_scaling_factor = {scale}: expected more than 0'
    )
  return moments_lib.Moments((-bias,) * dimension, (1 / scale,) * dimension)
