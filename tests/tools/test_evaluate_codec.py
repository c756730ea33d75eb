"""The tool: one command judges all languages, and merges them."""

import json

from absl import flags
from absl.testing import flagsaver
import ml_collections
import numpy as np
import pytest

from audiolm_jax import assembly as assembly_lib
from audiolm_jax import data
from audiolm_jax.models import loading
from audiolm_jax.data import corpora
from audiolm_jax.evaluation import judges as judges_lib
from audiolm_jax.models import audio_tokenizer
from tests import tool_module
from tests.tokenizers import tiny

_FLAGS = ('workdir', 'corpus', 'languages', 'clips', 'codebooks', 'opus')


@pytest.fixture(name='tool', scope='module')
def _tool():
  """The tool, whose flags stand in for those of another that was imported."""
  taken = {n: flags.FLAGS[n] for n in _FLAGS if n in flags.FLAGS}
  for name in taken:
    delattr(flags.FLAGS, name)
  yield tool_module.load('evaluate_codec')
  for name in _FLAGS:
    delattr(flags.FLAGS, name)
  for name, flag in taken.items():
    flags.FLAGS[name] = flag


@pytest.fixture(autouse=True)
def _codec_and_clips(monkeypatch):
  """A tiny codec of English and French; two clips of every language."""

  def load(corpus, split, languages=None):
    assert (corpus, split) in [('spoken', 'test'), ('folder', 'test')]
    assert (corpus == 'folder') == (languages is None)
    (language,) = languages or ('',)
    rng = np.random.default_rng(len(language))
    return [
        {
            'id': f'{language}{i}',
            'audio': rng.standard_normal((seconds * tiny.RATE, 1)) * 0.1,
            'sample_rate': tiny.RATE,
            'text': 'one two' if language else '',
            'language': language,
        }
        for i, seconds in enumerate((2, 3))
    ]

  codec = audio_tokenizer.AudioTokenizer(*tiny.codec('state'))
  trained = {'data': {'corpus': 'spoken', 'languages': ('en', 'fr')}}
  monkeypatch.setattr(data, 'load_corpus', load)
  monkeypatch.setitem(corpora.BUILDERS, 'spoken', None)
  monkeypatch.setattr(loading, 'load', lambda run: codec)
  monkeypatch.setattr(
      assembly_lib, 'read', lambda run: ml_collections.ConfigDict(trained)
  )
  # What the judges say is tested elsewhere; all but f0 need [eval].
  absent = dict.fromkeys(judges_lib.JUDGES.keys() - {'f0'}, 'pip install x')
  monkeypatch.setattr(judges_lib, 'missing', lambda: absent)


def test_one_command_merges_languages(tool, tmp_path, capsys):
  with flagsaver.as_parsed(
      workdir=str(tmp_path), languages='en,it', codebooks='1,3', opus='12'
  ):
    tool.main(['evaluate_codec'])
  groups = json.loads((tmp_path / 'codec_evaluation.json').read_text())
  assert [g['group'] for g in groups] == ['en', 'it']
  assert [g['unseen'] for g in groups] == [False, True]
  for group in groups:
    assert [row['codebooks'] for row in group['rows']] == [3, 1]
    assert [other['name'] for other in group['others']] == ['Opus 12 kbit/s']
    assert group['seconds'] == 5
  lines = (tmp_path / 'codec_evaluation.jsonl').read_text().splitlines()
  scores = [json.loads(line) for line in lines]
  for group in groups:
    # The table's means are those of the scores that are kept: over clips, and
    # of f0 over frames of 10 ms.
    for name, weight in (('mel', 2), ('ffe', 500), ('vde@1', 500)):
      kept = [
          (s['sum'], s['weight'])
          for s in scores
          if (s['group'], s['name']) == (group['group'], name)
      ]
      assert len(kept) == 2
      total, weights = np.sum(kept, axis=0)
      assert weights == weight
      row = group['rows'][name.endswith('@1')]
      assert row[name.partition('@')[0]] == pytest.approx(total / weights)
    assert {'ffe', 'vde'} <= group['others'][0].keys()
  printed = capsys.readouterr().out
  headings = [line.split() for line in printed.splitlines()]
  assert ['clips', 'kbit/s', 'FFE', 'VDE', 'mel'] in [h[:5] for h in headings]
  assert f'{100 * groups[1]["rows"][0]["ffe"]:.1f}%' in printed
  assert 'it (unseen): 3 codebooks' in printed
  assert f'{groups[1]["rows"][0]["mel"]:.3f}' in printed
  assert '…' not in printed
  assert 'wer is missing: pip install x' in printed


def test_a_language_that_is_not_built_is_told_before_anything_is_scored(
    tool, tmp_path, monkeypatch
):
  load = data.load_corpus

  def partly(corpus, split, languages):
    if languages == ('it',):
      raise corpora.CorpusError('spoken/it is not built')
    return load(corpus, split, languages)

  scored = []
  monkeypatch.setattr(data, 'load_corpus', partly)
  monkeypatch.setattr(
      tool.codec_evaluation.CodecEvaluator,
      'score',
      lambda *a: scored.append(a) or [],
  )
  with flagsaver.as_parsed(workdir=str(tmp_path), languages='en,it'):
    with pytest.raises(SystemExit, match='spoken/it is not built'):
      tool.main(['evaluate_codec'])
  assert not scored


@pytest.mark.parametrize(
    'options, message',
    [
        ({'codebooks': '1,x'}, '--codebooks=x: expected numbers from 1 to 3'),
        ({'codebooks': '0'}, '--codebooks=0'),
        ({'codebooks': '-1'}, '--codebooks=-1'),
        ({'opus': 'x'}, '--opus=x: expected kbit/s, 6 to 510'),
        ({'opus': '12,nan'}, '--opus=nan'),
        ({'opus': '1e9'}, '--opus=1e9'),
        ({}, 'summary.json is damaged'),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_scored(
    tool, tmp_path, monkeypatch, options, message
):
  monkeypatch.setattr(
      tool.codec_evaluation.CodecEvaluator,
      'score',
      lambda *a: pytest.fail('scored'),
  )
  if not options:
    (tmp_path / 'summary.json').write_text('{"codec": ')
  with flagsaver.as_parsed(workdir=str(tmp_path), languages='en', **options):
    with pytest.raises(SystemExit, match=f'^evaluate_codec: .*{message}'):
      tool.main(['evaluate_codec'])


def test_a_folder_is_one_group_of_all_its_clips(tool, tmp_path, capsys):
  """Which have no transcripts here."""
  with flagsaver.as_parsed(workdir=str(tmp_path), corpus='folder'):
    tool.main(['evaluate_codec'])
  (group,) = json.loads((tmp_path / 'codec_evaluation.json').read_text())
  assert group['group'] == 'all' and group['clips']['mel'] == 2
  with flagsaver.as_parsed(
      workdir=str(tmp_path), corpus='folder', languages='en'
  ):
    with pytest.raises(SystemExit, match='--languages: folder can not'):
      tool.main(['evaluate_codec'])
