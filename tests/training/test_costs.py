"""FLOPs: scanned == unrolled == counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.ops import ragged
from audiolm_jax.training import costs

B, T, D, F, H, LAYERS = 2, 6, 8, 16, 2, 3


def _block(params, x):
  """Attention and an MLP, as in a transformer, without elementwise extras."""
  q, k, v = (x @ w for w in params['qkv'])

  def split(z):
    return z.reshape(B, T, H, D // H)

  scores = jnp.einsum('bthc,bshc->bhts', split(q), split(k))
  mixed = jnp.einsum('bhts,bshc->bthc', jax.nn.softmax(scores), split(v))
  x = x + mixed.reshape(B, T, D) @ params['out']
  return x + jax.nn.relu(x @ params['up']) @ params['down']


def _params(scanned):
  shapes = {'out': (D, D), 'up': (D, F), 'down': (F, D)}
  lead = (LAYERS,) if scanned else ()
  one = {k: jnp.ones((*lead, *s)) for k, s in shapes.items()}
  one['qkv'] = [jnp.ones((*lead, D, D))] * 3
  return one if scanned else [one] * LAYERS


def _scanned(params, x):
  body = jax.checkpoint(lambda x, p: (_block(p, x), None))
  return jnp.sum(jax.lax.scan(body, x, params)[0] ** 2)


def _plain_scan(params, x):
  def body(x, p):
    return (_block(p, x), None)

  return jnp.sum(jax.lax.scan(body, x, params)[0] ** 2)


def _unrolled(params, x):
  for p in params:
    x = _block(p, x)
  return jnp.sum(x**2)


FORWARD = LAYERS * 2 * B * T * (4 * D * D + 2 * D * F + 2 * T * D)


def test_transformer_forward():
  x = jnp.ones((B, T, D))
  assert costs.flops(_plain_scan, _params(True), x) == FORWARD
  assert costs.flops(_unrolled, _params(False), x) == FORWARD


def test_transformer_gradient():
  x = jnp.ones((B, T, D))
  args = (0, 1)
  scanned = costs.flops(jax.grad(_plain_scan, args), _params(True), x)
  unrolled = costs.flops(jax.grad(_unrolled, args), _params(False), x)
  assert scanned == pytest.approx(3 * FORWARD, rel=0.02)
  assert unrolled == pytest.approx(3 * FORWARD, rel=0.02)


def test_remat_pays_the_forward_again():
  x = jnp.ones((B, T, D))
  plain = costs.flops(jax.grad(_plain_scan, (0, 1)), _params(True), x)
  remat = costs.flops(jax.grad(_scanned, (0, 1)), _params(True), x)
  # What nothing needs (each block's last product) is not computed again.
  last = LAYERS * 2 * B * T * D * F
  assert remat - plain == pytest.approx(FORWARD - last, rel=0.02)


def _conv(x, w, stride=1, padding=((0, 0),), dilation=1):
  return jax.lax.conv_general_dilated(
      x,
      w,
      (stride,),
      padding,
      rhs_dilation=(dilation,),
      dimension_numbers=('NWC', 'WIO', 'NWC'),
  )


def _pairs(size, width, stride, low, high, dilation=1):
  """Products of samples with taps, by going through all of them."""
  span = dilation * (width - 1) + 1
  return sum(
      0 <= start + dilation * k - low < size
      for start in range(0, size + low + high - span + 1, stride)
      for k in range(width)
  )


@pytest.mark.parametrize('stride,dilation', [(1, 1), (2, 1), (1, 3), (4, 1)])
def test_convolution_forward_and_gradients(stride, dilation):
  size, width, c_in, c_out, pad = 24, 4, 3, 5, (3, 2)
  x, w = jnp.ones((B, size, c_in)), jnp.ones((width, c_in, c_out))

  def f(x, w):
    return jnp.sum(_conv(x, w, stride, (pad,), dilation) ** 2)

  hand = 2 * B * c_in * c_out * _pairs(size, width, stride, *pad, dilation)
  assert costs.flops(f, x, w) == hand
  # Each gradient has the same products in another arrangement.
  assert costs.flops(jax.grad(f, (0, 1)), x, w) == pytest.approx(3 * hand)


def test_grouped_convolution():
  x, w = jnp.ones((B, 8, 6)), jnp.ones((3, 2, 9))

  def f(x, w):
    return jax.lax.conv_general_dilated(
        x,
        w,
        (1,),
        ((0, 0),),
        dimension_numbers=('NWC', 'WIO', 'NWC'),
        feature_group_count=3,
    )

  assert costs.flops(f, x, w) == 2 * B * 6 * 9 * 3 * 2
  total = costs.flops(jax.grad(lambda x, w: f(x, w).sum() ** 2, (0, 1)), x, w)
  assert total == pytest.approx(3 * 2 * B * 6 * 9 * 3 * 2)


def test_convolution_stack_scanned_equals_unrolled():
  ws = jnp.ones((LAYERS, 3, 4, 4))
  x = jnp.ones((B, 50, 4))
  pad = ((2, 0),)

  def scanned(ws, x):
    return jax.lax.scan(lambda x, w: (_conv(x, w, 1, pad), None), x, ws)[0]

  def unrolled(ws, x):
    for w in ws:
      x = _conv(x, w, 1, pad)
    return x

  hand = LAYERS * 2 * B * 4 * 4 * _pairs(50, 3, 1, 2, 0)
  assert costs.flops(scanned, ws, x) == hand
  assert costs.flops(unrolled, ws, x) == hand
  for f in (scanned, unrolled):
    g = jax.grad(lambda ws, x, f=f: jnp.sum(f(ws, x) ** 2), (0, 1))
    assert costs.flops(g, ws, x) == pytest.approx(3 * hand, rel=0.02)


@pytest.mark.parametrize(
    'ragged_dot', [jax.lax.ragged_dot, ragged.ragged_dot], ids=['lax', 'ours']
)
def test_ragged_dot_counts_rows_not_groups(ragged_dot):
  x, w = jnp.ones((10, 4)), jnp.ones((5, 4, 6))
  sizes = jnp.array([2, 2, 2, 2, 2], jnp.int32)

  def f(x, w):
    return ragged_dot(x, w, sizes)

  assert costs.flops(f, x, w) == 2 * 10 * 4 * 6
  g = jax.grad(lambda x, w: jnp.sum(f(x, w) ** 2), (0, 1))
  assert costs.flops(g, x, w) == pytest.approx(3 * 2 * 10 * 4 * 6)


def test_ragged_rows_are_counted_whole_in_a_scan_and_its_gradient():
  """Parts of a loop's body that do not depend on it are taken out of it."""
  w, x = jnp.ones((4, 3, 5, 5)), jnp.ones((8, 5))
  sizes = jnp.array([2, 2, 4], jnp.int32)

  def f(w, x):
    def body(x, w):
      return jnp.tanh(ragged.ragged_dot(x, w, sizes)), None

    return jnp.sum(jax.lax.scan(body, x, w)[0])

  hand = 4 * 2 * 8 * 5 * 5
  assert costs.flops(f, w, x) == hand
  assert costs.flops(jax.grad(f, (0, 1)), w, x) == 3 * hand


def test_while_cond_fft_and_dead_code():
  m = jnp.ones((4, 4))

  def loop(m):
    return jax.lax.while_loop(
        lambda c: c[0] < 9, lambda c: (c[0] + 1, c[1] @ m), (0, m)
    )[1]

  assert costs.flops(loop, m, while_trips=7) == 7 * 2 * 4**3

  def branch(m):
    return jax.lax.cond(m[0, 0] > 0, lambda m: m @ m @ m, lambda m: m @ m, m)

  assert costs.flops(branch, m) == 2 * 2 * 4**3
  x = jnp.ones((3, 64))
  assert costs.flops(jnp.fft.rfft, x) == 2.5 * 3 * 64 * 6

  def dead(m):
    jax.lax.scan(lambda c, _: (c @ m, None), m, None, length=5)
    return m + 1

  assert costs.flops(dead, m) == 0
  assert costs.flops(jax.jit(jax.jit(lambda m: m @ m)), m) == 2 * 4**3


def test_readable():
  assert costs.readable(1234567, 'B') == '1.23 MB'
  assert costs.readable(12) == '12'
  assert np.isfinite(float(costs.readable(0)))


PROGRAM = """HloModule jit_step

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
}

%body (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %g = bf16[64,8]{1,0:T(8,128)} all-gather(%x), replica_groups=[2,8]<=[16]
  %s = f32[2,8]{1,0} reduce-scatter(%y), replica_groups={{0,1,2,3}}, to_apply=%add
}

%condition (p: (s32[], f32[4,8])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(12)
}

%fused (p: f32[4]) -> f32[4] {
  %r = (f32[4]{0}, s8[16]{0}) all-reduce(%a, %b), to_apply=%add
}

ENTRY %main (p: f32[4,8]) -> f32[4,8] {
  %w = (s32[], f32[4,8]) while(%t), condition=%condition, body=%body
  %v = (s32[]) while(%t), condition=%add, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %f = f32[4] fusion(%q), kind=kLoop, calls=%fused
  %h = ((f32[2], f32[3]), (f32[8], f32[12])) all-gather-start(%i, %j)
  %k = (f32[8], f32[12]) all-gather-done(%h)
}
"""


def test_collectives_count_as_often_as_they_run():
  assert costs.collectives(PROGRAM) == {
      # Two loops of 12 and 3, and one that is started apart.
      'all-gather': (16, 15 * 64 * 8 * 2 + (8 + 12) * 4),
      # What goes in: 4 devices' parts.
      'reduce-scatter': (15, 15 * 2 * 8 * 4 * 4),
      'all-reduce': (1, 4 * 4 + 16),
  }
