"""Answers an open question: trains its arms, and writes a report.

  python -m experiments.run --question=adaptation --budget=cpu \\
      --workdir=runs/adaptation [--base=runs/quickstart]

For every arm the learning rate is swept on validation, then the arm is trained
at its best one with every seed, and evaluated on the test split. Results stand
in WORKDIR/results; what stands there is not run again, so an interrupted run
goes on where it was. Without --base, a quickstart is run in WORKDIR/base first.
With --arms=a,b the others wait for another time.
"""

import importlib
import json
import pathlib
import shlex
import shutil
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

from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import evaluate
from audiolm_jax import train
from audiolm_jax.comparison import answers
from audiolm_jax.comparison import arms as arms_lib
from audiolm_jax.comparison import report as report_lib
from audiolm_jax.training import checkpoints
from audiolm_jax.training import costs
from audiolm_jax.training import state as state_lib
from audiolm_jax.training import step as step_lib
from audiolm_jax.training import writers

_QUESTION = flags.DEFINE_string(
    'question', 'adaptation', 'A folder of experiments/.'
)
_BUDGET = flags.DEFINE_enum('budget', 'cpu', ['smoke', 'cpu'], 'How much.')
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Where results go.', required=True
)
_BASE = flags.DEFINE_string(
    'base', None, 'A quickstart directory to start from; else one is made.'
)

_ARMS = flags.DEFINE_list(
    'arms', None, 'Only these, of those that the question has.'
)

_HERE = pathlib.Path(__file__).absolute().parent
_ROOT = _HERE.parent


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  questions = sorted(p.parent.name for p in _HERE.glob('*/__init__.py'))
  if _QUESTION.value not in questions:
    sys.exit(
        f'experiments.run: --question={_QUESTION.value}: expected one of'
        f' {questions}'
    )
  try:
    _answer()
  except (
      arms_lib.UnequalBudgets,
      checkpoints.CheckpointError,
      config.ConfigError,
      train.NotFiniteError,
      OSError,
  ) as error:
    launch.fail(f'experiments.run: {error}')


def _answer() -> None:
  """Prepares, trains and reports what the flags ask for."""
  module = importlib.import_module(f'experiments.{_QUESTION.value}')
  workdir = pathlib.Path(_WORKDIR.value)
  base = pathlib.Path(_BASE.value or workdir / 'base')
  if _BASE.value is None:
    command(
        f'python tools/quickstart.py --budget={_BUDGET.value}'
        f' --workdir={shlex.quote(str(base.absolute()))}'
    )
  for line in module.prepare(base, workdir):
    command(line)
  question = module.question(base, workdir, _BUDGET.value)
  if _ARMS.value is not None:
    try:
      question = question.only(_ARMS.value)
    except ValueError as error:
      sys.exit(f'experiments.run: --arms: {error}')
  answer(question, workdir)
  print(f'Open {workdir}/report.html')


def command(line: str) -> None:
  """Prints and runs a command in the checkout; ends if it fails."""
  print(f'$ {line}', flush=True)
  arguments = [sys.executable, *shlex.split(line)[1:]]
  code, interrupted = launch.wait(arguments, _ROOT)
  if interrupted:
    sys.exit('experiments.run: interrupted; run it again to go on')
  if code:
    sys.exit(f'experiments.run: the command above failed (status {code})')


def answer(
    question: arms_lib.Question, workdir: pathlib.Path
) -> list[arms_lib.Row]:
  """Trains what is missing, and writes rows.json and report.html.

  Raises:
    arms.UnequalBudgets: before anything is trained, if the arms' budgets differ
      in what the question does not declare.
  """
  launch.prepare()
  budgets = {
      arm.name: _budget(question, arm.configure(arm.learning_rates[0]))
      for arm in question.arms
  }
  allowed_mismatches = arms_lib.check_budgets(
      budgets, question.allowed_mismatches
  )
  base = _evaluate_base(question, workdir)
  rows, sweeps = [], {}
  for arm in question.arms:
    sweeps[arm.name] = {
        rate: _run(
            question.validation,
            arm.configure(rate),
            question.sweep_seed,
            workdir / 'results' / arm.name / f'sweep_{rate:g}',
        )['metrics'][question.select]
        for rate in arm.learning_rates
    }
    rate = min(sweeps[arm.name], key=sweeps[arm.name].get)
    for seed in question.seeds:
      first = seed == question.seeds[0]
      result = _run(
          question.test,
          arm.configure(rate),
          seed,
          workdir / 'results' / arm.name / f'seed_{seed}',
          question.listen if first else None,
      )
      rows.append(
          arms_lib.Row(
              arm=arm.name,
              seed=seed,
              settings={'learning_rate': rate},
              metrics=result['metrics'],
              budget=budgets[arm.name],
              seconds=result['seconds'],
          )
      )
  table = json.dumps([row.to_dict() for row in rows], indent=2)
  writers.write_atomically(workdir / 'rows.json', table)
  result = answers.Answer(
      question, rows, base, sweeps, allowed_mismatches, workdir
  )
  answers.report(result).write(workdir / 'report.html')
  print(answers.text(result))
  return rows


def _run(evaluators, settings, seed, directory, listen=None) -> dict:
  """What has not been done of a run: {metrics, seconds}.

  Args:
    evaluators: what to evaluate with.
    settings: the run's config, but for its evaluators and seed.
    seed: of the run.
    directory: of the run.
    listen: see `arms.Question`.
  """
  settings = config.replace(
      settings,
      {
          'seed': seed,
          'evaluators': evaluators,
          'eval_every': settings.steps,
          'checkpoint.every': settings.steps,
      },
  )
  asked = json.loads(config.to_json(settings))
  path = directory / 'result.json'
  if not path.exists():
    writers.write_atomically(
        path, json.dumps(_train(settings, directory, asked))
    )
  result = _read(path)
  if result.get('config') != asked:
    raise config.ConfigError(
        f'{directory} holds a run of another config:\n  '
        + '\n  '.join(config.difference(result.get('config', {}), asked))
        + '\nGive another --workdir.'
    )
  # After the result: a finished run that is resumed does not evaluate again.
  if listen is not None and not (directory / answers.SAMPLES).exists():
    page = report_lib.Report(directory.parent.name)
    listen(directory, page)
    page.write(directory / answers.SAMPLES)
  # Metrics, item scores and samples are all that is read later.
  for name in ('checkpoints', 'model'):
    shutil.rmtree(directory / name, ignore_errors=True)
  return result


def _read(path: pathlib.Path) -> dict:
  """What was written of a finished run.

  Raises:
    config.ConfigError: if the file is damaged.
  """
  try:
    result = json.loads(path.read_bytes())
  except ValueError:
    result = None
  if not isinstance(result, dict):
    raise config.ConfigError(
        f'{path} is damaged. Remove it to run again what it is of.'
    )
  return result


def _train(settings, directory, asked) -> dict:
  """A run's {metrics, seconds, config}."""
  print(f'{directory.parent.name} {directory.name}', flush=True)
  start = time.monotonic()
  metrics = train.train(settings, directory)
  if not any(name.startswith('eval/') for name in metrics):
    sys.exit('experiments.run: interrupted; run it again to go on')
  seconds = time.monotonic() - start
  return {'metrics': metrics, 'seconds': seconds, 'config': asked}


def _evaluate_base(question, workdir) -> dict[str, float]:
  """The base model on the test evaluators; its item scores are kept too."""
  if question.base is None:
    return {}
  path = workdir / 'results' / 'base' / 'result.json'
  if not path.exists():
    assembly, state = assembly_lib.restore(question.base)
    evaluators = {
        name: evaluator.build(assembly.objective)
        for name, evaluator in question.test.items()
    }
    variables = assembly.variables(state)
    results = evaluate.run(evaluators, variables, 0, path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    writers.write_atomically(path, json.dumps(results))
  return _read(path)


def _budget(question, settings) -> arms_lib.Budget:
  """What a run of a config spends, from shapes alone."""
  settings = config.build(train.Config, settings)
  assembly = assembly_lib.Assembly(settings)
  objective = assembly.objective
  optimizers = assembly.model_optimizers
  step = step_lib.Step(objective, optimizers, settings.accumulation)
  trainable = state_lib.size(assembly.abstract.trainable)
  with jax.set_mesh(assembly.mesh):
    step_flops = costs.flops(
        step,
        assembly.abstract,
        objective.example_batch(settings.batch_size),
        dict.fromkeys(optimizers, 0.0),
    )
    row_flops = costs.flops(
        lambda state, batch: objective(
            assembly.variables(state), batch, jax.random.key(0)
        ).terms,
        assembly.abstract,
        objective.example_batch(1),
    )
  examples = settings.steps * settings.batch_size
  return arms_lib.Budget(
      params=trainable + state_lib.size(assembly.abstract.frozen),
      trainable_params=trainable,
      training_flops=step_flops * settings.steps,
      inference_flops=row_flops / question.row_seconds,
      examples=examples,
      audio_seconds=examples * question.row_seconds,
      bits_per_second=question.bits_per_second,
  )


if __name__ == '__main__':
  app.run(main)
