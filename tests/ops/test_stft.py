"""STFT and mel against scipy and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from audiolm_jax.ops import mel
from audiolm_jax.ops import stft


@pytest.mark.parametrize('size,hop,samples', [(16, 4, 100), (24, 6, 61)])
def test_stft_equals_scipy(size, hop, samples):
  x = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
  actual = stft.stft(x[None], size, hop)[0]
  transform = scipy.signal.ShortTimeFFT(
      scipy.signal.get_window('hann', size), hop, fs=1.0, phase_shift=None
  )
  # scipy's slices are centred on p hop; ours start there.
  first = size // 2 // hop - transform.p_min
  expected = transform.stft(x).T[first : first + len(actual)]
  assert len(actual) == (samples - size) // hop + 1
  np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_frames_of_a_size_that_hop_does_not_divide():
  x = np.random.default_rng(0).standard_normal(61).astype(np.float32)
  expected = np.stack([x[n * 8 : n * 8 + 20] for n in range(6)])
  np.testing.assert_array_equal(stft.frame(x, 20, 8), expected)


def test_overlap_add_is_the_transpose_of_frame():
  rng = np.random.default_rng(1)
  x = rng.standard_normal((2, 20)).astype(np.float32)
  frames, transpose = jax.vjp(lambda x: stft.frame(x, 8, 4), x)
  y = rng.standard_normal(frames.shape).astype(np.float32)
  np.testing.assert_allclose(
      transpose(y)[0], stft.overlap_add(y, 4), rtol=1e-6, atol=1e-6
  )


def test_centered_frames_are_centred():
  x = np.zeros((1, 40), np.float32)
  x[0, 24] = 1.0
  power = jnp.sum(
      jnp.square(jnp.abs(stft.stft(stft.centered(x, 16, 4), 16, 4))), -1
  )
  assert power.shape == (1, 11)
  assert int(jnp.argmax(power[0])) == 6


def test_frames_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match='do not fill'):
    stft.frame(jnp.zeros((1, 7)), 8, 4)
  with pytest.raises(ValueError, match='does not divide'):
    stft.overlap_add(jnp.zeros((1, 2, 8)), 3)


def test_mel_filters_are_triangles_between_equal_mel_steps():
  filters = mel.mel_filters(16000, 2048, 80)
  bins = np.arange(1025) * 16000 / 2048
  peaks = bins[filters.argmax(axis=0)]
  edges = mel.mel_to_hertz(np.linspace(0, mel.hertz_to_mel(8000), 82))
  np.testing.assert_allclose(peaks, edges[1:-1], atol=16000 / 2048)
  assert filters.max() <= 1.0
  # Neighbours cross-fade: between the first and last centre they add to one.
  inside = (bins > edges[10]) & (bins < edges[-2])
  np.testing.assert_allclose(filters.sum(axis=1)[inside], 1.0, atol=1e-5)


def test_every_mel_filter_sees_something():
  for size, mels in ((128, 64), (256, 80)):
    assert (mel.mel_filters(16000, size, mels).sum(axis=0) > 0).all()


def test_mel_scale_is_htk():
  assert mel.hertz_to_mel(1000.0) == pytest.approx(1000.0, abs=0.1)
  x = np.linspace(0, 8000, 9)
  np.testing.assert_allclose(mel.mel_to_hertz(mel.hertz_to_mel(x)), x)
