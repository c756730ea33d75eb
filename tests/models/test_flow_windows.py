"""Rows of latents in windows that overlap, and in jumps of a map."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.decoders import time_embedding
from audiolm_jax.models import flow_lm
from audiolm_jax.processes import flow_maps
from audiolm_jax.processes import gaussian
from audiolm_jax.processes import guidance as guidance_lib
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import solvers
from audiolm_jax.processes import times as times_lib
from tests.decoders import small
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


def test_windows():
  for frames, window, overlap, expected in (
      (10, 4, 1, [0, 3, 6]),
      (11, 4, 1, [0, 3, 6, 9]),
      (4, 4, 3, [0]),
      (5, 4, 3, [0, 1]),
      (1, 4, 2, [0]),
      (0, 4, 2, [0]),
  ):
    assert list(flow_lm.windows(frames, window, overlap)) == expected
  for overlap in (0, 4, -1):
    with pytest.raises(ValueError, match=f'4 frames that share {overlap}:'):
      flow_lm.windows(9, 4, overlap)


def test_one_window_is_the_whole(model):
  given, mask = small_flows.given()
  for options in ({}, {'given': given, 'given_mask': mask, 'seed': 3}):
    plain = model.generate(F, LENGTHS, grid=GRID, **options)
    for window in (F, F + 2):
      long = model.generate_long(
          *(F, LENGTHS), grid=GRID, window=window, overlap=2, **options
      )
      np.testing.assert_array_equal(long, plain)


@pytest.mark.parametrize('solver', [solvers.Euler(), solvers.Sde()])
def test_windows_go_on_from_what_the_ones_before_became(model, solver):
  """Each is `generate` of its frames, but for where its noise begins."""
  total, window, overlap = 9, 4, 2
  lengths = np.array([total, 7], np.int32)
  options = {'grid': GRID, 'solver': solver, 'seed': 1}
  long = {'window': window, 'overlap': overlap, **options}
  found = model.generate_long(total, lengths, **long)
  assert found.shape == (2, total, D) and np.isfinite(found).all()
  np.testing.assert_array_equal(found[1, 7:], 0)
  first = model.generate(window, [window, window], **options)
  np.testing.assert_allclose(found[:, :window], first, rtol=1e-4, atol=1e-4)
  # The second sees the end of the first, and nothing before it.
  given = np.zeros((2, total, D), np.float32)
  given[:, :4] = first
  mask = np.broadcast_to(np.arange(total) < 4, (2, total))
  told = model.generate_long(
      total, lengths, given=given, given_mask=mask, **long
  )
  np.testing.assert_array_equal(told[:, :4], first)
  np.testing.assert_allclose(told, found, rtol=1e-3, atol=1e-3)
  given[:, :2] += 1
  same = model.generate_long(
      total, lengths, given=given, given_mask=mask, **long
  )
  np.testing.assert_array_equal(same[:, 4:], told[:, 4:])
  given[:, 3] += 1
  moved = model.generate_long(
      total, lengths, given=given, given_mask=mask, **long
  )
  assert (moved[:, 4:6] != told[:, 4:6]).all()
  # Rows are themselves, and what is past them moves nothing.
  alone = model.generate_long(total, lengths[:1], **long)
  np.testing.assert_allclose(alone, found[:1], rtol=1e-4, atol=1e-4)
  padded = model.generate_long(total + 3, lengths, **long)
  np.testing.assert_allclose(padded[:, :total], found, rtol=1e-4, atol=1e-4)


def test_noise_of_windows_goes_by_the_frame():
  """Of a model that keeps its noise, windows make what the whole is."""
  decoder = small_flows.Normal(D, process=known.COSINE)
  model = flow_lm.FlowLM(decoder, {}, 2.0)
  init = np.random.default_rng(0).normal(size=(2, F, D)).astype(np.float32)
  for options in ({}, {'init': init, 'strength': 0.5}):
    for solver in (solvers.Euler(), solvers.Ddim(noise=1.0)):
      each = {'grid': GRID, 'solver': solver, **options}
      whole = model.generate(F, LENGTHS, **each)
      long = model.generate_long(F, LENGTHS, window=3, overlap=1, **each)
      np.testing.assert_allclose(long, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    'process, solver',
    [
        (known.FLOW, solvers.Euler()),
        (known.FLOW, solvers.Heun()),
        (known.COSINE, solvers.Ddim()),
        (known.COSINE, solvers.Dpm2m()),
    ],
)
def test_given_frames_are_held_where_training_has_them(process, solver):
  """What is given with the noise of each time, whatever the network says."""
  decoder = small_flows.decoder(process=process, target='v')
  rng = np.random.default_rng(0)
  given, e = rng.normal(size=(2, 2, F, D)).astype(np.float32)
  hidden = np.arange(F) % 2 == np.zeros((2, 1))

  def predict(z, t):
    return decoder.held(jnp.full_like(z, 9.0), z, t, given, hidden)

  denoiser = gaussian.Denoiser(process, 'v', predict)
  # At t = 0 no noise is left to tell.
  times = times_lib.Grid(5).times[:-1]
  for count in range(2, len(times) + 1):
    found = solvers.sample(solver, denoiser, jnp.asarray(e), times[:count])
    expected = process.corrupt(given, e, times[count - 1])
    np.testing.assert_allclose(
        np.asarray(found)[~hidden], expected[~hidden], atol=1e-4
    )
    assert np.abs(found - expected)[hidden].max() > 0.5
  assert decoder.held(e, e, np.ones(2), None, None) is e


# -- jumps ---------------------------------------------------------------------

_JUMP = time_embedding.TimeEmbedding(frequencies=4, scale=3.0)


@pytest.fixture(scope='module', name='jumping')
def _jumping():
  return small_flows.model(moments=MOMENTS, jump=_JUMP)


def _start(count=F, rows=2):
  """The noise of seed 0."""
  keys = noise_lib.row_keys(jax.random.key(0), jnp.arange(rows))
  return noise_lib.normal(noise_lib.fold(keys, 0), (count, D))


def _jumped(model, times, given=None, mask=None):
  """Normalised latents after jumps by hand; what is given on its own way."""
  e, hidden = _start(), None
  if given is not None:
    hidden = ~mask

  @small.quick_jit
  def predict(z, t, s):
    return model.decoder.apply(
        {'params': model.params},
        *(z, t, LENGTHS, given, hidden),
        s=s,
        method='predict',
    )

  z = e
  for t, s in zip(times[:-1], times[1:], strict=True):
    z = z + (s - t) * predict(z, *(jnp.full(2, x) for x in (t, s)))
    if given is not None:
      on_its_way = (1 - s) * given + s * e
      z = np.where(hidden[..., None], z, on_its_way)
  return np.asarray(z)


def test_jumps_are_from_time_to_time(jumping):
  times = [1.0, 0.6, 0.0]
  z = _jumped(jumping, times)
  exists = np.arange(F) < LENGTHS[:, None]
  # 0.6 is the second of two even times, shifted by 1.5.
  grid = times_lib.Grid(2, shift=1.5)
  np.testing.assert_allclose(grid.times, times)
  found = jumping.generate(F, LENGTHS, grid=grid)
  np.testing.assert_allclose(
      found[exists], MOMENTS.restored(z)[exists], rtol=1e-4, atol=1e-4
  )
  # These are what such a model does, four of them where nothing is said.
  run = functools.partial(jumping.generate, F, LENGTHS)
  explicit = run(solver=flow_maps.Jumps(), grid=times_lib.Grid(4))
  np.testing.assert_array_equal(run(), explicit)
  noisy = run(solver=flow_maps.Jumps(1.0))
  assert (noisy[exists] != explicit[exists]).all()
  # Its velocity is a flow's as any other.
  euler = run(solver=solvers.Euler(), grid=grid)
  assert np.abs(euler - found)[exists].min() > 1e-6


def test_given_frames_go_straight_to_where_they_are(jumping):
  given, mask = small_flows.given()
  mask &= np.arange(F) < LENGTHS[:, None]
  found = jumping.generate(F, LENGTHS, grid=GRID, given=given, given_mask=mask)
  known = MOMENTS.normalised(np.where(mask[..., None], given, 0))
  z = _jumped(jumping, GRID.times, np.asarray(known, np.float32), mask)
  free = ~mask & (np.arange(F) < LENGTHS[:, None])
  np.testing.assert_allclose(
      found[free], MOMENTS.restored(z)[free], rtol=1e-4, atol=1e-4
  )
  np.testing.assert_array_equal(found[mask], given[mask])


def test_jumps_count_one_evaluation_each_and_what_is_no_jump_is_refused(
    jumping, voiced
):
  shapes = jax.eval_shape(lambda: jumping.params)
  model = dataclasses.replace(jumping, params=shapes)

  def count(**options):
    return model.generation_flops(F / 2, **options)

  each = count(grid=times_lib.Grid(1))
  assert count() == pytest.approx(4 * each, rel=1e-3)
  assert count(grid=GRID) == pytest.approx(3 * each, rel=1e-3)
  euler = count(grid=GRID, solver=solvers.Euler())
  assert euler == pytest.approx(3 * each, rel=0.02)
  with pytest.raises(ValueError, match='takes one time'):
    voiced.generate(F, LENGTHS, solver=flow_maps.Jumps())
  with pytest.raises(ValueError, match='distilled with'):
    small_flows.model(conditioned=True, jump=_JUMP).generate(
        F, LENGTHS, guidance=guidance_lib.Plain()
    )
  with pytest.raises(ValueError, match='distilled with'):
    model.generation_flops(1.0, guidance=guidance_lib.Plain())
