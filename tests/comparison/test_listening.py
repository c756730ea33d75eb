"""Loudness by the standard's numbers, and the blind test in a browser."""

import itertools
import json
import math

import numpy as np
import pytest

from audiolm_jax.comparison import loudness
from audiolm_jax.comparison import report as report_lib
from tests import browser

RATE = 16_000
ARMS = ('delay', 'flatten', 'pa<b>rallel')


def tone(frequency, level=1.0, seconds=1.0, rate=RATE):
  times = np.arange(round(seconds * rate)) / rate
  return level * np.sin(2 * np.pi * frequency * times)


def test_loudness_of_the_standards_tone():
  # BS.1770: 997 Hz at full scale is -3.01 LUFS, at any sample rate.
  for rate in (16_000, 24_000, 44_100, 48_000):
    audio = tone(997, rate=rate, seconds=2)
    assert loudness.loudness(audio, rate) == pytest.approx(-3.01, abs=0.05)
  half = loudness.loudness(tone(997, 0.5), RATE)
  assert half == pytest.approx(-3.01 - 6.02, abs=0.05)


def test_filters_are_those_of_the_standard_at_48_kilohertz():
  shelf, low = loudness._k_weighting(48_000)
  np.testing.assert_allclose(
      shelf[0], [1.53512485958697, -2.69169618940638, 1.19839281085285], 1e-9
  )
  np.testing.assert_allclose(
      shelf[1], [1, -1.69065929318241, 0.73248077421585], 1e-9
  )
  np.testing.assert_allclose(
      low[1], [1, -1.99004745483398, 0.99007225036621], 1e-9
  )


def test_pauses_do_not_count_and_silence_is_none():
  speech = tone(500, 0.1)
  paused = np.concatenate([speech, np.zeros(3 * RATE), speech])
  assert loudness.loudness(paused, RATE) == pytest.approx(
      loudness.loudness(speech, RATE), abs=0.9
  )
  assert loudness.loudness(np.zeros(RATE), RATE) == -math.inf
  assert loudness.loudness(np.zeros(0), RATE) == -math.inf
  short = tone(500, 0.1, 0.2)
  assert abs(loudness.loudness(short, RATE) + 23.7) < 1.5


def test_gains_match_loudness_without_clipping():
  clips = {'low': tone(300, 0.01), 'high': tone(900, 0.5), 'none': np.zeros(99)}
  gains = loudness.matching_gains(clips, RATE)
  assert gains['none'] == 0
  for name in ('low', 'high'):
    scaled = 10 ** (gains[name] / 20) * clips[name]
    assert loudness.loudness(scaled, RATE) == pytest.approx(-23, abs=0.01)
  # A click beside quiet sound would pass full scale: all are lowered alike.
  click = tone(300, 0.001)
  click[RATE // 2] = 0.9
  gains = loudness.matching_gains({'click': click, 'tone': tone(900)}, RATE)
  scaled = [
      10 ** (gains['click'] / 20) * click,
      10 ** (gains['tone'] / 20) * tone(900),
  ]
  assert max(np.abs(audio).max() for audio in scaled) == pytest.approx(1.0)
  levels = [loudness.loudness(audio, RATE) for audio in scaled]
  assert levels[0] == pytest.approx(levels[1], abs=0.01)


def page(arms=ARMS, items=2):
  report = report_lib.Report('Heard')
  for item in range(items):
    clips = {
        arm: tone(200 * (i + 1), 0.1 * (i + 1), 0.3)
        for i, arm in enumerate(arms)
    }
    report.add_comparison('Listen', f'item "{item}"', clips, RATE)
  return report


def test_comparisons_are_checked_and_named():
  report = page()
  first = report.id
  assert len(first) == 12
  report.add_text('Answer', 'more')
  assert report.id == first
  with pytest.raises(ValueError, match='already'):
    report.add_comparison(
        'Listen', 'item "0"', dict.fromkeys('ab', tone(9)), RATE
    )
  with pytest.raises(ValueError, match='two can be'):
    report.add_comparison('Listen', 'x', {'a': tone(9)}, RATE)
  report.add_comparison('Listen', 'x', dict.fromkeys('ab', tone(9)), RATE)
  assert report.id not in (first, '')
  assert report_lib.Report('none').id == ''


@pytest.mark.skipif(browser.CHROMIUM is None, reason='no Chromium')
def test_votes_are_asked_blind_kept_and_saved(tmp_path):
  report = page()
  path = tmp_path / 'r.html'
  report.write(path)
  with browser.opened(path) as tab:
    tab.download_to(tmp_path)
    tab.run('var dialog = document.querySelector("dialog"); 0')
    tab.run('document.querySelector(".start").click()')
    for letter in 'Ann':  # The name has the focus, and letters are no answers.
      tab.press(letter)
    tab.run('document.querySelector(".seed").value = 7')
    tab.run('document.querySelector(".begin").click()')
    # An answer before both were heard is refused.
    tab.press('1')
    assert 'both first' in tab.run('document.querySelector(".said").innerText')
    shown = []
    for choice in ('1', '2', '0', 'ArrowLeft', 'ArrowRight', 'ArrowDown'):
      shown.append(tab.run('dialog.innerText'))
      for name in ('a', 'b', choice):
        tab.press(name)
      said = tab.run('document.querySelector(".said").innerText')
      assert said.startswith('A was ')
      tab.press('n')
    assert not any(arm in text for text in shown for arm in ARMS)
    assert '3 of 6' in shown[2]
    assert 'That was all' in tab.run('dialog.innerText')
    tab.run('dialog.close()')
    tab.reload()
    tally = tab.run('document.querySelector(".tally").innerText')
    assert tally == '6 votes kept in this browser'
    tab.run('document.querySelector(".save").click()')
    saved = tmp_path / f'votes-{report.id}-Ann.json'
    for _ in range(100):
      if saved.exists() and saved.stat().st_size:
        break
      tab.run('new Promise((done) => setTimeout(done, 50))')
    assert tab.errors == []
  content = json.loads(saved.read_text())
  votes = content.pop('votes')
  assert content == {
      'format': 1,
      'report': report.id,
      'title': 'Heard',
      'listener': 'Ann',
      'seed': 7,
  }
  assert [vote['answer'] for vote in votes] == [
      'left',
      'right',
      'same',
  ] * 2
  assert set(votes[0]) == {
      'section', 'item', 'left', 'right', 'answer', 'seconds', 'time'
  }  # fmt: skip
  pairs = {(v['item'], frozenset((v['left'], v['right']))) for v in votes}
  assert pairs == {
      (f'item "{item}"', frozenset(pair))
      for item in range(2)
      for pair in itertools.combinations(ARMS, 2)
  }


@pytest.mark.skipif(browser.CHROMIUM is None, reason='no Chromium')
def test_pages_with_charts_alone_run_without_errors(tmp_path):
  report = report_lib.Report('x')
  report.add_curves('s', {'a': [(1, 1.0), (2, 2.0)]})
  path = tmp_path / 'r.html'
  report.write(path)
  with browser.opened(path) as tab:
    moved = 'new PointerEvent("pointermove", {clientX: 400})'
    tab.run(f'document.querySelector("svg[data-lines]").dispatchEvent({moved})')
    assert ' at ' in tab.run('document.querySelector(".readout").innerText')
    assert tab.errors == []
