"""Spectral distances between waveforms, a sum for each clip.

Every distance is a mean over bins, summed over the frames whose centre is
valid, times the hop: it is in units of samples, so that scales add up with
equal weight, clips may be added, and a sum divides by the number of valid
samples.
"""

from collections.abc import Collection, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from audiolm_jax.ops import mel
from audiolm_jax.ops import stft

# Log magnitudes are of magnitude + this: speech of -25 dB RMS has bands of
# about 1 to 30, and what lies far below the quantisation noise should not count.
FLOOR = 1e-3
NAMES = ('mel', 'stft', 'complex')


def distances(
    estimate: Float[Array, 'B T'],
    target: Float[Array, 'B T'],
    num_samples: Int[Array, 'B'],
    *,
    sample_rate: int,
    sizes: Sequence[int],
    mels: Sequence[int],
    complex_size: int,
    complex_power: float,
    names: Collection[str] = NAMES,
) -> dict[str, Float[Array, 'B']]:
  """Sums over each row's valid samples of three distances.

  - 'mel': L1 of log mel magnitudes, averaged over scales (Defossez et al. 2022,
    eq. 3, without the L2 part);
  - 'stft': L1 of log magnitudes plus L1 of magnitudes^0.5 (after Yamamoto et
    al. 2020, without spectral convergence, which does not add over clips), at
    windows of `complex_size` and up: short ones see no more than mel bands do;
  - 'complex': L1 of |S|^power e^(i phase), real and imaginary part.

  Args:
    estimate: waveform, zero past the lengths.
    target: waveform, zero past the lengths.
    num_samples: valid samples.
    sample_rate: in Hz.
    sizes: windows, in samples; hops are a quarter.
    mels: bands at each size.
    complex_size: the window of 'complex', one of `sizes`.
    complex_power: its compression; the stronger, the more it asks for the phase
      of bins of noise, which nothing can predict.
    names: which of the three to compute.
  """
  total = dict.fromkeys(names, 0.0)
  for size, bands in zip(sizes, mels, strict=True):
    hop = size // 4
    (x, x_abs), (y, y_abs) = (_spectrum(s, size) for s in (estimate, target))
    centres = jnp.arange(x.shape[1]) * hop
    weight = (centres < num_samples[:, None]) * (hop / len(sizes))

    def add(name, difference, weight=weight):
      mean = jnp.mean(jnp.abs(difference), axis=-1)
      values = jnp.where(weight > 0, mean, 0.0) * weight
      total[name] += jnp.sum(values, axis=1)

    if 'mel' in names:
      x_mel, y_mel = (
          mel.mel_spectrogram(s, sample_rate, bands) for s in (x_abs, y_abs)
      )
      add('mel', jnp.log(x_mel + FLOOR) - jnp.log(y_mel + FLOOR))
    if size >= complex_size and 'stft' in names:
      add('stft', jnp.log(x_abs + FLOOR) - jnp.log(y_abs + FLOOR))
      add('stft', jnp.sqrt(x_abs) - jnp.sqrt(y_abs))
    if size == complex_size and 'complex' in names:
      x_factor, y_factor = (
          _power(s, complex_power - 1) * len(sizes) for s in (x_abs, y_abs)
      )
      add('complex', x.real * x_factor - y.real * y_factor)
      add('complex', x.imag * x_factor - y.imag * y_factor)
  return total


def _spectrum(signal, size):
  """Fourier transforms of windows a quarter apart, and their magnitudes."""
  s = stft.stft(stft.centered(signal, size, size // 4), size, size // 4)
  # The square root of nothing has no gradient.
  return s, jnp.sqrt(jnp.square(s.real) + jnp.square(s.imag) + 1e-10)


def _power(s, exponent):
  # CPUs have no fast power.
  return jnp.exp(exponent * jnp.log(s))
