"""Gammatone filter banks: what the ear's frequency selectivity is modelled by.

Centres are equally spaced on the scale of equivalent rectangular bandwidths
(Glasberg and Moore 1990); a filter of order 4 has the bandwidth 1.019 ERB
(Patterson et al. 1992).
"""

import functools

from jaxtyping import Float
import numpy as np

_ORDER, _WIDTH = 4, 1.019


def bandwidth(hertz):
  """The ear's equivalent rectangular bandwidth in Hz around a frequency."""
  return 24.7 * (4.37e-3 * np.asarray(hertz, np.float64) + 1)


def hertz_to_erb(hertz):
  """How many equivalent rectangular bandwidths lie below a frequency in Hz."""
  return 21.4 * np.log10(1 + 4.37e-3 * np.asarray(hertz, np.float64))


def erb_to_hertz(erb):
  """Inverse of `hertz_to_erb`."""
  return (10 ** (np.asarray(erb, np.float64) / 21.4) - 1) / 4.37e-3


@functools.lru_cache
def gammatone_filters(
    sample_rate: int,
    size: int,
    bands: int,
    low: float = 50.0,
    high: float | None = None,
) -> Float[np.ndarray, 'bins bands']:
  """Power responses of the filters at an FFT's frequencies, 1 at the centre.

  The response is |1 + i (f - centre) / b|^-8, which leaves out the mirror image
  at negative frequencies.

  Args:
    sample_rate: in Hz.
    size: FFT size; bins = size / 2 + 1.
    bands: how many filters.
    low: centre of the first one, in Hz.
    high: centre of the last one, in Hz; default .9 of half the sample rate.
  """
  high = 0.45 * sample_rate if high is None else high
  centres = erb_to_hertz(np.linspace(*hertz_to_erb([low, high]), bands))
  bins = np.arange(size // 2 + 1)[:, None] * sample_rate / size
  away = (bins - centres) / (_WIDTH * bandwidth(centres))
  return ((1 + away**2) ** -_ORDER).astype(np.float32)
