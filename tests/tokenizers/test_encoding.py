"""The encoding of tokens: what is packed is unpacked, and nothing else is."""

import dataclasses

import numpy as np
import pytest

from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers import encoding

DATES = tokenizers_base.Dates('CNN', 'time', 'RVQ', 'fixed', (), (), ())
SIZES = (5, 1024, 7)


def _format(sizes=SIZES, dimension=None, **options):
  slots = tuple(tokenizers_base.Slot(k, v) for k, v in enumerate(sizes))
  spec = tokenizers_base.Spec(
      16000, 320, slots, True, 0, dates=DATES, dimension=dimension
  )
  options.setdefault('codebooks', len(sizes) or None)
  return encoding.Format(spec, 'abc', **options)


def _block(given, frames=6):
  """Random tokens of a format."""
  rng = np.random.default_rng(0)
  shape = given.rows, frames
  draws = {
      'codes': lambda: rng.integers(
          0, given.vocabularies, (*shape, len(given.vocabularies))
      ),
      'latents': lambda: (
          rng.standard_normal((*shape, given.spec.dimension)).astype(
              given.precision
          )
      ),
      'durations': lambda: rng.permuted(
          np.tile([1, 2, 3], (shape[0], 2)), axis=1
      ),
      'scales': lambda: rng.random(shape, np.float32),
  }
  return encoding.Block(320, **{name: draws[name]() for name in given.arrays})


FORMATS = {
    'codes': _format(),
    'rows': _format(rows=2, codebooks=2, scales=True),
    'durations': _format(durations=True, scales=True),
    'latents': _format((), 3, scales=True, durations=True, rows=2),
    'halves': _format((), 3, precision='float16'),
}


@pytest.mark.parametrize('name', FORMATS)
def test_what_is_packed_is_unpacked(name):
  given = FORMATS[name]
  block = _block(given)
  payload = given.pack(block)
  assert len(payload) == given.payload_bytes(6)
  again = given.unpack(payload, 6, 320)
  assert again.arrays.keys() == given.arrays.keys() == block.arrays.keys()
  for name, values in again.arrays.items():
    np.testing.assert_array_equal(values, block.arrays[name])
    assert values.dtype in (np.int32, np.float32)
  assert again.samples == 320 and again.frames == 6
  assert again.lasting == (12 if given.durations else 6)
  assert encoding.Format.from_dict(given.to_dict()) == given
  twice = given.concatenate([again, again])
  assert (twice.frames, twice.samples) == (12, 640)
  for name, values in given.empty().arrays.items():
    assert values.shape == (given.rows, 0, *twice.arrays[name].shape[2:])
  for wrong in (payload[:-1], payload + b'\0'):
    with pytest.raises(ValueError, match='6 frames take'):
      given.unpack(wrong, 6, 320)


def test_codes_take_their_bits():
  assert FORMATS['codes'].bits == (3, 10, 3)
  assert FORMATS['codes'].payload_bytes(3) == 6
  assert FORMATS['rows'].payload_bytes(1) == 4 + 2 * 4
  assert FORMATS['halves'].payload_bytes(5) == 5 * 3 * 2


@pytest.mark.parametrize(
    'name, changes, message',
    [
        ('codes', {'codes': np.full((1, 6, 3), 6)}, '6 in slot 0.*is 5'),
        ('codes', {'codes': np.full((1, 6, 3), -1)}, '-1 in slot 0'),
        ('codes', {'codes': np.zeros((1, 6, 3))}, 'float64'),
        ('codes', {'codes': np.zeros((1, 6, 2), int)}, 'codes of shape'),
        ('codes', {'scales': np.ones((1, 6))}, 'there are no scales'),
        ('durations', {'durations': None}, 'durations of shape None'),
        ('durations', {'durations': np.zeros((1, 6), int)}, 'of 0 frames'),
        ('durations', {'scales': np.full((1, 6), np.inf)}, 'scales are not fi'),
        ('halves', {'latents': np.full((1, 6, 3), 1e9)}, 'finite in float16'),
    ],
)
def test_what_a_format_does_not_say_is_refused(name, changes, message):
  given = FORMATS[name]
  block = dataclasses.replace(_block(given), **changes)
  with pytest.raises(ValueError, match=message):
    given.pack(block)


def test_payloads_of_impossible_tokens_are_refused():
  with pytest.raises(ValueError, match='7 in slot 0, whose vocabulary is 5'):
    FORMATS['codes'].unpack(b'\xff' * 12, 6, 320)
  with pytest.raises(ValueError, match='latents are not finite'):
    FORMATS['halves'].unpack(b'\xff' * 36, 6, 320)


def test_rows_that_last_unequally_are_refused():
  durations = np.array([[1, 2], [2, 2]])
  block = encoding.Block(9, codes=durations[..., None], durations=durations)
  with pytest.raises(ValueError, match=r'rows last \[3, 4\] frames'):
    _ = block.lasting


@pytest.mark.parametrize(
    'options, message',
    [
        ({'codebooks': 4}, '4 codebooks of 3'),
        ({'codebooks': None}, 'one of the two'),
        ({'sizes': (), 'dimension': None}, 'one of the two'),
        ({'dimension': 2}, 'one of the two|codes'),
    ],
)
def test_formats_are_of_codes_or_latents(options, message):
  with pytest.raises(ValueError, match=message):
    _format(**options)


def test_frames_are_held_against_samples():
  spec = FORMATS['codes'].spec
  encoding.check_frames(spec, 3, 640)
  encoding.check_frames(spec, 2, 640, whole=True)
  with pytest.raises(ValueError, match='640 samples take 2 frames.*are 3'):
    encoding.check_frames(spec, 3, 640, whole=True)
  with pytest.raises(ValueError, match='641 samples take 3 frames.*are 2'):
    encoding.check_frames(spec, 2, 641)
