"""One file, nothing fetched, everything in it, and re-rendered the same."""

import base64
import html.parser
import io
import json
import re

import numpy as np
import pytest
import soundfile

from audiolm_jax.comparison import charts
from audiolm_jax.comparison import drawing
from audiolm_jax.comparison import report as report_lib
from audiolm_jax.comparison import statistics

NASTY = '<script>alert("x")</script> & \'quotes\''
RATE = 16000


class _Page(html.parser.HTMLParser):
  """Collects tags and checks that they nest."""

  VOID = {'meta', 'img', 'line', 'br', 'input', 'link'}

  def __init__(self, text):
    super().__init__()
    self.tags, self.text, self._open = [], [], []
    self.feed(text)
    self.close()
    assert not self._open, self._open

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in self.VOID:
      self._open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_data(self, data):
    self.text.append(data)

  def find(self, tag):
    return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
  page = report_lib.Report('Title ' + NASTY, 'Summary ' + NASTY)
  page.add_facts('Run', {**report_lib.provenance(['c.py']), 'odd': NASTY})
  page.add_code('Run', NASTY, title='config')
  page.add_text('Run', NASTY)
  page.add_curves(
      'Run',
      {NASTY: [(0, 1.0), (1, float('nan')), (2, 3.0)], 'empty': []},
      caption=NASTY,
  )
  page.add_table(
      'Scores',
      ['arm', 'value', NASTY],
      [
          [NASTY, 1.23456, statistics.t_interval([1.0, 2.0, 3.0])],
          ['b', None, 1000000],
      ],
      caption=NASTY,
  )
  page.add_audio(
      'Listen', NASTY, {'original': tone, NASTY: tone[:0]}, RATE, NASTY, 0.25
  )
  page.add_missing('Run', {'PESQ': 'pip install ' + NASTY})
  path = tmp_path_factory.mktemp('report') / 'report.html'
  page.write(path)
  return page, path


def test_nothing_is_fetched(written):
  page = _Page(written[1].read_text())
  for tag, attributes in page.tags:
    for name in ('src', 'href', 'data', 'poster', 'srcset'):
      value = attributes.get(name)
      assert value is None or value.startswith(('data:', '#')), (tag, value)
    assert tag not in ('link', 'iframe', 'object', 'embed')
  text = written[1].read_text()
  assert not re.search(r'https?://|@import|url\(|fetch\(|XMLHttp', text)


def test_what_was_added_is_there_and_nothing_of_it_is_markup(written):
  page = _Page(written[1].read_text())
  text = ' '.join(page.text)
  # Title twice (head and page), and once everywhere else it was given.
  assert text.count('<script>alert("x")</script>') >= 11
  assert len(page.find('script')) == 1
  for expected in ('1.235', '1,000,000', '2.000', '[-0.484, 4.484]', '–'):
    assert expected in text
  assert len(page.find('audio')) == len(page.find('img')) == 2
  assert len(page.find('table')) == 1
  prompts = [d for d in page.find('div') if d.get('class') == 'prompt']
  assert prompts[0]['style'] == 'width:25.00%'


def test_audio_comes_back_out_of_the_page(written):
  page = _Page(written[1].read_text())
  uri = page.find('audio')[0]['src']
  data = base64.b64decode(uri.removeprefix('data:audio/flac;base64,'))
  audio, rate = soundfile.read(io.BytesIO(data))
  tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
  assert rate == RATE
  np.testing.assert_allclose(audio, tone, atol=2**-15)


def test_chart_data_is_readable_by_the_script(written):
  page = _Page(written[1].read_text())
  (chart,) = [s for s in page.find('svg') if 'data-lines' in s]
  lines = {line['name']: line for line in json.loads(chart['data-lines'])}
  assert set(lines) == {NASTY, 'empty'}
  # The point that is not finite is left out.
  assert [p[2:] for p in lines[NASTY]['points']] == [['0', '1'], ['2', '3']]


def test_rendered_again_from_its_data_it_is_the_same(written, tmp_path):
  page, path = written
  again = report_lib.Report.read(path)
  assert again.data == json.loads(json.dumps(page.data))
  again.write(tmp_path / 'copy.html')
  assert (tmp_path / 'copy.html').read_text() == path.read_text()


def test_a_section_is_replaced_in_its_place(written, tmp_path):
  again = report_lib.Report.read(written[1])
  again.clear('Scores')
  again.add_text('Scores', 'judged anew')
  titles = [section['title'] for section in again.data['sections']]
  assert titles == ['Run', 'Scores', 'Listen']
  again.write(tmp_path / 'r.html')
  page = _Page((tmp_path / 'r.html').read_text())
  assert 'judged anew' in ' '.join(page.text) and not page.find('table')


def test_rows_must_fit_their_columns():
  with pytest.raises(ValueError, match='2 cells for 1 columns'):
    report_lib.Report('x').add_table('s', ['a'], [['b', 1.0]])


def test_spectrogram_shows_a_tone_at_its_height():
  from matplotlib import image

  time = np.arange(RATE) / RATE
  rows = []
  for frequency in (300, 3000):
    tone = 0.9 * np.sin(2 * np.pi * frequency * time)
    uri = drawing.spectrogram_uri(tone, RATE)
    data = base64.b64decode(uri.removeprefix('data:image/png;base64,'))
    pixels = image.imread(io.BytesIO(data), format='png')
    assert pixels.shape[:2] == (80, 480)
    rows.append(int(pixels[..., :3].sum(axis=(1, 2)).argmax()))
  # Low frequencies stand at the foot of the picture.
  assert rows[0] > rows[1] + 20


def test_curves_are_placed_linearly_within_the_box():
  chart = charts.curves({'a': [(0, 0.0), (5, 1.0), (10, 2.0)]}, {})
  left, top, right, bottom = chart['box']
  (x0, y0, *_), (x1, y1, *_), (x2, y2, *_) = chart['lines'][0]['points']
  assert (x0, x2) == (left, right) and x1 == pytest.approx((x0 + x2) / 2)
  assert top < y2 < y1 < y0 < bottom
  assert y1 == pytest.approx((y0 + y2) / 2, abs=0.1)
  labels = [float(label) for _, label in chart['y_ticks']]
  positions = [position for position, _ in chart['y_ticks']]
  slope = (y2 - y0) / 2.0
  for label, position in zip(labels, positions, strict=True):
    assert position == pytest.approx(y0 + slope * label, abs=0.2)


def test_thinned_curves_keep_their_mean():
  points = [(i, float(i % 7)) for i in range(1000)]
  thinned = charts.thin(points, 100)
  assert len(thinned) == 100
  assert np.mean([y for _, y in thinned]) == pytest.approx(
      np.mean([y for _, y in points])
  )


def test_loss_curves_are_read_from_a_work_directory(tmp_path):
  records = [
      {'step': 1, 'loss': 3.0},
      {'step': 2, 'ids': [1]},
      {'step': 2, 'loss': 2.0, 'eval/x/y': 1.0},
  ]
  text = ''.join(json.dumps(r) + '\n' for r in records)
  (tmp_path / 'metrics.jsonl').write_text(text)
  found = report_lib.loss_curves(tmp_path, ['loss', 'eval/x/y', 'absent'])
  assert found == {'loss': [(1, 3.0), (2, 2.0)], 'eval/x/y': [(2, 1.0)]}
