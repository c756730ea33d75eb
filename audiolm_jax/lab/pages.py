"""What a question's results look like: its report, its README's part, the map."""

from collections.abc import Mapping, Sequence
import json
import pathlib
import re
from typing import Any

from audiolm_jax.comparison import listening
from audiolm_jax.comparison import report as report_lib
from audiolm_jax.comparison import statistics
from audiolm_jax.lab import answering
from audiolm_jax.lab import plots
from audiolm_jax.lab import runs as runs_lib
from audiolm_jax.training import costs

# Budgets that outcomes are drawn against where arms differ in them.
_TRADED = ('params', 'generation_flops')
_ANSWER, _LISTEN = 'Answer', 'Listen'
# Where a listening stage writes what there is to hear (`comparison.listening`).
HEARD = 'heard'


def report(
    answer: answering.Answer,
    text: str,
    running: runs_lib.Running,
    sweeps: Mapping[str, runs_lib.Sweep],
) -> report_lib.Report:
  """The page of a question.

  Args:
    answer: what its stages say.
    text: the question in prose.
    running: for curves and what there is to hear.
    sweeps: of `Running.sweep`.
  """
  results = answer.results
  title = ': '.join(filter(None, (results['title'], results['variant'])))
  page = report_lib.Report(title, text)
  for line in _state(results):
    page.add_text(_ANSWER, line)
  # Those that the question is about lead; what tests gave beside them follows.
  declared = len(running.question.curves)
  for curve in results['curves'][:declared]:
    _add_curve(page, curve, _ANSWER)
  _add_forests(page, answer)
  _add_trades(page, results)
  page.add_table(
      _ANSWER,
      *_outcomes(results),
      'Means over seeds with 95% t-intervals of each arm by itself.'
      + ' '.join(
          f' {o["name"].capitalize()}: {o["description"]}.'
          for o in results['outcomes']
      ),
  )
  if results['references']:
    page.add_table(
        _ANSWER,
        ['for reference', 'value'],
        [list(pair) for pair in results['references'].items()],
        'On the same held-out items; they do not depend on the arms.',
    )
  for curve in results['curves'][declared:]:
    _add_curve(page, curve, 'Curves')
  _add_heard(page, running, sweeps)
  _add_arms(page, results)
  _add_training(page, running, sweeps, results)
  page.add_facts(
      'What was run',
      {
          **report_lib.provenance(),
          'libraries': ', '.join(
              f'{k} {v}' for k, v in results['libraries'].items()
          ),
          'measured on': results['machine'] or 'not measured yet',
      },
  )
  return page


def _add_forests(page, answer):
  """The contrasts of each outcome, as far as they are complete."""
  for outcome in answer.results['outcomes']:
    comparisons = answer.comparisons[outcome['name']]
    if comparisons:
      page.add_forest(
          _ANSWER,
          comparisons,
          'Seeds are blocks; variance is pooled over arms; intervals (95%) hold'
          f' together: {comparisons[0].method}.',
          outcome['name'],
          outcome['unit'],
      )


def _state(results) -> list[str]:
  """The verdict, after what is missing."""
  lines = list(results['verdict'])
  if results['missing']:
    total = len(results['arms']) * results['seeds']
    lines.insert(
        0,
        f'{results["missing"]} of {total} runs are missing: not an answer yet.'
        f' Missing: {_missing(results)}.',
    )
  edges = [arm['name'] for arm in results['arms'] if arm['at_edge']]
  if edges:
    lines.append(
        'At the edge of what was tried: ' + ', '.join(edges) + '. A better'
        ' setting may lie beyond.'
    )
  return lines


def _missing(results) -> str:
  """Which runs: 'wide (seed 2, 3); narrow (all seeds)'."""
  every = range(1, results['seeds'] + 1)
  parts = []
  for arm in results['arms']:
    have = {run['seed'] for run in arm['runs']}
    seeds = [str(seed) for seed in every if seed not in have]
    if len(seeds) == len(every):
      parts.append(f'{arm["name"]} (all seeds)')
    elif seeds:
      parts.append(f'{arm["name"]} (seed {", ".join(seeds)})')
  return '; '.join(parts)


def _contrasts(results) -> tuple[list[str], list[list[str]]]:
  """(columns, rows) of all contrasts and controls."""
  rows = []
  for outcome in results['outcomes']:
    for line in results['comparisons'][outcome['name']]:
      name = f'{outcome["name"]}: {line["a"]} − {line["b"]}'
      rows.append([name, _span(line), line['says']])
  return ['contrast', 'difference', 'verdict'], rows


def _span(line) -> str:
  """A difference and its interval; an end that is not bounded is '…'."""
  mean, *ends = line['mean'], line['low'], line['high']
  if ends == [None, None]:
    return f'{mean:.3f}'
  shown = ['…' if end is None else f'{end:.3f}' for end in ends]
  return f'{mean:.3f} [{", ".join(shown)}]'


def _outcomes(results) -> tuple[list[str], list[list[Any]]]:
  """(columns, rows): each arm's outcomes and what it spends."""
  names = [f'{o["name"]}, {o["unit"]}' for o in results['outcomes']]
  spent = sorted({k for arm in results['arms'] for k in arm['budget']})
  rows = [
      [
          arm['name'],
          _settings(arm['chosen']),
          *[_mean(arm, outcome) for outcome in results['outcomes']],
          *[costs.readable(arm['budget'].get(k, 0.0)) for k in spent],
      ]
      for arm in results['arms']
  ]
  columns = [name.replace('_', ' ') for name in spent]
  return ['arm', 'chosen', *names, *columns], rows


def _mean(arm, outcome) -> statistics.Interval | None:
  """An arm's outcome over its seeds, by itself.

  None before the first, and for an arm that has not such an outcome.
  """
  name = outcome['name']
  values = [r['values'][name] for r in arm['runs'] if name in r['values']]
  return statistics.t_interval(values) if values else None


def markdown(results: Mapping[str, Any]) -> str:
  """What a README says of the results; between its `marks` there."""
  parts = [f'**{line}**' for line in _state(results)]
  parts += [_table(*_contrasts(results)), _table(*_outcomes(results))]
  parts += [_table(*_fitted(c)[:2]) for c in results['curves'] if c['fits']]
  if results['references']:
    values = results['references'].items()
    values = ', '.join(f'{k} {_plain(v)}' for k, v in values)
    parts.append(f'For reference: {values}.')
  reasons: dict[str, list[str]] = {}
  for name, entry in results['mismatches'].items():
    reasons.setdefault(entry['why'], []).append(name.replace('_', ' '))
  parts += [
      f'Budgets differ in {", ".join(names)}: {why}.'
      for why, names in reasons.items()
  ]
  parts.append(f'Measured on {results["machine"]}.')
  return '\n\n'.join(parts)


def _table(columns, rows) -> str:
  """In Markdown."""
  lines = [columns, ['---'] * len(columns)]
  lines += [[_plain(cell) for cell in row] for row in rows]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def marks(variant: str = '') -> tuple[str, str]:
  """The lines between which a README has what `markdown` writes."""
  name = f'results {variant}' if variant else 'results'
  return f'<!-- {name}: begin -->', f'<!-- {name}: end -->'


def _places(readme: pathlib.Path) -> int:
  """How many variants' results a README, if there is one, has a place for."""
  text = readme.read_text('utf-8') if readme.exists() else ''
  return len(re.findall(r'^<!-- results.*: begin -->$', text, re.MULTILINE))


def with_results(readme: str, results: Mapping[str, Any]) -> str:
  """A README with the part that results write replaced.

  Raises:
    ValueError: if the README does not say where.
  """
  first, last = marks(results['variant'])
  before, begin, rest = readme.partition(first)
  _, end, after = rest.partition(last)
  if not begin or not end:
    raise ValueError(f'the README has no {first} and {last} to write between')
  text = markdown(results)
  if any(results['comparisons'].values()):
    text += f'\n\n![contrasts]({plots.file_name(results["variant"])})'
  return f'{before}{begin}\n\n{text}\n\n{end}{after}'


def _add_trades(page, results):
  """The first outcome against the others, and against budgets that differ."""
  if results['missing']:
    return
  first, *others = results['outcomes']

  def add(name, better, intervals, caption):
    both = {
        arm['name']: (interval, _mean(arm, first))
        for arm, interval in zip(results['arms'], intervals, strict=True)
    }
    points = {name: each for name, each in both.items() if None not in each}
    if not points:
      return
    page.add_pareto(
        _ANSWER,
        points,
        name,
        f'{first["name"]}, {first["unit"]}',
        (better, first['better']),
        caption,
    )

  means = 'Means over seeds with 95% t-intervals of each arm by itself.'
  for other in others:
    add(
        f'{other["name"]}, {other["unit"]}',
        other['better'],
        [_mean(arm, other) for arm in results['arms']],
        means,
    )
  for budget in _TRADED:
    if budget in results['mismatches']:
      spent = [arm['budget'].get(budget, 0.0) for arm in results['arms']]
      exact = [statistics.Interval(v, v, v, results['seeds']) for v in spent]
      add(budget.replace('_', ' '), 'lower', exact, means)


def _settings(point) -> str:
  """A point of a grid, by the last names of its fields."""
  return ', '.join(
      f'{field.rpartition(".")[2]} {_plain(value)}'
      for field, value in point.items()
  )


def _plain(cell) -> str:
  if isinstance(cell, statistics.Interval):
    return cell.format(3)
  if isinstance(cell, float):
    return f'{cell:.3g}'
  return '–' if cell is None else str(cell)


def _add_heard(page, running, sweeps):
  points = {name: sweep.chosen for name, sweep in sweeps.items()}
  heard = {
      arm: listening.read(running.lab.directory(stage) / HEARD)
      for arm, stage in running.listening(points)
      if running.lab.result(stage)
  }
  if not heard:
    return
  page.add_text(
      _LISTEN,
      'The same items from each arm, of its first seed, equally loud. Answers of'
      ' the blind test are saved as a file; tools/listen.py adds them up.',
  )
  listening.add_side_by_side(page, _LISTEN, heard, 'Which sounds better?')


def _add_arms(page, results):
  """What differs, what was swept, and budgets that differ."""
  section = 'How the arms differ'
  page.add_table(
      section,
      ['arm', 'what it is', 'beside the baseline'],
      [
          [
              arm['name'],
              arm['description'],
              _some(results['differences'][arm['name']]) or 'the baseline',
          ]
          for arm in results['arms']
      ],
  )
  page.add_facts(
      section,
      {
          name: f'{entry["why"]} ('
          + ', '.join(
              f'{arm} {costs.readable(v)}' for arm, v in entry['values'].items()
          )
          + ')'
          for name, entry in results['mismatches'].items()
      }
      or {'budgets': 'all are matched within 2%'},
  )
  rows = [
      [arm['name'], _settings(tried['point']), tried['score']]
      for arm in results['arms']
      for tried in arm['sweep']
      if not arm['like']
  ]
  if rows:
    page.add_table(
        'Sweeps',
        ['arm', 'point', 'validation'],
        rows,
        'One run each, with a seed of its own; the best was taken.',
    )


def _add_curve(page, curve, section):
  """An outcome that is a curve: means with bands, fits, contrasts."""
  series = {
      line: [(x, mean) for x, mean, *_ in band]
      for line, band in curve['bands'].items()
  }
  bands = {
      line: [(x, low, high) for x, _, low, high in band if low is not None]
      for line, band in curve['bands'].items()
  }
  if curve['missing']:
    page.add_text(
        section,
        f'{curve["name"]}: {curve["missing"]} measurements are missing, and'
        ' lines without all of theirs are not drawn.',
    )
  if not series:
    return
  fits = {f'{line}, fit': fit['line'] for line, fit in curve['fits'].items()}
  page.add_curves(
      section,
      series | fits,
      f'{curve["description"] or curve["name"]}. Means over seeds; bands (95%)'
      ' stand for each point by itself'
      + (' and claim nothing.' if not curve['comparisons'] else '.'),
      curve['x'],
      curve['unit'],
      {line: band for line, band in bands.items() if band},
      curve['log_x'],
  )
  if curve['comparisons']:
    page.add_table(
        section,
        ['contrast', curve['x'], 'difference', 'verdict'],
        [
            [f'{c["a"]} − {c["b"]}', c['x'], _span(c), c['says']]
            for c in curve['comparisons']
        ],
        'At points chosen before the run; intervals (95%) hold together.',
    )
  if curve['fits']:
    page.add_table(section, *_fitted(curve))


def _fitted(curve) -> tuple[list[str], list[list[Any]], str]:
  """(columns, rows, caption) of a curve's fits."""
  fits = curve['fits']
  names = list(next(iter(fits.values()))['parameters'])
  rows = []
  for line, fit in fits.items():
    cells = [
        _span(dict(zip(('mean', 'low', 'high'), p, strict=True)))
        for p in fit['parameters'].values()
    ]
    bounds = ', '.join(fit['at_bounds']) or 'none'
    rows.append([line, *cells, fit['residual'], bounds])
  law = next(iter(fits.values()))['law'].replace('_', ' ')
  return (
      ['line', *names, 'residual', 'at a bound'],
      rows,
      f'{curve["name"]}: a {law} fitted to each seed; intervals (95%) are over'
      ' seeds. A parameter at a bound is no estimate.',
  )


def _add_training(page, running, sweeps, results):
  """Training losses of the first seed, by step and, if that differs, FLOPs."""
  curves = {}
  question = running.question
  for arm in question.arms:
    if arm.name not in sweeps:
      continue
    model = question.model(arm, sweeps[arm.name].chosen, question.replicates[0])
    directory = running.lab.directory(model)
    # Another process may be writing those of a run that has not finished.
    if running.lab.result(model) and (directory / 'metrics.jsonl').exists():
      series = report_lib.loss_curves(directory, ['loss'])
      curves[arm.name] = series.get('loss', [])
  if not curves:
    return
  caption = 'Of each arm, the first seed.'
  page.add_curves('Training', curves, caption, y='training loss')
  if 'training_flops' not in results['mismatches']:
    return
  spent = results['mismatches']['training_flops']['values']
  by_flops = {
      arm: [(step * spent[arm] / points[-1][0], loss) for step, loss in points]
      for arm, points in curves.items()
  }
  page.add_curves('Training', by_flops, caption, 'FLOPs', 'training loss')


def _some(lines: Sequence[str], most: int = 6) -> str:
  more = [f'and {len(lines) - most} more'] if len(lines) > most else []
  return '; '.join([*lines[:most], *more])


def files(folder: pathlib.Path, name: str) -> list[pathlib.Path]:
  """Files of published results, that of no variant first.

  Args:
    folder: with the folders of questions.
    name: of a question, or a pattern.
  """
  first = folder.glob(f'{name}/{answering.results_name()}')
  others = folder.glob(f'{name}/{answering.results_name("*")}')
  return [*sorted(first), *sorted(others)]


def _of_variant(results) -> str:
  variant = results['variant']
  return f'{variant}: ' if variant else ''


def overview(questions: Mapping[str, str], folder: pathlib.Path) -> str:
  """The map of all questions, in Markdown.

  Args:
    questions: name -> what is asked, in the order of the map.
    folder: with a folder for each that has been asked, and its results.

  Raises:
    ValueError: for a folder with results that the map does not name.
  """
  rows = []
  for name, text in questions.items():
    title, state = name, 'open'
    if (folder / name / '__init__.py').exists():
      title, state = f'[{name}]({name}/README.md)', 'not run'
    said = [json.loads(p.read_text()) for p in files(folder, name)]
    if said:
      whole = len(said) >= _places(folder / name / 'README.md')
      state = 'answered' if whole else 'answered in part'
      if said[0]['missing']:
        state = 'incomplete'
    arms = ', '.join(str(len(results['arms'])) for results in said)
    # The other outcomes stand in the README.
    verdict = ' '.join(_of_variant(r) + r['verdict'][0] for r in said)
    rows.append([title, text, arms, state, verdict])
  known = {path.parent.name for path in files(folder, '*')}
  unknown = sorted(known - set(questions))
  if unknown:
    raise ValueError(f'the map lacks {unknown}, which have results')
  columns = ['question', 'asks', 'arms', 'status', 'verdict']
  return _table(columns, rows)
