"""What a question is: arms, what is swept, what is claimed, what is held fixed."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import itertools
import math
from typing import Any, Literal

from audiolm_jax.lab import curves as curves_lib
from audiolm_jax.lab import stages

# A point of an arm's grid: values by field.
Point = Mapping[str, Any]
# Of a model's stage, the stage that measures it.
Measure = Callable[[stages.Stage], stages.Stage]


class QuestionError(ValueError):
  """A question whose parts do not fit each other."""


@dataclasses.dataclass(frozen=True)
class Arm:
  """One side of a comparison.

  Attributes:
    name: of the arm.
    stage: what trains (or makes) the model, at the end of its chain.
    grid: values to sweep, by field: 'models.lm.schedule.learning_rate' of
      `stage`, or 'tokenizer:objective.weight' of the stage called 'tokenizer'.
      Numbers ascend; where the best is the least or the largest, the sweep
      goes on beyond it (see `Question.most_added`).
    like: the arm whose choice it takes instead of sweeping.
    description: one line for the report.
  """

  name: str
  stage: stages.Stage
  grid: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
  like: str | None = None
  description: str = ''

  def points(self) -> list[dict[str, Any]]:
    """All of the grid; one empty point where nothing is swept."""
    values = itertools.product(*self.grid.values())
    return [dict(zip(self.grid, point, strict=True)) for point in values]

  def at(self, point: Point, seeds: Mapping[str, int]) -> stages.Stage:
    """Its stage at a point of the grid.

    Args:
      point: values by field, as in `grid`.
      seeds: stage name -> its config's seed.
    """
    changes = {name: {'seed': seed} for name, seed in seeds.items()}
    for field, value in point.items():
      name, path = self.located(field)
      changes.setdefault(name, {})[path] = value
    return self.stage.with_changes(changes)

  def located(self, field: str) -> tuple[str, str]:
    """The stage of a field, and its path there: 'PATH' is of the arm's own."""
    name, _, path = field.rpartition(':')
    return name or self.stage.name, path


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What is claimed about: a metric, or its difference from the base's.

  Attributes:
    name: 'gain', 'forgetting'.
    metric: of the result of `Question.test`.
    unit: such as 'bits/frame'.
    description: one line for the report.
    sign: -1 if lower values of the metric are more of the outcome.
    better: whether less or more of the outcome is better.
    margin: differences smaller than this are none; fixed before the run. None
      where no equality is to be claimed.
    likelihood: whether it is bits or nats of a decoder: then no arm's decoder
      may be without a likelihood, and one that has a bound can only be shown
      to be better than an exact one.
    of: the arms that have it, where others do not, such as those without a
      likelihood; empty for all.
  """

  name: str
  metric: str
  unit: str
  description: str
  sign: int = 1
  better: Literal['lower', 'higher'] = 'lower'
  margin: float | None = None
  likelihood: bool = False
  of: tuple[str, ...] = ()

  def has(self, arm: str) -> bool:
    """Whether an arm has it."""
    return not self.of or arm in self.of


@dataclasses.dataclass(frozen=True)
class Control:
  """A contrast whose answer is known beforehand.

  Attributes:
    a: an arm.
    b: another.
    outcome: name of the outcome.
    expected: of a - b: above zero or below it.
    reason: why that is known.
  """

  a: str
  b: str
  outcome: str
  expected: Literal['higher', 'lower']
  reason: str


@dataclasses.dataclass(frozen=True)
class Question:
  """A controlled experiment: arms that differ in one thing.

  Attributes:
    name: of its folder.
    title: of the report.
    text: the question, its hypothesis and its controls, in prose.
    arms: what is compared.
    baseline: the arm that the others are held against.
    validate: measures a model of the sweep, on validation.
    select: the metric of `validate` by which a point is chosen.
    test: measures the chosen models, on held-out items.
    outcomes: what is claimed about.
    differences: what the arms' stages may differ in: a path, such as
      'objective.decoder.backbone' or 'tokenizer:objective', and why.
    mismatches: budgets in which the arms may differ, and why.
    seeds: how many of each arm, at its best point.
    row_seconds: audio that a row of a batch stands for, at most.
    bits_per_second: of the tokens that are modelled.
    contrasts: pairs of arms (a, b), compared as a - b; empty for every arm
      against the baseline.
    controls: contrasts whose answer is known: where one of them is not found,
      the question says 'insensitive'.
    null: how no difference would be read; written before the run.
    base: a stage of the model that all arms start from: outcomes are then
      differences from what `test` measures of it.
    seeded: names of stages whose seed varies with the replicate, beside the
      arm's own stage.
    mode: whether `select` is to be small or large.
    most_added: points that a sweep may add beyond its ends.
    references: label -> metric of `test` that is the same for all arms, such
      as a count-based model's.
    listen: of a model's stage, a stage that makes audio to listen to.
    curves: outcomes that are curves. Those that `test` gives beside these are
      drawn too, and nothing is claimed of them.
    variant: which, where one folder asks several questions that are alike, such
      as of several corpora; '' for the first of them.
    partial: whether arms were left out, by `only`: then what is declared may be
      about those.
  """

  name: str
  title: str
  text: str
  arms: tuple[Arm, ...]
  baseline: str
  validate: Measure
  select: str
  test: Measure
  outcomes: tuple[Outcome, ...]
  differences: Mapping[str, str]
  mismatches: Mapping[str, str]
  seeds: int
  row_seconds: float
  bits_per_second: float
  contrasts: tuple[tuple[str, str], ...] = ()
  controls: tuple[Control, ...] = ()
  null: str = ''
  base: stages.Stage | None = None
  seeded: tuple[str, ...] = ()
  mode: Literal['min', 'max'] = 'min'
  most_added: int = 3
  references: Mapping[str, str] = dataclasses.field(default_factory=dict)
  listen: Measure | None = None
  curves: tuple[curves_lib.Curve, ...] = ()
  variant: str = ''
  partial: bool = False

  # The sweep's seed; none of the others, so that what was chosen by luck is
  # not reported.
  SWEEP_SEED = 1000

  def __post_init__(self):
    names = [arm.name for arm in self.arms]
    if len(set(names)) != len(names):
      raise QuestionError(f'{self.name}: two arms have one name: {names}')
    if self.seeds < 1:
      raise QuestionError(f'{self.name}: seeds = {self.seeds}: at least 1')
    outcomes = {outcome.name: outcome for outcome in self.outcomes}
    used = [self.baseline, *itertools.chain(*self.contrasts)]
    used += [arm.like for arm in self.arms if arm.like is not None]
    used += itertools.chain(*[outcome.of for outcome in self.outcomes])
    for control in self.controls:
      used += [control.a, control.b]
      if control.outcome not in outcomes:
        raise QuestionError(
            f'{self.name}: a control is about {control.outcome!r}: expected'
            f' one of {sorted(outcomes)}'
        )
      for name in (control.a, control.b):
        if not outcomes[control.outcome].has(name):
          raise QuestionError(
              f'{self.name}: a control is about {control.outcome!r}, which'
              f' {name!r} has not'
          )
    for curve in self.curves:
      used += [*curve.along, *curve.of]
    titles = [curve.name for curve in self.curves]
    if len({*titles, *outcomes}) != len(titles) + len(self.outcomes):
      raise QuestionError(
          f'{self.name}: outcomes and curves of one name: {titles}'
      )
    unknown = sorted(set(used) - set(names))
    if unknown:
      raise QuestionError(f'{self.name}: {unknown} are not arms: {names}')
    for arm in self.arms:
      self._check_arm(arm)

  def _check_arm(self, arm):
    if arm.like is not None and (arm.grid or self.arm(arm.like).like):
      raise QuestionError(
          f'{self.name}: the arm {arm.name!r} takes the choice of'
          f' {arm.like!r}: it has no grid, and that arm must sweep'
      )
    for field, values in arm.grid.items():
      if not values:
        raise QuestionError(f'{self.name}: {arm.name}: {field} has no values')
      numbers = all(isinstance(value, float) for value in values)
      if numbers and list(values) != sorted(set(values)):
        raise QuestionError(
            f'{self.name}: {arm.name}: {field} = {values}: expected ascending'
            ' numbers'
        )

  def arm(self, name: str) -> Arm:
    """The arm of a name."""
    (arm,) = [arm for arm in self.arms if arm.name == name]
    return arm

  @property
  def pairs(self) -> tuple[tuple[str, str], ...]:
    """The contrasts (a, b), compared as a - b."""
    if self.contrasts:
      return self.contrasts
    others = [arm.name for arm in self.arms if arm.name != self.baseline]
    return tuple((name, self.baseline) for name in others)

  @property
  def replicates(self) -> tuple[int, ...]:
    """The seeds of each arm."""
    return tuple(range(1, 1 + self.seeds))

  def planned(self, arm: Arm) -> stages.Stage:
    """An arm's stage at the first point of its grid, before any sweep."""
    source = arm if arm.like is None else self.arm(arm.like)
    return arm.at(source.points()[0], {})

  def model(self, arm: Arm, point: Point, seed: int) -> stages.Stage:
    """An arm's stage at a point and a seed."""
    names = [name for name in self.seeded if name in arm.stage.chain]
    return arm.at(point, dict.fromkeys([*names, arm.stage.name], seed))

  def only(self, names: Sequence[str]) -> 'Question':
    """The question about some of its arms.

    Raises:
      QuestionError: for names that are no arms, or without the baseline.
    """
    known = [arm.name for arm in self.arms]
    unknown = sorted(set(names) - set(known))
    if unknown:
      raise QuestionError(f'{unknown} are not arms; known: {known}')
    needed = {self.arm(name).like for name in names} | {self.baseline}
    missing = sorted(needed - set(names) - {None})
    if missing:
      raise QuestionError(f'{sorted(names)} need {missing} beside them')
    return dataclasses.replace(
        self,
        partial=self.partial or set(names) != set(known),
        arms=tuple(arm for arm in self.arms if arm.name in names),
        contrasts=tuple(c for c in self.contrasts if set(c) <= set(names)),
        controls=tuple(c for c in self.controls if {c.a, c.b} <= set(names)),
        outcomes=tuple(
            dataclasses.replace(
                o, of=tuple(name for name in o.of if name in names)
            )
            for o in self.outcomes
            if not o.of or set(o.of) & set(names)
        ),
        curves=tuple(
            dataclasses.replace(
                c,
                along={k: v for k, v in c.along.items() if k in names},
                of=tuple(name for name in c.of if name in names),
            )
            for c in self.curves
            if not (c.along or c.of) or {*c.along, *c.of} & set(names)
        ),
    )


def best(scores: Mapping[int, float], mode: str) -> int:
  """The index of the best of scores; the first of equal ones.

  Raises:
    QuestionError: if none is finite.
  """
  finite = {i: s for i, s in scores.items() if math.isfinite(s)}
  if not finite:
    raise QuestionError(f'no score of the sweep is finite: {dict(scores)}')
  sign = 1 if mode == 'min' else -1
  return min(finite, key=lambda i: (sign * finite[i], i))


def beyond(points: Sequence[Point], chosen: Point) -> dict[str, Any] | None:
  """A point past the end of a sweep that has its best at that end.

  For each swept field with numbers above 0 the next is as far, in ratio, as
  the last two; None where the best lies between others (or nothing swept can
  go on).

  Args:
    points: that were tried.
    chosen: the best of them.
  """
  for field, value in chosen.items():
    values = sorted(
        {
            point[field]
            for point in points
            # Along this field: the others as in the best.
            if all(point[k] == chosen[k] for k in chosen if k != field)
            and isinstance(point[field], float)
        }
    )
    if len(values) < 2 or values[0] <= 0 or not isinstance(value, float):
      continue
    if value == values[0]:
      return {**chosen, field: value * (values[0] / values[1])}
    if value == values[-1]:
      return {**chosen, field: value * (values[-1] / values[-2])}
  return None
