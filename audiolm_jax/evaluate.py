"""Evaluation, within training and without it."""

from collections.abc import Mapping
import json
import os
import pathlib
from typing import Any

from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import resolution
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.objectives import base as objectives_base
from audiolm_jax.training import launch
from audiolm_jax.training import writers


def evaluate(
    workdir: str | os.PathLike, step: int | None = None
) -> dict[str, float]:
  """Runs the evaluators of a work directory's config on its checkpoint.

  Args:
    workdir: of a run that has saved a checkpoint.
    step: which one; by default the best, or else the last.

  Returns:
    {'eval/<evaluator>/<metric>': value}; scores of every item, and of curves
    each point, are written to workdir/evaluations.

  Raises:
    config.ConfigError: if it is no work directory, or has no evaluators.
    checkpoints.CheckpointError: if it has no readable checkpoint.
  """
  launch.prepare()
  if not assembly_lib.read(workdir).get('evaluators'):
    raise config.ConfigError(
        f'{workdir}: its config.evaluators are none, so nothing is evaluated.'
    )
  assembly, state = assembly_lib.restore(workdir, step)
  evaluators = build(assembly)
  variables = assembly.variables(state)
  return run(evaluators, variables, int(state.step), workdir)


def build(
    assembly: assembly_lib.Assembly, settings: Mapping[str, Any] | None = None
) -> dict[str, evaluation_base.Evaluator]:
  """Evaluators of a run, by name.

  What they leave to the data (a cache) is that of config.data.

  Args:
    assembly: the run's parts.
    settings: what to evaluate with; the config's evaluators if not given.
  """
  if settings is None:
    settings = assembly.config.evaluators
  settings = resolution.evaluators_of(settings, assembly.config.data)
  return {
      name: evaluator.build(assembly.objective)
      for name, evaluator in sorted(settings.items())
  }


def run(
    evaluators: Mapping[str, evaluation_base.Evaluator],
    variables: objectives_base.Variables,
    step: int,
    workdir: str | os.PathLike | None,
) -> dict[str, float]:
  """Micro-averages of all evaluators; item scores go to a file for each.

  Args:
    evaluators: by name.
    variables: as the objective takes them.
    step: for the names of the files.
    workdir: where the files go; None writes none.
  """
  metrics, _ = measure(evaluators, variables, step, workdir)
  return metrics


def measure(
    evaluators: Mapping[str, evaluation_base.Evaluator],
    variables: objectives_base.Variables,
    step: int,
    workdir: str | os.PathLike | None,
) -> tuple[dict[str, float], dict[str, list[tuple[float, float]]]]:
  """`run`, and the curves: 'eval/<evaluator>/<metric> by <x>' -> (x, mean).

  Args:
    evaluators: by name.
    variables: as the objective takes them.
    step: for the names of the files.
    workdir: where the files go; None writes none.
  """
  metrics, curves = {}, {}
  for name, evaluator in evaluators.items():
    scores = list(evaluator.run(variables))
    if workdir is not None:
      path = pathlib.Path(workdir) / 'evaluations' / f'{step}_{name}.jsonl'
      path.parent.mkdir(parents=True, exist_ok=True)
      lines = [json.dumps(_plain(score)) + '\n' for score in scores]
      writers.write_atomically(path, ''.join(lines))
    for metric, value in evaluation_base.summarize(scores).items():
      metrics[f'eval/{name}/{metric}'] = value
    for curve, points in evaluation_base.curves(scores).items():
      curves[f'eval/{name}/{curve}'] = points
  return metrics, curves


def _plain(score: evaluation_base.Score) -> dict[str, Any]:
  """A score as JSON values; `along` is there for points of curves only."""
  values = score._asdict()
  if score.along is None:
    del values['along']
  return values
