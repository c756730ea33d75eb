"""A question's verdict in a sentence or two for each outcome."""

from collections.abc import Mapping, Sequence
from typing import Any

from audiolm_jax.comparison import blocks
from audiolm_jax.comparison import multiplicity
from audiolm_jax.comparison import verdicts

# In this order.
_LABELS = (
    multiplicity.LOWER,
    multiplicity.HIGHER,
    'equal within',
    'undecided',
    'no difference found',
    'no claim',
    verdicts.INSENSITIVE,
)


def summary(name: str, unit: str, lines: Sequence[Mapping[str, Any]]) -> str:
  """What is said of an outcome: contrasts that read alike stand together.

  Args:
    name: of the outcome.
    unit: of its values.
    lines: contrasts and controls, as results have them.
  """
  if not lines:
    return f'{name}: not measured yet.'
  against: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
  controls = []
  for line in lines:
    if 'expected' in line:
      controls.append(line)
    else:
      groups = against.setdefault(line['b'], {})
      groups.setdefault(_label(line), []).append(line)
  sentences = [
      f'against {b}, '
      + '; '.join(_group(k, groups[k]) for k in _LABELS if k in groups)
      for b, groups in against.items()
  ]
  for line in controls:
    found = 'found' if line['found'] else 'NOT found'
    sentences.append(
        f'positive control {found}, {line["a"]} against {line["b"]}'
        f' ({line["mean"]:+.3f})'
    )
  first, *others = sentences
  others = [text[0].upper() + text[1:] for text in others]
  return f'{name} ({unit}): ' + '. '.join([first, *others]) + '.'


def _label(line) -> str:
  """Which of `_LABELS` a contrast reads."""
  if line['says'].startswith(verdicts.INSENSITIVE):
    return verdicts.INSENSITIVE
  if line['reading'] == blocks.EQUAL:
    return 'equal within'
  if line['reading'] == blocks.DIFFERENT:
    return multiplicity.HIGHER if line['mean'] > 0 else multiplicity.LOWER
  if line['reading'] == blocks.NO_CLAIM or line['sided'] != multiplicity.BOTH:
    return 'no claim'
  return 'undecided' if line['margin'] else 'no difference found'


def _group(label, lines) -> str:
  """Contrasts of one label."""
  if label in (multiplicity.LOWER, multiplicity.HIGHER):
    names = ', '.join(f'{x["a"]} ({x["mean"]:+.3f})' for x in lines)
    return f'{label}: {names}'
  names = ', '.join(line['a'] for line in lines)
  if label == 'equal within':
    return f'{label} {lines[0]["margin"]:g}: {names}'
  missed = [x['detectable'] for x in lines if x['detectable'] is not None]
  if missed:
    label += f' (under {max(missed):.3f} would mostly be missed)'
  return f'{label}: {names}'
