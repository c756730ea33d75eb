"""config: what is accepted, and what the refusals say."""

import dataclasses
import math
import json
from typing import Annotated, Any, Literal

import ml_collections
import pytest

from audiolm_jax import config


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


def test_defaults_round_trip():
  values = config.defaults(
      Outer,
      steps=3,
      optimizer=config.kind(TABLE, 'adam', beta=0.5),
      named={'x': config.kind(TABLE, 'sgd')},
  )
  assert values.inner.width == 8 and values.optimizer.kind == 'adam'
  built = config.build(Outer, values)
  assert built == Outer(3, Adam(beta=0.5), named={'x': Sgd()})
  # Through JSON, where tuples become lists.
  loaded = ml_collections.ConfigDict(json.loads(config.to_json(values)))
  assert config.build(Outer, loaded) == built
  assert config.difference(loaded, values) == []


def test_a_tuple_may_hold_groups():
  values = config.defaults(
      Outer, steps=3, several=({'kind': 'adam', 'beta': 0.5}, Sgd())
  )
  assert values.several[1] == {'kind': 'sgd', 'rate': 0.1}
  loaded = ml_collections.ConfigDict(json.loads(config.to_json(values)))
  for found in (values, loaded):
    built = config.build(Outer, found)
    assert built.several == (Adam(beta=0.5), Sgd())
  with pytest.raises(config.ConfigError, match=r'several\[1\]\.kind'):
    config.build(Outer, {'steps': 3, 'several': [Sgd(), {'kind': 'adan'}]})


def test_an_optional_field_can_be_set_later_but_not_to_another_type():
  values = config.defaults(Outer, steps=1)
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
        ({'steps': 1, 'inner': {'layers': 10**9}}, ['inner.layers', '10000']),
        ({'steps': 1, 'inner': {'width': 10**9}}, ['inner.width', '1048576']),
        (
            {'steps': 1, 'optimizer': {'kind': ['adam']}},
            ['config.optimizer.kind', "['adam']"],
        ),
    ],
)
def test_a_refusal_names_key_value_and_what_is_allowed(values, words):
  with pytest.raises(config.ConfigError) as error:
    config.build(Outer, values)
  for word in words:
    assert word in str(error.value)


def test_difference_names_every_leaf():
  old = {'a': 1, 'b': {'c': (1, 2), 'd': 4}}
  new = {'a': 1, 'b': {'c': [1, 3], 'e': 5}}
  assert config.difference(old, new) == [
      'config.b.c: (1, 2) -> [1, 3]',
      'config.b.d: 4 -> (absent)',
      'config.b.e: (absent) -> 5',
  ]


def test_difference_looks_into_rows_of_groups():
  old = {'a': ({'b': 1, 'c': 2}, {'b': 1})}
  assert config.difference(old, {'a': [{'b': 1, 'c': 3}, {'b': 1}]}) == [
      'config.a[0].c: 2 -> 3'
  ]
  assert config.difference(old, {'a': ({'b': 1, 'c': 2},)}) == [
      "config.a: ({'b': 1, 'c': 2}, {'b': 1}) -> ({'b': 1, 'c': 2},)"
  ]


def test_a_check_of_a_class_names_its_group():
  @dataclasses.dataclass(frozen=True)
  class Pair:
    a: int = 1
    b: int = 2

    def __post_init__(self):
      if self.a > self.b:
        raise ValueError(f'a = {self.a} is above b = {self.b}')

  with pytest.raises(
      config.ConfigError, match='config.pair: a = 3 is above b = 2'
  ):
    config.build(Pair, {'a': 3}, 'config.pair')
