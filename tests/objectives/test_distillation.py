"""Distillation: formulae, frame rates, masks, and what gets a gradient."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import tokenizers
from audiolm_jax.objectives import distillation as distillation_lib
from audiolm_jax.ops import mel
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import parts

_FAST = {'xla_backend_optimization_level': 0}
_RNG = np.random.default_rng(0)


def _random(*shape):
  return jnp.asarray(_RNG.standard_normal(shape), jnp.float32)


STUDENT, TARGET = _random(2, 6, 3), _random(2, 6, 3)
MASK = jnp.array([[True] * 6, [True] * 4 + [False] * 2])


def _cosine(x, y):
  return np.dot(x, y) / np.linalg.norm(x) / np.linalg.norm(y)


@pytest.mark.parametrize('row, count', [(0, 6), (1, 4)])
def test_comparisons(row, count):
  x, y = np.asarray(STUDENT[row, :count]), np.asarray(TARGET[row, :count])
  over_time = [_cosine(x[:, e], y[:, e]) for e in range(3)]
  want = np.mean(np.log(1 + np.exp(-np.array(over_time))))
  got = distillation_lib.over_time(STUDENT, TARGET, MASK)[row]
  assert float(got) == pytest.approx(want, rel=1e-5)
  want = 1 - np.mean([_cosine(x[f], y[f]) for f in range(count)])
  got = distillation_lib.over_features(STUDENT, TARGET, MASK)[row]
  assert float(got) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(
    'compare', [distillation_lib.over_time, distillation_lib.over_features]
)
def test_scale_does_not_matter_and_masks_hold(compare):
  rows = compare(STUDENT, TARGET, MASK)
  poisoned = jnp.where(MASK[..., None], STUDENT, jnp.nan)
  np.testing.assert_allclose(compare(poisoned, 3 * TARGET, MASK), rows, 1e-5)
  zero = jnp.zeros_like(STUDENT)
  gradient = jax.grad(lambda x: jnp.sum(compare(x, TARGET, MASK)))
  assert np.isfinite(gradient(zero)).all()
  assert not gradient(poisoned)[1, 4:].any()
  # Downhill is towards the target.
  step = STUDENT - 0.1 * gradient(STUDENT)
  assert (compare(step, TARGET, MASK) < rows).all()


def test_a_faster_teacher_is_averaged():
  features = _random(1, 10, 2)
  # 4 samples a frame against 10: 2.5 teacher frames each.
  got, mask = distillation_lib.align(features, jnp.array([40]), 4.0, 4, 10.0)
  samples = np.repeat(np.asarray(features[0]), 4, axis=0)
  want = samples.reshape(4, 10, 2).mean(axis=1)
  np.testing.assert_allclose(got[0], want, atol=1e-6)
  assert mask.all()
  # Only the first 13 samples: teacher frames 0..3, the last one shared.
  got, mask = distillation_lib.align(features, jnp.array([13]), 4.0, 4, 10.0)
  np.testing.assert_array_equal(mask[0], [True, True, False, False])
  np.testing.assert_allclose(got[0, 1], samples[10:16].mean(axis=0), atol=1e-6)


def test_a_slower_teacher_is_interpolated():
  ramp = jnp.arange(4.0)[None, :, None]
  got, mask = distillation_lib.align(ramp, jnp.array([80]), 20.0, 8, 10.0)
  middles = (np.arange(8) + 0.5) * 10 / 20 - 0.5
  np.testing.assert_allclose(got[0, :, 0], np.clip(middles, 0, 3), atol=1e-6)
  assert mask.all()
  poisoned = ramp.at[:, 2:].set(jnp.nan)
  got, mask = distillation_lib.align(poisoned, jnp.array([40]), 20.0, 8, 10.0)
  np.testing.assert_allclose(got[0, :4, 0], [0, 0.25, 0.75, 1.0], atol=1e-6)
  assert np.isfinite(got).all() and not mask[0, 6:].any()


def test_the_same_rate_changes_nothing():
  features = _random(2, 5, 3)
  got, mask = distillation_lib.align(
      features, jnp.array([50, 22]), 10.0, 5, 10.0
  )
  np.testing.assert_allclose(got[0], features[0], atol=1e-6)
  np.testing.assert_array_equal(mask[1], [True] * 3 + [False] * 2)


def test_log_mel_teacher():
  teacher = distillation_lib.LogMel(size=64, step=20, mels=5)
  audio = np.zeros((2, 200, 1), np.float32)
  audio[:, :150] = _RNG.standard_normal((2, 150, 1))
  batch = {'audio': jnp.asarray(audio), 'num_samples': jnp.array([150, 150])}
  got = teacher(None, batch, 16000)
  assert got.shape == (2, 10, 5) and teacher.hop(16000) == 20
  # Frame 3 is centred on sample 70.
  window = np.sin(np.pi * np.arange(64) / 64) ** 2
  filters = mel.mel_filters(16000, 64, 5)

  def frame(n):
    padded = np.pad(audio[0, :, 0], 100)
    piece = padded[100 + 20 * n + 10 - 32 :][:64] * window
    return np.log(np.abs(np.fft.rfft(piece)) @ filters + 1e-2)

  np.testing.assert_allclose(got[0, 3] - got[0, 5], frame(3) - frame(5), 1e-3)
  np.testing.assert_allclose(jnp.mean(got[0, :8], axis=0), 0, atol=1e-5)


def _tokenizer(dimension=4):
  sizes = {'width': 8, 'hidden': 8, 'blocks': 1, 'hop': 32}
  windows = {'window': 64, 'window_hop': 16}
  return tokenizers.TOKENIZERS['codec'](
      encoder=parts.ENCODERS['spectral'](
          dimension=dimension, **sizes, **windows
      ),
      bottleneck=bottlenecks.BOTTLENECKS['rvq'](codebooks=1, vocabulary=4),
      decoder=parts.DECODERS['spectral'](
          latency=32, window_blocks=0, **sizes, **windows
      ),
  )


TEACHERS = {
    'features': distillation_lib.Features(width=5, frame_rate=1000.0),
    'log_mel': distillation_lib.LogMel(size=64, step=20, mels=5),
    'codec': distillation_lib.Codec(_tokenizer()),
}


def test_every_teacher_is_tested_here():
  assert {k: type(v) for k, v in TEACHERS.items()} == distillation_lib.TEACHERS


@pytest.mark.parametrize(
    'name, comparison',
    [('features', 'time'), ('log_mel', 'frame'), ('codec', 'time')],
)
def test_student_and_map_learn_and_the_teacher_does_not(name, comparison):
  teacher = TEACHERS[name]
  term = distillation_lib.Distillation(teacher, comparison=comparison)
  init = jax.jit(lambda rng: term.init(rng, 6), compiler_options=_FAST)
  variables = nn.meta.unbox(init(jax.random.key(0)))
  assert ('teacher' in variables) == (name == 'codec')
  num_samples = jnp.array([160, 70])
  valid = np.arange(160) < np.asarray(num_samples)[:, None]
  batch = {
      'audio': jnp.where(valid[..., None], _random(2, 160, 1), 0.0),
      'num_samples': num_samples,
      **{
          k: _random(*v.shape)
          for k, v in teacher.example(2, 160, 16000).items()
      },
  }
  mask = jnp.arange(5) < jnp.array([5, 3])[:, None]

  def loss(variables, semantic):
    value, weight = term(variables, batch, semantic, mask, 16000, 32)
    return value / weight, weight

  gradient = jax.jit(
      jax.grad(loss, (0, 1), has_aux=True, allow_int=True),
      compiler_options=_FAST,
  )
  (of_variables, of_semantic), weight = gradient(variables, _random(2, 5, 6))
  assert float(weight) == 8
  assert np.abs(of_semantic[0]).max() > 0 and not of_semantic[1, 3:].any()
  assert np.abs(of_variables['distillation']['params']['kernel']).max() > 0
  for leaf in jax.tree.leaves(of_variables.get('teacher', {})):
    # The gradient of an integer has no values.
    assert leaf.dtype == jax.dtypes.float0 or not leaf.any()


def test_a_teacher_of_another_sample_rate_is_refused():
  with pytest.raises(config.ConfigError, match='16000 Hz, the student 24000'):
    TEACHERS['codec'].hop(24000)


def test_a_bottleneck_with_its_own_map():
  teacher = distillation_lib.Features(width=3, frame_rate=500.0)
  term = distillation_lib.Distillation(teacher, projection=False)
  assert term.init(jax.random.key(0), 3) == {}
  batch = {'teacher': TARGET, 'num_samples': jnp.array([192, 128])}
  value, weight = term({}, batch, STUDENT, MASK, 16000, 32)
  rows = distillation_lib.over_time(STUDENT, TARGET, MASK)
  assert float(value) == pytest.approx(float(6 * rows[0] + 4 * rows[1]), 1e-5)
  assert float(weight) == 10
  with pytest.raises(config.ConfigError, match='vectors of 4'):
    term.init(jax.random.key(0), 4)
