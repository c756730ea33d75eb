"""Latents that are generated: given ones, rows by themselves, what it costs."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.models import kinds
from audiolm_jax.models import flow_lm
from audiolm_jax.processes import guidance as guidance_lib
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import solvers
from audiolm_jax.processes import times as times_lib
from audiolm_jax.processes import validation
from audiolm_jax.training import costs
from tests.models import small_flows
from tests.processes import known

F, D, LENGTHS = small_flows.F, small_flows.D, small_flows.LENGTHS
MOMENTS, GRID = small_flows.MOMENTS, small_flows.GRID


@pytest.fixture(scope='module', name='model')
def _unconditional():
  return small_flows.model(moments=MOMENTS)


@pytest.fixture(scope='module', name='voiced')
def _voiced():
  return small_flows.model(conditioned=True)


def test_what_is_given_comes_back_to_the_bit(model):
  given, mask = small_flows.given()
  holes = np.where(mask[..., None], given, np.nan)
  found = model.generate(F, LENGTHS, grid=GRID, given=holes, given_mask=mask)
  exists = np.arange(F) < LENGTHS[:, None]
  assert found.dtype == np.float32 and np.isfinite(found).all()
  np.testing.assert_array_equal(found[mask & exists], given[mask & exists])
  np.testing.assert_array_equal(found[~exists], 0)
  free = ~mask & exists
  plain = model.generate(F, LENGTHS, grid=GRID)
  # It moves what it is filled in with, and is not what was there before.
  assert (found[free] != given[free]).all() and (
      found[free] != plain[free]
  ).all()
  # Of other values other ones; of those past a row's end, nothing.
  again = np.where(exists[..., None], holes, 9.0)
  full = mask | ~exists
  np.testing.assert_array_equal(
      model.generate(F, LENGTHS, grid=GRID, given=again, given_mask=full), found
  )


def test_an_empty_and_a_full_mask(model):
  given, mask = small_flows.given()
  plain = model.generate(F, LENGTHS, grid=GRID)
  empty = model.generate(
      F, LENGTHS, grid=GRID, given=given, given_mask=np.zeros_like(mask)
  )
  np.testing.assert_array_equal(empty, plain)
  full = model.generate(
      F, LENGTHS, grid=GRID, given=given, given_mask=np.ones_like(mask)
  )
  exists = np.arange(F) < LENGTHS[:, None]
  np.testing.assert_array_equal(full, np.where(exists[..., None], given, 0))


def test_latents_are_as_the_tokenizer_gives_them(model):
  """A model with moments is one without, before and after."""
  given, mask = small_flows.given()
  decoder = model.decoder.clone(moments=None)
  plain = dataclasses.replace(model, decoder=decoder)
  with_it = model.generate(F, LENGTHS, grid=GRID, given=given, given_mask=mask)
  without = plain.generate(
      *(F, LENGTHS),
      grid=GRID,
      given=MOMENTS.normalised(given),
      given_mask=mask,
  )
  exists = np.arange(F) < LENGTHS[:, None]
  np.testing.assert_allclose(
      with_it[exists],
      MOMENTS.restored(without)[exists],
      rtol=1e-5,
      atol=1e-5,
  )


@pytest.mark.parametrize('solver', [solvers.Heun(), solvers.Sde()])
def test_rows_are_themselves_alone_and_padded(model, solver):
  options = {'grid': GRID, 'solver': solver}
  both = model.generate(F, LENGTHS, **options)
  padded = model.generate(F + 3, LENGTHS, **options)
  np.testing.assert_allclose(padded[:, :F], both, rtol=1e-4, atol=1e-4)
  np.testing.assert_array_equal(padded[:, F:], 0)
  # The number of a row is what its noise goes by.
  alone = model.generate(4, LENGTHS[:1] - 2, **options)
  more = model.generate(F, np.array([4, 1, 6]), **options)
  np.testing.assert_allclose(more[:1, :4], alone, rtol=1e-4, atol=1e-4)
  assert (both[0, :4] != both[1, :4]).all()


def test_seeds(model):
  one, again, other = (
      model.generate(F, LENGTHS, grid=GRID, seed=seed) for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(one, again)
  assert (one[0] != other[0]).all()


def test_conditions_and_guidance(voiced):
  def run(value='a', scale=None, kind=guidance_lib.Plain):
    return voiced.generate(
        *(F, LENGTHS),
        grid=GRID,
        conditions=value and {'voice': [value, 'b']},
        guidance=None if scale is None else kind(scale),
    )

  plain = run()
  assert np.abs(run('b') - plain)[0].min() > 1e-5
  np.testing.assert_array_equal(run('b')[1], plain[1])
  np.testing.assert_allclose(run(scale=1.0), plain, rtol=1e-4, atol=1e-4)
  null = voiced.generate(F, LENGTHS, grid=GRID)
  np.testing.assert_allclose(run(scale=0.0), null, rtol=1e-4, atol=1e-4)
  guided = run(scale=3.0)
  assert np.abs(guided - plain)[0].min() > 1e-5
  other = run(scale=3.0, kind=guidance_lib.Projected)
  assert np.abs(other - guided)[0].min() > 1e-6


def test_guidance_leads_away_from_negative_conditions(voiced):
  """One prediction of two conditions, mixed as that of one and of none."""

  def run(value, negative, scale):
    return voiced.generate(
        *(F, LENGTHS),
        grid=times_lib.Grid(1),
        conditions={'voice': [value, value]},
        negative={'voice': [negative, negative]},
        guidance=guidance_lib.Plain(scale),
    )

  # One step is linear in what is predicted.
  alone = {v: run(v, 'b' if v == 'a' else 'a', 1.0) for v in 'ab'}
  expected = 3 * alone['a'] - 2 * alone['b']
  np.testing.assert_allclose(run('a', 'b', 3.0), expected, rtol=1e-3, atol=1e-4)
  np.testing.assert_allclose(
      run('a', 'b', 0.0), alone['b'], rtol=1e-4, atol=1e-5
  )
  assert np.abs(alone['a'] - alone['b'])[0].min() > 1e-5
  # None of it is no condition.
  plain = {'guidance': guidance_lib.Plain(3.0), 'grid': GRID}
  plain['conditions'] = {'voice': ['a', 'b']}
  np.testing.assert_array_equal(
      voiced.generate(F, LENGTHS, negative={'voice': [None, None]}, **plain),
      voiced.generate(F, LENGTHS, **plain),
  )
  for negative, message in (
      ({'voice': ['a']}, '1 values for 2 rows'),
      ({'tone': ['a', 'a']}, 'tone.*voice'),
  ):
    with pytest.raises(ValueError, match=message):
      voiced.generate(F, LENGTHS, negative=negative, **plain)
  with pytest.raises(ValueError, match='nothing without guidance'):
    voiced.generate(F, LENGTHS, negative={'voice': ['a', 'a']})


def test_a_mixture_weighs_conditions_by_themselves():
  model = small_flows.model(conditioned=True, tone=True)

  def run(guidance=None, **conditions):
    told = {name: [value] for name, value in conditions.items()}
    # One step is linear in what is predicted.
    grid = times_lib.Grid(1)
    return model.generate(F, [F], grid=grid, guidance=guidance, conditions=told)

  both, none = {'voice': 'a', 'tone': 'b'}, run()
  mixture = guidance_lib.Mixture(((3.0, ('tone', 'voice')), (2.0, ('tone',))))
  found = run(mixture, **both)
  expected = none + 3 * (run(**both) - none) + 2 * (run(tone='b') - none)
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
  assert np.abs(found - run(guidance_lib.Plain(3.0), **both)).min() > 1e-5
  once = model.generation_flops(F / 2, grid=GRID)
  flops = model.generation_flops(F / 2, grid=GRID, guidance=mixture)
  assert flops == pytest.approx(3 * once, rel=1e-2)
  mixture = guidance_lib.Mixture(((3.0, ('mood',)),))
  with pytest.raises(ValueError, match="no .'mood'.*'tone', 'voice'"):
    run(mixture, **both)


@pytest.mark.parametrize('process', [known.COSINE, known.FLOW])
@pytest.mark.parametrize('moments', [None, MOMENTS])
def test_strength_is_the_time_at_which_latents_are_noisy(process, moments):
  """Of N(0, 1) the flow takes z of time s to z / sqrt(a^2 + b^2)."""
  decoder = small_flows.Normal(D, process=process, moments=moments)
  model = flow_lm.FlowLM(decoder, {}, 2.0)
  init = np.random.default_rng(0).normal(size=(2, F, D)).astype(np.float32)
  exists = np.arange(F) < LENGTHS[:, None]

  def out(x):
    return x if moments is None else moments.restored(x)

  def run(**options):
    grid = times_lib.Grid(64)
    found = model.generate(
        *(F, LENGTHS), grid=grid, solver=solvers.Heun(), **options
    )
    np.testing.assert_array_equal(found[~exists], 0)
    return found

  keys = noise_lib.fold(noise_lib.row_keys(jax.random.key(7), jnp.arange(2)), 0)
  noise = np.asarray(noise_lib.normal(keys, (F, D)))
  for strength in (0.02, 0.3, 0.8, 1.0):
    a, b = process.scales(strength)
    expected = out((a * init + b * noise) / np.hypot(a, b))
    holes = np.where(exists[..., None], out(init), np.nan)
    found = run(seed=7, init=holes, strength=strength)
    np.testing.assert_allclose(
        found[exists], expected[exists], rtol=1e-3, atol=1e-3
    )
    if strength == 1:
      np.testing.assert_array_equal(found, run(seed=7))
    if strength == 0.02:
      scale = 1 if moments is None else np.array(moments.std)
      assert np.abs((found - out(init)) / scale)[exists].max() < 0.15


def test_varied_rows_are_themselves_and_keep_what_is_given(model):
  given, mask = small_flows.given()
  options = {'grid': GRID, 'strength': 0.5, 'solver': solvers.Sde()}
  both = model.generate(F, LENGTHS, init=given, **options)
  alone = model.generate(4, LENGTHS[:1] - 2, init=given[:1, :4], **options)
  more = model.generate(F, LENGTHS - [2, 0], init=given, **options)
  np.testing.assert_allclose(more[:1, :4], alone, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(more[1], both[1], rtol=1e-4, atol=1e-4)
  # What is held and what is varied are two things.
  exists = np.arange(F) < LENGTHS[:, None]
  held = model.generate(
      *(F, LENGTHS), init=0 * given, given=given, given_mask=mask, **options
  )
  np.testing.assert_array_equal(held[mask & exists], given[mask & exists])
  assert (held[~mask & exists] != both[~mask & exists]).all()


@pytest.mark.parametrize(
    'options, message',
    [
        ({'num_frames': [F + 1]}, 'not within 6'),
        ({'guidance': guidance_lib.Plain()}, 'no conditions'),
        ({'conditions': {'voice': ['a']}}, 'model has \\[\\]'),
        ({'given': np.zeros((1, F, D))}, 'given_mask'),
        (
            {
                'given': np.zeros((1, F, 3)),
                'given_mask': np.ones((1, F), bool),
            },
            'expected .1, 6, 2.',
        ),
        ({'init': np.zeros((1, F, D))}, 'go with their strength'),
        ({'strength': 0.5}, 'go with their strength'),
        ({'init': np.zeros((1, F, 3)), 'strength': 0.5}, 'init .*1, 6, 2'),
        ({'init': np.zeros((1, F, D)), 'strength': 0.0}, 'more than 0'),
        ({'init': np.zeros((1, F, D)), 'strength': 1.1}, 'at most 1'),
        ({'init': np.full((1, F, D), np.nan), 'strength': 1.0}, 'not finite'),
        (
            {
                'given': np.full((1, F, D), np.inf),
                'given_mask': np.ones((1, F), bool),
            },
            'not finite',
        ),
    ],
)
def test_what_does_not_fit_is_refused(model, options, message):
  options = {'num_frames': [F], **options}
  with pytest.raises(ValueError, match=message):
    model.generate(F, **options)


def test_what_could_not_be_done_is_refused(voiced):
  for conditions, message in (
      ({'voice': ['a', 'c']}, "'c' is none of"),
      ({'voice': ['a']}, '1 values for 2 rows'),
      ({'tone': ['a', 'a']}, 'tone.*voice'),
  ):
    with pytest.raises(ValueError, match=message):
      voiced.generate(F, LENGTHS, conditions=conditions)
  # Noise alone tells nothing of data to who predicts noise.
  with pytest.raises(ValueError, match='t = 1'):
    small_flows.model(target='e').generate(F, LENGTHS)
  blind = small_flows.model(gaps=None)
  given, mask = small_flows.given()
  assert np.isfinite(blind.generate(F, LENGTHS, grid=GRID)).all()
  with pytest.raises(ValueError, match='made to take none'):
    blind.generate(F, LENGTHS, given=given, given_mask=mask)
  with pytest.raises(ValueError, match='windows.*made to take none'):
    blind.generate_long(F, LENGTHS, window=3, overlap=1)


def test_flops_are_those_of_every_evaluation(voiced):
  decoder, shapes = voiced.decoder, jax.eval_shape(lambda: voiced.params)
  model = flow_lm.FlowLM(decoder, shapes, 2.0)
  film = jax.ShapeDtypeStruct((1, 8), jnp.float32)

  def once(params, film):
    z, t = jnp.zeros((1, F, D)), jnp.zeros(1)
    rows = jnp.array([F]), None, None, {'film': film}
    return decoder.apply({'params': params}, z, t, *rows, method='predict')

  each = costs.flops(once, shapes, film)
  assert each > 1000

  def count(**options):
    return model.generation_flops(F / 2, grid=GRID, **options)

  assert count() == pytest.approx(3 * each)
  assert count(solver=solvers.Heun()) == pytest.approx(6 * each)
  guided = count(guidance=guidance_lib.Plain())
  assert guided == pytest.approx(6 * each)
  # Windows of 4 frames: 0 to 3, 2 to 5.
  short = model.generation_flops(2.0, grid=GRID)
  assert count(window=4, overlap=2) == pytest.approx(2 * short)
  assert count(window=F, overlap=2) == count()
  assert count(strength=0.5) == pytest.approx(3 * each, rel=1e-3)
  with pytest.raises(ValueError, match='no conditions'):
    small_flows.model().generation_flops(1.0, guidance=guidance_lib.Plain())
  with pytest.raises(ValueError, match='no frame rate'):
    flow_lm.FlowLM(decoder, shapes, None).generation_flops(1.0)


def test_errors_go_by_the_rows_numbers(model):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, F, D)).astype(np.float32)
  rows = np.array([17, 3])

  def errors(x, lengths, rows, levels=3):
    inputs = x, lengths, {}
    return np.asarray(
        flow_lm.errors(model.decoder, model.params, inputs, rows, levels)
    )

  both = errors(x, LENGTHS, rows)
  assert both.shape == (2, 3) and (both > 0).all()
  swapped = errors(x[::-1], LENGTHS[::-1], rows[::-1])
  np.testing.assert_allclose(swapped[::-1], both, rtol=1e-4)
  alone = errors(x[1:, :4], LENGTHS[1:], rows[1:])
  np.testing.assert_allclose(alone, both[1:], rtol=1e-4)
  assert (np.abs(errors(x, LENGTHS, rows + 1) / both - 1) > 1e-3).all()
  # A model that predicts nothing errs by the target's square.
  fresh = nn.meta.unbox(
      kinds.Description(model.decoder).init(jax.random.key(0))
  )['params']
  inputs = x, LENGTHS, {}
  found = flow_lm.errors(model.decoder, fresh, inputs, rows, 200)
  mean = np.asarray(found).sum() / LENGTHS.sum() / 200
  # (e - x)^2 on average: 1 + x^2.
  exists = np.arange(F) < LENGTHS[:, None]
  assert mean == pytest.approx(1 + np.mean(x[exists] ** 2), rel=0.05)
  assert len(validation.levels(200)) == found.shape[1]


def test_a_tokenizer_of_other_latents_is_refused(model):
  class Tokenizer:
    spec = dataclasses.make_dataclass('Spec', ['dimension'])(D)

  assert model.with_tokenizer(Tokenizer()).tokenizer is not None
  Tokenizer.spec.dimension = None
  with pytest.raises(ValueError, match='latents of 2.*has codes'):
    model.with_tokenizer(Tokenizer())
