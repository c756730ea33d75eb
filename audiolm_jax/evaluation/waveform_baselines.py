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
DECAYS = (0.9, 0.97, 0.99, 0.997)
GAINS = (0.3, 0.4, 0.55, 0.7, 0.9)
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
    taps = np.concatenate([[0.0], self.coefficients])
    mean = scipy.signal.lfilter(taps, [1.0], x, axis=0)
    sizes = np.abs(x - mean)
    sizes = np.concatenate([np.full((1, x.shape[1]), self.first), sizes[:-1]])
    start = np.full((1, x.shape[1]), self.decay * self.first)
    average, _ = scipy.signal.lfilter(
        [1 - self.decay], [1.0, -self.decay], sizes, axis=0, zi=start
    )
    scale = self.gain * average + _FLOOR
    low, high = ((x + edge - mean) / scale for edge in (-0.5, 0.5))
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
      column.astype(np.float64)
      for clip in clips
      for column in clip.T
      if len(column) > order and column.any()
  ]
  if not columns:
    raise ValueError(f'no clip of more than {order} samples, not all zero')
  correlation = np.zeros(order + 1)
  for x in columns:
    lags = [x[k:] @ x[: len(x) - k] for k in range(order + 1)]
    # Loud clips count as much as others.
    correlation += np.array(lags) / lags[0]
  row = correlation[:-1].copy()
  row[0] *= 1 + 1e-9
  coefficients = scipy.linalg.solve_toeplitz(row, correlation[1:])
  taps = np.concatenate([[1.0], -coefficients])
  first = np.mean(
      [np.abs(scipy.signal.lfilter(taps, [1.0], x)).mean() for x in columns]
  )
  models = [
      Linear(coefficients, decay, gain, float(first), bits)
      for decay, gain in itertools.product(DECAYS, GAINS)
  ]
  totals = [
      sum(model.bits_of(clip).sum() for clip in clips) for model in models
  ]
  return models[int(np.argmin(totals))]
