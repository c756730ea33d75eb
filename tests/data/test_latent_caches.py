"""Caches of latents: their moments, what is refused, rows as models see them."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.data import cache_header
from audiolm_jax.data import moments as moments_lib
from audiolm_jax.data import token_cache
from audiolm_jax.data import token_crops
from audiolm_jax.tokenizers import encoding
from audiolm_jax.tokenizers import token_files
from tests.data import made_caches

D = 3
CLIPS = {'train': 5, 'validation': 3}
MEAN, STD = np.array([4.0, -0.1, 2.0]), np.array([0.5, 30.0, 0.0])


def _latents(split, i):
  rng = np.random.default_rng((len(split), i))
  # Those that are held out are apart: they must not count.
  shift = 0 if split == 'train' else 1000
  values = MEAN + shift + STD * rng.normal(size=(4 + 3 * i, D))
  return values.astype(np.float32)


def _example(split, i):
  latents = _latents(split, i)
  factors = {'id': f'{split}{i}', 'text': f'clip {i}'}
  return encoding.Example(
      latents=latents, samples=320 * len(latents), factors=factors
  )


def _identity(clips=CLIPS, **changes):
  spec = made_caches.spec(dimension=D)
  return made_caches.identity((), clips, spec=spec, **changes)


@pytest.fixture(name='directory')
def _directory(tmp_path):
  return made_caches.write(tmp_path / 'latents', _identity(), _example)


def _frames():
  return np.concatenate([_latents('train', i) for i in range(CLIPS['train'])])


def test_moments_are_of_all_frames_of_training(directory):
  moments = token_cache.read_header(directory).moments
  frames = _frames().astype(np.float64)
  np.testing.assert_allclose(moments.mean, frames.mean(0), rtol=1e-12)
  np.testing.assert_allclose(moments.std[:2], frames.std(0)[:2], rtol=1e-12)
  # A dimension without any spread is only shifted.
  assert moments.std[2] == 1 and not frames.std(0)[2]
  normalised = moments.normalised(_frames())
  assert normalised.dtype == np.float32
  np.testing.assert_allclose(normalised.mean(0), 0, atol=1e-6)
  np.testing.assert_allclose(normalised.std(0), [1, 1, 0], atol=1e-6)
  back = moments.restored(normalised)
  np.testing.assert_allclose(back, _frames(), rtol=1e-6, atol=1e-5)


def test_running_moments_do_not_depend_on_the_parts():
  frames = 1e4 + np.random.default_rng(0).normal(size=(50, 2))
  whole, parts = moments_lib.Running(), moments_lib.Running()
  assert parts.moments is None
  whole.add(frames)
  for start, stop in ((0, 0), (0, 1), (1, 33), (33, 50)):
    parts.add(frames[start:stop])
  for name in ('mean', 'std'):
    found = [getattr(m.moments, name) for m in (whole, parts)]
    np.testing.assert_allclose(*found, rtol=1e-10)


@pytest.mark.parametrize('std', [(0.0,), (float('nan'),), (-1.0,), (1.0, 1.0)])
def test_moments_that_normalise_nothing_are_refused(std):
  with pytest.raises(config.ConfigError):
    config.build(moments_lib.Moments, {'mean': (0.0,), 'std': std})


def test_rows_are_normalised_and_clips_by_what_is_asked_for(directory):
  moments = token_cache.read_header(directory).moments
  source = token_crops.TokenCrops(cache=directory, frames=6)
  batch = source.open(batch_size=8, seed=0).next(None)
  assert batch['latents'].shape == (8, 6, D)
  assert batch['latents'].dtype == np.float32
  for row, length, i in zip(
      batch['latents'], batch['num_frames'], batch['id'], strict=True
  ):
    whole = moments.normalised(_latents('train', int(i)))
    starts = range(len(whole) - length + 1)
    assert any(
        np.array_equal(whole[s : s + length], row[:length]) for s in starts
    )
    assert not row[length:].any()
  # Clips that are held out by the moments that a model was trained with.
  cache = token_cache.TokenCache(directory, 'validation')
  for batch in token_crops.whole_clips(cache, moments=moments):
    for row, length, i in zip(
        batch['latents'], batch['num_frames'], batch['id'], strict=True
    ):
      if i >= 0:
        expected = moments.normalised(_latents('validation', int(i)))
        np.testing.assert_array_equal(row[:length], expected)
      assert not row[length:].any()


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 1e39])
def test_latents_that_are_not_finite_are_refused_where_they_are_written(
    tmp_path, value
):
  example = _example('train', 0)
  wrong = example.latents.astype(np.float64)
  wrong[1, 2] = value
  writer = token_cache.Writer(tmp_path / 'c', _identity({'train': 1}))
  bad = encoding.Example(latents=wrong, samples=example.samples)
  with pytest.raises(encoding.TokensError, match='clip 0.*not finite'):
    writer.write('train', 0, [bad])
  assert not list((tmp_path / 'c').glob('*.array_record'))


def test_more_codebooks_than_none_are_refused(directory):
  source = token_crops.TokenCrops(cache=directory, codebooks=2)
  with pytest.raises(config.ConfigError, match='codebooks = 2.*continuous'):
    source.open(batch_size=1, seed=0)


def test_a_cache_without_moments_says_why(tmp_path):
  held_out = made_caches.write(
      tmp_path / 'a', _identity({'validation': 3}), _example
  )
  codes = made_caches.write(
      tmp_path / 'b',
      made_caches.identity((5,), {'train': 1}),
      lambda *_: made_caches.example(np.zeros((4, 1), np.int32), {'id': 'x'}),
  )
  for place, reason in (
      (held_out, "no frames in the split 'train'"),
      (codes, 'holds codes'),
  ):
    with pytest.raises(encoding.TokensError, match=f'{place}.*{reason}'):
      token_cache.latent_moments(place)


def test_moments_of_a_folder_are_those_of_a_cache_of_its_clips(tmp_path):
  form = token_files.Header(made_caches.spec(dimension=D), 'hash')
  (tmp_path / 'folder').mkdir()
  for i in range(2):
    path = tmp_path / 'folder' / f'{i}.tokens'
    with token_files.create(path, form) as writer:
      writer.write(_example('train', i).block)
  cache = made_caches.write(
      tmp_path / 'cache', _identity({'train': 2}), _example
  )
  assert token_cache.read_header(path.parent).moments is None
  found = token_cache.latent_moments(path.parent)
  # The order of its clips is another.
  for name in ('mean', 'std'):
    expected = getattr(token_cache.latent_moments(cache), name)
    np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-9)
  source = token_crops.TokenCrops(cache=str(path.parent), frames=2)
  row = source.open(batch_size=1, seed=0).next(None)['latents'][0]
  rows = found.normalised(
      np.concatenate([_latents('train', i) for i in (0, 1)])
  )
  assert any(np.array_equal(rows[i : i + 2], row) for i in range(len(rows)))


def test_a_header_of_before_moments_is_read_and_made_up_for(directory):
  """As older versions wrote it: sealed, and without them."""
  path = pathlib.Path(directory)
  whole = token_cache.read_header(directory)
  old = dataclasses.replace(whole, moments=None)
  assert old.needs_moments and not whole.needs_moments
  cache_header.write(path, old)
  assert 'moments' not in json.loads((path / 'header.json').read_text())
  with pytest.raises(encoding.TokensError, match='before they were kept'):
    token_crops.TokenCrops(cache=directory).open(batch_size=1, seed=0)
  assert token_cache.Writer(directory, _identity()).finish()
  assert token_cache.read_header(directory) == whole


@pytest.mark.parametrize(
    'change, message',
    [
        ({'mean': [0.0] * D, 'std': [0.0] * D}, 'std'),
        ({'mean': [0.0], 'std': [1.0]}, '1 dimensions.*latents of 3'),
        ({'mean': [0.0] * D}, 'std is missing'),
        ([1.0], 'moments'),
        ('x', 'moments'),
    ],
)
def test_moments_that_can_not_be_are_refused_in_reading(
    directory, change, message
):
  path = pathlib.Path(directory) / 'header.json'
  fields = json.loads(path.read_text())
  fields.pop('checksum')
  fields['moments'] = change
  fields['checksum'] = cache_header._checksum(fields)
  path.write_text(json.dumps(fields))
  with pytest.raises(encoding.TokensError, match=f'(?s)header.json.*{message}'):
    token_cache.read_header(directory)
