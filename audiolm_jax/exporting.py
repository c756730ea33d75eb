"""The trained model of a run as a directory, `WORKDIR/model/`.

It is the one of the checkpoint that is the best by `checkpoint.best`, or else
the latest. It is written when that is saved, and put in its place when the
checkpoint is on the disk: so, whenever a run is killed, it is of that checkpoint
or of the one that was so before, never of a step that the run has still to get
to. What a killed run left out is made up for when the run goes on.
"""

import dataclasses
import os
import pathlib
import shutil

from absl import logging
import jax

from audiolm_jax import assembly as assembly_lib
from audiolm_jax import param_transforms
from audiolm_jax.data import token_cache
from audiolm_jax.models import directory
from audiolm_jax.models import loading
from audiolm_jax.training import checkpoints
from audiolm_jax.training import launch
from audiolm_jax.training import locks
from audiolm_jax.training import processes
from audiolm_jax.training import state as state_lib


class Exporter:
  """The model directory of a run, kept in step with its checkpoints."""

  def __init__(
      self,
      assembly: assembly_lib.Assembly,
      workdir: pathlib.Path,
      store: checkpoints.Checkpoints,
  ):
    """Neither reads nor writes.

    Args:
      assembly: the run's parts.
      workdir: where the run is.
      store: its checkpoints.
    """
    self._assembly, self._store = assembly, store
    self._place = workdir / directory.FOLDER
    self._new = workdir / f'{directory.FOLDER}.new'
    self._staged: int | None = None
    self._manifest: directory.Manifest | None = None

  def catch_up(self) -> None:
    """Makes up for what a killed run, or an old version, left out."""
    step = self._store.best()
    if step is None:
      return
    has = None
    if jax.process_index() == 0:
      directory.recover(self._place)
      shutil.rmtree(self._new, ignore_errors=True)
      has = _step_of(self._place)
    if processes.gather(has)[0] == step:
      return
    logging.info('Writing %s of step %d.', self._place, step)
    state, _ = self._store.restore(step, self._assembly.abstract)
    self.stage(state)
    self.publish()

  def stage(self, state: state_lib.TrainState) -> None:
    """Writes a state's model beside its place; the state may then be donated."""
    if self._manifest is None:
      self._manifest = manifest(self._assembly, state)
    step = int(state.step)
    values = dataclasses.replace(self._manifest, step=step)
    variables = self._assembly.variables(state)[values.model]
    directory.write(self._new, values, variables, self._place)
    self._staged = step

  def publish(self) -> None:
    """Puts what was staged in its place, if its checkpoint is on the disk."""
    if self._staged is not None and self._store.is_finished(self._staged):
      if jax.process_index() == 0:
        directory.swap(self._new, self._place)
      self._staged = None


def _step_of(place: pathlib.Path) -> int | None:
  """The step that a model directory is of; None for none that is whole."""
  if not place.exists():
    return None
  try:
    return directory.stored(place).manifest.step
  except directory.ModelError as error:
    logging.warning('%s It is written anew.', error)
    return None


def manifest(
    assembly: assembly_lib.Assembly, state: state_lib.TrainState
) -> directory.Manifest:
  """What a run's model directory says of it, but for the fingerprint.

  Args:
    assembly: the run's parts.
    state: whose model it is; what never moves is compared with the base.
  """
  name, description = assembly.objective.model
  return directory.Manifest(
      module=description.module,
      model=name,
      rate=description.rate,
      step=int(state.step),
      adapter=_adapter(assembly, name, state.frozen[name]),
      tokenizer=_tokenizer(assembly.config.data),
  )


def _adapter(assembly, name, frozen) -> directory.Adapter | None:
  """What the model adds to which base; None to write it whole.

  That is where nothing is frozen, and where the base is not there as a model
  directory, or no longer holds what this run stands on.
  """
  settings, base = assembly.config.models[name], None
  transform, where = settings.param_transform, settings.init_from
  if isinstance(transform, param_transforms.Full) or where is None:
    return None
  try:
    base = loading.stored(where)
  except directory.ModelError as error:
    logging.warning('The model is written whole, not as an adapter: %s', error)
  # Together, as comparing gathers what is spread over processes.
  if not all(processes.gather(base is not None)):
    return None
  named = base.manifest.model == (settings.init_model or name)
  if not named or not directory.is_base(base, frozen):
    logging.warning(
        'The model is written whole, not as an adapter: %s is not, or no longer,'
        ' what it stands on.',
        where,
    )
    return None
  return directory.Adapter(transform, where, base.manifest.fingerprint)


def _tokenizer(source) -> directory.Speaks | None:
  """The tokenizer that made the tokens of a run's config.data."""
  cache = getattr(source, 'cache', None)
  if cache is None:
    return None
  if not pathlib.Path(cache).exists():
    logging.warning(
        '%s is gone: the model will not know which tokenizer its tokens are of.',
        cache,
    )
    return None
  header = token_cache.read_header(cache)
  return directory.Speaks(header.tokenizer, header.fingerprint)


def export(
    workdir: str | os.PathLike,
    out: str | os.PathLike | None = None,
    step: int | None = None,
) -> pathlib.Path:
  """Writes the model directory of a run's checkpoint.

  Args:
    workdir: of a run that has saved a checkpoint.
    out: where to; by default the run's own `model/`.
    step: of which checkpoint; by default the best by `checkpoint.best`, or else
      the last.

  Returns:
    Where it is.

  Raises:
    config.ConfigError: if it is no work directory, or `out` holds something
      else.
    locks.LockedError: if a process trains there, which writes it itself.
    checkpoints.CheckpointError: if it has no readable checkpoint.
  """
  launch.prepare()
  assembly, state = assembly_lib.restore(workdir, step)
  values = manifest(assembly, state)
  variables = assembly.variables(state)[values.model]
  if out is not None:
    return _place(values, variables, pathlib.Path(out).absolute())
  workdir = pathlib.Path(workdir).absolute()
  with locks.hold(workdir):
    return _place(values, variables, workdir / directory.FOLDER)


def merge(
    path: str | os.PathLike,
    out: str | os.PathLike,
    base: str | os.PathLike | None = None,
) -> pathlib.Path:
  """Writes an adapter and its base as one whole model.

  Args:
    path: the adapter's directory, or its work directory.
    out: where to.
    base: where the base is; by default where it was.

  Returns:
    Where it is.

  Raises:
    directory.ModelError: if it is no adapter, is damaged, or the base is
      another; if `out` holds something else.
  """
  launch.prepare()
  entry, variables = loading.read(path, base)
  if entry.manifest.adapter is None:
    raise directory.ModelError(f'{path} is no adapter: it is whole already.')
  values = dataclasses.replace(entry.manifest, adapter=None)
  return _place(values, variables, pathlib.Path(out).absolute())


def _place(values, variables, place: pathlib.Path) -> pathlib.Path:
  """Writes a directory beside its place, then puts it there."""
  if place.exists() and not (place / directory.WEIGHTS).exists():
    raise directory.ModelError(
        f'{place} is there, and is no model directory: give another.'
    )
  new = place.with_name(f'{place.name}.new')
  directory.write(new, values, variables, place)
  directory.swap(new, place)
  return place
