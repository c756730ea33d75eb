"""Folders of token files, read as token caches are."""

import dataclasses
import os
import pickle
import shutil

import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.data import splits
from audiolm_jax.data import text_and_tokens
from audiolm_jax.data import token_cache
from audiolm_jax.data import token_crops
from audiolm_jax.tokenizers import encoding
from audiolm_jax.tokenizers import token_files
from tests.data import made_caches

SIZES = (50, 7)
NAMES = [f'{"deep/" * (i % 2)}c{i}.wav' for i in range(12)]


def _header(**changes):
  fields = {'spec': made_caches.spec(SIZES), 'fingerprint': 'abc'}
  return token_files.Header(**{**fields, 'codebooks': 2, **changes})


def _codes(i):
  rng = np.random.default_rng(i)
  return rng.integers(0, SIZES, (1, 20 + i, 2)).astype(np.int32)


def _write(path, header, i, frames_a_block=8):
  codes = np.repeat(_codes(i), header.rows, axis=0)[..., : header.codebooks]
  with token_files.create(path, header) as writer:
    for start in range(0, codes.shape[1], frames_a_block):
      part = codes[:, start : start + frames_a_block]
      writer.write(encoding.Block(320 * part.shape[1], part))


def _factors(i):
  known = {'id': NAMES[i], 'text': f'text {i}', 'speaker': 'ab'[i % 2]}
  return known | ({'language': 'en'} if i % 3 else {})


@pytest.fixture(scope='module', name='whole')
def _whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tokens') / 'out'
  for i in reversed(range(12)):
    path = (folder / NAMES[i]).with_suffix('.tokens')
    _write(path, _header(tokenizer='../tok', factors=_factors(i)), i)
  token_cache.write_codebooks(folder, np.ones((2, 50, 3)))
  return folder


@pytest.fixture(name='folder')
def _folder(whole, tmp_path):
  return shutil.copytree(whole, tmp_path / 'out')


def test_every_file_is_a_clip(folder):
  header = token_cache.read_header(folder)
  assert header.fingerprint == 'abc' and header.vocabularies == SIZES
  assert header.languages == ('en',) and sum(header.clips.values()) == 12
  assert header.tokenizer in (
      str(folder.parent / 'tok'),
      str(folder / 'tok'),
  )
  clips = made_caches.clips_of(folder)
  assert sorted(clips) == sorted(NAMES)
  for i, name in enumerate(NAMES):
    _, clip = clips[name]
    np.testing.assert_array_equal(clip.codes, _codes(i)[0])
    assert clip.samples == 320 * (20 + i) and clip.factors == _factors(i)
  assert token_cache.read_codebooks(folder).shape == (2, 50, 3)
  cache = token_cache.TokenCache(folder, 'train', 'abc')
  np.testing.assert_array_equal(
      cache.speakers, [cache[i].factors['speaker'] for i in range(len(cache))]
  )
  again = pickle.loads(pickle.dumps(cache))
  np.testing.assert_array_equal(again[0].codes, cache[0].codes)
  with pytest.raises(encoding.TokensError, match='abc.*xyz is asked for'):
    token_cache.TokenCache(folder, 'train', 'xyz')
  # The order is a shuffle by the ids.
  order = [cache[i].factors['id'] for i in range(len(cache))]
  assert order == sorted(order, key=splits.position) != sorted(order)


def test_splits_are_those_of_audio_files(folder):
  seconds = {name: 0.02 * (20 + i) for i, name in enumerate(NAMES)}
  texts = {name: f'text {i}' for i, name in enumerate(NAMES)}
  expected = splits.of_files(seconds, texts, dict.fromkeys(NAMES, ''))
  assert {
      name: split for name, (split, _) in made_caches.clips_of(folder).items()
  } == expected
  assert set(expected.values()) == set(splits.SPLITS)


def test_folders_and_headers_say_splits(folder):
  said = {'train/a': {}, 'test/b': {}, 'c': {'split': 'validation'}, 'd': {}}
  shutil.rmtree(folder)
  for i, (name, factors) in enumerate(said.items()):
    _write(folder / f'{name}.tokens', _header(factors=factors), i)
  clips = made_caches.clips_of(folder)
  # Without an id it is the file's name.
  assert {name: split for name, (split, _) in clips.items()} == {
      'train/a': 'train',
      'test/b': 'test',
      'c': 'validation',
      'd': splits.assign({'d': []}, {'test': 0.1, 'validation': 0.1})['d'],
  }


def test_what_can_not_be_divided_is_trained_on(tmp_path):
  _write(tmp_path / 'x.tokens', _header(), 0)
  assert token_cache.read_header(tmp_path).clips == {'train': 1}
  with pytest.raises(encoding.TokensError, match="no split 'test'"):
    token_cache.TokenCache(tmp_path, 'test')


def test_crops_are_pieces_of_the_files(folder):
  source = token_crops.TokenCrops(cache=str(folder), frames=8, codebooks=1)
  batch = source.open(batch_size=16, seed=0).next(None)
  cache = token_cache.TokenCache(folder, 'train')
  assert batch['codes'].shape == (16, 8, 1)
  for row, i in zip(batch['codes'], batch['id'], strict=True):
    codes = cache[i].codes[:, :1]
    assert any(
        np.array_equal(row, codes[at : at + 8]) for at in range(len(codes) - 7)
    )


def test_latents_and_gains(tmp_path):
  header = token_files.Header(
      made_caches.spec(dimension=3), 'abc', scales=True, precision='float16'
  )
  latents = np.arange(24, dtype=np.float32).reshape(1, 8, 3)
  block = encoding.Block(2560, latents=latents, scales=np.ones((1, 8)))
  with token_files.create(tmp_path / 'x.tokens', header) as writer:
    writer.write(block)
  clip = token_cache.TokenCache(tmp_path, 'train')[0]
  np.testing.assert_array_equal(clip.latents, latents[0])
  np.testing.assert_array_equal(clip.scales, np.ones(8))
  source = token_crops.TokenCrops(cache=str(tmp_path), frames=4)
  batch = source.open(batch_size=2, seed=0).next(None)
  assert batch['latents'].shape == (2, 4, 3) and batch['scales'].all()
  source = text_and_tokens.TextAndTokens(cache=str(tmp_path))
  with pytest.raises(config.ConfigError, match='continuous'):
    source.open(batch_size=2, seed=0)


@pytest.mark.parametrize('codebooks, fits', [(2, True), (3, False)])
def test_codebooks_that_are_not_there_are_refused(folder, codebooks, fits):
  source = token_crops.TokenCrops(cache=str(folder), codebooks=codebooks)
  if fits:
    source.open(batch_size=1, seed=0)
    return
  with pytest.raises(config.ConfigError, match='codebooks = 3.* has 2'):
    source.open(batch_size=1, seed=0)


def _another(folder, **changes):
  _write(folder / 'z.tokens', _header(**changes), 0)


def _rewritten(folder, change):
  path = folder / 'c0.tokens'
  path.write_bytes(change(bytearray(path.read_bytes())))


def _of_version_2(data):
  data[8] = 2
  return data


@pytest.mark.parametrize(
    'damage, message',
    [
        (lambda f: _another(f, fingerprint='other'), 'differ in fingerprint'),
        (lambda f: _another(f, codebooks=1), 'differ in codebooks'),
        (lambda f: _another(f, aligned=True), 'differ in aligned'),
        (
            lambda f: _another(f, spec=made_caches.spec((50, 8))),
            'z.tokens and .* differ in spec',
        ),
        (lambda f: _another(f, rows=2), 'z.tokens: 2 signals.*--channels=mix'),
        (
            lambda f: _another(f, factors={'id': 'c0.wav'}),
            "z.tokens and .*c0.tokens are both of the clip 'c0.wav'",
        ),
        (
            lambda f: (f / 'z.tokens').symlink_to('nowhere'),
            'z.tokens: no file',
        ),
        (lambda f: os.mkfifo(f / 'z.tokens'), 'z.tokens: no file'),
        (
            lambda f: _rewritten(f, _of_version_2),
            r'c0.tokens.*version 2.*reads 3.*`tokenize_audio.py encode`',
        ),
        (
            lambda f: _rewritten(f, lambda data: data[:-21]),
            'c0.tokens: truncated: it has no end.*encode',
        ),
        (lambda f: _rewritten(f, lambda data: data[:30]), 'c0.tokens.*trunc'),
        (lambda f: _rewritten(f, lambda data: b'RIFF'), 'c0.tokens.*truncated'),
        (shutil.rmtree, 'does not exist.*tokenize_audio'),
        (
            lambda f: [p.unlink() for p in f.rglob('*.tokens')],
            'holds no tokens',
        ),
    ],
)
def test_what_is_no_folder_of_one_sort_is_refused(folder, damage, message):
  damage(folder)
  with pytest.raises(encoding.TokensError, match=f'(?s){message}'):
    token_cache.read_header(folder)


def test_damage_inside_of_a_file_is_named(folder):
  cache = token_cache.TokenCache(folder, 'train')
  path = folder / cache[0].factors['id'].replace('.wav', '.tokens')
  whole = path.read_bytes()
  data = bytearray(whole)
  data[-40] ^= 1
  path.write_bytes(data)
  with pytest.raises(encoding.TokensError, match=f'{path}.*at byte'):
    cache[0]
  # A file that became another since the folder was opened.
  header, tokens = _header(factors={}), encoding.Block(320, _codes(0)[:, :1])
  with token_files.create(path, header) as writer:
    writer.write(tokens)
  with pytest.raises(encoding.TokensError, match=f'{path}: it has 1 frames'):
    cache[0]
  other = dataclasses.replace(header, fingerprint='other')
  with token_files.create(path, other) as writer:
    writer.write(tokens)
  with pytest.raises(encoding.TokensError, match='fingerprint changed'):
    cache[0]


def test_a_cache_is_no_folder_of_files(folder, tmp_path):
  """An unfinished cache is not read, whatever else is in it."""
  token_cache.Writer(
      tmp_path / 'cache', made_caches.identity(SIZES, {'train': 1})
  )
  shutil.copy(folder / 'c0.tokens', tmp_path / 'cache')
  with pytest.raises(encoding.TokensError, match='unfinished'):
    token_cache.read_header(tmp_path / 'cache')
