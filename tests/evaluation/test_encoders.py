"""A tokenizer of the user's as a frozen encoder of audio."""

import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import evaluation
from audiolm_jax.audio import resample
from audiolm_jax.evaluation import encoders
from audiolm_jax.models import audio_tokenizer
from tests.evaluation import reconstructing
from tests.models import small_directories
from tests.tokenizers import tiny

# Frames of 16 samples at 1.6 kHz.
SECONDS = (0.5, 0.9, 0.055, 1.3)


def _clips(rate=tiny.RATE, channels=1):
  rng = np.random.default_rng(0)
  return [
      (
          0.2 * rng.standard_normal((round(s * rate), channels)).astype('f'),
          rate,
      )
      for s in SECONDS
  ]


@pytest.fixture(scope='module', params=['state', 'continuous'])
def model(request, tmp_path_factory):
  """A tiny codec, its directory, and whether it has codes."""
  module, variables = tiny.codec(request.param)
  path = tmp_path_factory.mktemp('encoders') / request.param
  small_directories.write(path, 'codec', module, variables)
  bound = audio_tokenizer.AudioTokenizer(module, variables)
  return bound, path, request.param == 'state'


def _frames(bound, audio):
  """[F, D] of one clip alone, of what its codes stand for, or its latents."""
  tokens = bound.encode(audio[None])
  if tokens.codes is None:
    return tokens.latents[0]
  tables = bound.code_vectors()
  rows = [
      np.concatenate(
          [table[code] for table, code in zip(tables, codes, strict=True)]
      )
      for codes in tokens.codes[0]
  ]
  return np.stack(rows)


def test_a_clip_is_the_mean_and_spread_of_its_frames_alone(model):
  bound, path, _ = model
  encode = encoders.OfModel(path=str(path)).open()
  found = encode(_clips())
  for vector, (audio, _) in zip(found, _clips(), strict=True):
    frames = _frames(bound, audio).astype(np.float64)
    assert len(frames) == -(-len(audio) // tiny.HOP)
    expected = np.concatenate([frames.mean(axis=0), frames.std(axis=0)])
    np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)
  assert np.ptp(found, axis=0).max() > 1e-3
  # No clip's vector depends on what stands beside it.
  np.testing.assert_allclose(
      encode(_clips()[1:2])[0], found[1], rtol=1e-4, atol=1e-5
  )


def test_other_rates_and_channels_are_brought_to_the_models(model):
  bound, path, _ = model
  encode = encoders.OfModel(path=str(path)).open()
  stereo = _clips(16000, 2)
  brought = [
      (resample.resample(resample.remix(x, 1), rate, tiny.RATE), tiny.RATE)
      for x, rate in stereo
  ]
  # Channels and rates may come in either order, to rounding.
  np.testing.assert_allclose(
      encode(stereo), encode(brought), rtol=1e-3, atol=1e-3
  )


def test_the_hash_is_that_of_the_model(model, tmp_path):
  bound, path, _ = model
  first, again = (encoders.OfModel(path=str(path)).open() for _ in range(2))
  assert first.hash == again.hash == bound.fingerprint()
  moved = jax.tree.map(lambda x: (1.01 * x).astype(x.dtype), bound.variables)
  small_directories.write(tmp_path / 'moved', 'codec', bound.tokenizer, moved)
  other = encoders.OfModel(path=str(tmp_path / 'moved')).open()
  assert other.hash != first.hash
  # They share what is compiled, and none of what it is called with.
  assert np.abs(other(_clips()) - first(_clips())).max() > 1e-3
  np.testing.assert_array_equal(first(_clips()), again(_clips()))


def test_distances_are_of_its_vectors(model, monkeypatch):
  _, path, _ = model
  rng = np.random.default_rng(0)
  corpus = [
      {
          'id': f'clip{i}',
          'audio': 0.2 * rng.standard_normal((4800, 1)).astype('f'),
          'sample_rate': 16000,
      }
      for i in range(24)
  ]
  monkeypatch.setattr(data, 'load_corpus', lambda *_: corpus)
  encoder = encoders.OfModel(path=str(path))
  settings = evaluation.Distribution(encoder=encoder)
  evaluator = settings.build(reconstructing.Objective())
  copy, quiet = ({s.name: s for s in evaluator.run(g)} for g in (1.0, 0.05))
  name = f'encoder-{encoder.open().hash[:12]}'
  assert {s.item for s in copy.values()} == {name}
  assert copy['kernel'].sum == pytest.approx(copy['kernel_original'].sum)
  assert quiet['kernel'].sum > copy['kernel'].sum + 0.1


def test_what_is_no_tokenizer_is_refused(tmp_path):
  small_directories.toy_model(tmp_path / 'toy')
  with pytest.raises(config.ConfigError, match='Predictor, not a tokenizer'):
    encoders.OfModel(path=str(tmp_path / 'toy')).open()
  with pytest.raises(config.ConfigError, match='gone is no directory'):
    encoders.OfModel(path=str(tmp_path / 'gone')).open()
