"""Damaged audio of every kind that is read: a clear error, or what is right."""

from collections.abc import Callable, Iterator
import pathlib
import struct

import numpy as np
import soundfile

from audiolm_jax.audio import checks
from audiolm_jax.audio import files
from audiolm_jax.audio import streams
from tests.audio import encoding

ERRORS = (files.AudioFileError,)

_SECONDS = 0.5
_RAW = streams.Raw(16000, 2)
# name -> file name, encoder (None: soundfile), how much its damage shows:
# 'checked' by checksums, 'counted' by lengths, 'bare' not at all.
_KINDS = {
    'wav 16': ('x.wav', 'PCM_16', 'counted'),
    'wav 24': ('x.wav', 'PCM_24', 'counted'),
    'wav float': ('x.wav', 'FLOAT', 'counted'),
    'wav adpcm': ('x.wav', 'MS_ADPCM', 'counted'),
    'aiff': ('x.aiff', 'PCM_16', 'counted'),
    'flac': ('x.flac', 'flac', 'checked'),
    'vorbis': ('x.ogg', 'vorbis', 'checked'),
    'opus': ('x.opus', 'libopus', 'checked'),
    'mp3': ('x.mp3', 'libmp3lame', 'counted'),
    'm4a': ('x.m4a', 'aac', 'counted'),
    'g722': ('x.g722', 'g722', 'bare'),
    'raw': ('x.raw', None, 'bare'),
    'wav in a pipe': ('x.wav', 'PCM_16', 'counted'),
    'flac in a pipe': ('x.flac', 'flac', 'checked'),
    'vorbis in a pipe': ('x.ogg', 'vorbis', 'checked'),
    'opus in a pipe': ('x.opus', 'libopus', 'checked'),
    'mp3 in a pipe': ('x.mp3', 'libmp3lame', 'counted'),
    'aiff in a pipe': ('x.aiff', 'PCM_16', 'counted'),
}
_ABSURD = (0, 1, 2, 3, 255, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def _audio(rng, rate) -> np.ndarray:
  return rng.uniform(-0.5, 0.5, (int(_SECONDS * rate), 1)).astype(np.float32)


def _whole(path: pathlib.Path, how: str | None, rng) -> bytes:
  """An undamaged file of random audio."""
  rate = 48000 if how == 'libopus' else 16000
  audio = _audio(rng, rate)
  if how is None:
    return files.to_int16(audio).tobytes()
  if how.isupper():
    soundfile.write(path, audio, rate, subtype=how)
  else:
    encoding.encode(path, how, audio, rate, 'g722' if how == 'g722' else None)
  data = path.read_bytes()
  path.unlink()
  return data


def _span(data, rng, most) -> tuple[int, int]:
  start = int(rng.integers(len(data)))
  return start, min(start + int(rng.integers(1, most)), len(data))


def _truncated(data, rng):
  return data[: int(rng.integers(1, len(data)))]


def _flipped(data, rng):
  data = bytearray(data)
  for at in rng.integers(len(data), size=rng.integers(1, 20)):
    data[at] ^= 1 << int(rng.integers(8))
  return bytes(data)


def _hole(data, rng):
  start, end = _span(data, rng, 2000)
  return data[:start] + bytes(end - start) + data[end:]


def _cut_out(data, rng):
  start, end = _span(data, rng, 2000)
  return data[:start] + data[end:]


def _doubled(data, rng):
  start, end = _span(data, rng, 2000)
  return data[:end] + data[start:]


def _noise(data, rng):
  start, end = _span(data, rng, 2000)
  return data[:start] + rng.bytes(end - start) + data[end:]


def _field(data, rng):
  """An absurd number somewhere in the first 120 bytes."""
  value = int(rng.choice(_ABSURD))
  packed = struct.pack(str(rng.choice(['<I', '>I'])), value)
  at = int(rng.integers(4, 116))
  width = int(rng.choice([1, 2, 4]))
  return data[:at] + packed[:width] + data[at + width :]


def _all_noise(data, rng):
  return rng.bytes(len(data))


_DAMAGE = (
    _truncated,
    _flipped,
    _hole,
    _field,
    _cut_out,
    _truncated,
    _doubled,
    _noise,
    _field,
    _all_noise,
)
# wav fields: place, format.
_WAV_FIELDS = {
    'tag': (20, '<H'),
    'channels': (22, '<H'),
    'rate': (24, '<I'),
    'byte rate': (28, '<I'),
    'frame': (32, '<H'),
    'bits': (34, '<H'),
    'size': (40, '<I'),
}


def _fixed(kind, data) -> Iterator[tuple[str, bytes, bool | None]]:
  """(name, content, must_fail) of what there is once."""
  suffix, how, shows = _KINDS[kind]
  yield 'whole', data, False
  yield 'empty', b'', True
  bare = shows == 'bare'
  yield 'text', b'not audio at all\n' * 99, None if kind == 'raw' else True
  yield 'zeros', bytes(5000), None if bare else True
  yield 'one byte', b'x', None if bare else True
  yield 'end cut', data[:-9], True if not bare else None
  if how in ('PCM_16', 'PCM_24') and suffix == 'x.wav':
    for name, (at, form) in _WAV_FIELDS.items():
      for value in _ABSURD:
        value %= 1 << 8 * struct.calcsize(form)
        field = struct.pack(form, value)
        bad = name == 'rate' and not 1000 <= value <= 1_000_000
        yield (
            f'{name} {value}',
            data[:at] + field + data[at + len(field) :],
            bad or None,
        )
  if how == 'FLOAT':
    head, samples = data[:-16000], np.frombuffer(data[-16000:], '<f4')
    for value in (np.nan, np.inf, -np.inf, 3e38, 32767.0):
      samples = samples.copy()
      samples[1234] = value
      yield f'a sample of {value}', head + samples.tobytes(), True


def _maker(kind: str) -> Callable:
  """`make` of a kind of file."""
  file_name, how, shows = _KINDS[kind]

  def make(directory, rng, count):
    folder = pathlib.Path(directory) / kind.replace(' ', '_')
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / file_name
    data = _whole(whole, how, rng)
    whole.write_bytes(data)
    right = _decoded(kind, whole)
    whole.unlink()

    def put(i, name, content, must_fail):
      path = folder / f'{i}{whole.suffix}'
      path.write_bytes(content)
      # What damaged files must give, if they give anything.
      if must_fail is False or shows == 'checked':
        np.save(_beside(path), right)
      return f'{kind}: {name}', path, must_fail

    i = 0
    for name, content, must_fail in _fixed(kind, data):
      yield put(i, name, content, must_fail)
      i += 1
    damage = _DAMAGE
    while i < count:
      function = damage[i % len(damage)]
      content = function(data, rng)
      must_fail = None
      if function is _truncated and shows != 'bare':
        must_fail = True
      # The header of mp3 is a frame that may be lacking.
      if function is _cut_out and shows != 'bare' and 'mp3' not in kind:
        must_fail = True
      yield put(i, function.__name__.strip('_'), content, must_fail)
      i += 1

  return make


def _beside(path: pathlib.Path) -> pathlib.Path:
  return path.with_suffix('.right.npy')


def _decoded(kind: str, path: pathlib.Path) -> np.ndarray:
  """[T, C], read strictly."""
  if kind == 'raw':
    with streams.opened(path, raw=_RAW, strict=True) as stream:
      blocks = list(stream.blocks)
    return np.concatenate(blocks or [np.zeros((0, 2), np.float32)])
  if 'pipe' in kind:
    # As `streams.opened('-')` does.
    with open(path, 'rb', buffering=0) as file:
      pipe = streams._Pipe(file.fileno())
      with streams._from_pipe(pipe, 'pipe', None, True) as stream:
        return np.concatenate(
            [np.zeros((0, stream.channels), np.float32), *stream.blocks]
        )
  return files.read(path, strict=True)[0]


def _reader(kind: str) -> Callable:
  """`read` of a kind of file."""

  def read(path):
    path = pathlib.Path(path)
    audio = _decoded(kind, path)
    # As a corpus does.
    if fault := checks.fault(audio, 16000):
      raise files.AudioFileError(f'{path}: {fault}.')
    if _beside(path).exists():
      np.testing.assert_array_equal(audio, np.load(_beside(path)))
    if 'pipe' not in kind and kind != 'raw':
      # What is taken strictly is taken otherwise, without a warning.
      with streams.opened(path, rate=8000) as stream:
        blocks = list(stream.blocks)
      assert sum(map(len, blocks))

  return read


FORMATS = {kind: (_maker(kind), _reader(kind)) for kind in _KINDS}
