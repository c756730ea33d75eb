"""tools/evaluate_pairs.py: models from directories, its table, its refusals."""

import json

import pytest

from audiolm_jax import decoders
from audiolm_jax import patterns
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.models import directory
from tests import tool_module
from tests.decoders import small
from tests.evaluation import benchmark_folders
from tests.models import small_directories
from tests.tokenizers import tiny


@pytest.fixture
def tool(monkeypatch):
  module = tool_module.load('evaluate_pairs')

  def fail(message):
    raise SystemExit(message)

  # The real one ends the process.
  monkeypatch.setattr(module.launch, 'fail', fail)
  return module


@pytest.fixture(scope='module')
def models(tmp_path_factory):
  """Directories of a codec and of a language model of its codes."""
  folder = tmp_path_factory.mktemp('models')
  module, variables = tiny.codec('state')
  small_directories.write(folder / 'codec', 'codec', module, variables)
  made = directory.stored(folder / 'codec').manifest.fingerprint
  lm = decoders.Decoder(
      vocabularies=(8,), pattern=patterns.Delay(), backbone=small.stack()
  )
  params = small.parameters(lm, *lm.read(lm.example_batch(1, {'frames': 2})))
  small_directories.write(
      folder / 'lm',
      'lm',
      lm,
      {'params': params, 'state': {}},
      rate=100.0,
      tokenizer=directory.Speaks(str(folder / 'codec'), made),
  )
  return folder


def test_a_models_directory_is_judged(tool, models, tmp_path, capsys):
  folder = benchmark_folders.sblimp(
      tmp_path / 'dev', [('agreement', 'a'), ('npi', 'b')], 'AB'
  )
  out = tmp_path / 'scores.jsonl'
  tool.main(
      [
          f'--model={models}/lm',
          '--benchmark=sblimp',
          f'--folder={folder}',
          f'--out={out}',
      ]
  )
  scores = [json.loads(line) for line in out.read_text().splitlines()]
  assert len(scores) == 4
  means = evaluation_base.summarize(
      evaluation_base.Score(**score) for score in scores
  )
  printed = capsys.readouterr().out.splitlines()
  assert printed[0] == f'4 pairs of {folder}'
  for line, (name, value) in zip(printed[1:], means.items(), strict=True):
    assert line.startswith(f'{name}: {100 * value:.1f}% [')
  assert printed[1].endswith('], 2 items')


def test_what_is_wrong_is_told_in_a_line(tool, models, tmp_path):
  folder = benchmark_folders.salmon(tmp_path / 'salmon', {'x': 1})

  def run(model, benchmark='salmon', **more):
    flags = {'model': model, 'benchmark': benchmark, 'folder': folder, **more}
    tool.main([f'--{name}={value}' for name, value in flags.items()])

  with pytest.raises(SystemExit, match='^evaluate_pairs.py: --model=.* holds'):
    run(models / 'codec')
  with pytest.raises(SystemExit, match='It is one of SALMon'):
    run(models / 'lm', 'swuggy')
  with pytest.raises(SystemExit, match='holds a TokenLM, not a tokenizer'):
    run(models / 'lm', tokenizer=models / 'lm')
  with pytest.raises(SystemExit, match='gone is no directory'):
    run(tmp_path / 'gone')
  with pytest.raises(SystemExit):
    run(models / 'lm', limit=0)
