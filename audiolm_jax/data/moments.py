"""Means and deviations of latents: models see them normalised."""

import dataclasses
from typing import Annotated

from jaxtyping import Float
import numpy as np

from audiolm_jax import config


@dataclasses.dataclass(frozen=True)
class Moments:
  """Of each dimension of some latents, over all their frames.

  Attributes:
    mean: D of them.
    std: D standard deviations; 1 for a dimension that does not vary.
  """

  mean: tuple[float, ...]
  std: tuple[Annotated[float, config.Range(min=1e-30)], ...]

  def __post_init__(self):
    if len(self.mean) != len(self.std):
      raise config.ConfigError(
          f'{len(self.mean)} means and {len(self.std)} deviations'
      )

  def normalised(
      self, latents: Float[np.ndarray, '*b D']
  ) -> Float[np.ndarray, '*b D']:
    """Latents as models see them: of mean 0 and deviation 1."""
    return ((latents - np.asarray(self.mean)) / self.std).astype(np.float32)

  def restored(
      self, normalised: Float[np.ndarray, '*b D']
  ) -> Float[np.ndarray, '*b D']:
    """The inverse of `normalised`, up to rounding."""
    return (normalised * np.asarray(self.std) + self.mean).astype(np.float32)


class Running:
  """Moments of latents that come clip by clip, each frame counting once.

  In double precision: counts, means and sums of squares of two sets give those
  of their union (Chan, Golub & LeVeque 1983, eq. 2.1).
  """

  def __init__(self):
    self._count = 0
    self._mean = self._squares = np.zeros(())

  def add(self, latents: Float[np.ndarray, 'F D']) -> None:
    """Takes in a clip's, finite."""
    frames = len(latents)
    if not frames:
      return
    latents = np.asarray(latents, np.float64)
    mean, total = latents.mean(0), self._count + frames
    apart = mean - self._mean
    squares = ((latents - mean) ** 2).sum(0)
    squares += apart**2 * (self._count * frames / total)
    self._mean = self._mean + apart * (frames / total)
    self._squares = self._squares + squares
    self._count = total

  @property
  def moments(self) -> Moments | None:
    """Of all that was taken in; None for no frame."""
    if not self._count:
      return None
    std = np.sqrt(self._squares / self._count)
    # Rounding alone makes that much of a constant.
    varies = std > 1e-12 * np.maximum(np.abs(self._mean), 1e-12)
    std = np.where(varies, std, 1)
    return Moments(tuple(self._mean.tolist()), tuple(std.tolist()))
