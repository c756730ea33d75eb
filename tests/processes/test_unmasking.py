"""Masked codes are drawn as their order says, and given ones stay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.processes import discrete
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import times as times_lib
from audiolm_jax.processes import unmasking
from tests.processes import enumeration

V = 5
ORDERS = {
    'random': unmasking.RandomOrder(),
    'remask': unmasking.RandomOrder(remask=0.7),
    'confidence': unmasking.ConfidenceOrder(),
    'span': unmasking.SpanOrder(2),
}
every_order = pytest.mark.parametrize('order', ORDERS.values(), ids=ORDERS)
PROCESS = discrete.Absorbing(V, 'cosine')


def test_all_orders_are_here():
  assert {type(o) for o in ORDERS.values()} == set(unmasking.ORDERS.values())


def keys(*rows):
  return noise_lib.row_keys(jax.random.key(0), jnp.array(rows))


def predict_mixed(mask):
  """Logits that depend on all valid codes, hidden or not."""

  def predict(z, t):
    seen = jnp.where(mask[..., None], z, 0).sum((1, 2), keepdims=True)
    shift = jnp.sin(z + 0.1 * seen + jnp.reshape(t, (-1, 1, 1)))
    return 2 * jnp.cos(shift[..., None] * jnp.arange(V))

  return predict


def sample(order, predict, codes, hidden, rows, steps=4, **options):
  return unmasking.sample(
      order,
      PROCESS,
      predict,
      codes,
      hidden,
      times_lib.Grid(steps).times,
      keys(*rows),
      **options,
  )


def test_random_order_samples_what_its_bound_is_of():
  joint = enumeration.random(2, 3)
  process = discrete.Absorbing(2)
  logits = jnp.asarray(joint.logits(), jnp.float32)
  rows = 30_000

  def predict(z, t):
    index = jnp.sum(z[:, :, 0] * jnp.array([9, 3, 1]), axis=1)
    return logits[index][:, :, None]

  hidden = jnp.ones((rows, 3, 1), bool)
  for steps in (1, 3):
    times = times_lib.Grid(steps).times
    codes = unmasking.sample(
        ORDERS['random'],
        process,
        predict,
        jnp.zeros((rows, 3, 1), jnp.int32),
        hidden,
        times,
        keys(*range(rows)),
    )
    index = np.asarray(codes[:, :, 0] @ jnp.array([4, 2, 1]))
    shares = np.bincount(index, minlength=8) / rows
    expected = joint.sampled(process.keep(times))
    np.testing.assert_allclose(shares, expected, atol=0.01)
    # Which differ from the joint distribution by more than that.
    if steps == 1:
      assert np.abs(expected - joint.prob).max() > 0.03


@pytest.mark.parametrize('remask', [0.0, 0.4, 1.0])
def test_random_orders_hide_the_share_of_their_time(remask):
  """Whatever is hidden again, 1 - a(s) is hidden at s."""
  order = unmasking.RandomOrder(remask)
  free = jnp.ones((4, 5000, 1), bool)
  hidden = free
  times = times_lib.Grid(5).times
  moved = 0
  for i, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
    uniforms = jax.random.uniform(
        jax.random.fold_in(jax.random.key(0), i), free.shape
    )
    now = unmasking.Now(jnp.float32(t), jnp.float32(s), s == 0, uniforms)
    after = order.hidden_after(PROCESS, hidden, free, 0.0 * uniforms, now)
    moved += int((after & ~hidden).sum())
    hidden = after
    assert hidden.mean() == pytest.approx(1 - PROCESS.keep(s), abs=0.02)
  assert not hidden.any()
  assert (moved > 0) == (remask > 0)


@pytest.mark.parametrize('count', [1, 2, 3, 7, 12])
def test_confidence_reveals_the_scheduled_number(count):
  order = unmasking.ConfidenceOrder(noise=0.0)
  free = (jnp.arange(12) < count).reshape(1, 12, 1)
  confidence = -jnp.abs(jnp.arange(12.0) - 4.2).reshape(1, 12, 1)
  hidden, steps = free, 6
  left = count
  for i in range(steps):
    r = (i + 1) / steps
    now = unmasking.Now(
        1 - i / steps, 1 - r, i == steps - 1, 0.5 * jnp.ones_like(confidence)
    )
    after = order.hidden_after(PROCESS, hidden, free, confidence, now)
    # MaskGIT's, in double precision; nothing is left of nothing.
    expected = max(1, min(left - 1, int(count * np.cos(np.pi / 2 * r) + 1e-9)))
    left = 0 if i == steps - 1 else min(expected, left)
    assert after.sum() == left
    assert not (after & ~hidden).any()
    if left:
      shown = hidden & ~after
      best = jnp.where(after, confidence, -jnp.inf).max()
      assert (jnp.where(shown, confidence, jnp.inf) >= best).all()
    hidden = after


def test_confidence_heeds_the_model_and_not_the_noise_alone():
  """The places of which the model is sure are drawn first, and seen by others."""

  def predict(z, t):
    # The first place is certain to be 3; the others copy what it holds.
    first = jnp.where(z[:, :1] == PROCESS.mask_id, -1, z[:, :1])
    copy = jnp.where(first[..., None] == jnp.arange(V), 50.0, 0.0)
    copy = jnp.broadcast_to(copy, (*z.shape, V))
    return copy.at[:, 0].set(jnp.where(jnp.arange(V) == 3, 50.0, 0.0))

  codes, hidden = jnp.zeros((8, 6, 1), jnp.int32), jnp.ones((8, 6, 1), bool)
  found = sample(
      unmasking.ConfidenceOrder(0.0), predict, codes, hidden, range(8)
  )
  assert (found[:, 0] == 3).all()
  # But for those of the first step, one of six beside it at most.
  assert (found == 3).mean() > 0.7


@every_order
def test_given_codes_stay_and_hidden_ones_are_codes(order):
  codes = jnp.asarray(np.random.default_rng(0).integers(0, V, (3, 4, 2)))
  hidden = jnp.arange(8).reshape(4, 2) % 3 == jnp.arange(3)[:, None, None]
  predict = predict_mixed(jnp.ones((3, 4), bool))
  found = sample(order, predict, codes, hidden, (0, 1, 2))
  assert (found[~hidden] == codes[~hidden]).all()
  assert (found >= 0).all() and (found < V).all()
  # Nothing to draw, and everything.
  nothing = sample(order, predict, codes, hidden & False, (0, 1, 2))
  np.testing.assert_array_equal(nothing, codes)
  one, other = (
      sample(order, predict, fill + 0 * codes, hidden | True, (0, 1, 2))
      for fill in (0, 1)
  )
  # What stands where all is hidden is not seen.
  np.testing.assert_array_equal(one, other)
  assert (one < V).all()


@every_order
def test_rows_alone_and_padding(order):
  lengths = np.array([4, 2, 3])

  def run(rows, lengths, size):
    valid = jnp.asarray(np.arange(size) < lengths[:, None])
    codes = jnp.zeros((len(lengths), size, 2), jnp.int32)
    hidden = jnp.broadcast_to(valid[..., None], codes.shape)
    return sample(order, predict_mixed(valid), codes, hidden, rows)

  batch = run((5, 6, 7), lengths, 6)
  for row, length in enumerate(lengths):
    alone = run((5 + row,), lengths[row : row + 1], length)
    np.testing.assert_array_equal(batch[row, :length], alone[0])
  assert not (batch[0, :2] == batch[1, :2]).all()


def test_a_chunk_draws_what_the_whole_draws_there():
  def predict(z, t):
    return jnp.zeros((*z.shape, V))

  def run(size, **options):
    shape = (2, size, 2)
    codes = jnp.zeros(shape, jnp.int32)
    hidden = jnp.ones(shape, bool)
    return sample(ORDERS['random'], predict, codes, hidden, (0, 1), **options)

  whole, part = run(6), run(3, start=jnp.array([2, 3]))
  np.testing.assert_array_equal(part[0], whole[0, 2:5])
  np.testing.assert_array_equal(part[1], whole[1, 3:6])


@pytest.mark.parametrize('times', [[1.0], [0.0, 1.0], [0.9, 0.0], [1.0, 0.1]])
def test_times_must_fall_from_1_to_0(times):
  codes = jnp.zeros((1, 2, 1), jnp.int32)
  with pytest.raises(ValueError, match='expected'):
    unmasking.sample(
        ORDERS['random'], PROCESS, None, codes, codes == 0, times, keys(0)
    )


def test_orders_hide_what_the_schedule_says():
  """Of many places about 1 - a(s), by either schedule."""
  free = jnp.ones((3, 400, 1), bool)
  uniforms = jax.random.uniform(jax.random.key(0), free.shape)
  log_prob = -jax.random.uniform(jax.random.key(1), free.shape)
  for schedule in ('linear', 'cosine'):
    process = discrete.Absorbing(V, schedule)
    now = unmasking.Now(jnp.float32(1.0), jnp.float32(0.6), False, uniforms)
    for name, order in ORDERS.items():
      if name == 'remask':
        continue
      after = order.hidden_after(process, free, free, log_prob, now)
      expected = 1 - process.keep(0.6)
      np.testing.assert_allclose(after.mean(), expected, atol=0.06)


def test_spans_that_are_least_likely_stay_hidden_and_decided_ones_are_left():
  order = unmasking.SpanOrder(3, noise=0.0)
  free = jnp.ones((1, 12, 2), bool)
  hidden = free.at[:, 4, 0].set(False)
  log_prob = jnp.zeros((1, 12, 2)).at[:, 5].set(-5.0)
  uniforms = 0.5 * jnp.ones((1, 12, 2))
  # One span of twelve: 1 - C(9, 1) / C(12, 1) is a quarter.
  now = unmasking.Now(0.5, 0.25, False, uniforms)
  after = order.hidden_after(discrete.Absorbing(V), hidden, free, log_prob, now)
  frames = np.asarray(after).any((0, 2))
  assert frames.sum() == 3 and frames[5]
  assert not after[0, 4, 0]
  assert not (after & ~hidden).any()
  last = unmasking.Now(0.25, 0.0, True, uniforms)
  assert not order.hidden_after(
      discrete.Absorbing(V), after, free, log_prob, last
  ).any()


def test_choose_draws_and_the_order_goes_by_the_models_own():
  """Codes are those of `choose`, whatever the logits are."""

  def predict(z, t):
    return jnp.zeros((*z.shape, V))

  def choose(logits, keys, t):
    assert keys.shape == logits.shape[:-1]
    return jnp.full(keys.shape, 3)

  codes = jnp.zeros((2, 4, 2), jnp.int32)
  found = sample(
      ORDERS['confidence'], predict, codes, codes == 0, (0, 1), choose=choose
  )
  np.testing.assert_array_equal(found, 3)
