"""Randomised blocks against scipy, tables, closed forms and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from audiolm_jax.comparison import blocks
from audiolm_jax.comparison import multiplicity

LOWER, HIGHER, BOTH = multiplicity.LOWER, multiplicity.HIGHER, multiplicity.BOTH


def family(count, side=BOTH):
  return multiplicity.Family(multiplicity.DUNNETT, (side,) * count, count + 1)


def named(table):
  """[arms, seeds] -> arm -> seed -> value."""
  return {
      f'arm {i}': dict(enumerate(map(float, row)))
      for i, row in enumerate(table)
  }


def against_first(values, **fields):
  return blocks.against('arm 0', list(values), **fields)


def test_dunnetts_critical_values_are_those_of_the_tables():
  # Dunnett 1964 and 1955 (.05, 5 and 10 degrees of freedom), to two places.
  two_sided = {1: 2.57, 2: 3.03, 3: 3.29, 4: 3.48, 5: 3.62, 6: 3.73}
  for count, value in two_sided.items():
    assert family(count).critical(5, 0.95) == pytest.approx(value, abs=0.006)
  one_sided = {1: 2.02, 2: 2.44, 3: 2.68, 4: 2.85, 5: 2.98, 6: 3.08}
  for count, value in one_sided.items():
    critical = family(count, HIGHER).critical(5, 0.95)
    assert critical == pytest.approx(value, abs=0.006)
  for count, value in {2: 2.15, 3: 2.34, 4: 2.47}.items():
    critical = family(count, LOWER).critical(10, 0.95)
    assert critical == pytest.approx(value, abs=0.006)


def test_dunnett_equals_scipys_on_one_way_data():
  rng = np.random.default_rng(0)
  data = rng.standard_normal((5, 6)) + np.arange(5)[:, None] / 3
  for side, alternative in ((BOTH, 'two-sided'), (LOWER, 'less')):
    expected = stats.dunnett(
        *data[1:],
        control=data[0],
        alternative=alternative,
        rng=np.random.default_rng(1),
    )
    sign = np.abs if side == BOTH else np.negative
    ours = [
        family(4, side).error(float(t), 25) for t in sign(expected.statistic)
    ]
    np.testing.assert_allclose(ours, expected.pvalue, atol=2e-3)


def test_dunnett_of_one_contrast_is_students():
  for df in (1, 2.5, 7, 60):
    t = stats.t.ppf(0.975, df)
    assert family(1).error(float(t), df) == pytest.approx(0.05, abs=1e-5)
    assert family(1, LOWER).critical(df, 0.975) == pytest.approx(t, rel=1e-4)


def test_sides_may_be_mixed_and_are_seen_from_the_shared_arm():
  rng = np.random.default_rng(1)
  y = rng.standard_normal((400_000, 4))
  t = (y[:, 1:] - y[:, :1]) / math.sqrt(2)
  mixed = multiplicity.family(
      [('a', 'x'), ('x', 'b'), ('c', 'x')], [BOTH, LOWER, LOWER], 1e6, 0.95
  )
  assert mixed.shared == 'x' and mixed.sides == (BOTH, HIGHER, LOWER)
  claimed = (abs(t[:, 0]) > 2) | (t[:, 1] > 2) | (t[:, 2] < -2)
  assert mixed.error(2.0, 1e6) == pytest.approx(claimed.mean(), abs=1.5e-3)


def test_lists_of_contrasts_take_the_tighter_bound_that_holds():
  few = multiplicity.family([('a', 'b'), ('c', 'd')], [BOTH] * 2, 10, 0.95)
  assert few.method == multiplicity.SIDAK
  one = 1 - math.sqrt(0.95)
  assert few.critical(10, 0.95) == pytest.approx(stats.t.isf(one / 2, 10))
  arms = 'abcd'
  pairs = [(a, b) for a in arms for b in arms if a < b]
  every = multiplicity.family(pairs, [BOTH] * 6, 10, 0.95)
  assert every.method == multiplicity.TUKEY
  q = stats.studentized_range.ppf(0.95, 4, 10)
  assert every.critical(10, 0.95) == pytest.approx(q / math.sqrt(2))
  sided = multiplicity.family([('a', 'b'), ('c', 'd')], [BOTH, LOWER], 10, 0.95)
  assert sided.method == multiplicity.BONFERRONI
  t = sided.critical(10, 0.95)
  assert 3 * stats.t.sf(t, 10) == pytest.approx(0.05)
  for each in (few, every, sided):
    assert each.error(each.critical(10, 0.95), 10) == pytest.approx(0.05)


@pytest.mark.parametrize(
    'pairs, sides, message',
    [
        ([], [], 'need contrasts'),
        ([('a', 'b'), ('b', 'a')], [BOTH] * 2, 'once'),
        ([('a', 'a')], [BOTH], 'itself'),
        ([('a', 'b')], ['left'], 'sides'),
    ],
)
def test_wrong_families_are_refused(pairs, sides, message):
  with pytest.raises(ValueError, match=message):
    multiplicity.family(pairs, sides, 5, 0.95)


def test_two_arms_are_a_paired_t_test():
  table = np.random.default_rng(2).standard_normal((2, 5))
  values = named(table)
  # Seeds pair up, in whichever order they come.
  values['arm 1'] = dict(reversed(values['arm 1'].items()))
  (result,) = blocks.compare(values, [blocks.Contrast('arm 0', 'arm 1')])
  expected = stats.ttest_rel(*table).confidence_interval(0.95)
  assert (result.interval.low, result.interval.high) == pytest.approx(
      tuple(expected)
  )
  assert result.p == pytest.approx(stats.ttest_rel(*table).pvalue)
  assert result.method == 'Student, 1 contrasts'


def test_pooled_variance_is_that_of_the_two_way_analysis():
  table = np.random.default_rng(3).standard_normal((4, 3))
  spread = blocks.pooled(named(table))
  # Least squares on dummies of arms and seeds.
  arm, seed = np.indices(table.shape).reshape(2, -1)
  design = np.hstack([np.eye(4)[arm], np.eye(3)[seed][:, 1:]])
  rest = np.linalg.lstsq(design, table.ravel(), rcond=None)[1]
  assert spread.df == 6
  assert spread.sd**2 == pytest.approx(float(rest[0]) / 6)


def test_what_a_seed_does_to_all_arms_counts_for_nothing():
  rng = np.random.default_rng(4)
  table = rng.standard_normal((5, 3))
  shifted = table + 100 * rng.standard_normal(3)
  plain, other = [
      blocks.compare(named(t), against_first(named(t)))
      for t in (table, shifted)
  ]
  for a, b in zip(plain, other, strict=True):
    assert a.interval.high - a.interval.low == pytest.approx(
        b.interval.high - b.interval.low
    )
    assert a.p == pytest.approx(b.p)


def test_intervals_exclude_zero_where_p_is_below_five_percent():
  rng = np.random.default_rng(5)
  contrasts = [
      blocks.Contrast('arm 1', 'arm 0'),
      blocks.Contrast('arm 2', 'arm 0', sided=LOWER),
      blocks.Contrast('arm 0', 'arm 3', sided=HIGHER),
  ]
  claims = 0
  for _ in range(60):
    table = rng.standard_normal((4, 3)) + 2.5 * rng.standard_normal((4, 1))
    for guard in (True, False):
      for each in blocks.compare(named(table), contrasts, guard=guard):
        claims += each.interval.excludes_zero
        assert each.interval.excludes_zero == (each.p < 0.05)
  assert 60 < claims < 300


def test_a_bound_can_only_win():
  rng = np.random.default_rng(6)
  noise = 0.1 * rng.standard_normal((3, 4))
  contrasts = [
      blocks.Contrast('arm 1', 'arm 0', sided=LOWER),
      blocks.Contrast('arm 2', 'arm 0', sided=LOWER),
  ]
  table = noise + np.array([0, -2, 2])[:, None]
  won, lost = blocks.compare(named(table), contrasts)
  assert won.reading == blocks.DIFFERENT and won.interval.low == -math.inf
  assert lost.reading == blocks.UNDECIDED and lost.p > 0.99
  assert won.interval.format(1).startswith('-1.9 [≤ -1.6')


def test_equality_needs_a_margin_and_the_whole_interval_within():
  rng = np.random.default_rng(7)
  noise = 0.01 * rng.standard_normal((4, 3))
  table = noise + np.array([0, 0, 0.1, 0.5])[:, None]
  readings = {}
  for margin in (None, 0.001, 0.05, 0.3, 5.0):
    results = blocks.compare(
        named(table), against_first(named(table), margin=margin)
    )
    readings[margin] = [each.reading for each in results]
  different, equal, undecided = blocks.DIFFERENT, blocks.EQUAL, blocks.UNDECIDED
  assert readings == {
      None: [undecided, different, different],
      0.001: [undecided, different, different],
      0.05: [equal, different, different],
      0.3: [equal, equal, different],
      5.0: [equal] * 3,
  }


def test_one_seed_claims_nothing():
  (result,) = blocks.compare(
      {'a': {0: 1.0}, 'b': {0: 2.0}}, [blocks.Contrast('a', 'b', margin=9.0)]
  )
  assert result.reading == blocks.NO_CLAIM and math.isnan(result.p)
  assert result.interval.mean == -1.0
  with pytest.raises(ValueError, match='two seeds'):
    blocks.seeds_needed(result, 1.0)


def test_values_that_never_vary_differ_surely_or_not_at_all():
  values = {'a': {0: 1.0, 1: 2.0}, 'b': {0: 1.0, 1: 2.0}, 'c': {0: 3.0, 1: 4.0}}
  same, other = blocks.compare(values, blocks.against('a', list(values)))
  assert same.p == 1.0 and not same.interval.excludes_zero
  assert same.interval.high == pytest.approx(0, abs=1e-12)
  assert other.interval.low == pytest.approx(2.0)
  assert other.p == pytest.approx(0, abs=1e-6)


def test_controls_are_a_family_of_their_own():
  table = np.random.default_rng(8).standard_normal((5, 3))
  claims = against_first(named(table[:4]))
  control = blocks.Contrast('arm 4', 'arm 0', expected=HIGHER)
  together = blocks.compare(named(table), [control, *claims])
  assert [c.contrast for c in together] == [control, *claims]
  assert len(together[0].family.sides) == 1
  assert len(together[1].family.sides) == 3
  with pytest.raises(ValueError, match='no positive control'):
    _ = together[1].control_shown


@pytest.mark.parametrize(
    'values, message',
    [
        ({}, 'need arms'),
        ({'a': {0: 1.0}, 'b': {1: 1.0}}, 'not complete.*b'),
        ({'a': {}, 'b': {}}, 'not complete'),
        ({'a': {0: 1.0}, 'b': {0: math.nan}}, 'not finite: b'),
        ({'a': {0: 1.0}, 'c': {0: 1.0}}, r"\['b'\] are not arms"),
    ],
)
def test_incomplete_blocks_are_refused(values, message):
  with pytest.raises(ValueError, match=message):
    blocks.compare(values, [blocks.Contrast('a', 'b')])


def test_contrasts_are_refused_that_cannot_be_read():
  with pytest.raises(ValueError, match='positive'):
    blocks.Contrast('a', 'b', margin=0.0)
  with pytest.raises(ValueError, match='no equality'):
    blocks.Contrast('a', 'b', sided=LOWER, margin=1.0)
  with pytest.raises(ValueError, match='expected'):
    blocks.Contrast('a', 'b', expected='found')
  with pytest.raises(ValueError, match='no arm'):
    blocks.against('x', ['a', 'b'])
  with pytest.raises(ValueError, match='two arms'):
    blocks.pooled({'a': {0: 1.0, 1: 2.0}})


def test_seeds_needed_are_those_whose_detectable_difference_is_that():
  table = np.random.default_rng(9).standard_normal((4, 3))
  result, *_ = blocks.compare(
      named(table), against_first(named(table)), guard=False
  )
  (spread,) = result.spreads
  bound = spread.sd * math.sqrt(spread.df / stats.chi2.ppf(0.2, spread.df))
  seeds = blocks.seeds_needed(result, -bound)

  def power(count):
    df = 3 * (count - 1)
    t = result.family.critical(df, 0.95)
    return stats.nct.sf(t, df, math.sqrt(count / 2))

  assert power(seeds - 1) < 0.8 <= power(seeds)
  assert blocks.seeds_needed(result, 1e-6) is None
  with pytest.raises(ValueError, match='not 0'):
    blocks.seeds_needed(result, 0.0)


# Variances of arms; the first is the baseline.
PATTERNS = {
    'equal': lambda k: np.ones(k),
    'baseline 3': lambda k: np.r_[3.0, np.ones(k - 1)],
    'baseline 1 of 3': lambda k: np.r_[1.0, 3 * np.ones(k - 1)],
    'one arm 3': lambda k: np.r_[np.ones(k - 1), 3.0],
    'half 3': lambda k: np.r_[np.ones(k // 2), 3 * np.ones(k - k // 2)],
    'falling': lambda k: np.linspace(3, 1, k),
}


def error(arms, seeds, pattern, families, contrasts=None, guard=True, seed=0):
  """The share of null families with a claim in them."""
  rng = np.random.default_rng(seed)
  sds = np.sqrt(PATTERNS[pattern](arms))[:, None]
  claimed = 0
  for _ in range(families):
    # What a seed does to all arms alike must not matter.
    shift = 3 * rng.standard_normal(seeds)
    values = named(shift + sds * rng.standard_normal((arms, seeds)))
    results = blocks.compare(
        values, contrasts or against_first(values), guard=guard
    )
    claimed += any(each.interval.excludes_zero for each in results)
  return claimed / families


@pytest.mark.parametrize('pattern', ['equal', 'baseline 3'])
def test_few_null_families_are_claimed(pattern):
  # 150 families: three standard errors above 5% are 10.3%.
  assert error(6, 3, pattern, 150) <= 0.103


def test_without_the_guard_a_noisy_baseline_is_claimed_often():
  assert error(14, 3, 'baseline 3', 300, guard=False) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize('arms', [4, 6, 9, 14])
def test_family_wise_error_is_at_most_six_and_a_half_percent(arms):
  for pattern in PATTERNS:
    share = error(arms, 3, pattern, 2000)
    pooled = error(arms, 3, pattern, 2000, guard=False)
    print(f'{arms} arms, {pattern}: guarded {share:.3f}, pooled {pooled:.3f}')
    assert share <= 0.065
    if pattern in ('equal', 'baseline 1 of 3', 'one arm 3', 'half 3'):
      assert pooled <= 0.07


@pytest.mark.slow
def test_more_seeds_do_not_mend_pooling_and_guarding_costs_less():
  pooled = error(14, 5, 'baseline 3', 2000, guard=False)
  guarded = error(14, 5, 'baseline 3', 2000)
  print(f'14 arms, 5 seeds, baseline 3: {pooled:.3f}, guarded {guarded:.3f}')
  assert pooled > 0.12 and guarded <= 0.065


@pytest.mark.slow
@pytest.mark.parametrize('arms, most', [(4, 0.075), (14, 0.11)])
def test_lists_of_contrasts_are_pooled_only(arms, most):
  """A chain and pairs: 5% under equal variances, more under 3:1."""
  names = [f'arm {i}' for i in range(arms)]
  chain = [
      blocks.Contrast(b, a) for a, b in zip(names, names[1:], strict=False)
  ]
  for pattern in ('equal', 'half 3', 'one arm 3'):
    share = error(arms, 3, pattern, 2000, chain)
    print(f'chain of {arms}, {pattern}: {share:.3f}')
    assert share <= (0.065 if pattern == 'equal' else most)


@pytest.mark.parametrize('guard', [False, True])
def test_a_planted_effect_is_seen_with_the_stated_power(guard):
  """Planted is what null runs state, on average, as detectable."""
  rng = np.random.default_rng(10)
  arms, seeds = 5, 4

  def runs(effect, trials):
    effects = np.array([0, effect, 0, 0, 0])[:, None]
    for _ in range(trials):
      values = named(effects + rng.standard_normal((arms, seeds)))
      yield blocks.compare(values, against_first(values), guard=guard)

  planted = np.mean([r[0].interval.detectable for r in runs(0.0, 100)])
  claims = [[c.interval.excludes_zero for c in r] for r in runs(planted, 250)]
  power, *nulls = np.mean(claims, axis=0)
  # Two standard errors are .05; another .04 as the planted effect is estimated.
  assert power == pytest.approx(0.8, abs=0.09)
  assert max(nulls) < 0.05


def test_the_detectable_difference_is_that_of_the_noncentral_t():
  table = np.random.default_rng(11).standard_normal((4, 3))
  result, *_ = blocks.compare(
      named(table), against_first(named(table)), guard=False
  )
  (spread,) = result.spreads
  t = result.family.critical(6, 0.95)
  shift = result.interval.detectable / spread.error(3)
  assert stats.nct.sf(t, 6, shift) == pytest.approx(0.8, abs=1e-4)


def test_the_guard_costs_less_with_more_seeds():
  rng = np.random.default_rng(12)
  wider = {}
  for seeds in (3, 5):
    ratios = []
    for _ in range(40):
      values = named(rng.standard_normal((14, seeds)))
      ends = [
          blocks.compare(values, against_first(values), guard=guard)[0].interval
          for guard in (True, False)
      ]
      guarded, pooled = [each.high - each.low for each in ends]
      ratios.append(guarded / pooled)
    wider[seeds] = np.mean(ratios)
  print(f'14 arms: wider by {wider}')
  assert 1.2 < wider[3] < 1.5 and 1.05 < wider[5] < 1.27
