"""Where metrics go: a JSONL file, TensorBoard files and a progress line."""

from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
import sys
import time

from absl import logging
import rich.console
import rich.progress
import tensorboardX

from audiolm_jax import config

METRICS = 'metrics.jsonl'


class MetricsError(config.ConfigError):
  """The metrics of a work directory are damaged."""


def write_atomically(path: pathlib.Path, content: str | bytes) -> None:
  """Replaces a file so that a kill leaves the old or the new one, whole.

  Several processes may write the same file; the last one's stands.
  """
  temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
  try:
    with naming(path), temporary.open(
        'w' if isinstance(content, str) else 'wb'
    ) as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    temporary.replace(path)
  except OSError:
    temporary.unlink(missing_ok=True)
    raise


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
  """Names a path in an OSError that names none: that of a full disk does not."""
  try:
    yield
  except OSError as error:
    error.filename = error.filename or str(path)
    raise


def read_metrics(workdir: str | os.PathLike) -> list[dict]:
  """The records of a work directory's metrics.jsonl, without a torn last one.

  Raises:
    MetricsError: naming a line that is no record.
  """
  path = pathlib.Path(workdir) / METRICS
  if not path.exists():
    return []
  lines = path.read_bytes().split(b'\n')
  # Everything after the last newline was being written when the process died.
  return [_record(path, n, line) for n, line in enumerate(lines[:-1], 1)]


def _record(path: pathlib.Path, number: int, line: bytes) -> dict:
  try:
    record = json.loads(line)
  except (ValueError, RecursionError):
    record = None
  if not isinstance(record, dict) or type(record.get('step')) is not int:
    raise MetricsError(
        f'{path}: line {number} is damaged: {line[:60]!r}. Remove it to go on'
        ' without its record.'
    )
  return record


class Writer:
  """Metrics of one run, from step `start` on.

  Records of later steps that a killed process left are dropped, so that the
  file of a run that was killed and resumed equals that of one that was not, but
  for the entries that start with 'time/'.
  """

  def __init__(self, workdir: str | os.PathLike, start: int):
    workdir = pathlib.Path(workdir)
    # A run that starts over writes its step 0 again too.
    kept = [r for r in read_metrics(workdir) if start and r['step'] <= start]
    text = ''.join(json.dumps(record) + '\n' for record in kept)
    write_atomically(workdir / METRICS, text)
    self._path = workdir / METRICS
    self._file = self._path.open('a')
    self._events = tensorboardX.SummaryWriter(
        str(workdir / 'tensorboard'), purge_step=start + 1
    )

  def write(self, step: int, values: dict) -> None:
    """Appends {'step': step, **values}; numbers go to TensorBoard too."""
    with naming(self._path):
      self._file.write(json.dumps({'step': step, **values}) + '\n')
    for name, value in values.items():
      if isinstance(value, (int, float)):
        self._events.add_scalar(name, value, step)

  def flush(self) -> None:
    """Hands what was written to the operating system."""
    with naming(self._path):
      self._file.flush()
      self._events.flush()

  def close(self) -> None:
    with naming(self._path):
      try:
        self._file.close()
      finally:
        self._events.close()


class Progress:
  """A progress line on a terminal, plain log lines elsewhere."""

  def __init__(self, start: int, steps: int, quiet: bool = False):
    self._steps = steps
    self._last = (time.perf_counter(), start)
    self._audio = 0.0
    self._spoken = float('-inf')
    self._bar = None
    if quiet:
      self._spoken = float('inf')
    elif sys.stderr.isatty():
      self._bar = rich.progress.Progress(
          rich.progress.TextColumn('{task.completed}/{task.total}'),
          rich.progress.BarColumn(),
          rich.progress.TextColumn('{task.description}'),
          rich.progress.TimeRemainingColumn(),
          console=rich.console.Console(stderr=True),
      )
      self._task = self._bar.add_task('', total=steps, completed=start)
      self._bar.start()

  def add_audio(self, seconds: float) -> None:
    """Counts audio given to the step since the last `update`."""
    self._audio += seconds

  def update(self, step: int, loss: float) -> dict[str, float]:
    """Shows the state of things; returns the rates since the last update."""
    now = time.perf_counter()
    then, done = self._last
    if step == done:
      return {}
    elapsed = max(now - then, 1e-9)
    rate, audio = (step - done) / elapsed, self._audio / elapsed
    self._last, self._audio = (now, step), 0.0
    text = f'loss {loss:.4g}  {rate:.3g} steps/s  {audio:.3g} audio s/s'
    if self._bar is not None:
      self._bar.update(self._task, completed=step, description=text)
    elif now - self._spoken > 5 or step == self._steps:
      # Lines in a log file need no second-by-second news.
      self._spoken = now
      left = (self._steps - step) / rate
      logging.info('step %d/%d  %s  ETA %.0f s', step, self._steps, text, left)
    return {'time/steps_per_second': rate, 'time/audio_per_second': audio}

  def close(self) -> None:
    if self._bar is not None:
      self._bar.stop()
