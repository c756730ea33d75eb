"""What an arm spends, counted from shapes before anything trains."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import flax.linen as nn
import jax

from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax.lab import questions
from audiolm_jax.lab import stages
from audiolm_jax.models import segment_lm
from audiolm_jax.objectives import likelihood
from audiolm_jax.objectives import of_latents
from audiolm_jax.training import costs
from audiolm_jax.training import mesh as mesh_lib
from audiolm_jax.training import state as state_lib
from audiolm_jax.training import step as step_lib


@dataclasses.dataclass(frozen=True)
class Budget:
  """What a training stage spends; it stands in every result row.

  Attributes:
    params: parameters of the model, adapters included.
    active_params: those that a position meets: of experts, the share that it
      is sent to.
    trainable_params: those that gradients reach.
    training_flops: of the whole training run, forward and backward
      (`training.costs`), sweeps not included.
    scoring_flops: for one second of audio scored.
    generation_flops: for one second of audio generated, in a clip as long as a
      row of a batch: evaluations of heads and of what conditions become
      counted; of models that are sampled in steps, in as many as they take if
      not told otherwise. 0 for models that do not generate.
    examples: training examples drawn, with repetition.
    audio_seconds: of audio that they stand for, at most.
    bits_per_second: of the tokens that are modelled.
  """

  params: float
  active_params: float
  trainable_params: float
  training_flops: float
  scoring_flops: float
  generation_flops: float
  examples: float
  audio_seconds: float
  bits_per_second: float


NAMES = tuple(field.name for field in dataclasses.fields(Budget))


class UnequalBudgets(ValueError):
  """Arms spend differently without saying that they mean to."""


def of_arm(
    question: questions.Question, arm: questions.Arm
) -> dict[str, float]:
  """What an arm spends, by name.

  Budgets of the arm's own stage go by their names, those of other stages of
  its chain that train by 'stage.name'. Stages that all arms share are not in.
  """
  stage = question.planned(arm)
  shared = set.intersection(
      *[{each.key for each in a.stage.chain.values()} for a in question.arms]
  )
  spent = {}
  for name, each in stage.chain.items():
    if isinstance(each, stages.Train) and each.key not in shared:
      prefix = '' if each is stage else f'{name}.'
      budget = of_run(
          each.config, question.row_seconds, question.bits_per_second
      )
      spent |= {prefix + k: v for k, v in dataclasses.asdict(budget).items()}
  return spent


def of_run(
    settings: assembly_lib.Config, row_seconds: float, bits_per_second: float
) -> Budget:
  """What a run of a config spends.

  Args:
    settings: the run.
    row_seconds: audio that a row of a batch stands for, at most.
    bits_per_second: of the tokens that are modelled.
  """
  settings = config.build(assembly_lib.Config, settings)
  assembly = assembly_lib.Assembly(settings)
  objective, optimizers = assembly.objective, assembly.model_optimizers
  step = step_lib.Step(objective, optimizers, settings.accumulation)
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
  trainable = state_lib.size(assembly.abstract.trainable)
  params = trainable + state_lib.size(assembly.abstract.frozen)
  examples = settings.steps * settings.batch_size
  return Budget(
      params=params,
      active_params=params - _idle(assembly),
      trainable_params=trainable,
      training_flops=step_flops * settings.steps,
      scoring_flops=row_flops / row_seconds,
      generation_flops=_generation(assembly, row_seconds) / row_seconds,
      examples=examples,
      audio_seconds=examples * row_seconds,
      bits_per_second=bits_per_second,
  )


def _generation(assembly, seconds) -> float:
  """FLOPs of generating some seconds of audio; 0 where nothing is generated."""
  objective = assembly.objective
  name, description = objective.model
  if not isinstance(objective, likelihood.NLL | of_latents.OfLatents):
    return 0.0
  if description.rate is None:
    raise questions.QuestionError(
        'config.objective.rate = None, and tokens that are not made yet do not'
        ' say it: give it, as that of their tokenizer.'
    )
  variables = jax.eval_shape(assembly.variables, assembly.abstract)[name]
  model = description.bind(variables)
  if not isinstance(model, segment_lm.SegmentLM):
    return model.generation_flops(seconds)
  *others, _ = model.decoder.sequence.segments
  frames = {s.label: objective.lengths[s.label] for s in others}
  return model.generation_flops(seconds, frames)


def _idle(assembly) -> float:
  """Parameters of experts that a position is not sent to."""
  shares = set(_shares(config.to_config(assembly.config).to_dict()))
  if not shares:
    return 0.0
  if len(shares) > 1:
    raise questions.QuestionError(
        f'experts of several shares {sorted(shares)}: active parameters are'
        ' not counted for such models'
    )
  (share,) = shares
  size = 0
  for variables in jax.eval_shape(
      assembly.objective.init, jax.random.key(0)
  ).values():
    axes = mesh_lib.flat_axes(mesh_lib.logical_axes(variables['params']))
    shapes = nn.meta.unbox(variables['params'])
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
      if 'experts' in axes[mesh_lib.key(path)]:
        size += leaf.size
  return (1 - share) * size


def _shares(values: Any):
  """top_k / experts, wherever a config has both."""
  if isinstance(values, Mapping):
    if {'top_k', 'experts'} <= values.keys():
      yield values['top_k'] / values['experts']
    values = values.values()
  if isinstance(values, (list, tuple)) or not isinstance(
      values, (str, int, float, bool, type(None))
  ):
    for value in values:
      yield from _shares(value)


def check(
    spent: Mapping[str, Mapping[str, float]],
    mismatches: Mapping[str, str],
    tolerance: float = 0.02,
    partial: bool = False,
) -> dict[str, dict[str, float]]:
  """Refuses arms whose budgets differ, unless each difference is declared.

  Args:
    spent: arm -> what it spends, by name.
    mismatches: name -> why the arms may differ in it.
    tolerance: relative difference that still counts as equal.
    partial: whether these are not all arms that `mismatches` is about.

  Returns:
    The declared budgets that do differ: name -> {arm: value}.

  Raises:
    UnequalBudgets: naming each undeclared budget with every arm's value; or a
      declared one that is no budget, or in which no two arms differ.
  """
  names = sorted({name for budget in spent.values() for name in budget})
  differing = {}
  for name in names:
    # A stage that an arm has not is nothing spent.
    values = {arm: budget.get(name, 0.0) for arm, budget in spent.items()}
    low, high = min(values.values()), max(values.values())
    if high - low > tolerance * abs(high):
      differing[name] = values
  undeclared = {k: v for k, v in differing.items() if k not in mismatches}
  if undeclared:
    lines = [
        f'  {name}: ' + ', '.join(f'{arm} {v:.4g}' for arm, v in values.items())
        for name, values in undeclared.items()
    ]
    raise UnequalBudgets(
        'The arms do not spend the same:\n'
        + '\n'.join(lines)
        + '\nMatch them, or say in `mismatches` why they differ.'
    )
  unused = sorted(set(mismatches) - set(differing))
  if unused and not partial:
    raise UnequalBudgets(
        f'`mismatches` declares {unused}, in which the arms do not differ (or'
        f' which is no budget). Budgets: {names}'
    )
  return differing
