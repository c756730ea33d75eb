"""A dummy of each kind is added in the files that CONTRIBUTING.md names.

In a copy of the package: so this fails where a new kind needs to be known
somewhere else, too, or where the page is wrong.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Kind -> the class's file, and the line of the table.
FILES = {
    'mixer': (
        '''
from audiolm_jax.streaming import base as streaming_base


class Dummy(streaming_base.Steppable):
  """Mixes nothing."""

  def process(self, x, mask, state, context):
    return x, mask, state

  def initial_state(self, batch, spec):
    return ()
''',
        ('MIXERS = {', "'dummy': dummy.Dummy,"),
    ),
    'head': (
        '''
from audiolm_jax.decoders.heads import independent


class Dummy(independent.Independent):
  """Independent under another name."""
''',
        ('HEADS = {', "'dummy': dummy.Dummy,"),
    ),
    'loss': (
        '''
import dataclasses

from audiolm_jax.objectives import toy


@dataclasses.dataclass(frozen=True)
class Dummy(toy.Toy):
  """The toy's, three times as large."""

  factor: float = 3.0

  @property
  def loss_weights(self):
    return {k: self.factor * v for k, v in super().loss_weights.items()}
''',
        ('OBJECTIVES = {', "'dummy': dummy.Dummy,"),
    ),
    'corpus': (
        '''
import numpy as np
import tensorflow_datasets as tfds

from audiolm_jax.data import building


class Dummy(building.CorpusBuilder, skip_registration=True):
  """Four seconds of noise."""

  name = 'dummy'
  BUILDER_CONFIGS = [tfds.core.BuilderConfig(name='en')]
  DESCRIPTION = 'Noise.'
  LICENSE = 'none'

  def clips(self):
    for i, split in enumerate(('train', 'train', 'validation', 'test')):
      yield building.Clip(f'clip{i}', split, f'p{i}', '', '', 'en', i)

  def load(self, clip):
    noise = np.random.default_rng(clip.source).normal(0, 0.1, (16_000, 1))
    return noise.astype(np.float32), 16_000
''',
        (
            'BUILDERS: dict[str, type[building.CorpusBuilder]] = {',
            "'dummy': dummy.Dummy,",
        ),
    ),
    'metric': (
        '''
import dataclasses

from audiolm_jax.evaluation import base as evaluation_base


@dataclasses.dataclass(frozen=True)
class Dummy:
  """One number."""

  value: float = 2.5

  def build(self, objective):
    return _Evaluator(self.value)


class _Evaluator(evaluation_base.Evaluator):

  def __init__(self, value):
    self._value = value

  def run(self, variables):
    yield evaluation_base.Score('number', 'item', self._value, 1.0)
''',
        ('EVALUATORS = {', "'dummy': dummy.Dummy,"),
    ),
    'tokenizer': (
        '''
from typing import Any

from audiolm_jax.tokenizers import codec as codec_lib


class Dummy(codec_lib.Codec):
  """A codec under another name."""
''',
        ('TOKENIZERS = {', "'dummy': dummy.Dummy,"),
    ),
    'question': (
        """
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax import train
from audiolm_jax import data
from audiolm_jax.lab import questions
from audiolm_jax.lab import stages
from audiolm_jax.training import checkpoints


def question(budget):
  def arm(name, factor):
    settings = train.Config(
        objective=objectives.OBJECTIVES['dummy'](factor=factor),
        data=data.Synthetic(),
        models={'mlp': train.ModelTraining()},
        steps=3,
        eval_every=3,
        checkpoint=checkpoints.Config(every=3),
    )
    return questions.Arm(name, stages.Train(name='model', config=settings))

  def measure(model):
    return stages.Evaluate(
        name='test',
        inputs=(model,),
        evaluators={'dummy': evaluation.EVALUATORS['dummy']()},
    )

  return questions.Question(
      name='dummy',
      title='Nothing?',
      text='A dummy.',
      arms=(arm('a', 1.0), arm('b', 3.0)),
      baseline='a',
      validate=measure,
      select='eval/dummy/number',
      test=measure,
      outcomes=(
          questions.Outcome('number', 'eval/dummy/number', '', 'the same'),
      ),
      differences={'objective.factor': 'it is asked'},
      mismatches={},
      seeds=2,
      row_seconds=1.0,
      bits_per_second=1.0,
  )
""",
        None,
    ),
}

# Run in the copy: what each dummy does.
USE = """
import jax
import numpy as np

import audiolm_jax
from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax import tokenizers
from audiolm_jax.data import corpora

assert 'DUMMY' in audiolm_jax.__file__, audiolm_jax.__file__
decoder = config.build_kind(
    decoders.LM_KINDS,
    {
        'kind': 'tokens',
        'vocabularies': (5, 5),
        'backbone': {
            'kind': 'stack',
            'width': 8,
            'layers': 2,
            'mixers': [{'kind': 'dummy'}],
        },
        'head': {'kind': 'dummy'},
    },
)
assert type(decoder.head).__name__ == 'Dummy'
assert config.to_config(decoder).head.kind == 'dummy'
codes = np.zeros((1, 4, 2), np.int32)
decoder.init(jax.random.key(0), codes, np.array([4]), method='score')
assert 'dummy' in tokenizers.TOKENIZERS
print(corpora.prepare('dummy')[0])
assert len(corpora.load_corpus('dummy', 'train')) == 2
"""


def table() -> dict[str, list[str]]:
  """Kind -> files, as CONTRIBUTING.md has them."""
  text = (ROOT / 'CONTRIBUTING.md').read_text('utf-8')
  rows = re.findall(r'^\| (\w+) \| (`[^|]*) \|(.*)\|$', text, re.M)
  return {kind: re.findall(r'`([^`]+)`', a + b) for kind, a, b in rows}


def add(root: pathlib.Path, kind: str, files: list[str]) -> None:
  """Writes a dummy's file, and its line into the table."""
  source, line = FILES[kind]
  new = root / files[0]
  assert not new.exists()
  new.parent.mkdir(exist_ok=True)
  new.write_text(f'"""A dummy."""\n{source}')
  if line is None:
    assert len(files) == 1
    return
  (start, entry), path = line, root / files[1]
  text = path.read_text('utf-8')
  assert text.count(start) == 1, f'{path} has no {start}'
  module = '.'.join(new.relative_to(root).parent.parts)
  head, rest = text.split(start)
  imported = f'from {module} import dummy\n'
  path.write_text(f'{head}{imported}{start}\n    {entry}{rest}')


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
  root = tmp_path_factory.mktemp('DUMMY')
  for folder in ('audiolm_jax', 'configs', 'experiments'):
    shutil.copytree(
        ROOT / folder,
        root / folder,
        ignore=shutil.ignore_patterns('__pycache__'),
    )
  for kind, files in table().items():
    add(root, kind, files)
  return root


def _run(root, *arguments):
  environment = {
      **os.environ,
      'PYTHONPATH': str(root),
      'AUDIOLM_JAX_CACHE': str(root / 'cache'),
  }
  result = subprocess.run(
      [sys.executable, *arguments],
      cwd=root,
      env=environment,
      capture_output=True,
      text=True,
  )
  assert result.returncode == 0, result.stderr[-2000:]
  return result.stdout


def test_the_page_names_every_kind():
  assert table().keys() == FILES.keys()


def test_each_dummy_is_known_everywhere(checkout):
  assert 'dummy' in _run(checkout, '-c', USE)


def test_a_dummy_question_is_answered_with_dummies(checkout):
  _run(
      checkout,
      '-m',
      'experiments.run',
      '--question=dummy',
      '--budget=smoke',
      f'--workdir={checkout / "answer"}',
  )
  page = (checkout / 'answer' / 'dummy' / 'report.html').read_text()
  assert 'Nothing?' in page and 'no difference found' in page


def test_a_dummy_is_chosen_on_the_command_line(checkout):
  _run(
      checkout,
      '-m',
      'audiolm_jax.main',
      '--config=configs/toy.py',
      f'--workdir={checkout / "run"}',
      '--config.objective.kind=dummy',
      '--config.evaluators.toy.kind=dummy',
      '--config.steps=2',
      '--config.checkpoint.best=eval/toy/number',
  )
  metrics = (checkout / 'run' / 'metrics.jsonl').read_text()
  assert '"eval/toy/number": 2.5' in metrics
