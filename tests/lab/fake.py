"""A stage that costs nothing, and a question of such stages."""

import dataclasses

from audiolm_jax.lab import questions
from audiolm_jax.lab import stages

RATE = 'rate'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fake(stages.Stage):
  """'Trains' to a loss of its effect, its rate and its seed."""

  effect: float = 0.0
  rate: float = 1.0
  best: float = 1.0
  seed: int = 0

  def values(self):
    return [self.effect, self.rate, self.best, self.seed]

  def changed(self, changes):
    return dataclasses.replace(self, **changes)

  def run(self, directory, inputs):
    (directory / 'checkpoints').mkdir(exist_ok=True)
    with (directory / 'runs').open('a') as file:
      file.write('x')
    spread = 0.01 * ((self.seed * 7) % 5)
    off = abs(self.rate / self.best - 1)
    return {'metrics': {'loss': self.effect + off + spread}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Read(stages.Stage):
  """Measures a `Fake`: its own metrics again, with what it read."""

  split: str = 'test'

  def values(self):
    return [self.split, stages.output(self.inputs[0].name)]

  def run(self, directory, inputs):
    (model,) = self.inputs
    read = stages.placed(self.values(), inputs)[1]
    assert inputs[model.name].name in read
    return model.run(inputs[model.name], {})


def measure(split):
  return lambda model: Read(name=split, inputs=(model,), split=split)


def question(effects, **changes) -> questions.Question:
  """Arms 'a', 'b', ... of some effects; each has its best rate at 1."""
  arms = [
      questions.Arm(
          name,
          Fake(name='model', effect=effect),
          grid={RATE: (0.5, 1.0, 2.0)},
      )
      for name, effect in effects.items()
  ]
  values = {
      'name': 'fake',
      'title': 'Which is best?',
      'text': 'Made up.',
      'arms': tuple(arms),
      'baseline': arms[0].name,
      'validate': measure('validation'),
      'select': 'loss',
      'test': measure('test'),
      'outcomes': (
          questions.Outcome('loss', 'loss', 'nats', 'lower is better'),
      ),
      'differences': {},
      'mismatches': {},
      'seeds': 3,
      'row_seconds': 1.0,
      'bits_per_second': 0.0,
  }
  return questions.Question(**{**values, **changes})
