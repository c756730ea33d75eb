"""How to factorise the codebooks of a frame? Patterns, depth, and their price.

Each arm orders the same codes of the same frames in another way. See README.md
beside this file for the question, controls and results.
"""

from audiolm_jax import patterns
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.decoders import heads
from audiolm_jax.lab import questions
from configs.lm import quickstart
from experiments import speech

# Seeds, held-out clips, rates tried, prompts to listen to.
_SMOKE = {'seeds': 2, 'clips': 8, 'rates': (2e-3,), 'listen': 1}
_CPU = {'seeds': 3, 'clips': None, 'rates': (1e-3, 2e-3, 4e-3), 'listen': 3}
_GPU = {**_CPU, 'rates': (1e-4, 3e-4, 1e-3)}
VARIANTS = tuple(speech.CORPORA)
_SIZES = {'smoke': _SMOKE, 'cpu': _CPU, 'gpu': _GPU, 'pod': _GPU}
# The depth transformer over the codes of a step.
_DEPTH = {
    'smoke': (32, 1, 2, 64),
    'cpu': (128, 2, 4, 512),
    'gpu': (384, 4, 6, 1536),
}
# (Width, hidden width) at which more steps cost what delay costs, and half of
# delay's.
_NARROW = {
    'smoke': {
        'flatten': (32, 128),
        'coarse_first': (48, 192),
        'delay': (32, 128),
    },
    'cpu': {
        'flatten': (120, 480),
        'coarse_first': (176, 704),
        'delay': (128, 512),
    },
    'gpu': {
        'flatten': (312, 1248),
        'coarse_first': (528, 1920),
        'delay': (384, 1536),
    },
}
_PATTERNS = {
    'delay': patterns.Delay(),
    'parallel': patterns.Parallel(),
    'coarse_first': patterns.CoarseFirst(parallel=True),
    'flatten': patterns.Flatten(),
}
_ORDER = 'steps, and what a step costs, are the question'
_SMALLER = 'some arms are narrower, so that their FLOPs are those of delay'
_SHORT = 'a control trains for half as long'


def question(budget: str, variant: str = '') -> questions.Question:
  """The experiment at a budget: 'smoke', 'cpu', 'gpu' or 'pod'."""
  spoken = speech.CORPORA[variant]
  sizes = _SIZES[budget]
  tokens = spoken.tokens(budget)
  spec = speech.spec(budget)
  base = quickstart.get_config(speech.size(budget))
  swept = {speech.RATE: sizes['rates']}

  def arm(name, pattern, text, changes=None, like=None):
    stage = spoken.lm(
        budget,
        tokens,
        {
            'models.lm.schedule.warmup_steps': base.steps // 10,
            # What differs between the arms:
            'objective.decoder.pattern': _PATTERNS[pattern],
            **(changes or {}),
        },
    )
    grid = {} if like else swept
    return questions.Arm(name, stage, grid, like, text)

  def narrow(pattern):
    width, hidden = _NARROW[speech.size(budget)][pattern]
    return {
        'objective.decoder.backbone.width': width,
        'objective.decoder.backbone.mlp.hidden': hidden,
    }

  depth = {'objective.decoder.head': _depth(budget)}
  arms = (
      arm('delay', 'delay', 'codebook k a frame later than k - 1'),
      arm('parallel', 'parallel', 'all codes of a frame at once', like='delay'),
      arm(
          'coarse_first',
          'coarse_first',
          'codebook 0 of all frames, then the others of each frame at once',
          like='delay',
      ),
      arm('flatten', 'flatten', 'one code a step', like='delay'),
      arm(
          'delay_depth',
          'delay',
          'delay, its codes of a step one by one through a depth transformer',
          depth,
          like='parallel_depth',
      ),
      arm(
          'parallel_depth',
          'parallel',
          'the codes of a frame one by one through a depth transformer',
          depth,
      ),
      arm(
          'coarse_first_equal',
          'coarse_first',
          'coarse first, narrower: the training FLOPs of delay',
          narrow('coarse_first'),
      ),
      arm(
          'flatten_equal',
          'flatten',
          'one code a step, narrower: the training FLOPs of delay',
          narrow('flatten'),
      ),
      arm('delay_half', 'delay', 'delay at half its width', narrow('delay')),
      arm(
          'delay_short',
          'delay',
          'delay at half its steps',
          speech.lasting(base.steps // 2),
          like='delay',
      ),
  )
  return questions.Question(
      name='codebook_patterns',
      variant=variant,
      title='How to factorise the codebooks of a frame?',
      text=(
          'A language model over four codebooks of audio tokens, trained from'
          ' nothing. What differs is the order in which it says the codes of a'
          ' frame: at once, a frame later each, coarse codes of the whole clip'
          ' first, one by one, and by a depth transformer within a step. The'
          ' factorisation is exact in each, so bits a frame compare. Data,'
          ' embeddings (which start from the codec), optimizer, steps and, by'
          ' seed, batches are the same. Arms that take more steps a frame cost'
          ' more; those called equal are narrower and cost what delay costs.'
          ' The learning rate is chosen on validation clips for five arms; the'
          ' others take that of delay or of parallel_depth. Hypotheses:'
          ' parallel, which takes the codes of a frame as independent given the'
          ' past, is worst; the depth transformer makes up for it at a tenth of'
          ' the cost of one code a step. Seeds vary data order, crops, dropout'
          ' and new parameters; tokenizer and corpus are one draw, so the'
          ' intervals hold given these.'
      ),
      arms=arms,
      baseline='delay',
      validate=speech.measure(
          'validation',
          {
              'held_out': spoken.bits(
                  'validation', min(100, sizes['clips'] or 100)
              )
          },
      ),
      select='eval/held_out/bits_per_frame',
      test=speech.measure('test', spoken.held_out(sizes['clips'])),
      outcomes=(
          questions.Outcome(
              'bits',
              'eval/test/bits_per_frame',
              'bits/frame',
              'what a frame of held-out clips costs; lower is better',
              margin=0.1,
              likelihood=True,
          ),
          questions.Outcome(
              'first codebook',
              'eval/test/bits_per_frame_codebook_0',
              'bits/frame',
              'its share for the first codebook',
              likelihood=True,
          ),
          questions.Outcome(
              'last codebook',
              'eval/test/bits_per_frame_codebook_3',
              'bits/frame',
              'its share for the fourth codebook',
              likelihood=True,
          ),
          *spoken.outcomes(),
      ),
      differences={
          'objective.decoder.pattern': 'the order is the question',
          'objective.decoder.head': 'so is the order within a step',
          'objective.decoder.backbone.width': _SMALLER,
          'objective.decoder.backbone.mlp.hidden': _SMALLER,
          **dict.fromkeys(speech.LENGTH, _SHORT),
      },
      mismatches={
          'params': _SMALLER,
          'active_params': _SMALLER,
          'trainable_params': _SMALLER,
          'training_flops': _ORDER,
          'scoring_flops': _ORDER,
          'generation_flops': _ORDER,
          'examples': _SHORT,
          'audio_seconds': _SHORT,
      },
      seeds=sizes['seeds'],
      row_seconds=arms[0].stage.config.data.frames / spec.frame_rate,
      bits_per_second=spec.bits_per_second,
      controls=(
          questions.Control(
              'delay_short',
              'delay',
              'bits',
              'higher',
              'bits still fall when training ends',
          ),
      ),
      null=(
          'at a few hundred steps the order of codes matters less than'
          ' differences of .1 bits a frame'
      ),
      references=spoken.references(),
      listen=speech.listen(tokens, sizes['listen']),
  )


def _depth(budget):
  """The depth transformer."""
  width, layers, count, hidden = _DEPTH[speech.size(budget)]
  return heads.Depth(
      backbone=stack_lib.Stack(
          width=width,
          layers=layers,
          scan=False,
          mixers=(attention.Attention(heads=count),),
          mlp=mlps.Dense(hidden=hidden, activation='relu'),
      )
  )
