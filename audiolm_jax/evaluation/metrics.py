"""Distances between a recording and its reconstruction, and code statistics.

Plain NumPy on the host, clip by clip, fp64: none of these is trained on, and a
slow, obvious definition is worth more here than a fast one. Audio is [T], one
channel, already cut to its valid length, so that padding cannot enter a score.
"""

from collections.abc import Iterable
from typing import NamedTuple

from jaxtyping import Float, Int
import numpy as np

from audiolm_jax.audio import checks
from audiolm_jax.ops import mel

# SI-SDR beyond these bounds (dB) says "identical" or "unrelated", nothing more;
# unbounded, one clip of either kind would own the mean of a whole test set.
SI_SDR_BOUNDS = (-60.0, 100.0)


class CodeStatistics(NamedTuple):
  """How one codebook is used.

  Attributes:
    usage: share of its vocabulary that occurs at all, in [0, 1].
    entropy: of the empirical distribution, in bits a code.
    bits: log2 of the vocabulary, what a code costs uncoded.
  """

  usage: float
  entropy: float
  bits: float


def mel_distance(
    reference: Float[np.ndarray, 'T'],
    estimate: Float[np.ndarray, 'T'],
    sample_rate: int,
    bands: int = 80,
) -> float:
  """Mean |log10 mel| difference over frames and bands.

  Magnitude mel spectrograms with a 64 ms Hann window every 16 ms, floored at
  1e-5, as DAC (Kumar et al. 2023) reports it with log base 10. 0 is identity;
  a factor of 10 in amplitude everywhere above the floor is 1.

  Raises:
    ValueError: if the shapes differ, the clip is empty, or samples are integers.
  """
  _check(reference, estimate)
  window = round(0.064 * sample_rate)
  # Unit sums: a band is the mean magnitude in it, whatever its width.
  bank = mel.mel_filters(sample_rate, window, bands)
  bank = bank / bank.sum(axis=0)
  a, b = (
      np.log10(np.maximum(_magnitudes(x, window, window // 4) @ bank, 1e-5))
      for x in (reference, estimate)
  )
  return float(np.mean(np.abs(a - b)))


def stft_distance(
    reference: Float[np.ndarray, 'T'],
    estimate: Float[np.ndarray, 'T'],
    windows: tuple[int, ...] = (512, 1024, 2048),
) -> float:
  """Multi-resolution STFT distance (Yamamoto et al. 2020, eqs. 3-6).

  Spectral convergence plus mean |ln magnitude| difference (magnitudes floored
  at 1e-5), averaged over Hann windows of these sizes with hops of a quarter.

  Raises:
    ValueError: if the shapes differ, the clip is empty, or samples are integers.
  """
  _check(reference, estimate)
  total = 0.0
  for window in windows:
    a, b = (_magnitudes(x, window, window // 4) for x in (reference, estimate))
    convergence = np.linalg.norm(a - b) / max(np.linalg.norm(a), 1e-5)
    a, b = (np.log(np.maximum(x, 1e-5)) for x in (a, b))
    total += convergence + np.mean(np.abs(a - b))
  return float(total / len(windows))


def si_sdr(
    reference: Float[np.ndarray, 'T'], estimate: Float[np.ndarray, 'T']
) -> float:
  """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019).

  Means are removed first; the result is clipped to `SI_SDR_BOUNDS`. A silent
  reference has none: NaN.

  Raises:
    ValueError: if the shapes differ, the clip is empty, or samples are integers.
  """
  _check(reference, estimate)
  reference = reference.astype(np.float64) - np.mean(reference, dtype=float)
  estimate = estimate.astype(np.float64) - np.mean(estimate, dtype=float)
  power = reference @ reference
  if power == 0:
    return float('nan')
  target = (estimate @ reference) / power * reference
  error = estimate - target
  with np.errstate(divide='ignore', invalid='ignore'):
    ratio = 10 * np.log10((target @ target) / (error @ error))
  # A silent estimate is 0 / 0: it has nothing of the reference in it.
  ratio = SI_SDR_BOUNDS[0] if np.isnan(ratio) else ratio
  return float(np.clip(ratio, *SI_SDR_BOUNDS))


def code_counts(
    codes: Int[np.ndarray, 'B F K'],
    num_frames: Int[np.ndarray, 'B'],
    vocabularies: tuple[int, ...],
) -> list[Int[np.ndarray, 'V']]:
  """How often each code of each slot occurs in valid frames; counts add.

  Args:
    codes: a padded batch.
    num_frames: valid *frames* of each row.
    vocabularies: of the K slots.

  Raises:
    ValueError: if a valid code lies outside its vocabulary.
  """
  valid = np.arange(codes.shape[1]) < np.asarray(num_frames)[:, None]
  counts = []
  for slot, vocabulary in enumerate(vocabularies):
    used = codes[..., slot][valid]
    if used.size and (used.min() < 0 or used.max() >= vocabulary):
      raise ValueError(
          f'slot {slot} holds codes in [{used.min()}, {used.max()}],'
          f' its vocabulary is {vocabulary}'
      )
    counts.append(np.bincount(used, minlength=vocabulary))
  return counts


def code_statistics(
    counts: Iterable[Int[np.ndarray, 'V']],
) -> list[CodeStatistics]:
  """Usage and entropy of each slot from the sums of `code_counts`.

  Entropy is the plug-in estimate: it is biased low by about
  (V - 1) / (2 N ln 2) bits for N codes, so compare at equal N.
  """
  result = []
  for count in counts:
    p = count[count > 0] / max(count.sum(), 1)
    result.append(
        CodeStatistics(
            usage=float(np.mean(count > 0)),
            # + 0.0 turns the -0.0 of a single used code into 0.
            entropy=float(-np.sum(p * np.log2(p)) + 0.0),
            bits=float(np.log2(len(count))),
        )
    )
  return result


def _check(reference, estimate):
  for clip in (reference, estimate):
    checks.samples(np.zeros(0, clip.dtype))  # NaN is a score, integers are not.
  if reference.ndim != 1 or reference.shape != estimate.shape:
    raise ValueError(
        f'need two clips of one shape [T], got {reference.shape} and'
        f' {estimate.shape}'
    )
  if not reference.size:
    raise ValueError('an empty clip has no distance')


def _magnitudes(x, window, hop):
  """|STFT| [frames, window // 2 + 1], centred frames, periodic Hann."""
  x = np.pad(x.astype(np.float64), window // 2)
  x = np.pad(x, (0, -(len(x) - window) % hop))
  frames = np.lib.stride_tricks.sliding_window_view(x, window)[::hop]
  hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
  return np.abs(np.fft.rfft(frames * hann, axis=-1))
