"""Checkpoints: a small module over Orbax, so that nothing else knows it.

A checkpoint is a flat mapping from leaf names to arrays, plus a JSON value (the
data sources' positions, one for each process). Flat names make what is missing,
left over or mis-shaped nameable before anything is read.
"""

import dataclasses
import json
from typing import Annotated, Any, Literal

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from audiolm_jax import config
from audiolm_jax.training import mesh


class CheckpointError(RuntimeError):
  """A checkpoint is absent, damaged, or not of this state."""


@dataclasses.dataclass(frozen=True)
class Config:
  """What is saved when.

  Attributes:
    every: steps between checkpoints; the last step always has one.
    keep: how many of the latest are kept.
    best: the evaluation metric ('eval/<evaluator>/<metric>') whose best
      checkpoint is kept besides, and which `audiolm_jax.load` takes. Only
      checkpoints at a step that was evaluated compete.
    mode: whether `best` is to be small or large.
  """

  every: Annotated[int, config.Range(min=1)] = 1000
  keep: Annotated[int, config.Range(min=1)] = 2
  best: str | None = None
  mode: Literal['min', 'max'] = 'min'


class Checkpoints:
  """The checkpoints of one work directory."""

  def __init__(self, directory: Any, settings: Config, read_only: bool = False):
    """Opens (and where need be makes) a directory of checkpoints.

    Args:
      directory: an absolute path.
      settings: which are kept.
      read_only: leave alone what another process may be writing there.
    """
    self._settings = settings
    policies = ocp.training.preservation_policies
    keep = [policies.LatestN(settings.keep)]
    if settings.best is not None:
      keep.append(
          policies.BestN(
              get_metric_fn=lambda metrics: metrics[settings.best],
              # Orbax sorts ascending and keeps the end, unless reversed.
              reverse=settings.mode == 'min',
              n=1,
              keep_checkpoints_without_metrics=False,
          )
      )
    self._directory = directory
    self._checkpointer = ocp.training.Checkpointer(
        directory,
        save_decision_policy=_Always(),
        preservation_policy=policies.AnyPreservationPolicy(keep),
        # What a killed process was writing.
        cleanup_tmp_directories=not read_only,
    )

  def steps(self) -> list[int]:
    """Steps that have a finished checkpoint, ascending."""
    return sorted(c.step for c in self._checkpointer.checkpoints)

  def latest(self) -> int | None:
    """The last finished checkpoint's step."""
    return max(self.steps(), default=None)

  def best(self) -> int | None:
    """The step of the best checkpoint by the metric, or else the latest."""
    name, sign = self._settings.best, 1 if self._settings.mode == 'min' else -1
    scored = [
        (sign * c.metrics[name], -c.step)
        for c in self._checkpointer.checkpoints
        if c.metrics and name in c.metrics
    ]
    return -min(scored)[1] if scored else self.latest()

  def save(
      self, step: int, state: Any, position: Any, metrics: dict[str, float]
  ) -> None:
    """Starts saving; returns as soon as the state may be donated.

    Args:
      step: steps done.
      state: a pytree of arrays.
      position: JSON value of this process (the data source's state).
      metrics: of the last evaluation, from which the best is chosen.
    """
    leaves = _flat(state)
    if jax.default_backend() == 'cpu':
      # There the writer may hold views of the very buffers that the next step
      # is given to overwrite.
      leaves = jax.tree.map(jnp.copy, leaves)
    wanted = self._settings.best
    chosen = {wanted: metrics[wanted]} if wanted in metrics else None
    self._checkpointer.save_checkpointables_async(
        step,
        {'state': leaves},
        metrics=chosen,
        custom_metadata={'positions': _gather(position)},
        force=True,
    )

  def restore(self, step: int, abstract: Any) -> tuple[Any, Any]:
    """The state saved at `step`, and this process's JSON value.

    Args:
      step: a step that has a checkpoint.
      abstract: the state as ShapeDtypeStructs, with shardings.

    Raises:
      CheckpointError: if it is absent or damaged, or holds another state; the
        message names it and the leaves.
    """
    where = f'checkpoint {step} in {self._directory}'
    if step not in self.steps():
      raise CheckpointError(f'{where} does not exist; there are {self.steps()}')
    wanted = _flat(abstract)
    try:
      metadata = self._checkpointer.checkpointables_metadata(step)
      stored = dict(metadata.metadata['state'])
      positions = metadata.custom_metadata['positions']
    except Exception as error:
      raise CheckpointError(
          f'{where} is damaged: {_brief(error)}. Remove it to go on from an'
          ' earlier one.'
      ) from error
    problems = mismatches(
        {k: v.shape for k, v in wanted.items()},
        {k: v.shape for k, v in stored.items()},
    )
    if problems:
      raise CheckpointError(
          f'{where} does not fit this config:\n  ' + '\n  '.join(problems)
      )
    if len(positions) not in (1, jax.process_count()):
      raise CheckpointError(
          f'{where} was written by {len(positions)} processes and is read by'
          f' {jax.process_count()}: data positions do not carry over.'
      )
    try:
      loaded = self._checkpointer.load(
          step, wanted, checkpointable_name='state'
      )
    except Exception as error:
      raise CheckpointError(
          f'{where} is damaged: {_brief(error)}. Remove it to go on from an'
          ' earlier one.'
      ) from error
    names = [
        mesh.key(p) for p, _ in jax.tree_util.tree_leaves_with_path(abstract)
    ]
    state = jax.tree.unflatten(
        jax.tree.structure(abstract), [loaded[name] for name in names]
    )
    position = positions[jax.process_index() % len(positions)]
    return state, json.loads(position)

  def wait(self) -> None:
    """Blocks until what was being saved is on disk."""
    self._checkpointer.wait()

  def close(self) -> None:
    self._checkpointer.close()


def mismatches(
    wanted: dict[str, tuple[int, ...]], stored: dict[str, tuple[int, ...]]
) -> list[str]:
  """Lines that name every leaf that is missing, left over or mis-shaped."""
  lines = [f'missing: {name}' for name in sorted(wanted.keys() - stored.keys())]
  lines += [
      f'left over: {name}' for name in sorted(stored.keys() - wanted.keys())
  ]
  for name in sorted(wanted.keys() & stored.keys()):
    if tuple(wanted[name]) != tuple(stored[name]):
      lines.append(
          f'mis-shaped: {name} is {tuple(stored[name])}, expected'
          f' {tuple(wanted[name])}'
      )
  return lines


class _Always:
  """The loop decides when to save, not Orbax."""

  def should_save(self, *args, **kwargs) -> bool:
    del args, kwargs
    return True


def _flat(tree):
  return {
      mesh.key(path): leaf
      for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _brief(error: Exception) -> str:
  return f'{type(error).__name__}: {str(error)[:300]}'


def _gather(position: Any) -> list[str]:
  """Every process's JSON value, in the order of processes."""
  text = json.dumps(position)
  if jax.process_count() == 1:
    return [text]
  raw = np.frombuffer(text.encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(raw.size))
  padded = np.zeros(int(np.max(sizes)), np.uint8)
  padded[: raw.size] = raw
  rows = multihost_utils.process_allgather(padded)
  return [
      bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)
  ]
