"""The LatentHead seam: from a backbone's outputs to frames of latents."""

import abc
from collections.abc import Mapping
import dataclasses
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from audiolm_jax import config
from audiolm_jax.config import bounds
from audiolm_jax.processes import guidance as guidance_lib
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import solvers
from audiolm_jax.processes import times as times_lib


@dataclasses.dataclass(frozen=True)
class LatentSampler:
  """How a frame is drawn; static, so that it can be a jit argument.

  Attributes:
    temperature: what the variance of every noise that is drawn is multiplied by
      (Kyutai's; MAR's multiplies the deviation of the steps' noise alone): a head
      that is exactly N(m, s^2) then draws N(m, temperature s^2). 0 draws none.
    grid: times of the steps from noise to data; None for the head's own. For
      heads that take steps.
    solver: of these steps; None for the head's own. For heads that have one.
    history_noise: the share of noise in what the model is shown of the frames
      before, as in training (`LatentDecoder.history_noise`).
    ends: whether rows may end by themselves, if the model says where.
    threshold: rows end where that is at least so likely; None draws it.

  Raises:
    ConfigError: for a value out of its range or not finite, or a threshold of
      rows that do not end.
  """

  temperature: config.NonNegative = 1.0
  grid: times_lib.Grid | None = None
  solver: Annotated[Any, config.Kind(lambda: solvers.SOLVERS)] | None = None
  history_noise: config.Share = 0.0
  ends: bool = True
  threshold: config.Share | None = None

  def __post_init__(self):
    bounds.check(self)
    if self.threshold is not None and not self.ends:
      raise config.ConfigError(
          f'threshold = {self.threshold} does nothing with ends = False'
      )


class LatentHead(nn.Module, abc.ABC):
  """A distribution over a frame's latents x [L], given the backbone's h [D].

  Frames are rows here: M of them, of whatever rows and places. `draw` and
  `losses` use the frames' own keys alone, so a batch equals its frames.
  """

  # What `log_prob` is: 'exact' or 'none'.
  tag = 'none'
  # Whether it takes steps from noise to data, and by which solver it is asked.
  takes_steps = False
  takes_solver = False
  # Whether guidance mixes its predictions, not the outputs of the backbone.
  guides_predictions = False

  @property
  @abc.abstractmethod
  def loss_weights(self) -> Mapping[str, float]:
    """The factor in the loss of each of `losses`."""

  @abc.abstractmethod
  def losses(
      self,
      h: Float[Array, 'M D'],
      x: Float[Array, 'M L'],
      keys: Key[Array, 'M'],
  ) -> dict[str, Float[Array, 'M']]:
    """What is trained, by name, frame by frame."""

  @abc.abstractmethod
  def draw(
      self,
      h: Float[Array, 'M D'],
      keys: Key[Array, 'M'],
      dimension: int,
      sampler: LatentSampler,
      null: Float[Array, 'M D'] | None = None,
      guidance: Float[Array, ''] | float | None = None,
  ) -> Float[Array, 'M L']:
    """Frames.

    Args:
      h: the backbone's outputs.
      keys: of the frames.
      dimension: L.
      sampler: how; checked before by `check`.
      null: outputs of a backbone that was told no conditions, with `guidance`.
      guidance: how much the difference counts; see `processes.guidance.Plain`.
    """

  def log_prob(
      self,
      h: Float[Array, 'M D'],
      x: Float[Array, 'M L'],
      steps: int | None = None,
  ) -> Float[Array, 'M']:
    """log p(x | h) in nats, fp32.

    Args:
      h: the backbone's outputs.
      x: latents.
      steps: of the way from data to noise, for heads that take steps.

    Raises:
      ValueError: if the head has no likelihood.
    """
    raise ValueError(f'a {type(self).__name__} head has no likelihood')

  @nn.nowrap
  def check(self, sampler: LatentSampler) -> None:
    """Refuses what would do nothing, or can't be done.

    Raises:
      ValueError: for steps or a solver of a head that takes none.
    """
    for name, takes in (
        ('grid', self.takes_steps),
        ('solver', self.takes_solver),
    ):
      value = getattr(sampler, name)
      if value is not None and not takes:
        raise ValueError(
            f'{name} = {value} does nothing for a {type(self).__name__} head'
        )

  @nn.nowrap
  def evaluations(self, sampler: LatentSampler) -> int:
    """How often the head's network is asked for a frame, guidance aside."""
    del sampler
    return 1


def mixed(
    given: Float[Array, '*b D'],
    null: Float[Array, '*b D'] | None,
    guidance: Float[Array, ''] | float | None,
) -> Float[Array, '*b D']:
  """What guidance makes of both; `given` where there is none."""
  if null is None:
    return given
  return guidance_lib.mixed(given, null, guidance)


def several(
    draws: int, h: Float[Array, 'M D'], x: Float[Array, 'M L'], keys: Any
) -> tuple[Any, Any, Any, Any]:
  """Frames as often as they are drawn in training, one draw after the other.

  Args:
    draws: n.
    h: the backbone's outputs.
    x: latents.
    keys: of the frames.

  Returns:
    h, x (fp32) and keys, n M of them, a draw's keys being its own; the number
    [n M] of each one's draw.
  """
  numbers = jnp.arange(draws)
  each = jax.vmap(noise_lib.fold, (None, 0))(keys, numbers).reshape(-1)
  x = jnp.tile(x.astype(jnp.float32), (draws, 1))
  return jnp.tile(h, (draws, 1)), x, each, jnp.repeat(numbers, len(keys))


def within(
    keys: Key[Array, 'M'],
    part: Float[Array, 'M'] | int = 0,
    parts: int = 1,
) -> Float[Array, 'M']:
  """Uniform numbers in one of so many equal parts of (0, 1).

  Args:
    keys: of the draws.
    part: which, from 0.
    parts: how many there are.
  """
  uniform = jax.vmap(jax.random.uniform)(keys)
  # Without the ends, which rounding reaches and where weights are infinite.
  return jnp.clip((part + uniform) / parts, 2**-24, 1 - 2**-24)
