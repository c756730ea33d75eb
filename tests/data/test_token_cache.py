"""The token cache: what is written is read, whole or not at all."""

import dataclasses
import pickle

import numpy as np
import pytest

from audiolm_jax.tokenizers import encoding
from audiolm_jax.data import cache_parts
from audiolm_jax.data import token_cache
from audiolm_jax.data import token_crops
from tests.data import made_caches

K = 3
CLIPS = {'train': cache_parts.PART + 5, 'test': 4}


def _example(split, i):
  rng = np.random.default_rng((len(split), i))
  frames = int(rng.integers(0 if i else 1, 40))
  return encoding.Example(
      codes=rng.integers(0, 1000, (frames, K)).astype(np.int32),
      samples=frames * 320,
      factors={
          'id': f'{split}/{i}',
          'language': 'it' if i % 3 else 'en',
          'text': 'perché no?',
      },
  )


def _identity(**changes):
  identity = made_caches.identity(
      (1000,) * K,
      CLIPS,
      fingerprint='abc',
      tokenizer='runs/x',
      corpus='speech',
      languages=('en', 'it'),
  )
  return dataclasses.replace(identity, **changes)


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  path = tmp_path_factory.mktemp('tokens') / 'cache'
  writer = token_cache.Writer(path, _identity())
  assert [part[:2] for part in writer.missing()] == [
      ('train', 0),
      ('train', 1),
      ('test', 0),
  ]
  for split, part, members in writer.missing():
    writer.write(split, part, [_example(split, i) for i in members])
  assert writer.finish()
  return path


def test_written_is_read(directory):
  for split, count in CLIPS.items():
    cache = token_cache.TokenCache(directory, split, 'abc')
    assert len(cache) == count
    copy = pickle.loads(pickle.dumps(cache))
    for i in (0, 1, count - 1):
      expected = _example(split, i)
      for found in (cache[i], copy[i]):
        np.testing.assert_array_equal(found.codes, expected.codes)
        assert found.codes.dtype == np.int32
        assert found.samples == expected.samples
        assert found.factors == expected.factors
      assert cache.frames[i] == len(expected.codes)
  assert cache.header.spec == _identity().spec


def test_another_tokenizers_cache_is_refused(directory):
  with pytest.raises(encoding.TokensError, match='abc.*xyz'):
    token_cache.TokenCache(directory, 'train', 'xyz')
  settings = token_crops.TokenCrops(cache=str(directory), tokenizer_hash='xyz')
  with pytest.raises(encoding.TokensError, match='abc.*xyz'):
    settings.open(batch_size=1, seed=0)
  with pytest.raises(encoding.TokensError, match='fingerprint.*xyz'):
    token_cache.Writer(directory, _identity(fingerprint='xyz'))
  with pytest.raises(encoding.TokensError, match='build: "".*"speech/2"'):
    token_cache.Writer(directory, _identity(build='speech/2'))
  # Where it was trained is no part of what it is.
  token_cache.Writer(directory, _identity(tokenizer='moved'))
  with pytest.raises(encoding.TokensError, match="no split 'dev'"):
    token_cache.TokenCache(directory, 'dev')


def test_interrupted_cache_is_not_read_and_goes_on(tmp_path):
  path = tmp_path / 'cache'
  with pytest.raises(encoding.TokensError, match='does not exist'):
    token_cache.TokenCache(path, 'train')
  writer = token_cache.Writer(path, _identity())
  for split, part, members in writer.missing()[:2]:
    writer.write(split, part, [_example(split, i) for i in members])
  assert not writer.finish()
  with pytest.raises(encoding.TokensError, match='unfinished.*tokenize_audio'):
    token_cache.TokenCache(path, 'train')
  again = token_cache.Writer(path, _identity())
  ((split, part, members),) = again.missing()
  assert (split, part) == ('test', 0)
  again.write(split, part, [_example(split, i) for i in members])
  assert again.finish() and not again.missing()
  assert len(token_cache.TokenCache(path, 'train')) == CLIPS['train']


def test_a_folder_of_something_else_is_refused(tmp_path):
  (tmp_path / 'thesis.tex').touch()
  with pytest.raises(encoding.TokensError, match='not a token cache'):
    token_cache.Writer(tmp_path, _identity())


def test_crops_are_pieces_of_their_clips(directory):
  settings = token_crops.TokenCrops(
      cache=str(directory), frames=16, codebooks=2, tokenizer_hash='abc'
  )
  source = settings.open(batch_size=32, seed=0)
  for _ in range(3):
    batch = source.next(None)
    assert batch['codes'].shape == (32, 16, 2)
    assert batch['codes'].dtype == batch['num_frames'].dtype == np.int32
    for codes, length, i in zip(
        batch['codes'], batch['num_frames'], batch['id'], strict=True
    ):
      whole = _example('train', int(i)).codes[:, :2]
      assert length == min(len(whole), 16) > 0
      assert not codes[length:].any()
      assert any(
          np.array_equal(whole[s : s + length], codes[:length])
          for s in range(len(whole) - length + 1)
      )


def test_latents_durations_and_scales_are_cropped_together(tmp_path):
  """Each frame's three arrays say which frame it is."""

  def example(split, i):
    place = np.arange(20 + i, dtype=np.float32)
    return encoding.Example(
        latents=place[:, None] + np.float32([0, 0.5]),
        durations=place.astype(np.int32) + 1,
        scales=place + 100,
        samples=320 * int((place + 1).sum()),
        factors={'id': f'{split}{i}'},
    )

  identity = made_caches.identity(
      (),
      {'train': 3},
      spec=made_caches.spec(dimension=2),
      durations=True,
      scales=True,
  )
  directory = made_caches.write(tmp_path / 'c', identity, example)
  cache = token_cache.TokenCache(directory, 'train')
  for name, values in cache[2].arrays.items():
    np.testing.assert_array_equal(values, example('train', 2).arrays[name])
  source = token_crops.TokenCrops(cache=directory, frames=8)
  batches = [source.open(batch_size=16, seed=0).next(None)]
  assert batches[0]['latents'].shape == (16, 8, 2)
  moments = cache.header.moments
  batches[0]['latents'] = moments.restored(batches[0]['latents'])
  for seen in (None, moments):
    batches += token_crops.whole_clips(
        cache, bucket_frames=(32,), max_batch=4, moments=seen
    )
  batches[2]['latents'] = moments.restored(batches[2]['latents'])
  for batch in batches:
    assert 'codes' not in batch
    valid = np.arange(batch['scales'].shape[1]) < batch['num_frames'][:, None]
    place = batch['latents'][..., 0]
    np.testing.assert_allclose(np.diff(place)[valid[:, 1:]], 1, atol=1e-5)
    whole = np.rint(place)
    np.testing.assert_allclose(place[valid], whole[valid], atol=1e-5)
    halves = batch['latents'][..., 1] - whole
    np.testing.assert_allclose(halves[valid], 0.5, atol=1e-5)
    np.testing.assert_array_equal(batch['durations'], (whole + 1) * valid)
    np.testing.assert_array_equal(batch['scales'], (whole + 100) * valid)
  assert sorted(batches[1]['num_frames']) == [0, 20, 21, 22]


def test_selection_takes_the_first_in_a_language(directory):
  cache = token_cache.TokenCache(directory, 'train')
  np.testing.assert_array_equal(cache.select(('en',), 3), [0, 3, 6])
  assert len(cache.select()) == CLIPS['train']
  with pytest.raises(encoding.TokensError, match="'fr'"):
    cache.select(('fr',))
  settings = token_crops.TokenCrops(
      cache=str(directory), frames=64, languages=('it',), limit=4
  )
  source = settings.open(batch_size=8, seed=0)
  seen = {int(i) for _ in range(4) for i in source.next(None)['id']}
  assert seen == {i for i in (1, 2, 4, 5) if cache.frames[i]}


def test_nothing_long_enough_is_said_with_the_key(directory):
  settings = token_crops.TokenCrops(cache=str(directory), min_frames=999)
  with pytest.raises(encoding.TokensError, match='train.*min_frames = 999'):
    settings.open(batch_size=1, seed=0)


def test_whole_clips_hold_every_clip_once(directory):
  cache = token_cache.TokenCache(directory, 'train')
  seen = []
  for batch in token_crops.whole_clips(
      cache, bucket_frames=(8, 24), max_frames=30, batch_frames=96, codebooks=1
  ):
    for codes, length, i in zip(
        batch['codes'], batch['num_frames'], batch['id'], strict=True
    ):
      if i >= 0:
        expected = _example('train', int(i)).codes[:30, :1]
        np.testing.assert_array_equal(codes[:length], expected)
        assert not codes[length:].any()
        seen.append(int(i))
      else:
        assert length == 0
  assert sorted(seen) == list(range(len(cache)))
