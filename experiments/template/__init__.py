"""The least question: how wide must a small model be?

Copy this folder and change what it asks: nothing else needs an edit. See
`audiolm_jax.lab.questions.Question` for all that can be said. About a minute on
2 cores, most of it compiling.
"""

from audiolm_jax import config
from audiolm_jax import evaluation
from audiolm_jax.lab import questions
from audiolm_jax.lab import stages
from configs import toy

# How much is trained, how often, and which learning rates are tried.
_SIZES = {
    'smoke': {'steps': 20, 'seeds': 2, 'rates': (1e-2,)},
    'cpu': {'steps': 400, 'seeds': 5, 'rates': (3e-3, 1e-2, 3e-2)},
}
_SIZES['gpu'] = _SIZES['pod'] = _SIZES['cpu']
_RATE = 'models.mlp.schedule.learning_rate'


def question(budget: str) -> questions.Question:
  """The experiment at a budget: 'smoke', 'cpu', 'gpu' or 'pod'."""
  sizes = _SIZES[budget]

  def arm(width):
    settings = config.replace(
        toy.get_config(),
        {
            'steps': sizes['steps'],
            'evaluators': {},
            'checkpoint.best': None,
            # What differs between the arms:
            'objective.width': width,
        },
    )
    return questions.Arm(
        f'width_{width}',
        stages.Train(name='model', config=settings),
        grid={_RATE: sizes['rates']},
        description=f'hidden layers of {width} units',
    )

  def measure(model):
    return stages.Evaluate(
        name='error',
        inputs=(model,),
        evaluators={'toy': evaluation.ToyError()},
    )

  wider = 'the width is what is asked'
  return questions.Question(
      name='template',
      title='How wide must a small model be?',
      text=(
          'A perceptron learns the sine of a sum. What differs is the width of'
          ' its hidden layers; steps, batches and by seed their order are the'
          ' same, and each arm has the learning rate that is best for it.'
          ' Hypothesis: wider is better.'
      ),
      arms=tuple(map(arm, (8, 1, 16))),
      baseline='width_8',
      validate=measure,
      select='eval/toy/squared_error',
      test=measure,
      outcomes=(
          questions.Outcome(
              'error',
              'eval/toy/squared_error',
              'squared error',
              'on examples that no training has seen; lower is better',
              margin=0.02,
          ),
      ),
      differences={'objective.width': wider},
      mismatches={
          name: wider
          for name in (
              'params',
              'active_params',
              'trainable_params',
              'training_flops',
              'scoring_flops',
          )
      },
      seeds=sizes['seeds'],
      row_seconds=1.0,
      bits_per_second=0.0,
      controls=(
          questions.Control(
              'width_1',
              'width_8',
              'error',
              'higher',
              'one unit cannot bend as a sine of four inputs does',
          ),
      ),
      null='8 units are enough for this task at this number of steps',
  )
