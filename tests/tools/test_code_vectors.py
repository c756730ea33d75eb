"""Codes as the vectors that they stand for, and back."""

import types

import flax
import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.data import token_cache
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.tokenizers import bottlenecks
from tests import tool_module
from tests.data import made_caches

code_vectors = tool_module.load('code_vectors')
_K, _V, _D = 3, 5, 4


def _tokenizer(bottleneck=None, books=None):
  """Of a codec of which only the bottleneck counts here."""
  bottleneck = bottleneck or bottlenecks.Rvq(_K, _V, dimension=_D)
  codec = types.SimpleNamespace(
      bottleneck=bottleneck,
      code_vectors=lambda variables: bottleneck.code_vectors(
          variables['bottleneck']
      ),
  )
  variables = flax.core.meta.unbox(bottleneck.init(jax.random.key(0), 7))
  if books is not None:
    state = variables['state'].replace(codebooks=books)
    variables = {**variables, 'state': state}
  made = object.__new__(audio_tokenizer.AudioTokenizer)
  made.tokenizer, made.variables = codec, {'bottleneck': variables}
  return made


@pytest.fixture(name='books')
def _books():
  """Each level a tenth of the one before, so that sums have one reading."""
  books = np.random.default_rng(0).normal(size=(_K, _V, _D))
  return (books * 0.1 ** np.arange(_K)[:, None, None]).astype(np.float32)


@pytest.fixture(name='run')
def _run(tmp_path, monkeypatch, books):
  identity = made_caches.identity((_V,) * _K, {'train': 4, 'test': 2})
  made_caches.write(
      tmp_path / 'codes',
      identity,
      lambda split, i: made_caches.example(
          _codes(split, i), {'id': f'{split}{i}', 'speaker': 'me'}
      ),
  )
  monkeypatch.setattr(
      code_vectors.loading,
      'tokenizer_of',
      lambda *_: _tokenizer(books=books),
  )

  def run(*flags, cache='codes', out='out'):
    return code_vectors.write(
        code_vectors._options(
            [f'--cache={tmp_path / cache}', f'--out={tmp_path / out}', *flags]
        )
    )

  return run


def _codes(split, i):
  rng = np.random.default_rng(i + 10 * (split == 'test'))
  return rng.integers(0, _V, (6 + i, _K)).astype(np.int32)


def test_frames_are_sums_of_the_vectors_of_their_first_codes(
    run, tmp_path, books
):
  assert run('--codebooks=2') == 6
  assert run('--codebooks=2') == 0
  clips = made_caches.clips_of(tmp_path / 'out')
  assert sorted(clips) == [
      *(f'test{i}' for i in range(2)),
      *(f'train{i}' for i in range(4)),
  ]
  trained = []
  for name, (split, clip) in clips.items():
    codes = _codes(split, int(name[-1]))
    expected = books[0][codes[:, 0]] + books[1][codes[:, 1]]
    np.testing.assert_allclose(clip.latents, expected, rtol=1e-6)
    assert clip.factors['speaker'] == 'me' and clip.samples == 320 * len(codes)
    trained += [expected] if split == 'train' else []
  header = token_cache.read_header(tmp_path / 'out')
  assert header.spec.dimension == _D and not header.spec.slots
  mean = np.concatenate(trained).mean(axis=0)
  np.testing.assert_allclose(header.moments.mean, mean, atol=1e-5)
  # Of another number of codebooks they are other tokens.
  with pytest.raises(config.ConfigError, match='something else'):
    run()


def test_vectors_become_the_codes_that_they_are_of(books):
  tokenizer = _tokenizer(books=books)
  codes = np.random.default_rng(1).integers(0, _V, (2, 6, _K))
  vectors = tokenizer.codes_to_vectors(codes)
  noise = np.random.default_rng(2).normal(size=vectors.shape) * 1e-4
  found = tokenizer.vectors_to_codes(vectors + noise, _K)
  np.testing.assert_array_equal(found, codes)
  np.testing.assert_array_equal(
      tokenizer.vectors_to_codes(vectors, 2), codes[..., :2]
  )
  for wrong in (0, 4):
    with pytest.raises(config.ConfigError, match=f'codebooks = {wrong}'):
      tokenizer.vectors_to_codes(vectors, wrong)
  with pytest.raises(config.ConfigError, match='4 codes a frame'):
    tokenizer.codes_to_vectors(np.zeros((2, 4), int))


def test_other_codes_and_caches_are_refused(run, tmp_path):
  for bottleneck in (
      bottlenecks.Rvq(_K, _V, dimension=_D, normalize=True),
      bottlenecks.Fsq((3, 3)),
  ):
    with pytest.raises(config.ConfigError, match='codebooks of an Rvq'):
      _tokenizer(bottleneck).codes_to_vectors(np.zeros((2, 1), int))
  with pytest.raises(SystemExit):  # None is not all.
    run('--codebooks=0')
  with pytest.raises(config.ConfigError, match='--codebooks=4'):
    run('--codebooks=4')
  run()
  with pytest.raises(config.ConfigError, match='latents already'):
    run(cache='out', out='again')
