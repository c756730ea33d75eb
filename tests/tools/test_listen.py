"""tools/listen.py: the table it prints and writes, and votes that it refuses."""

import json

import numpy as np
import pytest

from audiolm_jax.comparison import report as report_lib
from tests import tool_module


def _report(tmp_path):
  rng = np.random.default_rng(0)
  report = report_lib.Report('x')
  for item in ('one', 'two'):
    clips = {arm: 0.1 * rng.standard_normal(800) for arm in 'abc'}
    report.add_comparison('Listen', item, clips, 8000)
  report.write(tmp_path / 'report.html')
  return report


def _votes(tmp_path, report, listener, answers, item='one'):
  pairs = [('a', 'b'), ('b', 'c'), ('c', 'a')]
  votes = [
      {
          'section': 'Listen',
          'item': item,
          'left': left,
          'right': right,
          'answer': answer,
          'seconds': 1.5,
          'time': str(i),
      }
      for i, ((left, right), answer) in enumerate(
          zip(pairs, answers, strict=False)
      )
  ]
  path = tmp_path / f'{listener}.json'
  path.write_text(
      json.dumps(
          {'format': 1, 'report': report, 'listener': listener, 'votes': votes}
      )
  )
  return str(path)


def test_the_table_is_printed_and_written_and_replaced(tmp_path, capsys):
  tool = tool_module.load('listen')
  report = _report(tmp_path)
  files = [
      _votes(tmp_path, report.id, 'ann', ['left', 'left', 'right']),
      _votes(tmp_path, report.id, 'bob', ['left', 'same', 'right']),
  ]
  option = f'--report={tmp_path / "report.json"}'
  for _ in range(2):
    tool.main([*files, option])
  printed = capsys.readouterr().out
  lines = [line.split() for line in printed.splitlines()]
  assert [line[0] for line in lines[2:5]] == ['a', 'b', 'c']
  assert lines[2][-3:] == ['4', '0', '0']  # Preferred, no difference, not.
  assert '6 votes of 2 listener(s) on 1 items' in printed
  assert 'bootstrap over 2 listeners' in printed
  assert 'Won or lost everything: a' in printed
  again = report_lib.Report.read(tmp_path / 'report.html')
  assert again.id == report.id
  (section,) = [
      s for s in again.data['sections'] if s['title'] == 'Blind test: Listen'
  ]
  (table,) = section['blocks']
  assert [row[0]['text'] for row in table['rows']] == ['a', 'b', 'c']
  assert 'Blind test: Listen' in (tmp_path / 'report.html').read_text()


def test_side_bias_and_rings_are_said(tmp_path, capsys):
  tool = tool_module.load('listen')
  tool.main([_votes(tmp_path, 'abc', 'ann', ['left', 'left', 'left'])])
  printed = capsys.readouterr().out
  assert 'Side A was preferred in 100% [44%, 100%]: ' not in printed
  assert 'Side A was preferred in 100% [44%, 100%].' in printed
  assert 'In 1 items preferences go round in a ring' in printed
  assert 'Wald, for this one listener' in printed


def test_votes_on_other_sounds_are_refused(tmp_path):
  tool = tool_module.load('listen')
  report = _report(tmp_path)
  option = f'--report={tmp_path / "report.json"}'
  other = _votes(tmp_path, 'abc', 'ann', ['left'])
  with pytest.raises(SystemExit, match='about report abc, not'):
    tool.main([other, option])
  absent = _votes(tmp_path, report.id, 'bob', ['left'], item='three')
  with pytest.raises(SystemExit, match='has nothing of'):
    tool.main([absent, option])
  apart = _votes(tmp_path, 'abc', 'eve', [])
  with pytest.raises(SystemExit, match='there are no votes'):
    tool.main([apart])
  with pytest.raises(SystemExit, match='listen: .*No such file'):
    tool.main([str(tmp_path / 'none.json')])
  report_lib.Report('y').write(tmp_path / 'mute.html')
  with pytest.raises(SystemExit, match='nothing to vote on'):
    tool.main([other, f'--report={tmp_path / "mute.json"}'])
