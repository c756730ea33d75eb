"""State spaces or attention? One language model, six backbones.

Each arm puts another mixer in the place of attention, from nothing, on the same
tokens. See README.md beside this file for the question, controls and results.
"""

from audiolm_jax.lab import questions
from configs.lm import quickstart
from configs.lm import state_spaces
from experiments import speech

# Seeds, held-out clips, rates tried, prompts to listen to.
_SMOKE = {'seeds': 2, 'clips': 8, 'rates': (2e-3,), 'listen': 1}
_CPU = {'seeds': 3, 'clips': None, 'rates': (1e-3, 2e-3, 4e-3), 'listen': 3}
_GPU = {**_CPU, 'rates': (1e-4, 3e-4, 1e-3)}
VARIANTS = (*speech.CORPORA, 'long')
_SIZES = {'smoke': _SMOKE, 'cpu': _CPU, 'gpu': _GPU, 'pod': _GPU}
_BACKBONES = {
    'transformer': 'causal attention, rotary positions',
    'lstm': 'one LSTM a layer, no perceptrons: the baseline',
    's4d': 'diagonal state spaces, blind to content',
    'mamba2': 'state spaces that choose by content, no perceptrons',
    'rg_lru': 'gated linear recurrences',
    'hybrid': 'two gated linear recurrences, one local attention',
}
# Those of the variant 'long', which trains four times as long, at the rate that
# the sweeps of the short ones chose for each of them.
_LONG = ('transformer', 'mamba2', 'hybrid')
_LONG_RATE = {speech.RATE: 2e-3}
_SHORT = 'a control trains for half as long'
_COSTS = 'parameters are matched, and a parameter of each mixer costs another'
_WIDTHS = 'matched to within 4%: widths come in steps'


def question(budget: str, variant: str = '') -> questions.Question:
  """The experiment at a budget: 'smoke', 'cpu', 'gpu' or 'pod'."""
  long = variant == 'long'
  spoken = speech.CORPORA['' if long else variant]
  sizes = _SIZES[budget]
  tokens = spoken.tokens(budget)
  spec = speech.spec(budget)

  def arm(name, text, changes=None, backbone=None):
    backbone = backbone or name
    if backbone == 'transformer':
      settings = quickstart.get_config(speech.size(budget))
    else:
      settings = state_spaces.get_config(f'{backbone},{speech.size(budget)}')
    stage = spoken.lm(
        budget,
        tokens,
        {
            # A tenth of the steps of warm-up.
            'models.lm.schedule.warmup_steps': settings.steps // 10,
            **(changes or {}),
        },
        settings=settings,
    )
    like = backbone if backbone != name else None
    grid = {} if long or like else {speech.RATE: sizes['rates']}
    return questions.Arm(name, stage, grid, like, text)

  base = quickstart.get_config(speech.size(budget))
  if long:
    changes = {**_LONG_RATE, **speech.lasting(4 * base.steps)}
    arms = tuple(arm(name, _BACKBONES[name], changes) for name in _LONG)
  else:
    arms = tuple(arm(name, text) for name, text in _BACKBONES.items())
    short = speech.lasting(base.steps // 2)
    text = 'attention at half its steps'
    arms += (arm('transformer_short', text, short, 'transformer'),)
  return questions.Question(
      name='state_spaces',
      variant=variant,
      title='State spaces or attention?',
      text=(
          'A language model over audio tokens, trained from nothing. What'
          ' differs is what mixes time in its layers; widths or layers are'
          ' chosen so that all have the same number of parameters. Data,'
          ' embeddings (which start from the codec), pattern, head, optimizer,'
          ' steps and, by seed, batches are the same; the learning rate is'
          ' chosen for each arm on validation clips (of the variant "long",'
          ' which trains four times as long, on those of the short runs). Seeds'
          ' vary data order, crops, dropout and new parameters; tokenizer and'
          ' corpus are one draw, so the intervals hold given these.'
      ),
      arms=arms,
      baseline='transformer',
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
          *spoken.outcomes(),
      ),
      contrasts=tuple(
          (name, other)
          for other in ('transformer', *([] if long else ['lstm']))
          for name in (_LONG if long else _BACKBONES)
          if name not in ('transformer', other)
      ),
      controls=()
      if long
      else (
          questions.Control(
              'transformer_short',
              'transformer',
              'bits',
              'higher',
              'bits still fall when training ends',
          ),
      ),
      differences={
          'objective.decoder.backbone': 'what mixes time is the question',
          **({} if long else dict.fromkeys(speech.LENGTH, _SHORT)),
      },
      mismatches={
          'params': _WIDTHS,
          'active_params': _WIDTHS,
          'trainable_params': _WIDTHS,
          'training_flops': _COSTS,
          'scoring_flops': _COSTS,
          'generation_flops': _COSTS,
          **(
              {}
              if long
              else dict.fromkeys(('examples', 'audio_seconds'), _SHORT)
          ),
      },
      seeds=sizes['seeds'],
      row_seconds=arms[0].stage.config.data.frames / spec.frame_rate,
      bits_per_second=spec.bits_per_second,
      null='at a few hundred steps on short clips what mixes time does not matter',
      references={
          **spoken.references(),
          'interpolated bigram, first codebook': (
              'eval/test/bigram/bits_per_frame_codebook_0'
          ),
      },
      listen=speech.listen(tokens, sizes['listen']),
  )
