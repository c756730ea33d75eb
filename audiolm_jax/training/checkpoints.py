"""Checkpoints: a small module over Orbax, so that nothing else knows it.

A checkpoint is a flat mapping from leaf names to arrays, plus JSON: the data
sources' positions, one for each process, the metric by which it may be the best,
and checksums of all of it. Flat names make what is missing, left over or
mis-shaped nameable before anything is read. Leaves that never move (the base
under a LoRA) stand beside the checkpoints, once for all of them.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import json
import math
import pathlib
import shutil
from typing import Any, Literal

from absl import logging
import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from audiolm_jax import config
from audiolm_jax.training import checksums
from audiolm_jax.training import mesh as mesh_lib
from audiolm_jax.training import processes

# Where the checksum of a checkpoint's own metadata stands in it.
_CHECKSUM = 'checksum'
# The folder of leaves that never move, and how their names begin: they are those
# of `state.TrainState.frozen`.
_FROZEN = 'frozen'


class CheckpointError(RuntimeError):
  """A checkpoint is absent, damaged, not of this state, or not written."""


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

  every: config.Positive = 1000
  keep: config.Positive = 2
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

    Raises:
      CheckpointError: if the metrics of a checkpoint are damaged, or, where
        some are to be removed, not what was saved.
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
    self._directory = pathlib.Path(directory)
    self._frozen: dict[str, dict[str, int]] | None = None
    # What those that compete for the best have reached, small being good.
    self._least = math.inf
    self._check_metrics()
    if not read_only:
      self._remove_temporary()
    self._checkpointer = ocp.training.Checkpointer(
        directory,
        save_decision_policy=_Always(),
        preservation_policy=policies.AnyPreservationPolicy(keep),
        # It would do so in a thread that outlives an early end.
        cleanup_tmp_directories=False,
    )
    if not read_only:
      try:
        scores = self._scores().values()
        self._least = min((self._sign * s for s in scores), default=math.inf)
      except CheckpointError:
        self.close()
        raise

  def _remove_temporary(self) -> None:
    """Removes what a process that died or failed was writing."""
    if jax.process_index() == 0:
      for path in self._directory.glob('*.orbax-checkpoint-tmp*'):
        shutil.rmtree(path, ignore_errors=True)

  def _check_metrics(self) -> None:
    """Orbax reads all of them on opening, and says not which it cannot."""
    for path in self._directory.glob('*/metrics/metrics'):
      if path.parents[1].name.isdigit():
        step = int(path.parents[1].name)
        try:
          whole = isinstance(json.loads(path.read_bytes()), dict)
        except ValueError:
          whole = False
        if not whole:
          raise self._damaged(step, f'{path} is no JSON object')

  def steps(self) -> list[int]:
    """Steps that have a finished checkpoint, ascending."""
    return sorted(c.step for c in self._checkpointer.checkpoints)

  def latest(self) -> int | None:
    """The last finished checkpoint's step."""
    return max(self.steps(), default=None)

  def best(self) -> int | None:
    """The step of the best checkpoint by the metric, or else the latest.

    Raises:
      CheckpointError: if the metric of a checkpoint is not what was saved, so
        that which is the best is not known.
    """
    scores = [
        (self._sign * score, -step) for step, score in self._scores().items()
    ]
    return -min(scores)[1] if scores else self.latest()

  @property
  def _sign(self) -> int:
    return 1 if self._settings.mode == 'min' else -1

  def is_finished(self, step: int) -> bool:
    """Whether the checkpoint of a step is whole on the disk."""
    # By the folder: Orbax counts what it has begun, too.
    return (self._directory / str(step)).is_dir()

  def _scores(self) -> dict[int, float]:
    """The metric of each checkpoint that competes for the best."""
    name = self._settings.best
    if name is None:
      return {}
    scores = {}
    for checkpoint in self._checkpointer.checkpoints:
      step, shown = checkpoint.step, checkpoint.metrics or None
      _, facts = self._metadata(step)
      saved = facts.get('metrics', shown)
      # Where its run looked for another metric and found none, it competes no
      # more than one of a step that was not evaluated.
      if facts.get('best', name) is None or name not in (saved or {name: 0}):
        raise CheckpointError(
            f'{self._where(step)} was saved with checkpoint.best ='
            f' {facts["best"]!r}, and this run has {name!r}: it is another'
            " run's. Remove it, or bring the right one back."
        )
      if shown != saved:
        raise self._damaged(step, f'its metrics are {shown}, not {saved}')
      if saved is not None:
        scores[step] = saved[name]
    return scores

  def save(
      self, step: int, state: Any, position: Any, metrics: dict[str, float]
  ) -> bool:
    """Starts saving; returns as soon as the state may be donated.

    Args:
      step: steps done.
      state: a pytree of arrays.
      position: JSON value of this process (the data source's state).
      metrics: of the last evaluation, from which the best is chosen.

    Returns:
      Whether `best` is this one, once it is on the disk.

    Raises:
      CheckpointError: if the one before could not be written.
    """
    leaves = mesh_lib.flat(state)
    frozen = {k: leaves.pop(k) for k in list(leaves) if _is_frozen(k)}
    self._keep_frozen(frozen)
    if jax.default_backend() == 'cpu':
      # There the writer may hold views of the very buffers that the next step
      # is given to overwrite.
      leaves = jax.tree.map(jnp.copy, leaves)
    wanted = self._settings.best
    chosen = None
    if math.isfinite(metrics.get(wanted, math.nan)):
      chosen = {wanted: metrics[wanted]}
    facts = {
        'positions': processes.gather(json.dumps(position)),
        'best': wanted,
        'metrics': chosen,
        'leaves': checksums.of_leaves(leaves) | self._frozen,
    }
    with self._writing():
      self._checkpointer.save_checkpointables_async(
          step,
          {'state': leaves},
          metrics=chosen,
          custom_metadata={**facts, _CHECKSUM: checksums.of_json(facts)},
          force=True,
      )
    reached = math.inf
    if chosen is not None:
      reached = self._sign * chosen[wanted]
    self._least, least = min(self._least, reached), self._least
    return reached <= least

  def _keep_frozen(self, leaves: dict[str, jax.Array]) -> None:
    """Writes what never moves, before the first checkpoint that needs it.

    What a run wrote there that was ended before it had a checkpoint is
    replaced.

    Raises:
      CheckpointError: if what is there is not this state's, or it could not be
        written.
    """
    if self._frozen is not None:
      return
    sums = checksums.of_leaves(leaves)
    path = self._directory / _FROZEN
    if leaves and self.steps() and path.exists():
      stored = self._frozen_facts()[1]
      if stored != sums:
        raise CheckpointError(
            f'{path} is not what never moves in this run, but the checkpoints'
            ' beside it need it: put it back, or remove them all.'
        )
    elif not leaves:
      if jax.process_index() == 0 and not self.steps():
        shutil.rmtree(path, ignore_errors=True)
    else:
      with self._writing():
        ocp.save_checkpointables(
            path,
            {'state': leaves},
            custom_metadata={'leaves': sums},
            overwrite=True,
        )
    self._frozen = sums

  def _frozen_facts(self) -> tuple[dict[str, Any], dict[str, dict[str, int]]]:
    """Metadata and checksums of what never moves; empty if there is nothing."""
    path = self._directory / _FROZEN
    if not path.exists():
      return {}, {}
    try:
      metadata = ocp.checkpointables_metadata(path)
      return (
          dict(metadata.metadata['state']),
          metadata.custom_metadata['leaves'],
      )
    except Exception as error:
      raise self._frozen_damaged(_brief(error)) from error

  def restore(self, step: int, abstract: Any) -> tuple[Any, Any]:
    """The state saved at `step`, and this process's JSON value.

    Args:
      step: a step that has a checkpoint.
      abstract: the state as ShapeDtypeStructs, with shardings.

    Raises:
      CheckpointError: if it is absent or damaged, or holds another state; the
        message names it and the leaves.
    """
    where = self._where(step)
    if step not in self.steps():
      raise CheckpointError(f'{where} does not exist; there are {self.steps()}')
    wanted = mesh_lib.flat(abstract)
    stored, facts = self._metadata(step)
    # Checkpoints of before there was the folder have all leaves themselves.
    frozen = {
        k: v for k, v in self._frozen_facts()[0].items() if k not in stored
    }
    stored = stored | frozen
    positions = facts['positions']
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
    if 'leaves' not in facts:
      logging.warning(
          '%s was saved without checksums: damage to it would not be seen.',
          where,
      )
    sums = facts.get('leaves', {})
    loaded = self._load(step, wanted, frozen.keys(), sums)
    if frozen:
      # Otherwise the next `save` is to see whether the folder is there.
      self._frozen = {k: v for k, v in sums.items() if _is_frozen(k)}
    state = jax.tree.unflatten(
        jax.tree.structure(abstract), [loaded[name] for name in wanted]
    )
    position = positions[jax.process_index() % len(positions)]
    return state, json.loads(position)

  def _load(self, step, wanted, frozen, sums) -> dict[str, jax.Array]:
    """The leaves of a checkpoint and those that never move, held to be whole."""
    moving = {k: v for k, v in wanted.items() if k not in frozen}
    constant = {k: v for k, v in wanted.items() if k in frozen}
    try:
      loaded = self._checkpointer.load(
          step, moving, checkpointable_name='state'
      )
    except Exception as error:
      raise self._damaged(step, _brief(error)) from error
    if constant:
      try:
        path = self._directory / _FROZEN
        loaded |= ocp.load_checkpointables(path, {'state': constant})['state']
      except Exception as error:
        raise self._frozen_damaged(_brief(error)) from error
    problems = checksums.problems(loaded, sums)
    wrong = [line for line in problems if line.split()[0] in frozen]
    if wrong:
      raise self._frozen_damaged(_some(wrong))
    if problems:
      raise self._damaged(step, _some(problems))
    return loaded

  def _metadata(self, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The stored leaves' metadata, and what `save` said of the checkpoint."""
    try:
      metadata = self._checkpointer.checkpointables_metadata(step)
      leaves, facts = metadata.metadata.get('state'), metadata.custom_metadata
    except Exception as error:
      raise self._damaged(step, _brief(error)) from error
    if not leaves:
      raise self._damaged(step, 'which leaves it has cannot be read')
    if not facts or 'positions' not in facts:
      raise self._damaged(step, 'its _CHECKPOINT_METADATA cannot be read')
    facts = dict(facts)
    checksum = facts.pop(_CHECKSUM, None)
    if checksum not in (None, checksums.of_json(facts)):
      raise self._damaged(step, 'its metadata is not what was saved')
    return dict(leaves), facts

  def _where(self, step: int) -> str:
    return f'checkpoint {step} in {self._directory}'

  def _damaged(self, step: int, reason: str) -> CheckpointError:
    return CheckpointError(
        f'{self._where(step)} is damaged: {reason}. Remove it to go on from an'
        ' earlier one.'
    )

  def _frozen_damaged(self, reason: str) -> CheckpointError:
    return CheckpointError(
        f'{self._directory / _FROZEN} is damaged: {reason}. Put it back: all'
        ' checkpoints beside it need it.'
    )

  def wait(self) -> None:
    """Blocks until what was being saved is on disk.

    Raises:
      CheckpointError: if it could not be written; so do `save` and `close`, of
        what was being saved before.
    """
    with self._writing():
      self._checkpointer.wait()

  def close(self) -> None:
    with self._writing():
      self._checkpointer.close()

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:
      self._remove_temporary()
      raise CheckpointError(
          f'A checkpoint in {self._directory} could not be written:'
          f' {_brief(error)}'
      ) from error


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


def _is_frozen(name: str) -> bool:
  return name.startswith(f'{_FROZEN}.')


def _some(lines: list[str]) -> str:
  more = [f'and {len(lines) - 3} more leaves'] if len(lines) > 3 else []
  return '; '.join(lines[:3] + more)


def _brief(error: Exception) -> str:
  return f'{type(error).__name__}: {str(error)[:300]}'
