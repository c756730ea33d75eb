"""A report: one HTML file that needs nothing else, made from plain data.

`Report.write('runs/x/report.html')` writes the page, and beside it
`report.json`, from which `Report.read` gets the report back; so a later tool
(judges that were not installed at first) can add to it and write it again.
Nothing in the page is fetched: audio and pictures are data: URIs.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import hashlib
import json
import math
import os
import pathlib
import platform
import subprocess
import time
from typing import Any

import jax
import jinja2
from jaxtyping import Float
import numpy as np

from audiolm_jax.comparison import blocks
from audiolm_jax.comparison import charts
from audiolm_jax.comparison import drawing
from audiolm_jax.comparison import loudness
from audiolm_jax.comparison import statistics
from audiolm_jax.comparison import verdicts
from audiolm_jax.training import writers

_TEMPLATE = 'report.html.jinja'
Cell = str | float | int | None | statistics.Interval


class Report:
  """A title, a summary and sections of blocks, in the order they are added.

  Every `add_*` names its section; a section appears where it is first named.
  `clear` empties a section in its place, so that it can be written anew.

  Attributes:
    data: all of it, as plain values.
  """

  def __init__(self, title: str, summary: str = ''):
    self.data: dict[str, Any] = {
        'title': title,
        'summary': summary,
        'sections': [],
    }

  @classmethod
  def read(cls, path: str | os.PathLike) -> 'Report':
    """The report whose page is at `path`, from the JSON beside it.

    Raises:
      FileNotFoundError: if there is none.
    """
    report = cls('')
    report.data = json.loads(_data_path(path).read_text())
    return report

  @property
  def id(self) -> str:
    """Of what may be voted on: sections, items, arms and their sounds.

    '' without comparisons. Votes name it, so that they are counted for what
    was heard only; other changes of a report leave it.
    """
    heard = [
        (section['title'], b['title'], c['label'], c['audio'])
        for section in self.data['sections']
        for b in section['blocks']
        if b['kind'] == 'comparison'
        for c in b['clips']
    ]
    text = json.dumps(heard).encode()
    return hashlib.sha256(text).hexdigest()[:12] if heard else ''

  def write(self, path: str | os.PathLike) -> None:
    """Writes the page to `path` and its data beside it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    template = environment.get_template(_TEMPLATE)
    page = template.render(**self.data, id=self.id, geometry=charts)
    writers.write_atomically(_data_path(path), json.dumps(self.data))
    writers.write_atomically(pathlib.Path(path), page)

  def clear(self, section: str) -> None:
    """Removes what a section holds, keeping its place."""
    self._section(section)['blocks'].clear()

  def add_text(self, section: str, text: str) -> None:
    """A paragraph."""
    self._add(section, kind='text', text=text)

  def add_facts(self, section: str, facts: Mapping[str, Any]) -> None:
    """Names and values, such as `provenance()`."""
    facts = {name: _cell(value) for name, value in facts.items()}
    self._add(section, kind='facts', facts=facts)

  def add_code(self, section: str, text: str, title: str = '') -> None:
    """Preformatted text, folded away if it has a title (a whole config)."""
    self._add(section, kind='code', text=text, title=title)

  def add_table(
      self,
      section: str,
      columns: Sequence[str],
      rows: Sequence[Sequence[Cell]],
      caption: str = '',
  ) -> None:
    """A table; the first column names its rows.

    Args:
      section: its section.
      columns: headings.
      rows: cells; numbers are shown with 4 significant digits, Intervals with
        their ends, None as a dash.
      caption: what it shows: units, what is better, what the intervals span.

    Raises:
      ValueError: if a row has another number of cells than there are columns.
    """
    for row in rows:
      if len(row) != len(columns):
        raise ValueError(f'{len(row)} cells for {len(columns)} columns: {row}')
    self._add(
        section,
        kind='table',
        columns=list(columns),
        rows=[[_cell(cell) for cell in row] for row in rows],
        caption=caption,
    )

  def add_curves(
      self,
      section: str,
      series: Mapping[str, Sequence[tuple[float, float]]],
      caption: str = '',
      x: str = 'step',
      y: str = '',
      bands: Mapping[str, Sequence[tuple[float, float, float]]] | None = None,
      log_x: bool = False,
  ) -> None:
    """A line chart; only what may be compared belongs in one chart.

    Args:
      section: its section.
      series: name -> (x, y) points; long ones are thinned to means.
      caption: what it shows, and what bands span.
      x: name of the axis.
      y: name of the axis, with its unit.
      bands: name -> (x, low, high) of some or all series.
      log_x: whether x is spaced by its logarithm.

    Raises:
      ValueError: for a band of no series, and at log x where none is above 0.
    """
    bands = bands or {}
    if set(bands) - set(series):
      raise ValueError(
          f'bands of no series: {sorted(set(bands) - set(series))}'
      )
    if log_x and any(p[0] <= 0 for points in series.values() for p in points):
      raise ValueError('log x needs x above 0')
    self._add(
        section,
        kind='curves',
        series={n: charts.thin(list(p)) for n, p in series.items()},
        bands={n: charts.thin(list(p)) for n, p in bands.items()},
        caption=caption,
        x=x,
        y=y,
        log_x=log_x,
    )

  def add_forest(
      self,
      section: str,
      comparisons: Sequence[blocks.Comparison],
      caption: str = '',
      name: str = '',
      unit: str = '',
  ) -> None:
    """A picture of contrasts: intervals, margins, what could have been seen.

    Args:
      section: its section.
      comparisons: of one outcome, positive controls among them.
      caption: what it shows, and what the intervals hold for.
      name: of the outcome.
      unit: of the outcome.
    """
    sentences = verdicts.verdicts(comparisons, unit)
    rows = []
    for each, sentence in zip(comparisons, sentences, strict=True):
      interval = each.interval
      rows.append(
          {
              'name': each.contrast.name,
              'note': 'positive control' if each.contrast.expected else '',
              'mean': interval.mean,
              'low': _finite(interval.low),
              'high': _finite(interval.high),
              'interval': not math.isnan(interval.low),
              'margin': each.contrast.margin,
              'detectable': _finite(interval.detectable),
              'value': interval.format(3),
              'reading': each.reading,
              'verdict': sentence,
          }
      )
    self._add(
        section,
        kind='forest',
        rows=rows,
        caption=caption,
        name=name,
        unit=unit,
    )

  def add_pareto(
      self,
      section: str,
      points: Mapping[str, tuple[statistics.Interval, statistics.Interval]],
      x: str,
      y: str,
      better: tuple[str, str] = ('lower', 'lower'),
      caption: str = '',
  ) -> None:
    """A picture of two outcomes that trade, and which arms are on the front.

    Args:
      section: its section.
      points: arm -> interval of x, interval of y.
      x: name and unit of the first outcome.
      y: name and unit of the second.
      better: 'lower' or 'higher' of each outcome.
      caption: what it shows, and what the intervals hold for.

    Raises:
      ValueError: for other words in `better`.
    """
    charts.front([], better)
    self._add(
        section,
        kind='pareto',
        points=[
            {
                'name': arm,
                **{
                    axis: (each.mean, _finite(each.low), _finite(each.high))
                    for axis, each in zip('xy', pair, strict=True)
                },
            }
            for arm, pair in points.items()
        ],
        x=x,
        y=y,
        better=list(better),
        caption=caption,
    )

  def add_audio(
      self,
      section: str,
      title: str,
      clips: Mapping[str, Float[np.ndarray, 'T']],
      sample_rate: int,
      note: str = '',
      prompt_seconds: float = 0.0,
  ) -> None:
    """Players side by side, each over its spectrogram.

    Args:
      section: its section.
      title: of the group, such as an utterance's text.
      clips: label ('original', 'reconstruction') -> audio.
      sample_rate: in Hz.
      note: scores of this group, or what to listen for.
      prompt_seconds: where a continuation begins, marked in each picture.
    """
    self._add(
        section,
        kind='audio',
        title=title,
        note=note,
        clips=[
            _clip(label, audio, sample_rate, prompt_seconds)
            for label, audio in clips.items()
        ],
    )

  def add_comparison(
      self,
      section: str,
      item: str,
      clips: Mapping[str, Float[np.ndarray, 'T']],
      sample_rate: int,
      note: str = '',
      prompt_seconds: float = 0.0,
      question: str = 'Which sounds better?',
  ) -> None:
    """One item from several arms, side by side and equally loud.

    A section with comparisons has a blind test of its pairs of arms; its votes
    are saved as a file that tools/listen.py adds up.

    Args:
      section: its section.
      item: what all arms say (a text, a prompt's id), once in a section.
      clips: arm -> audio; two or more.
      sample_rate: in Hz.
      note: scores of this item, or what to listen for.
      prompt_seconds: where a continuation begins, marked in each picture.
      question: of the blind test; a section's first comparison gives it.

    Raises:
      ValueError: for an item that the section has already, and under two arms.
    """
    if len(clips) < 2:
      raise ValueError(f'{item}: {len(clips)} arms; two can be compared')
    if any(
        block['kind'] == 'comparison' and block['title'] == item
        for block in self._section(section)['blocks']
    ):
      raise ValueError(f'{section} has the item {item} already')
    gains = loudness.matching_gains(clips, sample_rate)
    self._add(
        section,
        kind='comparison',
        title=item,
        note=note,
        question=question,
        clips=[
            _clip(
                arm,
                10 ** (gains[arm] / 20) * np.asarray(audio),
                sample_rate,
                prompt_seconds,
            )
            | {'gain': gains[arm]}
            for arm, audio in clips.items()
        ],
    )

  def add_missing(self, section: str, missing: Mapping[str, str]) -> None:
    """What the report lacks -> the command that adds it."""
    self._add(section, kind='missing', missing=dict(missing))

  def _section(self, title):
    for section in self.data['sections']:
      if section['title'] == title:
        return section
    self.data['sections'].append({'title': title, 'blocks': []})
    return self.data['sections'][-1]

  def _add(self, section, **block):
    self._section(section)['blocks'].append(block)


def provenance(config_paths: Sequence[str] = ()) -> dict[str, str]:
  """What was run, on what: commit, machine, versions, time."""
  root = pathlib.Path(__file__).parents[2]
  facts = {
      'date': time.strftime('%Y-%m-%d %H:%M %Z'),
      'commit': _commit(root),
      'machine': f'{_processor()}, {os.cpu_count()} cores visible',
      'devices': ', '.join(sorted({d.device_kind for d in jax.devices()}))
      + f' x {jax.device_count()}',
      'versions': f'Python {platform.python_version()}, jax {jax.__version__}',
  }
  if config_paths:
    facts['configs'] = ', '.join(config_paths)
  return facts


def loss_curves(
    workdir: str | os.PathLike, names: Sequence[str]
) -> dict[str, list[tuple[float, float]]]:
  """name -> (step, value) from a work directory's metrics.jsonl.

  Names that no line has are left out.
  """
  curves: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
  with open(pathlib.Path(workdir) / 'metrics.jsonl') as file:
    for line in file:
      record = json.loads(line)
      for name in names:
        if isinstance(record.get(name), (int, float)):
          curves[name].append((record['step'], record[name]))
  return {name: points for name, points in curves.items() if points}


def _cell(value):
  """A cell as plain values: text, and the ends of an interval."""
  if isinstance(value, statistics.Interval):
    ends = value.format(3).removeprefix(f'{value.mean:.3f}').strip()
    return {'text': f'{value.mean:.3f}', 'interval': ends}
  if value is None:
    return {'text': '–', 'interval': ''}
  if isinstance(value, (bool, str)):
    return {'text': str(value), 'interval': ''}
  if isinstance(value, (int, np.integer)):
    return {'text': f'{value:,}', 'interval': ''}
  return {'text': f'{value:.4g}', 'interval': ''}


def _clip(label, audio, sample_rate, prompt_seconds) -> dict[str, Any]:
  """A player over its spectrogram."""
  share = prompt_seconds * sample_rate / max(len(audio), 1)
  return {
      'label': label,
      'audio': drawing.audio_uri(audio, sample_rate),
      'picture': drawing.spectrogram_uri(audio, sample_rate),
      'seconds': len(audio) / sample_rate,
      'prompt': min(1.0, share),
  }


def _finite(value):
  """A number that JSON has, or None."""
  return float(value) if math.isfinite(value) else None


def _data_path(path):
  return pathlib.Path(path).with_suffix('.json')


def _commit(root):
  """Short hash of the checkout, '+' where files differ from it."""
  git = ['git', '-C', str(root)]
  try:
    commit = subprocess.check_output(
        [*git, 'rev-parse', '--short', 'HEAD'],
        text=True,
        stderr=subprocess.DEVNULL,
    ).strip()
    changed = subprocess.check_output(
        [*git, 'status', '--porcelain', '--untracked-files=no'], text=True
    )
  except (OSError, subprocess.CalledProcessError):
    return 'not a git checkout'
  return f'{commit} + local changes' if changed else commit


def _processor():
  try:
    with open('/proc/cpuinfo') as file:
      for line in file:
        if line.startswith('model name'):
          return line.partition(':')[2].strip()
  except FileNotFoundError:
    return platform.processor() or platform.machine()
  return platform.machine()
