"""config: what is accepted, and what the refusals say."""

import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import ml_collections
import pytest

import audiolm_jax
from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import objectives
from audiolm_jax import train
from audiolm_jax.config import diff
from tests import toy_run


@dataclasses.dataclass(frozen=True)
class Sgd:
  rate: Annotated[float, config.Range(min=0)] = 0.1


@dataclasses.dataclass(frozen=True)
class Adam:
  rate: float = 0.1
  beta: Annotated[float, config.Range(min=0, max=1)] = 0.9


TABLE = {'sgd': Sgd, 'adam': Adam}


@dataclasses.dataclass(frozen=True)
class Inner:
  width: Annotated[int, config.Range(min=1)] = 8
  sizes: tuple[int, ...] = (1, 2)
  layers: int = 1


@dataclasses.dataclass(frozen=True)
class Outer:
  steps: int
  optimizer: Annotated[Any, config.Kind(lambda: TABLE)] = Sgd()
  inner: Inner = Inner()
  mode: Literal['fast', 'slow'] = 'fast'
  limit: int | None = None
  several: tuple[Annotated[Any, config.Kind(lambda: TABLE)], ...] = ()
  named: Annotated[
      dict[str, Any],
      config.Named(Annotated[Any, config.Kind(lambda: TABLE)]),
  ] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Pair:
  a: int = 1
  b: int = 2

  def __post_init__(self):
    if self.a > self.b:
      raise ValueError(f'a = {self.a} is above b = {self.b}')


@dataclasses.dataclass(frozen=True)
class Whole:
  pair: Pair


def test_instances_and_json_round_trip():
  built = Outer(3, Adam(beta=0.5), named={'x': Sgd()})
  values = config.to_config(built)
  assert values.inner.width == 8 and values.optimizer.kind == 'adam'
  assert config.build(Outer, values) == config.build(Outer, built) == built
  # Through JSON, where tuples become lists.
  loaded = ml_collections.ConfigDict(json.loads(config.to_json(values)))
  assert config.build(Outer, loaded) == built
  assert diff.lines(loaded, values) == []


@dataclasses.dataclass(frozen=True)
class Grown:
  rate: float = 0.1
  later: Annotated[tuple[int, ...], config.Added()] = ()
  limit: Annotated[int | None, config.Added()] = None
  inner: Annotated[Inner, config.Added()] = dataclasses.field(
      default_factory=Inner
  )


@dataclasses.dataclass(frozen=True)
class Holder:
  named: Annotated[
      dict[str, Any],
      config.Named(Annotated[Any, config.Kind(lambda: {'grown': Grown})]),
  ]
  several: tuple[Grown, ...] = ()
  inner: Inner = Inner()


def test_identity_leaves_out_what_was_added_and_has_its_default():
  holder = Holder({'a': Grown()}, (Grown(), Grown(limit=3)))
  values = config.identity(holder)
  assert values['named'] == {'a': {'kind': 'grown', 'rate': 0.1}}
  assert values['several'] == ({'rate': 0.1}, {'rate': 0.1, 'limit': 3})
  # Of a field that was there from the beginning, a default counts.
  assert values['inner'] == config.to_config(Inner()).to_dict()
  assert config.build(Holder, values) == holder
  assert config.identity(Grown(later=[])) == {'rate': 0.1}
  for changed in (Grown(later=(1,)), Grown(later=[1]), Grown(limit=0)):
    assert config.identity(changed) != {'rate': 0.1}
    assert config.build(Grown, config.identity(changed)) == config.build(
        Grown, changed
    )
  assert 'inner' in config.identity(Grown(inner=Inner(width=9)))


def test_a_tuple_may_hold_groups():
  values = config.to_config(Outer(3, several=(Adam(beta=0.5), Sgd())))
  assert values.several[1] == {'kind': 'sgd', 'rate': 0.1}
  loaded = ml_collections.ConfigDict(json.loads(config.to_json(values)))
  for form in (values, loaded):
    built = config.build(Outer, form)
    assert built.several == (Adam(beta=0.5), Sgd())
  with pytest.raises(config.ConfigError, match=r'several\[1\]\.kind'):
    config.build(Outer, {'steps': 3, 'several': [Sgd(), {'kind': 'adan'}]})


def test_an_optional_field_can_be_set_later_but_not_to_another_type():
  values = config.to_config(Outer(1))
  values.limit = 5
  assert config.build(Outer, values).limit == 5
  with pytest.raises(TypeError):
    values.limit = 'five'


@pytest.mark.parametrize(
    'values, words',
    [
        ({}, ['config.steps', 'missing', 'int']),
        ({'steps': 1, 'stepz': 2}, ['config.stepz', 'config.steps']),
        ({'steps': 'a'}, ['config.steps', "'a'", 'str', 'int']),
        (
            {'steps': 1, 'optimizer': {'kind': 'sgd', 'rate': 10**400}},
            ['config.optimizer.rate', 'int', 'float'],
        ),
        ({'steps': True}, ['config.steps', 'True', 'bool', 'int']),
        ({'steps': 1, 'inner': {'width': 0}}, ['config.inner.width', '>= 1']),
        ({'steps': 1, 'inner': 4}, ['config.inner', '4', 'group']),
        (
            {'steps': 1, 'inner': {'sizes': (1, 'b')}},
            ['config.inner.sizes[1]', "'b'"],
        ),
        ({'steps': 1, 'mode': 'fest'}, ['config.mode', 'fast', 'slow']),
        (
            {'steps': 1, 'optimizer': {'kind': 'adan'}},
            ['config.optimizer.kind', "'adan'", "Did you mean 'adam'"],
        ),
        (
            {'steps': 1, 'optimizer': {'kind': 'adam', 'beta': 1.5}},
            ['config.optimizer.beta', '1.5', '[0, 1]'],
        ),
        (
            {'steps': 1, 'named': {'x': {'kind': 'sgd', 'rat': 1}}},
            ['config.named.x.rat', 'config.named.x.rate'],
        ),
        (
            {'steps': 1, 'named': {'x': {'kind': 'sgd', 'rate': math.nan}}},
            ['config.named.x.rate', 'nan'],
        ),
        (
            {'steps': 1, 'named': {'x': {'kind': 'sgd', 'rate': 10**400}}},
            ['config.named.x.rate', '(int)'],
        ),
        ({'steps': 10**400}, ['config.steps', '64 bits']),
        ({'steps': 1, 'inner': {'layers': 10**9}}, ['inner.layers', '10000']),
        ({'steps': 1, 'inner': {'width': 10**9}}, ['inner.width', '1048576']),
        (
            {'steps': 1, 'optimizer': {'kind': ['adam']}},
            ['config.optimizer.kind', "['adam']"],
        ),
        (
            {'steps': 1, 'optimizer': {'kind': {'a': 1}}},
            ['config.optimizer.kind', "{'a': 1}"],
        ),
    ],
)
def test_a_refusal_names_key_value_and_what_is_allowed(values, words):
  with pytest.raises(config.ConfigError) as error:
    config.build(Outer, values)
  for word in words:
    assert word in str(error.value)


@pytest.mark.parametrize(
    'wrong, words',
    [
        (Outer('a'), ['config.steps', "'a'", 'str', 'int']),
        (Outer(1, Adam(beta=2.0)), ['config.optimizer.beta', '2.0', '[0, 1]']),
        (
            Outer(1, objectives.Toy()),
            ['config.optimizer is Toy', "['adam', 'sgd']"],
        ),
        (Outer(1, inner=Inner(sizes=('x',))), ['config.inner.sizes[0]', "'x'"]),
        (Outer(1, named={'x': Sgd(-1.0)}), ['config.named.x.rate', '>= 0']),
        (Outer(1, several=Sgd()), ['config.several', 'tuple']),
        (Outer(1, inner=Sgd()), ['config.inner is Sgd', 'expected Inner']),
    ],
)
def test_building_checks_what_was_made_in_python(wrong, words):
  with pytest.raises(config.ConfigError) as error:
    config.build(Outer, wrong)
  for word in words:
    assert word in str(error.value)
  # As JSON it is no other.
  with pytest.raises(config.ConfigError):
    config.build(Outer, config.to_config(wrong))


class Layer(nn.Module):
  """A module with a parameter."""

  width: int = 2

  @nn.compact
  def __call__(self):
    return self.param('w', nn.initializers.ones, (self.width,))


LAYERS = {'layer': Layer}
AnyLayer = Annotated[Any, config.Kind(lambda: LAYERS)]


class Both(nn.Module):
  """Two of them, which have the same default."""

  first: AnyLayer = Layer()
  second: AnyLayer = Layer()
  more: tuple[AnyLayer, ...] = ()

  def __call__(self):
    return [layer() for layer in (self.first, self.second, *self.more)]


def test_a_module_in_two_fields_gets_parameters_in_each():
  layer = Layer()
  made = Both(layer, layer, (layer,))
  key = jax.random.key(0)
  # Linen's own way, which nobody means.
  assert set(made.init(key)['params']) == {'first'}
  assert set(Both().init(key)['params']) == {'first', 'second'}
  for form in (made, config.to_config(made)):
    built = config.build(Both, form)
    assert set(built.init(key)['params']) == {'first', 'second', 'more_0'}
  assert set(config.build(Both, {}).init(key)['params']) == {'first', 'second'}


def test_a_run_from_python_is_built_anew(monkeypatch, tmp_path):
  class Built(Exception):
    pass

  def stop(settings):
    raise Built(settings)

  monkeypatch.setattr(train.assembly_lib, 'Assembly', stop)
  settings = train.Config(objectives.Toy(), data.Synthetic(), {})
  with pytest.raises(Built) as built:
    train.train(settings, tmp_path)
  (anew,) = built.value.args
  assert anew == settings and anew.objective is not settings.objective
  with pytest.raises(config.ConfigError, match='config.steps = 0'):
    train.train(dataclasses.replace(settings, steps=0), tmp_path)


def test_replace_changes_what_its_paths_name_and_leaves_the_rest():
  old = Outer(1, Adam(), several=(Sgd(), Adam()), named={'x': Sgd()})
  new = config.replace(
      old,
      {
          'steps': 2,
          'optimizer': Sgd(0.5),
          'inner.width': 3,
          'inner.layers': 4,
          'several[1].beta': 0.5,
          'named.x.rate': 0.2,
          'named.y': Adam(),
      },
  )
  assert new == Outer(
      2,
      Sgd(0.5),
      Inner(3, layers=4),
      several=(Sgd(), Adam(beta=0.5)),
      named={'x': Sgd(0.2), 'y': Adam()},
  )
  assert old.named == {'x': Sgd()} and old.inner == Inner()
  both = config.replace(Both(more=(Layer(),)), {'more[0].width': 5})
  assert both.more[0].width == 5 and both.first.width == 2
  # A whole that is replaced, and something in it.
  new = config.replace(old, {'inner.width': 3, 'inner': Inner(layers=7)})
  assert new.inner == Inner(3, layers=7)


@pytest.mark.parametrize(
    'path, message',
    [
        ('stepz', 'config.stepz .* Did you mean config.steps?'),
        ('inner.widht', 'Did you mean config.inner.width?'),
        ('several[2].rate', r'config.several\[2\] .* Known: 0'),
        ('named.xx.rate', 'config.named.xx .* Did you mean config.named.x?'),
        ('steps.x', 'config.steps = 1 has no fields'),
        ('limit.x', 'config.limit = None has no fields'),
    ],
)
def test_replace_names_the_nearest_path(path, message):
  settings = Outer(1, several=(Sgd(),), named={'x': Sgd()})
  with pytest.raises(config.ConfigError, match=message):
    config.replace(settings, {path: 1})


def test_replaced_fields_that_do_not_fit_are_told_with_their_path():
  whole = Whole(Pair())
  assert config.replace(whole, {'pair.a': 5, 'pair.b': 6}).pair == Pair(5, 6)
  with pytest.raises(config.ConfigError, match='config.pair: a = 3 is above'):
    config.replace(whole, {'pair.a': 3})


@dataclasses.dataclass(frozen=True)
class Mine:
  """A class that is in no table."""

  rate: float = 0.3


def test_a_class_of_ones_own_is_named_by_its_module():
  settings = Outer(1, Mine(), several=(Mine(0.4),))
  values = json.loads(config.to_json(settings))
  name = f'{__name__}:Mine'
  assert values['optimizer'] == {'kind': name, 'rate': 0.3}
  assert config.build(Outer, values) == settings
  with pytest.raises(config.ConfigError, match='config.optimizer.rate'):
    config.build(Outer, {'steps': 1, 'optimizer': {'kind': name, 'rate': 'x'}})

  @dataclasses.dataclass(frozen=True)
  class Local:
    pass

  with pytest.raises(config.ConfigError, match='at the top of a module'):
    config.build(Outer, Outer(1, Local()))


@dataclasses.dataclass(frozen=True)
class MyToy(objectives.Toy):
  """An objective of an experiment's own."""


def test_a_run_of_ones_own_class_is_trained_and_loaded(tmp_path):
  settings = toy_run.config('config.steps=1', 'config.evaluators={}')
  settings = config.replace(
      settings, {'objective': MyToy(), 'checkpoint.best': None}
  )
  train.train(settings, tmp_path)
  text = (tmp_path / 'config.json').read_text()
  assert f'"kind": "{__name__}:MyToy"' in text
  assembly, _ = assembly_lib.restore(tmp_path)
  assert assembly.objective == MyToy()
  assert audiolm_jax.load(tmp_path).module == MyToy().model[1].module
  (tmp_path / 'config.json').write_text(text.replace(__name__, 'this'))
  with pytest.raises(config.ConfigError, match='import this first'):
    assembly_lib.restore(tmp_path)


@pytest.mark.parametrize(
    'kind',
    [
        'this:s',  # A module that prints when it is imported.
        'os:system',
        'audiolm_jax.train:Config',
        f'{__name__}:TABLE',
        f'{__name__}:Nothing',
        'experiments.nothing:Mine',
        'experiments.../etc:Mine',
        'experiments:',
        ':Mine',
        'configs.lm.__init__.x:Mine',
    ],
)
def test_a_config_imports_nothing_from_elsewhere(kind):
  before = set(sys.modules)
  with pytest.raises(config.ConfigError) as error:
    config.build(Outer, {'steps': 1, 'optimizer': {'kind': kind}})
  assert f'config.optimizer.kind = {kind!r}' in str(error.value)
  assert f'import {kind.partition(":")[0]} first' in str(error.value)
  assert 'this' not in set(sys.modules) - before


def test_a_config_imports_classes_of_the_checkouts_experiments():
  code = """
import sys
from audiolm_jax import config
from audiolm_jax.config import classes
assert 'configs.lm.ladder' not in sys.modules
cls = classes.class_of({}, 'configs.lm.ladder:Size')
assert cls is sys.modules['configs.lm.ladder'].Size
assert classes.kind_of({}, cls) == 'configs.lm.ladder:Size'
"""
  root = pathlib.Path(__file__).parents[1]
  command = [sys.executable, '-c', code]
  subprocess.run(command, cwd=root, check=True)


def test_a_folder_that_is_no_checkout_is_not_imported_from(tmp_path):
  package = tmp_path / 'experiments'
  package.mkdir()
  for name in ('__init__', 'mine'):
    (package / f'{name}.py').write_text('raise SystemExit("it ran")')
  code = """
import sys
sys.path.insert(0, '')
from audiolm_jax.config import classes
assert classes.class_of({}, 'experiments.mine:Mine') is None
"""
  root = pathlib.Path(__file__).parents[1]
  subprocess.run(
      [sys.executable, '-c', code],
      cwd=tmp_path,
      env={**os.environ, 'PYTHONPATH': str(root)},
      check=True,
  )


def test_difference_names_every_leaf():
  old = {'a': 1, 'b': {'c': (1, 2), 'd': 4}}
  new = {'a': 1, 'b': {'c': [1, 3], 'e': 5}}
  assert diff.lines(old, new) == [
      'config.b.c: [1, 2] -> [1, 3]',
      'config.b.d: 4 -> (absent)',
      'config.b.e: (absent) -> 5',
  ]


def test_difference_takes_instances():
  assert diff.lines(Outer(1), config.to_config(Outer(2))) == [
      'config.steps: 1 -> 2'
  ]


def test_difference_looks_into_rows_of_groups():
  old = {'a': ({'b': 1, 'c': 2}, {'b': 1})}
  assert diff.lines(old, {'a': [{'b': 1, 'c': 3}, {'b': 1}]}) == [
      'config.a[0].c: 2 -> 3'
  ]
  assert diff.lines(old, {'a': ({'b': 1, 'c': 2},)}) == [
      "config.a: [{'b': 1, 'c': 2}, {'b': 1}] -> [{'b': 1, 'c': 2}]"
  ]


def test_a_check_of_a_class_names_its_group():
  with pytest.raises(
      config.ConfigError, match='config.pair: a = 3 is above b = 2'
  ):
    config.build(Pair, {'a': 3}, 'config.pair')


@dataclasses.dataclass(frozen=True)
class Parts:
  """Named values, over which a loss would be summed."""

  parts: Annotated[Any, config.Named(float)] = dataclasses.field(
      default_factory=dict
  )


def test_named_values_are_in_one_order_however_they_were_written():
  """As config.json has them: sums in another order have other last bits."""
  for names in ('bca', 'abc'):
    given = Parts({name: 1.0 for name in names})
    for value in (given, dataclasses.asdict(given), config.to_config(given)):
      assert list(config.build(Parts, value).parts) == ['a', 'b', 'c']


def test_what_nothing_has_given_is_named():
  config.check_given('config.data', {'rate': 0, 'names': ()}, 'config.model')
  message = 'config.data.rate = None, and config.model has none: give it.'
  with pytest.raises(config.ConfigError, match=message):
    config.check_given('config.data', {'x': 1, 'rate': None}, 'config.model')
