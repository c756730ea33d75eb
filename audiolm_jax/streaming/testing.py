"""The contract tests that every `Layer` and every `Steppable` passes.

Each check raises AssertionError naming what broke. Together they catch a
latency off by one, a look into the future, a reach declared too short, 0 * NaN,
a gradient lost where steps overlap, a state that cannot be carried by a scan,
and a reset that leaves something behind (tests/streaming plants these faults).
"""

from collections.abc import Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
import numpy as np

from audiolm_jax.streaming import base as streaming_base


def assert_layer_contract(
    layer: streaming_base.Layer,
    spec: streaming_base.PositionSpec,
    *,
    variables: Any = None,
    context: streaming_base.Context = None,
    blocks: int = 6,
    tolerance: float = 1e-5,
    seed: int = 0,
) -> None:
  """Checks what holds for every layer, whether it can step or not.

  - a row in a padded batch == the row alone, masks and outputs;
  - NaN at masked positions reaches no valid output and no gradient;
  - no output depends on an input outside its declared `reach`;
  - outputs are what `output_spec` and `output_ratio` say.

  Args:
    layer: unbound.
    spec: of its input positions; real or complex.
    variables: for `apply`; default `layer.init`, with every parameter moved
      away from its (possibly zero) start.
    context: passed on; leaves lead with a batch of 3.
    blocks: length of the test sequences.
    tolerance: relative to the largest value.
    seed: of inputs and parameters.

  Raises:
    AssertionError: naming the broken promise.
  """
  run = _Run(layer, spec, variables, context, blocks, seed)
  run.check_alone(tolerance)
  run.check_masked('whole', run.whole, tolerance)
  run.check_reach(run.measure(tolerance))


def assert_streaming_contract(
    layer: streaming_base.Steppable,
    spec: streaming_base.PositionSpec,
    *,
    variables: Any = None,
    context: streaming_base.Context = None,
    blocks: int = 6,
    step_blocks: Sequence[int] = (1, 2),
    exact_latency: bool = True,
    tolerance: float = 1e-5,
    seed: int = 0,
) -> None:
  """Checks `layer` against its own declarations.

  - whole == steps of each number of blocks, outputs, masks and the gradients
    with respect to parameters and input; the first number of blocks by a
    `lax.scan`, the others by a scan of the `vmap` over rows;
  - whole == compiled steps whose state is donated;
  - measured latency, reach and receptive field == / <= the declared ones;
  - NaN at masked positions reaches no valid output and no gradient;
  - a row that is reset goes on as if new, and the other rows as before.

  Args:
    layer: unbound.
    spec: of its input positions; real or complex.
    variables: for `apply`; default `layer.init`, with every parameter moved
      away from its (possibly zero) start.
    context: passed on; leaves lead with a batch of 3.
    blocks: length of the test sequences.
    step_blocks: blocks taken at each step.
    exact_latency: whether a lag that no look ahead needs is a fault, too; False
      for layers that delay on purpose.
    tolerance: relative to the largest value.
    seed: of inputs and parameters.

  Raises:
    AssertionError: naming the broken promise.
  """
  assert layer.steppable, f'{type(layer).__name__} says that it cannot step'
  run = _Steps(layer, spec, variables, context, blocks, seed)
  run.check_state()
  scans = [
      run.scan(count, by_rows=i > 0) for i, count in enumerate(step_blocks)
  ]
  for count, scan in zip(step_blocks, scans, strict=True):
    run.check_scan(f'steps of {count} blocks', scan, tolerance)
  run.check_donated(tolerance)
  moved = run.measure(tolerance)
  run.check_latency(moved, exact_latency)
  run.check_reach(moved)
  run.check_masked('whole', run.whole, tolerance)
  run.check_masked('steps', scans[0], tolerance)
  run.check_reset(tolerance)


class _Run:
  """The layer with its inputs: a full row, a shorter one and an empty one."""

  def __init__(self, layer, spec, variables, context, blocks, seed):
    self.layer, self.spec, self.context = layer, spec, context
    self.blocks = blocks
    self.size = blocks * layer.block_size
    self.rng = np.random.default_rng(seed)
    self.x = self.random((3, self.size, *spec.shape), spec.dtype)
    short = max(self.size - layer.block_size - 1, 1)
    self.lengths = np.array([self.size, short, 0])
    self.mask = np.arange(self.size) < self.lengths[:, None]
    if variables is None:
      variables = _jit(layer.init)(
          jax.random.key(seed), self.x, self.mask, context
      )
      variables = jax.tree.map(
          lambda p: p + 0.1 * self.random(p.shape, p.dtype), variables
      )
    self.variables = variables
    shapes, _ = jax.eval_shape(self._whole, variables, self.x, self.mask)
    expected = (3, self.size * layer.output_ratio)
    assert shapes.shape[:2] == expected, (
        f'{self.size} positions gave {shapes.shape[1]}, declared ratio'
        f' {layer.output_ratio}'
    )
    out = layer.output_spec(spec)
    assert (shapes.shape[2:], shapes.dtype) == (out.shape, out.dtype), (
        f'outputs are {shapes.dtype}{shapes.shape[2:]}, output_spec says'
        f' {out.dtype}{out.shape}'
    )
    # The loss is a random projection of the valid outputs.
    self.weight = self.random(shapes.shape, shapes.dtype)
    self.whole = self._with_gradient(self._whole)

  def random(self, shape, dtype):
    x = self.rng.standard_normal(shape)
    if jnp.issubdtype(dtype, jnp.complexfloating):
      x = x + 1j * self.rng.standard_normal(shape)
    return x.astype(dtype)

  def _whole(self, variables, x, mask):
    return self.layer.apply(variables, x, mask, self.context)

  def _with_gradient(self, run):
    """Compiled (variables, x, mask) -> (output, its mask), gradients."""

    def loss(variables, x, mask):
      y, y_mask = run(variables, x, mask)
      y = streaming_base.zero_masked(y, y_mask)
      return jnp.sum(jnp.real(y * self.weight)), (y, y_mask)

    compiled = _jit(jax.grad(loss, argnums=(0, 1), has_aux=True))

    def call(x, mask):
      gradients, outputs = compiled(self.variables, x, mask)
      return outputs, gradients

    return call

  def check_alone(self, tolerance):
    """The short row and the empty one by themselves against the batch."""
    (y, y_mask), _ = self.whole(self.x, self.mask)
    alone = _jit(self._row)
    for row in (1, 2):
      length = self.lengths[row]
      now = slice(max(length, 1))
      z, z_mask = alone(
          self.variables,
          self.x[row : row + 1, now],
          self.mask[row : row + 1, now],
          _rows(self.context, row),
      )
      valid = int(z_mask.sum())
      assert int(y_mask[row].sum()) == valid, (
          f'a row of {length} has {valid} valid outputs alone and'
          f' {int(y_mask[row].sum())} in a padded batch'
      )
      _close(
          y[row, :valid],
          z[0, :valid],
          tolerance,
          f'a row of {length} differs in a padded batch from the row alone',
      )

  def _row(self, variables, x, mask, context):
    return self.layer.apply(variables, x, mask, context)

  def check_masked(self, name, run, tolerance):
    """NaN past the ends of rows changes neither outputs nor gradients."""
    (y, _), _ = self.whole(self.x, self.mask)
    outside = self.mask.reshape(*self.mask.shape, *[1] * len(self.spec.shape))
    poisoned = np.where(outside, self.x, np.nan).astype(self.x.dtype)
    (z, _), gradients = run(poisoned, self.mask)
    message = f'{name}: NaN at masked inputs reaches'
    _close(z, y, tolerance, f'{message} valid outputs')
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
      where = jax.tree_util.keystr(path)
      assert np.isfinite(leaf).all(), f'{message} the gradient {where}'

  def measure(self, tolerance):
    """For each input position the outputs [n] that it moves."""
    mask = np.ones_like(self.mask)
    rows = np.repeat(self.x[:1], 3, axis=0)
    (y, _), _ = self.whole(rows, mask)
    moved = []
    for start in range(0, self.size, 3):
      x = np.array(rows)
      count = min(3, self.size - start)
      for row in range(count):
        here = x[row, start + row]
        x[row, start + row] = self.random(here.shape, here.dtype)
      (z, _), _ = self.whole(x, mask)
      change = np.abs(np.asarray(z - y)).reshape(*y.shape[:2], -1).max(-1)
      changed = change > tolerance * np.abs(y).max()
      moved.extend(np.flatnonzero(row) for row in changed[:count])
    return moved

  def check_reach(self, moved):
    """What was measured against the declared reach."""
    for position, outputs in enumerate(moved):
      for output in outputs:
        reach = self.layer.reach(int(output), int(output) + 1)
        assert reach is None or reach[0] <= position < reach[1], (
            f'output {output} depends on input {position}: outside the'
            f' declared reach {reach}'
        )


class _Steps(_Run):
  """The same for a layer that steps."""

  def _step(self, variables, x, mask, state, context):
    return self.layer.apply(variables, x, mask, state, context, method='step')

  def _padded(self, x, mask, size):
    """x and mask with the flush, up to a multiple of `size`."""
    total = self.size + self.layer.input_latency
    extra = total - self.size + (-total % size)
    return (
        streaming_base.pad_time(jnp.asarray(a), 0, extra) for a in (x, mask)
    )

  def _in_time(self, y):
    """Outputs of steps with the declared latency cut off."""
    first = self.layer.output_latency
    return y[:, first : first + int(self.size * self.layer.output_ratio)]

  def check_state(self):
    """States lead with the batch and keep their shapes and dtypes."""
    layer, size = self.layer, self.layer.block_size
    state = layer.initial_state(3, self.spec)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
      assert leaf.shape[:1] == (
          3,
      ), f'state{jax.tree_util.keystr(path)} does not lead with the batch'
    x, mask = self.x[:, :size], self.mask[:, :size]
    y, y_mask, after = jax.eval_shape(
        self._step, self.variables, x, mask, state, self.context
    )
    for a in (y, y_mask):
      assert a.shape[1] == size * layer.output_ratio, (
          f'a step of {size} positions gave {a.shape[1]}, declared ratio'
          f' {layer.output_ratio}'
      )
    before = jax.tree.map(_described, state)
    after = jax.tree.map(_described, after)
    assert (
        before == after
    ), f'a step turns the state {before} into {after}: it cannot be scanned'

  def scan(self, count, by_rows):
    """Steps over all blocks, as `whole` is."""
    size = count * self.layer.block_size

    def steps(variables, x, mask):
      x, mask = self._padded(x, mask, size)
      state = self.layer.initial_state(1 if by_rows else 3, self.spec)
      context = self.context
      step = self._step
      if by_rows:
        # Each row is a batch of one, with a state of its own.
        x, mask, context = jax.tree.map(
            lambda a: jnp.expand_dims(a, 1), (x, mask, context)
        )
        state = jax.tree.map(lambda s: jnp.stack([s] * 3), state)
        step = jax.vmap(step, in_axes=(None, 0, 0, 0, 0))
      time = 1 + by_rows

      def blocks(a):
        shape = (*a.shape[:time], -1, size, *a.shape[time + 1 :])
        return jnp.moveaxis(a.reshape(shape), time, 0)

      def body(state, block):
        y, y_mask, state = step(variables, *block, state, context)
        return state, (y, y_mask)

      _, outputs = jax.lax.scan(body, state, (blocks(x), blocks(mask)))

      def joined(y):
        y = jnp.moveaxis(y, 0, time)
        y = y.reshape(
            3, y.shape[time] * y.shape[time + 1], *y.shape[time + 2 :]
        )
        return self._in_time(y)

      return jax.tree.map(joined, outputs)

    return self._with_gradient(steps)

  def check_scan(self, name, scan, tolerance):
    """Outputs, masks and gradients of steps against the whole."""
    (y, y_mask), expected = self.whole(self.x, self.mask)
    (s, s_mask), actual = scan(self.x, self.mask)
    np.testing.assert_array_equal(
        y_mask, s_mask, err_msg=f'{name}: mask differs from the whole'
    )
    _close(s, y, tolerance, f'{name}: output differs from the whole')
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(actual),
        jax.tree.leaves(expected),
        strict=True,
    ):
      where = jax.tree_util.keystr(path)
      # Gradients sum over positions in another order.
      _close(a, b, 10 * tolerance, f'{name}: gradient {where} differs')

  def check_donated(self, tolerance):
    """Compiled steps, each of which overwrites the state."""
    self.step = _jit(self._step, donate_argnums=3)
    size = self.layer.block_size
    x, mask = self._padded(self.x, self.mask, size)
    state = _copy(self.layer.initial_state(3, self.spec))
    outputs = []
    for start in range(0, x.shape[1], size):
      now = slice(start, start + size)
      y, y_mask, state = self.step(
          self.variables, x[:, now], mask[:, now], state, self.context
      )
      outputs.append(streaming_base.zero_masked(y, y_mask))
    (expected, _), _ = self.whole(self.x, self.mask)
    actual = self._in_time(jnp.concatenate(outputs, axis=1))
    _close(actual, expected, tolerance, 'donated: differs from the whole')

  def check_latency(self, moved, exact):
    """The outputs that each block moves, against latency and field."""
    layer, size = self.layer, self.layer.block_size
    reached = []
    for block in range(self.blocks):
      outputs = np.concatenate(moved[block * size : (block + 1) * size])
      assert outputs.size, f'input block {block} reaches no output'
      reached.append((outputs.min(), outputs.max()))
    most = max(
        block * size * layer.output_ratio - first
        for block, (first, _) in enumerate(reached)
    )
    assert most <= layer.output_latency, (
        f'an input moves outputs {most} positions before it: more than the'
        f' declared latency of {layer.output_latency}'
    )
    assert (
        not exact or most == layer.output_latency
    ), f'declared latency {layer.output_latency}, measured {most}'
    if layer.receptive_field is None:
      return
    # `step` gives out o during input block (o + latency) / ratio / size.
    for block, (_, last) in enumerate(reached):
      late = (last + layer.output_latency) / layer.output_ratio
      seen = (int(late // size) + 1) * size - (block + 1) * size + 1
      assert seen <= layer.receptive_field, (
          f'an output depends on an input {seen} positions back: more than the'
          f' declared receptive field of {layer.receptive_field}'
      )

  def check_reset(self, tolerance):
    """Row 0 is reset after a few blocks, the others go on."""
    layer, size = self.layer, self.layer.block_size
    mask = np.ones_like(self.mask[:, :size])
    state = _copy(layer.initial_state(3, self.spec))

    def step(x, state):
      return self.step(self.variables, x, mask, state, self.context)

    spent = self.random((3, size, *self.spec.shape), self.x.dtype)
    for _ in range(3):
      _, _, state = step(spent, state)
    again = _copy(
        layer.reset(state, jnp.array([True, False, False]), self.spec)
    )
    fresh = _copy(layer.initial_state(3, self.spec))
    for block in range(self.blocks):
      x = self.x[:, block * size : (block + 1) * size]
      y, y_mask, again = step(x, again)
      new, new_mask, fresh = step(x, fresh)
      old, old_mask, state = step(x, state)
      np.testing.assert_array_equal(
          y_mask,
          jnp.concatenate([new_mask[:1], old_mask[1:]]),
          err_msg='reset: mask of a reset row differs',
      )
      _close(y[:1], new[:1], tolerance, 'reset: a reset row is not as new')
      _close(y[1:], old[1:], tolerance, 'reset: another row changed')


def _jit(function, **options):
  """Compiled as fast as may be: these run a few times on a few numbers."""
  return jax.jit(function, compiler_options=quick_options(), **options)


@functools.cache
def quick_options():
  """Compiler options for programs that run a few times on a few numbers."""
  plain = {'xla_backend_optimization_level': 0}
  # A third of the time for small programs, where XLA has this option (0.10).
  quick = {**plain, 'xla_cpu_use_fusion_emitters': False}
  try:
    jax.jit(lambda x: x + 1, compiler_options=quick)(0)
  except jax.errors.JaxRuntimeError:
    return plain
  return quick


def _copy(state):
  """A state that may be donated: no two leaves, nor another, share memory."""
  return jax.tree.map(lambda s: jnp.array(s, copy=True), state)


def _rows(context, row):
  return jax.tree.map(lambda c: c[row : row + 1], context)


def _described(leaf) -> str:
  return f'{leaf.dtype}{list(leaf.shape)}'


def _close(actual: Array, expected: Array, tolerance: float, message: str):
  """Equal within `tolerance` of the largest expected value; no NaN."""
  actual, expected = np.asarray(actual), np.asarray(expected)
  scale = max(float(np.abs(expected).max(initial=0.0)), 1e-6)
  np.testing.assert_allclose(
      actual / scale, expected / scale, rtol=0, atol=tolerance, err_msg=message
  )
