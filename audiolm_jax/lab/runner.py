"""Runs the stages that are missing, alone or beside other processes."""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import json
import pathlib
import re
import shutil
import time
from typing import Any

from audiolm_jax import config
from audiolm_jax.lab import stages
from audiolm_jax.models import tokenizer_card
from audiolm_jax.training import locks
from audiolm_jax.training import writers

# Stands in the directory of a stage whose checkpoints were removed.
_CLEARED = 'cleared'
# Seconds between looks at what another process runs.
_POLL = 5.0


@dataclasses.dataclass(frozen=True)
class Shard:
  """Which of the runs are this process's: those with number % count == index.

  `Shard.parse('0/2')` and `Shard.parse('1/2')` fill one work directory
  together.
  """

  index: int = 0
  count: int = 1

  @classmethod
  def parse(cls, text: str) -> 'Shard':
    """'i/n', with i from 0 to n - 1.

    Raises:
      ValueError: for anything else.
    """
    match = re.fullmatch(r'(\d+)/(\d+)', text)
    if not match or not int(match[1]) < int(match[2]):
      raise ValueError(f'{text!r}: expected i/n with 0 <= i < n, as in 0/2')
    return cls(int(match[1]), int(match[2]))

  def of(self, runs: Sequence[Any]) -> list[Any]:
    """This process's part of some runs."""
    return list(runs[self.index :: self.count])


ALL = Shard()


class Lab:
  """A work directory of stages.

  WORKDIR/stages/NAME-KEY holds what a stage writes, and result.json once it has
  finished. What is there is not run again. Several processes, on one machine
  or on several that share the directory, may run stages at the same time: a
  stage that another one runs is waited for.
  """

  def __init__(self, workdir: pathlib.Path):
    self.workdir = pathlib.Path(workdir).absolute()

  def directory(self, stage: stages.Stage) -> pathlib.Path:
    """Where a stage writes."""
    return self.workdir / 'stages' / stage.folder

  def result(self, stage: stages.Stage) -> dict[str, Any] | None:
    """What a finished stage gave, with its facts; None if it has not finished.

    Raises:
      config.ConfigError: if the file is damaged.
    """
    path = self.directory(stage) / stages.RESULT
    if not path.exists():
      return None
    try:
      result = json.loads(path.read_bytes())
      if result['key'] != stage.key:
        raise ValueError(f'it is of {result["key"]}')
    except (ValueError, KeyError, TypeError) as error:
      raise config.ConfigError(
          f'{path} is damaged: {error}. Remove its folder to run the stage'
          ' again.'
      ) from error
    return result

  def metrics(self, stage: stages.Stage) -> dict[str, float]:
    """The metrics of a finished stage.

    Raises:
      config.ConfigError: if it has not finished, or is damaged.
    """
    result = self.result(stage)
    if result is None:
      raise config.ConfigError(f'{self.directory(stage)} has not finished.')
    return result['result'].get('metrics', {})

  def seconds(self) -> dict[str, float]:
    """Mean seconds of the stages that have finished here, by name."""
    spent: dict[str, list[float]] = {}
    for path in self.workdir.glob(f'stages/*/{stages.RESULT}'):
      try:
        facts = json.loads(path.read_bytes())
        spent.setdefault(facts['name'], []).append(facts['seconds'])
      except (ValueError, KeyError, TypeError):
        continue  # Whoever needs it says what is wrong with it.
    return {name: sum(s) / len(s) for name, s in spent.items()}

  def missing(self, wanted: Iterable[stages.Stage]) -> list[stages.Stage]:
    """What must run for some stages, inputs first, each once."""
    needed = {}

    def add(stage):
      if stage.folder in needed or self._available(stage):
        return
      for each in stage.inputs:
        add(each)
      needed[stage.folder] = stage

    for stage in wanted:
      if self.result(stage) is None:
        add(stage)
    return list(needed.values())

  def at_work(self, wanted: Iterable[stages.Stage]) -> int:
    """How many of some stages are being run now, by whichever process."""
    folders = (self.workdir / 'locks' / stage.folder for stage in wanted)
    return sum(locks.is_held(folder) for folder in folders)

  def _available(self, stage) -> bool:
    """Whether a stage has finished, and what it wrote is still there."""
    cleared = (self.directory(stage) / _CLEARED).exists()
    return self.result(stage) is not None and not cleared

  def run(
      self,
      wanted: Sequence[stages.Stage],
      note: Callable[[Sequence[stages.Stage]], None] = lambda left: None,
  ) -> None:
    """Runs what is missing of some stages and of what they need.

    Args:
      wanted: what is to have finished.
      note: called before a stage runs, with it and those that are left.

    Raises:
      stages.StageError: if a stage failed.
      stages.Interrupted: if a signal ended one.
    """
    while True:
      left = self.missing(wanted)
      if not left:
        return
      ran = False
      for index, stage in enumerate(left):
        if not all(self._available(each) for each in stage.inputs):
          continue  # Another process runs what it needs.
        ran |= self._try(stage, note, left[index:])
      if not ran:
        time.sleep(_POLL)

  def _try(self, stage, note, left) -> bool:
    """Runs a stage, unless another process does: whether it has finished."""
    directory = self.directory(stage)
    lock = self.workdir / 'locks' / stage.folder
    lock.mkdir(parents=True, exist_ok=True)
    try:
      with locks.hold(lock):
        if self._available(stage):
          return True
        note(left)
        (directory / _CLEARED).unlink(missing_ok=True)
        (directory / stages.RESULT).unlink(missing_ok=True)
        directory.mkdir(parents=True, exist_ok=True)
        inputs = {each.name: self.directory(each) for each in stage.inputs}
        start = time.monotonic()
        result = stage.run(directory, inputs)
        self._finish(stage, result, time.monotonic() - start)
    except locks.LockedError:
      return False
    return True

  def _finish(self, stage, result, seconds):
    """Writes what a stage gave: from then on it has finished."""
    facts = {
        'name': stage.name,
        'kind': type(stage).__name__,
        'key': stage.key,
        'values': stage.values(),
        'inputs': {each.name: each.key for each in stage.inputs},
        'result': result,
        'seconds': seconds,
        'libraries': stages.versions(),
        'machine': tokenizer_card.device(),
    }
    text = json.dumps(facts, indent=1, sort_keys=True)
    writers.write_atomically(self.directory(stage) / stages.RESULT, text)

  def clear(self, stage: stages.Stage) -> None:
    """Removes the checkpoints and the model of a finished stage.

    Its metrics stay. A later stage that needs more makes it run again.
    """
    directory = self.directory(stage)
    if self.result(stage) is None:
      return
    for name in ('checkpoints', 'model'):
      if (directory / name).exists():
        (directory / _CLEARED).touch()
        shutil.rmtree(directory / name)
