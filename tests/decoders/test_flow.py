"""A decoder that denoises: what moves what, padded, given, conditioned."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.data import factors
from audiolm_jax.data import moments as moments_lib
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import time_embedding
from audiolm_jax.processes import gaussian
from tests.decoders import small

B, F, D = 3, 5, 2
LENGTHS = np.array([F, 3, 4], np.int32)
TIMES = np.array([0.9, 0.4, 0.1], np.float32)
EXISTS = np.arange(F) < LENGTHS[:, None]
HOW = ('prefix', 'add', 'film', 'cross')


def _values(seed):
  values = np.random.default_rng(seed).normal(size=(B, F, D))
  return values.astype(np.float32)


Z, GIVEN = _values(0), _values(1)
HIDDEN = np.array([[1, 1, 0, 0, 1], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]], bool)


def _stack(**options):
  mixer = {'mask_kind': 'bidirectional', **options.pop('mixer', {})}
  options = {'adaptive': 'adaln_zero', 'film_silu': True, **options}
  return small.stack(mixer=mixer, **options)


def _make(how=(), stack=None, **options):
  modules = {
      way: conditioners.Class(how=way, source=factors.Name(('a', 'b')))
      for way in how
  }
  cross = attention.Cross(heads=2) if 'cross' in how else None
  return decoders.Flow(
      D,
      backbone=_stack(cross=cross, **(stack or {})),
      time=time_embedding.TimeEmbedding(frequencies=4, scale=10.0),
      conditions=modules,
      **options,
  )


def _prepared(decoder, rows):
  return {
      name: module.source.prepare(rows)
      for name, module in decoder.conditions.items()
  }


def _predictor(decoder, seed=0):
  """The compiled decoder with random parameters: (z, ...) -> prediction."""
  conditions = _prepared(decoder, [None] * B)
  inputs = Z, TIMES, LENGTHS, None, None, None, conditions
  params = small.parameters(decoder, *inputs, seed=seed, method='predict')

  @small.quick_jit
  def run(z, t, lengths, given=None, hidden=None, conditions=conditions):
    return decoder.apply(
        {'params': params},
        z,
        t,
        lengths,
        given,
        hidden,
        conditions=conditions,
        method='predict',
    )

  return run


@pytest.fixture(scope='module', name='predict')
def _predict():
  return _predictor(_make())


def test_it_predicts_nothing_at_the_start():
  decoder = _make()
  variables = decoder.init(
      jax.random.key(0), Z, TIMES, LENGTHS, method='predict'
  )
  found = decoder.apply(variables, Z, TIMES, LENGTHS, method='predict')
  np.testing.assert_array_equal(found, np.zeros_like(Z))


def test_rows_alone_padded_and_with_nan_past_their_ends(predict):
  whole = np.asarray(predict(Z, TIMES, LENGTHS, GIVEN, HIDDEN))
  assert whole.dtype == np.float32
  np.testing.assert_array_equal(whole[~EXISTS], 0)
  assert (whole[EXISTS] != 0).all()
  z = np.where(EXISTS[..., None], Z, np.nan)
  given = np.where(EXISTS[..., None], GIVEN, np.nan)
  np.testing.assert_array_equal(
      predict(z, TIMES, LENGTHS, given, HIDDEN), whole
  )
  for row, length in enumerate(LENGTHS):
    part = (slice(row, row + 1), slice(length))
    alone = _predictor(_make())(
        *(Z[part], TIMES[row : row + 1], LENGTHS[row : row + 1]),
        *(GIVEN[part], HIDDEN[part]),
        conditions={},
    )
    np.testing.assert_allclose(alone[0], whole[part][0], rtol=1e-4, atol=1e-5)


def test_gradients_pass_nothing_that_is_past_the_end(predict):
  z = np.where(EXISTS[..., None], Z, np.nan)
  inner = predict.__wrapped__
  gradient = small.quick_jit(
      jax.grad(lambda z: inner(z, TIMES, LENGTHS).sum())
  )(z)
  assert np.isfinite(gradient).all()
  np.testing.assert_array_equal(np.asarray(gradient)[~EXISTS], 0)


def test_every_frame_sees_every_other_of_its_row(predict):
  plain = np.asarray(predict(Z, TIMES, LENGTHS))
  for frame in (0, 2):
    z = Z.copy()
    z[0, frame] += 1
    moved = np.abs(predict(z, TIMES, LENGTHS) - plain)
    assert (moved[0] > 1e-6).all()
    np.testing.assert_array_equal(moved[1:], 0)


def test_time_moves_its_row_alone(predict):
  plain = np.asarray(predict(Z, TIMES, LENGTHS))
  t = TIMES.copy()
  t[1] += 0.2
  moved = np.abs(predict(Z, t, LENGTHS) - plain)
  assert (moved[1][EXISTS[1]] > 1e-6).all()
  np.testing.assert_array_equal(np.delete(moved, 1, 0), 0)


def test_given_latents_count_where_they_are_not_hidden(predict):
  plain = np.asarray(predict(Z, TIMES, LENGTHS, GIVEN, HIDDEN))
  other = np.where(HIDDEN[..., None], np.nan, GIVEN)
  np.testing.assert_array_equal(
      predict(Z, TIMES, LENGTHS, other, HIDDEN), plain
  )
  given = GIVEN.copy()
  given[0, 2] += 1
  moved = np.abs(predict(Z, TIMES, LENGTHS, given, HIDDEN) - plain)
  assert (moved[0] > 1e-6).all()
  np.testing.assert_array_equal(moved[1:], 0)
  nothing = predict(Z, TIMES, LENGTHS)
  hidden = np.ones_like(HIDDEN)
  np.testing.assert_array_equal(
      predict(Z, TIMES, LENGTHS, GIVEN, hidden), nothing
  )
  zeros = predict(Z, TIMES, LENGTHS, 0 * GIVEN, HIDDEN)
  assert np.abs(zeros - nothing)[0].min() > 1e-6


@pytest.mark.parametrize('how', HOW)
def test_a_condition_moves_its_row_alone(how):
  decoder = _make((how,))
  predict = _predictor(decoder)
  plain = np.asarray(
      predict(Z, TIMES, LENGTHS, conditions=_prepared(decoder, ['a'] * B))
  )
  other = _prepared(decoder, ['a', 'b', 'a'])
  moved = np.abs(predict(Z, TIMES, LENGTHS, conditions=other) - plain)
  assert (moved[1][EXISTS[1]] > 1e-6).all()
  np.testing.assert_allclose(np.delete(moved, 1, 0), 0, atol=1e-6)
  # Beside what comes before the frames, a row alone is itself.
  part = (slice(1, 2), slice(3))
  alone = predict(
      *(Z[part], TIMES[1:2], LENGTHS[1:2]),
      conditions=_prepared(decoder, ['a']),
  )
  np.testing.assert_allclose(alone[0], plain[part][0], rtol=1e-4, atol=1e-5)


# As in stable-audio, and beside its film.
_PLAIN = {'adaptive': 'none', 'film_silu': False}


@pytest.mark.parametrize('stack', [_PLAIN, {}], ids=['alone', 'beside film'])
@pytest.mark.parametrize('how', [('token',), ('token', 'prefix', 'cross')])
def test_a_time_may_be_a_position(stack, how):
  decoder = _make(how, stack=stack, time_token=True)
  predict = _predictor(decoder)
  rows = {name: ['a'] * B for name in how}

  def run(t, z=Z, lengths=LENGTHS, **other):
    rows_of = {n: v[: len(z)] for n, v in {**rows, **other}.items()}
    return np.asarray(
        predict(z, t, lengths, conditions=decoder.prepare(rows_of, len(z)))
    )

  plain = run(TIMES)
  np.testing.assert_array_equal(plain[~EXISTS], 0)
  t = TIMES.copy()
  t[1] += 0.2
  moved = np.abs(run(t) - plain)
  assert (moved[1][EXISTS[1]] > 1e-6).all()
  np.testing.assert_allclose(np.delete(moved, 1, 0), 0, atol=1e-6)
  for name in how:
    moved = np.abs(run(TIMES, **{name: ['b', 'a', 'a']}) - plain)
    assert moved[0].max() > 1e-3, name
    np.testing.assert_allclose(moved[1:], 0, atol=1e-6)
  alone = run(TIMES[1:2], Z[1:2, :3], LENGTHS[1:2])
  np.testing.assert_allclose(alone[0], plain[1, :3], rtol=1e-4, atol=1e-5)


def test_the_position_of_the_time_is_the_first_and_their_sum():
  """What a mixer would see: a stack that only norms shows its inputs."""
  decoder = _make(('token', 'prefix'), stack=_PLAIN, time_token=True)
  conditions = _prepared(decoder, ['a', 'b', None])
  inputs = Z, TIMES, LENGTHS, None, None, None, conditions
  params = small.parameters(decoder, *inputs, method='predict')
  bound = decoder.bind({'params': params})
  context = bound.context(conditions, B)
  assert context['token'].shape == (B, 8)
  time = bound.time(jnp.asarray(TIMES), 8)
  found = bound._timed(context, time)
  np.testing.assert_array_equal(found['prefix_lengths'], [2, 2, 2])
  np.testing.assert_allclose(
      found['prefix'][:, 0], time + context['token'], rtol=1e-6
  )
  np.testing.assert_array_equal(found['prefix'][:, 1:2], context['prefix'])
  assert 'film' not in found


def test_ends_are_mixed_and_without_biases():
  decoder = _make(mixed_ends=True, use_bias=False)
  plain = _make(use_bias=False)
  variables = nn.meta.unbox(
      decoder.init(jax.random.key(0), Z, TIMES, LENGTHS, method='predict')
  )
  params = dict(variables['params'])
  assert not {'noisy_bias', 'denoised_bias'} & set(params)
  before, after = params.pop('noisy_mix'), params.pop('denoised_mix')
  assert before.shape == (2 * D + 1,) * 2 and after.shape == (D, D)
  assert not before.any() and not after.any()
  rng = np.random.default_rng(0)
  before, after, out = (
      rng.normal(size=x.shape).astype(np.float32)
      for x in (before, after, params['denoised'])
  )
  params['denoised'] = out

  def run(decoder, params):
    rows = Z, TIMES, LENGTHS, GIVEN, HIDDEN
    return decoder.apply({'params': params}, *rows, method='predict')

  mixed = {**params, 'noisy_mix': before, 'denoised_mix': after}
  # (x + x B) N = x (N + B N).
  merged = {
      **params,
      'noisy': params['noisy'] + before @ params['noisy'],
      'denoised': out + out @ after,
  }
  np.testing.assert_allclose(
      run(decoder, mixed), run(plain, merged), rtol=1e-4, atol=1e-5
  )


def test_a_context_is_what_conditions_become():
  decoder = _make(HOW)
  conditions = _prepared(decoder, ['a', 'b', None])
  params = small.parameters(
      decoder,
      *(Z, TIMES, LENGTHS, None, None, None, conditions),
      method='predict',
  )
  apply = functools.partial(decoder.apply, {'params': params})
  context = apply(conditions, B, method='context')
  predict = functools.partial(apply, Z, TIMES, LENGTHS, method='predict')
  np.testing.assert_allclose(
      predict(context=context), predict(conditions=conditions), atol=1e-6
  )
  # A time comes before what conditions scale by.
  assert context['film'].shape == (B, 8)


def test_what_is_given_must_be_said_in_full():
  predict = _predictor(_make())
  with pytest.raises(ValueError, match='where they are hidden'):
    predict(Z, TIMES, LENGTHS, GIVEN)
  plain = _make(gaps=None)
  predict = _predictor(plain)
  assert np.isfinite(predict(Z, TIMES, LENGTHS)).all()
  with pytest.raises(ValueError, match='no gaps'):
    predict(Z, TIMES, LENGTHS, GIVEN, HIDDEN)


@pytest.mark.parametrize(
    'options, message',
    [
        ({'backbone': stack_lib.Stack()}, "adaptive = 'none'"),
        (
            {'conditions': {'x': conditioners.Text(how='token')}},
            "x acts by 'token'.*time_token",
        ),
        (
            {'backbone': stack_lib.Stack(mlp=mlps.Moe(), adaptive='film')},
            'experts',
        ),
        (
            {'conditions': {'x': conditioners.Text(how='cross')}},
            "lacks 'cross'",
        ),
        (
            {'moments': moments_lib.Moments((0.0,), (1.0,))},
            'of 1 dimensions.*dimension = 2',
        ),
    ],
)
def test_what_would_do_nothing_is_refused(options, message):
  with pytest.raises(config.ConfigError, match=message):
    decoders.Flow(D, **options)


def test_the_default_backbone_looks_both_ways_and_is_configured():
  decoder = config.build(decoders.Flow, decoders.Flow(D))
  (mixer,) = decoder.backbone.mixers
  assert mixer.mask_kind == 'bidirectional'
  values = config.to_config(decoder)
  assert config.build(decoders.Flow, values) == decoder
  moments = moments_lib.Moments((0.1, 1e9), (1 / 3, 2.0))
  decoder = decoder.clone(moments=moments)
  again = config.build(decoders.Flow, config.to_config(decoder))
  assert again == decoder and hash(again) == hash(decoder)


def test_batches_are_read_as_their_example_is():
  decoder = _make(('add',))
  example = decoder.example_batch(B, F)
  shapes = {k: v.shape for k, v in example.items()}
  assert shapes['latents'] == (B, F, D) and shapes['num_frames'] == (B,)
  latents, num_frames, conditions = decoder.read(example)
  assert latents is example['latents']
  assert num_frames is example['num_frames']
  assert conditions['add']['values'].shape == (B, 1)


def test_times_become_waves_of_their_frequencies():
  module = time_embedding.TimeEmbedding(frequencies=3, scale=8.0, span=64.0)
  t = np.array([0.0, 0.3, 1.0], np.float32)
  params = nn.meta.unbox(
      module.init(jax.random.key(0), jnp.asarray(t), 7)['params']
  )
  assert params['inner'].shape == (6, 7) and params['outer'].shape == (7, 7)
  angles = t[:, None] * np.array([8, 2, 0.5])
  waves = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
  inner = waves @ params['inner'] + params['inner_bias']
  expected = nn.silu(inner) @ params['outer'] + params['outer_bias']
  found = module.apply({'params': params}, jnp.asarray(t), 7)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_times_become_waves_of_learned_frequencies():
  module = time_embedding.TimeEmbedding(
      frequencies=400, spacing='gaussian', turns=3.0
  )
  t = np.array([0.0, 0.3, 1.0], np.float32)
  params = nn.meta.unbox(
      module.init(jax.random.key(0), jnp.asarray(t), 7)['params']
  )
  turns = params['turns']
  assert turns.shape == (400,) and 2.5 < np.std(turns) < 3.5
  angles = 2 * np.pi * t[:, None] * turns
  waves = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
  inner = waves @ params['inner'] + params['inner_bias']
  expected = nn.silu(inner) @ params['outer'] + params['outer_bias']
  found = module.apply({'params': params}, jnp.asarray(t), 7)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


_JUMP = time_embedding.TimeEmbedding(frequencies=3, scale=2.0)
ENDS = np.array([0.2, 0.4, 0.0], np.float32)


def _of_jumps(seed=0, fresh=False):
  """(decoder, parameters); with `fresh` the second time's are as at the start."""
  decoder = _make(jump=_JUMP)
  inputs = Z, TIMES, LENGTHS
  params = small.parameters(decoder, *inputs, seed=seed, method='predict')
  if fresh:
    init = functools.partial(decoder.init, method='predict')
    boxed = small.quick_jit(init)(jax.random.key(seed), *inputs)
    params = {**params, 'jump': nn.meta.unbox(boxed)['params']['jump']}
  return decoder, params


def _ask(decoder, params, *inputs, **options):
  @small.quick_jit
  def run(params, inputs, options):
    return decoder.apply(
        {'params': params}, *inputs, **options, method='predict'
    )

  return np.asarray(run(params, inputs, options))


def test_a_second_time_is_nothing_at_the_start_to_the_bit():
  decoder, params = _of_jumps(fresh=True)
  base = {name: value for name, value in params.items() if name != 'jump'}
  inputs = Z, TIMES, LENGTHS, GIVEN, HIDDEN
  plain = _ask(_make(), base, *inputs)
  assert (plain[EXISTS] != 0).all()
  for s in (ENDS, TIMES, None):
    found = _ask(decoder, params, *inputs, s=s)
    np.testing.assert_array_equal(found, plain)
  # Its first matrix learns from the first step on.
  assert np.abs(params['jump']['inner']).min() > 0


def test_without_a_second_time_parameters_are_as_before():
  shapes = jax.eval_shape(
      lambda: _make().init(
          jax.random.key(0), Z, TIMES, LENGTHS, method='predict'
      )
  )
  assert 'jump' not in shapes['params']
  with pytest.raises(ValueError, match='takes one time'):
    _ask(_make(), _of_jumps()[1], Z, TIMES, LENGTHS, s=ENDS)


def test_where_a_jump_goes_moves_its_row_alone():
  decoder, params = _of_jumps()
  plain = _ask(decoder, params, Z, TIMES, LENGTHS, s=ENDS)
  assert (plain[EXISTS] != 0).all()
  other = ENDS.copy()
  other[0] += 0.3
  moved = np.abs(_ask(decoder, params, Z, TIMES, LENGTHS, s=other) - plain)
  assert (moved[0] > 1e-6).all()
  np.testing.assert_array_equal(moved[1:], 0)
  # The second row's stays where it is: that is what no second time is.
  still = _ask(decoder, params, Z, TIMES, LENGTHS)
  np.testing.assert_array_equal(still[1], plain[1])
  assert np.abs(still - plain)[0].min() > 1e-6


def test_both_times_act_and_the_second_by_the_difference():
  """Its vector is that of t - s, beside that of t."""
  decoder, params = _of_jumps()
  found = _ask(decoder, params, Z, TIMES, LENGTHS, s=ENDS)
  jump = _JUMP.apply({'params': params['jump']}, TIMES - ENDS, 8)
  base = {**params, 'time': {**params['time']}}
  for row in range(B):
    # The same, as a bias of the vector of t.
    base['time']['outer_bias'] = params['time']['outer_bias'] + jump[row]
    part = {name: value for name, value in base.items() if name != 'jump'}
    alone = _ask(_make(), part, Z, TIMES, LENGTHS)
    np.testing.assert_allclose(found[row], alone[row], rtol=1e-4, atol=1e-5)


def test_derivatives_by_all_that_moves_along_a_path():
  """Forward mode, as the losses of maps take it, by finite differences."""
  decoder, params = _of_jumps()
  with jax.enable_x64(True):
    params = jax.tree.map(lambda x: x.astype(np.float64), params)
    point = tuple(x.astype(np.float64) for x in (Z, TIMES, ENDS))
    along = GIVEN.astype(np.float64), np.ones(B), 0.5 * np.ones(B)

    @small.quick_jit
    def run(z, t, s):
      return decoder.apply(
          {'params': params}, z, t, LENGTHS, s=s, method='predict'
      )

    move = functools.partial(jax.jvp, run.__wrapped__)
    _, found = small.quick_jit(move)(point, along)
    h = 1e-3
    ends = [
        run(*(x + way * h * d for x, d in zip(point, along, strict=True)))
        for way in (1, -1)
    ]
  expected = (ends[0] - ends[1]) / (2 * h)
  np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02)
  assert np.abs(found[EXISTS]).max() > 0.3


def test_jumps_are_of_rectified_flows_velocity():
  for options in ({'target': 'v'}, {'process': gaussian.Cosine()}):
    with pytest.raises(config.ConfigError, match='jumps are of the velocity'):
      _make(jump=_JUMP, **options)
  decoder = config.build(decoders.Flow, _make(jump=_JUMP))
  assert decoder.jump == _JUMP
  assert config.build(decoders.Flow, config.to_config(decoder)) == decoder
