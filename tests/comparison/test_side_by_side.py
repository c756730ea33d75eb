"""Items that arms have to hear: to disk and back, and onto one page."""

import json

import numpy as np
import pytest

from audiolm_jax.comparison import listening
from audiolm_jax.comparison import loudness
from audiolm_jax.comparison import report as report_lib
from audiolm_jax.comparison import votes as votes_lib
from tests import browser
from tests import tool_module

RATE = 16_000


def sound(name, level, seconds=0.5, rate=RATE, frequency=300):
  times = np.arange(round(seconds * rate)) / rate
  audio = level * np.sin(2 * np.pi * frequency * times)
  return listening.Item(name, audio.astype(np.float32), rate, 'a note', 0.1)


def test_items_come_back_from_disk(tmp_path):
  items = [sound('one', 0.5), sound('two', 0.1, rate=24_000)]
  listening.write(tmp_path / 'heard', items)
  for item, again in zip(
      items, listening.read(tmp_path / 'heard'), strict=True
  ):
    np.testing.assert_allclose(again.audio, item.audio, atol=2**-15)
    for field in ('name', 'sample_rate', 'note', 'prompt_seconds'):
      assert getattr(again, field) == getattr(item, field)
  with pytest.raises(listening.ListeningError, match='one name'):
    listening.write(tmp_path, [items[0], items[0]])
  with pytest.raises(listening.ListeningError, match='nothing has no items'):
    listening.read(tmp_path / 'nothing')
  (tmp_path / 'heard' / '1.flac').write_bytes(b'no')
  with pytest.raises(listening.ListeningError, match='heard has no items'):
    listening.read(tmp_path / 'heard')


def comparisons(page, section='Listen'):
  (section,) = [s for s in page.data['sections'] if s['title'] == section]
  return section['blocks']


def test_what_arms_share_is_compared_equally_loud(tmp_path, monkeypatch):
  """Also where arms' sample rates differ; an item of one arm is only heard."""
  heard, gains_of = {}, loudness.matching_gains

  def keep(clips, rate):
    heard.update(clips=clips, rate=rate)
    return gains_of(clips, rate)

  monkeypatch.setattr(report_lib.loudness, 'matching_gains', keep)
  arms = {
      'a': [sound('x', 0.5), sound('only', 0.5)],
      'b': [sound('x', 0.05, rate=24_000)],
  }
  page = report_lib.Report('t')
  listening.add_side_by_side(page, 'Listen', arms, 'Which?')
  both, alone = comparisons(page)
  assert (both['kind'], alone['kind']) == ('comparison', 'audio')
  assert [clip['label'] for clip in both['clips']] == ['a', 'b']
  gains = {clip['label']: clip['gain'] for clip in both['clips']}
  assert gains['b'] - gains['a'] == pytest.approx(20, abs=0.1)
  assert heard['rate'] == 24_000 and len(heard['clips']['a']) == 12_000


def test_a_page_has_an_end():
  arms = {arm: [sound(f'x{i}', 0.1) for i in range(4)] for arm in 'ab'}
  page = report_lib.Report('t')
  listening.add_side_by_side(page, 'Listen', arms, '', most_seconds=2.0)
  *kept, text = comparisons(page)
  assert [block['title'] for block in kept] == ['x0', 'x1']
  assert 'x2, x3' in text['text']


@pytest.mark.skipif(browser.CHROMIUM is None, reason='no Chromium')
def test_votes_on_the_page_are_added_up_by_the_tool(tmp_path):
  """From arms' items on disk to the strengths that saved votes speak for."""
  arms = {}
  for i, arm in enumerate('ab'):
    folder = tmp_path / arm
    items = [sound(f'x{k}', 0.1, frequency=300 * (i + 1)) for k in range(3)]
    listening.write(folder, items)
    arms[arm] = listening.read(folder)
  page = report_lib.Report('Heard')
  listening.add_side_by_side(page, 'Listen', arms, 'Which sounds better?')
  page.write(tmp_path / 'report.html')
  with browser.opened(tmp_path / 'report.html') as tab:
    tab.download_to(tmp_path)
    tab.run('document.querySelector(".start").click()')
    tab.press('L')
    tab.run('document.querySelector(".begin").click()')
    for _ in range(3):
      for name in ('a', 'b', '1', 'n'):
        tab.press(name)
    tab.run('document.querySelector("dialog").close()')
    tab.run('document.querySelector(".save").click()')
    saved = tmp_path / f'votes-{page.id}-L.json'
    for _ in range(100):
      if saved.exists() and saved.stat().st_size:
        break
      tab.run('new Promise((done) => setTimeout(done, 50))')
    assert tab.errors == []
  assert len(json.loads(saved.read_text())['votes']) == 3
  tool = tool_module.load('listen')
  about, votes = votes_lib.read([saved], page.id)
  assert about == page.id
  tool.check(votes, page)
  ((rows, caption),) = tool.tables(votes).values()
  assert sorted(row[0] for row in rows) == ['a', 'b']
  assert '3 votes of 1 listener(s) on 3 items' in caption
