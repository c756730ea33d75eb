"""Guidance, rooms, repetition, unrolled stacks."""

import functools
import re

import jax
import numpy as np
import pytest

from audiolm_jax import generation
from audiolm_jax import ops
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.generation import guidance as guidance_lib
from audiolm_jax.generation import steps
from audiolm_jax.patterns import interleaving
from tests.decoders import small
from tests.generation import quick

V, F, K = 5, 6, 2
GREEDY = generation.Sampler(temperature=0.0)
HOT = generation.Sampler(temperature=2.0)
KEY = jax.random.key(0)
GIVEN = np.random.default_rng(0).integers(0, V, (2, F, K)).astype(np.int32)
MASK = np.broadcast_to(
    np.arange(F)[None, :, None] < np.array([1, 2])[:, None, None], GIVEN.shape
)
FULL = np.full(2, F, np.int32)


def _decoder(head='independent', layers=1, **options):
  return decoder_lib.Decoder(
      (V,) * K,
      pattern=interleaving.Delay(),
      head=small.HEADS[head],
      backbone=small.stack(layers=layers, **options),
  )


def test_combine():
  rows = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
  rows[0, 1] = rows[2, 1] = -np.inf
  for scale in (0.0, 1.0, 2.5):
    found = guidance_lib.combine(rows, scale)
    assert found[0, 1] == -np.inf
    c, u = rows[:2, ::2], rows[2:, ::2]
    np.testing.assert_allclose(found[:, ::2], u + scale * (c - u), rtol=1e-5)


def test_steps_do_not_project_what_they_attend_to():
  """They would, for a context that is not prepared; the codes are the same."""
  decoder = _decoder(cross=attention.Cross(2), layers=2)
  cross = np.random.default_rng(1).normal(size=(2, 4, 3)).astype(np.float32)
  context = {'cross': cross, 'cross_mask': np.ones((2, 4), bool)}
  params = small.parameters(decoder, GIVEN, FULL, context)
  known = generation.with_keys(decoder, params, context)
  state = steps.start(generation.Frames(decoder, params, HOT), FULL, F + K, KEY)

  def step(context):
    track = generation.Frames(decoder, params, HOT, context)
    return steps.step(track, state, GIVEN[:, 0], MASK[:, 0])[1:]

  run = small.quick_jit(step)
  for got, want in zip(run(known), run(context), strict=True):
    np.testing.assert_allclose(got, want, rtol=1e-5)

  def products(context):
    # Of the keys' and the values' weights, [3, D], with the context.
    text = str(jax.make_jaxpr(step)(context))
    return len(re.findall(r'dot_general\[.*?\] \w+ \w+', text, re.DOTALL))

  assert products(context) == products(known) + 2 * 2


def test_learned_positions_end_a_stream_before_it_begins():
  decoder = _decoder(positions='learned', max_positions=F)
  params = small.parameters(decoder, GIVEN[:, : F - 1], FULL - 1)
  # A delay takes one step more than there are frames.
  short = GIVEN[:, : F - 1]
  quick.generate(decoder, params, short, MASK[:, : F - 1], FULL - 1, KEY, HOT)
  with pytest.raises(ValueError, match='7 positions, but max_positions = 6'):
    generation.generate(decoder, params, GIVEN, MASK, FULL, KEY, HOT)
  for frames, why in ((F, '7 positions'), (None, 'no end')):
    stream = quick.stream(
        decoder, params, GIVEN[0, :1], frames, KEY, HOT, cache_length=3
    )
    with pytest.raises(ValueError, match=f'{why}, but max_positions = 6'):
      next(stream)


@pytest.mark.parametrize('head', ['independent', 'depth'])
def test_guidance(head):
  """1 is conditional and 0 unconditional, exactly; 3 follows the formula."""
  decoder = _decoder(head, adaptive='film')
  film = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)
  context, null = {'film': film}, {'film': np.zeros((1, 3), np.float32)}
  zeros = {'film': 0 * film}
  params = small.parameters(decoder, GIVEN, FULL, context)

  def run(sampler=HOT, prompt=2, **options):
    return quick.generate(
        decoder, params, GIVEN, MASK, FULL, KEY, sampler, prompt, **options
    )

  both = {'context': context, 'null_context': null}
  one, other = run(context=context), run(context=zeros)
  assert (np.asarray(one.codes) != np.asarray(other.codes)).any()
  for scale, wanted in ((1.0, one), (0.0, other)):
    found = run(guidance=scale, **both)
    np.testing.assert_array_equal(found.codes, wanted.codes)
    if scale:
      np.testing.assert_allclose(found.log_prob, one.log_prob, rtol=1e-5)
  if head == 'depth':
    return
  found = np.asarray(run(GREEDY, guidance=3.0, **both).codes)

  @small.quick_jit
  def score(codes, context):
    return decoder.apply(
        {'params': params}, codes, FULL, context, method='score'
    )['frames'].log_prob

  free = ~MASK
  totals = []
  for code in range(V):
    # Every cell in turn as `code`: codes of one step do not see each other,
    # and no cell sees itself.
    mixed = np.zeros(GIVEN.shape)
    for f in range(F):
      for k in range(K):
        trial = found.copy()
        trial[:, f, k] = code
        c, u = (np.asarray(score(trial, x))[:, f, k] for x in (context, zeros))
        mixed[:, f, k] = u + 3 * (c - u)
    totals.append(mixed)
  np.testing.assert_array_equal(found[free], np.argmax(totals, axis=0)[free])


def test_a_stream_goes_on_beyond_its_cache():
  """Five times as long as its cache: as the whole form with that window."""
  cache_length, sink_tokens, frames = 4, 2, 20
  decoder = _decoder()
  endless = np.full(2, generation.ENDLESS, np.int32)
  params = small.parameters(decoder, GIVEN, FULL)
  track = generation.Frames(decoder, params, HOT)
  step = small.quick_jit(
      functools.partial(generation.step, track), donate_argnums=0
  )
  state = generation.start(track, endless, cache_length, KEY, sink_tokens)
  sizes = {x.shape for x in jax.tree.leaves(state)}
  codes = np.zeros((2, frames + 1, K), np.int32)
  log_prob = np.zeros(codes.shape, np.float32)
  nothing = np.zeros((2, K), np.int32)
  for n in range(frames + 1):
    state, drawn, scores = step(state, nothing, nothing.astype(bool))
    for k in range(K):
      if n >= k:
        codes[:, n - k, k], log_prob[:, n - k, k] = drawn[:, k], scores[:, k]
  assert {x.shape for x in jax.tree.leaves(state)} == sizes
  whole = _decoder(mixer={'window': cache_length, 'sink_tokens': sink_tokens})
  num_frames = np.full(2, frames, np.int32)
  expected = small.scorer(whole)(params, codes[:, :frames], num_frames).log_prob
  np.testing.assert_allclose(
      log_prob[:, :frames], expected, rtol=1e-4, atol=1e-5
  )
  # It matters what has fallen out of sight.
  full = small.scorer(decoder)(params, codes[:, :frames], num_frames).log_prob
  assert np.abs(full - expected).max() > 1e-3
  # And the loop does the same, with a prompt longer than the cache.
  given = codes[:, :frames]
  mask = np.arange(frames)[None, :, None] < np.array([9, 6])[:, None, None]
  found = quick.generate(
      decoder,
      params,
      given,
      np.broadcast_to(mask, given.shape),
      np.full(2, frames, np.int32),
      KEY,
      HOT,
      9,
      cache_length=cache_length,
      sink_tokens=sink_tokens,
  )
  np.testing.assert_array_equal(found.codes[:, :-1], given[:, :-1])


def test_recent_codes_of_each_slot():
  """Step by step or with prompts taken in at once."""
  decoder = _decoder()
  params = small.parameters(decoder, GIVEN, FULL)

  class Forbidding(generation.Sampler):

    def _penalise(self, logits, recent):
      seen = (recent[..., None] == np.arange(V)).any(axis=-2)
      return jax.numpy.where(seen, -np.inf, logits)

  sampler = Forbidding(repetition_window=3)
  found = [
      np.asarray(
          quick.generate(
              decoder, params, GIVEN, MASK, FULL, KEY, sampler, prompt
          ).codes
      )
      for prompt in (0, 2)
  ]
  np.testing.assert_array_equal(*found)
  for row, start in enumerate((1, 2)):
    for f in range(start, F):
      for k in range(K):
        assert found[0][row, f, k] not in found[0][row, max(0, f - 3) : f, k]
  for prompt in (0, 2):
    track = generation.Frames(decoder, params, sampler)
    state = generation.start(track, FULL, F + 1, KEY)
    if prompt:
      state, _ = generation.take_prompts(
          track, state, GIVEN, MASK, track.leading(F, 2)
      )
    # Slot 1 lags by a step.
    held = [[1, 0], [2, 1]] if prompt else [[0, 0], [0, 0]]
    for row in range(2):
      for k in range(K):
        wanted = [-1] * 3 + list(GIVEN[row, : held[row][k], k])
        np.testing.assert_array_equal(state.recent[row, k], wanted[-3:])


def test_a_scanned_stack_is_unrolled():
  decoder = _decoder(layers=2)
  params = small.parameters(decoder, GIVEN, FULL)
  stack, layers = decoder.backbone.roll(params['backbone'])
  scanned = decoder.clone(backbone=stack), {**params, 'backbone': layers}
  again, back = generation.unroll(*scanned)
  assert again == decoder
  jax.tree.map(np.testing.assert_array_equal, back, params)
  assert generation.unroll(decoder, params) == (decoder, params)
  runs = [
      quick.generate(*model, GIVEN, MASK, FULL, KEY, HOT)
      for model in (scanned, (decoder, params))
  ]
  np.testing.assert_array_equal(runs[0].codes, runs[1].codes)


def test_continue_prompts_asks_for_few_shapes():
  prompts = np.ones((2, 5, K), np.int32)
  given, mask, most = generation.continue_prompts(prompts, np.array([5, 3]), 7)
  assert given.shape == mask.shape == (2, 7, K) and most == 7
  np.testing.assert_array_equal(mask.sum(axis=1), [[5, 5], [3, 3]])
  sizes = {
      generation.continue_prompts(
          np.ones((1, n, K), np.int32), np.array([n]), 100
      )[2]
      for n in range(33)
  }
  assert sizes == {0, 1, 2, 4, 8, 16, 32}


@pytest.mark.parametrize('kind', ['bfloat16', 'int8'])
def test_weights_in_fewer_bits(kind):
  """Codes are those of the weights that the leaves stand for."""
  decoder = decoder_lib.Decoder(
      (70,) * K,
      pattern=interleaving.Delay(),
      backbone=small.stack(width=64, mlp={'activation': 'relu'}),
  )
  params = small.parameters(decoder, GIVEN, FULL)
  params = jax.tree.map(lambda w: w / 4 if w.ndim > 1 else w, params)
  cast = generation.cast(params, kind)
  leaves = jax.tree.leaves(cast)
  size = sum(x.nbytes for x in leaves)
  whole = sum(x.nbytes for x in jax.tree.leaves(params))
  # Matrices with a side of 8 stay as they are.
  assert size < {'bfloat16': 0.6, 'int8': 0.4}[kind] * whole
  np.testing.assert_array_equal(
      cast['backbone']['layer_0']['mlp']['up'],
      params['backbone']['layer_0']['mlp']['up'],
  )
  dense = jax.tree.map(
      lambda w: w.astype(np.float32),
      ops.map_weights(ops.materialize, cast),
  )

  def run(params):
    return np.asarray(
        quick.generate(decoder, params, GIVEN, MASK, FULL, KEY, GREEDY, 2).codes
    )

  found, exact = run(cast), run(params)
  np.testing.assert_array_equal(found, run(dense))
  same = (found == exact)[~MASK].mean()
  print(f'{kind}: {same:.0%} of greedy codes equal those of fp32')
  assert same > 0.5
  # What is in fewer bits already stays.
  jax.tree.map(np.testing.assert_array_equal, generation.cast(cast, kind), cast)


@pytest.mark.parametrize('rows', [1, 2])
def test_a_loop_writes_its_rings_in_place(rows):
  """What would copy them is as large as they are: 2 x 61 x 4."""
  decoder = _decoder()
  given, num_frames = GIVEN[:rows], FULL[:rows]
  params = small.parameters(decoder, given, num_frames)

  @jax.jit
  def run(params):
    return generation.generate(
        decoder,
        params,
        given,
        MASK[:rows],
        num_frames,
        KEY,
        GREEDY,
        cache_length=61,
    )

  compiled = run.lower(params).compile()
  ring = rf'f32\[{rows},2,61,4\]'
  loop = compiled.as_text().partition('ENTRY')[0]
  assert re.search(ring, loop)
  assert not re.search(rf'{ring}\S* copy\(', loop)
