"""SNAC: the same weights in its own package and here.

Its decoder adds noise, ours only when given a key. For comparisons noise is zero,
or one everywhere.
"""

import functools
import json
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip('torch')
snac = pytest.importorskip('snac')

from audiolm_jax import interop  # noqa: E402
from audiolm_jax.interop import base as interop_base  # noqa: E402
from audiolm_jax.interop import files  # noqa: E402
from audiolm_jax.tokenizers import base as tokenizers_base  # noqa: E402
from tests.parity import codec_models  # noqa: E402
from tests.parity import dac_models  # noqa: E402

pytestmark = pytest.mark.parity

_SMALL = {
    'sampling_rate': 24000,
    'encoder_dim': 16,
    'encoder_rates': [2, 3],
    'latent_dim': None,
    'decoder_dim': 64,
    'decoder_rates': [3, 2],
    'attn_window_size': 6,
    'codebook_size': 32,
    'codebook_dim': 4,
    'vq_strides': [4, 2, 1],
    'noise': True,
    'depthwise': True,
}
_PLAIN = {
    **_SMALL,
    'attn_window_size': None,
    'depthwise': False,
    'noise': False,
}
# The three published ones.
_24KHZ = {
    **_SMALL,
    'encoder_dim': 48,
    'encoder_rates': [2, 4, 8, 8],
    'attn_window_size': None,
    'decoder_dim': 1024,
    'decoder_rates': [8, 8, 4, 2],
    'codebook_size': 4096,
    'codebook_dim': 8,
}
_32KHZ = {
    **_24KHZ,
    'sampling_rate': 32000,
    'encoder_dim': 64,
    'encoder_rates': [2, 3, 8, 8],
    'decoder_dim': 1536,
    'decoder_rates': [8, 8, 3, 2],
    'attn_window_size': 32,
    'vq_strides': [8, 4, 2, 1],
}
_44KHZ = {**_32KHZ, 'sampling_rate': 44100}


def _saved(config, directory):
  """The package's model, and its weights in the directory."""
  torch.manual_seed(0)
  model = snac.SNAC(**config)
  dac_models.randomise(model)
  size = int(model.hop_length) * (config['attn_window_size'] or 8)
  found = dac_models.latents(model, size, config['codebook_size'])
  dac_models.fill_codebooks(model.quantizer.quantizers, found)
  tensors = {k: v.numpy() for k, v in model.state_dict().items()}
  files.write(directory, config, tensors)
  return model


@pytest.fixture(scope='module', params=[_SMALL, _PLAIN], ids=['all', 'plain'])
def small(request, tmp_path_factory):
  directory = tmp_path_factory.mktemp('snac')
  return _saved(request.param, directory), directory


@functools.cache
def _loaded(directory, **options):
  codec, variables = interop.load_pretrained(directory, **options)
  interop_base.check_complete(interop.FAMILIES['snac'], codec)
  return codec, variables, dac_models.outputs(codec)


def _batch(codec):
  """Audio and lengths, some awkward; about 150 latent frames."""
  hop = codec.hop
  most = -(-150 // codec.bottleneck.frames)
  num_samples = np.array([most * hop, most // 2 * hop + 1, 3 * hop - 1, hop, 1])
  return codec_models.audio(len(num_samples), 1, most * hop), num_samples


def _noisy(codec):
  """jit(variables, codes) -> audio, with noise that is one everywhere."""

  def ones(key, shape, dtype):
    del key
    return jnp.ones(shape, dtype)

  @functools.partial(
      jax.jit, compiler_options={'xla_backend_optimization_level': 0}
  )
  def run(variables, codes):
    tokens = tokenizers_base.Tokens(
        num_samples=jnp.zeros(len(codes)), codes=codes
    )
    latents = codec.dequantise(variables, tokens)
    params = {'params': variables['params']['decoder']}
    mask = jnp.ones(latents.shape[:2], bool)
    with mock.patch.object(jax.random, 'normal', ones):
      return codec.decoder.layer.apply(
          params, latents, mask, {'noise': jax.random.key(0)}
      )[0][..., 0]

  return run


def _theirs(model, frames, x, noise=0.0):
  """Latents, codes [N, K] and audio of x [1, T, 1].

  Args:
    model: the package's.
    frames: latent frames of one of our token frames.
    x: a clip.
    noise: what it is everywhere.
  """
  same = mock.patch.object(torch, 'randn', lambda s, **o: torch.full(s, noise))
  with torch.no_grad(), same:
    padded = model.preprocess(torch.from_numpy(x.transpose(0, 2, 1)))
    latents = model.encoder(padded)[0].T.numpy()
    levels = model.encode(torch.from_numpy(x.transpose(0, 2, 1)))
    audio = model.decode(levels)[0, 0, : x.shape[1]].numpy()
  rows = len(latents) // frames
  codes = np.concatenate([c[0].numpy().reshape(rows, -1) for c in levels], 1)
  return latents, codes, audio


def _used(codec, codes, vocabulary):
  """Every level of codes [1, N, K] tells frames apart."""
  books = np.array([slot.codebook for slot in codec.spec.slots])
  for level in range(books.max() + 1):
    own = codes[..., books == level].reshape(1, -1, 1)
    codec_models.used(own, vocabulary)


@pytest.mark.parametrize('weight_norm', [False, True])
def test_latents_codes_and_audio_are_those_of_the_package(small, weight_norm):
  model, directory = small
  codec, variables, run = _loaded(directory, weight_norm=weight_norm)
  x, num_samples = _batch(codec)
  reference = functools.partial(_theirs, model, codec.bottleneck.frames)
  _, kept, codes = dac_models.assert_same(
      run, variables, x, num_samples, reference
  )
  np.testing.assert_array_equal(kept, num_samples)
  _used(codec, codes[:1], model.codebook_size)


def test_slots_are_in_time(small):
  """A slot's offset is where the package's code of that level stands."""
  model, directory = small
  codec, _, _ = _loaded(directory, weight_norm=False)
  frames = codec.bottleneck.frames
  levels = model.encode(torch.zeros(1, 1, codec.hop))
  offsets = [
      i / len(level[0]) for level in levels for i in range(len(level[0]))
  ]
  assert [slot.offset for slot in codec.spec.slots] == offsets
  assert frames % max(model.vq_strides) == 0


def test_saved_weights_load_in_the_package(small, tmp_path):
  model, directory = small
  expected = model.state_dict()
  for weight_norm in (False, True):
    codec, variables, _ = _loaded(directory, weight_norm=weight_norm)
    interop.save_pretrained(tmp_path, codec, variables, 'snac')
    config = json.loads((tmp_path / files.CONFIG).read_text('utf-8'))
    again = snac.SNAC(**config).eval()
    _, tensors = files.read(tmp_path)
    again.load_state_dict({k: torch.from_numpy(v) for k, v in tensors.items()})
    for name, value in again.state_dict().items():
      if weight_norm or 'original' not in name:
        codec_models.close(value, expected[name], 1e-6)


def test_noise_is_added_where_the_package_adds_it(small):
  model, directory = small
  codec, variables, _ = _loaded(directory, weight_norm=False)
  x = codec_models.audio(1, 1, 10 * codec.hop)
  still, noisy = (
      _theirs(model, codec.bottleneck.frames, x, noise) for noise in (0.0, 1.0)
  )
  found = _noisy(codec)(variables, noisy[1][None])
  codec_models.close(found[0], noisy[2])
  assert codec.decoder.noise == bool(np.abs(still[2] - noisy[2]).max() > 1e-2)


# It has the names of the other one, and more.
@pytest.mark.parametrize('small', [_SMALL], ids=['all'], indirect=True)
def test_any_two_weights_exchanged_show(small):
  _, directory = small
  codec, variables, run = _loaded(directory, weight_norm=False)
  x, num_samples = _batch(codec)
  shape = (len(num_samples), -(-x.shape[1] // codec.hop), len(codec.spec.slots))
  codes = run(variables, x, num_samples, np.zeros(shape, np.int32))[1]

  noisy = _noisy(codec)

  def changed(variables):
    latents, found, _, audio, _ = run(variables, x, num_samples, codes)
    return latents, found, audio, noisy(variables, codes)

  codec_models.assert_permutations_show(directory, changed)


@pytest.mark.slow
@pytest.mark.parametrize('config', [_24KHZ, _32KHZ, _44KHZ], ids=[24, 32, 44])
def test_full_size(config, tmp_path):
  model = _saved(config, tmp_path)
  codec, variables, run = _loaded(tmp_path)
  num_samples = np.array([config['sampling_rate'] + 1234, 7000])
  x = codec_models.audio(2, 1, num_samples.max())
  reference = functools.partial(_theirs, model, codec.bottleneck.frames)
  dac_models.assert_same(run, variables, x, num_samples, reference)
