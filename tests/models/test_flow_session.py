"""Latents that are denoised block by block: blocks are their part of the whole."""

import jax
import numpy as np
import pytest

from audiolm_jax import decoders
from audiolm_jax.data import factors
from audiolm_jax.data import moments as moments_lib
from audiolm_jax.decoders import conditioners
from audiolm_jax.models import flow_lm
from audiolm_jax.processes import flow_maps
from audiolm_jax.processes import gaussian
from audiolm_jax.processes import guidance as guidance_lib
from audiolm_jax.processes import solvers
from audiolm_jax.processes import times as times_lib
from tests.decoders import small

F, D, BLOCK = 8, 2, 2
LENGTHS = np.array([F, 5], np.int32)
MOMENTS = moments_lib.Moments((3.0, -7.0), (0.5, 20.0))
GRID = times_lib.Grid(3)


def _model(how=(), mixer=None, **options):
  modules = {
      way: conditioners.Class(how=way, source=factors.Name(('a', 'b')))
      for way in how
  }
  cross = small.attention.Cross(heads=2) if 'cross' in how else None
  mixer = mixer or {'mask_kind': 'block_causal', 'block': BLOCK}
  decoder = decoders.Flow(
      D,
      backbone=small.stack(
          layers=2, mixer=mixer, cross=cross, adaptive='adaln_zero'
      ),
      conditions=modules,
      moments=MOMENTS,
      **options,
  )
  latents, num_frames, conditions = decoder.read(decoder.example_batch(1, F))
  params = small.parameters(
      decoder,
      *(latents, np.ones(1, np.float32), num_frames),
      *(None, None, None, conditions),
      method='predict',
  )
  return flow_lm.FlowLM(decoder, params, 2.0)


@pytest.fixture(name='model', scope='module')
def _plain():
  return _model()


def _blocks(session, count=F):
  pieces = []
  while session.entered < count:
    pieces.append(session.step())
  return np.concatenate(pieces, axis=1)


@pytest.mark.parametrize(
    'solver',
    [solvers.Euler(), solvers.Heun(), solvers.Dpm2m(), solvers.Sde()],
)
def test_blocks_are_their_parts_of_the_whole(model, solver):
  options = {'grid': GRID, 'solver': solver, 'seed': 3}
  whole = model.generate(F, LENGTHS, **options)
  session = model.session(2, num_frames=LENGTHS, **options)
  assert session.block == session.latency == BLOCK
  np.testing.assert_allclose(_blocks(session), whole, rtol=1e-3, atol=1e-3)
  # What comes later was not there yet: a row that ends earlier begins the same.
  first = model.session(2, num_frames=[2, 2], **options).step()
  np.testing.assert_allclose(first, whole[:, :BLOCK], rtol=1e-3, atol=1e-3)
  endless = model.session(2, cache_length=F, **options)
  np.testing.assert_allclose(
      _blocks(endless)[0], whole[0], rtol=1e-3, atol=1e-3
  )


def test_frames_come_one_by_one_to_the_longest_end(model):
  lengths = [5, 3]
  session = model.session(2, num_frames=lengths, grid=GRID)
  frames = np.stack(list(session), axis=1)
  whole = model.generate(5, lengths, grid=GRID)
  np.testing.assert_allclose(frames, whole, rtol=1e-3, atol=1e-3)
  assert list(session) == []


def test_a_window_bounds_what_is_kept():
  """Of attention that sees no further, a longer cache is nothing more."""
  mixer = {'mask_kind': 'block_causal', 'block': BLOCK, 'window': 3}
  model = _model(mixer=mixer)
  whole = model.generate(F, [F], grid=GRID)
  for length in (BLOCK, F):
    session = model.session(1, cache_length=length, grid=GRID)
    np.testing.assert_allclose(_blocks(session), whole, rtol=1e-3, atol=1e-3)
  # Of attention without one, a short cache is another model.
  plain = _model()
  short = _blocks(plain.session(1, cache_length=BLOCK, grid=GRID))
  assert np.abs(short - plain.generate(F, [F], grid=GRID))[:, -1].max() > 1e-2


def test_conditions_and_guidance_are_those_of_the_whole():
  how = ('add', 'cross', 'film')
  model = _model(how=how)
  told = {name: ['a', None] for name in how}
  for options in (
      {},
      {'guidance': guidance_lib.Plain(2.5)},
      {
          'guidance': guidance_lib.Plain(2.5),
          'negative': {'film': ['b', 'b']},
      },
  ):
    whole = model.generate(F, LENGTHS, grid=GRID, conditions=told, **options)
    session = model.session(
        2, num_frames=LENGTHS, grid=GRID, conditions=told, **options
    )
    np.testing.assert_allclose(_blocks(session), whole, rtol=2e-3, atol=2e-3)
    plain = model.generate(F, LENGTHS, grid=GRID)
    assert np.abs(plain - whole).max() > 1e-2


def test_what_is_fed_comes_back_and_is_seen(model):
  rng = np.random.default_rng(0)
  given = rng.normal([3, -7], [0.5, 20], size=(2, F, D)).astype(np.float32)
  mask = rng.random((2, F)) < 0.5
  holes = np.where(mask[..., None], given, np.nan)
  whole = model.generate(F, [F, F], grid=GRID, given=holes, given_mask=mask)
  session = model.session(2, num_frames=[F, F], grid=GRID)
  pieces = [
      session.step(holes[:, i : i + BLOCK], mask[:, i : i + BLOCK])
      for i in range(0, F, BLOCK)
  ]
  found = np.concatenate(pieces, axis=1)
  np.testing.assert_array_equal(found[mask], given[mask])
  np.testing.assert_allclose(found, whole, rtol=2e-3, atol=2e-3)
  assert (
      np.abs(found - model.generate(F, [F, F], grid=GRID))[~mask].max() > 0.01
  )


def test_what_can_not_go_block_by_block_is_refused(model):
  with pytest.raises(ValueError, match='block_causal'):
    _model(mixer={'mask_kind': 'bidirectional'}).session(1, cache_length=4)
  with pytest.raises(ValueError, match='before the first frame'):
    _model(how=('prefix',)).session(1, cache_length=4)
  with pytest.raises(ValueError, match='cache_length'):
    model.session(1)
  with pytest.raises(ValueError, match='block of 2'):
    model.session(1, cache_length=1)
  with pytest.raises(ValueError, match='Jumps'):
    model.session(1, cache_length=4, solver=flow_maps.Jumps())
  voiced = _model(how=('add',))
  with pytest.raises(ValueError, match='whole rows'):
    voiced.session(1, cache_length=4, guidance=guidance_lib.Rescaled())
  blind = _model(gaps=None)
  fed = np.zeros((1, BLOCK, D), np.float32)
  with pytest.raises(ValueError, match='take none'):
    blind.session(1, cache_length=4).step(fed)
  with pytest.raises(ValueError, match='expected'):
    model.session(1, cache_length=4).step(fed[:, :1])
  with pytest.raises(ValueError, match='finite'):
    model.session(1, cache_length=4).step(fed + np.nan)
  noisy = _model(process=gaussian.Cosine(), target='e')
  with pytest.raises(ValueError, match='does not say'):
    noisy.session(1, cache_length=4)


def test_a_model_without_gaps_streams_too():
  model = _model(gaps=None)
  whole = model.generate(F, [F], grid=GRID)
  session = model.session(1, num_frames=[F], grid=GRID)
  np.testing.assert_allclose(_blocks(session), whole, rtol=1e-3, atol=1e-3)
  assert jax.tree.leaves(session._states)[0].shape[:2] == (3, 1)  # pylint: disable=protected-access
