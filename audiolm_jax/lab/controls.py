"""Arms differ in what their question declares, and in nothing else."""

from collections.abc import Mapping

from audiolm_jax.config import diff
from audiolm_jax.lab import questions


class Uncontrolled(ValueError):
  """Arms differ in something that their question does not declare."""


def differences(
    question: questions.Question,
) -> dict[str, list[str]]:
  """In what the arms' chains differ from the baseline's: arm -> lines.

  Arms are taken at the first point of their grids. Swept fields are left out:
  each arm has its own choice of them.
  """
  baseline = _values(question, question.arm(question.baseline))
  swept = {
      '.'.join(arm.located(field))
      for arm in question.arms
      for field in arm.grid
  }
  result = {}
  for arm in question.arms:
    own = _values(question, arm)
    lines = []
    for name in sorted(baseline.keys() | own.keys()):
      lines += diff.lines(
          {name: baseline[name]} if name in baseline else {},
          {name: own[name]} if name in own else {},
          '',
      )
    lines = [line.removeprefix('.') for line in lines]
    result[arm.name] = [line for line in lines if not _covers(swept, line)]
  return result


def check(question: questions.Question) -> dict[str, list[str]]:
  """`differences`, refused where they are not declared.

  Raises:
    Uncontrolled: naming each arm and field; also for a declared difference
      that no arm of the whole question has, since it would hide one that is
      made later.
  """
  found = differences(question)
  baseline = question.arm(question.baseline)
  declared = {
      '.'.join(baseline.located(path)): path for path in question.differences
  }
  undeclared = [
      f'  {arm}: {line}'
      for arm, lines in found.items()
      for line in lines
      if not _covers(declared, line)
  ]
  if undeclared:
    raise Uncontrolled(
        'The arms differ in what the question does not declare:\n'
        + '\n'.join(undeclared)
        + '\nHold it fixed, or say in `differences` why it differs.'
    )
  lines = [line for lines in found.values() for line in lines]
  unused = [
      path
      for full, path in declared.items()
      if not any(_covers([full], line) for line in lines)
  ]
  if unused and not question.partial:
    raise Uncontrolled(
        f'{question.name}: the arms do not differ in {unused}, which'
        ' `differences` declares.'
    )
  return found


def _values(question, arm) -> Mapping[str, object]:
  """stage name -> values, of an arm at the first point of its grid."""
  chain = question.planned(arm).chain
  return {name: each.values() for name, each in chain.items()}


def _covers(paths, line) -> bool:
  """Whether a line of `diff.lines` is at or below one of some paths."""
  at = line.partition(': ')[0]
  return any(
      at == path or at.startswith((f'{path}.', f'{path}[')) for path in paths
  )
