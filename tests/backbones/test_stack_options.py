"""What each field of the stack means."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import norms
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.streaming import testing

D, N = 8, 6
SPEC = jax.ShapeDtypeStruct((D,), jnp.float32)
quick_jit = functools.partial(jax.jit, compiler_options=testing.quick_options())
MASK = np.ones((2, N), bool)


def make(**options):
  layer = {'mixers': (attention.Attention(2),), 'mlp': mlps.Dense(6)}
  return stack_lib.Stack(D, options.pop('layers', 1), **{**layer, **options})


def noise(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def init(stack, context=None, move=0.3):
  params = quick_jit(stack.init)(
      jax.random.key(0), noise(2, N, D), MASK, context
  )['params']
  rng = np.random.default_rng(1)
  return jax.tree.map(
      lambda w: w + move * rng.normal(size=w.shape).astype(np.float32),
      nn.meta.unbox(params),
  )


def apply(stack, params, x, context=None, mask=MASK):
  return np.asarray(
      quick_jit(stack.apply)({'params': params}, x, mask, context)[0]
  )


def test_norms_are_torchs_formulae():
  x = noise(2, 3, D)
  scale, bias = noise(D, seed=1), noise(D, seed=2)
  got = norms.Norm('layer', 0.1, True).apply(
      {'params': {'scale': scale, 'bias': bias}}, x
  )
  centred = x - x.mean(axis=-1, keepdims=True)
  variance = x.var(axis=-1, keepdims=True)
  want = centred / np.sqrt(variance + 0.1) * scale + bias
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
  got = norms.Norm('rms', 0.1).apply({'params': {'scale': scale}}, x)
  want = x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 0.1) * scale
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('position', ['pre', 'post'])
@pytest.mark.parametrize('final_norm', [True, False])
def test_a_layer_is_two_residual_branches(position, final_norm):
  stack = make(
      scan=False, norm='layer', norm_position=position, final_norm=final_norm
  )
  params = init(stack)
  x = noise(2, N, D)
  layer = params['layer_0']

  @quick_jit
  def expected(x):
    def norm(name, y):
      return norms.Norm('layer').apply({'params': layer[f'{name}_norm']}, y)

    def mix(y):
      return attention.Attention(2).apply({'params': layer['mixer']}, y, MASK)[
          0
      ]

    def mlp(y):
      return mlps.Dense(6).apply({'params': layer['mlp']}, y, MASK)[0]

    for name, branch in (('mixer', mix), ('mlp', mlp)):
      if position == 'pre':
        x = x + branch(norm(name, x))
      else:
        x = norm(name, x + branch(x))
    if final_norm:
      x = norms.Norm('layer').apply({'params': params['norm']}, x)
    return x

  np.testing.assert_allclose(
      apply(stack, params, x), expected(x), rtol=1e-4, atol=1e-4
  )


def test_learned_positions_are_rows_that_are_added():
  stack = make(positions='learned', max_positions=N)
  params = init(stack)
  plain = {k: v for k, v in params.items() if k != 'position'}
  x = noise(2, N, D)
  np.testing.assert_allclose(
      apply(stack, params, x),
      apply(make(), plain, x + params['position']),
      rtol=1e-5,
      atol=1e-6,
  )
  with pytest.raises(ValueError, match='max_positions = 5'):
    apply(stack.clone(max_positions=5), params, x)


def test_sinusoidal_positions_are_musicgens():
  params = init(make())
  x = noise(2, N, D)
  # Cosines, then sines; frequencies from 1 to 1e-4.
  angles = np.arange(N)[:, None] * 10_000.0 ** (-np.arange(4) / 3)
  waves = np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)
  np.testing.assert_allclose(
      apply(make(positions='sinusoidal'), params, x),
      apply(make(), params, x + waves.astype(np.float32)),
      rtol=1e-4,
      atol=1e-5,
  )


@pytest.mark.parametrize(
    ('options', 'context', 'message'),
    [
        ({'adaptive': 'film'}, None, r"'adaptive' takes context\['film'\]"),
        ({'adaptive': 'adaln_zero'}, {'cross': 0}, r"context\['film'\]"),
        (
            {'cross': attention.Cross(2)},
            None,
            r"'cross' takes context\['cross'\]",
        ),
        ({'cross': attention.Cross(2)}, {'film': 0}, r"context\['cross'\]"),
    ],
)
def test_a_context_that_lacks_what_acts_is_refused(options, context, message):
  """Otherwise the option would do nothing."""
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(
        lambda x: make(**options).init(jax.random.key(0), x, MASK, context),
        noise(2, N, D),
    )


@pytest.mark.parametrize('adaptive', ['film', 'adaln_zero'])
def test_a_condition_acts_on_every_position_and_not_at_the_start(adaptive):
  stack = make(adaptive=adaptive, layers=2, final_norm=False)
  x = noise(2, N, D)
  one, two = ({'film': noise(2, 3, seed=s)} for s in (1, 2))
  fresh = init(stack, one, move=0)
  plain = jax.tree_util.tree_map_with_path(lambda _, w: w, fresh)
  block = plain['layers']['block_0']
  plain = {
      'layers': {
          'block_0': {k: w for k, w in block.items() if 'modul' not in k}
      }
  }
  start = apply(stack, fresh, x, one)
  if adaptive == 'film':
    unconditional = make(layers=2, final_norm=False)
    np.testing.assert_allclose(start, apply(unconditional, plain, x), rtol=1e-6)
  else:
    np.testing.assert_array_equal(start, x)
  moved = init(stack, one)
  a, b = (apply(stack, moved, x, c) for c in (one, two))
  assert (np.abs(a - b).max(axis=-1) > 1e-3).all()
  # Rows have conditions of their own.
  mixed = {'film': np.stack([one['film'][0], two['film'][1]])}
  c = apply(stack, moved, x, mixed)
  np.testing.assert_allclose(c[0], a[0], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(c[1], b[1], rtol=1e-5, atol=1e-6)


def test_a_modulated_layer_is_its_formula():
  stack = make(adaptive='adaln_zero', mlp=None, scan=False, final_norm=False)
  x, film = noise(2, N, D), noise(2, 3, seed=1)
  params = init(stack, {'film': film})
  layer = params['layer_0']
  m = film @ layer['mixer_modulation'] + layer['mixer_modulation_bias']
  scale, shift, gate = np.split(np.asarray(m)[:, None], 3, axis=-1)
  y = x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-5)
  y = y * layer['mixer_norm']['scale'] * (1 + scale) + shift
  mixer = quick_jit(attention.Attention(2).apply)
  y = mixer({'params': layer['mixer']}, y, MASK)[0]
  np.testing.assert_allclose(
      apply(stack, params, x, {'film': film}),
      x + gate * y,
      rtol=1e-4,
      atol=1e-4,
  )


MODULATIONS = {
    'film': {'adaptive': 'film', 'scan': False},
    'scanned': {'adaptive': 'adaln_zero', 'remat': 'full'},
    'shared': {'adaptive': 'adaln_zero', 'film_silu': True},
}
MODULATIONS['shared']['shared_modulation'] = True


@pytest.mark.parametrize('name', MODULATIONS)
def test_film_by_position(name):
  near = attention.Attention(2, window=1)
  stack = make(layers=2, mixers=(near,), **MODULATIONS[name])
  x, film = noise(2, N, D), noise(2, 3, seed=1)
  params = init(stack, {'film': film})
  every = np.repeat(film[:, None], N, axis=1)
  want = apply(stack, params, x, {'film': film})
  np.testing.assert_array_equal(apply(stack, params, x, {'film': every}), want)
  one = apply(stack, params, x, {'film': film[:, None]})
  np.testing.assert_array_equal(one, want)
  # Positions do not see each other here: one of them changes alone.
  other = every.copy()
  other[1, 2] = noise(3, seed=2)
  changed = apply(stack, params, x, {'film': other}) != want
  assert changed[1, 2].any()
  changed[1, 2] = False
  assert not changed.any()
  with pytest.raises(ValueError, match='N = 6 positions'):
    apply(stack, params, x, {'film': every[:, :2]})


@pytest.mark.parametrize('name', MODULATIONS)
def test_steps_take_the_film_of_their_positions(name):
  near = attention.Attention(2, window=3)
  stack = make(layers=2, mixers=(near,), **MODULATIONS[name])
  x, film = noise(2, N, D), noise(2, N, 3, seed=1)
  params = init(stack, {'film': film})
  want = apply(stack, params, x, {'film': film})
  state, outputs = stack.initial_state(2, SPEC), []
  for start in range(0, N, 2):
    now = slice(start, start + 2)
    y, _, state = quick_jit(stack.apply, static_argnames='method')(
        {'params': params},
        x[:, now],
        MASK[:, now],
        state,
        {'film': film[:, now]},
        method='step',
    )
    outputs.append(y)
  np.testing.assert_allclose(
      np.concatenate(outputs, axis=1), want, rtol=1e-5, atol=1e-5
  )


def test_layers_share_a_modulation_but_for_their_offsets():
  options = {'adaptive': 'adaln_zero', 'layers': 2, 'scan': False}
  options['cross'] = attention.Cross(2)
  x, film = noise(2, N, D), noise(2, N, 3, seed=1)
  context = {'cross': noise(2, 3, 5), 'cross_mask': np.ones((2, 3), bool)}
  shared = make(film_silu=True, shared_modulation=True, **options)
  params = init(shared, {**context, 'film': film})
  apart = {k: w for k, w in params.items() if 'modulation' not in k}
  for i in range(2):
    layer = dict(apart[f'layer_{i}'])
    for name in ('mixer', 'cross', 'mlp'):
      layer[f'{name}_modulation'] = params[f'{name}_modulation']
      layer[f'{name}_modulation_bias'] += params[f'{name}_modulation_bias']
    apart[f'layer_{i}'] = layer
  gated = {**context, 'film': film / (1 + np.exp(-film))}
  np.testing.assert_allclose(
      apply(shared, params, x, {**context, 'film': film}),
      apply(make(**options), apart, x, gated),
      rtol=1e-4,
      atol=1e-4,
  )


@pytest.mark.parametrize('name', ['film_silu', 'shared_modulation'])
def test_options_of_a_modulation_without_one_are_refused(name):
  with pytest.raises(ValueError, match='shared_modulation'):
    make(**{name: True}).init(jax.random.key(0), noise(2, N, D), MASK)


def test_keys_of_a_context_are_computed_once():
  """The same outputs, whatever else then stands in the context."""
  stack = make(cross=attention.Cross(4, 2, qk_norm='rms'), layers=2)
  x = noise(2, N, D)
  seen = np.array([[True, True, False], [False, True, False]])
  context = {'cross': noise(2, 3, 5, seed=1), 'cross_mask': seen}
  flat, params = stack.unroll(init(stack, context))
  # The norms of keys start alike.
  params = jax.tree.map(lambda w: w + 0.1 * noise(*w.shape, seed=2), params)
  known = flat.with_keys(params, context)
  assert [k.shape for k, _ in known['cross_keys']] == [(2, 2, 3, D // 4)] * 2
  want = apply(flat, params, x, context)
  np.testing.assert_allclose(
      apply(flat, params, x, {**known, 'cross': 0 * context['cross']}),
      want,
      rtol=1e-5,
      atol=1e-6,
  )
  other = {**known, 'cross_keys': known['cross_keys'][::-1]}
  assert np.abs(apply(flat, params, x, other) - want).max() > 1e-3
  # Where nothing can be known before: the context itself.
  assert stack.with_keys(None, context) is context
  assert make(scan=False).with_keys(None, context) is context


def test_a_context_is_attended_to_from_every_position():
  stack = make(cross=attention.Cross(2))
  x = noise(2, N, D)
  seen = np.array([[True, True, False], [False, False, False]])
  one, two = (
      {'cross': noise(2, 3, 5, seed=s), 'cross_mask': seen} for s in (1, 2)
  )
  params = init(stack, one)
  a, b = (apply(stack, params, x, c) for c in (one, two))
  assert (np.abs(a - b)[0].max(axis=-1) > 1e-3).all()
  # Without any context a row is as in a stack without one.
  plain = {
      'norm': params['norm'],
      'layers': {
          'block_0': {
              k: w
              for k, w in params['layers']['block_0'].items()
              if 'cross' not in k
          }
      },
  }
  np.testing.assert_allclose(
      a[1], apply(make(), plain, x)[1], rtol=1e-5, atol=1e-6
  )


def test_bfloat16_is_for_activations_only():
  stack = make(layers=2)
  params = init(stack, move=0)
  x = noise(2, N, D)
  half = stack.clone(dtype='bfloat16')
  y = quick_jit(half.apply)({'params': params}, x, MASK)[0]
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(
      np.asarray(y, np.float32), apply(stack, params, x), rtol=0.1, atol=0.1
  )
  state = half.with_cache_length(4).initial_state(2, SPEC)
  assert state['layers'][1]['keys'].dtype == jnp.bfloat16


def test_a_bidirectional_stack_is_a_layer():
  near = attention.Attention(2, mask_kind='bidirectional', window=2)
  stack = make(mixers=(near,), layers=2)
  assert not stack.steppable
  assert stack.reach(5, 6) == (3, 8)
  testing.assert_layer_contract(stack, SPEC)
  assert make().reach(5, 6) is None and make().receptive_field is None


def test_what_does_not_fit_is_refused():
  two = (attention.Attention(2), attention.Attention(2, window=2))
  with pytest.raises(ValueError, match='3 layers of width 8 .* period of 2'):
    init(make(mixers=two, layers=3))
  with pytest.raises(ValueError, match='inputs of width 4'):
    make().init(jax.random.key(0), noise(2, N, 4), MASK)
