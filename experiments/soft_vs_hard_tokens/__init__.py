"""Hard or soft: a softmax over classes, or a density, for samples of audio?

The first half of the question: heads over one WaveNet, in bits a sample, and
noise of known entropy that must crown the head which it is made for. See README.md
beside this file for the question, controls and results.
"""

from typing import Any

from audiolm_jax import config
from audiolm_jax import evaluation
from audiolm_jax.lab import questions
from audiolm_jax.lab import stages
from configs.lm import wavenet
from experiments import speech
from experiments.soft_vs_hard_tokens import noise

# Variant -> bits of the grid, the head that it is made for, and another one that
# must need more. None for real speech, of which nobody knows.
_NOISES = {
    'gaussian': (16, 'gaussian', 'mu_law'),
    'laplace': (16, 'logistics', 'gaussian'),
    'levels': (8, 'mu_law', 'logistics'),
}
VARIANTS = ('', *_NOISES)
_HEADS = {
    'mu_law': 'a softmax over 256 mu-law classes: any shape, in steps',
    'logistics': 'a mixture of ten logistic distributions',
    'gaussian': 'one normal distribution',
}
# Seeds, learning rates, steps of noise, and clips: of noise, and in a test.
_SMOKE = {'seeds': 2, 'rates': (4e-3,), 'steps': 4, 'noise': 24, 'clips': 2}
_CPU = {
    'seeds': 3,
    'rates': (4e-3, 1.2e-2),
    'steps': 400,
    'noise': 60,
    'clips': 60,
}
_SIZES: dict[str, dict[str, Any]] = {
    'smoke': _SMOKE,
    'cpu': _CPU,
    'gpu': {**_CPU, 'rates': (3e-4, 1e-3)},
}
_SIZES['pod'] = _SIZES['gpu']
# Independent samples need no past.
_TINY = {'width': 8, 'skip': 16, 'dilations': (1,), 'cycles': 1}
_HEAD = 'the head is the question'
_INPUTS = 'samples come in as each head is published with'


def question(budget: str, variant: str = '') -> questions.Question:
  """The experiment at a budget: 'smoke', 'cpu', 'gpu' or 'pod'."""
  sizes = _SIZES[budget]
  made = _noise(variant, sizes) if variant else _speech(budget)

  def arm(name):
    settings = wavenet.get_config(f'{name},{speech.size(budget)}')
    changes: dict[str, Any] = {}
    if variant:
      changes = {
          **speech.lasting(sizes['steps']),
          'data.corpus': stages.output(made.name) + '/clips',
          'data.languages': (),
          'data.crop_seconds': 0.25,
          'objective.decoder.bits': _NOISES[variant][0],
          **{f'objective.decoder.stack.{k}': v for k, v in _TINY.items()},
          # Independent samples: what comes in says nothing.
          'objective.decoder.inputs': 'amplitude',
      }
    settings = config.replace(
        speech.unmeasured(settings),
        {
            'models.lm.schedule.warmup_steps': settings.steps // 10,
            **changes,
        },
    )
    stage = stages.Train(name='lm', inputs=(made,), config=settings)
    rates = {speech.RATE: sizes['rates']}
    return questions.Arm(name, stage, rates, description=_HEADS[name])

  arms = tuple(map(arm, _HEADS))
  clips = {
      'corpus': arms[0].stage.config.data.corpus,
      'languages': arms[0].stage.config.data.languages,
      'limit': sizes['clips'],
      'max_seconds': 4.0,
  }

  def measure(split, baselines=False):
    bits = evaluation.Bits(
        clips=evaluation.AudioClips(split=split, **clips), baselines=baselines
    )
    return lambda model: stages.Evaluate(
        name=f'bits_{split}', inputs=(model, made), evaluators={'test': bits}
    )

  measured, controls = measure('test', baselines=not variant), ()

  def test(model):
    stage = measured(model)
    if not variant:
      return stage
    # With the entropy of the noise beside it.
    return stages.Together(name='test', inputs=(stage, made))

  references = {
      'FLAC': 'eval/test/flac/bits_per_sample',
      'linear prediction': 'eval/test/linear_prediction/bits_per_sample',
  }
  if variant:
    _, best, worse = _NOISES[variant]
    references = {'entropy': 'entropy'}
    controls = (
        questions.Control(
            best, worse, 'bits', 'lower', f'{best} is what such noise asks for'
        ),
    )
  return questions.Question(
      name='soft_vs_hard_tokens',
      variant=variant,
      title='Hard or soft: classes or a density for samples?',
      text=_TEXT + (_NOISE_TEXT if variant else _SPEECH_TEXT),
      arms=arms,
      baseline='mu_law',
      contrasts=(
          ('logistics', 'mu_law'),
          ('gaussian', 'mu_law'),
          ('gaussian', 'logistics'),
      ),
      validate=measure('validation'),
      select='eval/test/bits_per_sample',
      test=test,
      outcomes=(
          questions.Outcome(
              'bits',
              'eval/test/bits_per_sample',
              'bits/sample',
              'what a sample of held-out clips costs, on one grid',
              margin=0.02,
              likelihood=True,
          ),
      ),
      differences={
          'objective.decoder.head': _HEAD,
          **({} if variant else {'objective.decoder.inputs': _INPUTS}),
      },
      mismatches=dict.fromkeys(
          (
              'params',
              'active_params',
              'trainable_params',
              'training_flops',
              'scoring_flops',
              'generation_flops',
          ),
          'heads have outputs of other sizes, over one network',
      ),
      seeds=sizes['seeds'],
      row_seconds=arms[0].stage.config.data.crop_seconds,
      bits_per_second=0.0,
      controls=controls,
      null=(
          'a head of ten components bends to whatever a softmax of 256 classes'
          ' does, and neither costs more'
      ),
      references=references,
  )


_TEXT = (
    'A WaveNet over samples with three heads: a softmax over mu-law classes,'
    ' which assumes nothing about shape (van den Oord et al. 2016), a mixture of'
    ' ten logistic distributions (Salimans et al. 2017) and one normal'
    ' distribution (as ClariNet has). All give each level of one grid a'
    ' probability, so bits a sample compare. Network, data, steps and, by seed,'
    ' batches are the same; the learning rate is chosen for each head on'
    ' validation clips.'
)
_SPEECH_TEXT = (
    ' Of English prompts at 8 kHz and 16 bits. Hypothesis: the softmax, which'
    ' cannot tell the levels of a class apart, needs more than the mixture; one'
    ' normal distribution needs more than both, since speech is not normal even'
    ' given its past.'
)
_NOISE_TEXT = (
    ' Of independent samples of known distribution, on which a head can only be'
    ' right or wrong about the shape: normal noise asks for the normal'
    ' distribution, Laplace noise for something with heavier tails, and 41 levels'
    ' that are as likely as they happen to be for a softmax, on a grid of 8 bits'
    ' where each of its classes is one level. A head that is not crowned by its'
    ' own noise has not learnt, and its bits on speech would say nothing.'
)


def _speech(budget: str) -> stages.Command:
  """Builds the prompts that the config knows."""
  source = wavenet.get_config(f'mu_law,{speech.size(budget)}').data
  return speech.prepared('corpus', source.corpus, source.languages)


def _noise(variant: str, sizes) -> stages.Function:
  """Clips of noise."""
  return stages.Function(
      name='noise',
      function=noise.write,
      arguments={
          'kind': variant,
          'bits': _NOISES[variant][0],
          'clips': sizes['noise'],
      },
  )
