"""The error of what denoises: its sums, its draws, and what it teaches."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import decoders
from audiolm_jax import objectives
from audiolm_jax import resolution
from audiolm_jax import train
from audiolm_jax.data import moments as moments_lib
from audiolm_jax.data import token_cache
from audiolm_jax.decoders import gaps as gaps_lib
from audiolm_jax.decoders import time_embedding
from audiolm_jax.processes import solvers
from audiolm_jax.processes import times as times_lib
from audiolm_jax.processes import weights
from tests.data import made_caches
from tests.decoders import small
from tests.processes import known

B, F, D = 4, 6, 2
LENGTHS = np.array([F, 3, 1, 5], np.int32)


def _decoder(width=8, layers=1, **options):
  backbone = small.stack(
      width=width,
      layers=layers,
      mixer={'mask_kind': 'bidirectional'},
      adaptive='adaln_zero',
      film_silu=True,
  )
  time = time_embedding.TimeEmbedding(frequencies=8, scale=20.0)
  return decoders.Flow(D, backbone=backbone, time=time, **options)


def _objective(decoder=None, **options):
  decoder = decoder or _decoder(gaps=gaps_lib.Gaps(0.4, 0.4))
  return objectives.Denoising(decoder=decoder, frames=F, rate=50.0, **options)


def _batch(seed=0):
  rng = np.random.default_rng(seed)
  return {
      'latents': rng.normal(size=(B, F, D)).astype(np.float32),
      'num_frames': LENGTHS,
      'ends': np.zeros(B, bool),
      'id': np.arange(B, dtype=np.int32),
  }


def _moved(objective):
  """Parameters with which every path matters."""
  batch = _batch()
  inputs = batch['latents'], np.ones(B, np.float32), LENGTHS
  return small.parameters(objective.decoder, *inputs, method='predict')


@pytest.fixture(scope='module', name='objective')
def _made():
  return _objective()


@pytest.fixture(scope='module', name='params')
def _params(objective):
  return _moved(objective)


def _draws(objective, seed=0, batch=None):
  batch = batch or _batch()
  latents, num_frames, _ = objective.decoder.read(batch)
  return objective.draw(jax.random.key(seed), latents, num_frames)


def test_example_batch_has_the_shapes_of_training(objective):
  batch, example = _batch(), objective.example_batch(B)
  assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
      k: (v.shape, v.dtype) for k, v in example.items()
  }


@pytest.mark.parametrize('target', 'xevu')
@pytest.mark.parametrize(
    'weight', [weights.Plain(), weights.MinSnr(), weights.Sigmoid()]
)
def test_the_loss_at_the_start_has_its_closed_form(target, weight):
  """Nothing is predicted: the weighted square of the target, where hidden."""
  decoder = _decoder(process=known.COSINE, target=target)
  objective = _objective(decoder, weight=weight)
  batch, draws = _batch(), _draws(_objective(decoder))
  boxed = objective.init(jax.random.key(0))
  params = nn.meta.unbox(boxed)['lm']['params']
  found = objective.errors(params, batch, draws)
  wanted = known.COSINE.target(target, batch['latents'], draws.e, draws.t)
  factor = weight.factor(known.COSINE, target, draws.t)[:, None]
  expected = draws.hidden * factor * np.mean(np.square(wanted), -1)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_terms_are_sums_over_hidden_frames(objective, params):
  rng, batch = jax.random.key(3), _batch()
  run = small.quick_jit(objective.__call__)
  output = run({'lm': {'params': params}}, batch, rng)
  draws = objective.draw(jax.random.split(rng, 3)[0], batch['latents'], LENGTHS)
  total, count = output.terms['denoising']
  assert int(count) == draws.hidden.sum() < LENGTHS.sum()
  errors = objective.errors(params, batch, draws)
  np.testing.assert_allclose(total, errors.sum(), rtol=1e-5)
  assert [float(x) for x in output.metrics['hidden']] == [count, 15]
  assert objective.loss_weights.keys() == output.terms.keys()


def test_microbatches_add_exactly_and_rows_are_by_themselves(objective, params):
  batch, draws = _batch(), _draws(objective)
  batch['latents'] = np.where(
      (np.arange(F) < LENGTHS[:, None])[..., None], batch['latents'], np.nan
  )
  errors = np.asarray(objective.errors(params, batch, draws))
  assert (errors > 0).sum() == draws.hidden.sum() and np.isfinite(errors).all()
  for i in (0, 2):
    half = jax.tree.map(lambda x, i=i: x[i : i + 2], (batch, draws))
    part = objective.errors(params, *half)
    np.testing.assert_allclose(part, errors[i : i + 2], rtol=1e-4, atol=1e-5)
  # As long as it is, and no longer.
  row = (slice(1, 2), slice(0, 3))
  short = {**_batch(), 'num_frames': LENGTHS[1:2]}
  short['latents'] = short['latents'][row]
  part = draws.replace(t=draws.t[1:2], e=draws.e[row], hidden=draws.hidden[row])
  alone = objective.errors(params, short, part)
  np.testing.assert_allclose(alone, errors[row], rtol=1e-4, atol=1e-5)


def test_what_is_given_teaches_and_what_is_hidden_is_not_given(
    objective, params
):
  draws = _draws(objective, seed=1)
  given = ~np.asarray(draws.hidden)[0] & (np.arange(F) < LENGTHS[0])
  assert given.any() and draws.hidden[0].any()
  shown = objective.errors(params, _batch(), draws)[0]
  # The same noisy latents, but nothing given: other predictions.
  blind = draws.replace(hidden=draws.hidden.at[0].set(True))
  unseen = objective.errors(params, _batch(), blind)[0]
  moved = np.abs(shown - unseen)[np.asarray(draws.hidden[0])]
  assert moved.min() > 1e-6


def test_draws_go_by_row_and_frame_and_times_are_stratified():
  objective = _objective(density=times_lib.LogitNormal(0.3, 0.7))
  batch = _batch()
  draws = _draws(objective)
  assert len(np.unique(draws.e)) == draws.e.size
  wide = jnp.pad(batch['latents'], ((0, 0), (0, 3), (0, 0)))
  padded = objective.draw(jax.random.key(0), wide, LENGTHS)
  np.testing.assert_array_equal(padded.e[:, :F], draws.e)
  np.testing.assert_array_equal(padded.hidden[:, :F], draws.hidden)
  np.testing.assert_array_equal(padded.t, draws.t)
  logits = np.log(draws.t / (1 - draws.t))
  parts = jax.scipy.stats.norm.cdf((logits - 0.3) / 0.7) * B
  np.testing.assert_array_equal(np.floor(parts), np.arange(B))
  assert (_draws(objective, seed=1).e != draws.e).all()
  # A model without gaps has all hidden.
  plain = _draws(_objective(_decoder(gaps=None))).hidden
  np.testing.assert_array_equal(plain.sum(1), LENGTHS)


# -- what it leaves to the data ------------------------------------------------


def _cache(directory, dimension=D, hop=320, scaled=False):
  def example(split, i):
    rng = np.random.default_rng([len(split), i])
    latents = rng.normal(3, 2, size=(8, dimension)).astype(np.float32)
    return made_caches.encoding.Example(
        latents=latents,
        samples=8 * hop,
        factors={'id': f'{split}{i}'},
        scales=np.ones(8, np.float32) if scaled else None,
    )

  spec = made_caches.spec(dimension=dimension, hop=hop)
  clips = {'train': 3, 'validation': 2}
  identity = made_caches.identity((), clips, spec=spec, scales=scaled)
  return made_caches.write(directory, identity, example)


def _run(cache, **options):
  return train.Config(
      objective=objectives.Denoising(decoder=_decoder(), **options),
      data=data.TokenCrops(cache=cache, frames=5),
      models={'lm': train.ModelTraining()},
  )


def test_rate_frames_and_moments_are_the_datas(tmp_path):
  cache = _cache(tmp_path / 'c', hop=640)
  settings = resolution.resolve(_run(cache), read=True)
  objective = settings.objective
  assert (objective.rate, objective.frames) == (25.0, 5)
  moments = token_cache.read_header(cache).moments
  assert objective.decoder.moments == moments
  assert resolution.resolve(settings, read=True) == settings
  assert resolution.resolve(settings) == settings
  # What is known without the data needs no file.
  known_before = resolution.resolve(_run('{stage:x}'))
  assert known_before.objective.decoder.moments is None
  assert known_before.objective.frames == 5
  with pytest.raises(config.ConfigError, match='frames = None'):
    objectives.Denoising(decoder=_decoder()).example_batch(1)


def test_what_does_not_fit_is_refused_before_anything_trains(tmp_path):
  cache, run = _cache(tmp_path / 'c'), tmp_path / 'run'
  codes = made_caches.write(
      tmp_path / 'codes',
      made_caches.identity((5,), {'train': 1}),
      lambda *_: made_caches.example(np.zeros((4, 1), np.int32), {'id': 'x'}),
  )
  other = moments_lib.Moments((0.0,) * D, (1.0,) * D)
  decoder = _decoder(moments=other)
  for settings, message in (
      (_run(codes), f'dimension = 2.*{codes}.*codes of'),
      (_run(_cache(tmp_path / 'd', 3)), 'dimension = 2.*latents of 3'),
      (_run(_cache(tmp_path / 'e', scaled=True)), 'has scales beside'),
      (_run(cache, rate=10.0), 'rate = 10.*50 a second'),
      (_run(cache, frames=4), 'frames = 4.*5 frames'),
      (
          dataclasses.replace(
              _run(cache), objective=objectives.Denoising(decoder=decoder)
          ),
          'moments are not those',
      ),
  ):
    with pytest.raises(config.ConfigError, match=message):
      train.train(settings, run)
    assert not (run / 'config.json').exists()


# -- what it teaches -----------------------------------------------------------

_CENTRES, _STD = np.array([[2.0, 1.0], [-1.0, 0.5]]), 0.4


def _mixture(rng, rows):
  centres = jnp.asarray(_CENTRES, jnp.float32)
  which, cloud = jax.random.split(rng)
  which = jax.random.bernoulli(which, 0.75, (rows,)).astype(int)
  noise = jax.random.normal(cloud, (rows, 1, 2))
  return centres[which][:, None] + _STD * noise


def test_a_mixture_of_normals_is_learned():
  """Two clouds in the plane, one three times as likely: moments and shares."""
  rows, steps = 256, 600
  objective = _objective(_decoder(width=32, layers=2, gaps=None))
  params = nn.meta.unbox(objective.init(jax.random.key(0)))['lm']['params']
  optimizer = optax.adam(optax.cosine_decay_schedule(4e-3, steps))
  num_frames = jnp.ones(rows, int)

  def step(carry, rng):
    params, state = carry
    latents, draw = jax.random.split(rng)
    batch = {'latents': _mixture(latents, rows), 'num_frames': num_frames}

    def loss(params):
      total, count = objective({'lm': {'params': params}}, batch, draw).terms[
          'denoising'
      ]
      return total / count

    value, gradient = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(gradient, state)
    return (optax.apply_updates(params, updates), state), value

  @jax.jit
  def learn(params):
    rngs = jax.random.split(jax.random.key(1), steps)
    return jax.lax.scan(step, (params, optimizer.init(params)), rngs)

  (params, _), losses = learn(params)
  assert losses[-50:].mean() < 0.7 * losses[:20].mean()
  model = objective.bind({'lm': {'params': params}})
  count = 4000
  x = model.generate(
      1,
      np.ones(count, int),
      solver=solvers.Heun(),
      grid=times_lib.Grid(16),
  )[:, 0]
  real = np.asarray(_mixture(jax.random.key(2), 20_000))[:, 0]
  np.testing.assert_allclose(x.mean(0), real.mean(0), atol=0.12)
  np.testing.assert_allclose(np.cov(x.T), np.cov(real.T), atol=0.2)
  distance = np.linalg.norm(x[:, None] - _CENTRES, axis=-1)
  near = distance.min(1) < 3.5 * _STD
  assert near.mean() > 0.97
  assert (distance[:, 1] < distance[:, 0]).mean() == pytest.approx(
      0.75, abs=0.04
  )
