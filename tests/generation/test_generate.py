"""Cached generation against scoring the whole sequence again at each step."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import generation
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import mlps
from audiolm_jax.decoders import stack
from audiolm_jax.decoders.mixers import attention
from audiolm_jax.patterns import interleaving

V, F, K = 5, 6, 2
GREEDY = generation.Sampler(temperature=0.0)
PATTERNS = [
    interleaving.Delay((0, 2)),
    interleaving.Parallel(),
    interleaving.Flatten(),
]


@pytest.fixture(scope='module', params=PATTERNS, ids=str)
def model(request):
  decoder = decoder_lib.Decoder(
      (V,) * K,
      pattern=request.param,
      backbone=stack.Stack(8, 2, (attention.Attention(2),), mlps.Dense(8)),
  )

  @functools.partial(
      jax.jit, compiler_options={'xla_backend_optimization_level': 0}
  )
  def init(rng):
    codes = jnp.zeros((1, F, K), jnp.int32)
    return decoder.init(rng, codes, jnp.array([F]), method='score')

  params = nn.meta.unbox(init(jax.random.key(0))['params'])
  params['head'] = jax.tree.map(lambda w: 40 * w, params['head'])
  score = jax.jit(
      lambda codes, lengths: decoder.apply(
          {'params': params}, codes, lengths, method='score'
      ).log_prob
  )
  return decoder, params, score


def _uncached_greedy(decoder, score, given, given_mask, lengths):
  """Place by place, each time trying every code in the whole sequence."""
  codes = np.where(given_mask, given, 0)
  layout = decoder.pattern.layout(F, K)
  for n in range(layout.frame.shape[0]):
    # Codes of one step do not see each other.
    chosen = codes.copy()
    for frame, slot in zip(layout.frame[n], layout.slot[n], strict=True):
      if not 0 <= frame < F:
        continue
      trials = []
      for code in range(V):
        trial = codes.copy()
        trial[:, frame, slot] = code
        trials.append(np.asarray(score(trial, lengths))[:, frame, slot])
      best = np.argmax(trials, axis=0)
      free = ~given_mask[:, frame, slot] & (frame < lengths)
      chosen[free, frame, slot] = best[free]
    codes = chosen
  return codes


def _inputs(seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, V, (3, F, K)).astype(np.int32)


def _prompts(lengths):
  mask = np.arange(F)[None, :, None] < np.array(lengths)[:, None, None]
  return np.broadcast_to(mask, (len(lengths), F, K))


def test_greedy_continuation_equals_uncached_and_prefill(model):
  """Prompts of different lengths, rows of different lengths."""
  decoder, params, score = model
  given, given_mask = _inputs(), _prompts([2, 3, 4])
  lengths = np.array([6, 6, 5], np.int32)
  expected = _uncached_greedy(decoder, score, given, given_mask, lengths)
  inside = np.arange(F)[None, :, None] < lengths[:, None, None]
  expected = np.where(inside, expected, 0)
  for prompt_frames in (0, 2):
    codes, log_prob = generation.generate(
        decoder,
        params,
        given,
        given_mask,
        lengths,
        jax.random.key(0),
        GREEDY,
        prompt_frames=prompt_frames,
    )
    np.testing.assert_array_equal(codes, expected)
    # What it says of its own codes is what scoring says of them.
    wanted = np.array(score(np.asarray(codes), lengths))
    if prompt_frames:
      log_prob = np.asarray(log_prob)
      seen = log_prob != 0
      assert seen[:, prompt_frames:][inside[:, prompt_frames:, 0]].all()
      wanted = np.where(seen, wanted, 0)
    np.testing.assert_allclose(log_prob, wanted, rtol=1e-5, atol=1e-5)


def test_infilling_keeps_what_is_given_anywhere(model):
  decoder, params, score = model
  given = _inputs(1)
  given_mask = np.random.default_rng(2).random((3, F, K)) < 0.4
  lengths = np.full(3, F, np.int32)
  codes, _ = generation.generate(
      decoder, params, given, given_mask, lengths, jax.random.key(0), GREEDY
  )
  np.testing.assert_array_equal(
      np.asarray(codes)[given_mask], given[given_mask]
  )
  np.testing.assert_array_equal(
      codes, _uncached_greedy(decoder, score, given, given_mask, lengths)
  )


def test_seeds_and_batches(model):
  """The same seed draws the same; another draws another."""
  decoder, params, _ = model
  draw = functools.partial(
      generation.generate,
      decoder,
      params,
      _inputs(),
      _prompts([1, 1, 1]),
      np.full(3, F, np.int32),
      sampler=generation.Sampler(temperature=3.0),
  )
  first, again, other = [
      np.asarray(draw(rng=jax.random.key(seed))[0]) for seed in (0, 0, 1)
  ]
  np.testing.assert_array_equal(first, again)
  assert (first != other).any()
  assert first.min() >= 0 and first.max() < V


def test_streaming_steps_equal_the_loop_and_rows_restart(model):
  """`step` by hand, with one row started anew in the middle."""
  decoder, params, _ = model
  lengths = np.full(3, F, np.int32)
  given, given_mask = _inputs(), _prompts([2, 2, 2])
  expected, _ = generation.generate(
      decoder, params, given, given_mask, lengths, jax.random.key(0), GREEDY
  )
  layout = decoder.pattern.layout(F, K)
  given, mask = layout.to_steps(given), layout.to_steps(given_mask)
  steps = given.shape[1]
  step = jax.jit(functools.partial(generation.step, decoder, params, GREEDY))
  state = generation.start(decoder, lengths, steps + 2, jax.random.key(0))
  fresh = state
  got = [[], [], []]
  starts = np.array([0, 2, 0])
  for n in range(steps + 2):
    if n == 2:
      state = generation.restart(state, fresh, np.array([False, True, False]))
    turn = np.clip(n - starts * (n >= 2), 0, steps - 1)
    rows = np.arange(3)
    state, codes, _ = step(state, given[rows, turn], mask[rows, turn])
    for row in range(3):
      got[row].append(codes[row])
  for row, begin in enumerate(starts):
    stream = np.stack(got[row])[begin : begin + steps]
    scored = (layout.frame >= 0) & (layout.frame < F)
    np.testing.assert_array_equal(
        np.where(scored, stream, 0), layout.to_steps(expected)[row]
    )


def test_an_endless_stream_begins_like_a_sequence(model):
  decoder, params, _ = model
  given, given_mask = _inputs(), _prompts([1, 1, 1])
  lengths = np.full(3, F, np.int32)
  expected, _ = generation.generate(
      decoder, params, given, given_mask, lengths, jax.random.key(0), GREEDY
  )
  layout = decoder.pattern.layout(F, K)
  given, mask = layout.to_steps(given), layout.to_steps(given_mask)
  endless = np.full(3, generation.ENDLESS, np.int32)
  state = generation.start(decoder, endless, F, jax.random.key(0))
  step = jax.jit(functools.partial(generation.step, decoder, params, GREEDY))
  for n in range(F):
    state, codes, _ = step(state, given[:, n], mask[:, n])
    np.testing.assert_array_equal(codes, layout.to_steps(expected)[:, n])
