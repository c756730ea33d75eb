"""From a config to the parts that train: schema, model_optimizers, sharded state."""

import dataclasses
import functools
import json
import math
import os
import pathlib
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import ml_collections
import numpy as np

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax import ops
from audiolm_jax import param_transforms
from audiolm_jax import resolution
from audiolm_jax.config import relocation
from audiolm_jax.models import directory
from audiolm_jax.models import loading
from audiolm_jax.objectives import base as objectives_base
from audiolm_jax.training import checkpoints
from audiolm_jax.training import limits
from audiolm_jax.training import mesh as mesh_lib
from audiolm_jax.training import optimizers
from audiolm_jax.training import options
from audiolm_jax.training import state as state_lib
from audiolm_jax.training import step as step_lib

CONFIG_FILE = 'config.json'


@dataclasses.dataclass(frozen=True)
class ModelTraining:
  """How one of the objective's models trains.

  Attributes:
    optimizer: see training/optimizers.py.
    schedule: its learning rate by steps; see training/optimizers.py.
    clip: largest global norm of the model's gradient.
    ema: decay of the average of its parameters that evaluation uses.
    param_transform: which parameters train, and in which form.
    init_from: work directory, or model directory, whose parameters (and state)
      it starts from.
    init_model: which model of that run; by default the one of its own name.
    init_fresh: regular expressions, found anywhere in their paths, of parameters
      that stay fresh where that run has none of them.
  """

  optimizer: Annotated[Any, config.Kind(lambda: optimizers.OPTIMIZERS)] = (
      optimizers.AdamW()
  )
  schedule: Annotated[Any, config.Kind(lambda: optimizers.SCHEDULES)] = (
      optimizers.Constant()
  )
  clip: config.NonNegative | None = None
  ema: config.Share | None = None
  param_transform: Annotated[
      Any, config.Kind(lambda: param_transforms.TRANSFORMS)
  ] = param_transforms.Full()
  init_from: Annotated[str, config.Path()] | None = None
  init_model: str | None = None
  init_fresh: Annotated[tuple[str, ...], config.Added()] = ()


@dataclasses.dataclass(frozen=True)
class Profile:
  """A trace of `steps` steps from step `start` on, in workdir/profile."""

  start: config.Count = 10
  steps: config.Count = 0


@dataclasses.dataclass(frozen=True)
class Config:
  """A training run.

  Attributes:
    objective: what is trained.
    data: where its batches come from.
    models: how each of the objective's models trains.
    evaluators: what is measured every `eval_every` steps and at the end.
    seed: of parameters, data order and everything random.
    steps: optimizer steps.
    batch_size: examples a step, over all processes and microbatches.
    accumulation: microbatches a step.
    log_every: steps between metric records.
    log_ids: whether to record the ids of every step's examples.
    eval_every: steps between evaluations.
    checkpoint: what is saved when.
    mesh: devices along each axis.
    profile: steps to trace.
  """

  objective: Annotated[Any, config.Kind(lambda: objectives.OBJECTIVES)]
  data: Annotated[Any, config.Kind(lambda: data.SOURCES)]
  models: Annotated[dict[str, ModelTraining], config.Named(ModelTraining)]
  evaluators: Annotated[
      dict[str, Any],
      config.Named(Annotated[Any, config.Kind(lambda: evaluation.EVALUATORS)]),
  ] = dataclasses.field(default_factory=dict)
  seed: Annotated[int, config.Range(min=0, max=2**32 - 1)] = 0
  steps: config.Positive = 1000
  batch_size: config.Positive = 8
  accumulation: config.Positive = 1
  log_every: config.Positive = 10
  log_ids: bool = False
  eval_every: config.Positive = 1000
  checkpoint: checkpoints.Config = checkpoints.Config()
  mesh: mesh_lib.Config = mesh_lib.Config()
  profile: Profile = Profile()

  def assemble(self, mesh: jax.sharding.Mesh | None = None) -> 'Assembly':
    """The run's parts; see `Assembly`."""
    return Assembly(self, mesh)


class Assembly:
  """The parts of a run, and its state as shapes and shardings.

  Attributes:
    config: the built `Config`.
    objective: what is trained.
    mesh: the devices.
    model_optimizers: {model: ModelOptimizer}.
    abstract: the train state as ShapeDtypeStructs with shardings.
  """

  def __init__(self, settings: Config, mesh: jax.sharding.Mesh | None = None):
    """Builds everything but arrays.

    Args:
      settings: the run.
      mesh: instead of the config's, as when a model is loaded elsewhere.

    Raises:
      config.ConfigError: if parts of the config do not fit each other.
    """
    settings = resolution.resolve(settings)
    self.config = settings
    self.objective = settings.objective
    self.mesh = settings.mesh.build() if mesh is None else mesh
    with options.building('The models of config.objective'):
      boxed = jax.eval_shape(self.objective.init, jax.random.key(0))
    self._check(boxed)
    self._axes = {
        model: mesh_lib.logical_axes(v['params']) for model, v in boxed.items()
    }
    self.transforms = {
        model: settings.models[model].param_transform for model in boxed
    }
    self.model_optimizers = {
        model: self._model_optimizer(model, settings.models[model])
        for model in boxed
    }
    rng = jax.ShapeDtypeStruct((2,), jnp.uint32)
    with options.building('The state of config.models'):
      shapes = jax.eval_shape(self._create, rng, {})
    self.shardings = self._shard(shapes)
    self.abstract = jax.tree.map(
        lambda s, n: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=n),
        shapes,
        self.shardings,
    )

  def _check(self, boxed):
    settings = self.config
    names, given = sorted(boxed), sorted(settings.models)
    if names != given:
      raise config.ConfigError(
          f'config.models has {given}: expected an entry for each model of the'
          f' objective, {names}.'
      )
    shares = self.mesh.shape['data'] * self.mesh.shape['fsdp']
    share = settings.accumulation * shares
    if settings.batch_size % share:
      raise config.ConfigError(
          f'config.batch_size = {settings.batch_size}: expected a multiple of'
          f' accumulation x data x fsdp = {share}.'
      )
    if settings.accumulation > 1 and not self.objective.additive:
      raise config.ConfigError(
          f'config.accumulation = {settings.accumulation}: expected 1, since'
          f' {type(self.objective).__name__} has a term that does not add over'
          ' microbatches.'
      )

  def _model_optimizer(self, model, settings):
    axes = self.transforms[model].axes(self._axes[model])
    return step_lib.ModelOptimizer(
        transform=settings.param_transform,
        optimizer=functools.partial(
            settings.optimizer.build, axes=mesh_lib.flat_axes(axes)
        ),
        schedule=settings.schedule.build(self.config.steps),
        clip=settings.clip,
        ema=settings.ema,
    )

  def _create(self, rng, given):
    """A fresh state; `given` {model: variables}, or parts, replace fresh ones."""
    key = jax.random.wrap_key_data(rng)
    variables = _replaced(nn.meta.unbox(self.objective.init(key)), given)
    trainable, frozen, states, optimizer_state, ema = {}, {}, {}, {}, {}
    for index, (model, model_optimizer) in enumerate(
        sorted(self.model_optimizers.items())
    ):
      params = model_optimizer.transform.init(
          jax.random.fold_in(key, index + 1),
          variables[model]['params'],
          self._axes[model],
      )
      trainable[model], frozen[model] = model_optimizer.transform.split(params)
      states[model] = variables[model].get('state', {})
      optimizer_state[model] = model_optimizer.init(trainable[model])
      if model_optimizer.ema is not None:
        # A copy: two leaves of a donated state must not share a buffer.
        ema[model] = jax.tree.map(jnp.copy, trainable[model])
    return state_lib.TrainState(
        step=jnp.int32(0),
        trainable=trainable,
        frozen=frozen,
        model_state=states,
        optimizer_state=optimizer_state,
        ema=ema,
        rng=jax.random.key_data(jax.random.fold_in(key, 0)),
    )

  def _shard(self, shapes):
    whole = NamedSharding(self.mesh, PartitionSpec())
    axes = {
        f'{model}.{name}': names
        for model, transform in self.transforms.items()
        for name, names in mesh_lib.flat_axes(
            transform.axes(self._axes[model])
        ).items()
    }
    shard = functools.partial(mesh_lib.shardings, axes=axes, mesh=self.mesh)
    return state_lib.TrainState(
        step=whole,
        trainable=shard(shapes.trainable),
        frozen=shard(shapes.frozen),
        model_state=jax.tree.map(lambda _: whole, shapes.model_state),
        optimizer_state={
            model: mesh_lib.shardings(
                tree,
                mesh_lib.flat_axes(
                    self.transforms[model].axes(self._axes[model])
                ),
                self.mesh,
            )
            for model, tree in shapes.optimizer_state.items()
        },
        ema=shard(shapes.ema),
        rng=whole,
    )

  def check_size(self) -> None:
    """Holds the state and a batch against the memory that there is.

    Raises:
      config.ConfigError: if a device or this machine could not hold them.
    """
    state = sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(self.abstract)
    )
    limits.check(
        state,
        limits.device_memory(),
        'The train state of config.objective and config.models, a device,',
    )
    rows = self.config.batch_size // jax.process_count()
    with options.building('A batch of config.objective'):
      batch = jax.eval_shape(lambda: self.objective.example_batch(1))
    row = sum(a.size * a.dtype.itemsize for a in batch.values())
    limits.check(
        rows * row,
        limits.host_memory(),
        f'A batch of config.batch_size = {self.config.batch_size} rows',
    )

  def create(self) -> state_lib.TrainState:
    """The state at step 0, made in its shards."""
    given = {
        model: self._load_model(model, settings)
        for model, settings in self.config.models.items()
        if settings.init_from is not None
    }
    if len(given) < len(self.config.models):
      fresh = self.objective.initial_values(self.config.data)
      given = {**fresh, **given}
    rng = jax.random.key_data(jax.random.key(self.config.seed))
    options = {}
    if jax.default_backend() == 'cpu':
      # Init runs once; at full optimisation it compiles for 15 s.
      options = {'xla_backend_optimization_level': 0}
    create = jax.jit(
        self._create, out_shardings=self.shardings, compiler_options=options
    )
    return create(rng, given)

  def _load_model(self, model: str, settings: ModelTraining):
    """Variables for `model`, of a model of another run, dense."""
    workdir, name = settings.init_from, settings.init_model or model
    where = f'config.models.{model}.init_from = {workdir!r}'
    variables = _variables_of(workdir)
    if name not in variables:
      raise config.ConfigError(
          f'{where}: it holds {", ".join(map(repr, sorted(variables)))}, not'
          f' {name!r}.'
      )
    variables = {
        # What it learnt in low rank or packed becomes plain weights.
        'params': ops.map_weights(ops.materialize, variables[name]['params']),
        'state': variables[name]['state'],
    }
    fresh = jax.eval_shape(self.objective.init, jax.random.key(0))[model]
    fresh = {'state': {}, **nn.meta.unbox(fresh)}
    wanted, found = _shapes(fresh), _shapes(variables)
    with options.building(f'config.models.{model}.init_fresh'):
      new = param_transforms.matching(fresh['params'], settings.init_fresh)
    kept = {f'params.{path.replace("/", ".")}' for path in new} - found.keys()
    wanted = {k: shape for k, shape in wanted.items() if k not in kept}
    problems = checkpoints.mismatches(wanted, found)
    if problems:
      raise config.ConfigError(
          f'{where} does not fit:\n  ' + '\n  '.join(problems)
      )
    return jax.device_get(variables)

  def variables(
      self, state: state_lib.TrainState, ema: bool = True
  ) -> objectives_base.Variables:
    """Variables as the objective takes them, averaged where averages exist."""
    return state.variables(self.transforms, ema)


def read(workdir: str | os.PathLike) -> ml_collections.ConfigDict:
  """The resolved config of a work directory, with absolute paths.

  Raises:
    config.ConfigError: if the directory holds none, or it is damaged.
  """
  path = pathlib.Path(workdir) / CONFIG_FILE
  if not path.is_file():
    raise config.ConfigError(f'{workdir} is no work directory: no {path}.')
  try:
    values = json.loads(path.read_bytes())
    if not isinstance(values, dict):
      raise ValueError(f'it holds {type(values).__name__}, not an object')
  except (ValueError, RecursionError) as error:
    raise config.ConfigError(
        f'{path} is damaged: {error}. Put the config of the run back.'
    ) from error
  return ml_collections.ConfigDict(relocation.placed(Config, values, workdir))


def restore(
    workdir: str | os.PathLike, step: int | None = None
) -> tuple[Assembly, state_lib.TrainState]:
  """A run's parts and its state, on one device.

  Args:
    workdir: of a run that has saved a checkpoint.
    step: which one; by default the best by `checkpoint.best`, else the last.

  Raises:
    config.ConfigError: if it is no work directory.
    checkpoints.CheckpointError: if it has no readable checkpoint.
  """
  settings = config.build(
      Config, read(workdir), f'{pathlib.Path(workdir) / CONFIG_FILE}: config'
  )
  local = mesh_lib.over(np.array(jax.local_devices()[:1]).reshape(1, 1, 1))
  assembly = Assembly(settings, mesh=local)
  directory = pathlib.Path(workdir).absolute() / 'checkpoints'
  if not directory.exists():
    raise checkpoints.CheckpointError(f'{workdir} has no checkpoint yet.')
  store = checkpoints.Checkpoints(
      directory, settings.checkpoint, read_only=True
  )
  try:
    step = store.best() if step is None else step
    if step is None:
      raise checkpoints.CheckpointError(f'{workdir} has no checkpoint yet.')
    state, _ = store.restore(step, assembly.abstract)
  finally:
    store.close()
  return assembly, state


def _variables_of(path: str) -> objectives_base.Variables:
  """The models of a work directory's checkpoint, or that of a model directory."""
  if not (pathlib.Path(path) / directory.WEIGHTS).exists():
    other, state = restore(path)
    return state.variables(other.transforms)
  entry, variables = loading.read(path)
  return {entry.manifest.model: variables}


def _replaced(fresh, given):
  """`fresh` with the leaves that nested dicts name replaced.

  Raises:
    config.ConfigError: for a leaf that is not there, or has another shape.
  """
  result = dict(fresh)
  for name, value in given.items():
    if isinstance(value, dict) and isinstance(fresh.get(name), dict):
      result[name] = _replaced(fresh[name], value)
    elif jax.tree.map(jnp.shape, fresh.get(name)) != jax.tree.map(
        jnp.shape, value
    ):
      raise config.ConfigError(
          f'an initial value of {name} has shape'
          f' {jax.tree.map(jnp.shape, value)}, but the model has'
          f' {jax.tree.map(jnp.shape, fresh.get(name))}'
      )
    else:
      result[name] = value
  return result


def _shapes(tree):
  return {name: leaf.shape for name, leaf in mesh_lib.flat(tree).items()}
