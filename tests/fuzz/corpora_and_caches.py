"""Hostile folders of audio and damaged token caches, and how they are read.

Each `make` yields (name, path, must_fail): True where a clear error is the only
right result, False where the right result is, None where either is. `read`
takes what a person would and asserts that it is right.
"""

from collections.abc import Callable, Iterator
import hashlib
import json
import os
import pathlib
import shutil
from typing import Any

import numpy as np

from audiolm_jax.audio import files
from audiolm_jax.data import corpora
from audiolm_jax.data import token_cache
from audiolm_jax.tokenizers import encoding
from audiolm_jax.data import token_crops
from tests.data import made_caches

ERRORS = (corpora.CorpusError, encoding.TokensError)

_RATE = 8000
Case = tuple[str, pathlib.Path, bool | None]


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
  """Bytes cut, flipped, replaced, repeated or mixed."""
  data = bytearray(content)
  size = len(data)
  start, stop = sorted(rng.integers(0, size + 1, 2))
  match rng.integers(6):
    case 0:
      return bytes(data[:start])
    case 1:
      for place in rng.integers(0, size, rng.integers(1, 9)):
        data[place] ^= 1 << rng.integers(8)
    case 2:
      data[start:stop] = bytes(stop - start)
    case 3:
      data[start:stop] = rng.bytes(stop - start)
    case 4:
      del data[start:stop]
    case 5:
      data[start:start] = data[start:stop]
  return bytes(data)


# --- Folders -----------------------------------------------------------------


def _wav(path: pathlib.Path, rng, seconds=0.4) -> None:
  audio = rng.uniform(-0.5, 0.5, (round(seconds * _RATE), 1))
  files.write(path, audio.astype(np.float32), _RATE)


def _special(make: Callable[[pathlib.Path], Any]):
  """A mess of one entry with an audio name, which must be named."""

  def mess(root, rng):
    name = f'z{rng.integers(1000)}.wav'
    make(root / name)
    return [], [name]

  return mess


def _bytes(content: Callable[[np.random.Generator], bytes], suffix='.wav'):
  def mess(root, rng):
    name = f'b{rng.integers(1000)}{suffix}'
    (root / name).write_bytes(content(rng))
    return [], [name]

  return mess


def _named(name: str, shown: str | None = None):
  """A good file with an odd name; `shown` if it must be left out."""

  def mess(root, rng):
    path = os.fsencode(root) + b'/' + name.encode(errors='surrogateescape')
    _wav(root / 'tmp.wav', rng)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.rename(root / 'tmp.wav', path)
    return ([], [shown]) if shown else ([name], [])

  return mess


def _said(content: Callable[[np.random.Generator], bytes], good: bool):
  """A good file with a transcript."""

  def mess(root, rng):
    name = f's{rng.integers(1000)}'
    _wav(root / f'{name}.wav', rng)
    (root / f'{name}.txt').write_bytes(content(rng))
    return ([f'{name}.wav'], []) if good else ([], [f'{name}.wav'])

  return mess


def _silent(root, rng):
  name = f'q{rng.integers(1000)}.flac'
  files.write(root / name, np.zeros((_RATE, 1), np.float32), _RATE)
  return [], [name]


def _short(root, rng):
  _wav(root / 'short.wav', rng, 0.05)
  return [], ['short.wav']


def _transcript_pipe(root, rng):
  _wav(root / 'p.wav', rng)
  os.mkfifo(root / 'p.txt')
  return [], ['p.wav']


def _transcript_folder(root, rng):
  _wav(root / 'd.wav', rng)
  (root / 'd.txt').mkdir()
  return [], ['d.wav']


def _link_to_good(root, rng):
  _wav(root / 'target.wav', rng)
  (root / 'alias.wav').symlink_to('target.wav')
  return ['target.wav', 'alias.wav'], []


_MESSES = (
    _special(os.mkfifo),
    _special(pathlib.Path.mkdir),
    _special(lambda path: path.symlink_to('nowhere.wav')),
    _special(lambda path: path.symlink_to(path.name)),
    _special(lambda path: path.symlink_to('/dev/zero')),
    _special(pathlib.Path.touch),
    _bytes(lambda rng: b'\0\1'),
    _bytes(lambda rng: rng.bytes(1000)),
    _bytes(lambda rng: b'RIFF' + rng.bytes(200)),
    _bytes(lambda rng: b'just text', '.flac'),
    _bytes(lambda rng: b'just text', '.mp3'),
    _bytes(lambda rng: b'<html>not found</html>', '.m4a'),
    _bytes(lambda rng: b'OggS' + rng.bytes(300), '.ogg'),
    _bytes(lambda rng: b'', '.opus'),
    _named("it's.wav"),
    _named('a "quoted" name.wav'),
    _named('two  spaces .wav'),
    _named('new\nline.wav'),
    _named('tab\tand\rmore.wav'),
    _named('é日本\U0001f600.wav'),
    _named('UPPER.WAV'),
    _named('a,b;c.wav'),
    _named('deep/er/and/deeper/x.wav'),
    _named('-rf.wav'),
    _named('%s{0}$HOME.wav'),
    _named('x.wav.wav'),
    _named('n' * 200 + '.wav'),
    _named('caf\udce9.wav', 'caf\\udce9.wav'),
    _named('sub\udcff/x.wav', 'sub\\udcff/x.wav'),
    _named('.hidden.wav', '.hidden.wav'),
    _named('.git/x.wav', '.git/x.wav'),
    _said(lambda rng: 'Grüße'.encode(), True),
    _said(lambda rng: '\ufeffwith a mark\r\n'.encode(), True),
    _said(lambda rng: b'', True),
    _said(lambda rng: 'Grüße'.encode('latin-1'), False),
    _said(lambda rng: 'text'.encode('utf-16'), False),
    _said(lambda rng: b'a\0b', False),
    _said(lambda rng: b'long ' * 2**18, False),
    _silent,
    _short,
    _transcript_pipe,
    _transcript_folder,
    _link_to_good,
)

_TABLE = 'file,text,speaker,language\n' + ''.join(
    f'g{i}.wav,"what is, said {i}",speaker {i % 2},en\n' for i in range(4)
)
# Content of metadata.csv -> whether it must fail, and what must be named.
_TABLES: tuple[tuple[bytes, bool | None, tuple[str, ...]], ...] = (
    (_TABLE.encode(), False, ()),
    (_TABLE.replace('\n', '\r\n').encode('utf-8-sig'), False, ()),
    (_TABLE.encode('utf-16'), True, ()),
    ('file,text\ng0.wav,Grüße\n'.encode('latin-1'), True, ()),
    (b'', True, ()),
    (b'path,text\ng0.wav,x\n', True, ()),
    (b'file,split\ng0.wav,dev\n', True, ()),
    (b'file,text\ng0.wav,one, two\n', True, ()),
    (b'file,text\ng0.wav,"one\n', True, ()),
    (b'file,text\ng0.wav,' + b'x' * 200000 + b'\n', True, ()),
    (b'file,text\ng0.wav,a\0b\n', True, ()),
    (b'file,file\ng0.wav,g1.wav\n', True, ()),
    (b'file,text\n', False, ()),
    (b'file,text\n\n\n', False, ()),
    (b'file,text\ng0.wav\n', False, ()),
    (b'file,text\n./g0.wav,said\n', False, ()),
    (b'file,text\nnone.wav,said\n', False, ('metadata.csv line 2',)),
    (b'file,text\n.\\g0.wav,said\n', False, ('metadata.csv line 2',)),
    (b'file,text\ng0.wav,a\ng0.wav,b\n', False, ('metadata.csv line 3',)),
    (b'file,text\n,said\n', False, ('metadata.csv line 2',)),
    (
        b'file,transcript\ng0.wav,said\n',
        False,
        ("metadata.csv column 'transcript'",),
    ),
    (b'file,split\n' + b'g0.wav,test\n' * 50, False, ('metadata.csv line 9',)),
)


def make_folders(
    directory: pathlib.Path, rng: np.random.Generator, count: int
) -> Iterator[Case]:
  """Folders with four good files, some messes and maybe a table."""
  for number in range(count):
    root = directory / f'folder{number:04d}'
    root.mkdir(parents=True)
    clips, named, fails, text = [], [], False, 'messes'
    nothing = number % 29 == 28
    for i in range(0 if nothing else 4):
      _wav(root / f'g{i}.wav', rng)
      clips.append(f'g{i}.wav')
    kind = number % 3
    # All of either kind come round; more of them at once by chance.
    chosen = {number // 3 % len(_MESSES)} if kind == 0 else set()
    chosen |= set(rng.integers(len(_MESSES), size=rng.integers(3)).tolist())
    for i in () if nothing else sorted(chosen):
      more, bad = _MESSES[i](root, rng)
      clips += more
      named += bad
    if nothing:
      fails, text = True, 'no good file'
      _bytes(lambda rng: rng.bytes(99))(root, rng)
    elif kind == 1:
      content, fails, also = _TABLES[number // 3 % len(_TABLES)]
      (root / 'metadata.csv').write_bytes(content)
      named += also
      text = 'table'
    elif kind == 2:
      content = damaged(_TABLE.encode(), rng)
      (root / 'metadata.csv').write_bytes(content)
      fails, text = None, 'damaged table'
    expected = {'clips': sorted(clips), 'named': named}
    (directory / f'{root.name}.json').write_text(json.dumps(expected))
    yield f'{root.name} ({text})', root, fails


def read_folder(path: pathlib.Path) -> None:
  """Builds a folder and reads every clip."""
  os.environ['AUDIOLM_JAX_CACHE'] = str(path.parent / 'cache')
  expected = json.loads(path.with_name(f'{path.name}.json').read_text())
  (card,) = corpora.prepare(str(path))
  left_out = {r['id'] for r in card.rejected}
  assert left_out >= set(expected['named']), (left_out, expected)
  assert len(str(card).splitlines()) == 5 + len(card.totals) + len(left_out)
  found = []
  for split in card.totals:
    corpus = corpora.load_corpus(str(path), split)
    for i in range(len(corpus)):
      clip = corpus[i]
      assert np.isfinite(clip['audio']).all() and clip['audio'].size
      found.append(clip['id'])
  assert sorted(found) == expected['clips'], (found, expected)


# --- Token caches ------------------------------------------------------------

_V, _K = 40, 3
_CLIPS = {'train': 6, 'validation': 3, 'test': 3}
_IDENTITY = made_caches.identity((_V,) * _K, _CLIPS, languages=('en',))


def _example(split: str, i: int) -> encoding.Example:
  rng = np.random.default_rng((len(split), i))
  codes = rng.integers(0, _V, (20 + i, _K)).astype(np.int32)
  return encoding.Example(codes, 320 * len(codes), {'id': f'{split}{i}'})


def _fill(directory) -> None:
  writer = token_cache.Writer(directory, _IDENTITY)
  token_cache.write_codebooks(
      directory, np.arange(_K * _V * 2).reshape(_K, _V, 2)
  )
  for split, part, members in writer.missing():
    writer.write(split, part, [_example(split, i) for i in members])
  assert writer.finish()


def _header(change: Callable[[dict[str, Any]], Any]):
  """A header that says something else, and has the checksum of that."""

  def lie(directory, rng):
    del rng
    path = directory / 'header.json'
    header = json.loads(path.read_text())
    header.pop('checksum')
    change(header)
    text = json.dumps(header, sort_keys=True)
    header['checksum'] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(header))
    return True

  return lie


def _splits(key: str, value: Any):
  def change(header):
    header['splits']['train'][key] = value

  return _header(change)


def _slots(value: Any):
  return _header(lambda h: h['spec'].update(slots=value))


def _the(directory, pattern) -> pathlib.Path:
  (path,) = directory.glob(pattern)
  return path


def _file(name: str, content: bytes):
  def lie(directory, rng):
    del rng
    _the(directory, name).write_bytes(content)
    return True

  return lie


def _flip(name: str, certain: bool | None):
  """Random damage; certain if no byte of the file is without a meaning."""

  def lie(directory, rng):
    path = _the(directory, name)
    before = path.read_bytes()
    after = damaged(before, rng)
    path.write_bytes(after)
    return certain if after != before else False

  return lie


def _gone(name: str):
  def lie(directory, rng):
    del rng
    _the(directory, name).unlink()
    return True

  return lie


def _exchanged(one: str, other: str):
  def lie(directory, rng):
    del rng
    shutil.copy(_part(directory, one), _part(directory, other))
    return True

  return lie


def _part(directory, split):
  return directory / f'{split}-00000.array_record'


def _rewritten(change: Callable[[np.ndarray], np.ndarray]):
  """A part of other codes under the old header."""

  def lie(directory, rng):
    del rng
    header = (directory / 'header.json').read_bytes()
    examples = [_example('train', i) for i in range(_CLIPS['train'])]
    examples[3] = encoding.Example(
        change(examples[3].codes), examples[3].samples, examples[3].factors
    )
    wide = (1000,) * examples[3].codes.shape[1]
    scratch = directory / 'scratch'
    writer = token_cache.Writer(
        scratch,
        made_caches.identity(wide, {'train': 6}),
    )
    writer.write('train', 0, [examples[3]] * 6)
    shutil.move(_part(scratch, 'train'), _part(directory, 'train'))
    shutil.rmtree(scratch)
    (directory / 'header.json').write_bytes(header)
    return True

  return lie


_LIES = (
    _header(lambda h: h.update(version=1)),
    _header(lambda h: h.update(version='1')),
    _header(lambda h: h.pop('version')),
    _header(lambda h: h.update(splits={})),
    _header(lambda h: h.update(splits=None)),
    _header(lambda h: h['splits'].update(train=[])),
    _header(lambda h: h['splits'].update(train={})),
    _header(lambda h: h.update(fingerprint=None)),
    _header(lambda h: h.update(spec=[])),
    _header(lambda h: h.update(rows=2)),
    _header(lambda h: h.update(aligned=False)),
    _header(lambda h: h.update(languages=3)),
    _header(lambda h: h.update(moments={'mean': [0.0], 'std': [1.0]})),
    _header(lambda h: h.update(moments=[])),
    _splits('frames', [10**9] * 6),
    _splits('frames', [10**14] * 6),
    _splits('frames', [10**30] * 6),
    _splits('frames', [-1] * 6),
    _splits('frames', [1.5] * 6),
    _splits('frames', [True] * 6),
    _splits('frames', [20, 21, 22, 23, 24, 26]),
    _splits('frames', [20]),
    _splits('frames', 'frames'),
    _splits('checksums', [0] * 6),
    _splits('checksums', None),
    _splits('speaker', [1] * 6),
    _splits('language', ['en'] * 10**4),
    _slots([{'vocabulary': 2}] * _K),
    _slots([{'vocabulary': 0}] * _K),
    _slots([{'vocabulary': 10**9}] * (_K + 1)),
    _slots([{}] * _K),
    _slots([1, 2, 3]),
    _slots(None),
    _file('header.json', b''),
    _file('header.json', b'[]'),
    _file('header.json', b'null'),
    _file('header.json', b'{}'),
    _file('header.json', b'\xff\xfe\x00'),
    _file('header.json', b'[' * 200000),
    _file('header.json', b'{"version": 1e999}'),
    _file('codebooks-*.npy', b''),
    _file('codebooks-*.npy', b'\x93NUMPY\x01\x00'),
    _file('codebooks-*.npy', b'PK\x03\x04'),
    _file('identity.json', b'{'),
    _file('identity.json', b'[]'),
    _gone('header.json'),
    _gone('codebooks-*.npy'),
    _gone('train-00000.array_record'),
    _exchanged('test', 'validation'),
    _exchanged('train', 'validation'),
    _exchanged('validation', 'train'),
    _rewritten(lambda codes: codes + 900),
    _rewritten(lambda codes: codes[:, :2]),
    _rewritten(lambda codes: codes[:-1]),
    _flip('header.json', True),
    _flip('codebooks-*.npy', True),
    _flip('train-00000.array_record', None),
    _flip('validation-00000.array_record', None),
)


def make_token_caches(
    directory: pathlib.Path, rng: np.random.Generator, count: int
) -> Iterator[Case]:
  """Caches with one thing wrong in each."""
  whole = directory / 'whole'
  _fill(whole)
  yield 'whole', whole, False
  for number in range(count - 1):
    path = shutil.copytree(whole, directory / f'cache{number:04d}')
    # What is wrong by chance comes again after the table's end.
    lie = number if number < len(_LIES) else number % 4 - 4
    yield path.name, path, _LIES[lie](path, rng)


def read_token_cache(path: pathlib.Path) -> None:
  """Reads a cache as training does, and then goes on with it."""
  for split in _CLIPS:
    source = token_crops.TokenCrops(cache=str(path), split=split, frames=9)
    source = source.open(batch_size=4, seed=0)
    source.next(None)
    source.close()
    cache = token_cache.TokenCache(path, split)
    assert len(cache) == _CLIPS[split]
    for batch in token_crops.whole_clips(cache):
      assert batch['codes'].shape[1] <= 128
    for i in range(len(cache)):
      np.testing.assert_array_equal(cache[i].codes, _example(split, i).codes)
      assert cache.frames[i] == len(cache[i].codes)
  assert token_cache.read_codebooks(path)[2, 3, 1] == (2 * _V + 3) * 2 + 1
  assert token_cache.Writer(path, _IDENTITY).finish()


FORMATS = {
    'folder': (make_folders, read_folder),
    'token_cache': (make_token_caches, read_token_cache),
}
