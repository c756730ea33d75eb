"""From the rows of an experiment to its answer: tables, intervals, a report."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import os
import pathlib

from audiolm_jax.comparison import arms as arms_lib
from audiolm_jax.comparison import report as report_lib
from audiolm_jax.comparison import statistics
from audiolm_jax.training import costs

ANSWER = 'Answer'
# In a run's directory: a report of what it is heard of.
SAMPLES = 'samples.html'


@dataclasses.dataclass(frozen=True)
class Answer:
  """What an experiment found.

  Attributes:
    question: what was asked.
    rows: one for each arm and seed.
    base: metrics of the base model on the test evaluators; none without one.
    sweeps: arm -> {learning rate: the selected metric on validation}.
    allowed_mismatches: budget -> {arm: value}, those that differ as declared.
    workdir: with results/, for curves and item scores.
  """

  question: arms_lib.Question
  rows: Sequence[arms_lib.Row]
  base: Mapping[str, float]
  sweeps: Mapping[str, Mapping[float, float]]
  allowed_mismatches: Mapping[str, Mapping[str, float]]
  workdir: pathlib.Path

  def run(self, arm: str) -> pathlib.Path:
    """The directory of an arm's first seed."""
    return self.workdir / 'results' / arm / f'seed_{self.question.seeds[0]}'

  def values(self, arm: str, outcome: arms_lib.Outcome) -> dict[int, float]:
    """seed -> outcome of an arm."""
    return {
        row.seed: outcome.sign
        * (row.metrics[outcome.metric] - self.base.get(outcome.metric, 0.0))
        for row in self.rows
        if row.arm == arm
    }

  def contrast(
      self, a: str, b: str, outcome: arms_lib.Outcome
  ) -> statistics.Interval:
    """a - b, over seed-level paired differences."""
    return statistics.paired(self.values(a, outcome), self.values(b, outcome))

  def checkpoints(
      self, a: str, b: str, outcome: arms_lib.Outcome
  ) -> statistics.Interval:
    """a - b of the first seed's checkpoints, over items."""
    low, high = (_items(self.run(arm), outcome) for arm in (a, b))
    return statistics.bootstrap(
        *[
            {item: (outcome.sign * s, w) for item, (s, w) in scores.items()}
            for scores in (low, high)
        ]
    )

  def edges(self) -> list[str]:
    """Arms whose best learning rate is the first or last that was tried."""
    arms = []
    for arm, sweep in self.sweeps.items():
      best = min(sweep, key=sweep.get)
      if len(sweep) > 1 and best in (min(sweep), max(sweep)):
        arms.append(f'{arm} ({best:g})')
    return arms


def result_table(answer: Answer) -> tuple[list[str], list[list]]:
  """(columns, rows): outcomes of each arm with intervals, and its budget."""
  outcomes = answer.question.outcomes
  columns = ['arm', 'rate', *[f'{o.name}, {o.unit}' for o in outcomes]]
  columns += [
      'parameters',
      'trainable',
      'training FLOPs',
      'inference FLOPs/s',
      'examples',
      'audio, s',
      'bits/s',
      'time, s',
  ]
  table = []
  for arm in answer.question.arms:
    rows = [row for row in answer.rows if row.arm == arm.name]
    budget = rows[0].budget
    table.append(
        [
            arm.name,
            f'{rows[0].settings["learning_rate"]:g}',
            *[
                statistics.t_interval(list(answer.values(arm.name, o).values()))
                for o in outcomes
            ],
            costs.readable(budget.params),
            costs.readable(budget.trainable_params),
            costs.readable(budget.training_flops),
            costs.readable(budget.inference_flops),
            int(budget.examples),
            round(budget.audio_seconds),
            round(budget.bits_per_second),
            round(sum(row.seconds for row in rows) / len(rows)),
        ]
    )
  return columns, table


def contrast_table(answer: Answer) -> tuple[list[str], list[list]]:
  """(columns, rows): each contrast's interval over seeds, and the verdict."""
  rows = []
  for a, b in answer.question.contrasts:
    for outcome in answer.question.outcomes:
      interval = answer.contrast(a, b, outcome)
      rows.append(
          [
              f'{outcome.name}: {a} − {b}',
              interval,
              statistics.verdict(interval, outcome.unit),
              answer.checkpoints(a, b, outcome).format(3),
          ]
      )
  seeds = len(answer.question.seeds)
  return [
      'contrast',
      f'difference over {seeds} seeds',
      'verdict',
      'these checkpoints',
  ], rows


def text(answer: Answer) -> str:
  """The two tables in Markdown, for a terminal or a README."""
  parts = []
  for columns, rows in (result_table(answer), contrast_table(answer)):
    lines = [columns, ['---'] * len(columns)]
    lines += [[_plain(cell) for cell in row] for row in rows]
    parts.append('\n'.join(f'| {" | ".join(line)} |' for line in lines))
  return '\n\n'.join(parts)


def report(answer: Answer) -> report_lib.Report:
  """The report of an experiment."""
  question = answer.question
  page = report_lib.Report(question.title, question.text)
  page.add_table(
      ANSWER,
      *contrast_table(answer),
      'Means of seed-level paired differences with 95% t-intervals (df = seeds'
      ' − 1). The last column is a bootstrap over items of the first seed: it'
      ' speaks of these checkpoints only, and carries no claim.',
  )
  page.add_table(
      ANSWER,
      *result_table(answer),
      'Means over seeds with 95% t-intervals, on held-out clips. '
      + ' '.join(
          f'{o.name.capitalize()}: {o.description}.' for o in question.outcomes
      ),
  )
  if question.references:
    metrics = answer.rows[0].metrics
    page.add_table(
        ANSWER,
        ['for reference', 'value'],
        [[k, metrics[name]] for k, name in question.references.items()],
        'On the same held-out clips; they do not depend on the arms.',
    )
  if question.listen is not None:
    for arm in question.arms:
      heard = report_lib.Report.read(answer.run(arm.name) / SAMPLES)
      page.extend(heard, f'{arm.name}: ')
  curves = {
      arm.name: report_lib.loss_curves(answer.run(arm.name), ['loss']).get(
          'loss', []
      )
      for arm in question.arms
  }
  page.add_curves(
      'Training', curves, f'Seed {question.seeds[0]}.', y='training loss'
  )
  _add_sweep(page, answer)
  _add_run(page, answer)
  return page


def _add_run(page, answer):
  """What was run, with which budgets."""
  question, base = answer.question, {}
  if question.base is not None:
    base['base'] = os.path.relpath(question.base)
  page.add_facts(
      'What was run',
      {
          **report_lib.provenance(),
          **base,
          **{f'arm {arm.name}': arm.description for arm in question.arms},
          'seeds': ', '.join(map(str, question.seeds)),
          **{f'base, {k}': v for k, v in answer.base.items() if _is_test(k)},
      },
  )
  page.add_facts(
      'Budgets that differ, as declared',
      {
          name: f'{question.allowed_mismatches[name]} ('
          + ', '.join(f'{a} {costs.readable(v)}' for a, v in values.items())
          + ')'
          for name, values in answer.allowed_mismatches.items()
      }
      or {'none': 'all are matched within 2%'},
  )


def _add_sweep(page, answer):
  rates = sorted({r for sweep in answer.sweeps.values() for r in sweep})
  page.add_table(
      'Learning rates',
      ['arm', *[f'{rate:g}' for rate in rates]],
      [
          [arm, *[sweep.get(rate) for rate in rates]]
          for arm, sweep in answer.sweeps.items()
      ],
      f'{answer.question.select} on validation, one run each with a seed of'
      ' its own; the lowest was taken.',
  )
  edges = answer.edges()
  if edges:
    page.add_text(
        'Learning rates',
        'At the edge of what was tried: ' + ', '.join(edges) + '. A better'
        ' rate may lie beyond.',
    )


def _items(directory, outcome) -> dict[str, tuple[float, float]]:
  """item -> (sum, weight) of the run's last evaluation."""
  paths = (directory / 'evaluations').glob(f'*_{outcome.evaluator}.jsonl')
  path = max(paths, key=lambda p: int(p.name.split('_')[0]))
  scores = map(json.loads, path.read_text().splitlines())
  return {
      s['item']: (s['sum'], s['weight'])
      for s in scores
      if s['name'] == outcome.score
  }


def _is_test(name) -> bool:
  return 'codebook' not in name


def _plain(cell) -> str:
  if isinstance(cell, statistics.Interval):
    return cell.format(3)
  return str(cell)
