"""Bounds by enumeration: every mask of every sequence."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.processes import discrete
from tests.processes import enumeration

CHAIN = enumeration.markov(np.array([[0.9, 0.1], [0.2, 0.8]]), 4)
# Three frames of two codebooks of three codes.
JOINT = enumeration.random(3, 6)
KINDS = [discrete.Absorbing(3, schedule) for schedule in ('linear', 'cosine')]
every_schedule = pytest.mark.parametrize(
    'process', KINDS, ids=lambda p: p.schedule
)


def mean_over_masks(process, joint, t, values, weight=None):
  """The mean of values [2^L V^L] at time t."""
  _, masked, prob = joint.everything()
  keep, hidden = process.keep(t), masked.sum(1)
  chance = (1 - keep) ** hidden * keep ** (masked.shape[1] - hidden)
  return np.sum(prob * chance * values)


def steps_bound(process, joint, times):
  """NELBO_T in nats."""
  log_prob, masked, _ = joint.everything()
  log_prob, masked = jnp.asarray(log_prob, jnp.float32), jnp.asarray(masked)
  total = 0.0
  for t, s in itertools.pairwise(times):
    values = process.step_bound(log_prob, masked, t, s)
    total += mean_over_masks(process, joint, t, np.asarray(values, np.float64))
  return total


@every_schedule
def test_schedules(process):
  t = np.linspace(0, 1, 101)
  keep = process.keep(t)
  assert keep[0] == pytest.approx(1) and keep[-1] == 0
  assert (np.diff(keep) < 0).all()
  np.testing.assert_allclose(
      process.keep_slope(t[1:-1]),
      (process.keep(t[1:-1] + 1e-6) - process.keep(t[1:-1] - 1e-6)) / 2e-6,
      rtol=1e-5,
  )
  expected = (
      1 - t if process.schedule == 'linear' else 1 - np.sin(np.pi / 2 * t)
  )
  np.testing.assert_allclose(keep, expected, atol=1e-12)
  assert process.reveal(0.6, 0.0) == pytest.approx(1)


def test_the_bound_of_a_markov_chain_in_steps():
  process = discrete.Absorbing(2)
  bits = np.log(2)
  assert CHAIN.entropy / bits == pytest.approx(2.5782, abs=5e-5)
  table = {1: 3.6732, 2: 3.0828, 4: 2.8198, 16: 2.6366, 64: 2.5927}
  for steps, expected in table.items():
    found = steps_bound(process, CHAIN, np.linspace(1, 0, steps + 1)) / bits
    assert found == pytest.approx(expected, abs=5e-5)


def test_two_places_cost_their_information_once_every_step():
  """H + I / T."""
  pair = enumeration.markov(np.array([[0.9, 0.1], [0.2, 0.8]]), 2)
  marginal = pair.table.sum(1)
  information = -2 * np.sum(marginal * np.log(marginal)) - pair.entropy
  for steps in (1, 3, 8):
    times = np.linspace(1, 0, steps + 1)
    found = steps_bound(discrete.Absorbing(2), pair, times)
    expected = pair.entropy + information / steps
    assert found == pytest.approx(expected, rel=1e-5)


@every_schedule
def test_the_bound_over_times_is_the_entropy(process):
  log_prob, masked, _ = CHAIN.everything()
  # A rule without its ends.
  nodes, shares = np.polynomial.legendre.leggauss(40)
  total = 0.0
  for t, share in zip((nodes + 1) / 2, shares / 2, strict=True):
    values = process.bound(jnp.asarray(log_prob), jnp.asarray(masked), t)
    total += share * mean_over_masks(process, CHAIN, t, np.asarray(values))
  assert total == pytest.approx(CHAIN.entropy, rel=1e-4)


@every_schedule
@pytest.mark.parametrize('steps', [1, 2, 4])
def test_the_bound_in_steps_is_one_of_what_is_sampled(process, steps):
  """Of three frames of two codebooks of three codes."""
  times = np.linspace(1, 0, steps + 1)
  bound = steps_bound(process, JOINT, times)
  sampled = JOINT.sampled(process.keep(times))
  assert sampled.sum() == pytest.approx(1)
  cross = -np.sum(JOINT.prob * np.log(sampled))
  assert bound >= cross - 1e-5 >= JOINT.entropy - 1e-5
  if steps == 1:
    # Codes alone: both are the sum of their entropies.
    assert bound == pytest.approx(cross, rel=1e-5)
  else:
    assert bound < steps_bound(process, JOINT, np.array([1.0, 0.0])) - 0.01


def test_subsets_give_the_entropy_over_all_orders():
  log_prob, masked, prob = JOINT.everything()
  some = masked.any(1)
  valid = np.ones_like(masked)
  hidden = masked.sum(1)
  number = np.array(
      [len(list(itertools.combinations(range(6), k))) for k in range(7)]
  )
  # k is uniform on 1 to 6, and so is the subset of that size.
  chance = prob / (6 * number[hidden])
  arguments = (a[some] for a in (log_prob, masked, valid))
  found = discrete.subset_bound(*map(jnp.asarray, arguments))
  assert np.sum(chance[some] * found) == pytest.approx(JOINT.entropy, rel=1e-5)
  # A model that is wrong costs more.
  other = enumeration.random(3, 6, seed=1).everything()[0]
  worse = discrete.subset_bound(
      *(jnp.asarray(a[some]) for a in (other, masked, valid))
  )
  assert np.sum(chance[some] * worse) > JOINT.entropy + 0.1


@pytest.mark.parametrize('order', itertools.permutations(range(2)))
def test_stages_of_codebooks_give_the_entropy(order):
  """The sum over stages of the bound of a codebook given those before it."""
  log_prob, masked, prob = JOINT.everything()
  total = 0.0
  for stage, codebook in enumerate(order):
    # Later codebooks are hidden throughout, this one's places by subsets.
    shape = masked.reshape(-1, 3, 2)
    later = list(order[stage + 1 :])
    fits = shape[..., later].all((1, 2))
    fits &= ~shape[..., list(order[:stage])].any((1, 2))
    fits &= shape[..., codebook].any(1)
    mine = np.zeros_like(shape)
    mine[..., codebook] = shape[..., codebook]
    valid = np.zeros_like(shape)
    valid[..., codebook] = True
    number = np.array([1, 3, 3, 1])[mine.sum((1, 2))]
    found = discrete.subset_bound(
        *(
            jnp.asarray(a[fits])
            for a in (log_prob.reshape(-1, 3, 2), mine, valid)
        )
    )
    total += np.sum(prob[fits] / (3 * number[fits]) * found)
  assert total == pytest.approx(JOINT.entropy, rel=1e-5)


def test_subsets_are_uniform_and_of_valid_places():
  uniforms = jax.random.uniform(jax.random.key(0), (6000, 2, 2))
  valid = jnp.ones((6000, 2, 2), bool).at[:, 1, 0].set(False)
  count = jnp.full(6000, 2)
  found = np.asarray(discrete.subset(uniforms, valid, count))
  assert not found[:, 1, 0].any() and (found.sum((1, 2)) == 2).all()
  _, number = np.unique(found.reshape(-1, 4), axis=0, return_counts=True)
  np.testing.assert_allclose(number / 6000, [1 / 3] * 3, atol=0.02)
  assert not discrete.subset(uniforms, valid, 0 * count).any()


def test_masks_of_a_time_hide_its_share():
  process = discrete.Absorbing(5, 'cosine')
  uniforms = jax.random.uniform(jax.random.key(0), (3, 2000, 2))
  t = jnp.array([0.0, 0.5, 1.0])
  masked = process.masked(uniforms, t)
  np.testing.assert_allclose(
      masked.mean((1, 2)), [0, np.sin(np.pi / 4), 1], atol=0.02
  )
  codes = jnp.zeros(masked.shape, jnp.int32)
  hidden = process.hide(codes, masked)
  assert ((hidden == process.mask_id) == masked).all()
  assert not hidden[~masked].any()


class TestUniform:
  process = discrete.Uniform(3, 'cosine')

  def matrix(self, t, s):
    """Transitions from s to a later t: [V, V]."""
    r = self.process.keep(t) / self.process.keep(s)
    return r * np.eye(3) + (1 - r) / 3

  @pytest.mark.parametrize('times', [(0.7, 0.3), (1.0, 0.5), (0.4, 0.0)])
  def test_posterior_is_bayes_rule(self, times):
    t, s = times
    before, step = self.matrix(s, 0.0), self.matrix(t, s)
    for x, z in itertools.product(range(3), range(3)):
      expected = before[x] * step[:, z]
      found = self.process.posterior(
          jnp.array([[z]]), jax.nn.one_hot(jnp.array([[x]]), 3), t, s
      )
      np.testing.assert_allclose(
          found[0, 0], expected / expected.sum(), rtol=1e-5, atol=1e-7
      )

  def test_corruption_has_the_transitions_of_its_time(self):
    rng = jax.random.key(0)
    shape = (3, 4000, 1)
    codes = jnp.broadcast_to(jnp.arange(3)[:, None, None], shape)
    z = self.process.corrupt(
        codes,
        jax.random.uniform(rng, shape),
        jax.random.randint(jax.random.fold_in(rng, 1), shape, 0, 3),
        jnp.full(3, 0.4),
    )
    shares = (np.asarray(z) == np.arange(3)).mean(1)
    np.testing.assert_allclose(shares, self.matrix(0.4, 0.0), atol=0.03)

  def test_the_bound_in_steps_falls_towards_the_entropy(self):
    pair = enumeration.random(3, 2)
    index = np.array(list(itertools.product(range(9), range(9))))
    codes, z = pair.codes[index[:, 0]], pair.codes[index[:, 1]]

    def bound(steps):
      total = 0.0
      for t, s in itertools.pairwise(np.linspace(1, 0, steps + 1)):
        step = self.matrix(t, 0.0)
        chance = step[codes[:, 0], z[:, 0]] * step[codes[:, 1], z[:, 1]]
        joint = pair.prob[index[:, 0]] * chance
        # What the exact denoiser says of each code, given z.
        table = joint.reshape(3, 3, 9)
        first = table.sum(1) / table.sum((0, 1))
        second = table.sum(0) / table.sum((0, 1))
        seen = np.stack([first, second])[:, :, index[:, 1]].transpose(2, 0, 1)
        found = self.process.step_bound(
            jnp.log(jnp.asarray(seen, jnp.float32)),
            jnp.asarray(codes),
            jnp.asarray(z),
            jnp.ones(codes.shape, bool),
            t,
            s,
        )
        total += np.sum(joint * np.asarray(found, np.float64))
      return total

    bounds = [bound(n) for n in (1, 2, 8, 32)]
    assert (np.diff(bounds) < 0).all()
    assert pair.entropy < bounds[-1] < pair.entropy * 1.03
    alone = sum(
        -np.sum(m * np.log(m)) for m in (pair.table.sum(0), pair.table.sum(1))
    )
    assert bounds[0] == pytest.approx(alone, rel=1e-4)
