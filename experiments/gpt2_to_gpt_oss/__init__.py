"""Which ingredients of modern language models matter for audio?

Arms are rungs of configs/lm/ladder.py, from GPT-2's block to gpt-oss's. See
README.md beside this file for the question, controls and results.
"""

from audiolm_jax.lab import questions
from configs.lm import ladder
from experiments import speech

# Seeds, held-out clips, rates tried, prompts to listen to.
_SMOKE = {'seeds': 2, 'clips': 8, 'rates': (2e-3,), 'listen': 1}
_CPU = {'seeds': 3, 'clips': None, 'rates': (1e-3, 2e-3, 4e-3), 'listen': 3}
_GPU = {**_CPU, 'rates': (1e-4, 3e-4, 1e-3)}
VARIANTS = tuple(speech.CORPORA)
_SIZES = {'smoke': _SMOKE, 'cpu': _CPU, 'gpu': _GPU, 'pod': _GPU}
# Rung -> the rung whose learning rate it takes, and what it is.
_RUNGS = {
    'gpt2': (None, "GPT-2's block: learned positions, LayerNorm, dense GELU"),
    'rope': ('gpt2', 'rotary positions'),
    'swiglu': (None, 'and RMSNorm, and gated perceptrons two thirds as wide'),
    'moe': (
        'gpt_oss',
        'and two query heads a key head, and 8 experts, 2 for each position',
    ),
    'gpt_oss': (
        None,
        'and windows, sinks, no dropout, the clamped gate, and YaRN',
    ),
    'without_experts': ('swiglu', 'gpt_oss with dense perceptrons'),
}
_EXPERTS = 'experts add parameters, of which a position meets as many'
_BLOCKS = 'widths are chosen against it; what is left is the block itself'
_SHORT = 'a control trains for half as long'


def question(budget: str, variant: str = '') -> questions.Question:
  """The experiment at a budget: 'smoke', 'cpu', 'gpu' or 'pod'."""
  spoken = speech.CORPORA[variant]
  sizes = _SIZES[budget]
  tokens = spoken.tokens(budget)
  spec = speech.spec(budget)

  def arm(name, text, rung, like=None, changes=None):
    settings = ladder.get_config(f'{rung},{speech.size(budget)}')
    changes = {
        # A tenth of the steps of warm-up.
        'models.lm.schedule.warmup_steps': settings.steps // 10,
        # Positions that are learned reach as far as held-out clips are padded.
        'objective.decoder.backbone.max_positions': 1024,
        **(changes or {}),
    }
    return questions.Arm(
        name,
        spoken.lm(budget, tokens, changes, settings=settings),
        {} if like else {speech.RATE: sizes['rates']},
        like,
        text,
    )

  rungs = [arm(name, text, name, like) for name, (like, text) in _RUNGS.items()]
  stack = rungs[0].stage.config.objective.decoder.backbone
  half = arm(
      'gpt2_half',
      'gpt2 at half its width',
      'gpt2',
      changes={
          'objective.decoder.backbone.width': stack.width // 2,
          'objective.decoder.backbone.mlp.hidden': stack.mlp.hidden // 2,
      },
  )
  short = arm(
      'gpt2_short',
      'gpt2 at half its steps',
      'gpt2',
      'gpt2',
      speech.lasting(rungs[0].stage.config.steps // 2),
  )
  return questions.Question(
      name='gpt2_to_gpt_oss',
      variant=variant,
      title='Which ingredients of modern language models matter for audio?',
      text=(
          "From GPT-2's block to gpt-oss's on the same audio tokens, from"
          ' nothing. What differs is the block: each arm has what the ones'
          ' before it have, and more; the last is gpt_oss without its experts.'
          ' Widths are chosen so that the FLOPs of a position stay. Data,'
          ' embeddings (which start from the codec), pattern, head, optimizer,'
          ' steps and, by seed, batches are the same; the learning rate is'
          ' chosen on validation clips at four arms, and the others take that'
          ' of the arm most like them. Hypotheses: rotary positions matter;'
          ' gates, experts and the rest are worth less than .1 bits a frame'
          ' each at this size. Seeds vary data order, crops, dropout and new'
          ' parameters; tokenizer and corpus are one draw, so the intervals'
          ' hold given these.'
      ),
      arms=(*rungs, half, short),
      baseline='gpt2',
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
      contrasts=(
          ('rope', 'gpt2'),
          ('swiglu', 'rope'),
          ('moe', 'swiglu'),
          ('gpt_oss', 'moe'),
          ('gpt_oss', 'without_experts'),
          ('gpt_oss', 'gpt2'),
          ('gpt2_half', 'gpt2'),
      ),
      differences={
          'objective.decoder.backbone': 'the block is the question',
          **dict.fromkeys(speech.LENGTH, _SHORT),
      },
      mismatches={
          'params': _EXPERTS,
          'active_params': _BLOCKS,
          'trainable_params': _EXPERTS,
          'training_flops': _BLOCKS,
          'scoring_flops': _BLOCKS,
          'generation_flops': _BLOCKS,
          'examples': _SHORT,
          'audio_seconds': _SHORT,
      },
      seeds=sizes['seeds'],
      row_seconds=rungs[0].stage.config.data.frames / spec.frame_rate,
      bits_per_second=spec.bits_per_second,
      controls=(
          questions.Control(
              'gpt2_short',
              'gpt2',
              'bits',
              'higher',
              'bits still fall when training ends',
          ),
      ),
      null='at a few hundred steps the ingredients do not matter',
      references=spoken.references(),
      listen=speech.listen(tokens, sizes['listen']),
  )
