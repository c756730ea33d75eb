"""What holds for every bottleneck, whatever it does inside."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax import param_transforms
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.training import mesh as mesh_lib

BATCH, FRAMES, WIDTH = 4, 16, 8
LENGTHS = np.array([16, 16, 5, 0])
MASK = np.arange(FRAMES) < LENGTHS[:, None]
# For each: kind, fields, width of the encoder.
CASES = {
    'rvq': ('rvq', {'codebooks': 3, 'vocabulary': 8}, WIDTH),
    'rvq, learned': (
        'rvq',
        {'codebooks': 2, 'vocabulary': 8, 'dimension': 4, 'learned': True},
        WIDTH,
    ),
    'distilled_rvq': (
        'distilled_rvq',
        {
            'codebooks': 2,
            'vocabulary': 8,
            'dimension': 4,
            'normalize': True,
            'features': 6,
        },
        WIDTH,
    ),
    'split_rvq': (
        'split_rvq',
        {'acoustic': 2, 'vocabulary': 8, 'dimension': 4, 'check_every': 2},
        WIDTH,
    ),
    'grouped_rvq': ('grouped_rvq', {'vocabulary': 8}, WIDTH),
    'factorised_rvq': (
        'factorised_rvq',
        {'codebooks': 3, 'vocabulary': 16, 'dimension': 4},
        WIDTH,
    ),
    'factorised_rvq, EMA': (
        'factorised_rvq',
        {
            'codebooks': 2,
            'vocabulary': 8,
            'dimension': 4,
            'learned': False,
            'weight_norm': False,
        },
        WIDTH,
    ),
    'multi_rate_rvq': (
        'multi_rate_rvq',
        {'strides': (4, 2, 1), 'vocabulary': 16, 'dimension': 4},
        WIDTH,
    ),
    'fsq': ('fsq', {'grid': (4, 3, 5), 'groups': 2}, WIDTH),
    'fsq, residual': (
        'fsq',
        {'grid': (3, 5, 4, 2), 'groups': 2, 'codebooks': 3, 'project': False},
        WIDTH,
    ),
    'lfq': ('lfq', {'bits': 3, 'groups': 2, 'temperature': 1.0}, WIDTH),
    'vae': ('vae', {'dimension': 3}, WIDTH),
    'vae, unprojected': ('vae', {'dimension': 4, 'project': False}, WIDTH),
    'sigma_vae': ('sigma_vae', {'dimension': 3}, WIDTH),
    'mu_law': ('mu_law', {'channels': 2}, 2),
}
each = pytest.mark.parametrize('name', CASES)


def test_every_bottleneck_is_here():
  assert {kind for kind, _, _ in CASES.values()} == set(bottlenecks.BOTTLENECKS)


def _jit(function):
  return jax.jit(
      function, compiler_options={'xla_backend_optimization_level': 0}
  )


class Case:
  """A bottleneck, trained a little, with its functions compiled once."""

  def __init__(self, name):
    kind, fields, self.width = CASES[name]
    self.bottleneck = config.build_kind(
        bottlenecks.BOTTLENECKS, {'kind': kind, **fields}
    )
    rng = np.random.default_rng(0)
    shape = (BATCH, FRAMES, self.width)
    x = 0.5 * rng.standard_normal(shape).astype(np.float32)
    self.x = np.where(MASK[..., None], x, np.nan)
    self.boxed = _jit(lambda rng: self.bottleneck.init(rng, self.width))(
        jax.random.key(0)
    )
    self.quantise = _jit(
        lambda variables, x, mask, levels: self.bottleneck.quantise(
            variables, x, mask, levels=levels
        )
    )
    self.run = _jit(self._run)
    self.learn = _jit(self._learn)
    # No bias is zero, no gain that of its kernel.
    params = jax.tree.map(
        lambda p: p + 0.1 * rng.standard_normal(p.shape).astype(np.float32),
        nn.meta.unbox(self.boxed['params']),
    )
    state = self.boxed['state']
    if jax.tree.leaves(state):
      for step in range(6):
        everything = np.ones(MASK.shape, bool)
        state = self.learn(params, state, everything, jax.random.key(step))
    self.all_levels = None
    if self.bottleneck.levels(jax.random.key(0), 1) is not None:
      levels = len(self.bottleneck.prefixes())
      self.all_levels = np.full(BATCH, levels, np.int32)
    self.variables = {'params': params, 'state': state}
    self.found, self.gradients, self.statistics, self.back = self.run(
        self.variables, self.x, MASK
    )

  def _learn(self, params, state, mask, rng):
    """The state after an update on noise."""
    noise = 0.5 * jax.random.normal(rng, self.x.shape)
    variables = {'params': params, 'state': state}
    quantised = self.bottleneck.quantise(variables, noise, mask)
    statistics = self.bottleneck.statistics(quantised, mask, rng)
    return self.bottleneck.update(state, statistics, rng)

  def _run(self, variables, x, mask):
    """Everything about a batch: values, gradients, sums, and back again."""
    weight = np.random.default_rng(1).standard_normal(x.shape[:2])
    weight = jnp.asarray(weight[..., None], jnp.float32)

    def totals(params, x):
      given = {**variables, 'params': params}
      found = self.bottleneck.quantise(given, x, mask)
      # Each output counts differently, so that they cannot cancel.
      sums = [
          jnp.sum(output * weight * jnp.arange(1.0, output.shape[-1] + 1))
          for output in (found.latents, found.semantic)
          if output is not None
      ]
      losses = sum(v.sum() for v in found.losses.values())
      return jnp.stack([*sums, losses]), found

    gradients, found = jax.jacrev(totals, (0, 1), has_aux=True)(
        variables['params'], x
    )
    statistics = self.bottleneck.statistics(
        jax.lax.stop_gradient(found), mask, jax.random.key(0)
    )
    if found.codes is None:
      back = [self.bottleneck.dequantise(variables, found.tokens)]
    else:
      back = [
          self.bottleneck.dequantise(variables, found.codes[..., :count])
          for count in self.bottleneck.prefixes()
      ]
    return found, gradients, statistics, back


case = functools.cache(Case)


def _equal(actual, expected, **tolerance):
  jax.tree.map(
      lambda a, e: np.testing.assert_allclose(a, e, **tolerance),
      actual,
      expected,
  )


@each
def test_shapes_and_ranges(name):
  c = case(name)
  bottleneck, found = c.bottleneck, c.found
  slots, frames = bottleneck.slots(), bottleneck.frames
  width = bottleneck.output_dimension(c.width)
  assert found.latents.shape == (BATCH, FRAMES, width)
  assert found.latents.dtype == jnp.float32
  assert not np.asarray(found.latents)[~MASK].any()
  assert set(found.losses) == set(bottleneck.loss_weights)
  for loss in found.losses.values():
    assert loss.shape == MASK.shape and not np.asarray(loss)[~MASK].any()
    assert np.isfinite(loss).all() and np.asarray(loss)[MASK].any()
  assert (found.codes is None) == (not slots)
  assert (found.tokens is None) == (bottleneck.latent_dimension() is None)
  if not slots:
    shape = (BATCH, FRAMES, bottleneck.latent_dimension())
    assert found.tokens.shape == shape and found.margins is None
    assert not np.asarray(found.tokens)[~MASK].any()
    return
  shape = (BATCH, -(-FRAMES // frames), len(slots))
  valid = MASK[:, ::frames]
  codes, margins = np.asarray(found.codes), np.asarray(found.margins)
  assert codes.shape == margins.shape == shape and codes.dtype == np.int32
  assert (codes >= 0).all() and not codes[~valid].any()
  assert (codes < [slot.vocabulary for slot in slots]).all()
  # Not vacuous: every slot says something.
  assert min(len(np.unique(codes[valid, k])) for k in range(len(slots))) > 2
  assert (margins >= 0).all() and (margins <= 1).all()
  assert (margins[~valid] == 1).all() and (margins[valid] < 1).any()
  width = bottleneck.semantic_dimension(c.width)
  assert found.semantic.shape == (BATCH, FRAMES, width)
  assert not np.asarray(found.semantic)[~MASK].any()
  assert all(0 <= slot.offset < 1 for slot in slots)
  vectors = bottleneck.code_vectors(c.variables)
  assert vectors.shape[:2] == (len(slots), max(s.vocabulary for s in slots))


@each
def test_what_is_masked_reaches_nothing(name):
  c = case(name)
  other = np.where(MASK[..., None], c.x, 7.0)
  expected = c.run(c.variables, other, MASK)
  actual = (c.found, c.gradients, c.statistics, c.back)
  jax.tree.map(np.testing.assert_array_equal, actual, expected)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(actual))


@each
def test_a_padded_row_equals_itself_alone(name):
  c = case(name)
  row, length = 2, LENGTHS[2]
  rows = slice(row, row + 1)
  levels = None if c.all_levels is None else c.all_levels[rows]
  alone = c.quantise(
      c.variables, c.x[rows, :length], MASK[rows, :length], levels
  )
  fields = ('latents', 'losses', 'codes', 'tokens', 'margins', 'semantic')
  tokens = -(-length // c.bottleneck.frames)
  for field in fields:
    batch, one = getattr(c.found, field), getattr(alone, field)
    size = tokens if field in ('codes', 'margins') else length
    part = jax.tree.map(lambda v, size=size: v[row : row + 1, :size], batch)
    _equal(one, part, rtol=1e-4, atol=1e-5)


@each
def test_tokens_give_the_latents_back(name):
  c = case(name)
  whole, first = (np.asarray(c.back[i])[:, :FRAMES][MASK] for i in (-1, 0))
  tolerance = {'rtol': 1e-4, 'atol': 1e-5}
  np.testing.assert_allclose(
      whole, np.asarray(c.found.latents)[MASK], **tolerance
  )
  if c.found.semantic is not None and name != 'distilled_rvq':
    np.testing.assert_allclose(
        first, np.asarray(c.found.semantic)[MASK], **tolerance
    )


@each
def test_gradients_reach_input_and_every_param(name):
  c = case(name)
  params, x = c.gradients
  for leaf in jax.tree.leaves((params, x)):
    assert np.isfinite(leaf).all()
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    name = jax.tree_util.keystr(path)
    assert np.abs(leaf).max() > 0, name
    # Through the choice of codes, not by the losses alone.
    assert 'in' not in name.split("'") or np.abs(leaf[0]).max() > 0, name
  # Of the latents, and of the semantic part of them.
  for gradient in x[:-1]:
    assert (np.abs(gradient).max(axis=-1) > 0)[MASK].all()
  assert not np.asarray(x)[:, ~MASK].any()


@each
def test_statistics_of_parts_add(name):
  c = case(name)
  if not jax.tree.leaves(c.statistics):
    assert not jax.tree.leaves(c.variables['state'])
    return
  one = np.arange(BATCH)[:, None] == 1
  parts = [c.run(c.variables, c.x, MASK & rows)[2] for rows in (one, ~one)]
  total = jax.tree.map(jnp.add, *parts)
  flat = jax.tree_util.tree_leaves_with_path(c.statistics)
  for (path, whole), both in zip(flat, jax.tree.leaves(total), strict=True):
    assert np.abs(whole).max() > 0
    if 'candidate_counts' in jax.tree_util.keystr(path):
      # Which slot a frame falls into is random; how many fall is not.
      whole, both = whole.sum(axis=-1), both.sum(axis=-1)
    elif 'candidate_sums' in jax.tree_util.keystr(path):
      whole, both = whole.sum(axis=-2), both.sum(axis=-2)
    np.testing.assert_allclose(both, whole, rtol=1e-4, atol=1e-4)


@each
def test_an_update_needs_data(name):
  c = case(name)
  params, state = c.variables['params'], c.variables['state']
  nothing = np.zeros(MASK.shape, bool)
  same = c.learn(params, state, nothing, jax.random.key(1))
  jax.tree.map(np.testing.assert_array_equal, same, state)
  if jax.tree.leaves(state):
    moved = c.learn(params, state, MASK, jax.random.key(1))
    assert not all(
        np.array_equal(a, b)
        for a, b in zip(*map(jax.tree.leaves, (moved, state)), strict=True)
    )
  metrics = c.bottleneck.metrics(state)
  assert bool(metrics) == bool(jax.tree.leaves(state))
  for value in metrics.values():
    assert value.shape == () and np.isfinite(value)


@each
def test_levels_give_what_prefixes_of_the_codes_give(name):
  c = case(name)
  bottleneck = c.bottleneck
  rows = bottleneck.levels(jax.random.key(0), 500)
  if rows is None:
    return
  prefixes = bottleneck.prefixes()
  assert rows.shape == (500,)
  assert set(np.asarray(rows)) <= set(range(1, len(prefixes) + 1))
  levels = np.array([1, len(prefixes), 2, 1], np.int32)
  found = c.quantise(c.variables, c.x, MASK, levels)
  # Dropped levels still choose codes.
  np.testing.assert_array_equal(found.codes, c.found.codes)
  for row, level in enumerate(levels):
    back = np.asarray(c.back[level - 1])[row, :FRAMES]
    np.testing.assert_allclose(
        back[MASK[row]], found.latents[row][MASK[row]], rtol=1e-4, atol=1e-5
    )
  for loss in found.losses.values():
    assert np.isfinite(loss).all() and np.asarray(loss)[MASK].any()


@each
def test_no_other_prefix_decodes(name):
  c = case(name)
  prefixes = c.bottleneck.prefixes()
  wrong = set(range(1, len(c.bottleneck.slots()))) - set(prefixes)
  for count in wrong:
    with pytest.raises(ValueError, match='codes a frame'):
      c.bottleneck.dequantise(c.variables, c.found.codes[..., :count])


@each
def test_margins_vanish_where_codes_change(name):
  """Between inputs of different codes, found by bisection, and only there."""
  c = case(name)
  if c.found.codes is None:
    return
  frames = c.bottleneck.frames
  rng = np.random.default_rng(2)
  noise = 0.5 * rng.standard_normal(c.x.shape).astype(np.float32)
  low, high = c.x, np.where(MASK[..., None], noise, np.nan)

  def first(x):
    found = c.quantise(c.variables, x, MASK, c.all_levels)
    return np.asarray(found.codes[..., 0]), np.asarray(found.margins[..., 0])

  code, before = first(low)
  changes = MASK[:, ::frames] & (code != first(high)[0])
  for _ in range(22):
    middle = (low + high) / 2
    same = np.repeat(first(middle)[0] == code, frames, axis=1)[..., None]
    low, high = np.where(same, middle, low), np.where(same, high, middle)
  assert changes.sum() > 5
  for x in (low, high):
    assert first(x)[1][changes].max() < 5e-3
  assert np.median(before[changes]) > 0.03


@each
def test_low_rank_updates_reach_every_matrix(name):
  c = case(name)
  axes = mesh_lib.logical_axes(c.boxed['params'])
  base = c.variables['params']
  if not jax.tree.leaves(base):
    return
  zero = param_transforms.Lora(rank=2, alpha=4.0).init(
      jax.random.key(1), base, axes
  )
  is_lora = lambda w: isinstance(w, ops.LoraTensor)  # noqa: E731
  wrapped = sum(map(is_lora, jax.tree.leaves(zero, is_leaf=is_lora)))
  names = jax.tree.leaves(axes, is_leaf=mesh_lib.is_axes)
  assert wrapped == sum(len([n for n in a if n != 'layers']) > 1 for a in names)

  def move(w):
    if not is_lora(w):
      return w
    rng = jax.random.key(w.shape[-1])
    return w.replace(b=0.3 * jax.random.normal(rng, w.b.shape))

  moved = ops.map_weights(move, zero)
  results = {}
  for arm, params in {
      'base': base,
      'zero': zero,
      'moved': moved,
      'merged': param_transforms.merge_update(moved),
  }.items():
    given = {**c.variables, 'params': params}
    found = c.quantise(given, c.x, MASK, c.all_levels)
    results[arm] = [found.latents, *found.losses.values()]
    if found.semantic is not None:
      results[arm].append(found.semantic)
  _equal(results['zero'], results['base'], rtol=1e-5, atol=1e-5)
  _equal(results['moved'], results['merged'], rtol=1e-3, atol=1e-4)
  distances = jax.tree.map(
      lambda a, b: np.abs(a - b).max(), results['moved'], results['base']
  )
  assert max(distances[0], distances[-1]) > 1e-2


@each
def test_config_and_back(name):
  kind, fields, _ = CASES[name]
  built = case(name).bottleneck
  values = {'kind': kind, **fields}
  assert config.build_kind(bottlenecks.BOTTLENECKS, values) == built
  assert config.build(type(built), config.to_config(built)) == built
  assert dataclasses.is_dataclass(built)
  assert isinstance(built.quantiser, str)
