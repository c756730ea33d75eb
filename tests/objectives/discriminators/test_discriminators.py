"""Every discriminator: padding, gradients, and shapes counted by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import ops
from audiolm_jax import param_transforms
from audiolm_jax.objectives import discriminators
from audiolm_jax.objectives.discriminators import base as discriminators_base
from audiolm_jax.objectives.discriminators import waveform

SMALL = {
    'multi_period': discriminators.MultiPeriod(
        periods=(2, 5), channels=(4, 6, 8)
    ),
    'multi_scale': discriminators.MultiScale(
        scales=3,
        channels=(4, 8, 8),
        widths=(5, 9, 3),
        strides=(1, 4, 1),
        groups=(1, 4, 1),
    ),
    'multi_scale_stft': discriminators.MultiScaleStft(
        sizes=(64, 32), filters=4, dilations=(1, 2)
    ),
    'multi_band_stft': discriminators.MultiBandStft(
        sizes=(64,), filters=4, bands=(0.25, 0.5), layers=3
    ),
    'frame_rate': discriminators.FrameRate(
        sizes=(64, 32), width=8, hidden=12, blocks=2, kernel=3
    ),
}
LENGTHS = (300, 177, 70, 0)
_FAST = {'xla_backend_optimization_level': 0}


def _parameters(module):
  """Random ones of the right shapes; compiling `init` would take seconds."""
  audio = jnp.zeros((1, 300, 1))
  shapes = jax.eval_shape(module.init, jax.random.key(0), audio, jnp.ones(1))
  rng = np.random.default_rng(1)
  return jax.tree.map(
      lambda s: jnp.asarray(0.3 * rng.standard_normal(s.shape), 'float32'),
      nn.meta.unbox(shapes)['params'],
  )


@pytest.fixture(scope='module', params=sorted(SMALL))
def case(request):
  """(parameters, forward, run, audio with NaN past the num_samples).

  `forward` gives all maps; `run` the gradients of the sum of their means, too.
  """
  module = SMALL[request.param]

  def forward(params, audio, num_samples):
    return _maps(module.apply({'params': params}, audio, num_samples))

  def loss(*args):
    maps = forward(*args)
    return sum(jnp.sum(m.row_means()) for m in maps), maps

  run = jax.jit(jax.grad(loss, (0, 1), has_aux=True), compiler_options=_FAST)
  rng = np.random.default_rng(0)
  audio = rng.standard_normal((4, 300, 1)).astype(np.float32)
  for row, length in enumerate(LENGTHS):
    audio[row, length:] = np.nan
  alone = jax.jit(forward, compiler_options=_FAST)
  return _parameters(module), alone, run, audio


def _maps(verdicts):
  return [m for v in verdicts for m in (v.logits, *v.features)]


def test_every_discriminator_is_tested_here():
  assert {k: type(v) for k, v in SMALL.items()} == discriminators.DISCRIMINATORS


def test_a_padded_row_equals_the_row_alone(case):
  params, forward, run, audio = case
  row, length = 1, LENGTHS[1]
  _, batch = run(params, audio, np.array(LENGTHS))
  alone = forward(params, audio[row:][:1, :length], np.array([length]))
  for whole, single in zip(batch, alone, strict=True):
    count = int(single.counts[0])
    # Nothing of the row alone is padding.
    assert count == single.values.shape[1] == int(whole.counts[row])
    np.testing.assert_allclose(
        whole.values[row, :count], single.values[0, :count], atol=2e-5
    )
    assert not whole.values[row, count:].any()
    assert int(whole.counts[3]) == 0 and not whole.values[3].any()


def test_low_rank_updates_reach_every_weight(case):
  params, forward, _, audio = case
  transform = param_transforms.Lora(rank=2, alpha=4.0)
  names = jax.tree.map(lambda p: (None,) * p.ndim, params)
  low = transform.init(jax.random.key(0), params, names)
  low = ops.map_weights(
      lambda w: (
          w.replace(b=0.3 * jax.random.normal(jax.random.key(1), w.b.shape))
          if isinstance(w, ops.LoraTensor)
          else w
      ),
      low,
  )
  # The shape that the test above compiled.
  args = (audio[1:2, : LENGTHS[1]], np.array(LENGTHS[1:2]))
  merged = forward(param_transforms.merge_update(low), *args)
  discriminators_base = forward(params, *args)
  for a, b, c in zip(
      forward(low, *args), merged, discriminators_base, strict=True
  ):
    moved_by = np.abs(b.values - c.values).max()
    assert moved_by > 1e-3 * np.abs(c.values).max()
    assert np.abs(a.values - b.values).max() < 1e-2 * moved_by


def test_gradients_reach_every_parameter_and_no_padding(case):
  params, _, run, audio = case
  (of_params, of_audio), _ = run(params, audio, np.array(LENGTHS))
  for path, leaf in jax.tree_util.tree_leaves_with_path(of_params):
    assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)
    assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)
  for row, length in enumerate(LENGTHS):
    assert np.isfinite(of_audio[row]).all()
    assert not of_audio[row, length:].any()
    assert length == 0 or np.abs(of_audio[row, :length]).max() > 0


def test_silence_has_finite_gradients(case):
  params, _, run, audio = case
  gradients, _ = run(params, np.zeros_like(audio), np.array(LENGTHS))
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))


def _shapes(module, samples, channels=1):
  """Output maps and number of parameters, without computing anything."""

  def run(audio):
    return module.init_with_output(
        jax.random.key(0), audio, jnp.full(1, samples)
    )

  verdicts, variables = jax.eval_shape(run, jnp.zeros((1, samples, channels)))
  size = sum(x.size for x in jax.tree.leaves(variables))
  return [
      (v.logits.values.shape, [f.values.shape for f in v.features])
      for v in verdicts
  ], size


def _conv_size(width, inputs, outputs, groups=1):
  return width * inputs // groups * outputs + 2 * outputs  # with gain and bias


def test_multi_period_has_hifi_gans_shapes():
  shapes, size = _shapes(discriminators.MultiPeriod(), 8000)
  logits, features = shapes[1]
  # 8000 / 3 rows, then a third at each of four layers.
  assert [f[1:] for f in features] == [
      (889, 3, 32),
      (297, 3, 128),
      (99, 3, 512),
      (33, 3, 1024),
      (33, 3, 1024),
  ]
  assert logits == (1, 33, 3)
  widths = [1, 32, 128, 512, 1024, 1024]
  pairs = zip(widths[:-1], widths[1:], strict=True)
  one = sum(_conv_size(5, a, b) for a, b in pairs)
  assert size == 5 * (one + _conv_size(3, 1024, 1))
  assert len(shapes) == 5


def test_multi_scale_has_hifi_gans_shapes():
  shapes, size = _shapes(discriminators.MultiScale(), 8000)
  assert [s[0] for s in shapes] == [(1, 125), (1, 63), (1, 32)]
  assert [f[1:] for f in shapes[0][1]] == [
      (8000, 128),
      (4000, 128),
      (2000, 256),
      (500, 512),
      (125, 1024),
      (125, 1024),
      (125, 1024),
  ]
  one = (
      _conv_size(15, 1, 128)
      + _conv_size(41, 128, 128, 4)
      + _conv_size(41, 128, 256, 16)
      + _conv_size(41, 256, 512, 16)
      + _conv_size(41, 512, 1024, 16)
      + _conv_size(41, 1024, 1024, 16)
      + _conv_size(5, 1024, 1024)
      + _conv_size(3, 1024, 1)
  )
  assert size == 3 * one


def test_multi_scale_stft_has_encodecs_shapes():
  shapes, size = _shapes(discriminators.MultiScaleStft(), 24000, channels=2)
  logits, features = shapes[1]
  frames = (24000 - 1024) // 256 + 1
  assert logits == (1, frames, 65)
  assert [f[1:] for f in features] == [
      (frames, 513, 32),
      (frames, 257, 32),
      (frames, 129, 32),
      (frames, 65, 32),
      (frames, 65, 32),
  ]
  # Real and imaginary parts of two channels.
  one = (
      _conv_size(27, 4, 32)
      + 3 * _conv_size(27, 32, 32)
      + _conv_size(9, 32, 32)
      + _conv_size(9, 32, 1)
  )
  assert size == 5 * one


def test_multi_band_stft_has_dacs_shapes():
  shapes, size = _shapes(discriminators.MultiBandStft(), 16000)
  logits, features = shapes[2]
  frames = 125  # of 128 samples
  # Bins of 257: [0, 25), [25, 64), [64, 128), [128, 192), [192, 257).
  halved = [4, 5, 8, 8, 9]
  assert logits == (1, frames, sum(halved))
  assert [f[1:] for f in features[4::5]] == [(frames, n, 32) for n in halved]
  assert [f[2] for f in features[:5]] == [25, 13, 7, 4, 4]
  band = (
      _conv_size(27, 2, 32) + 3 * _conv_size(27, 32, 32) + _conv_size(9, 32, 32)
  )
  assert size == 3 * (5 * band + _conv_size(9, 32, 1))


def test_frame_rate_is_small():
  shapes, size = _shapes(discriminators.FrameRate(), 16000)
  assert [s[0] for s in shapes] == [(1, 16), (1, 32), (1, 63)]
  assert [f[1:] for f in shapes[2][1]] == [(63, 192)] * 2
  blocks = 2 * (7 * 192 + 192 + 2 * 192 * 384 + 384 + 192)
  inputs = sum(3 * (n // 2 + 1) * 192 + 192 for n in (2048, 1024, 512))
  assert size == inputs + 3 * (blocks + 192 + 193)


def test_weight_norm_starts_at_the_kernel_and_fixes_its_norm():
  module = discriminators_base.Conv(3, (5,), (2,))
  x = discriminators_base.Map.of(jnp.ones((1, 9, 2)), jnp.array([9]))
  variables = nn.meta.unbox(module.init(jax.random.key(0), x))
  params = variables['params']
  plain = discriminators_base.Conv(3, (5,), (2,), weight_norm=False)
  bare = {k: v for k, v in params.items() if k != 'gain'}
  want = plain.apply({'params': bare}, x).values
  np.testing.assert_allclose(module.apply(variables, x).values, want, atol=1e-6)
  # Only the kernel's direction counts.
  scaled = {**params, 'kernel': 7 * params['kernel']}
  got = module.apply({'params': scaled}, x).values
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_even_widths_are_refused():
  x = discriminators_base.Map.of(jnp.ones((1, 9, 2)), jnp.array([9]))
  with pytest.raises(ValueError, match='odd'):
    discriminators_base.Conv(3, (4,)).init(jax.random.key(0), x)


@pytest.mark.parametrize('size', [8, 9])
def test_halved_is_an_average_pool(size):
  x = np.random.default_rng(0).standard_normal((1, size, 1)).astype('float32')
  padded = np.pad(x[0, :, 0], 2)
  want = [padded[i : i + 4].mean() for i in range(0, size + 1, 2)]
  got = waveform.halved(
      discriminators_base.Map.of(jnp.asarray(x), jnp.array([size]))
  )
  assert int(got.counts[0]) == len(want) == got.values.shape[1]
  np.testing.assert_allclose(got.values[0, :, 0], want, atol=1e-6)


def test_level_takes_mean_and_loudness_away():
  rng = np.random.default_rng(0)
  audio = rng.standard_normal((2, 50, 2)).astype(np.float32)
  audio[1, 30:] = np.nan
  num_samples = np.array([50, 30])
  got = discriminators_base.level(jnp.asarray(audio), num_samples)
  again = discriminators_base.level(jnp.asarray(3 * audio + 5), num_samples)
  np.testing.assert_allclose(got, again, atol=1e-5)
  for row, length in enumerate(num_samples):
    valid = np.asarray(got[row, :length])
    np.testing.assert_allclose(valid.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.abs(valid).max(axis=0), 0.8, atol=1e-5)
    assert not got[row, length:].any()


def test_row_means_count_a_rows_own_values():
  values = jnp.arange(12.0).reshape(2, 3, 2)
  means = discriminators_base.Map.of(values, jnp.array([2, 0])).row_means()
  np.testing.assert_allclose(means, [1.5, 0.0])
