"""The training loop: evaluate -> checkpoint -> next batch -> step, always.

Everything that moves is in the checkpoint (the train state and the data
source's position), and metrics of later steps are dropped on resume; so a run
that was killed anywhere and started again equals one that was not.
"""

import contextlib
import functools
import math
import os
import pathlib
import signal
import threading
from typing import Any

from absl import logging
import jax
from jax.experimental import multihost_utils
import ml_collections
import numpy as np

from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import evaluate
from audiolm_jax import exporting
from audiolm_jax import resolution
from audiolm_jax.config import diff
from audiolm_jax.config import relocation
from audiolm_jax.training import checkpoints
from audiolm_jax.training import costs
from audiolm_jax.training import launch
from audiolm_jax.training import limits
from audiolm_jax.training import locks
from audiolm_jax.training import lowering
from audiolm_jax.training import mesh as mesh_lib
from audiolm_jax.training import options
from audiolm_jax.training import processes
from audiolm_jax.training import state as state_lib
from audiolm_jax.training import step as step_lib
from audiolm_jax.training import writers

Config = assembly_lib.Config
ModelTraining = assembly_lib.ModelTraining

# Steps the host may run ahead of what it has looked at.
_MOST_PENDING = 16


class NotFiniteError(FloatingPointError):
  """A loss, gradient or new state was not finite; the step was not applied."""


def train(settings: Config, workdir: str | os.PathLike) -> dict[str, float]:
  """Trains until `settings.steps`, from the last checkpoint if there is one.

  Args:
    settings: of a config file, or made in Python. It is built anew and checked:
      a module that stands in two of its fields gets parameters in each.
    workdir: gets config.json (with what parts of the config leave to each other
      filled in), checkpoints/, model/, metrics.jsonl, tensorboard/ and
      evaluations/.

  Returns:
    The last record of metrics and the last evaluation's results.

  Raises:
    config.ConfigError: if the config is wrong, or the work directory holds
      another one; the message names the keys.
    locks.LockedError: if another process trains in the work directory.
    checkpoints.CheckpointError: if the last checkpoint can't be read.
    NotFiniteError: naming the step, the groups and the last good checkpoint.
  """
  launch.prepare()
  settings = config.build(Config, settings)
  options.check(settings)
  settings = resolution.resolve(settings, read=True)
  assembly = assembly_lib.Assembly(settings)
  workdir = pathlib.Path(workdir).absolute()
  workdir.mkdir(parents=True, exist_ok=True)
  with locks.hold(workdir), jax.set_mesh(assembly.mesh):
    _claim(workdir, settings)
    return _Run(assembly, workdir).run()


def _claim(workdir: pathlib.Path, settings: Config) -> None:
  """Makes a work directory this config's, or checks that it is.

  One in which nothing was trained yet is taken over: a start that failed must
  not stand in the way of the corrected command.
  """
  # Paths as they are from the work directory, which may move with them.
  resolved = config.to_config(settings).to_dict()
  resolved = relocation.portable(Config, resolved, workdir)
  if _has_trained(workdir):
    # What it does not say yet was at its default.
    old = config.build(Config, assembly_lib.read(workdir))
    old = config.to_config(resolution.resolve(old))
    new = relocation.placed(Config, resolved, workdir)
    lines = diff.lines(old.to_dict(), new)
    if lines:
      raise config.ConfigError(
          f'{workdir} holds a run of another config (there -> here):\n  '
          + '\n  '.join(lines)
          + '\nGive another --workdir, or the same config.'
      )
  elif jax.process_index() == 0:
    text = config.to_json(ml_collections.ConfigDict(resolved)) + '\n'
    writers.write_atomically(workdir / assembly_lib.CONFIG_FILE, text)
  # The first must not write metrics before the others have looked for some.
  processes.gather(None)


def _has_trained(workdir: pathlib.Path) -> bool:
  """Whether a directory has a config, and checkpoints or metrics of it."""
  has_config = (workdir / assembly_lib.CONFIG_FILE).exists()
  has_metrics = (workdir / writers.METRICS).exists()
  return has_config and (
      has_metrics or any((workdir / 'checkpoints').glob('[0-9]*'))
  )


class _Run:
  """One call of `train`: what the loop needs at hand."""

  def __init__(self, assembly: assembly_lib.Assembly, workdir: pathlib.Path):
    self.assembly, self.workdir = assembly, workdir
    self.settings = assembly.config
    self.writer = None
    self.tracing = False
    # (step, device metrics or None, ids or None), oldest first.
    self.pending: list[tuple[int, Any, list[int] | None]] = []
    self.last: dict[str, float] = {}
    self.evaluated: tuple[int, dict[str, float]] = (-1, {})

  def run(self) -> dict[str, float]:
    settings = self.settings
    with contextlib.ExitStack() as stack:
      self.store = checkpoints.Checkpoints(
          self.workdir / 'checkpoints', settings.checkpoint
      )
      self.exporter = exporting.Exporter(
          self.assembly, self.workdir, self.store
      )
      stack.callback(self.exporter.publish)
      stack.callback(self.store.close)
      self.exporter.catch_up()
      self.source = self._open_source()
      stack.callback(self.source.close)
      start = self.store.latest() or 0
      state = self._start(start)
      first = None
      if start < settings.steps:
        logging.info('Making a first batch of %d.', settings.batch_size)
        first = self._next(state)
        self._check_batch(first)
        with options.building('The step of this config'):
          self.step = self._compile(first)
        limits.check(
            self.last['cost/step_bytes'],
            limits.device_memory(),
            f'A step at config.batch_size = {settings.batch_size}, a device,',
        )
      self.evaluators = evaluate.build(self.assembly)
      if jax.process_index() == 0:
        self.writer = writers.Writer(self.workdir, start)
        stack.callback(self.writer.close)
        if start == 0:
          self.writer.write(0, self.last)
      self.progress = writers.Progress(
          start, settings.steps, quiet=jax.process_index() != 0
      )
      stack.callback(self.progress.close)
      stop = stack.enter_context(_stop_on_signals())
      return self._loop(state, start, first, stop)

  def _loop(self, state, start, batch, stop) -> dict[str, float]:
    """The loop; `batch` is the first one, fetched already to check it."""
    settings = self.settings
    for step in range(start, settings.steps + 1):
      done = step == settings.steps
      stopping = self._stopping(stop, step)
      if step > start and (done or step % settings.eval_every == 0):
        self._evaluate(state, step)
      if step > start and (
          done or stopping or step % settings.checkpoint.every == 0
      ):
        self._save(state, step)
      if done or stopping:
        break
      self._profile(step)
      with jax.transfer_guard('disallow'):
        host = self._next(state) if batch is None else batch
        batch = mesh_lib.put_batch(host, self.assembly.mesh)
        state, metrics = self.step(state, batch, self.rates(state.step))
      batch = None
      self._note(step + 1, metrics, host)
    self._end_profile()
    self._drain()
    self._wait()
    if step < settings.steps:
      logging.info('Stopped at step %d of %d.', step, settings.steps)
    return self.last

  def _stopping(self, stop: threading.Event, step: int) -> bool:
    """Whether a signal came to any process: they must stop together."""
    if jax.process_count() == 1:
      return stop.is_set()
    if step % self.settings.log_every:
      # Asking the others is a wait, so not every step.
      return False
    flags = multihost_utils.process_allgather(np.bool_(stop.is_set()))
    return bool(np.any(flags))

  # -- the four things a step may do ------------------------------------------

  def _evaluate(self, state: state_lib.TrainState, step: int) -> None:
    self._drain()
    if not self.evaluators:
      return
    variables = self.assembly.variables(state)
    directory = self.workdir if jax.process_index() == 0 else None
    results = evaluate.run(self.evaluators, variables, step, directory)
    self.last |= results
    self.evaluated = (step, results)
    self._write(step, results)
    for name, value in results.items():
      logging.info('step %d  %s = %.5g', step, name, value)
    best = self.settings.checkpoint.best
    if best is not None and best not in results:
      self._save(state, step)
      self._wait()
      raise config.ConfigError(
          f'config.checkpoint.best = {best!r}: the evaluation gave'
          f' {sorted(results)}. Step {step} was saved; to go on from it, give'
          f' one of these in {self.workdir}/{assembly_lib.CONFIG_FILE} too.'
      )

  def _save(self, state: state_lib.TrainState, step: int) -> None:
    self._drain()
    if self.writer is not None:
      # Records before the checkpoint: a resumed run drops what is too new,
      # but cannot make up what is missing.
      self.writer.flush()
    # An older evaluation is of other parameters, so only one of this step may
    # make this checkpoint the best.
    evaluated, results = self.evaluated
    is_best = self.store.save(
        step,
        state,
        self.source.get_state(),
        results if evaluated == step else {},
    )
    # The one before is on the disk now.
    self.exporter.publish()
    if is_best:
      self.exporter.stage(state)

  def _wait(self) -> None:
    """Until the last checkpoint is on the disk, and its model in place."""
    self.store.wait()
    self.exporter.publish()

  def _next(self, state: state_lib.TrainState) -> dict[str, np.ndarray]:
    return self.source.next(state)

  def _note(self, step: int, metrics, host) -> None:
    """Queues a step's metrics, and looks at those of the steps before it."""
    self.progress.add_audio(self.assembly.objective.audio_seconds(host))
    ids = None
    if self.settings.log_ids:
      ids = np.asarray(host['id']).tolist()
    self.pending.append((step, metrics, ids))
    # A record's rates are those at the time it is looked at, so each is looked
    # at a step after it was made.
    due = (step - 1) % self.settings.log_every == 0
    if due or len(self.pending) > _MOST_PENDING:
      # All but the newest, which the device may still be at: a step of lag.
      self._look(self.pending[:-1])
      self.pending = self.pending[-1:]
      self.exporter.publish()

  # -- metrics ----------------------------------------------------------------

  def _drain(self) -> None:
    self._look(self.pending)
    self.pending = []

  def _look(self, entries) -> None:
    """Fetches, checks and writes the metrics of some finished steps."""
    if not entries:
      return
    fetched = jax.device_get([metrics for _, metrics, _ in entries])
    for (step, _, ids), metrics in zip(entries, fetched, strict=True):
      broken = [name for name, ok in metrics['finite'].items() if not ok]
      if broken:
        self._stop_broken(step, broken)
      record = {} if ids is None else {'ids': ids}
      if step % self.settings.log_every == 0 or step == self.settings.steps:
        values = {k: float(v) for k, v in metrics['scalars'].items()}
        self.last |= values
        rates = self.progress.update(step, values['loss'])
        record |= values | rates
      if record:
        self._write(step, record)

  def _write(self, step: int, record: dict) -> None:
    if self.writer is not None:
      self.writer.write(step, record)

  def _stop_broken(self, step: int, groups: list[str]) -> None:
    self._wait()
    good = self.store.latest()
    where = (
        'there is no checkpoint yet'
        if good is None
        else f'the last good checkpoint is {self.workdir}/checkpoints/{good}'
    )
    raise NotFiniteError(
        f'Step {step} is not finite in: {", ".join(groups)}. Its update was not'
        f' applied, and {where}.'
    )

  # -- the start --------------------------------------------------------------

  def _open_source(self):
    processes = jax.process_count()
    if self.settings.batch_size % processes:
      raise config.ConfigError(
          f'config.batch_size = {self.settings.batch_size}: expected a multiple'
          f' of the {processes} processes.'
      )
    return self.settings.data.open(
        batch_size=self.settings.batch_size // processes,
        seed=self.settings.seed,
        shard=(jax.process_index(), processes),
    )

  def _start(self, step: int) -> state_lib.TrainState:
    """The state at `step`; the data source is moved there too."""
    if step == 0:
      self.assembly.check_size()
      return self.assembly.create()
    state, position = self.store.restore(step, self.assembly.abstract)
    self.source.set_state(position)
    logging.info('Going on from step %d in %s.', step, self.workdir)
    return state

  def _check_batch(self, batch) -> None:
    """Compares names, shapes and dtypes with what the objective expects."""
    rows = self.settings.batch_size // jax.process_count()
    expected = self.assembly.objective.example_batch(rows)
    problems = [f'{name} is missing' for name in expected.keys() - batch.keys()]
    for name in expected.keys() & batch.keys():
      want, have = expected[name], batch[name]
      if want.shape != have.shape or want.dtype != have.dtype:
        problems.append(
            f'{name} is {have.dtype}{list(have.shape)}, expected'
            f' {want.dtype}{list(want.shape)}'
        )
    if problems:
      raise config.ConfigError(
          'config.data does not fit config.objective: '
          + '; '.join(sorted(problems))
      )

  def _compile(self, batch):
    """Compiles the step, and says what it costs."""
    assembly = self.assembly
    self.rates = jax.jit(
        functools.partial(step_lib.rates, assembly.model_optimizers),
        out_shardings=assembly.shardings.step,
    )
    traced = lowering.trace_step(assembly, batch)
    compiled = traced.lower().compile()
    trainable = state_lib.size(assembly.abstract.trainable)
    total = trainable + state_lib.size(assembly.abstract.frozen)
    flops = costs.jaxpr_flops(traced.jaxpr)
    memory = costs.memory(compiled)
    logging.info(
        'Parameters: %s, of which %s train. A step: %s, %s a device. Mesh: %s.',
        costs.readable(total),
        costs.readable(trainable),
        costs.readable(flops, 'FLOPs'),
        costs.readable(memory.get('total', math.nan), 'B'),
        dict(assembly.mesh.shape),
    )
    self.last |= {
        'cost/parameters': total,
        'cost/trainable_parameters': trainable,
        'cost/flops_a_step': flops,
        'cost/step_bytes': memory.get('total', math.nan),
    }
    return compiled

  def _profile(self, step: int) -> None:
    profile = self.settings.profile
    if profile.steps and step == profile.start:
      jax.profiler.start_trace(str(self.workdir / 'profile'))
      self.tracing = True
    if step >= profile.start + profile.steps:
      self._end_profile()

  def _end_profile(self) -> None:
    if self.tracing:
      self._drain()
      jax.profiler.stop_trace()
      self.tracing = False
      logging.info('Profile written to %s/profile.', self.workdir)


@contextlib.contextmanager
def _stop_on_signals():
  """An event that SIGTERM or SIGINT sets; a second one ends at once."""
  stop = threading.Event()
  if threading.current_thread() is not threading.main_thread():
    # Only the main thread may handle signals.
    yield stop
    return
  numbers = (signal.SIGTERM, signal.SIGINT)
  old = {number: signal.getsignal(number) for number in numbers}

  def on_signal(number, frame):
    del frame
    stop.set()
    signal.signal(number, old[number])
    logging.info('Signal %d: saving a checkpoint, then stopping.', number)

  for number in numbers:
    signal.signal(number, on_signal)
  try:
    yield stop
  finally:
    for number in numbers:
      signal.signal(number, old[number])
