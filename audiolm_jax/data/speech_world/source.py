"""The voice's source: glottal pulses (LF) and the f0 contour (Fujisaki)."""

from collections.abc import Sequence
import functools
import math

from jaxtyping import Complex
from jaxtyping import Float
import numpy as np
from scipy import optimize

# A spectrum's table: points a harmonic, and harmonics.
PER_HARMONIC = 16
HARMONICS = 200
_PER_PERIOD = 8192


def lf_parameters(rd: float) -> dict[str, float]:
  """The LF model's times and exponents for a period and an Ee of 1.

  Args:
    rd: Fant's shape: .3 is pressed, 1 modal, 2.7 breathy.

  Returns:
    tp, te, ta (of a period), alpha and epsilon: E0 e^(alpha t) sin(pi t / tp)
    up to te, then -(e^(-epsilon (t - te)) - e^(-epsilon (1 - te))) /
    (epsilon ta). Their integral is 0.
  """
  ra = (4.8 * rd - 1) / 100
  rk = (22.4 + 11.8 * rd) / 100
  rg = rk / (4 * (0.11 * rd / (0.5 + 1.2 * rk) - ra))
  tp = 1 / (2 * rg)
  te = tp * (1 + rk)
  rest = 1 - te
  epsilon = optimize.brentq(
      lambda e: e * ra - 1 + math.exp(-e * rest), 1e-3, 1e4
  )
  end = math.exp(-epsilon * rest)
  back = -((1 - end) / epsilon - rest * end) / (epsilon * ra)
  w = math.pi / tp

  def area(alpha):
    sine = math.sin(w * te)
    inside = alpha * sine - w * math.cos(w * te) + w * math.exp(-alpha * te)
    return -inside / (alpha**2 + w**2) / sine + back

  alpha = optimize.brentq(area, -50, 500)
  return {'tp': tp, 'te': te, 'ta': ra, 'alpha': alpha, 'epsilon': epsilon}


def lf_pulse(rd: float, points: int) -> Float[np.ndarray, ' points']:
  """One period of the derivative of glottal flow, with a least value of -1."""
  p = lf_parameters(rd)
  t = np.arange(points) / points
  w = math.pi / p['tp']
  opening = -np.exp(p['alpha'] * (t - p['te'])) * np.sin(w * t)
  opening /= math.sin(w * p['te'])
  decay = np.exp(-p['epsilon'] * (t - p['te']))
  end = math.exp(-p['epsilon'] * (1 - p['te']))
  closing = -(decay - end) / (p['epsilon'] * p['ta'])
  return np.where(t < p['te'], opening, closing)


@functools.cache
def lf_spectrum(rd: float) -> Complex[np.ndarray, ' n']:
  """The pulse's Fourier transform, around the moment of closure.

  Entry i is that at i / `PER_HARMONIC` of f0, for a period of 1.
  """
  pulse = lf_pulse(rd, _PER_PERIOD)
  size = PER_HARMONIC * HARMONICS + 2
  spectrum = np.fft.rfft(pulse, PER_HARMONIC * _PER_PERIOD)[:size]
  te = lf_parameters(rd)['te']
  turn = np.exp(2j * np.pi * te * np.arange(size) / PER_HARMONIC)
  return (spectrum * turn / _PER_PERIOD).astype(np.complex64)


def phrase_response(
    t: Float[np.ndarray, ' n'], alpha: float = 3.0
) -> Float[np.ndarray, ' n']:
  """Fujisaki's Gp: alpha^2 t e^(-alpha t) from 0 on."""
  t = np.maximum(t, 0)
  return alpha**2 * t * np.exp(-alpha * t)


def accent_response(
    t: Float[np.ndarray, ' n'], beta: float = 20.0, ceiling: float = 0.9
) -> Float[np.ndarray, ' n']:
  """Fujisaki's Ga: 1 - (1 + beta t) e^(-beta t), at most `ceiling`."""
  t = np.maximum(t, 0)
  return np.minimum(1 - (1 + beta * t) * np.exp(-beta * t), ceiling)


def f0_contour(
    t: Float[np.ndarray, ' n'],
    base: float,
    phrases: Sequence[tuple[float, float]],
    accents: Sequence[tuple[float, float, float]],
) -> Float[np.ndarray, ' n']:
  """Fujisaki's f0 in Hz.

  Args:
    t: seconds.
    base: Hz without any command.
    phrases: (second, amplitude) of each.
    accents: (from second, to second, amplitude) of each.
  """
  log = np.full(len(t), math.log(base))
  for start, amplitude in phrases:
    log += amplitude * phrase_response(t - start)
  for start, end, amplitude in accents:
    if amplitude:
      log += amplitude * (accent_response(t - start) - accent_response(t - end))
  return np.exp(log)


def pulse_times(
    t: Float[np.ndarray, ' n'],
    f0: Float[np.ndarray, ' n'],
    jitter: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, ' p']:
  """Moments of closure: where the integral of f0 passes whole numbers.

  Args:
    t: seconds of the contour's points.
    f0: Hz there.
    jitter: sigma: each period is multiplied by 1 + sigma N(0, 1); neighbouring
      periods differ by 2 / sqrt(pi) sigma on average.
    rng: draws the jitter.
  """
  steps = np.diff(t) * (f0[1:] + f0[:-1]) / 2
  phase = np.concatenate([[0.0], np.cumsum(steps)])
  times = np.interp(np.arange(1, int(phase[-1]) + 1), phase, t)
  if jitter and len(times) > 1:
    periods = np.diff(times)
    periods *= 1 + jitter * rng.standard_normal(len(periods))
    times = times[0] + np.concatenate([[0.0], np.cumsum(periods)])
  return times
