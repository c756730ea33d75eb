"""What bits per sample are without a neural network.

Two lossless coders, both of which know only the past of a clip: FLAC as it is,
and linear prediction with a residual whose scale follows its own past.
"""

from collections.abc import Sequence
import dataclasses
import io
import itertools

from jaxtyping import Float, Int
import numpy as np
import scipy.linalg
import scipy.signal
import soundfile

# What tuning tries: the memory of the residual's scale, and its factor.
DECAYS = (0.7, 0.8, 0.9, 0.96, 0.99)
GAINS = (0.35, 0.5, 0.7, 1.0)
# The scale's least value, in levels: digital silence is not certain to go on.
_FLOOR = 0.1


def flac_bits(
    samples: Int[np.ndarray, 'T C'], bits: int, sample_rate: int
) -> float:
  """Bits of FLAC's frames of a clip (libFLAC, default level); no metadata.

  Grids of fewer than 16 bits are shifted up: FLAC leaves out low bits that are
  zero throughout.
  """
  file = io.BytesIO()
  shifted = (samples.astype(np.int64) << (16 - bits)).astype(np.int16)
  soundfile.write(file, shifted, sample_rate, format='FLAC', subtype='PCM_16')
  data = file.getvalue()
  # 'fLaC', then blocks: a flag for the last and a type (1 byte), a size (3).
  start, last = 4, False
  while not last:
    last = data[start] >= 128
    start += 4 + int.from_bytes(data[start + 1 : start + 4], 'big')
  return 8.0 * (len(data) - start)


@dataclasses.dataclass(frozen=True)
class Linear:
  """x_n is logistic around a linear prediction, on the grid of levels.

  The scale is `gain` times the mean of past residuals' sizes, which decays by
  `decay` a sample. Channels are independent.

  Attributes:
    coefficients: of samples n - 1, n - 2, ...
    decay: of the mean.
    gain: of the scale.
    first: the mean before the first sample, in levels.
    bits: of the grid.
  """

  coefficients: Float[np.ndarray, 'P']
  decay: float
  gain: float
  first: float
  bits: int

  def bits_of(
      self, samples: Int[np.ndarray, 'T C']
  ) -> Float[np.ndarray, 'T C']:
    """Bits of every sample."""
    x = samples.astype(np.float64)
    return self._bits(x, _residual(x, self.coefficients))

  def _bits(self, x, residual):
    sizes = np.abs(residual)
    sizes = np.concatenate([np.full((1, x.shape[1]), self.first), sizes[:-1]])
    start = np.full((1, x.shape[1]), self.decay * self.first)
    average, _ = scipy.signal.lfilter(
        [1 - self.decay], [1.0, -self.decay], sizes, axis=0, zi=start
    )
    scale = self.gain * average + _FLOOR
    low, high = ((residual + edge) / scale for edge in (-0.5, 0.5))
    half = 2 ** (self.bits - 1)
    # As in waveform_heads.logistic_log_mass: S(b) S(-a) (1 - exp(a - b)).
    lowest, highest = x == -half, x == half - 1
    log_mass = (
        np.where(highest, 0.0, -np.logaddexp(0, -high))
        + np.where(lowest, 0.0, -np.logaddexp(0, low))
        + np.where(lowest | highest, 0.0, np.log(-np.expm1(-1 / scale)))
    )
    return -log_mass / np.log(2)


def fit_linear(
    clips: Sequence[Int[np.ndarray, 'T C']], bits: int, order: int = 32
) -> Linear:
  """The predictor of these clips' mean autocorrelation, tuned on them.

  Args:
    clips: of training, on the grid.
    bits: of the grid.
    order: P.

  Raises:
    ValueError: if no clip is longer than the order.
  """
  columns = [
      column[:, None].astype(np.float64)
      for clip in clips
      for column in clip.T
      if len(column) > order and column.any()
  ]
  if not columns:
    raise ValueError(f'no clip of more than {order} samples, not all zero')
  correlation = np.zeros(order + 1)
  for x in columns:
    lags = [np.vdot(x[k:], x[: len(x) - k]) for k in range(order + 1)]
    # Loud clips count as much as others.
    correlation += np.array(lags) / lags[0]
  row = correlation[:-1].copy()
  row[0] *= 1 + 1e-9
  coefficients = scipy.linalg.solve_toeplitz(row, correlation[1:])
  residuals = [_residual(x, coefficients) for x in columns]
  first = float(np.mean([np.abs(residual).mean() for residual in residuals]))
  models = [
      Linear(coefficients, decay, gain, first, bits)
      for decay, gain in itertools.product(DECAYS, GAINS)
  ]
  totals = [
      sum(
          model._bits(x, residual).sum()
          for x, residual in zip(columns, residuals, strict=True)
      )
      for model in models
  ]
  return models[int(np.argmin(totals))]


def _residual(x, coefficients):
  """x [T C] without what the samples before predict."""
  taps = np.concatenate([[1.0], -coefficients])
  return np.stack([np.convolve(c, taps)[: len(c)] for c in x.T], axis=1)
