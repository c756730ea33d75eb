"""Config files and command-line overrides: what is wrong is named, and what is allowed."""

import dataclasses
import pathlib
import re
from typing import Annotated, Any

import pytest

from audiolm_jax import config
from audiolm_jax.config import diff
from audiolm_jax.training import config_files

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def base():
  return config_files.read('configs/toy.py:smoke')


@pytest.fixture(autouse=True)
def _root(request, monkeypatch):
  monkeypatch.chdir(request.config.rootpath)


def test_values_take_the_type_of_their_field(base):
  given = config_files.override(
      base,
      [
          'config.steps=7',
          'config.log_ids=true',
          'config.models.mlp.clip=None',
          'config.models.mlp.schedule.learning_rate=3e-4',
          'config.models.mlp.init_from=12',
      ],
  )
  assert given.steps == 7 and given.log_ids is True
  assert given.models['mlp'].clip is None
  assert given.models['mlp'].schedule.learning_rate == 3e-4
  assert given.models['mlp'].init_from == '12'
  assert base.steps == 20


def test_another_kind_brings_its_own_defaults_in_any_order(base):
  flags = [
      'config.models.mlp.optimizer.iterations=3',
      'config.models.mlp.optimizer.kind=muon',
  ]
  given = config_files.override(base, flags)
  assert given.models['mlp'].optimizer.iterations == 3
  assert given.models['mlp'].optimizer.momentum == 0.95
  back = 'config.models.mlp.optimizer.kind=adamw'
  given = config_files.override(given, [back])
  assert given.models['mlp'].optimizer.weight_decay == 0.0


@pytest.mark.parametrize(
    'flag,message',
    [
        ('config.stepz=1', 'Did you mean config.steps?'),
        ('config.steps=abc', "config.steps = 'abc' (str): expected int >= 1"),
        ('config.steps=0', 'config.steps = 0 (int): expected int >= 1'),
        ('config.steps.x=0', 'config.steps is a value'),
        ('config.steps', '--config.steps needs a value'),
        ('config.model.mlp.clip=1', 'Did you mean config.models?'),
        ('config.models.mlp.optimizer.kind=adam', "Did you mean 'adamw'?"),
        ('config.models.mlp.optimizer.b1=2', 'expected float in [0, 1]'),
        ('config.checkpoint.mode=least', "one of ['min', 'max']"),
        ('config.batch_size={[]: 1}', "config.batch_size = '{[]: 1}'"),
        ('config.batch_size=' + '(' * 300, 'expected int >= 1'),
        ('config.models={"a.b": {}}', 'config.models = '),
        ('config.models.mlp.clip=1' + '0' * 400, 'config.models.mlp.clip'),
    ],
)
def test_what_is_wrong_is_named(base, flag, message):
  with pytest.raises(config.ConfigError) as error:
    config_files.override(base, [flag])
  assert message in str(error.value)


def test_a_missing_file_is_named():
  with pytest.raises(config.ConfigError, match='no file'):
    config_files.read('configs/absent.py')


CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / 'configs').rglob('*.py')
    if 'def get_config' in path.read_text()
)


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_file_lists_its_arguments(name):
  with pytest.raises(config.ConfigError) as error:
    config_files.read(f'{name}:nope,nope')
  message = str(error.value)
  assert f"--config={name}:nope,nope: there is no 'nope,nope'" in message
  *variants, sizes = [
      names.split(', ')
      for names in re.findall('one of ([^.]*?)(?=, then|[.]$)', message)
  ]
  assert {'smoke', 'cpu', 'gpu'} <= {*sizes}
  # Without a size it is the one for CPUs; tests/configs builds the others.
  base, first = config_files.read(name), [names[0] for names in variants]
  for argument in {','.join(first), ','.join([*first, 'cpu'])} - {''}:
    assert not diff.lines(base, config_files.read(f'{name}:{argument}'))


def test_configs_that_are_named_anywhere_are_there():
  paths = list(ROOT.glob('*.md'))
  for folder in ('audiolm_jax', 'configs', 'docs', 'experiments', 'tools'):
    paths += (ROOT / folder).rglob('*')
  names = set()
  for path in paths:
    if path.suffix in ('.md', '.py', '.ipynb'):
      text = path.read_text('utf-8')
      names |= set(re.findall(r'--config=(configs/\w[^\s`\'"]*)', text))
  assert len(names) > 20
  for name in sorted(names):
    if not re.search('RUNG|X.py|{', name):
      config_files.read(name)


def test_an_argument_has_a_part_for_each_choice():
  choices = ('rope', 'gqa'), config_files.SIZES
  assert config_files.choose('gqa,gpu', *choices) == ('gqa', 'gpu')
  assert config_files.choose('gqa', *choices) == ('gqa', 'cpu')
  assert config_files.choose('smoke', config_files.SIZES) == ('smoke',)
  for argument in ('gpu', 'gqa,gpu,cpu', 'gqa,', '', 'gqa,tpu'):
    with pytest.raises(config.ConfigError) as error:
      config_files.choose(argument, *choices)
    assert str(error.value) == (
        f'there is no {argument!r}: give one of rope, gqa, then a comma and one'
        ' of smoke, cpu, gpu.'
    )


@dataclasses.dataclass(frozen=True)
class Rows:
  sizes: tuple[int, ...] = (1, 2)
  groups: tuple[Annotated[Any, config.Kind(lambda: TABLE)], ...] = ()


@dataclasses.dataclass(frozen=True)
class Group:
  width: config.Positive = 1


@dataclasses.dataclass(frozen=True)
class Other:
  label: str = ''


TABLE = {'group': Group, 'other': Other}


def test_entries_of_tuples_are_numbered():
  rows = Rows(groups=(Group(), Group()))
  given = config_files.override(
      rows,
      [
          'config.sizes[1]=5',
          'config.groups[0].width=7',
          'config.groups[1].label=a',
          'config.groups[1].kind=other',
      ],
  )
  assert given == Rows((1, 5), (Group(7), Other('a')))
  for flag, message in {
      'groups[2].width=1': r'config.groups\[2\] is not a known key. Known: 0, 1',
      'groups[0].widht=1': r'Did you mean config.groups\[0\].width',
      'groups.width=1': r'give config.groups\[0\].width',
      'groups[0].width=0': r'config.groups\[0\].width = 0 .* >= 1',
      'sizes[2]=1': 'out of range',
      'sizes[0].x=1': r'config.sizes\[0\] is a value',
  }.items():
    with pytest.raises(config.ConfigError, match=message):
      config_files.override(rows, [f'config.{flag}'])


def test_values_follow_an_equals_sign_or_a_space():
  line = [
      'main',
      '--config=a.py',
      '--config.steps',
      '3',
      '--x',
      '-config.a=b=c',
  ]
  assert config_files.split(
      [*line, '--config.clip', '-1', '--config.seed']
  ) == (
      ['main', '--config=a.py', '--x'],
      ['config.steps=3', 'config.a=b=c', 'config.clip=-1', 'config.seed'],
  )


@pytest.mark.parametrize(
    'content,message',
    [
        ('def get_config(', "is no Python: '\\(' was never closed"),
        ('x = 1', 'does not define get_config'),
        ('get_config = 1', 'does not define get_config'),
        ('def get_config(): return {}', 'gave dict'),
        ('def get_config(): return {}', 'get_config\\(\\) does not fit'),
        ('def get_config(a, b): return {}', r'get_config\(a, b\) does not fit'),
        ('\0', 'is no Python'),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path, content, message):
  path = tmp_path / 'mine.py'
  path.write_text(content)
  argument = ':smoke' if 'fit' in message else ''
  with pytest.raises(config.ConfigError, match=message) as error:
    config_files.read(f'{path}{argument}')
  assert str(path) in str(error.value)


def test_what_is_no_python_file_is_named(tmp_path):
  (tmp_path / 'a.wav').write_bytes(b'RIFF')
  with pytest.raises(config.ConfigError, match='a.wav is no Python file'):
    config_files.read(str(tmp_path / 'a.wav'))
  with pytest.raises(config.ConfigError, match='no file'):
    config_files.read(str(tmp_path))
