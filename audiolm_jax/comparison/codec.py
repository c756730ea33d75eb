"""A codec's scores as a table of a report, and how they got there."""

import collections
from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import re
import shlex
from typing import Any

from audiolm_jax.comparison import report as report_lib
from audiolm_jax.comparison import statistics
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import judges as judges_lib
from audiolm_jax.tokenizers import base as tokenizers_base

SECTION = 'Codec: held-out sentences'
COMMAND = 'python tools/evaluate_codec.py --workdir={workdir}'
# name -> (heading, what the original itself would score, None if it is measured).
_METRICS = {
    'pesq': ('PESQ-wb', '4.64'),
    'stoi': ('STOI', '1'),
    'wer': ('WER', None),
    'ffe': ('FFE', '0%'),
    'vde': ('VDE', '0%'),
    'mel': ('mel', '0'),
    'stft': ('STFT', '0'),
    'si_sdr': ('SI-SDR dB', '∞'),
}
# Shares of words or frames, in percent.
_SHARES = {'wer', 'ffe', 'vde'}


def results(
    scores: Iterable[evaluation_base.Score],
    spec: tokenizers_base.Spec,
    group: str,
    seconds: float,
    *,
    others: Iterable[evaluation_base.Score] = (),
    unseen: bool = False,
) -> dict[str, Any]:
  """Scores of one group of clips, summed up, as plain values.

  Args:
    scores: of `evaluation.codec.CodecEvaluator`.
    spec: of the tokenizer.
    group: what the clips are, such as 'en'.
    seconds: of audio.
    others: of its `compare`, if other codecs stand beside.
    unseen: whether the tokenizer was trained without clips of their kind.

  Returns:
    group, seconds, unseen, clips (how many each metric scored), usage and
    entropy of each codebook; `rows`: for each number of codebooks its bits/s
    and mean scores; `intervals`: of the first row's scores, bootstrap over
    clips; `others`: name, bits/s and mean scores of each other codec.
  """
  scores = list(scores)
  means = evaluation_base.summarize(scores)
  items: dict[str, dict[str, tuple[float, float]]] = {}
  for score in scores:
    items.setdefault(score.name, {})[score.item] = (score.sum, score.weight)
  counted = collections.Counter(score.name for score in scores)
  intervals = {
      name: statistics.bootstrap(items[name])
      for name in _METRICS
      if name in items
  }
  return {
      'group': group,
      'seconds': seconds,
      'unseen': unseen,
      'intervals': {n: [i.low, i.high] for n, i in intervals.items()},
      'others': _others(evaluation_base.summarize(others)),
      'clips': {name: counted[name] for name in _METRICS if name in counted},
      'rows': _rows(means, spec),
      'usage': [means[f'usage_{k}'] for k in range(len(spec.slots))],
      'entropy': [means[f'entropy_{k}'] for k in range(len(spec.slots))],
  }


def _rows(means, spec):
  """Bits/s and mean scores of each number of codebooks, from all to few."""
  total = max(len(spec.slots), 1)
  numbers = {total} | {int(n) for n in re.findall(r'@(\d+)', ' '.join(means))}
  rows = []
  for n in sorted(numbers, reverse=True):
    suffix = '' if n == total else f'@{n}'
    share = spec.bits_per_second
    if spec.slots:
      share = dataclasses.replace(spec, slots=spec.slots[:n]).bits_per_second
    row = {'codebooks': n, 'bits_per_second': share}
    for name in (*_METRICS, 'wer_original'):
      if name + suffix in means:
        row[name] = means[name + suffix]
    rows.append(row)
  return rows


def _others(means):
  """[{name, bits_per_second, score: mean}] of means named 'score@name'."""
  rows = {}
  for key, value in means.items():
    metric, _, name = key.partition('@')
    metric = 'bits_per_second' if metric == 'bits' else metric
    rows.setdefault(name, {'name': name})[metric] = value
  return list(rows.values())


def add_to(
    report: report_lib.Report, groups: Sequence[dict[str, Any]], workdir: str
) -> None:
  """Writes the section anew: a table, code usage, and what is missing."""
  report.clear(SECTION)
  names = [m for m in _METRICS if any(m in g['rows'][0] for g in groups)]
  _add_scores(report, groups, names)
  _add_usage(report, groups[0])
  absent = [n for n in _METRICS if n in judges_lib.JUDGES and n not in names]
  if absent:
    headings = ', '.join(_METRICS[n][0] for n in absent)
    command = COMMAND.format(workdir=shlex.quote(workdir))
    report.add_missing(
        SECTION, {headings: f'{judges_lib.INSTALL} && {command}'}
    )


def _add_scores(report, groups, names):
  """The metrics of each group and bitrate, and their intervals."""
  rows = []
  for group in groups:
    original = ['original', None, None]
    for name in names:
      value = _METRICS[name][1]
      if name == 'wer':
        value = _shown(name, group['rows'][0].get('wer_original'))
      original.append(value if name in group['rows'][0] else None)
    title = group['group'] + (' (unseen)' if group['unseen'] else '')
    rows.append([f'{title}: original', *original[1:]])
    for row in [*group['rows'], *group['others']]:
      name = row.get('name') or count(row['codebooks'])
      rows.append(
          [
              f'{title}: {name}',
              max(group['clips'].values()),
              f'{row["bits_per_second"] / 1000:.2f}',
              *[_shown(n, row.get(n)) for n in names],
          ]
      )
  caption = (
      'Means over held-out clips. Higher is better for PESQ, STOI and SI-SDR,'
      ' lower for the rest. Mel: mean difference of log10 mel magnitudes; STFT:'
      ' spectral convergence + log magnitude, three resolutions. SI-SDR is low'
      ' for any codec that does not aim at the waveform.'
  )
  if 'ffe' in names:
    caption += (
        ' FFE: f0 frame error, the share of frames of 10 ms whose voicing is'
        ' wrong or whose f0 is more than 20% off; VDE: voicing decision error,'
        ' those of the first kind alone; YIN on the reconstruction against YIN'
        ' on the original.'
    )
  if 'wer' in names:
    caption += (
        ' WER: Whisper tiny.en, both texts normalised, against the transcript;'
        ' in the original row, on the original recordings of the same clips.'
    )
  report.add_table(
      SECTION,
      ['', 'clips', 'kbit/s', *[_METRICS[n][0] for n in names]],
      rows,
      caption,
  )
  report.add_table(
      SECTION,
      ['all codebooks', *[_METRICS[n][0] for n in names]],
      [[g['group'], *[_interval(g, name) for name in names]] for g in groups],
      '95% bootstrap intervals over clips: of this checkpoint on other clips,'
      ' not of other seeds.',
  )


def _add_usage(report, group):
  """How much of each codebook a group's clips use."""
  if group['usage']:
    report.add_table(
        SECTION,
        ['codebook', 'used', 'entropy, bits'],
        [
            [str(k), f'{100 * used:.1f}%', f'{entropy:.2f}']
            for k, (used, entropy) in enumerate(
                zip(group['usage'], group['entropy'], strict=True)
            )
        ],
        f'Codes that occur in {group["seconds"]:.0f} s of "{group["group"]}".',
    )


def _interval(group, name):
  if name not in group['intervals']:
    return None
  return ' to '.join(_shown(name, x) for x in group['intervals'][name])


def _shown(name, value):
  """A value as text; None where there is none."""
  if value is None:
    return None
  return f'{100 * value:.1f}%' if name in _SHARES else f'{value:.3f}'


def count(codebooks: int) -> str:
  """How many there are, in words for a person."""
  return '1 codebook' if codebooks == 1 else f'{codebooks} codebooks'
