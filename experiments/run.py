"""Answers an open question: runs its stages, and writes a report.

  python -m experiments.run --list
  python -m experiments.run --question=adaptation --budget=cpu --workdir=runs/lab

For every arm its grid is swept on validation, then the arm is trained at its
best point with every seed, and measured on held-out items. What has finished is
never run again, and questions that share a work directory share stages. With
--dry_run nothing is run: it says in what the arms differ, what they spend and
how long it takes. With --arms=a,b the others wait for another time. With
--shard=0/2 and --shard=1/2 two processes, on one machine or on several that
share the directory, fill it together: see docs/experiments.md. With --report
nothing is run: it reports what has finished so far, and what is missing.
"""

import importlib
import json
import pathlib
import sys
import time

from audiolm_jax.training import launch

if __name__ == '__main__':
  launch.reexecute()  # Before the heavy imports.

# pylint: disable=g-import-not-at-top,g-bad-import-order
# ruff: noqa: E402

from absl import app
from absl import flags
import jax
import jax.numpy as jnp

from audiolm_jax import config
from audiolm_jax import train
from audiolm_jax.comparison import listening
from audiolm_jax.lab import answering
from audiolm_jax.lab import budgets
from audiolm_jax.lab import controls
from audiolm_jax.lab import curves as curves_lib
from audiolm_jax.lab import pages
from audiolm_jax.lab import plots
from audiolm_jax.lab import questions
from audiolm_jax.lab import runner
from audiolm_jax.lab import runs as runs_lib
from audiolm_jax.lab import stages
from audiolm_jax.training import checkpoints
from audiolm_jax.training import costs
from audiolm_jax.training import writers
from experiments import overview

_QUESTION = flags.DEFINE_string('question', None, 'A folder of experiments/.')
_BUDGET = flags.DEFINE_enum(
    'budget', 'cpu', ['smoke', 'cpu', 'gpu', 'pod'], 'How much.'
)
_VARIANT = flags.DEFINE_string(
    'variant', '', 'Of the question, such as one about another corpus.'
)
_WORKDIR = flags.DEFINE_string('workdir', 'runs/lab', 'Where stages are.')
_ARMS = flags.DEFINE_list(
    'arms', None, 'Only these, of those that the question has.'
)
_SHARD = flags.DEFINE_string('shard', '0/1', 'Which part to run first: i/n.')
_LIST = flags.DEFINE_bool('list', False, 'Only list the questions.')
_DRY_RUN = flags.DEFINE_bool(
    'dry_run', False, 'Only say what would be run, and what it would take.'
)
_REPORT = flags.DEFINE_bool(
    'report', False, 'Only report what has finished so far; run nothing.'
)
_PUBLISH = flags.DEFINE_bool(
    'publish', False, 'Write what was found into the README of the question.'
)

# What training reaches of the speed of a large product: 153 of 470 GFLOPs a
# second, compiling included (the base of `adaptation`, 2 cores of an EPYC).
_REACHED = 0.3
_HERE = pathlib.Path(__file__).absolute().parent


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  known = sorted(p.parent.name for p in _HERE.glob('*/__init__.py'))
  if _LIST.value:
    print(overview.text())
    return
  if _QUESTION.value not in known:
    sys.exit(
        f'experiments.run: --question={_QUESTION.value}: expected one of'
        f' {known}'
    )
  try:
    _answer()
  except stages.Interrupted as error:
    launch.fail(
        f'experiments.run: interrupted in {error}; run it again to go on'
    )
  except (
      budgets.UnequalBudgets,
      checkpoints.CheckpointError,
      config.ConfigError,
      controls.Uncontrolled,
      curves_lib.CurveError,
      listening.ListeningError,
      questions.QuestionError,
      stages.StageError,
      train.NotFiniteError,
      OSError,
  ) as error:
    launch.fail(f'experiments.run: {error}')


def _answer() -> None:
  """Plans, runs and reports what the flags ask for."""
  module = importlib.import_module(f'experiments.{_QUESTION.value}')
  question = module.question(_BUDGET.value, **_variant(module))
  if _ARMS.value is not None:
    question = question.only(_ARMS.value)
  try:
    shard = runner.Shard.parse(_SHARD.value)
  except ValueError as error:
    sys.exit(f'experiments.run: --shard: {error}')
  if _PUBLISH.value:
    _check_publishing(question)
  launch.prepare()
  planned = answering.plan(question)
  lab = runner.Lab(pathlib.Path(_WORKDIR.value))
  if _DRY_RUN.value:
    describe(planned, lab)
    return
  answer(planned, lab, shard)


def _variant(module) -> dict[str, str]:
  """The variant that --variant names, as the question takes it.

  Raises:
    questions.QuestionError: for one that the question has not.
  """
  if not _VARIANT.value:
    return {}
  known = getattr(module, 'VARIANTS', ())
  if _VARIANT.value not in known:
    raise questions.QuestionError(
        f'--variant={_VARIANT.value}: {_QUESTION.value} has'
        f' {list(filter(None, known)) or "none"}.'
    )
  return {'variant': _VARIANT.value}


def _check_publishing(question: questions.Question) -> None:
  """Refuses --publish where, after all runs, it could not or must not write.

  Raises:
    questions.QuestionError: saying why.
  """
  why = None
  if _DRY_RUN.value or _REPORT.value:
    why = 'does nothing with --dry_run or --report'
  elif _BUDGET.value == 'smoke' or _ARMS.value is not None:
    why = 'is for whole answers, not for --budget=smoke or some --arms'
  elif question.name not in overview.QUESTIONS:
    why = (
        f'needs {question.name} among the QUESTIONS of experiments/overview.py'
    )
  else:
    readme = _HERE / question.name / 'README.md'
    marks = pages.marks(question.variant)
    if not readme.exists() or any(m not in readme.read_text() for m in marks):
      why = f'needs {readme} with the lines {marks[0]} and {marks[1]}'
  if why:
    raise questions.QuestionError(f'--publish {why}.')


def answer(
    planned: answering.Plan,
    lab: runner.Lab,
    shard: runner.Shard = runner.ALL,
) -> dict:
  """Runs what is missing; writes results.json and report.html.

  Args:
    planned: the question.
    lab: where its stages are.
    shard: what to run first.

  Returns:
    The results.
  """
  question = planned.question
  running = runs_lib.Running(question, lab, shard, _say)
  sweeps = running.known() if _REPORT.value else running.run()
  said = answering.answer(planned, running, sweeps)
  results = said.results
  text = question.text
  if _BUDGET.value == 'smoke':
    text += ' A smoke run: it answers nothing.'
  names = filter(None, (question.name, question.variant))
  folder = lab.workdir / '.'.join(names)
  folder.mkdir(parents=True, exist_ok=True)
  content = json.dumps(results, indent=1, sort_keys=True) + '\n'
  writers.write_atomically(folder / answering.results_name(), content)
  page = pages.report(said, text, running, sweeps)
  page.write(folder / 'report.html')
  print(pages.markdown(results))
  if _PUBLISH.value:
    publish(question.name, content)
  print(f'Open {folder}/report.html')
  return results


def publish(name: str, content: str) -> None:
  """Writes results into the question's README and folder, and into the map."""
  readme = _HERE / name / 'README.md'
  # What is read from the file, whose order is another than that in memory.
  results = json.loads(content)
  text = pages.with_results(readme.read_text(), results)
  file = answering.results_name(results['variant'])
  writers.write_atomically(_HERE / name / file, content)
  picture = plots.forest(results)
  if picture:
    path = _HERE / name / plots.file_name(results['variant'])
    writers.write_atomically(path, picture)
  writers.write_atomically(readme, text)
  writers.write_atomically(_HERE / 'README.md', overview.page())


def describe(planned: answering.Plan, lab: runner.Lab) -> None:
  """Prints what a question would run."""
  question = planned.question
  print(f'{question.title}\n\n{question.text}\n')
  for arm in question.arms:
    print(f'{arm.name}: {arm.description}')
    for line in planned.differences[arm.name]:
      print(f'  {line}')
    spent = planned.budgets[arm.name]
    print(
        '  spends '
        + ', '.join(
            f'{name.replace("_", " ")} {costs.readable(value)}'
            for name, value in spent.items()
        )
    )
  for name in planned.mismatches:
    print(f'may differ in {name}: {question.mismatches[name]}')
  points = sum(len(arm.points()) for arm in question.arms if arm.grid)
  runs = len(question.arms) * question.seeds
  print(f'{points} runs to sweep, {runs} to measure')
  minutes = _seconds(planned, lab) / 60
  print(f'about {minutes:.0f} min here by FLOPs; shared stages not counted')


def _seconds(planned, lab) -> float:
  """Of the sweeps and replicates that have not finished, by their FLOPs."""
  question, flops = planned.question, 0.0
  known = runs_lib.Running(question, lab).known()
  for arm in question.arms:
    points = arm.points() if arm.grid else []
    runs = [question.model(arm, p, question.SWEEP_SEED) for p in points]
    if arm.name in known:
      point = known[arm.name].chosen
      runs += [question.model(arm, point, seed) for seed in question.replicates]
      left = sum(lab.result(run) is None for run in runs)
    else:
      left = sum(lab.result(run) is None for run in runs) + question.seeds
    flops += left * planned.budgets[arm.name].get('training_flops', 0.0)
  return flops / (_REACHED * _product_flops())


def _product_flops() -> float:
  """FLOPs a second of a large product on this machine."""
  x = jnp.ones((1024, 1024))
  product = jax.jit(jnp.dot)
  product(x, x).block_until_ready()
  start = time.monotonic()
  for _ in range(8):
    product(x, x).block_until_ready()
  return 8 * 2 * 1024**3 / (time.monotonic() - start)


def _say(line: str) -> None:
  print(line, flush=True)


if __name__ == '__main__':
  app.run(main)
