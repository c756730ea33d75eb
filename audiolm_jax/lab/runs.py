"""Runs a question: sweeps, replicates, and what there is to listen to."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
from typing import Any

from audiolm_jax.lab import questions
from audiolm_jax.lab import runner
from audiolm_jax.lab import stages

# Called with a line for people.
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Sweep:
  """What was tried for an arm.

  Attributes:
    points: in the order in which they were tried; none where nothing is swept.
    scores: of each, the selected metric on validation.
    chosen: the best of them.
    at_edge: whether the best lies at an end of what was tried, so that a better
      one may lie beyond.
  """

  points: tuple[questions.Point, ...]
  scores: tuple[float, ...]
  chosen: questions.Point
  at_edge: bool


class Running:
  """A question in a work directory of stages.

  Attributes:
    question: what is asked.
    lab: where its stages are.
  """

  def __init__(
      self,
      question: questions.Question,
      lab: runner.Lab,
      shard: runner.Shard = runner.ALL,
      say: Say = print,
  ):
    """Runs nothing yet.

    Args:
      question: what is asked.
      lab: where its stages are.
      shard: the part of the runs that this process does first; it helps with
        the rest, so that a question does not wait for a machine that is gone.
      say: told of each stage before it runs.
    """
    self.question, self.lab = question, lab
    self._shard, self._say = shard, say
    self._wanted: list[stages.Stage] = []
    self._later: list[str] = []

  def run(self) -> dict[str, Sweep]:
    """Runs what is missing, and returns what the sweeps chose.

    Raises:
      stages.StageError: if a stage failed.
      stages.Interrupted: if a signal ended one; run again, it goes on.
    """
    chosen = self.sweep()
    points = {name: sweep.chosen for name, sweep in chosen.items()}
    # Without the base, what the others measured says nothing yet.
    tests = [self.base] if self.base is not None else []
    tests += [stage for _, _, stage in self.tests(points)]
    heard = [stage for _, stage in self.listening(points)]
    self._later = [stage.name for stage in heard]
    self._run(tests)
    self._later = []
    self._run(heard)
    self._clear(chosen)
    return chosen

  def sweep(self) -> dict[str, Sweep]:
    """Runs the sweeps: arm -> what was tried and chosen."""
    sweeping = [arm for arm in self.question.arms if arm.like is None]
    tried = {arm.name: arm.points() for arm in sweeping}
    for added in range(self.question.most_added + 1):
      runs = [
          self._validation(arm, point)
          for arm in sweeping
          if arm.grid
          for point in tried[arm.name]
      ]
      self._later = self._replicates()
      self._run(runs)
      grown = False
      for arm in sweeping:
        further = self._beyond(arm, tried[arm.name])
        if further is not None and added < self.question.most_added:
          tried[arm.name] = [*tried[arm.name], further]
          grown = True
      if not grown:
        break
    chosen = {arm.name: self._chosen(arm, tried[arm.name]) for arm in sweeping}
    for arm in self.question.arms:
      if arm.like is not None:
        chosen[arm.name] = chosen[arm.like]
    return chosen

  def known(self) -> dict[str, Sweep]:
    """What finished sweeps chose; arms that still sweep are left out.

    Runs nothing.
    """
    chosen = {}
    for arm in self.question.arms:
      source = arm if arm.like is None else self.question.arm(arm.like)
      sweep = self._known(source)
      if sweep is not None:
        chosen[arm.name] = sweep
    return chosen

  def _known(self, arm) -> Sweep | None:
    points = arm.points()
    for added in range(self.question.most_added + 1):
      stages_of = [self._validation(arm, p) for p in points if arm.grid]
      if any(self.lab.result(stage) is None for stage in stages_of):
        return None
      further = self._beyond(arm, points)
      if further is None or added == self.question.most_added:
        break
      points = [*points, further]
    return self._chosen(arm, points)

  def _replicates(self) -> list[str]:
    """Names of the stages that follow the sweeps."""
    names = []
    for arm in self.question.arms:
      names += [arm.stage.name, self.question.test(arm.stage).name]
    return names * self.question.seeds

  def _beyond(self, arm, points):
    if not arm.grid:
      return None
    return questions.beyond(points, self._chosen(arm, points).chosen)

  def _chosen(self, arm, points) -> Sweep:
    """The best of an arm's points; all of them have been measured."""
    if not arm.grid:
      return Sweep((), (), {}, False)
    scores = {
        i: self._metric(self._validation(arm, point), self.question.select)
        for i, point in enumerate(points)
    }
    chosen = points[questions.best(scores, self.question.mode)]
    edge = questions.beyond(points, chosen) is not None
    return Sweep(tuple(points), tuple(scores.values()), chosen, edge)

  def _metric(self, stage, name):
    metrics = self.lab.metrics(stage)
    if name not in metrics:
      raise questions.QuestionError(
          f'{self.question.name}: no metric {name!r} in what'
          f' {stage.name} gives: {sorted(metrics)}'
      )
    return metrics[name]

  def _validation(self, arm, point) -> stages.Stage:
    model = self.question.model(arm, point, self.question.SWEEP_SEED)
    return self.question.validate(model)

  def tests(
      self, points: Mapping[str, questions.Point]
  ) -> Iterator[tuple[str, int, stages.Stage]]:
    """(arm, seed, stage) of each measured replicate.

    Args:
      points: the arms' chosen points; arms without one are left out.
    """
    arms = [arm for arm in self.question.arms if arm.name in points]
    for seed in self.question.replicates:
      # Seed by seed: an interrupted question has whole blocks.
      for arm in arms:
        model = self.question.model(arm, points[arm.name], seed)
        yield arm.name, seed, self.question.test(model)

  @property
  def base(self) -> stages.Stage | None:
    """What measures the model that all arms start from."""
    if self.question.base is None:
      return None
    return self.question.test(self.question.base)

  def listening(
      self, points: Mapping[str, questions.Point]
  ) -> Iterator[tuple[str, stages.Stage]]:
    """(arm, stage) of what there is to hear of each arm's first seed."""
    if self.question.listen is None:
      return
    arms = [arm for arm in self.question.arms if arm.name in points]
    for arm in arms:
      seed = self.question.replicates[0]
      model = self.question.model(arm, points[arm.name], seed)
      yield arm.name, self.question.listen(model)

  def _run(self, wanted):
    """This process's share first, then whatever is still missing."""
    self._wanted = wanted
    self.lab.run(self._shard.of(wanted), self._note)
    self.lab.run(wanted, self._note)

  def _note(self, left):
    """Says what runs next, and how long what is left will take.

    What is left is that of all processes, shared among those at work.
    """
    missing = self.lab.missing(self._wanted)
    names = [stage.name for stage in missing] + self._later
    text = f'{left[0].folder}: {len(names)} stages left'
    seconds = self.lab.seconds()
    known = [seconds[name] for name in names if name in seconds]
    if known:
      # What never ran here is taken to be like the others.
      left_over = sum(known) * len(names) / len(known)
      workers = max(1, self.lab.at_work(missing))
      text += f', about {left_over / 60 / workers:.0f} min'
      text += f' with {workers} processes at work' if workers > 1 else ''
    self._say(text)

  def _clear(self, chosen):
    """Removes checkpoints that nothing needs any more.

    Those of each arm's first seed stay, to be loaded and listened to.
    """
    question = self.question
    for arm in question.arms:
      if arm.like is None:
        for point in chosen[arm.name].points:
          self.lab.clear(question.model(arm, point, question.SWEEP_SEED))
      for seed in question.replicates[1:]:
        self.lab.clear(question.model(arm, chosen[arm.name].chosen, seed))


def metrics(
    running: Running, points: Mapping[str, questions.Point]
) -> dict[str, dict[int, dict[str, Any]]]:
  """arm -> seed -> what its test gave, facts included; what is missing is not
  there."""
  results: dict[str, dict[int, dict[str, Any]]] = {}
  for arm, seed, stage in running.tests(points):
    result = running.lab.result(stage)
    if result is not None:
      results.setdefault(arm, {})[seed] = result
  return results
