"""Cached generation against scoring the whole sequence again at each step."""

import functools

import jax
import numpy as np
import pytest

from audiolm_jax import generation
from audiolm_jax.decoders import decoder as decoder_lib
from tests.decoders import small
from tests.generation import quick

V, F, K = 5, 6, 2
GREEDY = generation.Sampler(temperature=0.0)
HOT = generation.Sampler(temperature=3.0)
FULL = np.full(3, F, np.int32)
PATTERNS = ['delay', 'coarse first', 'coarse first by blocks']
KEY = jax.random.key(0)


def make(pattern, head='independent', **options):
  decoder = decoder_lib.Decoder(
      (V,) * K,
      pattern=small.PATTERNS[pattern],
      head=small.HEADS[head],
      backbone=small.stack(**options),
  )
  codes = np.zeros((1, F, K), np.int32)
  return decoder, small.parameters(decoder, codes, np.array([F]))


@pytest.fixture(scope='module', params=PATTERNS)
def model(request):
  decoder, params = make(request.param)
  score = small.scorer(decoder)
  return decoder, params, lambda c, n: score(params, c, n).log_prob


def _uncached_greedy(decoder, score, given, given_mask, num_frames):
  """Row by row and step by step, trying every code in the whole sequence."""
  codes = np.where(given_mask, given, 0)
  for row, length in enumerate(num_frames):
    layout = decoder.pattern.layout(int(length), K)
    for frames, slots in zip(layout.frame, layout.slot, strict=True):
      # Codes of one step do not see each other.
      chosen = codes.copy()
      for frame, slot in zip(frames, slots, strict=True):
        if not 0 <= frame < length or given_mask[row, frame, slot]:
          continue
        trials = np.repeat(codes[[row]], V, axis=0)
        trials[:, frame, slot] = np.arange(V)
        log_prob = score(trials, np.full(V, length, np.int32))
        chosen[row, frame, slot] = np.argmax(log_prob[:, frame, slot])
      codes = chosen
    codes[row, length:] = 0
  return codes


def _inputs(seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, V, (3, F, K)).astype(np.int32)


def _prompts(num_frames):
  mask = np.arange(F)[None, :, None] < np.array(num_frames)[:, None, None]
  return np.broadcast_to(mask, (len(num_frames), F, K))


def test_greedy_continuations_of_prompts_of_different_lengths(model):
  """Rows of different lengths, what prompts hold is taken in at once."""
  decoder, params, score = model
  num_frames = np.array([6, 6, 4], np.int32)
  given, given_mask = _inputs(), _prompts([2, 0, 4])
  expected = _uncached_greedy(decoder, score, given, given_mask, num_frames)
  inside = np.arange(F)[None, :, None] < num_frames[:, None, None]
  inside = np.broadcast_to(inside, given.shape)
  wanted = np.asarray(score(expected, num_frames))
  found = quick.generate(
      decoder, params, given, given_mask, num_frames, KEY, GREEDY, 4
  )
  np.testing.assert_array_equal(found.codes, expected)
  np.testing.assert_array_equal(found.num_frames, num_frames)
  # What it says of its own codes is what scoring says of them.
  log_prob = np.asarray(found.log_prob)
  told = log_prob != 0
  assert told[inside & ~given_mask].all() and not told[~inside].any()
  assert not told[given_mask].all()
  np.testing.assert_allclose(
      log_prob, np.where(told, wanted, 0), rtol=1e-5, atol=1e-5
  )


def test_infilling_keeps_what_is_given_anywhere(model):
  decoder, params, score = model
  given = _inputs(1)
  given_mask = np.random.default_rng(2).random((3, F, K)) < 0.4
  found = quick.generate(
      decoder, params, given, given_mask, FULL, KEY, GREEDY, 4
  )
  expected = _uncached_greedy(decoder, score, given, given_mask, FULL)
  np.testing.assert_array_equal(found.codes, expected)
  np.testing.assert_array_equal(
      np.asarray(found.codes)[given_mask], given[given_mask]
  )


def test_what_is_drawn_depends_on_seed_and_row_alone():
  """Not on the batch, nor on how a prompt is taken in."""
  decoder, params = make('delay')

  def draw(rows=3, seed=0, prompt_frames=0):
    return np.asarray(
        quick.generate(
            decoder,
            params,
            _inputs()[:rows],
            _prompts([1, 2, 1])[:rows],
            FULL[:rows],
            jax.random.key(seed),
            HOT,
            prompt_frames,
        ).codes
    )

  first = draw()
  np.testing.assert_array_equal(first, draw())
  assert (first != draw(seed=1)).any()
  # One step of two at once, or both.
  np.testing.assert_array_equal(first, draw(prompt_frames=1))
  np.testing.assert_array_equal(first[:1], draw(rows=1, prompt_frames=2))
  assert first.min() >= 0 and first.max() < V
  assert (first[0, 2:] != first[2, 2:]).any()


@pytest.fixture(scope='module')
def compiled(model):
  decoder, params, _ = model
  # The state is donated: no two of its leaves may share memory.
  return small.quick_jit(
      functools.partial(
          generation.step, generation.Frames(decoder, params, HOT)
      ),
      donate_argnums=0,
  )


def _given_steps(decoder, given, mask, n, starts=0):
  """What is given of each row's own step."""
  step = np.maximum(n - starts + np.zeros(3, int), 0)
  frame, slot = decoder.pattern.cells(step, K, FULL)
  at = np.arange(3)[:, None], np.clip(frame, 0, F - 1), slot
  return given[at], mask[at] & (frame >= 0) & (frame < F)


def test_streaming_steps_equal_the_loop_and_rows_restart(model, compiled):
  """`step` by hand, with one row started anew in the middle."""
  decoder, params, _ = model
  given, mask = _inputs(), _prompts([2, 2, 2])
  found = quick.generate(decoder, params, given, mask, FULL, KEY, HOT)
  count = decoder.pattern.steps(F, K)
  starts = np.array([0, 2, 0])
  track = generation.Frames(decoder, params, HOT)
  state = generation.start(track, FULL, count + 2, KEY)
  got = np.zeros_like(given)
  for n in range(count + 2):
    if n == 2:
      fresh = generation.start(track, FULL, count + 2, KEY)
      state = generation.restart(state, fresh, starts > 0)
    own = n - starts * (n >= 2)
    frame, slot = decoder.pattern.cells(own, K, FULL)
    state, codes, _ = compiled(
        state, *_given_steps(decoder, given, mask, n, starts * (n >= 2))
    )
    for row, place in np.argwhere(np.asarray(state.exists)):
      got[row, frame[row, place], slot[row, place]] = codes[row, place]
  np.testing.assert_array_equal(got, found.codes)


def test_an_endless_stream_begins_like_a_sequence(model, compiled):
  decoder, params, _ = model
  endless = np.full(3, generation.ENDLESS, np.int32)
  if not decoder.pattern.streamable:
    frames = quick.stream(
        decoder,
        params,
        _inputs()[0, :1],
        None,
        KEY,
        HOT,
        cache_length=2 * F * K,
    )
    with pytest.raises(ValueError, match='without an end'):
      next(frames)
    return
  given, mask = _inputs(), _prompts([1, 1, 1])
  found = quick.generate(decoder, params, given, mask, FULL, KEY, HOT)
  track = generation.Frames(decoder, params, HOT)
  state = generation.start(track, endless, 2 * F * K, KEY)
  for n in range(F):
    state, codes, _ = compiled(state, *_given_steps(decoder, given, mask, n))
    frame, slot = decoder.pattern.cells(np.array([n]), K)
    for place in range(frame.shape[1]):
      f, s = frame[0, place], slot[0, place]
      if 0 <= f < F:
        np.testing.assert_array_equal(codes[:, place], found.codes[:, f, s])


def test_a_row_that_stops_equals_one_whose_end_was_known(model):
  decoder, params, _ = model
  given, mask = _inputs(), _prompts([1, 1, 1])

  def run(num_frames, **options):
    return quick.generate(
        decoder, params, given, mask, num_frames, KEY, HOT, **options
    )

  if not decoder.pattern.streamable:
    with pytest.raises(ValueError, match='no stop'):
      run(FULL, stop=generation.Stop(0))
    return
  # The slot that comes first: nothing past the end has begun by then.
  slot = int(decoder.pattern.layout(F, K).step[0].argmin())
  free = np.asarray(run(FULL).codes)[..., slot]
  found = run(FULL, stop=generation.Stop(int(free[0, 3]), slot))
  ends = free[:, 1:] == free[0, 3]
  first = np.where(ends.any(axis=1), 1 + np.argmax(ends, axis=1), F)
  assert (first < F).any()
  np.testing.assert_array_equal(found.num_frames, first)
  known = run(first.astype(np.int32))
  for a, b in zip(found, known, strict=True):
    np.testing.assert_array_equal(a, b)


def test_the_loop_ends_when_all_rows_have_ended():
  decoder, params = make('delay')
  count = []

  class Counting(generation.Sampler):

    def __call__(self, *arguments):
      jax.debug.callback(lambda: count.append(1))
      return super().__call__(*arguments)

  for num_frames, steps in (([3, 1], 5), ([0, 0], 0), ([6, 2], 8)):
    count.clear()
    none = np.zeros((2, F, K), np.int32)
    found = quick.generate(
        decoder,
        params,
        none,
        none.astype(bool),
        np.array(num_frames, np.int32),
        KEY,
        Counting(),
    )
    jax.block_until_ready(found)
    jax.effects_barrier()
    assert len(count) == steps


def test_depth_heads_generate_what_they_score():
  decoder, params = make('delay', 'depth of each place')
  given, mask = _inputs(), _prompts([1, 2, 0])
  found = quick.generate(decoder, params, given, mask, FULL, KEY, HOT)
  scores = small.scorer(decoder)(params, np.asarray(found.codes), FULL)
  np.testing.assert_allclose(
      found.log_prob, scores.log_prob, rtol=1e-5, atol=1e-5
  )
