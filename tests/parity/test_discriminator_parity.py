"""Discriminators against the same networks written with torch's functions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.objectives import discriminators

pytestmark = pytest.mark.parity
torch = pytest.importorskip('torch')
functional = pytest.importorskip('torch.nn.functional')

_SAMPLES = 240


def _setup(module, channels=1):
  """Parameters, audio [2, T, C], and our verdicts."""
  audio = jnp.zeros((2, _SAMPLES, channels))
  lengths = jnp.full(2, _SAMPLES)
  shapes = jax.eval_shape(module.init, jax.random.key(0), audio, lengths)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
      lambda s: rng.normal(size=s.shape).astype(np.float32),
      nn.meta.unbox(shapes)['params'],
  )
  audio = rng.normal(size=audio.shape).astype(np.float32)
  apply = jax.jit(
      lambda p, x: module.apply({'params': p}, x, lengths),
      compiler_options={'xla_backend_optimization_level': 0},
  )
  return params, audio, apply(params, audio)


def _kernel(params):
  """[..., in, out] and its gain -> torch's [out, in, ...]."""
  v = torch.tensor(np.moveaxis(params['kernel'], (-1, -2), (0, 1)).copy())
  norms = v.flatten(1).norm(dim=1)
  gain = torch.tensor(params['gain']) / norms
  return v * gain.reshape(-1, *[1] * (v.ndim - 1))


def _conv(x, params, **options):
  convolve = functional.conv2d if x.ndim == 4 else functional.conv1d
  return convolve(x, _kernel(params), torch.tensor(params['bias']), **options)


def _same(got, want):
  """Ours [B, N, ..., C], theirs [B, C, N, ...]."""
  want = np.moveaxis(want.numpy(), 1, -1)
  if want.shape[-1] == 1 and got.ndim < want.ndim:
    want = want[..., 0]
  assert got.shape == want.shape
  np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())


def test_multi_period():
  module = discriminators.MultiPeriod(periods=(3, 5), channels=(4, 6, 8))
  params, audio, verdicts = _setup(module)
  for period, verdict in zip((3, 5), verdicts, strict=True):
    p = params[f'period_{period}']
    x = torch.tensor(audio[..., 0]).reshape(2, 1, -1, period)
    for i, stride in enumerate((3, 3, 1)):
      x = _conv(x, p[f'conv_{i}'], stride=(stride, 1), padding=(2, 0))
      x = functional.leaky_relu(x, 0.1)
      _same(verdict.features[i].values, x)
    _same(verdict.logits.values, _conv(x, p['head'], padding=(1, 0)))


def test_multi_scale():
  widths, strides, groups = (5, 9, 3), (1, 4, 1), (1, 4, 1)
  module = discriminators.MultiScale(
      scales=2,
      channels=(4, 8, 8),
      widths=widths,
      strides=strides,
      groups=groups,
  )
  params, audio, verdicts = _setup(module)
  signal = torch.tensor(np.moveaxis(audio, 2, 1).copy())
  for scale, verdict in enumerate(verdicts):
    if scale:
      signal = functional.avg_pool1d(signal, 4, 2, padding=2)
    p, x = params[f'scale_{scale}'], signal
    for i in range(3):
      x = _conv(
          x,
          p[f'conv_{i}'],
          stride=strides[i],
          padding=widths[i] // 2,
          groups=groups[i],
      )
      x = functional.leaky_relu(x, 0.1)
      _same(verdict.features[i].values, x)
    _same(verdict.logits.values, _conv(x, p['head'], padding=1))


def test_multi_scale_stft():
  module = discriminators.MultiScaleStft(
      sizes=(64,), filters=4, dilations=(1, 2)
  )
  params, audio, (verdict,) = _setup(module, channels=2)
  p = params['size_64']
  window = torch.hann_window(64)
  spectra = torch.stft(
      torch.tensor(np.moveaxis(audio, 2, 1).reshape(4, -1).copy()),
      64,
      16,
      window=window,
      center=False,
      return_complex=True,
  )
  spectra = spectra / window.square().sum().sqrt()
  x = spectra.reshape(2, 2, 33, -1).transpose(2, 3)
  x = torch.cat([x.real, x.imag], dim=1)
  settings = [
      {'padding': (1, 4)},
      {'padding': (1, 4), 'stride': (1, 2)},
      {'padding': (2, 4), 'stride': (1, 2), 'dilation': (2, 1)},
      {'padding': (1, 1)},
  ]
  for i, options in enumerate(settings):
    x = functional.leaky_relu(_conv(x, p[f'conv_{i}'], **options), 0.2)
    _same(verdict.features[i].values, x)
  _same(verdict.logits.values, _conv(x, p['head'], padding=(1, 1)))


def test_multi_band_stft():
  module = discriminators.MultiBandStft(
      sizes=(64,), filters=4, bands=(0.25, 0.5), layers=3
  )
  params, audio, (verdict,) = _setup(module)
  p = params['size_64']
  # (64 - 16) / 2 zeros before make the first frame's centre that of its hop.
  padded = functional.pad(torch.tensor(audio[..., 0]), (24, 24))
  spectra = torch.stft(
      padded,
      64,
      16,
      window=torch.hann_window(64),
      center=False,
      return_complex=True,
  ).transpose(1, 2)
  x = torch.stack([spectra.real, spectra.imag], dim=1)
  outputs = []
  for band, (low, high) in enumerate([(0, 8), (8, 16), (16, 33)]):
    y = x[..., low:high]
    for i, options in enumerate(
        [
            {'padding': (1, 4)},
            {'padding': (1, 4), 'stride': (1, 2)},
            {'padding': (1, 1)},
        ]
    ):
      y = _conv(y, p[f'band_{band}_conv_{i}'], **options)
      y = functional.leaky_relu(y, 0.1)
      _same(verdict.features[3 * band + i].values, y)
    outputs.append(y)
  head = _conv(torch.cat(outputs, dim=-1), p['head'], padding=(1, 1))
  _same(verdict.logits.values, head)
