"""What is out of range, or would do nothing, is refused and not computed."""

import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import generation
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import ranges
from audiolm_jax.decoders import segmented
from audiolm_jax.patterns import sequence as sequence_lib
from tests.decoders import small
from tests.generation import quick

V, F = 5, 4
VOCABULARIES = (V, 7)
KEY = jax.random.key(0)
HOT = generation.Sampler()
DECODER = decoder_lib.Decoder(VOCABULARIES, backbone=small.stack())
ONE = decoder_lib.Decoder((V,), backbone=small.stack())
TWO = segmented.Segmented(
    vocabularies=VOCABULARIES,
    sequence=sequence_lib.Sequence(
        (
            sequence_lib.Segment('text', (1,), role='observe'),
            sequence_lib.Segment('speech', (0,)),
        )
    ),
    backbone=small.stack(),
)
# Nothing is computed, so none are needed.
NONE = {}
LENGTHS = np.array([F, 2])


def _codes(value, slot=0, row=1, frame=1):
  kind = np.int64 if value >= 2**31 else np.int32
  codes = np.zeros((2, F, 2), kind)
  codes[row, frame, slot] = value
  return codes


def _apply(method, decoder=DECODER):
  def run(codes, num_frames=LENGTHS):
    return decoder.apply({'params': NONE}, codes, num_frames, method=method)

  return run


def _generate(codes, num_frames=LENGTHS):
  mask = np.ones(codes.shape, bool)
  return generation.generate(DECODER, NONE, codes, mask, num_frames, KEY, HOT)


def _stream(codes):
  return next(quick.stream(DECODER, NONE, codes[1], F, KEY, HOT))


def _parts(codes):
  return {'text': codes[..., 1:], 'speech': codes[..., :1]}


def _check_segments(codes):
  TWO.check(_parts(codes), dict.fromkeys(('text', 'speech'), LENGTHS))


def _segments(codes):
  mask = _parts(np.ones(codes.shape, bool))
  num_frames = dict.fromkeys(mask, LENGTHS)
  return generation.generate(
      TWO, NONE, _parts(codes), mask, num_frames, KEY, HOT
  )


@pytest.mark.parametrize(
    'run',
    [
        _apply('score'),
        _apply('code_logits'),
        _generate,
        _stream,
        _check_segments,
        _segments,
    ],
)
@pytest.mark.parametrize('value, slot', [(-1, 0), (V, 0), (7, 1), (2**32, 0)])
def test_codes_that_a_slot_does_not_have_are_named(run, value, slot):
  row = 0 if run is _stream else 1
  message = (
      f'slot {slot} of frame 1 of row {row} is {value}, but its vocabulary has'
      f' codes 0 to {VOCABULARIES[slot] - 1}'
  )
  with pytest.raises(ValueError, match=message):
    run(_codes(value, slot))
  with pytest.raises(ValueError, match='expected integers'):
    run(_codes(0).astype(float))


def test_ids_that_a_vocabulary_does_not_have_are_named():
  ids = np.array([[0, 1, V]])
  with pytest.raises(ValueError, match='ids: slot 0 of frame 2 of row 0 is 5'):
    _apply('logits', ONE)(ids, None)
  with pytest.raises(ValueError, match='length 4 of row 0 is not in .0, 3.'):
    _apply('logits', ONE)(ids, np.array([4]))


def test_what_is_not_used_may_be_anything():
  """Padding, places that are drawn, and arrays that hold no values yet."""
  ranges.check_frames(_codes(99, frame=3), LENGTHS, VOCABULARIES)
  with pytest.raises(ValueError, match='is 99'):
    ranges.check_frames(_codes(99, frame=3), None, VOCABULARIES)
  mask = np.zeros((2, F, 2), bool)
  params = small.parameters(DECODER, _codes(0), LENGTHS)
  found = generation.generate(
      DECODER, params, _codes(-1), mask, LENGTHS, KEY, HOT
  )
  assert found.codes.min() >= 0
  run = jax.jit(lambda x: ranges.check_frames(x, LENGTHS, VOCABULARIES) or x)
  run(_codes(99))


@pytest.mark.parametrize('num_frames', [[F + 1, 2], [-1, 2], [2], [[2, 2]]])
def test_lengths_out_of_range_are_refused(num_frames):
  for run in (_apply('score'), _generate):
    with pytest.raises(ValueError, match='length|num_frames'):
      run(_codes(0), np.array(num_frames))


@pytest.mark.parametrize(
    'options, message',
    [
        ({'guidance': 3.0}, 'guidance does nothing without'),
        ({'cache_length': 0}, 'cache_length = 0'),
        ({'cache_length': -1}, 'cache_length = -1'),
        ({'sink_tokens': -1, 'cache_length': 2}, 'sink_tokens = -1'),
        (
            {'sink_tokens': 2},
            'sink_tokens = 2 does nothing without a cache_length',
        ),
        ({'stop': generation.Stop(V)}, 'slot 0 has codes 0 to 4'),
        ({'stop': generation.Stop((0, 9), 1)}, 'slot 1 has codes 0 to 6'),
        ({'stop': generation.Stop(0, 2)}, 'there are 2 slots'),
        ({'stop': generation.Stop(0, None)}, 'a frame takes several steps'),
        ({'stop': generation.Stop(6, None)}, 'slot 0 has codes 0 to 4'),
    ],
    ids=str,
)
def test_options_that_do_nothing_are_refused(options, message):
  codes = _codes(0)
  mask = np.ones(codes.shape, bool)
  with pytest.raises(ValueError, match=message):
    generation.generate(
        DECODER, NONE, codes, mask, LENGTHS, KEY, HOT, **options
    )
  with pytest.raises(ValueError, match=message):
    next(quick.stream(DECODER, NONE, codes[0], F, KEY, HOT, **options))


@pytest.mark.parametrize(
    'options, message',
    [
        (
            {'stop': generation.Stop(0, 1)},
            'slot=1.: only .* last segment .speech',
        ),
        ({'prompt_frames': 2}, 'prompt_frames = 2 does nothing in segments'),
        ({'guidance': 3.0}, 'guidance does nothing without'),
    ],
    ids=str,
)
def test_what_segments_can_not_do_is_refused(options, message):
  codes, mask = _parts(_codes(0)), _parts(_codes(0) > 0)
  num_frames = dict.fromkeys(codes, LENGTHS)
  with pytest.raises(ValueError, match=message):
    generation.generate(TWO, NONE, codes, mask, num_frames, KEY, HOT, **options)


@pytest.mark.parametrize('wrong', [(-1, 0), ((), 0), ((1, -2), 0), (1, -1)])
def test_stops_that_no_code_is_are_refused(wrong):
  with pytest.raises(config.ConfigError, match='expected codes'):
    generation.Stop(*wrong)


def test_any_of_several_codes_ends_a_row():
  params = small.parameters(ONE, _codes(0)[..., :1], LENGTHS)
  codes, num_frames = np.zeros((4, 12, 1), np.int32), np.full(4, 12)
  mask = np.zeros(codes.shape, bool)
  warm = generation.Sampler(temperature=9.0)

  def run(**options):
    return quick.generate(
        ONE, params, codes, mask, num_frames, KEY, warm, **options
    )

  free = np.asarray(run().codes)[..., 0]
  hits = np.isin(free, (1, 3))
  first = np.where(hits.any(axis=1), np.argmax(hits, axis=1), 12)
  ends = {free[i, n] for i, n in enumerate(first) if n < 12}
  assert ends == {1, 3}
  found = run(stop=generation.Stop((1, 3)))
  np.testing.assert_array_equal(found.num_frames, first)


def test_a_sequence_of_no_frames_is_one():
  none = np.zeros((2, 0, 2), np.int32)
  found = generation.generate(
      DECODER, NONE, none, none.astype(bool), np.zeros(2, int), KEY, HOT
  )
  assert found.codes.shape == (2, 0, 2) and not found.num_frames.any()
