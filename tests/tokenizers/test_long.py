"""Block by block equals the whole, by state, by reach and by segments."""

import dataclasses
import functools
import itertools
import math
import pathlib
import subprocess
import sys
import weakref

import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers import long
from audiolm_jax.tokenizers import encoding
from audiolm_jax.tokenizers import windows
from tests import margin_rule
from tests.tokenizers import contract
from tests.tokenizers import tiny


@functools.cache
def _coder(name):
  return long.Coder(
      *tiny.codec(name), long.Settings(block_seconds=13 * tiny.HOP / tiny.RATE)
  )


def _whole(name, audio, num_samples):
  codec, variables = tiny.codec(name)
  tokens = contract.compiled(codec, 'encode')(variables, audio, num_samples)
  sound, _ = contract.compiled(codec, 'decode')(variables, tokens)
  return tokenizers_base.numpy_tokens(tokens), np.asarray(sound)


def _cut(audio, sizes):
  stops = np.minimum(np.cumsum(sizes), audio.shape[1])
  return np.split(audio, stops, axis=1)


_CASES = [
    # Lengths about the ends of blocks (13 frames), windows and segments.
    *itertools.product(
        ('state', 'reach', 'segments'), (0, 1, 208, 661, 60 * tiny.HOP)
    ),
    ('mirrored', 1),
    ('mirrored', 661),
    ('continuous', 661),
    ('multi_rate', 661),
]


@pytest.mark.parametrize('name, samples', _CASES)
def test_blocks_equal_the_whole(name, samples):
  codec, variables = tiny.codec(name)
  rows, size = 2, 60 * tiny.HOP
  num_samples = np.full(rows, samples)
  audio = contract.noise(codec.spec, num_samples, seed=3)[:, :samples]
  padded = np.pad(audio, ((0, 0), (0, size - samples), (0, 0)))
  expected, sound = _whole(name, padded, num_samples)
  frames = int(codec.spec.frames(samples))
  expected = jax.tree.map(
      lambda x: x[:, :frames], expected.replace(num_samples=None)
  )

  blocks = []
  coder = _coder(name)
  report = coder.encode(_cut(audio, [1, 0, 7, 300, 100]), blocks.append)
  assert report == long.Report(samples, frames)
  assert len(blocks) > 1 or samples < 14 * tiny.HOP
  if not samples:
    return
  for field in ('codes', 'latents', 'scales'):
    whole = getattr(expected, field)
    if whole is None:
      assert getattr(blocks[0], field) is None
      continue
    found = np.concatenate([getattr(b, field) for b in blocks], axis=1)
    if field == 'codes':
      margins = contract.margins_of(codec, variables, padded, num_samples)
      margin_rule.assert_same_codes(found, whole, margins[:, :frames])
    else:
      contract.assert_close(found, whole, 1e-5, field)

  # From the same tokens, in other blocks.
  made = []
  report = coder.decode(_split(expected, samples, codec.spec, 5), made.append)
  assert report == long.Report(samples, frames)
  contract.assert_close(
      np.concatenate(made, axis=1), sound[:, :samples], 1e-5, 'audio'
  )


def _split(tokens, samples, spec, frames):
  """Blocks of so many frames; samples as if there were no segments."""
  values = tokens.latents if tokens.codes is None else tokens.codes
  for start in range(0, values.shape[1], frames):
    past = min(start * spec.hop, samples)
    stop = min(past + frames * spec.hop, samples)
    if start + frames >= values.shape[1]:
      stop = samples
    named = {
        field: getattr(tokens, field)[:, start : start + frames]
        for field in ('codes', 'latents', 'scales')
        if getattr(tokens, field) is not None
    }
    yield encoding.Block(samples=stop - past, **named)


def test_what_depends_on_the_whole_is_refused_or_measured():
  codec, variables = tiny.codec('unbounded')
  audio = contract.noise(codec.spec, [100 * tiny.HOP])
  with pytest.raises(long.LongFileError, match='encoder depends.*whole file'):
    _coder('unbounded').encode([audio], print)
  coder = long.Coder(
      codec,
      variables,
      long.Settings(block_seconds=0.2, overlap_seconds=0.1, codebooks=2),
  )
  less = dataclasses.replace(coder.settings, overlap_seconds=0.02)
  less = long.Coder(codec, variables, less).encode([audio], lambda block: None)
  blocks = []
  report = coder.encode([audio], blocks.append)
  assert np.mean(report.disagreement) <= np.mean(less.disagreement)
  assert (report.samples, report.frames, report.exact) == (1600, 100, False)
  # Windows of 20 new frames share 10.
  assert report.compared == 40
  assert len(report.disagreement) == 3
  assert all(0 <= share < 0.5 for share in report.disagreement)
  assert {b.codes.shape[2] for b in blocks} == {2}
  made = []
  report = coder.decode(blocks, made.append)
  assert sum(a.shape[1] for a in made) == 1600 and not report.exact
  (error,) = report.disagreement
  assert 0 < error < 1
  tokens = tokenizers_base.Tokens(
      num_samples=np.array([1600]),
      codes=np.concatenate([b.codes for b in blocks], axis=1),
  )
  whole, _ = contract.compiled(codec, 'decode')(variables, tokens)
  contract.assert_close(np.concatenate(made, axis=1), whole, 1.0, 'audio')


@pytest.mark.parametrize('length, step', [(5, 5), (5, 2), (7, 6)])
def test_windows_cover_the_stream(length, step):
  for total in range(0, 25):
    x = np.arange(total)[None]
    found = list(
        windows.overlapping(
            ({'x': p} for p in _cut(x, [1, 2, 9])), length, step
        )
    )
    assert [w.start for w in found] == [step * i for i in range(len(found))]
    for w in found:
      expected = x[:, w.start : w.start + length]
      np.testing.assert_array_equal(w.piece['x'], expected)
    assert [w.last for w in found] == [w is found[-1] for w in found]
    assert not total or found[-1].start + found[-1].size == total


def test_fixed_pieces_come_as_soon_as_they_are_whole():
  def pieces():
    for i in range(5):
      seen.append(i)
      yield {'x': np.full((1, 3), i)}

  seen = []
  stream = windows.fixed(pieces(), 2)
  assert windows.size(next(stream)) == 2 and seen == [0]
  sizes = [windows.size(p) for p in stream]
  assert sizes == [2] * 6 + [1]


@pytest.mark.parametrize('name', ['state', 'reach', 'segments'])
def test_what_was_done_is_let_go(name):
  """However long the stream, few of its blocks are alive at a time."""
  alive, most = weakref.WeakSet(), []

  class Traced(np.ndarray):
    """An array that can be told from others."""

    __hash__ = object.__hash__

  def blocks(count, shape, **more):
    for _ in range(count):
      block = np.zeros(shape, **more).view(Traced)
      alive.add(block)
      yield block
      del block
      most.append(len(alive))

  size = 13 * tiny.HOP
  coder = _coder(name)
  coder.encode(blocks(40, (2, size, 1)), lambda block: None)
  codes = blocks(40, (2, 13, 3), dtype=np.int32)
  ones = np.ones((2, 13), np.float32) if name == 'segments' else None
  ends = coder.tokenizer.spec.samples(13 * np.arange(41))
  samples = np.diff(ends).tolist()
  coder.decode(
      (
          encoding.Block(n, codes=x, scales=ones)
          for n, x in zip(samples, codes, strict=True)
      ),
      lambda audio: None,
  )
  assert len(most) == 80 and max(most) <= 8
  # All blocks of all tests, whatever their lengths, have had one shape.
  compiled = coder._encode, coder._decode
  if name == 'state':
    compiled = coder._encode_step, coder._decode_step
  assert [function._cache_size() for function in compiled] == [1, 1]


@pytest.mark.parametrize('name', ['state', 'reach', 'segments'])
def test_samples_beyond_the_frames_are_refused(name, monkeypatch):
  coder = _coder(name)
  codes = np.zeros((1, 13, 3), np.int32)
  block = encoding.Block(samples=2 * 13 * tiny.HOP, codes=codes)
  if name == 'state':
    step, calls = coder._decode_step, iter(range(20))

    def bounded(*arguments):
      next(calls)  # Ends, where decoding would not.
      return step(*arguments)

    monkeypatch.setitem(coder.__dict__, '_decode_step', bounded)
  with pytest.raises(ValueError, match='416 samples take .* frames.* 13'):
    coder.decode([block], lambda audio: None)
  with pytest.raises(ValueError, match='16 samples take 1 frames.* 0'):
    empty = encoding.Block(samples=tiny.HOP, codes=codes[:, :0])
    coder.decode([empty], lambda audio: None)


@pytest.mark.parametrize(
    'field, values',
    [
        ('block_seconds', (-1, 0, math.nan, math.inf, 1e9, '5', None)),
        ('overlap_seconds', (-1, 0, math.nan, math.inf, 1e9, '5')),
        ('codebooks', (0, -1, 1.5, '2')),
    ],
)
def test_settings_that_mean_nothing_are_refused(field, values):
  for value in values:
    with pytest.raises(config.ConfigError, match=field):
      long.Settings(**{field: value})
      pytest.fail(f'{field} = {value}')


def test_settings_that_would_do_nothing_are_refused():
  for name, options, message in (
      ('state', {'overlap_seconds': 0.1}, 'overlap_seconds = 0.1.*exact'),
      ('reach', {'overlap_seconds': 0.1}, 'overlap_seconds = 0.1.*exact'),
      ('state', {'codebooks': 4}, '4 codebooks'),
      ('continuous', {'codebooks': 1}, 'continuous'),
  ):
    with pytest.raises(config.ConfigError, match=message):
      long.Coder(*tiny.codec(name), long.Settings(**options))


@pytest.mark.slow
def test_an_hour_takes_the_memory_of_a_minute():
  bench = pathlib.Path(__file__).parents[2] / 'tools/bench.py'
  subprocess.run(
      [sys.executable, bench, 'memory', '--minutes=1,60'], check=True
  )
