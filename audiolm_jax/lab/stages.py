"""Stages: what an arm of an experiment is a chain of.

A stage has a directory of its own, which goes by a hash of what the stage does
and of what its inputs do. Two arms, or two questions, that need the same stage
share it; a stage that has finished is never run again. A stage's values name
the directories of its inputs as `output('tokens')`, which stands for the
directory of the input called 'tokens'.
"""

import abc
from collections.abc import Callable, Mapping
import dataclasses
import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import json
import pathlib
import re
import shlex
import sys
from typing import Annotated, Any, ClassVar

from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import evaluate
from audiolm_jax import evaluation
from audiolm_jax import train
from audiolm_jax.training import launch

# Other versions of these give other numbers.
_LIBRARIES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy')
_INPUT = re.compile(r'\{stage:([^{}]+)\}')
_OUT = '{out}'
# What a stage gave, in its directory once it has finished: {'result': ...}.
RESULT = 'result.json'
ROOT = pathlib.Path(__file__).parents[2]

# From the directories of the inputs, by name, and one's own, to a result.
Directories = Mapping[str, pathlib.Path]


class Interrupted(RuntimeError):
  """A stage was ended by a signal; run again, it goes on."""


class StageError(RuntimeError):
  """A stage failed, or can't be what it is said to be."""


def output(name: str) -> str:
  """What stands, in a stage's values, for the directory of an input.

  Args:
    name: of the input; more of a path may be added, as in
      `output('tokens') + '/cache'`.
  """
  return f'{{stage:{name}}}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage(abc.ABC):
  """One step of an arm's chain.

  Attributes:
    name: of the stage in its chain, and the beginning of its directory's name.
    inputs: stages whose output it reads.
  """

  # Raised when the same values would give other numbers than before.
  version: ClassVar[int] = 1

  name: str
  inputs: tuple['Stage', ...] = ()

  def __post_init__(self):
    if not re.fullmatch(r'[\w.]+', self.name):
      raise StageError(f'stage {self.name!r}: expected letters, digits, _ or .')
    known = {stage.name for stage in self.inputs}
    unknown = sorted(set(_names(self.values())) - known)
    if unknown:
      raise StageError(
          f'stage {self.name!r} reads {unknown}, but its inputs are'
          f' {sorted(known)}'
      )
    _ = self.chain  # Refuses two stages of one name.

  @abc.abstractmethod
  def values(self) -> Any:
    """All that it does, as plain JSON values with `output`s in them."""

  @abc.abstractmethod
  def run(self, directory: pathlib.Path, inputs: Directories) -> dict[str, Any]:
    """Does it, going on from what an earlier call left.

    Args:
      directory: its own.
      inputs: those of its inputs, by name.

    Returns:
      JSON values: 'metrics' {name: number} and 'curves' {name: [[x, y], ...]},
      where it has such.

    Raises:
      Interrupted: if a signal ended it.
    """

  def changed(self, changes: Mapping[str, Any]) -> 'Stage':
    """The stage with other values.

    Raises:
      StageError: if it has none that may be changed.
    """
    raise StageError(
        f'{type(self).__name__} {self.name!r} has no fields to change:'
        f' {sorted(changes)}'
    )

  @functools.cached_property
  def chain(self) -> dict[str, 'Stage']:
    """It and all that it needs, by name, inputs first.

    Raises:
      StageError: for two different stages of one name.
    """
    chain = {}
    for stage in self.inputs:
      for name, other in stage.chain.items():
        if chain.setdefault(name, other).key != other.key:
          raise StageError(f'{self.name!r} needs two stages called {name!r}')
    if self.name in chain:
      raise StageError(f'{self.name!r} needs a stage of the same name')
    return {**chain, self.name: self}

  @functools.cached_property
  def key(self) -> str:
    """A hash of what it does, of its inputs' keys, and of versions."""
    return self.key_with(versions())

  def key_with(self, libraries: Mapping[str, str]) -> str:
    """The key that it has, or had, where the libraries are of these versions."""
    facts = {
        'kind': type(self).__name__,
        'version': self.version,
        'libraries': dict(libraries),
        'values': self.values(),
        'inputs': {each.name: each.key_with(libraries) for each in self.inputs},
    }
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()

  @property
  def folder(self) -> str:
    """The name of its directory."""
    return f'{self.name}-{self.key[:16]}'

  def with_changes(self, changes: Mapping[str, Mapping[str, Any]]) -> 'Stage':
    """The chain with some of its stages changed.

    Args:
      changes: stage name -> what `changed` takes.

    Raises:
      StageError: for a name that no stage of the chain has.
    """
    unknown = sorted(set(changes) - set(self.chain))
    if unknown:
      raise StageError(
          f'no stage {unknown} in the chain {list(self.chain)} of {self.name!r}'
      )
    inputs = tuple(
        stage.with_changes(
            {k: v for k, v in changes.items() if k in stage.chain}
        )
        for stage in self.inputs
    )
    stage = self
    if inputs != self.inputs:
      stage = dataclasses.replace(stage, inputs=inputs)
    return stage.changed(changes[self.name]) if self.name in changes else stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Stage):
  """Trains; its directory is a work directory.

  Attributes:
    config: of the run. Its evaluators are none: those are stages of their own,
      so that another metric needs no other training.
  """

  config: train.Config

  def __post_init__(self):
    if self.config.evaluators:
      raise StageError(
          f'stage {self.name!r}: config.evaluators would be part of what is'
          ' trained; evaluate in a stage of its own'
      )
    super().__post_init__()

  def values(self):
    return _plain(self.config)

  def changed(self, changes):
    return dataclasses.replace(
        self, config=config.replace(self.config, changes)
    )

  def run(self, directory, inputs):
    settings = config.build(train.Config, placed(self.values(), inputs))
    metrics = train.train(settings, directory)
    # A signal ends training early, with a checkpoint to go on from.
    if not (directory / 'checkpoints' / str(settings.steps)).exists():
      raise Interrupted(self.name)
    return {'metrics': metrics}


@dataclasses.dataclass(frozen=True)
class _Evaluators:
  """The field of `train.Config` that an `Evaluate` has."""

  evaluators: Annotated[
      dict[str, Any],
      config.Named(Annotated[Any, config.Kind(lambda: evaluation.EVALUATORS)]),
  ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(Stage):
  """Evaluates what its first input trained.

  Attributes:
    evaluators: by name, as in `train.Config`.
  """

  evaluators: Mapping[str, Any]

  def values(self):
    settings = config.build(_Evaluators, {'evaluators': dict(self.evaluators)})
    return _plain(settings)

  def changed(self, changes):
    settings = config.replace(_Evaluators(dict(self.evaluators)), changes)
    return dataclasses.replace(self, evaluators=settings.evaluators)

  def run(self, directory, inputs):
    launch.prepare()
    assembly, state = assembly_lib.restore(inputs[self.inputs[0].name])
    settings = config.build(_Evaluators, placed(self.values(), inputs))
    evaluators = evaluate.build(assembly, settings.evaluators)
    variables = assembly.variables(state)
    metrics, curves = evaluate.measure(evaluators, variables, 0, directory)
    return {'metrics': metrics, 'curves': curves}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command(Stage):
  """Runs command lines of the checkout, such as tools.

  Attributes:
    lines: each a tuple of arguments of python; '{out}' is its own directory.
  """

  lines: tuple[tuple[str, ...], ...]

  def values(self):
    return [list(line) for line in self.lines]

  def run(self, directory, inputs):
    for line in placed(self.values(), {**inputs, _OUT: directory}):
      print(f'$ python {shlex.join(line)}', flush=True)
      code, interrupted = launch.wait([sys.executable, *line], ROOT)
      if interrupted:
        raise Interrupted(self.name)
      if code:
        raise StageError(
            f'{self.name}: python {shlex.join(line)} failed (status {code})'
        )
    return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Function(Stage):
  """Calls a function of an experiment.

  Attributes:
    function: called with its directory, {input name: directory} and the
      arguments; returns what `run` does. It stands at the top of a module.
    arguments: JSON values.
  """

  function: Callable[..., dict[str, Any]]
  arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def values(self):
    module = inspect.getmodule(self.function)
    name = self.function.__qualname__
    if getattr(module, name, None) is not self.function:
      raise StageError(f'{self.name!r}: {name} is not at the top of a module')
    source = pathlib.Path(inspect.getsourcefile(module)).read_bytes()
    return {
        'function': f'{module.__name__}:{name}',
        # What it calls in other modules is no part of the key.
        'source': hashlib.sha256(source).hexdigest(),
        'arguments': dict(self.arguments),
    }

  def changed(self, changes):
    return dataclasses.replace(self, arguments={**self.arguments, **changes})

  def run(self, directory, inputs):
    launch.prepare()
    arguments = placed(dict(self.arguments), inputs)
    return self.function(directory, dict(inputs), **arguments)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Together(Stage):
  """The metrics and curves of its inputs: where one evaluation does not do.

  A question's test may measure a model and another one that is made from it.
  """

  def values(self):
    return {}

  def run(self, directory, inputs):
    found: dict[str, dict[str, Any]] = {'metrics': {}, 'curves': {}}
    for stage in self.inputs:
      text = (inputs[stage.name] / RESULT).read_text('utf-8')
      given = json.loads(text)['result']
      for kind, values in found.items():
        if twice := sorted(values.keys() & given.get(kind, {}).keys()):
          raise StageError(f'{self.name}: several inputs give {twice}')
        values |= given.get(kind, {})
    return found


def _plain(settings: Any) -> Any:
  """JSON values of what tells a config from others."""
  return json.loads(json.dumps(config.identity(settings)))


def placed(values: Any, inputs: Mapping[str, pathlib.Path]) -> Any:
  """JSON values with the directories of inputs in the place of `output`s."""
  if isinstance(values, Mapping):
    return {key: placed(value, inputs) for key, value in values.items()}
  if isinstance(values, (list, tuple)):
    return [placed(value, inputs) for value in values]
  if isinstance(values, str):
    values = _INPUT.sub(lambda match: str(inputs[match[1]]), values)
    return values.replace(_OUT, str(inputs[_OUT])) if _OUT in inputs else values
  return values


@functools.cache
def versions() -> dict[str, str]:
  """Of the libraries whose versions change numbers."""
  return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def _names(values) -> list[str]:
  """Of the inputs that JSON values read."""
  if isinstance(values, Mapping):
    values = list(values.values())
  if isinstance(values, (list, tuple)):
    return [name for value in values for name in _names(value)]
  return _INPUT.findall(values) if isinstance(values, str) else []
