"""The ring form of a dilated convolution against `Conv`, and what it costs."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import ops
from audiolm_jax import streaming
from audiolm_jax.streaming import ring
from audiolm_jax.streaming import testing

SPEC = jax.ShapeDtypeStruct((3,), jnp.float32)


def _init(layer, *inputs):
  init = jax.jit(layer.init, compiler_options=testing.quick_options())
  return nn.meta.unbox(init(jax.random.key(1), *inputs))


@pytest.mark.parametrize('width,dilation', [(2, 4), (3, 2), (1, 1)])
def test_contract(width, dilation):
  layer = ring.RingConv(5, width, dilation)
  testing.assert_streaming_contract(layer, SPEC, blocks=10, step_blocks=(1, 3))


def test_it_is_conv_in_steps_of_any_size_and_in_the_gradient():
  conv = streaming.Conv(5, 3, dilation=4)
  mine = ring.RingConv(5, 3, 4)
  x = jax.random.normal(jax.random.key(0), (2, 23, 3))
  mask = streaming.length_mask(jnp.array([23, 17]), 23)
  variables = _init(conv, x, mask)
  weight = jax.random.normal(jax.random.key(2), (2, 23, 5)) * mask[..., None]

  def stepped(variables, x):
    state = mine.initial_state(2, SPEC)
    outputs, start = [], 0
    # Single positions from every place of the ring, and blocks between them.
    for size in (1, 1, 3, 1, 7, 1, 1, 1, 4, 1, 2):
      now = slice(start, start + size)
      y, _, state = mine.apply(
          variables, x[:, now], mask[:, now], state, method='step'
      )
      outputs.append(y)
      start += size
    return jnp.concatenate(outputs, axis=1)

  def whole(layer):
    return lambda variables, x: layer.apply(variables, x, mask)[0]

  def gradients(function):
    def total(*args):
      return jnp.sum(weight * function(*args))

    compiled = jax.jit(
        jax.value_and_grad(total, (0, 1)),
        compiler_options=testing.quick_options(),
    )
    return jax.tree.leaves(compiled(variables, x))

  expected = gradients(whole(conv))
  for function in (whole(mine), stepped):
    for mine_, theirs in zip(gradients(function), expected, strict=True):
      np.testing.assert_allclose(mine_, theirs, rtol=1e-4, atol=1e-5)


def test_low_rank_kernels_in_both_forms():
  layer = ring.RingConv(4, 2, 3)
  x = jax.random.normal(jax.random.key(0), (1, 6, 3))
  mask = jnp.ones((1, 6), bool)
  params = _init(layer, x, mask)['params']
  low = ops.LoraTensor(
      params['kernel'],
      jax.random.normal(jax.random.key(2), (2, 3, 2)),
      jax.random.normal(jax.random.key(3), (2, 4)),
  )
  dense = {**params, 'kernel': ops.materialize(low)}
  expected, _ = layer.apply({'params': dense}, x, mask)
  low = {'params': {**params, 'kernel': low}}

  @functools.partial(jax.jit, compiler_options=testing.quick_options())
  def both(variables):
    def step(state, x):
      y, _, state = layer.apply(
          variables, x[:, None], mask[:, :1], state, method='step'
      )
      return state, y[:, 0]

    state = layer.initial_state(1, SPEC)
    _, stepped = jax.lax.scan(step, state, jnp.swapaxes(x, 0, 1))
    return layer.apply(variables, x, mask)[0], jnp.swapaxes(stepped, 0, 1)

  for actual in both(low):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_a_loop_updates_the_ring_in_place():
  """No copy of a ring inside of the compiled loop; `Conv` has one."""
  copied = {
      type(layer): _moved_in_loop(layer)
      for layer in (
          ring.RingConv(3, 2, 500),
          streaming.Conv(3, 2, dilation=500),
      )
  }
  assert copied[ring.RingConv] == 0
  assert copied[streaming.Conv] > 0


def _moved_in_loop(layer):
  """How often a compiled loop of steps moves all of the state in its body."""
  x, mask = jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool)
  variables = _init(layer, x, mask)

  def run(x):
    def body(carry, _):
      y, _, state = layer.apply(
          variables, carry[0], mask, carry[1], method='step'
      )
      return (jnp.tanh(y), state), y

    state = layer.initial_state(2, SPEC)
    return jax.lax.scan(body, (x, state), length=10)[1]

  text = jax.jit(run).lower(x).compile().as_text()
  # All computations but the entry: the loop's body is among them.
  body = text[: text.index('\nENTRY')]
  return len(re.findall(r'f32\[2,50[01],3\]\S* (?:copy|concatenate)\(', body))
