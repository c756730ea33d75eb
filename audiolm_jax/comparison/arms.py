"""Arms of a comparison, their budgets, and the refusal of unequal ones."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

from audiolm_jax.comparison import report as report_lib


@dataclasses.dataclass(frozen=True)
class Budget:
  """What an arm spends; it stands in every result row.

  Attributes:
    params: parameters of the model, adapters included.
    trainable_params: those that gradients reach.
    training_flops: of the whole training run, forward and backward
      (`training.costs`), learning rate sweeps not included.
    inference_flops: for one second of audio scored, head evaluations and
      guidance passes counted.
    examples: training examples drawn, with repetition.
    audio_seconds: of audio that they stand for, at most.
    bits_per_second: of the tokens that are modelled.
  """

  params: float
  trainable_params: float
  training_flops: float
  inference_flops: float
  examples: float
  audio_seconds: float
  bits_per_second: float


BUDGETS = tuple(field.name for field in dataclasses.fields(Budget))


class UnequalBudgets(ValueError):
  """Arms spend differently without saying that they mean to."""


@dataclasses.dataclass(frozen=True)
class Arm:
  """One side of a comparison.

  Attributes:
    name: of the arm.
    configure: gives the `train.Config` at a learning rate, complete but for the
      seed and the evaluators.
    learning_rates: ascending, swept on validation.
    description: one line for the report.
  """

  name: str
  configure: Callable[[float], Any]
  learning_rates: tuple[float, ...]
  description: str = ''


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What is claimed about: a metric, or its difference from the base model's.

  Attributes:
    name: 'gain', 'forgetting'.
    metric: 'eval/<evaluator>/<metric>' of `Question.test`.
    sign: -1 if lower values of the metric are more of the outcome.
    unit: such as 'bits/frame'.
    description: one line for the report.
  """

  name: str
  metric: str
  sign: int
  unit: str
  description: str

  @property
  def evaluator(self) -> str:
    return self.metric.split('/')[1]

  @property
  def score(self) -> str:
    return self.metric.split('/', 2)[2]


@dataclasses.dataclass(frozen=True)
class Question:
  """A controlled experiment: arms that differ in one thing.

  Attributes:
    title: of the report.
    text: the question and its controls, in prose.
    base: work directory of the model that all arms start from. None: they
      start from nothing, and outcomes are metrics, not differences.
    arms: what is compared.
    seeds: of each arm, at its best learning rate.
    sweep_seed: of the sweep's runs; none of `seeds`, so that what was chosen
      by luck is not reported.
    validation: evaluators of the sweep, by name as in `train.Config`.
    select: metric of `validation` that the sweep minimises.
    test: evaluators of the result, by name as in `train.Config`.
    outcomes: what is claimed about.
    contrasts: pairs of arms (a, b); outcomes are compared as a - b.
    row_seconds: audio that a row of a batch stands for, at most.
    bits_per_second: of the tokens that are modelled.
    allowed_mismatches: budgets in which the arms may differ, and why.
    references: label -> metric of `test` that is the same for all arms, such as
      a count-based model's.
    listen: adds to a report what the run in a work directory is heard of; it is
      called for each arm's first seed.
  """

  title: str
  text: str
  base: str | None
  arms: tuple[Arm, ...]
  seeds: tuple[int, ...]
  sweep_seed: int
  validation: dict[str, Any]
  select: str
  test: dict[str, Any]
  outcomes: tuple[Outcome, ...]
  contrasts: tuple[tuple[str, str], ...]
  row_seconds: float
  bits_per_second: float
  allowed_mismatches: dict[str, str]
  references: dict[str, str] = dataclasses.field(default_factory=dict)
  listen: Callable[[pathlib.Path, report_lib.Report], None] | None = None

  def only(self, names: Sequence[str]) -> 'Question':
    """The question about some of its arms.

    Raises:
      ValueError: for names that are no arms.
    """
    known = [arm.name for arm in self.arms]
    unknown = sorted(set(names) - set(known))
    if unknown:
      raise ValueError(f'{unknown} are not arms; known: {known}')
    return dataclasses.replace(
        self,
        arms=tuple(arm for arm in self.arms if arm.name in names),
        contrasts=tuple(c for c in self.contrasts if set(c) <= set(names)),
    )


@dataclasses.dataclass(frozen=True)
class Row:
  """One trained and evaluated arm at one seed.

  Attributes:
    arm: its name.
    seed: of data order and new parameters.
    settings: what the sweep chose (such as the learning rate).
    metrics: name -> value on held-out items.
    budget: what it spent.
    seconds: wall time of training and evaluation, for information only.
  """

  arm: str
  seed: int
  settings: dict[str, Any]
  metrics: dict[str, float]
  budget: Budget
  seconds: float

  def to_dict(self) -> dict[str, Any]:
    return dataclasses.asdict(self)

  @classmethod
  def from_dict(cls, values: Mapping[str, Any]) -> 'Row':
    return cls(**{**values, 'budget': Budget(**values['budget'])})


def check_budgets(
    budgets: Mapping[str, Budget],
    allowed_mismatches: Mapping[str, str],
    tolerance: float = 0.02,
) -> dict[str, dict[str, float]]:
  """Refuses arms whose budgets differ, unless each difference is declared.

  Args:
    budgets: arm -> what it spends.
    allowed_mismatches: budget name -> why the arms may differ in it.
    tolerance: relative difference that still counts as equal.

  Returns:
    The declared budgets that do differ: name -> {arm: value}.

  Raises:
    UnequalBudgets: naming each undeclared budget with every arm's value.
    ValueError: if `allowed_mismatches` names something that is not a budget.
  """
  unknown = sorted(set(allowed_mismatches) - set(BUDGETS))
  if unknown:
    raise ValueError(f'{unknown} are not budgets; known: {list(BUDGETS)}')
  differing = {}
  for name in BUDGETS:
    values = {arm: getattr(budget, name) for arm, budget in budgets.items()}
    low, high = min(values.values()), max(values.values())
    if high - low > tolerance * abs(high):
      differing[name] = values
  undeclared = {
      k: v for k, v in differing.items() if k not in allowed_mismatches
  }
  if undeclared:
    lines = [
        f'  {name}: ' + ', '.join(f'{arm} {v:.4g}' for arm, v in values.items())
        for name, values in undeclared.items()
    ]
    raise UnequalBudgets(
        'The arms do not spend the same:\n'
        + '\n'.join(lines)
        + '\nMatch them, or declare in `allowed_mismatches` why they differ.'
    )
  return differing
