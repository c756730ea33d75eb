"""The codec's objective: what must move it does, what is masked does not."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import objectives
from audiolm_jax import tokenizers
from audiolm_jax.objectives import spectral
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import parts

_SIZES = {'sizes': (64, 128), 'mels': (8, 16), 'complex_size': 64}
_DISTANCES = {**_SIZES, 'sample_rate': 16000, 'complex_power': 0.5}


@pytest.fixture(scope='module')
def objective():
  windows = {'hop': 32, 'window': 64, 'window_hop': 16}
  sizes = {'width': 16, 'hidden': 24, 'blocks': 1, **windows}
  tokenizer = tokenizers.TOKENIZERS['codec'](
      encoder=parts.ENCODERS['spectral'](dimension=8, **sizes),
      bottleneck=bottlenecks.BOTTLENECKS['rvq'](
          codebooks=2, vocabulary=16, dropout=0.0
      ),
      decoder=parts.DECODERS['spectral'](latency=32, window_blocks=0, **sizes),
  )
  return objectives.OBJECTIVES['codec'](
      tokenizer=tokenizer, samples=512, **_SIZES
  )


@pytest.fixture(scope='module')
def start(objective):
  init = jax.jit(
      objective.init, compiler_options={'xla_backend_optimization_level': 0}
  )
  variables = flax.core.meta.unbox(init(jax.random.key(0)))
  rng = np.random.default_rng(0)
  batch = objective.example_batch(4)
  batch['audio'] = rng.standard_normal((4, 512, 1)).astype(np.float32)
  batch['num_samples'] = np.array([512, 300, 33, 0], np.int32)
  return variables, batch


@pytest.fixture(scope='module')
def gradient(objective):
  def loss(params, state, batch):
    variables = {'codec': {'params': params, 'state': state}}
    output = objective(variables, batch, jax.random.key(1))
    total = sum(
        objective.loss_weights[name] * s / w
        for name, (s, w) in output.terms.items()
    )
    return total, output

  return jax.jit(jax.value_and_grad(loss, has_aux=True))


def test_padding_changes_nothing(gradient, start):
  variables, batch = start
  model = variables['codec']
  first = gradient(model['params'], model['state'], batch)
  poisoned = dict(batch)
  valid = np.arange(512) < batch['num_samples'][:, None]
  poisoned['audio'] = np.where(valid[..., None], batch['audio'], np.nan)
  second = gradient(model['params'], model['state'], poisoned)
  jax.tree.map(np.testing.assert_array_equal, first, second)


def test_every_parameter_gets_a_gradient(gradient, start, objective):
  variables, batch = start
  model = variables['codec']
  # Codebooks must not be all zero for the decoder's input to matter.
  (_, output), _ = gradient(model['params'], model['state'], batch)
  states = objective.finish(
      {'codec': model['state']}, output.statistics, jax.random.key(2)
  )
  assert np.abs(states['codec'].codebooks).max() > 0
  _, gradients = gradient(model['params'], states['codec'], batch)
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
    assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def test_rows_add(objective, start):
  variables, batch = start
  call = jax.jit(objective)
  whole = call(variables, batch, jax.random.key(1))
  parts = [
      call(variables, {k: v[rows] for k, v in batch.items()}, jax.random.key(1))
      for rows in (slice(0, 2), slice(2, 4))
  ]
  total = jax.tree.map(jnp.add, parts[0].terms, parts[1].terms)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4),
      total,
      whole.terms,
  )
  counts = sum(part.statistics['codec'].counts for part in parts)
  np.testing.assert_allclose(counts, whole.statistics['codec'].counts)
  assert whole.terms['mel'][1] == 845
  assert whole.terms['commitment'][1] == 16 + 10 + 2


def test_a_few_steps_lower_the_loss(objective, gradient, start):
  variables, batch = start
  params, state = variables['codec']['params'], variables['codec']['state']
  losses = []
  for step in range(12):
    (loss, output), g = gradient(params, state, batch)
    losses.append(float(loss))
    params = jax.tree.map(lambda p, d: p - 0.003 * jnp.sign(d), params, g)
    state = objective.finish(
        {'codec': state}, output.statistics, jax.random.key(step)
    )['codec']
  assert losses[-1] < 0.9 * losses[0], losses


def test_distances_are_zero_only_for_equal_signals():
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, 400)).astype(np.float32)
  num_samples = np.array([400, 250])
  distances = jax.jit(
      lambda x, y: spectral.distances(x, y, num_samples, **_DISTANCES)
  )
  same = distances(x, x)
  assert all((rows < 1e-2).all() for rows in same.values())
  # A phase shift moves only the complex distance much; loudness moves all.
  flipped = distances(-x, x)
  assert max(flipped['mel']) < 1e-2 and max(flipped['stft']) < 1e-2
  assert min(flipped['complex']) > 100
  louder = distances(2 * x, x)
  # L1 of log mel of a signal twice as loud: log 2 a sample, wherever valid.
  for row, n in enumerate(num_samples):
    frames = sum(np.ceil(n / (s // 4)) * (s // 4) / 2 for s in (64, 128))
    want = np.log(2) * frames
    assert float(louder['mel'][row]) == pytest.approx(want, rel=1e-2)


def test_a_row_is_measured_as_if_alone():
  rng = np.random.default_rng(1)
  x, y = rng.standard_normal((2, 3, 400)).astype(np.float32)
  num_samples = np.array([400, 250, 0])
  mask = np.arange(400) < num_samples[:, None]
  together = spectral.distances(x * mask, y * mask, num_samples, **_DISTANCES)
  for row, n in enumerate(num_samples[:2]):
    rows = (z[row : row + 1, :n] for z in (x, y))
    alone = spectral.distances(*rows, num_samples[row : row + 1], **_DISTANCES)
    for name in spectral.NAMES:
      np.testing.assert_allclose(together[name][row], alone[name][0], 1e-5)
      assert together[name][2] == 0


def test_channels_of_a_row_are_averaged(objective):
  """The built-in distances take channels as rows, and give one value a row."""
  rng = np.random.default_rng(2)
  x, y = jnp.asarray(rng.standard_normal((2, 3, 400, 2)), jnp.float32)
  num_samples = jnp.array([400, 400, 400])
  got = objective._distances(x, y, num_samples)
  left, right = (
      spectral.distances(x[..., c], y[..., c], num_samples, **_DISTANCES)
      for c in (0, 1)
  )
  for name in spectral.NAMES:
    sums, counts = got[name]
    want = (left[name] + right[name]) / 2
    np.testing.assert_allclose(sums, want, rtol=1e-5)
    np.testing.assert_array_equal(counts, num_samples)


def test_silence_has_finite_gradients():
  zeros = jnp.zeros((1, 400))
  num_samples = jnp.array([400])

  def total(x):
    rows = spectral.distances(x, zeros, num_samples, **_DISTANCES)
    return jnp.sum(sum(rows.values()))

  gradient = jax.jit(jax.grad(total))(zeros)
  assert np.isfinite(gradient).all()


def test_scales_must_match(objective):
  tokenizer = objective.tokenizer
  with pytest.raises(config.ConfigError, match='sizes'):
    objectives.OBJECTIVES['codec'](tokenizer=tokenizer, sizes=(64,))
  with pytest.raises(config.ConfigError, match='complex_size'):
    objectives.OBJECTIVES['codec'](tokenizer=tokenizer, complex_size=99)
