"""Optimizers and learning-rate schedules, as dataclasses over optax."""

import dataclasses
from collections.abc import Mapping

import jax
import optax
import optax.contrib

from audiolm_jax import config
from audiolm_jax.ops import weights
from audiolm_jax.training import mesh as mesh_lib


def _matrix_axes(names: mesh_lib.Axes) -> tuple[int, ...]:
  """Positions of the axes over which a weight is one matrix, not a batch."""
  return tuple(
      i for i, name in enumerate(names) if name not in weights.BATCH_AXES
  )


def _decay_mask(axes: Mapping[str, mesh_lib.Axes]):
  """True for matrices: biases, scales and gains are not decayed."""

  def mask(params):
    return jax.tree_util.tree_map_with_path(
        lambda path, _: len(_matrix_axes(axes[mesh_lib.key(path)])) > 1, params
    )

  return mask


@dataclasses.dataclass(frozen=True)
class AdamW:
  """Decoupled weight decay (Loshchilov & Hutter 2019); vectors do not decay."""

  b1: config.Share = 0.9
  b2: config.Share = 0.99
  eps: config.NonNegative = 1e-8
  weight_decay: config.NonNegative = 0.0

  def build(
      self, schedule: optax.Schedule, axes: Mapping[str, mesh_lib.Axes]
  ) -> optax.GradientTransformation:
    """The transformation; `axes` maps leaf names to logical axes."""
    return optax.adamw(
        schedule,
        b1=self.b1,
        b2=self.b2,
        eps=self.eps,
        weight_decay=self.weight_decay,
        mask=_decay_mask(axes),
    )


@dataclasses.dataclass(frozen=True)
class Muon:
  """Orthogonalised momentum for hidden matrices (Jordan et al. 2024).

  Vectors, embeddings and output heads (axis 'vocab') take AdamW's update with
  Nesterov's momentum.
  Updates are scaled to AdamW's usual root mean square (Liu et al. 2025, eq. 4),
  so that one learning rate serves both.
  """

  momentum: config.Share = 0.95
  b1: config.Share = 0.9
  b2: config.Share = 0.95
  eps: config.NonNegative = 1e-8
  weight_decay: config.NonNegative = 0.0
  iterations: config.Positive = 5

  def build(
      self, schedule: optax.Schedule, axes: Mapping[str, mesh_lib.Axes]
  ) -> optax.GradientTransformation:
    """The transformation; `axes` maps leaf names to logical axes."""

    def dimensions(path, _):
      names = axes[mesh_lib.key(path)]
      matrix = _matrix_axes(names)
      if len(matrix) < 2 or 'vocab' in names:
        return None
      return optax.contrib.MuonDimensionNumbers(matrix[:-1], matrix[-1:])

    return optax.contrib.muon(
        schedule,
        beta=self.momentum,
        ns_steps=self.iterations,
        eps=self.eps,
        adam_b1=self.b1,
        adam_b2=self.b2,
        weight_decay=self.weight_decay,
        adam_weight_decay=0.0,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=lambda params: (
            jax.tree_util.tree_map_with_path(dimensions, params)
        ),
    )


@dataclasses.dataclass(frozen=True)
class Constant:
  """`learning_rate` after a linear warm-up."""

  learning_rate: config.NonNegative = 1e-3
  warmup_steps: config.Count = 0

  def build(self, steps: int) -> optax.Schedule:
    """Learning rate as a function of the step, for a run of `steps`."""
    return _warm(self, optax.constant_schedule(self.learning_rate))


@dataclasses.dataclass(frozen=True)
class Linear:
  """Warm-up, then a straight line to `final` times `learning_rate`."""

  learning_rate: config.NonNegative = 1e-3
  warmup_steps: config.Count = 0
  final: config.Share = 0.0

  def build(self, steps: int) -> optax.Schedule:
    """Learning rate as a function of the step, for a run of `steps`."""
    rest = max(1, steps - self.warmup_steps)
    peak = self.learning_rate
    return _warm(self, optax.linear_schedule(peak, self.final * peak, rest))


@dataclasses.dataclass(frozen=True)
class Cosine:
  """Warm-up, then half a cosine to `final` times `learning_rate`."""

  learning_rate: config.NonNegative = 1e-3
  warmup_steps: config.Count = 0
  final: config.Share = 0.0

  def build(self, steps: int) -> optax.Schedule:
    """Learning rate as a function of the step, for a run of `steps`."""
    rest = max(1, steps - self.warmup_steps)
    decay = optax.cosine_decay_schedule(self.learning_rate, rest, self.final)
    return _warm(self, decay)


@dataclasses.dataclass(frozen=True)
class Exponential:
  """Warm-up, then a factor of `decay` every step (DAC: 0.999996)."""

  learning_rate: config.NonNegative = 1e-4
  warmup_steps: config.Count = 0
  decay: config.Share = 0.999996

  def build(self, steps: int) -> optax.Schedule:
    """Learning rate as a function of the step; the run's length is nothing."""
    del steps
    decay = optax.exponential_decay(self.learning_rate, 1, self.decay)
    return _warm(self, decay)


@dataclasses.dataclass(frozen=True)
class WarmupStableDecay:
  """Warm-up, a plateau, and a line to `final` in the last `decay` of the run.

  Hu et al. 2024 (MiniCPM), section 4.
  """

  learning_rate: config.NonNegative = 1e-3
  warmup_steps: config.Count = 0
  decay: config.Share = 0.2
  final: config.Share = 0.0

  def build(self, steps: int) -> optax.Schedule:
    """Learning rate as a function of the step, for a run of `steps`."""
    down = max(1, round(self.decay * steps))
    stable = max(0, steps - self.warmup_steps - down)
    peak = self.learning_rate
    decay = optax.linear_schedule(peak, self.final * peak, down, stable)
    return _warm(self, decay)


def _warm(schedule, then: optax.Schedule) -> optax.Schedule:
  if not schedule.warmup_steps:
    return then
  # The first update has a rate above zero: (step + 1) / (warmup + 1).
  start = schedule.learning_rate / (schedule.warmup_steps + 1)
  warm = optax.linear_schedule(
      start, schedule.learning_rate, schedule.warmup_steps
  )
  return optax.join_schedules([warm, then], [schedule.warmup_steps])


OPTIMIZERS = {'adamw': AdamW, 'muon': Muon}
SCHEDULES = {
    'constant': Constant,
    'linear': Linear,
    'cosine': Cosine,
    'exponential': Exponential,
    'wsd': WarmupStableDecay,
}
