"""Token files: what is written is read, and anything else is refused."""

import dataclasses
import functools
import io
import json
import operator
import os
import threading
import tracemalloc

import numpy as np
import pytest

from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers import encoding
from audiolm_jax.tokenizers import packing
from audiolm_jax.tokenizers import token_files
from tests.fuzz import token_streams

DATES = tokenizers_base.Dates(
    'CNN', 'time', 'RVQ', 'fixed', ('Rec',), (), ('speech',)
)


def _spec(vocabularies=(), dimension=None):
  slots = tuple(tokenizers_base.Slot(k, v) for k, v in enumerate(vocabularies))
  return tokenizers_base.Spec(
      16000, 320, slots, True, 480, dates=DATES, dimension=dimension
  )


def _header(vocabularies=(5, 1024, 7), **options):
  options.setdefault('codebooks', len(vocabularies))
  return token_files.Header(_spec(vocabularies), 'abc', 'runs/x', **options)


def _block(header, frames, samples=None, seed=0):
  rng = np.random.default_rng(seed)
  sizes = header.spec.vocabularies[: header.codebooks]
  shape = (header.rows, frames, header.codebooks)
  return encoding.Block(
      samples=320 * frames if samples is None else samples,
      codes=rng.integers(0, sizes, shape).astype(np.int32),
      scales=rng.random(shape[:2], np.float32) if header.scales else None,
  )


def _bytes(header, blocks):
  file = io.BytesIO()
  writer = token_files.Writer(file, header)
  for block in blocks:
    writer.write(block)
  writer.finish()
  return file.getvalue()


def _read(data):
  reader = token_files.Reader(io.BytesIO(data))
  return reader, list(reader)


@pytest.mark.parametrize(
    'vocabularies',
    [(2,), (1,), (1, 3, 1), (1024,) * 8, (5, 17, 65536, 2, 1 << 20), (4096, 3)],
)
@pytest.mark.parametrize('count', [0, 1, 13])
def test_packing_is_a_bijection(vocabularies, count):
  bits = tuple(map(packing.code_bits, vocabularies))
  assert bits == tuple(int(np.ceil(np.log2(v))) for v in vocabularies)
  codes = np.random.default_rng(0).integers(
      0, vocabularies, (count, len(vocabularies))
  )
  codes[-1:] = np.array(vocabularies) - 1
  packed = packing.pack(codes, bits)
  assert len(packed) == -(-count * sum(bits) // 8)
  np.testing.assert_array_equal(packing.unpack(packed, count, bits), codes)


@pytest.mark.parametrize('rows, scales', [(1, False), (2, True)])
def test_what_is_written_is_read(rows, scales):
  factors = {'id': 'x', 'text': 'perché no'}
  header = _header(rows=rows, scales=scales, factors=factors)
  blocks = [_block(header, 3, seed=1), _block(header, 2, 321, seed=2)]
  reader, found = _read(_bytes(header, blocks))
  assert reader.header == header
  assert (reader.frames, reader.samples) == (5, 3 * 320 + 321)
  for a, b in zip(found, blocks, strict=True):
    assert a.samples == b.samples
    np.testing.assert_array_equal(a.codes, b.codes)
    if scales:
      np.testing.assert_array_equal(a.scales, b.scales)


@pytest.mark.parametrize('precision', ['float16', 'float32'])
def test_latents(precision):
  header = token_files.Header(
      _spec(dimension=3), 'abc', rows=2, precision=precision
  )
  latents = np.random.default_rng(0).standard_normal((2, 4, 3))
  latents = latents.astype(precision).astype(np.float32)
  block = encoding.Block(samples=1280, latents=latents)
  _, (found,) = _read(_bytes(header, [block]))
  np.testing.assert_array_equal(found.latents, latents)
  with pytest.raises(ValueError, match='not finite'):
    _bytes(header, [encoding.Block(4, latents=latents * np.nan)])


def test_blocks_equal_the_whole(tmp_path):
  header = _header()
  whole = _block(header, 9, 2700)
  path = tmp_path / 'deep' / 'x.tokens'
  with token_files.create(path, header) as writer:
    for start in range(0, 9, 2):
      stop = min(start + 2, 9)
      writer.write(
          encoding.Block(
              samples=min(2700, stop * 320) - start * 320,
              codes=whole.codes[:, start:stop],
          )
      )
  found, tokens = token_files.read(path)
  assert found == header
  np.testing.assert_array_equal(tokens.codes, whole.codes)
  np.testing.assert_array_equal(tokens.num_samples, [2700])
  assert token_files.check(path) == (header, 9, 2700)
  assert os.listdir(path.parent) == ['x.tokens']


def test_a_file_without_frames(tmp_path):
  with token_files.create(tmp_path / 'x.tokens', _header()) as writer:
    writer.write(_header().empty())
  _, tokens = token_files.read(tmp_path / 'x.tokens')
  assert tokens.codes.shape == (1, 0, 3) and tokens.num_samples == [0]


def test_every_truncation_is_refused():
  header = _header()
  data = _bytes(header, [_block(header, 3), _block(header, 1, 5)])
  _read(data)
  for size in range(len(data)):
    with pytest.raises(encoding.TokensError, match='truncated.*at byte'):
      _read(data[:size])


def test_every_flipped_bit_is_refused():
  header = _header(rows=2, scales=True)
  data = _bytes(header, [_block(header, 1), _block(header, 1, 5)])
  for i in range(8 * len(data)):
    flipped = bytearray(data)
    flipped[i // 8] ^= 1 << i % 8
    with pytest.raises(encoding.TokensError):
      _read(bytes(flipped))


def test_missing_doubled_and_swapped_blocks_and_additions_are_refused():
  header = _header()
  # Equal totals, so that only the checksums can tell.
  start = len(_bytes(header, [])) - 21
  size = len(_bytes(header, [_block(header, 2)])) - 21 - start
  data = _bytes(header, [_block(header, 2, seed=i) for i in range(2)])
  head, end = data[:start], data[start + 2 * size :]
  one, two = data[start : start + size], data[start + size :][:size]
  assert head + one + two + end == data
  _read(data)
  for body in (one, two, two + one, one + one, one + two + two):
    with pytest.raises(encoding.TokensError, match='checksum'):
      _read(head + body + end)
  with pytest.raises(encoding.TokensError, match='follows the end'):
    _read(data + b'\0')


def test_other_files_and_newer_versions_are_refused(tmp_path):
  path = tmp_path / 'x.tokens'
  path.write_bytes(b'RIFF' + bytes(99))
  with pytest.raises(
      encoding.TokensError, match='x.tokens.*no token file.*byte 0'
  ):
    token_files.read(path)
  data = bytearray(_bytes(_header(), []))
  data[8] = encoding.VERSION + 1
  with pytest.raises(encoding.TokensError, match='version 4.*reads 3.*encode'):
    _read(bytes(data))
  with pytest.raises(encoding.TokensError, match='cannot be opened'):
    token_files.read(tmp_path / 'absent.tokens')


def test_what_the_header_does_not_say_is_not_written(tmp_path):
  header = _header()
  good = _block(header, 2)
  bad = {
      'whose vocabulary is': dataclasses.replace(good, codes=good.codes + 1024),
      'codes of shape': dataclasses.replace(good, codes=good.codes[..., :1]),
      'no scales': dataclasses.replace(good, scales=np.ones((1, 2))),
      'without a frame': dataclasses.replace(good, codes=good.codes[:, :0]),
  }
  for message, block in bad.items():
    with pytest.raises(ValueError, match=message):
      with token_files.create(tmp_path / 'x.tokens', header) as writer:
        writer.write(block)
    assert not os.listdir(tmp_path)
  with pytest.raises(ValueError, match='4 codebooks of 3'):
    _header(codebooks=4)


def test_a_pipe_gives_a_block_as_soon_as_it_is_written():
  header = _header()
  source, sink = os.pipe()
  more = threading.Event()

  def write():
    with open(sink, 'wb') as file:
      writer = token_files.Writer(file, header)
      writer.write(_block(header, 2))
      assert more.wait(10)
      writer.finish()

  thread = threading.Thread(target=write)
  thread.start()
  with open(source, 'rb') as file:
    blocks = iter(token_files.Reader(file))
    assert next(blocks).frames == 2
    more.set()
    assert not list(blocks)
  thread.join()


def test_samples_and_frames_of_blocks_agree():
  header = _header()
  with pytest.raises(ValueError, match='1920 samples take 6 frames.*3'):
    _bytes(header, [_block(header, 3, 1920)])
  with pytest.raises(ValueError, match='1 samples take 1 frames.*75'):
    _bytes(header, [_block(header, 75, 1)])
  fields, size = header.to_dict(), header.payload_bytes(3)
  for samples in (961, 640, 1, 0, 1 << 62):
    data = token_streams.forged(fields, [(3, samples, bytes(size))])
    with pytest.raises(encoding.TokensError, match='samples take'):
      _read(data)


def test_nothing_is_allocated_by_a_number_of_the_file():
  """Numbers are held against the bytes that are there first."""
  plain = _header().to_dict()
  none = {
      'slots': [{**slot, 'vocabulary': 1} for slot in plain['spec']['slots']]
  }
  bombs = [
      token_streams.forged(
          {**plain, 'spec': {**plain['spec'], **none}},
          [(10**8, 32 * 10**9, b'')],
      ),
      token_streams.forged({**plain, 'rows': 10**9}),
      token_streams.forged(plain, [(10**8, 32 * 10**9, b'')]),
      token_streams.forged({**plain, 'rows': 1024}, [(10**5, 1, b'')]),
  ]
  for data in bombs:
    tracemalloc.start()
    with pytest.raises(encoding.TokensError):
      _read(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 23


_NONSENSE = [
    ('rows', (0, -1, 1025, 1.0, '1', None, True, [])),
    ('codebooks', (0, -1, 4, 1.0, '1', None, [])),
    ('precision', ('float64', '', 1, None, [])),
    ('scales', (0, 1, None, 'yes')),
    ('durations', (0, 1, None, 'yes')),
    ('factors', (1, None, [], {'text': 1})),
    ('aligned', (0, 1, None, 'yes')),
    ('fingerprint', (1, None, [])),
    ('tokenizer', (1, None, {})),
    ('unknown', (1,)),
    ('spec.sample_rate', (0, -1, 999, 10**7, 16000.0, '16000', None)),
    ('spec.hop', (0, -1, 1.5, 1 << 40, 'x', None)),
    ('spec.channels', (0, -1, 1025, 'x')),
    ('spec.dimension', (0, 8, -1, 'x')),
    ('spec.segment', ([1], [0, 0], [320, 640], 'x', [1, 2, 3], [320, -1])),
    ('spec.slots', ([], None, 3, [1], {}, [{}])),
    ('spec.latency', (-1, 'x', None)),
    ('spec.causal', ('x', 1)),
    ('spec.dates', (None, [], {})),
    ('spec.slots.0.codebook', (-1, 'x', None, 1.0)),
    ('spec.slots.0.vocabulary', (0, 1, -1, 1 << 40, 'x', 1.5)),
    ('spec.slots.0.offset', (-0.5, 2, float('nan'), 'x')),
]


@pytest.mark.parametrize('key, values', _NONSENSE)
def test_nonsense_in_headers_is_refused(key, values):
  header = _header()
  block = (1, 320, bytes(header.payload_bytes(1)))
  *path, last = [int(k) if k.isdigit() else k for k in key.split('.')]
  for value in values:
    fields = json.loads(json.dumps(header.to_dict()))
    group = functools.reduce(operator.getitem, path, fields)
    group[last] = value
    with pytest.raises(encoding.TokensError, match='header|samples'):
      _read(token_streams.forged(fields, [block]))
      pytest.fail(f'{key} = {value!r}')
  for text in (b'[]', b'null', b'3', b'"x"', b'', b'{}', b'[' * 10**5, b'\xff'):
    with pytest.raises(encoding.TokensError, match='header'):
      _read(token_streams.forged(text))


def test_what_can_not_be_written_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'folder').mkdir()
  for path, reason in (
      (tmp_path / 'folder', "Is a directory: .*folder'"),
      (tmp_path / 'file/x.tokens', "File exists: .*file'"),
      ('/proc/x.tokens', "No such file.*'/proc/x.tokens'"),
  ):
    with pytest.raises(OSError, match=reason):
      with token_files.create(path, _header()):
        pytest.fail('opened')
  assert sorted(os.listdir(tmp_path)) == ['file', 'folder']


@pytest.mark.parametrize('segment', [None, (164, 146), (160, 160), (100, 50)])
def test_the_samples_that_frames_hold(segment):
  spec = dataclasses.replace(_spec((2,)), hop=16, segment=segment)
  num_samples = np.arange(2000)
  frames = spec.frames(num_samples)
  for n in range(int(frames[-1])):
    most = int(spec.samples(n))
    assert frames[most] <= n < frames[most + 1]
  np.testing.assert_array_equal(
      spec.samples(np.arange(9)), [spec.samples(n) for n in range(9)]
  )
