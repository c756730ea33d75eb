"""The codec's table says what was measured, and what was not."""

import pytest

from audiolm_jax.comparison import codec as codec_report
from audiolm_jax.comparison import report as report_lib
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.tokenizers import base as tokenizers_base

SPEC = tokenizers_base.Spec(
    sample_rate=16000,
    hop=320,
    slots=tuple(tokenizers_base.Slot(k, 1024) for k in range(2)),
    causal=True,
    latency=0,
    dates=tokenizers_base.Dates('CNN', 'time', 'RVQ', 'fixed', (), (), ()),
)


def _scores(judged):
  for suffix, worse in (('', 0.0), ('@1', 0.5)):
    for item in ('a', 'b'):
      yield evaluation_base.Score('mel' + suffix, item, 0.2 + worse, 1.0)
      if judged:
        yield evaluation_base.Score('wer' + suffix, item, 1 + 2 * worse, 10.0)
        yield evaluation_base.Score('wer_original' + suffix, item, 0.5, 10.0)
  for k in range(2):
    yield evaluation_base.Score(f'usage_{k}', 'corpus', 0.5, 1.0)
    yield evaluation_base.Score(f'entropy_{k}', 'corpus', 9.0, 1.0)


def test_results_by_number_of_codebooks():
  found = codec_report.results(_scores(True), SPEC, 'en', 12.0)
  assert found['clips'] == {'wer': 2, 'mel': 2}
  full, one = found['rows']
  assert (full['codebooks'], one['codebooks']) == (2, 1)
  assert (full['bits_per_second'], one['bits_per_second']) == (1000, 500)
  assert (full['wer'], one['wer'], one['wer_original']) == (0.1, 0.2, 0.05)
  assert found['usage'] == [0.5, 0.5] and found['entropy'] == [9.0, 9.0]
  low, high = found['intervals']['mel']
  assert low == pytest.approx(0.2) and high == pytest.approx(0.2)


def test_the_original_stands_beside_and_a_second_call_replaces():
  page = report_lib.Report('x')
  page.add_text(codec_report.SECTION, 'old')
  for judged in (False, True):
    groups = [codec_report.results(_scores(judged), SPEC, 'en', 12.0)]
    codec_report.add_to(page, groups, 'runs/x')
    (section,) = page.data['sections']
    kinds = [block['kind'] for block in section['blocks']]
    assert kinds == ['table', 'table', 'table', 'missing']
    missing = section['blocks'][-1]['missing']
    (headings,) = missing
    assert ('WER' in headings) != judged
    assert 'evaluate_codec.py --workdir=runs/x' in missing[headings]
  table = section['blocks'][0]
  assert table['columns'] == ['', 'clips', 'kbit/s', 'WER', 'mel']
  rows = [[cell['text'] for cell in row] for row in table['rows']]
  assert rows[0] == ['en: original', '–', '–', '5.0%', '0']
  assert rows[1] == ['en: 2 codebooks', '2', '1.00', '10.0%', '0.200']
  assert rows[2] == ['en: 1 codebook', '2', '0.50', '20.0%', '0.700']


def test_shares_of_frames_are_percent_and_weighted_by_frames():
  scores = list(_scores(False))
  # 30 of 100 and 0 of 300 frames; of clip b no frame is voiced in both.
  for item, wrong, frames in (('a', 30.0, 100.0), ('b', 0.0, 300.0)):
    scores.append(evaluation_base.Score('ffe', item, wrong, frames))
    scores.append(evaluation_base.Score('vde', item, wrong / 3, frames))
    scores.append(evaluation_base.Score('gpe', item, 0.0, 1.0))
  group = codec_report.results(scores, SPEC, 'en', 12.0)
  full, one = group['rows']
  assert (full['ffe'], full['vde']) == (0.075, 0.025) and 'ffe' not in one
  page = report_lib.Report('x')
  codec_report.add_to(page, [group], 'runs/x')
  table, intervals = page.data['sections'][0]['blocks'][:2]
  assert table['columns'][3:] == ['FFE', 'VDE', 'mel']
  rows = [[cell['text'] for cell in row[3:]] for row in table['rows']]
  assert rows == [
      ['0%', '0%', '0'],
      ['7.5%', '2.5%', '0.200'],
      ['–', '–', '0.700'],
  ]
  # Of 2 clips, the bootstrap sees both alone.
  assert intervals['rows'][0][1]['text'] == '0.0% to 30.0%'
  assert 'f0 frame error' in table['caption']


def test_other_codecs_and_unseen_clips_are_named():
  page = report_lib.Report('x')
  others = [evaluation_base.Score('bits@Opus 6', 'a', 3e4, 5.0)]
  others += [
      evaluation_base.Score('mel@Opus 6', item, 0.3, 1.0) for item in 'ab'
  ]
  group = codec_report.results(
      _scores(False), SPEC, 'ru', 12.0, others=others, unseen=True
  )
  codec_report.add_to(page, [group], 'runs/x')
  table, intervals = page.data['sections'][0]['blocks'][:2]
  rows = [[cell['text'] for cell in row] for row in table['rows']]
  assert [row[0] for row in rows] == [
      'ru (unseen): original',
      'ru (unseen): 2 codebooks',
      'ru (unseen): 1 codebook',
      'ru (unseen): Opus 6',
  ]
  assert rows[-1][2:] == ['6.00', '0.300']
  assert [c['text'] for c in intervals['rows'][0]] == ['ru', '0.200 to 0.200']
