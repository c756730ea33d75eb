"""Token files that are damaged, and ones that lie with right checksums."""

from collections.abc import Callable, Iterable, Iterator
import functools
import io
import json
import pathlib
from typing import Any
import zlib

import numpy as np

from audiolm_jax.audio import files
from audiolm_jax.tokenizers import encoding
from audiolm_jax.tokenizers import long
from audiolm_jax.tokenizers import token_files
from audiolm_jax.tokenizers import transcoding
from tests.tokenizers import tiny

Raw = tuple[int, int, bytes]  # frames, samples, payload
Case = tuple[str, pathlib.Path, bool | None]

# What a reader may say of a bad file.
ERRORS = (encoding.TokensError,)

# Codes, latents, and codes with gains: by state, by reach and by segments.
_CODECS = ('state', 'continuous', 'segments')
_KINDS = (
    *('damage', 'lie', 'blocks', 'sound', 'text'),
    *('damage', 'lie', 'blocks', 'damage', 'lie'),
)
_SOURCE = transcoding.Source('0123abcd')
_FRAMES = (5, 13, 9)
_MOST = (1 << 64) - 1
_MOST_FRAMES = (1 << 32) - 1


def forged(header: Any, blocks: Iterable[Raw] = ()) -> bytes:
  """A token file of any header and blocks, whose checksums are right.

  Args:
    header: what JSON can hold, or bytes that stand for it.
    blocks: (frames, samples, payload), none of which need agree.
  """
  file, crc = io.BytesIO(), 0

  def put(data):
    nonlocal crc
    crc = zlib.crc32(data, crc)
    file.write(data + token_files._CRC.pack(crc))

  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  head = token_files._HEAD.pack(token_files._MAGIC, encoding.VERSION, len(text))
  put(head + text)
  frames = samples = 0
  for more_frames, more_samples, payload in blocks:
    head = token_files._BLOCK.pack(b'B', more_frames, more_samples)
    put(head + payload)
    frames, samples = frames + more_frames, samples + more_samples
  put(token_files._END.pack(b'E', frames, samples & _MOST))
  return file.getvalue()


def make(
    directory: pathlib.Path, rng: np.random.Generator, count: int
) -> Iterator[Case]:
  """Writes `count` files: (name, path, whether only an error is right).

  That is True of all random damage, as the checksums find it, and of what is
  known to be a lie; False of sound files, whose tokens lie beside them; None
  where a forged value may do no harm.
  """
  for i in range(count):
    codec, kind = _CODECS[i % len(_CODECS)], _KINDS[i % len(_KINDS)]
    header, blocks, values = _sound(codec, rng)
    data = forged(header, blocks)
    if kind == 'sound':
      name, must_fail = kind, False
    elif kind == 'damage':
      name, must_fail = kind, True
      damaged = data
      while damaged == data:
        damaged = _DAMAGES[int(rng.integers(len(_DAMAGES)))](data, rng)
      data = damaged
    elif kind == 'lie':
      name, must_fail = _lie(header, rng)
      data = forged(header, blocks)
    elif kind == 'blocks':
      change = _BLOCK_LIES[int(rng.integers(len(_BLOCK_LIES)))]
      # NaN as latents or gains, but sound codes.
      harmless = change is _ones and codec == 'state'
      name, must_fail = kind, None if harmless else True
      data = forged(header, change(blocks, rng))
    else:
      name, must_fail = kind, True
      text = _TEXTS[int(rng.integers(len(_TEXTS)))]
      data = forged(text, blocks)
    path = directory / f'{i}-{codec}-{name}.tokens'
    path.write_bytes(data)
    if must_fail is False:
      np.save(path.with_suffix('.npy'), values)
    yield path.stem, path, must_fail


def read(path: pathlib.Path) -> None:
  """Reads and sounds a file as its users do.

  Raises:
    encoding.TokensError: for a file that is refused.
    AssertionError: if what is read is not what is right.
  """
  header, tokens = token_files.read(path)
  (samples,) = set(tokens.num_samples.tolist())
  values = tokens.latents if tokens.codes is None else tokens.codes
  assert token_files.check(path) == (header, values.shape[1], samples)
  out = path.with_suffix('.wav')
  try:
    report = transcoding.decode_file(
        _coder(path.stem.split('-')[1]), _SOURCE, path, out
    )
    assert (report.samples, report.frames) == (samples, values.shape[1])
    sound, rate = files.read(out)
  finally:
    assert not list(path.parent.glob('.*')), 'a half file is left'
    out.unlink(missing_ok=True)
  assert (rate, sound.shape) == (tiny.RATE, (samples, header.rows))
  written = path.with_suffix('.npy')
  if written.exists():
    np.testing.assert_array_equal(values, np.load(written))


FORMATS = {'tokens': (make, read)}


@functools.cache
def _coder(name: str) -> long.Coder:
  settings = long.Settings(block_seconds=13 * tiny.HOP / tiny.RATE)
  return long.Coder(*tiny.codec(name), settings)


def _sound(name, rng):
  """(header, blocks, values) of a file; of its last frame a part is used."""
  spec = _coder(name).tokenizer.spec
  rows = int(rng.integers(1, 3))
  header = token_files.Header(
      spec,
      _SOURCE.fingerprint,
      codebooks=len(spec.slots) or None,
      rows=rows,
      scales=spec.segment is not None,
  )
  shape = rows, sum(_FRAMES), len(spec.slots) or spec.dimension
  if spec.slots:
    values = rng.integers(0, 8, shape).astype(np.int32)
  else:
    values = rng.standard_normal(shape).astype(np.float32)
  field = 'codes' if spec.slots else 'latents'
  scales = rng.random(shape[:2], np.float32) if header.scales else None
  stops = np.cumsum((0, *_FRAMES))
  ends = spec.samples(stops).tolist()
  ends[-1] -= int(rng.integers(tiny.HOP - 4))
  blocks = []
  for i, frames in enumerate(_FRAMES):
    here, samples = slice(stops[i], stops[i + 1]), ends[i + 1] - ends[i]
    block = encoding.Block(
        samples,
        **{field: values[:, here]},
        scales=None if scales is None else scales[:, here],
    )
    blocks.append((frames, samples, header.pack(block)))
  return json.loads(json.dumps(header.to_dict())), blocks, values


def _flipped(data, rng):
  data = bytearray(data)
  for _ in range(int(rng.integers(1, 20))):
    data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
  return bytes(data)


def _cut(data, rng):
  return data[: int(rng.integers(len(data)))]


def _without(data, rng):
  start, stop = sorted(rng.integers(0, len(data) + 1, 2).tolist())
  return data[:start] + data[stop:]


def _doubled(data, rng):
  start, stop = sorted(rng.integers(0, len(data) + 1, 2).tolist())
  return data[:stop] + data[start:]


def _overwritten(data, rng):
  start, stop = sorted(rng.integers(0, len(data) + 1, 2).tolist())
  return data[:start] + rng.bytes(stop - start) + data[stop:]


def _zeroed(data, rng):
  start, stop = sorted(rng.integers(0, len(data) + 1, 2).tolist())
  return data[:start] + bytes(stop - start) + data[stop:]


def _appended(data, rng):
  return data + rng.bytes(int(rng.integers(1, 100)))


def _as_text(data, rng):
  del rng
  return data.replace(b'\n', b'\r\n')


_DAMAGES: tuple[Callable[..., bytes], ...] = (
    _flipped,
    _cut,
    _without,
    _doubled,
    _overwritten,
    _zeroed,
    _appended,
    _as_text,
)

# Values that no header may have; what else JSON knows may do no harm.
_LIES = {
    'rows': (0, -1, 3, 1025, 1 << 30, 1.0, '1', None, True, []),
    'codebooks': (0, -1, 1, 4, 1 << 40, 1.0, '1', None, []),
    'precision': ('float64', '', 1, None, []),
    'scales': (True, 0, 1, None, 'yes'),
    'durations': (True, 0, 1, None, 'yes'),
    'aligned': (0, 1, None, 'yes'),
    'factors': (1, None, [], {'text': 1}),
    'fingerprint': ('', 'f' * 64, 1, None, []),
    'tokenizer': (1, None, {}),
    'unknown': (1, None),
    'spec': (None, [], {}, 'x', 3),
    'spec.sample_rate': (0, -1, 1, 16000, 1 << 40, 1600.0, '1600', None),
    'spec.hop': (0, -1, 1, 8, 32, 1.5, 1 << 40, 'x', None),
    'spec.channels': (0, -1, 2, 1 << 20, 'x', None),
    'spec.dimension': (0, 8, -1, 1 << 60, 'x'),
    'spec.segment': (
        [1],
        [0, 0],
        [16, 32],
        [160, 146],
        'x',
        [1, 2, 3],
        [9, -1],
    ),
    'spec.slots': ([], None, 3, [1], {}, [{}], [[]] * 10**5),
    'spec.latency': (-1, 0, 'x', None, 1 << 70),
    'spec.causal': (False, 'x', 1, None),
    'spec.dates': (None, [], {}, 'x'),
    'spec.dates.objective': (None, 'x', [1], {}),
    'spec.slots.0': (None, [], {}, 3),
    'spec.slots.0.codebook': (-1, 7, 'x', None, 1.0),
    'spec.slots.0.vocabulary': (0, 1, -1, 7, 9, 1 << 31, 1 << 40, 'x', 1.5),
    'spec.slots.0.offset': (-0.5, 0.5, 2, float('nan'), 'x'),
    'spec.slots.2.channel': (-1, 5, 'x'),
}
_MISSING = object()
_JUNK = (
    *(None, True, 0, 1, -1, 1 << 31, 1 << 63, 10**400, 0.5, -0.0, 1e308),
    *(float('inf'), float('nan'), '', 'x', '\0', '\ud800', 'y' * 10**5),
    *([], [[]], {}, {'': None}, [None] * 100),
)
_TEXTS = (
    *(b'', b'[]', b'null', b'3', b'"x"', b'{}', b'{"spec": {}}', b'\xff\xfe'),
    *(b'[' * 10**5, b'{"spec":' * 10**4, b'9' * 10**5, b'NaN', bytes(100)),
)


def _lie(header, rng):
  """Changes a value of a header: (name, whether it must be refused)."""
  while True:
    key = list(_LIES)[int(rng.integers(len(_LIES)))]
    values, must_fail = (
        (_LIES[key], True) if rng.random() < 0.6 else (_JUNK, None)
    )
    value = values[int(rng.integers(len(values)))]
    *path, last = [int(k) if k.isdigit() else k for k in key.split('.')]
    try:
      group = functools.reduce(lambda x, k: x[k], path, header)
    except IndexError:  # Continuous tokens have no slots.
      continue
    if isinstance(group, dict):
      before = group.get(last, _MISSING)
    else:
      before = group[last] if last < len(group) else _MISSING
    if before is _MISSING and last != 'unknown':
      continue
    # It may be so by chance; 1 is not true, though Python has it so.
    if before is _MISSING or json.dumps(before) != json.dumps(value):
      group[last] = value
      return f'{"lie" if must_fail else "junk"}-{key}', must_fail


def _first(change):
  """Blocks of which a random one is changed."""

  def changed(blocks, rng):
    blocks = list(blocks)
    i = int(rng.integers(len(blocks)))
    blocks[i] = change(*blocks[i], rng)
    return blocks

  return changed


_ones = _first(lambda f, s, p, rng: (f, s, b'\xff' * len(p)))
_BLOCK_LIES = (
    _ones,
    _first(lambda f, s, p, rng: (f, 2 * s, p)),
    _first(lambda f, s, p, rng: (f, 0, p)),
    _first(lambda f, s, p, rng: (f, _MOST, p)),
    _first(lambda f, s, p, rng: (f, s - tiny.HOP, p)),
    _first(lambda f, s, p, rng: (0, s, p)),
    _first(lambda f, s, p, rng: (f + 1, s, p)),
    _first(lambda f, s, p, rng: (f - 1, s, p)),
    _first(lambda f, s, p, rng: (_MOST_FRAMES, s, p)),
    _first(lambda f, s, p, rng: (10**8, 10**8 * tiny.HOP, p)),
    _first(lambda f, s, p, rng: (f, s, b'')),
    _first(lambda f, s, p, rng: (f, s, p + rng.bytes(9))),
    lambda blocks, rng: [*blocks, (0, 0, b'')],
)
