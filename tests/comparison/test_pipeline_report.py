"""The report of a pipeline: made of what the runs in its directory are."""

import json
import re

import pytest

import audiolm_jax
from audiolm_jax import config
from audiolm_jax import train
from audiolm_jax.tokenizers import encoding
from audiolm_jax.comparison import pipeline
from audiolm_jax.comparison import report as report_lib
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import bits as bits_lib
from audiolm_jax.evaluation import clips as clips_lib
from audiolm_jax.models import caching
from audiolm_jax.objectives import likelihood
from configs.codec import quickstart as codec_config
from configs.lm import quickstart


@pytest.fixture(scope='module', name='workdir')
def _workdir(cache, tmp_path_factory):
  """A codec, its tokens and an LM, a few steps each."""
  del cache  # Sets the cache directory.
  workdir = tmp_path_factory.mktemp('pipeline')
  corpus = {'data.corpus': 'espeak_sentences', 'data.languages': ('en',)}
  codec = config.replace(
      codec_config.get_config('smoke'),
      corpus | dict.fromkeys(['steps', 'checkpoint.every', 'eval_every'], 4),
  )
  train.train(codec, workdir / 'tokenizer')
  caching.fill(
      audiolm_jax.load(workdir / 'tokenizer'),
      workdir / 'tokens',
      corpus='espeak_sentences',
      workdir=workdir / 'tokenizer',
      languages=('en',),
  )
  lm = config.replace(
      quickstart.get_config('smoke'),
      {'data.cache': str(workdir / 'tokens')}
      | dict.fromkeys(['steps', 'checkpoint.every', 'eval_every'], 2),
  )
  train.train(lm, workdir / 'lm')
  stages = {'tokenizer': {'command': '...', 'seconds': 12.0}}
  (workdir / 'stages.json').write_text(json.dumps(stages))
  return workdir


def test_the_report_and_the_summary_say_what_was_measured(workdir):
  codec = audiolm_jax.load(workdir / 'tokenizer')
  lm = audiolm_jax.load(workdir / 'lm')
  summary = pipeline.write(workdir, codec, lm, clips=3, listen=2)
  assert json.loads((workdir / 'summary.json').read_text()) == json.loads(
      json.dumps(summary)
  )
  assert summary['corpus'] == 'espeak_sentences'
  assert summary['stage_seconds'] == {'tokenizer': 12.0}
  rows = {row['codebooks']: row for row in summary['codec'][0]['rows']}
  assert rows[8]['bits_per_second'] == 2 * rows[4]['bits_per_second'] == 4000
  # The LM's line is what its evaluator says of the test split.
  clips = clips_lib.TokenClips(cache=str(workdir / 'tokens'), split='test')
  evaluator = bits_lib.Bits(clips=clips).build(likelihood.NLL(lm.decoder))
  scores = evaluator.run({'lm': {'params': lm.params}})
  bits = summary['lm_bits_per_frame']
  assert bits['language model']['all'] == pytest.approx(
      evaluation_base.summarize(scores)['bits_per_frame']
  )
  for values in bits.values():
    parts = [v for k, v in values.items() if k != 'all']
    assert values['all'] == pytest.approx(sum(parts))
  # Four steps of training are not called intelligible.
  page = (workdir / 'report.html').read_text()
  assert 'too little to be' in page and 'An intelligible codec' not in page
  assert len(re.findall('<audio', page)) == 2 * 3 + 2
  assert "pip install -e '.[eval]'" in page.replace('&#39;', "'")
  assert 'bits a frame and the interpolated bigram' in page
  sections = report_lib.Report.read(workdir / 'report.html').data['sections']
  titles = [section['title'] for section in sections]
  assert [title.partition(':')[0] for title in titles] == [
      'Listen',
      'Listen',
      'Codec',
      'Language model',
      'Training',
      'What was run',
  ]


def test_tokens_of_another_codec_are_refused(workdir):
  codec = audiolm_jax.load(workdir / 'tokenizer')
  codec.variables['params']['encoder']['layers_3']['bias'] += 1.0
  with pytest.raises(config.ConfigError, match='was made by the tokenizer'):
    pipeline.write(workdir, codec, audiolm_jax.load(workdir / 'lm'))
  with pytest.raises(encoding.TokensError):
    pipeline.write(workdir / 'lm', codec, None)
