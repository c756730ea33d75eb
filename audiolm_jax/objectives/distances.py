"""Distances between waveforms in the conventions of published codecs.

Each gives, for each row, a sum in units of samples (frames count their hop) and
the number of valid samples to divide it by. Their ratio is a mean over the
row's own samples or frames, whatever the batch is padded to. A codec's loss adds
up both over rows, so that rows are weighted by their length; what has to choose
between permutations of sources, or between two answers, compares rows.
Estimates and targets are zero past the lengths.
"""

import abc
from collections.abc import Iterator
import dataclasses
from typing import Annotated, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax import streaming
from audiolm_jax.ops import mel
from audiolm_jax.ops import stft

_Sizes = Annotated[tuple[int, ...], config.Range(min=16)]

Audio = Float[Array, 'B T C']
Rows = tuple[Float[Array, 'B'], Float[Array, 'B']]


class Distance(abc.ABC):
  """A term of the codec's loss; subclasses are frozen dataclasses.

  Attributes:
    weight: its factor in the loss (or its share, with the balancer).
  """

  weight: float

  @abc.abstractmethod
  def __call__(
      self,
      estimate: Audio,
      target: Audio,
      num_samples: Int[Array, 'B'],
      sample_rate: int,
  ) -> Rows:
    """The distance of each row.

    Args:
      estimate: waveforms, zero past the lengths.
      target: waveforms, zero past the lengths.
      num_samples: valid samples of each row.
      sample_rate: in Hz.

    Returns:
      (sum over valid samples, their number), [B] each; 0 and 0 of empty rows.
    """


@dataclasses.dataclass(frozen=True)
class Waveform(Distance):
  """L1 of samples, averaged over channels.

  Attributes:
    weight: see `Distance`.
  """

  weight: config.NonNegative = 0.1

  def __call__(self, estimate, target, num_samples, sample_rate):
    del sample_rate
    error = jnp.mean(jnp.abs(estimate - target), axis=-1)
    # JAX's derivative of |0| is not zero, so padding is masked here too.
    mask = streaming.length_mask(num_samples, error.shape[1])
    return _rows(jnp.sum(jnp.where(mask, error, 0.0), axis=1), num_samples)


@dataclasses.dataclass(frozen=True)
class EncodecMel(Distance):
  """L1 and squared L2 of mel spectra at several scales (EnCodec, eq. 3).

  Windows are normalised to unit energy, filters are HTK's. The paper leaves
  open what the norms are of; as in its code, L1 is of the spectra and L2 of
  their logarithms (base 10).

  Attributes:
    weight: see `Distance`.
    sizes: windows, in samples; hops are a quarter.
    mels: bands.
    low: lower edge of the lowest band, in Hz.
    power: of the magnitudes: 2 for energies.
    l1_of: 'linear' spectra or their 'log'.
    alphas: factors of the L2 part: 'one', or the 'root' of the size.
    floor: added before the logarithm.
  """

  weight: config.NonNegative = 1.0
  sizes: _Sizes = (32, 64, 128, 256, 512, 1024, 2048)
  mels: config.Positive = 64
  low: config.NonNegative = 0.0
  power: config.NonNegative = 2.0
  l1_of: Literal['linear', 'log'] = 'linear'
  alphas: Literal['one', 'root'] = 'one'
  floor: config.NonNegative = 1e-5

  def __call__(self, estimate, target, num_samples, sample_rate):
    total, norm = 0.0, 0.0
    for size in self.sizes:
      frames = []
      for audio in (estimate, target):
        energy = _energies(audio, size, normalised=True)
        # Powers below 1 have no gradient at nothing.
        spectra = energy if self.power == 2 else _root(energy) ** self.power
        frames.append(
            mel.mel_spectrogram(spectra, sample_rate, self.mels, self.low)
        )
      logs = [jnp.log10(self.floor + f) for f in frames]
      x, y = frames if self.l1_of == 'linear' else logs
      alpha = 1.0 if self.alphas == 'one' else (size - 1) ** 0.5
      total += _frame_sums(jnp.abs(x - y), size, num_samples)
      total += alpha * _frame_sums(
          jnp.square(logs[0] - logs[1]), size, num_samples
      )
      norm += 1 + alpha
    return _rows(total / norm, num_samples)


@dataclasses.dataclass(frozen=True)
class LogMel(Distance):
  """L1 of log mel magnitudes at one or several scales, which add up.

  As it stands DAC's (Kumar et al. 2023, section 3.5): Slaney's filters, log10
  of the magnitudes above a floor. HiFi-GAN's has one size and the natural
  logarithm, Vocos' HTK's filters too.

  Attributes:
    weight: see `Distance`.
    sizes: windows, in samples; hops are a quarter.
    mels: bands at each size.
    filters: their convention, as in `ops.mel`.
    logarithm: base 10 or natural.
    floor: smallest magnitude.
    power: of the mel magnitudes: a factor of their logarithms.
  """

  weight: config.NonNegative = 15.0
  sizes: _Sizes = (32, 64, 128, 256, 512, 1024, 2048)
  mels: config.Sizes = (
      5,
      10,
      20,
      40,
      80,
      160,
      320,
  )
  filters: mel.Convention = 'slaney'
  logarithm: Literal['ten', 'natural'] = 'ten'
  floor: Annotated[float, config.Range(min=1e-12)] = 1e-5
  power: config.NonNegative = 1.0

  def __post_init__(self):
    if len(self.sizes) != len(self.mels):
      raise config.ConfigError(
          f'{len(self.sizes)} sizes, but mels for {len(self.mels)} of them'
      )

  def __call__(self, estimate, target, num_samples, sample_rate):
    total = 0.0
    for size, bands in zip(self.sizes, self.mels, strict=True):
      x, y = (
          mel.mel_spectrogram(
              _root(_energies(audio, size)),
              sample_rate,
              bands,
              convention=self.filters,
          )
          for audio in (estimate, target)
      )
      x, y = (jnp.log(jnp.maximum(m, self.floor)) for m in (x, y))
      total += _frame_sums(jnp.abs(x - y), size, num_samples)
    base = jnp.log(10.0) if self.logarithm == 'ten' else 1
    return _rows(total * self.power / base, num_samples)


@dataclasses.dataclass(frozen=True)
class MultiResolutionStft(Distance):
  """Spectral convergence and L1 of (log) magnitudes (Yamamoto et al. 2020).

  Of stereo: the mean over mid and side, and half of left and of right
  (Steinmetz et al. 2020; stable-audio). Spectral convergence is of each row.

  Attributes:
    weight: see `Distance`.
    sizes: windows, in samples; hops are a quarter.
    convergence: factor of |X - Y| / |Y|, norms over a row's frames and bins.
    log: factor of the L1 of natural log magnitudes.
    linear: factor of the L1 of magnitudes.
    side: factor of left and of right, beside mid and side; stereo only.
  """

  weight: config.NonNegative = 1.0
  sizes: _Sizes = (2048, 1024, 512, 256, 128, 64, 32)
  convergence: config.NonNegative = 1.0
  log: config.NonNegative = 1.0
  linear: config.NonNegative = 0.0
  side: config.NonNegative = 0.5

  def __call__(self, estimate, target, num_samples, sample_rate):
    del sample_rate
    pairs = zip(self._views(estimate), self._views(target), strict=True)
    total = 0.0
    for (factor, x), (_, y) in pairs:
      for size in self.sizes:
        total += factor * self._scale(x, y, num_samples, size)
    return _rows(total / len(self.sizes), num_samples)

  def _views(self, audio: Audio) -> Iterator[tuple[float, Audio]]:
    if audio.shape[-1] != 2:
      yield 1.0, audio
      return
    left, right = audio[..., :1], audio[..., 1:]
    yield 0.5, left + right
    yield 0.5, left - right
    yield self.side, left
    yield self.side, right

  def _scale(self, x, y, num_samples, size):
    x, y = (_root(_energies(audio, size), 1e-8) for audio in (x, y))
    total = 0.0
    if self.log:
      logs = jnp.abs(jnp.log(x) - jnp.log(y))
      total += self.log * _frame_sums(logs, size, num_samples)
    if self.linear:
      total += self.linear * _frame_sums(jnp.abs(x - y), size, num_samples)
    if self.convergence:
      mask = _valid(x.shape[1], size, num_samples)[..., None, None]
      above, below = (
          jnp.sum(jnp.where(mask, jnp.square(z), 0.0), axis=(1, 2, 3))
          for z in (x - y, y)
      )
      ratio = _root(above, 1e-12) / _root(below, 1e-12)
      total += self.convergence * num_samples * ratio
    return total


@dataclasses.dataclass(frozen=True)
class BandEnvelopes(Distance):
  """1 - correlation of magnitudes over time within third-octave bands.

  What STOI counts (Taal et al. 2011, eqs. 1 and 5), differentiable: means over
  15 bands and over overlapping segments, without its clipping, at the signal's
  own rate, and with quiet segments weighted down where it drops quiet frames.
  A codec trained with it has seen what STOI judges: say so beside its scores.

  Attributes:
    weight: see `Distance`.
    size: window, in samples; hops are a quarter.
    segment_seconds: length of the segments, which overlap by three quarters.
    low: centre of the lowest band, in Hz.
    bands: how many, a third of an octave apart.
    floor: magnitudes this far below a row's loudest band and segment, as a
      ratio of norms, count for little.
  """

  weight: config.NonNegative = 1.0
  size: Annotated[int, config.Range(min=16)] = 512
  segment_seconds: Annotated[float, config.Range(min=1e-3)] = 0.384
  low: Annotated[float, config.Range(min=1)] = 150.0
  bands: config.Positive = 15
  floor: Annotated[float, config.Range(min=1e-6, max=1)] = 1e-3

  def __call__(self, estimate, target, num_samples, sample_rate):
    hop = self.size // 4
    span = max(round(self.segment_seconds * sample_rate / hop), 2)
    weights = self._filters(sample_rate)
    mask = _valid(-(-estimate.shape[1] // hop), self.size, num_samples)
    pieces = []
    for audio in (estimate, target):
      energies = _energies(audio, self.size)[:, : mask.shape[1]] @ weights
      bands = jnp.where(mask[..., None, None], _root(energies, 1e-8), 0.0)
      pieces.append(_segments(bands, span))
    inside = _segments(mask[..., None, None], span).all(axis=2)
    x, y = (p - jnp.mean(p, axis=2, keepdims=True) for p in pieces)
    norms = jnp.sum(jnp.square(y), axis=2)
    loudest = jnp.max(norms, axis=(1, 2, 3), keepdims=True)
    quiet = jnp.square(self.floor) * loudest + 1e-8
    power = jnp.sum(jnp.square(x), axis=2)
    product = jnp.sqrt(power + quiet) * jnp.sqrt(norms + quiet)
    # The floor adds to both sides: equal signals correlate perfectly.
    match = (jnp.sum(x * y, axis=2) + quiet) / product
    lost = jnp.where(inside, jnp.mean(1 - match, axis=(2, 3), keepdims=True), 0)
    count = jnp.maximum(jnp.sum(inside, axis=(1, 2, 3)), 1)
    means = jnp.sum(lost, axis=(1, 2, 3)) * num_samples / count
    return _rows(means, num_samples)

  def _filters(self, sample_rate):
    """[bins, bands]: which bins are in which band."""
    frequencies = np.fft.rfftfreq(self.size, 1 / sample_rate)[:, None]
    centres = self.low * 2 ** (np.arange(self.bands) / 3)
    ratio = frequencies / centres
    inside = (ratio >= 2 ** (-1 / 6)) & (ratio < 2 ** (1 / 6))
    # A band narrower than a bin has the nearest one.
    nearest = np.argmin(np.abs(frequencies - centres), axis=0)
    inside[nearest, np.arange(self.bands)] = True
    return jnp.asarray(inside, jnp.float32)


def _rows(sums, num_samples) -> Rows:
  return sums, num_samples.astype(jnp.float32)


def _segments(x, span):
  """[B, S, span, ...] of [B, N, ...], every span / 4-th frame."""
  size = max(x.shape[1], span)
  x = jnp.pad(x, [(0, 0), (0, size - x.shape[1])] + [(0, 0)] * (x.ndim - 2))
  starts = np.arange(0, size - span + 1, max(span // 4, 1))
  return jnp.stack([x[:, start : start + span] for start in starts], axis=1)


def _energies(audio, size, normalised=False):
  """|STFT|^2 [B, N, C, bins] of frames centred on every size / 4-th sample."""
  hop = size // 4
  window = stft.hann(size)
  if normalised:
    window = window / jnp.sqrt(jnp.sum(jnp.square(window)))
  x = jnp.moveaxis(audio, 2, 1)
  spectra = stft.stft(stft.centered(x, size, hop), size, hop, window)
  energies = jnp.square(spectra.real) + jnp.square(spectra.imag)
  return jnp.moveaxis(energies, 1, 2)


def _root(x, floor=1e-12):
  """Square roots with a gradient at zero."""
  return jnp.sqrt(jnp.maximum(x, floor))


def _valid(count, size, num_samples):
  """[B, N]: frames whose centre is one of the row's samples."""
  return jnp.arange(count) * (size // 4) < num_samples[:, None]


def _frame_sums(values, size, num_samples):
  """The mean over each row's frames times its samples, [B].

  Args:
    values: [B, N, C, bins].
    size: of the frames; hops are a quarter.
    num_samples: [B] samples.
  """
  mask = _valid(values.shape[1], size, num_samples)
  means = jnp.where(mask, jnp.mean(values, axis=(2, 3)), 0.0)
  count = jnp.maximum(jnp.sum(mask, axis=1), 1)
  return jnp.sum(means, axis=1) * num_samples / count


DISTANCES = {
    'waveform': Waveform,
    'encodec_mel': EncodecMel,
    'log_mel': LogMel,
    'multi_resolution_stft': MultiResolutionStft,
    'band_envelopes': BandEnvelopes,
}
