"""From the finished stages of a question to what it says: results.json."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

from audiolm_jax.comparison import blocks
from audiolm_jax.comparison import multiplicity
from audiolm_jax.comparison import verdicts
from audiolm_jax.lab import budgets
from audiolm_jax.lab import controls
from audiolm_jax.lab import curves as curves_lib
from audiolm_jax.lab import questions
from audiolm_jax.lab import runs as runs_lib
from audiolm_jax.lab import stages
from audiolm_jax.lab import summaries

# What `Scores.tag` calls likelihoods that are bounds, or none.
_BOUND, _NONE = 'bound', 'none'


def results_name(variant: str = '') -> str:
  """The name of the file of results; see `questions.Question.variant`."""
  return f'results.{variant}.json' if variant else 'results.json'


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is known of a question before anything trains.

  Attributes:
    question: what is asked.
    differences: arm -> lines in which it differs from the baseline.
    budgets: arm -> what it spends, by name.
    mismatches: the declared budgets that do differ: name -> {arm: value}.
    tags: arm -> 'exact', 'bound' or 'none'; '' where its model is no decoder.
  """

  question: questions.Question
  differences: Mapping[str, Sequence[str]]
  budgets: Mapping[str, Mapping[str, float]]
  mismatches: Mapping[str, Mapping[str, float]]
  tags: Mapping[str, str]


def plan(question: questions.Question) -> Plan:
  """Checks a question's controls and counts its budgets.

  Raises:
    controls.Uncontrolled: if arms differ in what is not declared.
    budgets.UnequalBudgets: if they spend differently without saying so.
    questions.QuestionError: for likelihoods that do not compare.
  """
  differences = controls.check(question)
  spent = {arm.name: budgets.of_arm(question, arm) for arm in question.arms}
  mismatches = budgets.check(
      spent, question.mismatches, partial=question.partial
  )
  tags = {arm.name: _tag(arm.stage) for arm in question.arms}
  likelihoods = [o for o in question.outcomes if o.likelihood]
  for outcome in likelihoods:
    without = sorted(
        name for name, tag in tags.items() if tag == _NONE and outcome.has(name)
    )
    if without:
      raise questions.QuestionError(
          f'{question.name}: {without} have no likelihood, so that'
          f' {outcome.name!r} cannot stand beside the others'
      )
  claimed = [curve.name for curve in question.curves if curve.at]
  if claimed and likelihoods and _BOUND in tags.values():
    raise questions.QuestionError(
        f'{question.name}: {claimed} are compared at points, but some arms have'
        f' a bound, which is only compared one-sided: {tags}'
    )
  return Plan(question, differences, spent, mismatches, tags)


def _tag(stage) -> str:
  """What the likelihoods of the decoder that a stage trains are."""
  if not isinstance(stage, stages.Train):
    return ''
  return getattr(getattr(stage.config.objective, 'decoder', None), 'tag', '')


@dataclasses.dataclass(frozen=True)
class Answer:
  """What a question's finished stages say.

  Attributes:
    results: all that its page and README say, as JSON values.
    comparisons: outcome -> the contrasts and controls that are complete.
  """

  results: dict[str, Any]
  comparisons: dict[str, tuple[blocks.Comparison, ...]]


def answer(
    planned: Plan,
    running: runs_lib.Running,
    sweeps: Mapping[str, runs_lib.Sweep],
) -> Answer:
  """What a question's stages say as far as they have finished.

  Args:
    planned: of `plan`.
    running: with the finished stages; where some are missing, what they would
      say is left out, and 'missing' counts them.
    sweeps: of `Running.sweep`, or of `Running.known` as far as they are.
  """
  question = planned.question
  points = {name: sweep.chosen for name, sweep in sweeps.items()}
  measured = runs_lib.metrics(running, points)
  base = {}
  if running.base is not None:
    if running.lab.result(running.base):
      base = running.lab.metrics(running.base)
    else:
      measured = {}  # Outcomes are differences from what is not known yet.
  values = {
      outcome.name: _values(outcome, measured, base)
      for outcome in question.outcomes
  }
  comparisons = {
      outcome.name: _compare(planned, outcome, values[outcome.name])
      for outcome in question.outcomes
  }
  lines = {
      outcome.name: _lines(question, outcome, comparisons[outcome.name])
      for outcome in question.outcomes
  }
  curves = _curves(planned, measured)
  total = len(question.arms) * question.seeds
  results = {
      'missing': total - sum(len(seeds) for seeds in measured.values()),
      'verdict': _verdict(question, lines, curves),
      'curves': curves,
      'comparisons': lines,
      'arms': [
          _arm(
              planned,
              arm,
              sweeps.get(arm.name, runs_lib.Sweep((), (), {}, False)),
              measured.get(arm.name, {}),
              values,
          )
          for arm in question.arms
      ],
      'base': {o.name: base.get(o.metric) for o in question.outcomes if base},
      **_of_first(question, measured),
      **_planned(planned),
  }
  return Answer(results, comparisons)


def _of_first(question, measured) -> dict[str, Any]:
  """What results take from one run, the baseline's first."""
  first = next(iter(measured.get(question.baseline, {}).values()), {})
  return {
      'references': {
          label: first['result']['metrics'].get(metric)
          for label, metric in question.references.items()
          if first
      },
      'machine': first.get('machine'),
  }


def _planned(planned) -> dict[str, Any]:
  """What results hold that was known before anything trained."""
  question = planned.question
  return {
      'question': question.name,
      'variant': question.variant,
      'title': question.title,
      'seeds': question.seeds,
      'baseline': question.baseline,
      'outcomes': [
          {**dataclasses.asdict(o), 'of': list(o.of)} for o in question.outcomes
      ],
      'mismatches': {
          name: {'why': question.mismatches[name], 'values': dict(spent)}
          for name, spent in planned.mismatches.items()
      },
      'differences': {k: list(v) for k, v in planned.differences.items()},
      'libraries': stages.versions(),
  }


def _values(outcome, measured, base) -> dict[str, dict[int, float]]:
  """arm -> seed -> outcome."""
  values: dict[str, dict[int, float]] = {}
  for arm, seeds in measured.items():
    if not outcome.has(arm):
      continue
    for seed, facts in seeds.items():
      metrics = facts['result']['metrics']
      if outcome.metric not in metrics:
        raise questions.QuestionError(
            f'no metric {outcome.metric!r} of {arm}: {sorted(metrics)}'
        )
      value = metrics[outcome.metric] - base.get(outcome.metric, 0.0)
      values.setdefault(arm, {})[seed] = outcome.sign * value
  return values


def _arm(planned, arm, sweep, measured, values) -> dict[str, Any]:
  """An arm's part of the results."""
  seconds = [facts['seconds'] for facts in measured.values()]
  return {
      'name': arm.name,
      'description': arm.description,
      'like': arm.like,
      'chosen': dict(sweep.chosen),
      'at_edge': sweep.at_edge and arm.like is None,
      'sweep': [
          {'point': dict(point), 'score': score}
          for point, score in zip(sweep.points, sweep.scores, strict=True)
      ],
      'budget': dict(planned.budgets[arm.name]),
      'runs': [
          {
              'seed': seed,
              'key': facts['key'],
              'values': {
                  name: table[arm.name][seed]
                  for name, table in values.items()
                  if arm.name in table
              },
          }
          for seed, facts in sorted(measured.items())
      ],
      'seconds': sum(seconds) / len(seconds) if seconds else None,
  }


def _compare(planned, outcome, values) -> tuple[blocks.Comparison, ...]:
  """The declared contrasts and controls of an outcome, as far as complete."""
  question = planned.question
  complete = {
      arm: seeds
      for arm, seeds in values.items()
      if len(seeds) == question.seeds
  }
  contrasts = []
  for a, b in question.pairs:
    sided = _sided(planned, outcome, a, b)
    margin = outcome.margin if sided == multiplicity.BOTH else None
    contrasts.append(
        blocks.Contrast(a, b, sided=sided, margin=margin, null=question.null)
    )
  contrasts += [
      blocks.Contrast(c.a, c.b, expected=c.expected)
      for c in question.controls
      if c.outcome == outcome.name
  ]
  contrasts = [c for c in contrasts if {c.a, c.b} <= complete.keys()]
  return blocks.compare(complete, contrasts) if contrasts else ()


def _lines(question, outcome, comparisons) -> list[dict[str, Any]]:
  """Comparisons as JSON values, with what each says."""
  reasons = {
      (c.a, c.b): c.reason
      for c in question.controls
      if c.outcome == outcome.name
  }
  said = verdicts.verdicts(comparisons, outcome.unit)
  lines = []
  for each, text in zip(comparisons, said, strict=True):
    interval, contrast = each.interval, each.contrast
    line = {
        'a': contrast.a,
        'b': contrast.b,
        'mean': interval.mean,
        'low': _finite(interval.low),
        'high': _finite(interval.high),
        'p': _finite(each.p),
        'detectable': _finite(interval.detectable),
        'sided': contrast.sided,
        'margin': contrast.margin,
        'reading': each.reading,
        'method': each.method,
        'says': text,
    }
    if contrast.expected:
      line |= {
          'expected': contrast.expected,
          'found': each.control_shown,
          'reason': reasons[contrast.a, contrast.b],
      }
    lines.append(line)
  return lines


def _sided(planned, outcome, a, b) -> str:
  """A bound above exact bits says nothing; below them it wins.

  For an outcome that is a likelihood's, in which less is better; where the
  sign turns it, the other way round.
  """
  if not outcome.likelihood:
    return multiplicity.BOTH
  bounds = planned.tags[a] == _BOUND, planned.tags[b] == _BOUND
  if bounds[0] == bounds[1]:
    return multiplicity.BOTH
  lower = bounds[0] == (outcome.sign > 0)
  return multiplicity.LOWER if lower else multiplicity.HIGHER


def _finite(value: float) -> float | None:
  """JSON has no infinity."""
  return value if math.isfinite(value) else None


def _curves(planned, measured) -> list[dict[str, Any]]:
  """Declared curves, then those that tests gave beside them."""
  question = planned.question
  declared = list(question.curves)
  found = []
  for curve in [*declared, *curves_lib.undeclared(declared, measured)]:
    lines = curves_lib.points_of(curve, measured, planned.budgets)
    size = len(curve.along or curve.of or question.arms)
    found.append(curves_lib.summary(curve, lines, question.seeds, size))
  return found


def _verdict(question, lines, curves) -> list[str]:
  """What is claimed, a line for each outcome and curve with claims."""
  sentences = [
      summaries.summary(outcome.name, outcome.unit, lines[outcome.name])
      for outcome in question.outcomes
  ]
  for curve in curves:
    said = [
        f'{line["a"]} against {line["b"]} at {line["x"]:g}: {line["says"]}'
        for line in curve['comparisons']
    ]
    if said:
      sentences.append(f'{curve["name"]}: {"; ".join(said)}.')
  return sentences
