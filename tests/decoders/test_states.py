"""Hidden states of frames are the outputs of the steps that predict them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import starts
from audiolm_jax.models import scoring
from tests.decoders import small

V, F, K, D = 5, 6, 2, 8
CODES = np.random.default_rng(0).integers(V, size=(4, F, K)).astype(np.int32)
LENGTHS = np.array([F, 4, 1, 2], np.int32)


def _stepwise(decoder):
  """Compiled (params) -> [B, F, D], the output before slot 0 of each frame.

  By `extend`, step by step, each row at its own length; zero where none is.
  """

  def apply(params, *inputs):
    return decoder.apply({'params': params}, *inputs, method='extend')

  @small.quick_jit
  def run(params):
    rows = np.arange(len(CODES))[:, None]
    state = decoder.initial_state(len(CODES), decoder.pattern.steps(F, K))
    before = [jnp.zeros((len(CODES), 1, decoder.group), t) for t in 'iib']
    before[2] = before[2].astype(bool)
    found = jnp.zeros((len(CODES), F, D))
    for n in range(decoder.pattern.steps(F, K)):
      step = np.full(len(CODES), n)
      frame, slot = decoder.pattern.cells(step, K, LENGTHS)
      exists = (frame >= 0) & (frame < LENGTHS[:, None])
      if n == 0:  # Which slots a first step has, the one before it has.
        before[1] = jnp.asarray(slot)[:, None]
      h, state = apply(params, state, *before)
      codes = jnp.where(exists, CODES[rows, np.clip(frame, 0, F - 1), slot], 0)
      first = exists & (slot == 0)
      at = np.where(first.any(axis=1), (frame * first).sum(axis=1), F)
      found = found.at[rows[:, 0], at].set(h, mode='drop')
      before = [x[:, None] for x in map(jnp.asarray, (codes, slot, exists))]
    return found

  return run


CASES = [
    ('delay', 'independent'),
    ('delay', 'depth'),
    ('delay', 'depth of each place'),
    ('parallel', 'depth from the first'),
    ('stereo', 'independent'),
    ('flatten', 'depth'),
    ('coarse first', 'independent'),
]


@pytest.fixture(scope='module', params=CASES, ids=', '.join)
def model(request):
  pattern, head = request.param
  decoder = decoder_lib.Decoder(
      (V,) * K,
      pattern=small.PATTERNS[pattern],
      head=small.HEADS[head],
      backbone=small.stack(D),
  )
  return decoder, small.parameters(decoder, CODES, LENGTHS)


def _states(decoder, params, codes, lengths):
  states = scoring.states(decoder, params, (codes, np.int32(lengths)))
  return np.asarray(states)


def test_a_state_is_the_output_that_predicts_the_next_frame(model):
  decoder, params = model
  found = _states(decoder, params, CODES, LENGTHS)
  expected = np.asarray(_stepwise(decoder)(params))
  assert found.shape == (len(CODES), F, D)
  for row, length in enumerate(LENGTHS):
    np.testing.assert_allclose(
        found[row, : length - 1], expected[row, 1:length], rtol=1e-4, atol=1e-5
    )
  assert not found[:, -1].any()
  # No two are one another.
  distances = np.abs(found[0, :-1, None] - found[0, None, :-1]).max(axis=-1)
  assert (distances[~np.eye(F - 1, dtype=bool)] > 1e-3).all()


def test_padded_states_are_those_of_a_row_alone(model):
  decoder, params = model
  other = np.where(np.arange(F)[:, None] < LENGTHS[:, None, None], CODES, -99)
  padded = _states(decoder, params, other, LENGTHS)
  plain = _states(decoder, params, CODES, LENGTHS)
  for row, length in enumerate(LENGTHS[:2]):
    alone = _states(decoder, params, CODES[row : row + 1, :length], [length])
    last = length - 1
    np.testing.assert_array_equal(padded[row, :last], plain[row, :last])
    np.testing.assert_allclose(
        padded[row, :last], alone[0, :last], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize('start', [starts.Own(), starts.Given()])
def test_the_head_makes_of_a_state_what_scores_are_of(start):
  """Also where the first frame is given: its state predicts the second."""
  decoder = decoder_lib.Decoder(
      (V,), pattern=small.PATTERNS['parallel'], backbone=small.stack(D)
  ).clone(start=start)
  codes, lengths = CODES[..., :1], np.full(len(CODES), F)
  params = small.parameters(decoder, codes, lengths)
  states = _states(decoder, params, codes, lengths)
  logits = decoder.apply({'params': params}, states, method='next_logits')
  expected = small.code_logits(decoder)(params, codes, lengths)[:, 1:, 0]
  np.testing.assert_allclose(
      jax.nn.log_softmax(logits)[:, :-1],
      jax.nn.log_softmax(expected),
      rtol=1e-4,
      atol=1e-5,
  )
