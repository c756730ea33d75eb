"""The contract test that every `Steppable` passes.

Each check raises AssertionError naming what broke. Together they catch a
latency off by one, a look into the future, 0 * NaN, a gradient lost where steps
overlap, and a reset that leaves something behind (tests/streaming plants these
faults).
"""

from collections.abc import Sequence
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
import numpy as np

from audiolm_jax.streaming import base


def assert_streaming_contract(
    layer: base.Steppable,
    spec: base.PositionSpec,
    *,
    variables: Any = None,
    context: base.Context = None,
    blocks: int = 6,
    step_blocks: Sequence[int] = (1, 2),
    exact_latency: bool = True,
    tolerance: float = 1e-5,
    seed: int = 0,
) -> None:
  """Checks `layer` against its own declarations.

  - whole == steps of each number of blocks, outputs, masks and the gradients
    with respect to parameters and input;
  - measured latency and receptive field == / <= the declared ones;
  - NaN at masked positions reaches no valid output and no gradient;
  - a row that is reset goes on as if new, and the other rows as before.

  Args:
    layer: unbound.
    spec: of its input positions; real or complex.
    variables: for `apply`; default `layer.init`, with every parameter moved
      away from its (possibly zero) start.
    context: passed on.
    blocks: length of the test sequences.
    step_blocks: blocks taken at each step.
    exact_latency: whether a lag that no look ahead needs is a fault, too; False
      for layers that delay on purpose.
    tolerance: relative to the largest value.
    seed: of inputs and parameters.

  Raises:
    AssertionError: naming the broken promise.
  """
  run = _Run(layer, spec, variables, context, blocks, seed)
  for count in step_blocks:
    run.check_steps(count, tolerance)
  run.check_reach(exact_latency, tolerance)
  run.check_masked(tolerance)
  run.check_reset(tolerance)


class _Run:
  """The layer with its inputs: two rows, the second one shorter."""

  def __init__(self, layer, spec, variables, context, blocks, seed):
    self.layer, self.spec, self.context = layer, spec, context
    self.blocks = blocks
    self.size = blocks * layer.block_size
    self.rng = np.random.default_rng(seed)
    self.x = self._random((2, self.size, *spec.shape), spec.dtype)
    lengths = np.array([self.size, self.size - layer.block_size - 1])
    self.mask = np.arange(self.size) < np.maximum(lengths, 1)[:, None]
    if variables is None:
      variables = _jit(layer.init)(
          jax.random.key(seed), self.x, self.mask, self.context
      )
      variables = jax.tree.map(
          lambda p: p + 0.1 * self._random(p.shape, p.dtype), variables
      )
    self.variables = variables
    self.whole = _jit(self._whole)
    self.step = _jit(self._step)

  def _random(self, shape, dtype):
    x = self.rng.standard_normal(shape)
    if jnp.issubdtype(dtype, jnp.complexfloating):
      x = x + 1j * self.rng.standard_normal(shape)
    return x.astype(dtype)

  def _whole(self, variables, x, mask):
    return self.layer.apply(variables, x, mask, self.context)

  def _step(self, variables, x, mask, state):
    return self.layer.apply(
        variables, x, mask, state, self.context, method='step'
    )

  def _steps(self, variables, x, mask, count, step=None):
    """Steps over x and the flush, with the declared latency cut off."""
    layer = self.layer
    step = step or self._step
    state = layer.initial_state(x.shape[0], self.spec)
    size = count * layer.block_size
    expected = int(x.shape[1] * layer.output_ratio)
    total = x.shape[1] + layer.input_latency
    extra = total - x.shape[1] + (-total % size)
    x = base.pad_time(jnp.asarray(x), 0, extra)
    mask = base.pad_time(jnp.asarray(mask), 0, extra)
    outputs = []
    for start in range(0, x.shape[1], size):
      end = start + size
      y, y_mask, state = step(
          variables, x[:, start:end], mask[:, start:end], state
      )
      assert y.shape[1] == size * layer.output_ratio, (
          f'a step of {size} positions gave {y.shape[1]}, declared ratio'
          f' {layer.output_ratio}'
      )
      outputs.append((y, y_mask))
    first = layer.output_latency
    return tuple(
        jnp.concatenate(parts, axis=1)[:, first : first + expected]
        for parts in zip(*outputs, strict=True)
    )

  def check_steps(self, count, tolerance):
    """Outputs, masks and gradients of steps against the whole."""
    y, y_mask = self.whole(self.variables, self.x, self.mask)
    s, s_mask = self._steps(self.variables, self.x, self.mask, count, self.step)
    name = f'steps of {count} blocks'
    np.testing.assert_array_equal(
        y_mask, s_mask, err_msg=f'{name}: mask differs from the whole'
    )
    _close(
        base.zero_masked(s, s_mask),
        base.zero_masked(y, y_mask),
        tolerance,
        f'{name}: output differs from the whole',
    )
    weight = base.zero_masked(self._random(y.shape, y.dtype), y_mask)

    def loss(run):
      return lambda v, x: jnp.sum(jnp.real(run(v, x) * weight))

    whole = jax.grad(
        loss(lambda v, x: self._whole(v, x, self.mask)[0]), argnums=(0, 1)
    )
    steps = jax.grad(
        loss(lambda v, x: self._steps(v, x, self.mask, count)[0]),
        argnums=(0, 1),
    )
    x = jnp.asarray(self.x)
    expected = _jit(whole)(self.variables, x)
    actual = _jit(steps)(self.variables, x)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(actual),
        jax.tree.leaves(expected),
        strict=True,
    ):
      where = jax.tree_util.keystr(path)
      # Gradients sum over positions in another order.
      _close(a, b, 10 * tolerance, f'{name}: gradient {where} differs')

  def check_reach(self, exact_latency, tolerance):
    """Which outputs each input block moves, against the declarations."""
    layer = self.layer
    size, ratio = layer.block_size, layer.output_ratio
    mask = np.ones_like(self.mask[:1])
    row = self.x[:1]
    y, _ = self.whole(self.variables, row, mask)
    reached = []
    for block in range(self.blocks):
      moved = np.array(row)
      here = slice(block * size, (block + 1) * size)
      moved[:, here] = self._random(moved[:, here].shape, moved.dtype)
      z, _ = self.whole(self.variables, moved, mask)
      change = np.abs(np.asarray(z - y))[0].reshape(y.shape[1], -1).max(-1)
      changed = np.flatnonzero(change > tolerance * np.abs(y).max())
      assert changed.size, f'input block {block} reaches no output'
      reached.append((changed[0], changed[-1]))
    latencies = [
        block * size * ratio - first for block, (first, _) in enumerate(reached)
    ]
    most = max(latencies)
    assert most <= layer.output_latency, (
        f'an input moves outputs {most} positions before it: more than the'
        f' declared latency of {layer.output_latency}'
    )
    assert (
        not exact_latency or most == layer.output_latency
    ), f'declared latency {layer.output_latency}, measured {most}'
    if layer.receptive_field is None:
      return
    # `step` gives out o during input block (o + latency) / ratio / size.
    for block, (_, last) in enumerate(reached):
      position = math.floor((last + layer.output_latency) / ratio / size)
      seen = (position + 1) * size - (block + 1) * size + 1
      assert seen <= layer.receptive_field, (
          f'an output depends on an input {seen} positions back: more than the'
          f' declared receptive field of {layer.receptive_field}'
      )

  def check_masked(self, tolerance):
    """NaN past the second row's end changes neither outputs nor gradients."""
    mask = self.mask
    y, y_mask = self.whole(self.variables, self.x, mask)
    outside = mask.reshape(*mask.shape, *([1] * len(self.spec.shape)))
    poisoned = np.where(outside, self.x, np.nan).astype(self.x.dtype)
    weight = self._random(y.shape, y.dtype)

    def loss(run):
      def scalar(variables, x):
        z, z_mask = run(variables, x, mask)
        z = base.zero_masked(z, z_mask)
        return jnp.sum(jnp.real(z * weight)), z

      return jax.value_and_grad(scalar, argnums=(0, 1), has_aux=True)

    runs = {
        'whole': self._whole,
        'steps': lambda v, x, m: self._steps(v, x, m, 1),
    }
    for name, run in runs.items():
      (_, z), gradients = _jit(loss(run))(self.variables, jnp.asarray(poisoned))
      _close(
          z,
          base.zero_masked(y, y_mask),
          tolerance,
          f'{name}: NaN at masked inputs reaches valid outputs',
      )
      for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        where = jax.tree_util.keystr(path)
        assert np.isfinite(
            leaf
        ).all(), f'{name}: NaN at masked inputs reaches the gradient {where}'

  def check_reset(self, tolerance):
    """Row 0 is reset after a few blocks, row 1 goes on."""
    layer, size = self.layer, self.layer.block_size
    mask = np.ones_like(self.mask[:, :size])
    state = layer.initial_state(2, self.spec)
    spent = self._random((2, size, *self.spec.shape), self.x.dtype)
    for _ in range(3):
      _, _, state = self.step(self.variables, spent, mask, state)
    again = layer.reset(state, jnp.array([True, False]), self.spec)
    fresh = layer.initial_state(2, self.spec)
    for block in range(self.blocks):
      x = self.x[:, block * size : (block + 1) * size]
      y, y_mask, again = self.step(self.variables, x, mask, again)
      new, new_mask, fresh = self.step(self.variables, x, mask, fresh)
      old, old_mask, state = self.step(self.variables, x, mask, state)
      expected = jnp.stack([new[0], old[1]])
      np.testing.assert_array_equal(
          y_mask,
          jnp.stack([new_mask[0], old_mask[1]]),
          err_msg='reset: mask of a reset row differs',
      )
      _close(y[:1], expected[:1], tolerance, 'reset: a reset row is not as new')
      _close(y[1:], expected[1:], tolerance, 'reset: another row changed')


def _jit(function):
  """Compiled without optimisation: these run a few times on a few numbers."""
  return jax.jit(
      function, compiler_options={'xla_backend_optimization_level': 0}
  )


def _close(actual: Array, expected: Array, tolerance: float, message: str):
  """Equal within `tolerance` of the largest expected value; no NaN."""
  actual, expected = np.asarray(actual), np.asarray(expected)
  scale = max(float(np.abs(expected).max(initial=0.0)), 1e-6)
  np.testing.assert_allclose(
      actual / scale, expected / scale, rtol=0, atol=tolerance, err_msg=message
  )
