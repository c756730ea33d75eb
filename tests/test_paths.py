"""Files that a run names are found wherever the program runs or they move to."""

import dataclasses
import os
import pathlib
import shutil
import typing
from typing import Annotated, Any

import ml_collections
import numpy as np
import pytest

from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import resolution
from audiolm_jax import train
from audiolm_jax.audio import files
from audiolm_jax.config import relocation
from audiolm_jax.data import factors
from audiolm_jax.data import token_cache
from configs.codec import quickstart as codec_config
from configs.lm import quickstart
from tests.data import made_caches


def _lm(tokens='runs/q/tokens'):
  return config.replace(
      quickstart.get_config('smoke'),
      {
          'data.cache': tokens,
          'data.conditions.text': factors.Text(
              pieces='text.model', vocabulary=300
          ),
          'evaluators.lm.clips.cache': tokens,
          'models.lm.init_from': 'runs/other/lm',
      },
  )


def _claim(workdir, settings):
  """As the start of a training that wrote metrics, in a relative directory."""
  workdir = pathlib.Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  train._claim(workdir, resolution.resolve(settings))
  (workdir / 'metrics.jsonl').touch()


def test_a_runs_paths_move_with_it(tmp_path, monkeypatch):
  here = tmp_path / 'here'
  here.mkdir()
  monkeypatch.chdir(here)
  _claim('runs/q/lm', _lm())
  text = (here / 'runs/q/lm/config.json').read_text()
  assert 'here' not in text and '"../tokens"' in text
  for there in ('here', 'there'):
    if there != 'here':
      shutil.move(here, tmp_path / there)
    monkeypatch.chdir('/')
    root = tmp_path / there / 'runs'
    found = assembly_lib.read(root / 'q/lm')
    assert found.data.cache == str(root / 'q/tokens')
    assert found.evaluators.lm.clips.cache == str(root / 'q/tokens')
    assert found.models.lm.init_from == str(root / 'other/lm')
    pieces = tmp_path / there / 'text.model'
    assert found.data.conditions.text.pieces == str(pieces)
    # The same run goes on from any directory; another cache is another run.
    monkeypatch.chdir(root)
    other = dataclasses.replace(
        _lm('q/tokens'), models=config.build(train.Config, found).models
    )
    with pytest.raises(config.ConfigError, match='pieces') as error:
      _claim('q/lm', other)
    assert 'cache' not in str(error.value)
  monkeypatch.chdir(tmp_path / 'there')
  _claim('runs/q/lm', _lm())
  with pytest.raises(config.ConfigError, match='data.cache.*tokens.*older'):
    _claim('runs/q/lm', _lm('runs/q/older'))


def test_a_link_to_a_work_directory_is_no_other_place(tmp_path, monkeypatch):
  disk = tmp_path / 'disk' / 'deep'
  disk.mkdir(parents=True)
  (tmp_path / 'runs').symlink_to(disk)
  monkeypatch.chdir(tmp_path)
  _claim('runs/lm', _lm('runs/tokens'))
  for where in ('runs/lm', disk / 'lm'):
    assert assembly_lib.read(where).data.cache == str(disk / 'tokens')


def test_corpora_are_names_or_folders(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  files.write('mine/a.wav', np.ones((9, 1)), 8000)
  (tmp_path / 'espeak_sentences').mkdir()
  for corpus, kept in {
      'mine': str(tmp_path / 'mine'),
      'asterisk_prompts': 'asterisk_prompts',
      'espeak_sentences': 'espeak_sentences',
  }.items():
    settings = codec_config.get_config('smoke')
    workdir = f'runs/{corpus}'
    _claim(workdir, config.replace(settings, {'data.corpus': corpus}))
    assert assembly_lib.read(workdir).data.corpus == kept
    assert tmp_path.name not in workdir


def test_a_cache_finds_its_tokenizer(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  identity = made_caches.identity((4,), {}, tokenizer='q/tokenizer')
  assert token_cache.Writer('q/tokens', identity).finish()
  assert str(tmp_path) not in (tmp_path / 'q/tokens/header.json').read_text()
  shutil.move('q', tmp_path / 'moved')
  monkeypatch.chdir('/')
  moved = tmp_path / 'moved'
  header = token_cache.read_header(moved / 'tokens')
  assert header.tokenizer == str(moved / 'tokenizer')
  # The tokenizer alone has moved: the same command says where it is now.
  shutil.move(moved / 'tokens', tmp_path / 'tokens')
  identity = dataclasses.replace(identity, tokenizer=str(moved / 'tokenizer'))
  assert token_cache.Writer(tmp_path / 'tokens', identity).finish()
  header = token_cache.read_header(tmp_path / 'tokens')
  assert header.tokenizer == str(moved / 'tokenizer')


@dataclasses.dataclass(frozen=True)
class Part:
  file: Annotated[str, config.Path()] = 'a'
  other: Annotated[str, config.Path()] | None = None
  text: str = 'a'


@dataclasses.dataclass(frozen=True)
class Whole:
  kind: Annotated[Any, config.Kind(lambda: {'part': Part})]
  parts: tuple[Annotated[Any, config.Kind(lambda: {'part': Part})], ...] = ()
  plain: Part = Part()
  named: Annotated[dict[str, Part], config.Named(Part)] = dataclasses.field(
      default_factory=dict
  )


def test_paths_are_found_in_every_kind_of_field(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  part = Part('x/a', None, 'x/a')
  values = config.to_config(Whole(part, (part,), part, {'n': part})).to_dict()
  kept = relocation.portable(Whole, values, tmp_path / 'x' / 'y')
  back = relocation.placed(Whole, kept, tmp_path / 'x' / 'y')
  for found, expected in ((kept, '../a'), (back, str(tmp_path / 'x/a'))):
    for group in (
        found['kind'],
        found['parts'][0],
        found['plain'],
        found['named']['n'],
    ):
      assert (group['file'], group['other']) == (expected, None)
      assert group['text'] == 'x/a'
  assert config.build(Whole, ml_collections.ConfigDict(back))
  # What shares nothing with the folder but the root stays where it is.
  assert relocation.relative('/usr/x', tmp_path) == '/usr/x'
  # What fits no schema is for `build` to refuse.
  wrong = {'kind': {'kind': 'none', 'file': 3}, 'parts': 'x', 'more': 1}
  assert relocation.portable(Whole, wrong, os.fspath(tmp_path)) == wrong


# Strings of configs that name no file; a new one is here, or a `config.Path`.
_NO_PATHS = {
    'split',
    'test_split',
    'factor',
    'tokenizer_hash',
    'init_model',
    'best',
    'audio',  # The label of a segment.
    'label',
    'dtype',
}


def _classes(cls, seen):
  """A dataclass and all that its fields may hold."""
  if cls in seen or not dataclasses.is_dataclass(cls):
    return
  seen.add(cls)
  for _, annotation in config.schema(cls).values():
    _of(annotation, seen)


def _of(annotation, seen):
  base, metadata, _ = config.unwrap(annotation)
  for item in metadata:
    if isinstance(item, config.Kind):
      for kind in item.table().values():
        _classes(kind, seen)
    if isinstance(item, config.Named):
      _of(item.value, seen)
  for argument in typing.get_args(base):
    _of(argument, seen)
  if isinstance(base, type):
    _classes(base, seen)


def test_every_string_of_a_config_is_a_path_or_is_known_to_be_none():
  seen = set()
  _classes(train.Config, seen)
  paths, unknown = set(), set()
  for cls in seen:
    for name, (_, annotation) in config.schema(cls).items():
      base, metadata, _ = config.unwrap(annotation)
      if base is str:
        if any(isinstance(item, config.Path) for item in metadata):
          paths.add(name)
        elif name not in _NO_PATHS:
          unknown.add(f'{cls.__name__}.{name}')
  assert not unknown
  assert paths == {
      'audio',
      'cache',
      'corpus',
      'features',
      'folder',
      'init_from',
      'items',
      'judge',
      'path',
      'pieces',
      'tokenizer',
      'vectors',
  }


def test_no_class_with_a_kind_has_a_field_of_that_name():
  """In JSON the two would be one key."""
  seen = set()
  _classes(train.Config, seen)
  assert {cls for cls in seen if 'kind' in config.schema(cls)} == set()


def test_every_default_is_one_that_its_field_allows():
  """`build` checks them, too."""
  seen = set()
  _classes(train.Config, seen)
  for cls in seen:
    try:
      made = cls()
    except TypeError:  # Some fields have none.
      continue
    assert config.build(cls, {}) == made
