"""The picture of a question's README."""

from collections.abc import Mapping
import io
from typing import Any

import matplotlib
from matplotlib import figure

# Text stays text, and the same results give the same file.
_STYLE = {
    'svg.fonttype': 'none',
    'svg.hashsalt': 'audiolm_jax',
    'font.family': 'sans-serif',
    'font.size': 9,
}
_CLAIM, _CONTROL = '#1f5fa8', '#a8621f'


def file_name(variant: str = '') -> str:
  """Of the picture; see `questions.Question.variant`."""
  return f'forest.{variant}.svg' if variant else 'forest.svg'


def forest(results: Mapping[str, Any]) -> str:
  """The contrasts of the first outcome with their intervals, as SVG.

  The grey band is the margin within which arms are called equal; a diamond is
  a positive control. Empty where no contrast is complete.

  Args:
    results: as results.json has them.
  """
  outcome = results['outcomes'][0]
  lines = results['comparisons'][outcome['name']]
  if not lines:
    return ''
  with matplotlib.rc_context(_STYLE):
    drawn = figure.Figure(figsize=(8, 0.9 + 0.28 * len(lines)))
    axes = drawn.subplots()
    if outcome['margin'] is not None:
      axes.axvspan(-outcome['margin'], outcome['margin'], color='#00000018')
    axes.axvline(0, color='black', linewidth=0.8)
    for row, line in enumerate(lines):
      _draw(axes, row, line)
    axes.set_yticks(range(len(lines)), [f'{x["a"]} − {x["b"]}' for x in lines])
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xlabel(
        f'{outcome["name"]}, {outcome["unit"]}: {outcome["description"]}'
    )
    for side in ('top', 'right', 'left'):
      axes.spines[side].set_visible(False)
    axes.tick_params(left=False)
    drawn.patch.set_facecolor('white')
    buffer = io.StringIO()
    drawn.savefig(
        buffer, format='svg', bbox_inches='tight', metadata={'Date': None}
    )
  return buffer.getvalue()


def _draw(axes, row, line) -> None:
  """A contrast: its interval, and its numbers at the right."""
  mean, low, high = line['mean'], line['low'], line['high']
  control = 'expected' in line
  color = _CONTROL if control else _CLAIM
  if low is not None and high is not None:
    axes.plot([low, high], [row, row], color=color, linewidth=1.5)
  axes.plot([mean], [row], 'D' if control else 'o', color=color, markersize=4.5)
  ends = ['…' if end is None else f'{end:+.2f}' for end in (low, high)]
  axes.annotate(
      f'{mean:+.2f} [{", ".join(ends)}]',
      (1.01, row),
      xycoords=('axes fraction', 'data'),
      va='center',
      fontsize=8,
  )
