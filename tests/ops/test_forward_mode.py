"""Functions with hand-written gradients have every other derivative too."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.ops import convolutions
from audiolm_jax.ops import cpu
from audiolm_jax.ops import linear_maps
from audiolm_jax.ops import ragged
from audiolm_jax.ops import recurrence
from audiolm_jax.ops.ssm import linear_recurrence
from audiolm_jax.streaming import activations
from audiolm_jax.training import costs
from tests.ops import plain_forms

_FAST = {'xla_backend_optimization_level': 0}


def _random(*shape, seed=0, kind=np.float32):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=shape)
  if kind == np.complex64:
    x = x + 1j * rng.normal(size=shape)
  return x.astype(kind)


def _lstm(run):
  mask = jnp.array([[1, 1, 0, 1], [0, 1, 1, 1]], bool).T

  def function(inputs, kernel, h, c):
    return run(inputs, kernel, (h, c), mask)

  shapes = (4, 2, 12), (3, 12), (2, 3), (2, 3)
  return function, [0.5 * _random(*s, seed=i) for i, s in enumerate(shapes)]


def _recurrence(run, kind):
  shapes = (2, 5, 3), (2, 5, 3), (2, 3)
  return run, [_random(*s, seed=i, kind=kind) for i, s in enumerate(shapes)]


def _ragged(run):
  sizes = jnp.array([3, 0, 4], jnp.int32)
  x, w = _random(9, 5), _random(3, 5, 6, seed=1)
  return lambda x, w: run(x, w, sizes), [x, w]


def _plain_ragged(x, w, sizes):
  # Rows past the last group meet no matrix.
  group = jnp.repeat(
      jnp.arange(4), jnp.array([*sizes, 2]), total_repeat_length=9
  )
  return jnp.einsum('ng,nd,gdf->nf', jax.nn.one_hot(group, 3), x, w)


def _conv(run, *shapes):
  return run, [_random(*s, seed=i) for i, s in enumerate(shapes)]


def _xla_conv(x, kernel):
  return convolutions.conv(x, kernel, 1, (2, 1), 2, 1)


def _narrow_conv(x, kernel):
  return cpu.narrow_conv(x, kernel, (2, 1), 2)


_RECURRENCES = {
    f'linear_recurrence-{kind.__name__}-{parallel}': (
        _recurrence(
            functools.partial(
                linear_recurrence.linear_recurrence, parallel=parallel
            ),
            kind,
        ),
        plain_forms.linear_recurrence,
    )
    for kind in (np.float32, np.complex64)
    for parallel in (False, True)
}
# Each function with its arguments, and the plain formula.
CASES = {
    'lstm': (_lstm(recurrence.lstm), _lstm(plain_forms.lstm)[0]),
    **_RECURRENCES,
    'ragged_dot': (
        _ragged(ragged.ragged_dot),
        _ragged(_plain_ragged)[0],
    ),
    'conv_from_one': (_conv(_narrow_conv, (2, 9, 1), (3, 1, 4)), _xla_conv),
    'conv_to_one': (_conv(_narrow_conv, (2, 9, 4), (3, 4, 1)), _xla_conv),
    'conv_blocks': (
        _conv(lambda x, k: cpu.conv_blocks(x, k, 2), (2, 5, 3), (3, 3, 4)),
        lambda x, k: convolutions.spread(x, k, 2),
    ),
    'elu': (_conv(activations.elu, (7,)), jax.nn.elu),
}


def _derivatives(function, arguments, tangents):
  """Values and derivatives of orders that objectives use."""

  def loss(arguments):
    outputs = jax.tree.leaves(function(*arguments))
    # Not linear, so that second derivatives are those of a general loss.
    return sum(jnp.sum(jnp.sin(y.real) + jnp.sin(y.imag)) for y in outputs)

  def along(arguments):
    _, moved = jax.jvp(function, arguments, tangents)
    return sum(jnp.sum(jnp.abs(y) ** 2) for y in jax.tree.leaves(moved))

  mapped = [jnp.stack([a, 2 * a]) for a in arguments]
  # Of a batch, and of some arguments only.
  axes = [0] + [None] * (len(arguments) - 1)

  def over_batch(first):
    mapped = jax.vmap(lambda *a: loss(a), axes)(first, *arguments[1:])
    return jnp.sum(mapped)

  def over_rest(rest):
    def one(a):
      return loss([a, *rest])

    return jnp.sum(jax.vmap(one)(mapped[0]))

  return {
      'jvp': jax.jvp(function, arguments, tangents),
      'grad': jax.grad(loss)(arguments),
      'jvp of grad': jax.jvp(jax.grad(loss), (arguments,), (tangents,))[1],
      'grad of jvp': jax.grad(along)(arguments),
      'jvp of jvp': jax.jvp(
          lambda *a: jax.jvp(function, a, tuple(tangents))[1],
          arguments,
          tangents,
      )[1],
      'grad of vmap': jax.grad(over_batch)(mapped[0]),
      'grad of what is not mapped': jax.grad(over_rest)(arguments[1:]),
      'vmap of jvp': jax.vmap(
          lambda *a: jax.jvp(function, a, tuple(tangents))[1]
      )(*mapped),
      'remat': jax.grad(jax.checkpoint(loss))(arguments),
  }


@pytest.mark.parametrize('name', CASES)
def test_all_derivatives_are_those_of_the_plain_formula(name):
  (function, arguments), plain = CASES[name]
  tangents = [
      _random(*a.shape, seed=9 + i, kind=a.dtype.type)
      for i, a in enumerate(arguments)
  ]
  arguments, tangents = jax.tree.map(jnp.asarray, (arguments, tangents))

  def run(function):
    derivatives = functools.partial(_derivatives, function)
    return jax.jit(derivatives, compiler_options=_FAST)(arguments, tangents)

  actual, expected = run(function), run(plain)
  for key in expected:
    jax.tree.map(
        lambda a, e, key=key: np.testing.assert_allclose(
            a, e, rtol=2e-4, atol=1e-5 * (1 + np.abs(e).max()), err_msg=key
        ),
        actual[key],
        expected[key],
    )


def test_reverse_mode_runs_the_transpose_and_forward_mode_does_not():
  def wrong(residuals, cotangent):
    return residuals * cotangent + 1  # Planted, to see which of them ran.

  @jax.custom_jvp
  def scale(factor, x):
    return factor * x

  @scale.defjvp
  def _(primals, tangents):
    factor, x = primals
    return factor * x, linear_maps.apply(
        lambda factor, d: factor * d, wrong, factor, tangents[1]
    )

  x = jnp.arange(3.0)
  _, forward = jax.jvp(lambda x: scale(2.0, x), (x,), (jnp.ones(3),))
  assert (forward == 2).all()
  assert (jax.grad(lambda x: scale(2.0, x).sum())(x) == 3).all()


def test_a_transpose_of_what_is_not_linear_is_refused():
  def scale(factor):
    return linear_maps.apply(
        lambda factor, x: factor * x,
        lambda factor, d: factor * d,
        factor,
        jnp.arange(3.0),
    )

  with pytest.raises(ValueError, match='linear in its inputs alone'):
    jax.linear_transpose(scale, jnp.ones(3))(jnp.ones(3))


def test_gradients_of_some_arguments_only():
  (function, (x, kernel)), plain = CASES['conv_from_one']
  for argument in (0, 1):
    actual, expected = (
        jax.grad(lambda *a, f=f: jnp.sum(f(*a) ** 2), argument)(x, kernel)
        for f in (function, plain)
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
  (function, (z, kernel, h, c)), plain = CASES['lstm']
  actual, expected = (
      jax.grad(lambda k, f=f: jnp.sum(f(z, k, h, c)[0] ** 2))(kernel)
      for f in (function, plain)
  )
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_a_gradient_of_one_argument_computes_no_other():
  """A convolution of audio has no tangent of its input to multiply."""
  (function, (x, kernel)), plain = CASES['conv_from_one']

  def cost(function):
    of_kernel = jax.grad(lambda k: jnp.sum(function(x, k) ** 2))
    return costs.flops(of_kernel, kernel)

  assert cost(function) == cost(plain)


def test_flops_of_tangents_are_counted():
  (function, arguments), plain = CASES['lstm']

  def cost(function):
    return costs.flops(lambda a: jax.jvp(function, a, a), arguments)

  # Products of the state with the kernel, its tangent, and of the tangent.
  assert cost(plain) == 3 * 2 * 4 * 2 * 3 * 12
  assert cost(function) == cost(plain)
