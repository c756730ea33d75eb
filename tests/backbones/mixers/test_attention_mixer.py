"""Attention's options: streaming, windows with kept positions, sinks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.backbones.mixers import attention
from audiolm_jax.ops import attention as attention_ops
from audiolm_jax.ops import rotary
from audiolm_jax.streaming import testing
from audiolm_jax.training import costs

WIDTH = 8
SPEC = jax.ShapeDtypeStruct((WIDTH,), jnp.float32)
YARN = rotary.Yarn(4.0, 4)

# Several things at once where one does not hide another.
STREAMING = {
    'kept': {
        'window': 3,
        'sink_tokens': 2,
        'sinks': True,
        'qk_norm': 'rms',
        'use_bias': True,
        'out_bias': True,
        'positions': rotary.Rope(100.0, YARN, 0.5),
        'softmax_scale': 0.3,
    },
    'cache_length': {'cache_length': 16, 'kv_heads': 2},
    'blocks': {'mask_kind': 'block_causal', 'block': 2, 'window': 3},
}


@pytest.mark.parametrize('name', STREAMING)
def test_streaming_contract(name):
  layer = attention.Attention(4, head_width=4, **STREAMING[name])
  testing.assert_streaming_contract(layer, SPEC)


@pytest.mark.parametrize(
    'options',
    [{}, {'window': 3}, {'positions': rotary.HeadRope()}],
    ids=str,
)
def test_bidirectional_is_a_layer(options):
  layer = attention.Attention(2, mask_kind='bidirectional', **options)
  assert not layer.steppable
  testing.assert_layer_contract(layer, SPEC)


@pytest.mark.parametrize('chunks', [False, True])
def test_a_window_of_each_row_is_that_of_attention_with_it(chunks, monkeypatch):
  if chunks:
    monkeypatch.setattr(attention_ops, '_CHUNK', 2)
  layer = attention.Attention(2, mask_kind='bidirectional')
  rng = np.random.default_rng(0)
  x = rng.normal(size=(3, 9, WIDTH)).astype(np.float32)
  mask = np.arange(9) < np.array([9, 5, 7])[:, None]
  params = {'params': _params(layer, x)}
  windows = np.array([2, 4, 100])
  found, _ = layer.apply(params, x, mask, {'window': windows})
  for row, window in enumerate(windows):
    alone, _ = layer.clone(window=int(window)).apply(params, x, mask)
    np.testing.assert_allclose(
        found[row][mask[row]], alone[row][mask[row]], rtol=1e-4, atol=1e-6
    )
  with pytest.raises(ValueError, match='both'):
    attention.Attention(2).apply(params, x, mask, {'window': windows})


class Reference:
  """The whole form in numpy, query by query, in float64."""

  def __init__(self, layer, params):
    self.layer = layer
    self.params = jax.tree.map(lambda w: np.asarray(w, np.float64), params)

  def project(self, x, name, heads):
    y = x @ self.params[name]
    if self.layer.use_bias:
      y = y + self.params[f'{name}_bias']
    y = y.reshape(*x.shape[:2], heads, -1)
    if self.layer.qk_norm == 'rms' and name != 'value':
      y = y / np.sqrt(
          np.mean(y**2, axis=-1, keepdims=True) + self.layer.qk_epsilon
      )
      y = y * self.params[f'{name}_norm']
    return y

  def turn(self, y, position):
    """y [H, D] at a position, as complex numbers."""
    rope = self.layer.positions
    if rope is None:
      return y
    turned = int(y.shape[-1] * rope.fraction)
    half = turned // 2
    radians = rotary.frequencies(turned, rope.theta)
    z = y[:, :half] + 1j * y[:, half:turned]
    z = z * np.exp(1j * position * radians)
    return np.concatenate([z.real, z.imag, y[:, turned:]], axis=-1)

  def __call__(self, x, num_frames):
    layer = self.layer
    kv_heads = layer.kv_heads or layer.heads
    q = self.project(x, 'query', layer.heads)
    k = self.project(x, 'key', kv_heads)
    v = self.project(x, 'value', kv_heads)
    out = np.zeros(q.shape)
    for b, length in enumerate(num_frames):
      for n in range(length):
        for h in range(layer.heads):
          logits, values = [], []
          for s in range(length):
            seen, near = self.sees(n, s)
            if not seen:
              continue
            g = h // (layer.heads // kv_heads)
            query = self.turn(q[b, n], near)[h]
            key = self.turn(k[b, s], s)[g]
            scale = layer.softmax_scale or query.size**-0.5
            logits.append(query @ key * scale)
            values.append(v[b, s, g])
          if layer.sinks:
            logits.append(self.params['sinks'][h])
            values.append(0 * values[0])
          p = np.exp(np.array(logits) - np.max(logits))
          out[b, n, h] = (p / p.sum()) @ np.array(values)
    y = out.reshape(*x.shape[:2], -1) @ self.params['out']
    return y + self.params['out_bias'] if layer.out_bias else y

  def sees(self, n, s):
    """Whether n sees s, and from which position."""
    layer = self.layer
    end = n
    if layer.mask_kind == 'block_causal':
      end = (n // layer.block + 1) * layer.block - 1
    if layer.mask_kind != 'bidirectional' and s > end:
      return False, n
    if layer.window is None:
      return True, n
    if s < layer.sink_tokens:
      return True, min(n, layer.sink_tokens + layer.window - 1)
    return abs(n - s) < layer.window or (s > n and s <= end), n


@pytest.mark.parametrize(
    'options',
    [
        {'kv_heads': 2},
        {'kv_heads': 1, 'use_bias': True, 'out_bias': True},
        {'window': 3, 'sink_tokens': 2, 'sinks': True},
        {
            'qk_norm': 'rms',
            'qk_epsilon': 0.1,
            'softmax_scale': 0.7,
            'sinks': True,
        },
        {'positions': rotary.Rope(10.0, fraction=0.5), 'head_width': 4},
        {'positions': None, 'mask_kind': 'bidirectional', 'window': 2},
        {
            'mask_kind': 'block_causal',
            'block': 3,
            'window': 4,
            'sink_tokens': 1,
        },
    ],
    ids=str,
)
def test_the_whole_form_is_a_loop_over_queries(options):
  layer = attention.Attention(4, **options)
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 9, WIDTH)).astype(np.float32)
  num_frames = np.array([9, 5])
  mask = np.arange(9) < num_frames[:, None]
  params = _params(layer, x)
  got, _ = jax.jit(layer.apply, compiler_options=testing.quick_options())(
      {'params': params}, np.where(mask[..., None], x, np.nan), mask
  )
  want = Reference(layer, params)(x.astype(np.float64), num_frames)
  np.testing.assert_allclose(
      np.asarray(got)[mask], want[mask], rtol=1e-4, atol=1e-5
  )


def _params(layer, x):
  init = jax.jit(layer.init, compiler_options=testing.quick_options())
  params = init(jax.random.key(0), x, np.ones(x.shape[:2], bool))['params']
  rng = np.random.default_rng(1)
  return jax.tree.map(
      lambda w: w + 0.3 * rng.normal(size=w.shape).astype(np.float32),
      nn.meta.unbox(params),
  )


@pytest.mark.parametrize(('sink_tokens', 'chunk'), [(0, 1), (2, 3), (1, 12)])
def test_steps_past_the_cache_are_a_window_with_kept_positions(
    sink_tokens, chunk
):
  """24 positions in a ring of 5, by steps of several sizes."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 24, WIDTH)).astype(np.float32)
  mask = np.ones((2, 24), bool)
  plain = attention.Attention(2, 1, sinks=True)
  params = _params(plain, x)
  bounded = plain.clone(window=5, sink_tokens=sink_tokens)
  expected, _ = jax.jit(bounded.apply)({'params': params}, x, mask)
  state = plain.clone(cache_length=5, sink_tokens=sink_tokens).initial_state(
      2, SPEC
  )
  # The state alone says what is kept.
  step = jax.jit(
      lambda x, mask, state: plain.apply(
          {'params': params}, x, mask, state, None, method='process'
      )
  )
  for start in range(0, 24, chunk):
    now = slice(start, start + chunk)
    y, _, state = step(x[:, now], mask[:, now], state)
    np.testing.assert_allclose(y, expected[:, now], rtol=1e-4, atol=1e-5)
  if sink_tokens:
    # Kept positions are seen: without them the end is another.
    without, _ = jax.jit(plain.clone(window=5).apply)(
        {'params': params}, x, mask
    )
    assert np.abs(without[:, -1] - expected[:, -1]).max() > 1e-3


def test_long_rows_in_chunks_equal_those_at_once():
  """Chunks are of the window's size; a reference sees all keys at once."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(1, 40, WIDTH)).astype(np.float32)
  mask = np.arange(40)[None] < 37
  layer = attention.Attention(2, window=4, sink_tokens=3)
  params = _params(layer, x)
  got, _ = jax.jit(layer.apply)({'params': params}, x, mask)
  want = Reference(layer, params)(x.astype(np.float64), [37])
  np.testing.assert_allclose(got[:, :37], want[:, :37], rtol=1e-4, atol=1e-5)


def _attention(window):
  layer = attention.Attention(2, window=window)
  return layer, {'params': _params(layer, _random(1, 3, 8))}


def _random(*shape):
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_chunks_of_queries_are_dense_attention():
  layer, variables = _attention(window=4)
  x, mask = _random(2, 30, 8), np.arange(30) < np.array([[30], [19]])
  apply = jax.jit(layer.apply, compiler_options=testing.quick_options())
  y, _ = apply(variables, x, mask)
  for start in (0, 5, 22):
    # Rotary positions are relative: a window alone has the same last output.
    end = start + 4
    alone, _ = apply(variables, x[:1, start:end], mask[:1, start:end])
    np.testing.assert_allclose(y[0, end - 1], alone[0, -1], atol=1e-5)
  short, _ = apply(variables, x[1:, :8], mask[1:, :8])
  np.testing.assert_allclose(y[1, :8], short[0], atol=1e-5)


def test_memory_of_attention_is_linear_in_time():
  layer, variables = _attention(window=16)

  def bytes_for(length):
    x = jax.ShapeDtypeStruct((1, length, 8), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, length), bool)

    def loss(variables, x, mask):
      return jnp.sum(layer.apply(variables, x, mask)[0])

    compiled = jax.jit(
        jax.grad(loss), compiler_options=testing.quick_options()
    ).lower(variables, x, mask)
    return costs.memory(compiled.compile())['temporaries']

  # Ten times the length: a T x T mask alone would take 100 times the memory.
  assert bytes_for(16_000) < 12 * bytes_for(1_600)


def test_rows_that_pause_go_on_where_they_were():
  layer, variables = _attention(window=3)
  step = jax.jit(
      lambda *args: layer.apply(variables, *args, method='step'),
      compiler_options=testing.quick_options(),
  )
  x = _random(2, 8, 8)
  state = layer.initial_state(2, jax.ShapeDtypeStruct((8,), jnp.float32))
  outputs, at = ([], []), [0, 0]
  for turn in range(16):
    plays = np.array([turn % 2 == 0, turn < 8])
    now = np.stack([x[row, min(at[row], 7)] for row in range(2)])[:, None]
    y, _, state = step(now, plays[:, None], state)
    for row in np.flatnonzero(plays):
      outputs[row].append(y[row, 0])
      at[row] += 1
  expected, _ = jax.jit(layer.apply)(variables, x, np.ones((2, 8), bool))
  np.testing.assert_allclose(np.stack(outputs), expected, atol=1e-5)


def test_attention_without_bounds_has_no_steps():
  layer = attention.Attention(2)
  assert not layer.steppable and layer.min_step is None
  with pytest.raises(ValueError, match='has a window or a cache_length'):
    layer.initial_state(1, SPEC)
  with pytest.raises(ValueError, match='width 8, heads 3'):
    _params(attention.Attention(3), np.zeros((1, 2, WIDTH), np.float32))


_CROSS = attention.Cross(2, 1, qk_norm='rms')


def _cross(x, context, mask, params=None, layer=_CROSS):
  apply = jax.jit(layer.apply, compiler_options=testing.quick_options())
  if params is None:
    params = nn.meta.unbox(
        jax.jit(layer.init, compiler_options=testing.quick_options())(
            jax.random.key(0), x, context, mask
        )['params']
    )
  return apply({'params': params}, x, context, mask), params


def test_cross_attention_sees_what_the_mask_has_and_nothing_else():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 3, WIDTH)).astype(np.float32)
  context = rng.normal(size=(2, 5, 6)).astype(np.float32)
  mask = np.array([[True, False, True, True, False], [False] * 5])
  y, params = _cross(x, context, mask)
  poisoned = np.where(mask[..., None], context, np.nan)
  np.testing.assert_array_equal(_cross(x, poisoned, mask, params)[0], y)
  assert (np.asarray(y[1]) == 0).all()
  # Its order says nothing; each position that is seen matters.
  order = [3, 1, 0, 2, 4]
  np.testing.assert_allclose(
      _cross(x, context[:, order], mask[:, order], params)[0], y, atol=1e-6
  )
  for place in (0, 2, 3):
    moved = context.copy()
    moved[:, place] += 1
    changed = np.abs(_cross(x, moved, mask, params)[0] - y).max(axis=-1)
    assert (changed[0] > 1e-4).all()


def test_cross_attention_is_a_softmax_over_the_context():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(1, 2, WIDTH)).astype(np.float32)
  context = rng.normal(size=(1, 4, 6)).astype(np.float32)
  layer = attention.Cross(2)
  mask = np.ones((1, 4), bool)
  got, params = _cross(x, context, mask, layer=layer)
  q, k, v = (
      (a @ params[n]).reshape(1, -1, 2, 4)
      for a, n in ((x, 'query'), (context, 'key'), (context, 'value'))
  )
  p = jax.nn.softmax(jnp.einsum('bnhd,bshd->bhns', q, k) / 2, axis=-1)
  want = jnp.einsum('bhns,bshd->bnhd', p, v).reshape(1, 2, 8) @ params['out']
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
