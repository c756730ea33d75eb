"""A decoder as a whole goes step by step, whatever its backbone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.backbones import mixers as mixers_lib
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.patterns import interleaving
from audiolm_jax.streaming import base as streaming_base
from audiolm_jax.streaming import testing
from tests.decoders import small

V, F, K = 3, 5, 2
STEPS = F * K
MIXERS = {
    'attention': mixers_lib.MIXERS['attention'](heads=2),
    'lstm': mixers_lib.MIXERS['lstm'](layers=1, skip=False),
    'mamba2': mixers_lib.MIXERS['mamba2'](state_width=3, head_width=4, chunk=3),
    'rg_lru': mixers_lib.MIXERS['rg_lru'](heads=2),
    's4d': mixers_lib.MIXERS['s4d'](state_width=4),
}


def _apply(decoder, params, *inputs, method):
  return decoder.apply({'params': params}, *inputs, method=method)


@pytest.fixture(scope='module')
def hybrid():
  """A layer of each mixer, two codes a frame, one a step; its inputs."""
  assert set(MIXERS) == set(mixers_lib.MIXERS) - {'bidirectional'}
  backbone = stack_lib.Stack(
      8, len(MIXERS), tuple(MIXERS.values()), mlps.Dense(8), scan=False
  )
  decoder = decoder_lib.Decoder(
      (V,) * K, pattern=interleaving.Flatten(), backbone=backbone
  )
  rng = np.random.default_rng(0)
  codes = rng.integers(0, V, (4, F, K)).astype(np.int32)
  num_frames = np.full(4, F, np.int32)
  init = small.quick_jit(
      lambda key: decoder.init(key, codes, num_frames, method='score')
  )
  params = jax.tree.map(
      lambda w: w + 0.2 * jnp.sin(jnp.arange(w.size)).reshape(w.shape),
      nn.meta.unbox(init(jax.random.key(0))['params']),
  )
  scores = small.scorer(decoder)(params, codes, num_frames)
  layout = decoder.pattern.layout(F, K)
  steps = np.asarray(layout.to_steps(codes))
  wanted = np.asarray(layout.to_steps(scores.log_prob))[..., 0]

  def inputs(first, count):
    """What steps first .. first + count of each row take in: codes before."""
    at = first[:, None] + np.arange(count) - 1
    exists = (at >= 0) & (at < STEPS)
    rows = np.arange(4)[:, None]
    at = np.clip(at, 0, STEPS - 1)
    return (
        np.where(exists[..., None], steps[rows, at], 99),
        layout.slot[at],
        exists[..., None],
    )

  @small.quick_jit
  def log_prob(h, slots, codes):
    exists = jnp.ones((4, 1), bool)
    found = _apply(
        decoder,
        params,
        h,
        slots,
        exists,
        codes,
        exists,
        small.refuse,
        jax.random.key(0),
        method='sample',
    )
    return found[1][:, 0]

  @small.quick_jit
  def extend(state, codes, slots, exists, mask=None):
    inputs = codes, slots, exists, None, mask
    return _apply(decoder, params, state, *inputs, method='extend')

  def check(h, last):
    """h after having taken in step `last` of each row, where that is >= 0."""
    rows = np.arange(4)
    at = np.clip(last, 0, None)
    found = log_prob(h, layout.slot[at], steps[rows, at])
    here = last >= 0
    np.testing.assert_allclose(
        np.asarray(found)[here], wanted[rows, at][here], rtol=1e-4, atol=1e-5
    )

  return decoder, inputs, extend, check


def test_prompts_of_different_lengths_are_taken_in_at_once(hybrid):
  decoder, inputs, extend, check = hybrid
  counts = np.array([5, 2, 0, 4])
  state = decoder.initial_state(4, STEPS)
  first = np.zeros(4, int)
  for n in (5, 3):
    # In two parts, to see that the second goes on where each row stands.
    mask = np.arange(n) < np.minimum(counts, n)[:, None]
    h, state = extend(state, *inputs(first, n), mask)
    check(h, np.where(counts > 0, first + np.minimum(counts, n) - 1, -1))
    first = first + np.minimum(counts, n)
    counts = np.array([1, 3, 2, 0])
  for _ in range(2):
    h, state = extend(state, *inputs(first, 1))
    check(h, first)
    first = first + 1


def test_room_keeps_the_last_steps_in_sight():
  """With a cache for fewer steps than there are, as with a window of them."""
  rng = np.random.default_rng(1)
  codes = rng.integers(0, V, (2, STEPS, 1)).astype(np.int32)
  found = {}
  for window in (None, 4):
    decoder = decoder_lib.Decoder(
        (V,),
        pattern=interleaving.Flatten(),
        backbone=small.stack(mixer={'window': window}),
    )
    num_frames = np.full(2, STEPS, np.int32)
    params = small.parameters(decoder, codes, num_frames)

    @small.quick_jit
    def run(params, decoder=decoder):
      def step(state, codes):
        exists = jnp.ones((2, 1, 1), bool)
        h, state = _apply(
            decoder,
            params,
            state,
            codes[:, None],
            jnp.zeros((2, 1, 1), int),
            exists,
            method='extend',
        )
        return state, h

      state = decoder.initial_state(2, 4)
      return jax.lax.scan(step, state, jnp.swapaxes(codes, 0, 1))[1]

    found[window] = run(params)
  np.testing.assert_allclose(found[None], found[4], rtol=1e-5, atol=1e-6)


class Scored(streaming_base.Steppable):
  """Log-probabilities of codes that are rounded from x [B, F, K]."""

  decoder: decoder_lib.Decoder

  @property
  def receptive_field(self):
    return None

  @nn.nowrap
  def initial_state(self, batch, spec):
    none = jnp.zeros((batch, 1, K), jnp.int32)
    return self.decoder.initial_state(batch, 16), none, none.astype(bool)

  @nn.nowrap
  def _codes(self, x):
    return jnp.clip(jnp.round(2 * x) + V // 2, 0, V - 1).astype(jnp.int32)

  def __call__(self, x, mask, context=None):
    codes = self._codes(streaming_base.zero_masked(x, mask))
    scores = self.decoder.score(codes, jnp.sum(mask, axis=1))
    return scores['frames'].log_prob, mask

  def process(self, x, mask, state, context):
    codes, found = self._codes(x), []
    slots = jnp.broadcast_to(jnp.arange(K), (x.shape[0], K))
    for n in range(x.shape[1]):
      now = slice(n, n + 1)
      inner, before, exists = state
      h, inner = self.decoder.extend(
          inner, before, slots[:, None], exists, mask[:, now]
      )
      here = jnp.broadcast_to(mask[:, now], slots.shape)
      _, log_prob = self.decoder.sample(
          h, slots, here, codes[:, n], here, small.refuse, jax.random.key(0)
      )
      found.append(log_prob)
      state = inner, codes[:, now], here[:, None]
    return jnp.stack(found, axis=1), mask, state


def test_the_whole_decoder_keeps_the_streaming_contract():
  decoder = decoder_lib.Decoder(
      (V,) * K,
      pattern=interleaving.Parallel(),
      head=small.HEADS['depth'],
      backbone=small.stack(),
  )
  spec = jax.ShapeDtypeStruct((K,), jnp.float32)
  testing.assert_streaming_contract(
      Scored(decoder), spec, blocks=4, step_blocks=(1,)
  )


def test_film_by_position_beside_a_prefix_is_refused():
  """Not by its number alone, which may be that of the prefix by chance."""
  decoder = decoder_lib.Decoder((V,) * K, backbone=small.stack(adaptive='film'))
  codes, num_frames = np.zeros((2, F, K), np.int32), np.full(2, F)
  context = {
      'prefix': np.zeros((2, F, 8), np.float32),
      'prefix_lengths': num_frames,
      'film': np.zeros((2, 3), np.float32),
  }

  @small.quick_jit
  def init(context):
    key = jax.random.key(0)
    return decoder.init(key, codes, num_frames, context, method='score')

  params = nn.meta.unbox(init(context)['params'])
  context['film'] = np.zeros((2, F, 3), np.float32)
  bound = decoder.bind({'params': params})
  with pytest.raises(ValueError, match='a prefix it is one vector a row'):
    bound.score(codes, num_frames, context)
  with pytest.raises(ValueError, match='a prefix it is one vector a row'):
    bound.begin(bound.initial_state(2, 8), context)
