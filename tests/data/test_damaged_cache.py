"""Token caches that are damaged, or that say what is not so."""

import hashlib
import json
import shutil
import zlib

import numpy as np
import pytest

from audiolm_jax.tokenizers import encoding
from audiolm_jax.data import token_cache
from audiolm_jax.data import token_crops
from tests.data import made_caches

V, K = 50, 2
CLIPS = {'train': 6, 'validation': 3, 'test': 3}


def _example(split, i):
  rng = np.random.default_rng((len(split), i))
  codes = rng.integers(0, V, (20 + i, K)).astype(np.int32)
  return encoding.Example(codes, 320 * (20 + i), {'id': f'{split}/{i}'})


def _identity(**changes):
  return made_caches.identity((V,) * K, CLIPS, corpus='speech', **changes)


@pytest.fixture(scope='module', name='whole')
def _whole(tmp_path_factory):
  directory = tmp_path_factory.mktemp('whole') / 'cache'
  writer = token_cache.Writer(directory, _identity())
  for split, part, members in writer.missing():
    writer.write(split, part, [_example(split, i) for i in members])
  token_cache.write_codebooks(directory, np.ones((K, V, 3)))
  assert writer.finish()
  return directory


@pytest.fixture(name='cache')
def _cache(whole, tmp_path):
  return shutil.copytree(whole, tmp_path / 'cache')


def _read(directory, split='validation'):
  cache = token_cache.TokenCache(directory, split)
  return [cache[i] for i in range(len(cache))]


def _part(directory, split):
  return directory / f'{split}-00000.array_record'


def test_what_is_whole_is_read(cache):
  for split, count in CLIPS.items():
    for i, example in enumerate(_read(cache, split)):
      np.testing.assert_array_equal(example.codes, _example(split, i).codes)
    assert i == count - 1
  assert token_cache.read_codebooks(cache).shape == (K, V, 3)


@pytest.mark.parametrize('damage', ['cut', 'empty', 'missing', 'noise', 'flip'])
def test_a_damaged_part_is_named(cache, damage):
  part = _part(cache, 'validation')
  content = bytearray(part.read_bytes())
  match damage:
    case 'cut':
      part.write_bytes(content[:40000])
    case 'empty':
      part.write_bytes(b'')
    case 'missing':
      part.unlink()
    case 'noise':
      part.write_bytes(np.random.default_rng(0).bytes(len(content)))
    case 'flip':
      used = np.flatnonzero(np.frombuffer(bytes(content), np.uint8))
      content[used[len(used) // 2]] ^= 1
      part.write_bytes(content)
  with pytest.raises(
      encoding.TokensError,
      match='(?s)validation-00000.array_record.*tokenize_audio.py',
  ):
    _read(cache)
  # The others are as good as before, and the part can be made again.
  assert len(_read(cache, 'test')) == 3
  part.unlink(missing_ok=True)
  writer = token_cache.Writer(cache, _identity())
  ((split, index, members),) = writer.missing()
  writer.write(split, index, [_example(split, i) for i in members])
  assert writer.finish() and len(_read(cache)) == 3


def test_parts_that_were_exchanged_are_refused(cache):
  shutil.copy(_part(cache, 'test'), _part(cache, 'validation'))
  with pytest.raises(encoding.TokensError, match='validation-00000'):
    _read(cache)
  with pytest.raises(encoding.TokensError, match='validation-00000'):
    source = token_crops.TokenCrops(
        cache=str(cache), split='validation', frames=4
    )
    source.open(batch_size=2, seed=0).next(None)
  # Of another number of clips.
  shutil.copy(_part(cache, 'train'), _part(cache, 'validation'))
  with pytest.raises(encoding.TokensError, match='validation.*6 clips.*3'):
    _read(cache)


def _reseal(directory, change):
  """Changes a header as someone would who knows the format."""
  path = directory / 'header.json'
  header = json.loads(path.read_text())
  header.pop('checksum')
  change(header)
  text = json.dumps(header, sort_keys=True)
  header['checksum'] = hashlib.sha256(text.encode()).hexdigest()
  path.write_text(json.dumps(header))


LIES = {
    'another version': (
        lambda h: h.update(version=1),
        'version 1.*--corpus=speech --out=',
    ),
    'no version': (lambda h: h.pop('version'), 'version None'),
    'fewer entries': (
        lambda h: h['splits']['validation']['frames'].pop(),
        'splits.validation.frames',
    ),
    'more frames': (
        lambda h: h['splits']['validation'].update(frames=[20, 21, 23]),
        'clip 2.*23',
    ),
    'endless frames': (
        lambda h: h['splits']['validation'].update(frames=[20, 21, 10**12]),
        'clip 2.*1000000000000',
    ),
    'negative frames': (
        lambda h: h['splits']['validation'].update(frames=[20, 21, -1]),
        'splits.validation.frames',
    ),
    'smaller vocabulary': (
        lambda h: h['spec']['slots'][1].update(vocabulary=40),
        'slot 1.*vocabulary.*40',
    ),
    'no vocabulary': (
        lambda h: h['spec']['slots'][1].pop('vocabulary'),
        'spec.slots.*vocabulary',
    ),
    'another slot': (
        lambda h: h.update(codebooks=3),
        '3 codebooks of 2 slots',
    ),
    'no splits': (lambda h: h.update(splits=[]), 'splits'),
    'no text': (lambda h: h.update(fingerprint=3), 'fingerprint'),
}


@pytest.mark.parametrize('name', LIES)
def test_headers_that_lie_are_refused(cache, name):
  change, message = LIES[name]
  _reseal(cache, change)
  with pytest.raises(encoding.TokensError, match=message) as error:
    settings = token_crops.TokenCrops(
        cache=str(cache), split='validation', frames=4
    )
    settings.open(batch_size=2, seed=0)
    _read(cache)
  assert str(cache) in str(error.value)


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'{',
        b'[]',
        b'null',
        b'\xff\xfe',
        b'{"splits": {}}',
        b'[' * 10**5,
        b'{"clips": {}, "clips": {}}',
    ],
)
@pytest.mark.parametrize('file', ['header.json', 'identity.json'])
def test_damaged_headers_are_named(cache, file, content):
  (cache / file).write_bytes(content)
  with pytest.raises(
      encoding.TokensError, match=f'{file}.*[Rr]emove|of something else'
  ):
    if file == 'header.json':
      _read(cache)
    else:
      token_cache.Writer(cache, _identity())


def test_a_header_that_was_edited_is_refused_and_made_again(cache):
  path = cache / 'header.json'
  path.write_text(path.read_text().replace('speech', 'speeck'))
  with pytest.raises(encoding.TokensError, match='not as it was written'):
    _read(cache)
  assert token_cache.Writer(cache, _identity()).finish()
  assert len(_read(cache)) == 3


def test_damaged_codebooks_are_named(cache):
  (path,) = cache.glob('codebooks-*.npy')
  whole = path.read_bytes()
  flipped = bytearray(whole)
  flipped[-3] ^= 64
  huge = whole.replace(b'(2, 50, 3)', b'(2, 5000000000, 3)', 1)
  for content in (b'', whole[:-5], b'\0' * 500, bytes(flipped), huge):
    path.write_bytes(content)
    with pytest.raises(encoding.TokensError, match='codebooks-.*npy'):
      token_cache.read_codebooks(cache)
  for array in (
      np.ones(3),
      np.full((K, V, 3), np.nan, np.float32),
      np.array([[['x']]], object),
  ):
    # With the checksum of what it holds.
    np.save(path, array, allow_pickle=True)
    named = f'codebooks-{zlib.crc32(path.read_bytes()):08x}.npy'
    path = path.rename(path.with_name(named))
    with pytest.raises(encoding.TokensError, match='codebooks-.*npy'):
      token_cache.read_codebooks(cache)


def test_new_codebooks_take_the_place_of_others(cache):
  token_cache.write_codebooks(cache, np.zeros((1, 2, 3)))
  np.testing.assert_array_equal(
      token_cache.read_codebooks(cache), np.zeros((1, 2, 3))
  )


def test_what_does_not_fit_the_tokenizer_is_not_written(tmp_path):
  writer = token_cache.Writer(tmp_path / 'c', _identity())
  good = _example('train', 0)
  for codes, message in {
      'slots': (np.zeros((4, K + 1), int), 'codes of shape'),
      'range': (np.full((4, K), V), f'{V} in slot 0'),
      'negative': (np.full((4, K), -1), '-1 in slot 0'),
      'floats': (np.zeros((4, K)), 'float64'),
  }.values():
    bad = encoding.Example(codes, 320, {'id': 'x'})
    with pytest.raises(encoding.TokensError, match=f'clip 1.*{message}'):
      writer.write('test', 0, [good, bad, good])
  assert not list((tmp_path / 'c').glob('*record*'))
