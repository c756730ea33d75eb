"""DAC: the same weights in transformers and here."""

import dataclasses
import functools

import numpy as np
import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from audiolm_jax import interop  # noqa: E402
from audiolm_jax.interop import base as interop_base  # noqa: E402
from audiolm_jax.tokenizers.parts import dac  # noqa: E402
from tests.parity import codec_models  # noqa: E402
from tests.parity import dac_models  # noqa: E402

pytestmark = pytest.mark.parity

_SMALL = {
    'encoder_hidden_size': 4,
    'decoder_hidden_size': 16,
    'n_codebooks': 3,
    'codebook_size': 32,
    'codebook_dim': 4,
}
# The three published ones.
_16KHZ = {
    'sampling_rate': 16000,
    'downsampling_ratios': [2, 4, 5, 8],
    'n_codebooks': 12,
}
_24KHZ = {**_16KHZ, 'sampling_rate': 24000, 'n_codebooks': 32}
_44KHZ = {
    'sampling_rate': 44100,
    'downsampling_ratios': [2, 4, 8, 8],
    'n_codebooks': 9,
}


def _model(weight_norm=False, **options):
  """transformers' model, with codebooks of what its encoder says."""
  model = transformers.DacModel(transformers.DacConfig(**options)).eval()
  if weight_norm:
    model.apply_weight_norm()
  dac_models.randomise(model)
  config = model.config
  found = dac_models.latents(model, config.hop_length, config.codebook_size)
  dac_models.fill_codebooks(model.quantizer.quantizers, found)
  return model


@pytest.fixture(scope='module', params=['odd strides', 'even strides'])
def small(request, tmp_path_factory):
  """(transformers' model, the directory it was saved to)."""
  if request.param == 'odd strides':
    # Folded, as the published files are.
    model = _model(downsampling_ratios=[2, 5], **_SMALL)
  else:
    model = _model(True, downsampling_ratios=[4, 2], **_SMALL)
  directory = tmp_path_factory.mktemp('dac')
  model.save_pretrained(directory)
  return model, directory


@functools.cache
def _loaded(directory, **options):
  """(codec, variables, `dac_models.outputs`), compiled once."""
  codec, variables = interop.load_pretrained(directory, **options)
  interop_base.check_complete(interop.FAMILIES['dac'], codec)
  return codec, variables, dac_models.outputs(codec)


def _theirs(model, x):
  """Latents, codes and audio of x [1, T, 1], padded to frames as by theirs."""
  missing = -x.shape[1] % model.config.hop_length
  x = np.pad(x, ((0, 0), (0, missing), (0, 0))).transpose(0, 2, 1)
  with torch.no_grad():
    latents = model.encoder(torch.from_numpy(x))
    codes = model.encode(torch.from_numpy(x)).audio_codes
    audio = model.decode(audio_codes=codes).audio_values
  return latents[0].T.numpy(), codes[0].T.numpy(), audio[0].numpy()


def _batch(codec):
  """Audio and lengths, some awkward."""
  hop = codec.hop
  num_samples = np.array([123 * hop - 3, 40 * hop, 33 * hop + 1, hop, 1])
  return codec_models.audio(len(num_samples), 1, 123 * hop), num_samples


@pytest.mark.parametrize('weight_norm', [False, True])
def test_latents_codes_and_audio_are_those_of_transformers(small, weight_norm):
  model, directory = small
  codec, variables, run = _loaded(
      directory, weight_norm=weight_norm, drop_samples=True
  )
  x, num_samples = _batch(codec)
  audio, kept, codes = dac_models.assert_same(
      run, variables, x, num_samples, functools.partial(_theirs, model)
  )
  codec_models.used(codes[:1], model.config.codebook_size)
  # What the original drops is masked.
  dropped = 2 * (5 in model.config.downsampling_ratios)
  frames = -(-num_samples // codec.hop)
  np.testing.assert_array_equal(
      kept, np.minimum(num_samples, frames * codec.hop - dropped)
  )
  for row, length in enumerate(kept):
    assert not audio[row, length:].any()


def test_without_the_flag_nothing_is_dropped(small):
  model, directory = small
  codec, variables, run = _loaded(directory)
  samples = 60 * codec.hop
  x = codec_models.audio(1, 1, samples)
  _, codes, theirs = _theirs(model, x)
  *_, audio, kept = run(variables, x, np.array([samples]), codes[None])
  assert samples == int(kept[0])
  if 5 not in model.config.downsampling_ratios:
    # Nor does the original drop anything.
    codec_models.close(audio[0], theirs)
    return
  assert len(theirs) < samples
  assert np.abs(np.asarray(audio)[0, len(theirs) :]).min() > 0
  # Before what sees the end, three residual units at each rate, all is equal.
  same = len(theirs) - (39 + 3) - 2 * 39
  codec_models.close(audio[0, :same], theirs[:same])


@pytest.mark.parametrize('weight_norm', [False, True])
def test_saved_weights_load_in_transformers(small, tmp_path, weight_norm):
  model, directory = small
  codec, variables, _ = _loaded(
      directory, weight_norm=weight_norm, drop_samples=True
  )
  interop.save_pretrained(tmp_path, codec, variables, 'dac')
  again, info = transformers.DacModel.from_pretrained(
      tmp_path, output_loading_info=True
  )
  assert not any(info.values()), info
  x = codec_models.audio(1, 1, 40 * codec.hop)
  for ours, theirs in zip(_theirs(again, x), _theirs(model, x), strict=True):
    codec_models.close(ours, theirs, 1e-5)


def test_any_two_weights_exchanged_show(small):
  _, directory = small
  codec, variables, run = _loaded(
      directory, weight_norm=False, drop_samples=True
  )
  x, num_samples = _batch(codec)
  codes = run(variables, x, num_samples, np.zeros((5, 123, 3), np.int32))[1]

  def changed(variables):
    latents, found, _, audio, _ = run(variables, x, num_samples, codes)
    return latents, found, audio

  codec_models.assert_permutations_show(directory, changed)


def test_a_codec_that_dac_cannot_be_is_not_saved(small, tmp_path):
  _, directory = small
  codec, variables, _ = _loaded(directory, weight_norm=False, drop_samples=True)
  encoder = dac.DacEncoder(
      dimension=codec.encoder.dimension,
      strides=codec.encoder.strides,
      widths=(4, 8, 9),
      weight_norm=False,
  )
  other = dataclasses.replace(codec, encoder=encoder)
  with pytest.raises(interop.PretrainedError, match='no such encoder'):
    interop.save_pretrained(tmp_path, other, variables, 'dac')


@pytest.mark.slow
@pytest.mark.parametrize('options', [_16KHZ, _24KHZ, _44KHZ], ids=[16, 24, 44])
def test_full_size(options, tmp_path):
  model = _model(**options)
  model.save_pretrained(tmp_path)
  _, variables, run = _loaded(tmp_path, drop_samples=True)
  num_samples = np.array([options['sampling_rate'] + 1234, 7000])
  x = codec_models.audio(2, 1, num_samples.max())
  *_, codes = dac_models.assert_same(
      run, variables, x, num_samples, functools.partial(_theirs, model)
  )
  codec_models.used(codes[:1], model.config.codebook_size)
