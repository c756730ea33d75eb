"""stable-audio's autoencoder against a restatement in torch.

diffusers itself is too large for a test. What is restated is the arithmetic of
its `AutoencoderOobleck`, with the names of its weights; the restatement was
compared with diffusers 0.42.1 by hand (equal to 1e-6).
"""

import functools

import jax
import numpy as np
import pytest

torch = pytest.importorskip('torch')

from audiolm_jax import interop  # noqa: E402
from audiolm_jax.interop import base as interop_base  # noqa: E402
from audiolm_jax.interop import files  # noqa: E402
from audiolm_jax.tokenizers import base as tokenizers_base  # noqa: E402
from tests.parity import codec_models  # noqa: E402

pytestmark = pytest.mark.parity

_SMALL = {
    '_class_name': 'AutoencoderOobleck',
    'encoder_hidden_size': 8,
    'downsampling_ratios': [2, 3],
    'channel_multiples': [1, 2],
    'decoder_channels': 6,
    'decoder_input_channels': 4,
    'audio_channels': 2,
    'sampling_rate': 44100,
}
_FULL = {
    **_SMALL,
    'encoder_hidden_size': 128,
    'downsampling_ratios': [2, 4, 4, 8, 8],
    'channel_multiples': [1, 2, 4, 8, 16],
    'decoder_channels': 128,
    'decoder_input_channels': 64,
}


class _Oobleck:
  """The model; a weight is drawn when it is first used."""

  def __init__(self, config):
    self.config = config
    self.tensors = {}
    self._rng = np.random.default_rng(0)

  def _get(self, name, shape, scale, offset=0.0):
    if name not in self.tensors:
      noise = self._rng.standard_normal(shape, np.float32)
      self.tensors[name] = np.float32(offset) + np.float32(scale) * noise
    return torch.from_numpy(self.tensors[name])

  def _conv(self, x, name, out, width, *, bias=True, up=False, **options):
    inputs = x.shape[1]
    shape = (inputs, out, width) if up else (out, inputs, width)
    v = self._get(f'{name}.weight_v', shape, 1.0)
    g = self._get(f'{name}.weight_g', (shape[0], 1, 1), 0.1, 0.6)
    w = g * v / v.pow(2).sum((1, 2), keepdim=True).sqrt()
    b = self._get(f'{name}.bias', (out,), 0.1) if bias else None
    convolve = torch.conv_transpose1d if up else torch.conv1d
    return convolve(x, w, b, **options)

  def _snake(self, x, name):
    alpha, beta = (
        self._get(f'{name}.{n}', (1, x.shape[1], 1), 0.3).exp()
        for n in ('alpha', 'beta')
    )
    return x + torch.sin(alpha * x) ** 2 / (beta + 1e-9)

  def _units(self, x, name):
    for i, dilation in enumerate((1, 3, 9), 1):
      unit = f'{name}.res_unit{i}'
      y = self._snake(x, f'{unit}.snake1')
      y = self._conv(
          y,
          f'{unit}.conv1',
          x.shape[1],
          7,
          dilation=dilation,
          padding=3 * dilation,
      )
      y = self._snake(y, f'{unit}.snake2')
      x = x + self._conv(y, f'{unit}.conv2', x.shape[1], 1)
    return x

  def encoder(self, x):
    width = self.config['encoder_hidden_size']
    x = self._conv(x, 'encoder.conv1', width, 7, padding=3)
    for i, stride in enumerate(self.config['downsampling_ratios']):
      block = f'encoder.block.{i}'
      x = self._snake(self._units(x, block), f'{block}.snake1')
      x = self._conv(
          x,
          f'{block}.conv1',
          width * self.config['channel_multiples'][i],
          2 * stride,
          stride=stride,
          padding=(stride + 1) // 2,
      )
    x = self._snake(x, 'encoder.snake1')
    return self._conv(x, 'encoder.conv2', width, 3, padding=1)

  def decoder(self, x):
    width = self.config['decoder_channels']
    multiples = [1, *self.config['channel_multiples']][::-1]
    x = self._conv(x, 'decoder.conv1', width * multiples[0], 7, padding=3)
    for i, stride in enumerate(self.config['downsampling_ratios'][::-1]):
      block = f'decoder.block.{i}'
      x = self._conv(
          self._snake(x, f'{block}.snake1'),
          f'{block}.conv_t1',
          width * multiples[i + 1],
          2 * stride,
          up=True,
          stride=stride,
          padding=(stride + 1) // 2,
      )
      x = self._units(x, block)
    x = self._snake(x, 'decoder.snake1')
    channels = self.config['audio_channels']
    return self._conv(x, 'decoder.conv2', channels, 7, padding=3, bias=False)


def _saved(config, directory):
  """The reference, and its weights in the directory."""
  model = _Oobleck(config)
  hop = int(np.prod(config['downsampling_ratios']))
  x = torch.zeros(1, config['audio_channels'], hop)
  model.decoder(model.encoder(x)[:, : config['decoder_input_channels']])
  files.write(directory, config, model.tensors)
  (directory / files.WEIGHTS).rename(directory / files.DIFFUSERS)
  return model


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  directory = tmp_path_factory.mktemp('oobleck')
  return _saved(_SMALL, directory), directory


@functools.cache
def _loaded(directory, **options):
  codec, variables = interop.load_pretrained(
      directory, drop_samples=True, **options
  )
  interop_base.check_complete(interop.FAMILIES['oobleck'], codec)
  return codec, variables, _outputs(codec)


def _outputs(codec):
  """jit(variables, x, num_samples, latents) -> (encoder's output, means, audio)."""

  @functools.partial(
      jax.jit, compiler_options={'xla_backend_optimization_level': 0}
  )
  def run(variables, x, num_samples, latents):
    tokens = tokenizers_base.Tokens(num_samples=num_samples, latents=latents)
    encoded, mask = codec.encode_latents(variables['params'], x, num_samples)
    # The bottleneck has no parameters.
    found = codec.bottleneck.quantise(
        {'params': {}, 'state': {}}, encoded, mask
    )
    return encoded, found.tokens, codec.decode(variables, tokens)[0]

  return run


def _check(model, directory, num_samples, **options):
  """Each row of a padded batch is what the reference makes of it alone."""
  codec, variables, run = _loaded(directory, **options)
  x = codec_models.audio(len(num_samples), 2, max(num_samples))
  frames = -(-max(num_samples) // codec.hop)
  shape = (len(num_samples), frames, codec.spec.dimension)
  given = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
  padded = np.where(
      np.arange(max(num_samples))[:, None] < num_samples[:, None, None],
      x,
      np.nan,
  ).astype(np.float32)
  latents, means, audio = run(variables, padded, num_samples, given)
  for row, length in enumerate(num_samples):
    own = -(-length // codec.hop)
    alone = np.pad(x[row, :length], ((0, own * codec.hop - length), (0, 0)))
    expected = model.encoder(torch.from_numpy(alone.T[None])).numpy()[0].T
    codec_models.close(latents[row, :own], expected)
    width = codec.spec.dimension
    codec_models.close(means[row, :own], expected[:, :width])
    one = given[row : row + 1, :own].transpose(0, 2, 1)
    expected = model.decoder(torch.from_numpy(one)).numpy()[0].T[:length]
    codec_models.close(audio[row, : len(expected)], expected)
    assert not np.asarray(audio)[row, len(expected) :].any()


@pytest.mark.parametrize('weight_norm', [False, True])
def test_latents_and_audio_are_those_of_the_reference(small, weight_norm):
  num_samples = np.array([247, 120, 7, 6, 1])
  _check(*small, num_samples, weight_norm=weight_norm)


@pytest.mark.parametrize('weight_norm', [False, True])
def test_saved_weights_are_the_same(small, tmp_path, weight_norm):
  model, directory = small
  codec, variables, _ = _loaded(directory, weight_norm=weight_norm)
  interop.save_pretrained(tmp_path, codec, variables, 'oobleck')
  config, tensors = files.read(tmp_path)
  assert config == _SMALL
  assert set(tensors) == set(model.tensors)
  for name, value in tensors.items():
    if weight_norm or 'weight' not in name:
      np.testing.assert_array_equal(value, model.tensors[name], name)
  again, _ = interop.load_pretrained(tmp_path)
  assert again.encoder == interop.load_pretrained(directory)[0].encoder


def test_any_two_weights_exchanged_show(small):
  _, directory = small
  codec, variables, run = _loaded(directory, weight_norm=False)
  num_samples = np.array([247, 120, 7, 6, 1])
  x = codec_models.audio(5, 2, 247)
  given = run(variables, x, num_samples, np.zeros((5, 42, 4), np.float32))[1]
  codec_models.assert_permutations_show(
      directory, lambda v: run(v, x, num_samples, given)
  )


@pytest.mark.slow
def test_full_size(tmp_path):
  model = _saved(_FULL, tmp_path)
  _check(model, tmp_path, np.array([12345, 3000]))
