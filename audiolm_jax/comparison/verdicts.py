"""Comparisons in words: one sentence each, and what a failed control undoes."""

from collections.abc import Sequence
import math

from audiolm_jax.comparison import blocks
from audiolm_jax.comparison import multiplicity
from audiolm_jax.comparison import statistics

INSENSITIVE = 'insensitive'


def verdict(
    comparison: blocks.Comparison, unit: str = '', digits: int = 3
) -> str:
  """One sentence: what the interval says, and if the run could have seen it.

  Where no difference is found, or equality within the margin, the declared
  reading of that is part of it.

  Args:
    comparison: of a claim or of a positive control.
    unit: of the values.
    digits: after the point.
  """
  contrast, interval = comparison.contrast, comparison.interval
  plain = statistics.verdict(interval, unit, digits)
  if comparison.reading == blocks.NO_CLAIM:
    return plain
  if contrast.expected:
    shown = 'found' if comparison.control_shown else 'NOT found'
    return f'positive control {shown}: {plain}'
  unit = f' {unit}' if unit else ''
  if comparison.reading == blocks.EQUAL:
    size = abs(interval.mean)
    text = f'equal within {contrast.margin:g}{unit}'
    if interval.excludes_zero:
      text += f' ({_direction(interval)} by {size:.{digits}f}, which is less)'
  elif comparison.reading == blocks.DIFFERENT:
    return plain
  elif contrast.sided != multiplicity.BOTH:
    # Above a bound, and between different and equal, there is nothing to read.
    return (
        f'no claim: only that it is {contrast.sided} could have been shown'
        + _missed(interval, unit, digits)
    )
  elif contrast.margin is not None:
    return (
        f'undecided: neither different nor equal within {contrast.margin:g}'
        + unit
        + _missed(interval, unit, digits)
    )
  else:
    text = plain
  return f'{text}: {contrast.null}' if contrast.null else text


def verdicts(
    comparisons: Sequence[blocks.Comparison], unit: str = '', digits: int = 3
) -> list[str]:
  """The sentence of each comparison, in the light of the positive controls.

  If a positive control is not found, a claim that finds no difference says
  nothing, equality within a margin included: it is 'insensitive'. Differences
  that are found stand.

  Args:
    comparisons: of one outcome: claims and positive controls.
    unit: of the values.
    digits: after the point.
  """
  failed = any(
      each.contrast.expected and not each.control_shown for each in comparisons
  )
  sentences = []
  for each in comparisons:
    text = verdict(each, unit, digits)
    if (
        failed
        and not each.contrast.expected
        and each.reading in (blocks.EQUAL, blocks.UNDECIDED)
    ):
      text = f'{INSENSITIVE}: a positive control was not found' + _missed(
          each.interval, f' {unit}' if unit else '', digits
      )
    sentences.append(text)
  return sentences


def _direction(interval) -> str:
  return multiplicity.HIGHER if interval.mean > 0 else multiplicity.LOWER


def _missed(interval, unit, digits) -> str:
  if math.isnan(interval.detectable):
    return ''
  return (
      f' (differences under {interval.detectable:.{digits}f}{unit} would mostly'
      ' be missed)'
  )
