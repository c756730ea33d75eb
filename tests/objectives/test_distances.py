"""Codecs' distances against numpy written from the papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from audiolm_jax import config
from audiolm_jax.objectives import distances as distances_lib
from audiolm_jax.ops import mel

RATE = 16000
LENGTH = 500
SIZES = (64, 128)
_RNG = np.random.default_rng(0)
X, Y = _RNG.standard_normal((2, LENGTH, 2)).astype(np.float32)

SMALL = {
    'waveform': distances_lib.Waveform(),
    'encodec_mel': distances_lib.EncodecMel(sizes=SIZES, mels=8),
    'log_mel': distances_lib.LogMel(sizes=SIZES, mels=(5, 10)),
    'multi_resolution_stft': distances_lib.MultiResolutionStft(
        sizes=SIZES, linear=0.5
    ),
    'band_envelopes': distances_lib.BandEnvelopes(
        size=64, segment_seconds=0.008, low=1000.0, bands=4
    ),
}


def _magnitudes(x, size):
  """|STFT| [N, bins] of one channel, frames centred on n size / 4 < T."""
  hop = size // 4
  padded = np.pad(x, (size // 2, size))
  window = scipy.signal.get_window('hann', size)
  frames = [
      padded[n * hop : n * hop + size] * window
      for n in range(-(-len(x) // hop))
  ]
  return np.abs(np.fft.rfft(frames))


def _mean(x, y, function):
  """Mean over channels of a function of their magnitudes."""
  return np.mean([function(x[:, c], y[:, c]) for c in range(x.shape[1])])


def _encodec_mel(x, y):
  total = 0
  for size in SIZES:
    norm = np.sum(scipy.signal.get_window('hann', size) ** 2)
    filters = mel.mel_filters(RATE, size, 8)
    a, b = (_magnitudes(z, size) ** 2 / norm @ filters for z in (x, y))
    logs = np.log10(a + 1e-5) - np.log10(b + 1e-5)
    total += np.mean(np.abs(a - b)) + np.mean(logs**2)
  return total / 4


def _dac_mel(x, y):
  total = 0
  for size, bands in zip(SIZES, (5, 10), strict=True):
    filters = mel.mel_filters(RATE, size, bands, convention='slaney')
    a, b = (np.maximum(_magnitudes(z, size) @ filters, 1e-5) for z in (x, y))
    total += np.mean(np.abs(np.log10(a / b)))
  return total


def _resolutions(x, y):
  total = 0
  for size in SIZES:
    a, b = _magnitudes(x, size), _magnitudes(y, size)
    total += np.linalg.norm(a - b) / np.linalg.norm(b)
    total += np.mean(np.abs(np.log(a / b))) + 0.5 * np.mean(np.abs(a - b))
  return total / 2


def _band_envelopes(x, y):
  """Segments of 8 frames, every second frame; no level is quiet here."""
  bins = np.fft.rfftfreq(64, 1 / RATE)
  found = []
  for k in range(4):
    centre = 1000 * 2 ** (k / 3)
    inside = (bins >= centre * 2 ** (-1 / 6)) & (bins < centre * 2 ** (1 / 6))
    a, b = (
        np.sqrt(np.sum(_magnitudes(z, 64)[:, inside] ** 2, axis=1))
        for z in (x, y)
    )
    found += [
        np.corrcoef(a[n : n + 8], b[n : n + 8])[0, 1]
        for n in range(0, len(a) - 7, 2)
    ]
  return 1 - np.mean(found)


def _stereo_resolutions(x, y):
  mid, side = ((z[:, 0] + z[:, 1], z[:, 0] - z[:, 1]) for z in (x, y))
  total = (_resolutions(mid[0], side[0]) + _resolutions(mid[1], side[1])) / 2
  return total + 0.5 * sum(_resolutions(x[:, c], y[:, c]) for c in (0, 1))


WANT = {
    'waveform': np.mean(np.abs(X - Y)),
    'encodec_mel': _mean(X, Y, _encodec_mel),
    'log_mel': _mean(X, Y, _dac_mel),
    'multi_resolution_stft': _stereo_resolutions(X, Y),
    'band_envelopes': _mean(X, Y, _band_envelopes),
}


def _compiled(name):
  """(distances by row, counts), and the gradient of the distances' sum."""
  distance = SMALL[name]

  def total(x, y, n):
    rows = distance(x, y, n, RATE)
    return jnp.sum(rows[0]), rows

  return jax.jit(
      jax.grad(total, has_aux=True),
      compiler_options={'xla_backend_optimization_level': 0},
  )


def _of_row(distance, estimate, target, length):
  """The mean of one row [T, C] alone, unpadded."""
  pair = (jnp.asarray(x)[None, :length] for x in (estimate, target))
  (total,), (count,) = distance(*pair, jnp.array([length]), RATE)
  assert count == length
  return float(total / count)


def test_every_distance_is_tested_here():
  assert {k: type(v) for k, v in SMALL.items()} == distances_lib.DISTANCES


@pytest.mark.parametrize('name', sorted(SMALL))
def test_distance(name):
  """Rows' values, padded ones too; zero for equals; gradients of silence."""
  batch = np.zeros((3, 2, 700, 2), np.float32)
  batch[0, :, :LENGTH] = X, Y
  batch[1, :, :LENGTH] = X, X
  num_samples = jnp.array([LENGTH, LENGTH, 0])
  run = _compiled(name)
  gradient, (rows, counts) = run(batch[:, 0], batch[:, 1], num_samples)
  assert float(rows[0]) == pytest.approx(LENGTH * WANT[name], rel=1e-4)
  assert abs(rows[1]) < 1e-3 * rows[0] and rows[2] == 0
  assert counts.tolist() == [LENGTH, LENGTH, 0]
  assert np.abs(gradient[0]).max() > 0
  assert not np.asarray(gradient[2]).any()
  nothing = np.zeros_like(batch[:, 0])
  of_silence, _ = run(nothing, batch[:, 1], num_samples)
  assert np.isfinite(gradient).all() and np.isfinite(of_silence).all()


@pytest.mark.parametrize('name', sorted(SMALL))
def test_a_row_is_measured_as_if_alone(name):
  """Whatever its length, the padding and the other rows are."""
  lengths = (LENGTH, 333, 470)
  batch = np.zeros((3, 2, 640, 2), np.float32)
  for row, length in enumerate(lengths):
    batch[row, :, :length] = X[::-1][:length], Y[row:][:length]
  run = _compiled(name)
  _, (rows, counts) = run(batch[:, 0], batch[:, 1], jnp.array(lengths))
  for row, length in enumerate(lengths):
    alone = _of_row(SMALL[name], *batch[row], length)
    assert float(rows[row] / counts[row]) == pytest.approx(alone, rel=1e-5)
  # The best of all permutations of sources is what separation needs.
  assert len(set((rows / counts).tolist())) == 3


def test_mono_is_not_split():
  value = _of_row(SMALL['multi_resolution_stft'], X[:, :1], Y[:, :1], LENGTH)
  assert value == pytest.approx(_resolutions(X[:, 0], Y[:, 0]), rel=1e-4)


def test_audiocrafts_options():
  """L1 of logarithms, factors that grow with the size."""
  distance = distances_lib.EncodecMel(
      sizes=(64,), mels=8, l1_of='log', alphas='root', power=1.0, low=64.0
  )
  norm = np.sqrt(np.sum(scipy.signal.get_window('hann', 64) ** 2))
  filters = mel.mel_filters(RATE, 64, 8, 64.0)
  a, b = (
      np.log10(_magnitudes(z[:, 0], 64) / norm @ filters + 1e-5) for z in (X, Y)
  )
  root = np.sqrt(63)
  want = np.mean(np.abs(a - b)) + root * np.mean((a - b) ** 2)
  got = _of_row(distance, X[:, :1], Y[:, :1], LENGTH)
  assert got == pytest.approx(want / (1 + root), rel=1e-4)


def test_hifi_gans_and_vocos_mel():
  for convention in ('slaney', 'htk'):
    distance = distances_lib.LogMel(
        sizes=(64,), mels=(8,), filters=convention, logarithm='natural'
    )
    filters = mel.mel_filters(RATE, 64, 8, convention=convention)
    a, b = (
        np.maximum(_magnitudes(z[:, 0], 64) @ filters, 1e-5) for z in (X, Y)
    )
    got = _of_row(distance, X[:, :1], Y[:, :1], LENGTH)
    assert got == pytest.approx(np.mean(np.abs(np.log(a / b))), rel=1e-4)


def test_mels_are_of_every_size():
  with pytest.raises(config.ConfigError, match='1 sizes'):
    distances_lib.LogMel(sizes=(64,), mels=(5, 10))


def _modulated(seed):
  """Two seconds of noise whose loudness changes like that of syllables."""
  rng = np.random.default_rng(seed)
  times = np.arange(2 * RATE) / RATE
  loudness = 1.1 + np.sin(2 * np.pi * 4 * times) * np.cos(9 * times)
  return 0.1 * loudness * rng.standard_normal(len(times))


def test_band_envelopes_order_as_stoi_does():
  """Noise of falling level and a lowpass, in STOI's order and near its value."""
  pystoi = pytest.importorskip('pystoi')
  clean = _modulated(0)
  noise = np.random.default_rng(1).standard_normal(len(clean))
  lowpass = scipy.signal.butter(4, 2000, fs=RATE, output='sos')
  estimates = [clean + level * noise for level in (0.2, 0.1, 0.05, 0.02, 0.005)]
  estimates.append(scipy.signal.sosfilt(lowpass, clean) + 0.05 * noise)
  distance = jax.jit(distances_lib.BandEnvelopes(), static_argnums=3)
  ours, theirs = [], []
  for estimate in estimates:
    pair = (np.float32(z)[:, None] for z in (estimate, clean))
    ours.append(1 - _of_row(distance, *pair, len(clean)))
    theirs.append(pystoi.stoi(clean, estimate, RATE))
  assert np.argsort(ours).tolist() == np.argsort(theirs).tolist()
  near = np.array(theirs) > 0.95
  np.testing.assert_allclose(
      np.array(ours)[near], np.array(theirs)[near], atol=0.02
  )


def test_band_envelopes_ignore_loudness_but_not_silence():
  """A gain costs nothing, quiet segments little, equal silence nothing."""
  clean = _modulated(2)
  broken = clean.copy()
  clean[RATE:] *= 1e-5
  broken[RATE:] = np.random.default_rng(3).standard_normal(RATE) * 1e-6
  distance = jax.jit(distances_lib.BandEnvelopes(), static_argnums=3)

  def of(estimate, target):
    pair = (np.float32(z)[:, None] for z in (estimate, target))
    return _of_row(distance, *pair, 2 * RATE)

  nothing = np.zeros(2 * RATE)
  assert abs(of(0.5 * clean, clean)) < 1e-2
  assert abs(of(nothing, nothing)) < 1e-6
  assert of(broken, clean) < 0.05 < 0.2 < of(broken[::-1], clean)
