"""The losses of heads over latents: their sums, and what they teach."""

import functools

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
from audiolm_jax.data import token_cache
from audiolm_jax.decoders import latent_heads
from audiolm_jax.decoders import time_embedding
from audiolm_jax.decoders.latent_heads import network as network_lib
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import solvers
from audiolm_jax.processes import times as times_lib
from tests.data import made_caches
from tests.decoders import small

B, F, L = 4, 6, 2
LENGTHS = np.array([F, 3, 1, 5], np.int32)


def _objective(**options):
  decoder = decoders.LatentDecoder(
      L, backbone=small.stack(), head=latent_heads.Mixture(components=2)
  )
  return objectives.NextLatent(decoder=decoder, frames=F, rate=50.0, **options)


def _batch(seed=0):
  rng = np.random.default_rng(seed)
  return {
      'latents': rng.normal(size=(B, F, L)).astype(np.float32),
      'num_frames': LENGTHS,
      'ends': np.array([True, False, True, False]),
      'id': np.arange(B, dtype=np.int32),
  }


def test_example_batch_has_the_shapes_of_training():
  batch, example = _batch(), _objective().example_batch(B)
  assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
      k: (v.shape, v.dtype) for k, v in example.items()
  }


def test_terms_are_sums_over_frames_with_the_ends_of_the_batch():
  objective, batch = _objective(), _batch()
  params = nn.meta.unbox(objective.init(jax.random.key(0)))
  run = small.quick_jit(objective.__call__)
  output = run(params, batch, jax.random.key(1))
  assert output.terms.keys() == objective.loss_weights.keys()
  losses = objective.decoder.apply(
      {'params': params['lm']['params']},
      *(batch['latents'], LENGTHS, batch['ends']),
      noise_lib.row_keys(jax.random.key(0), jnp.arange(B)),
      method='losses',
  )
  for name, (total, count) in output.terms.items():
    assert count == LENGTHS.sum()
    np.testing.assert_allclose(total, losses[name].sum(), rtol=1e-5)
  other = run(params, {**batch, 'ends': ~batch['ends']}, jax.random.key(1))
  assert float(other.terms['stop'][0]) != float(output.terms['stop'][0])
  assert float(other.terms['nll'][0]) == float(output.terms['nll'][0])


def test_weights_of_the_terms():
  assert _objective().loss_weights == {'nll': 1.0, 'stop': 0.1}
  assert _objective(stop_weight=2.0).loss_weights['stop'] == 2.0
  decoder = _objective().decoder.clone(stop=False)
  silent = objectives.NextLatent(decoder=decoder, frames=F, rate=50.0)
  assert silent.loss_weights == {'nll': 1.0}
  with pytest.raises(config.ConfigError, match='stop_weight'):
    objectives.NextLatent(decoder=decoder, stop_weight=1.0)
  mapped = latent_heads.FlowMap(distillation=0.4)
  assert mapped.loss_weights == {'denoising': 0.6, 'distillation': 0.4}


def _clip(split, i):
  rng = np.random.default_rng([len(split), i])
  latents = rng.normal(3, 5, size=(3 + 2 * i, L)).astype(np.float32)
  return made_caches.encoding.Example(
      latents=latents,
      samples=320 * len(latents),
      factors={'id': f'{split}{i}'},
  )


@pytest.fixture(scope='module', name='cache')
def _cache(tmp_path_factory):
  clips = {'train': 4, 'validation': 3}
  identity = made_caches.identity((), clips, spec=made_caches.spec(dimension=L))
  return made_caches.write(tmp_path_factory.mktemp('c') / 'c', identity, _clip)


def test_rows_that_end_with_their_clips_say_so(cache):
  source = data.TokenCrops(cache=cache, frames=5).open(batch_size=8, seed=0)
  seen = set()
  for _ in range(8):
    batch = source.next(None)
    for latents, count, ends, i in zip(
        *(batch[k] for k in ('latents', 'num_frames', 'ends', 'id')),
        strict=True,
    ):
      whole = token_cache.latent_moments(cache).normalised(
          _clip('train', int(i)).latents
      )
      np.testing.assert_array_equal(
          ends, np.array_equal(latents[count - 1], whole[-1])
      )
      seen.add(bool(ends))
  assert seen == {True, False}


def test_the_cache_fills_in_what_is_left_to_it(cache):
  decoder = _objective().decoder
  settings = train.Config(
      objective=objectives.NextLatent(decoder=decoder),
      data=data.TokenCrops(cache=cache, frames=5),
      models={'lm': train.ModelTraining()},
      batch_size=2,
  )
  found = resolution.resolve(settings, read=True).objective
  assert found.frames == 5 and found.rate == 50.0
  assert found.decoder.moments == token_cache.latent_moments(cache)


# -- what is known to be learned -------------------------------------------------

_WAY = np.array([[0.8, 0.2], [-0.3, 0.7]])
_COVARIANCE = np.array([[0.5, 0.2], [0.2, 0.3]])
_TOY = network_lib.AdalnMlp(
    64, 2, time_embedding.TimeEmbedding(frequencies=16, scale=20.0)
)


def _sequence(rng, rows):
  """Frames before and after, of a linear-Gaussian sequence where it settles."""
  stationary = np.zeros((2, 2))
  for _ in range(200):
    stationary = _WAY @ stationary @ _WAY.T + _COVARIANCE
  before = rng.multivariate_normal(np.zeros(2), stationary, rows)
  after = before @ _WAY.T + rng.multivariate_normal(
      np.zeros(2), _COVARIANCE, rows
  )
  return before.astype(np.float32), after.astype(np.float32)


@functools.cache
def _trained(kind, steps=3000, rows=512):
  """A head that is told the frame before, with averaged parameters."""
  head = {
      'mixture': latent_heads.Mixture(components=8),
      'diffusion': latent_heads.Diffusion(_TOY, draws=2),
      'flow_map': latent_heads.FlowMap(_TOY, draws=4, distillation=0.5),
  }[kind]
  rng = np.random.default_rng(0)
  h, x = _sequence(rng, rows)
  keys = noise_lib.row_keys(jax.random.key(0), jnp.arange(rows))
  params = nn.meta.unbox(
      head.init(jax.random.key(0), h, x, keys, method='losses')
  )['params']
  optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, steps))

  def loss(params, h, x, keys):
    found = head.apply({'params': params}, h, x, keys, method='losses')
    return sum(
        weight * jnp.mean(found[name])
        for name, weight in head.loss_weights.items()
    )

  pool = jnp.asarray(np.stack(_sequence(rng, 100_000)))

  @jax.jit
  def run(params):
    def step(carry, number):
      params, state, average = carry
      key = jax.random.fold_in(jax.random.key(1), number)
      chosen = jax.random.randint(key, (rows,), 0, pool.shape[1])
      each = noise_lib.row_keys(key, jnp.arange(rows))
      grads = jax.grad(loss)(params, *pool[:, chosen], each)
      updates, state = optimizer.update(grads, state)
      params = optax.apply_updates(params, updates)
      average = jax.tree.map(lambda a, p: 0.99 * a + 0.01 * p, average, params)
      return (params, state, average), None

    start = params, optimizer.init(params), params
    return jax.lax.scan(step, start, jnp.arange(steps))[0][2]

  return head, run(params)


@pytest.mark.slow
@pytest.mark.parametrize(
    'kind, sampler',
    [
        ('mixture', {}),
        ('diffusion', {'grid': times_lib.Grid(32), 'solver': solvers.Heun()}),
        ('flow_map', {'grid': times_lib.Grid(1)}),
        ('flow_map', {'grid': times_lib.Grid(4)}),
    ],
)
def test_heads_learn_a_linear_gaussian_sequence(kind, sampler):
  """Means within 3% of the deviation, covariances within 3% of the largest."""
  head, params = _trained(kind)
  count = 60_000
  before = np.array([[1.0, -0.5], [-0.4, 0.8], [0.0, 0.0]], np.float32)
  for row, frame in enumerate(before):
    keys = noise_lib.row_keys(jax.random.key(7 + row), jnp.arange(count))
    h = np.broadcast_to(frame, (count, 2))
    drawn = np.asarray(
        head.apply(
            {'params': params},
            h,
            keys,
            2,
            latent_heads.LatentSampler(**sampler),
            method='draw',
        )
    )
    spread = np.sqrt(np.diag(_COVARIANCE))
    error = np.abs(drawn.mean(0) - _WAY @ frame) / spread
    assert error.max() < 0.03, error
    apart = np.abs(np.cov(drawn.T) - _COVARIANCE).max() / _COVARIANCE.max()
    assert apart < 0.03, np.cov(drawn.T)


@pytest.mark.slow
def test_the_nats_of_a_mixture_and_a_flow_agree_with_the_entropy():
  h, x = _sequence(np.random.default_rng(5), 4000)
  entropy = 0.5 * np.log(np.linalg.det(2 * np.pi * np.e * _COVARIANCE))
  found = {}
  for kind, steps in (('mixture', None), ('diffusion', 32)):
    head, params = _trained(kind)
    nats = -head.apply({'params': params}, h, x, steps, method='log_prob')
    found[kind] = np.asarray(nats)
  exact = -np.log(
      2 * np.pi * np.sqrt(np.linalg.det(_COVARIANCE))
  ) - 0.5 * np.sum(
      (x - h @ _WAY.T) @ np.linalg.inv(_COVARIANCE) * (x - h @ _WAY.T), -1
  )
  # On the same frames, what either spends beyond the true density is little.
  for kind, nats in found.items():
    assert np.mean(nats + exact) == pytest.approx(0, abs=0.02), kind
  assert abs(np.mean(found['mixture'] - found['diffusion'])) < 0.02
  assert -exact.mean() == pytest.approx(entropy, abs=0.05)
