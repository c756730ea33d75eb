"""Full fine-tuning or low-rank adaptation? An LM learns a language.

The base LM and its tokenizer know English, French and Spanish; Italian is new
to both. See README.md beside this file for the question, controls and results.
"""

from audiolm_jax import param_transforms
from audiolm_jax.lab import questions
from audiolm_jax.lab import stages
from audiolm_jax.training import optimizers
from experiments import speech

NEW = 'it'
_CORPUS = speech.PROMPTS

# Steps, clips of Italian to learn from, seeds, clips to evaluate on, rates.
_SMOKE = {
    'steps': 3,
    'examples': 32,
    'seeds': 2,
    'clips': 8,
    'full': (1e-3,),
    'lora': (3e-3,),
}
_CPU = {
    'steps': 60,
    'examples': 128,
    'seeds': 3,
    'clips': 120,
    'full': (3e-4, 1e-3, 3e-3),
    'lora': (1e-3, 3e-3, 1e-2),
}
_SIZES = {'smoke': _SMOKE, 'cpu': _CPU, 'gpu': _CPU, 'pod': _CPU}
_UNMERGED = 'adapters are not merged; merged into the weights they cost nothing'
_MISMATCHES = {
    'trainable_params': 'how few may train is the question',
    'params': 'adapters come on top of the base',
    'active_params': 'adapters come on top of the base',
    'training_flops': (
        'examples and steps are matched; adapters need no gradient of the'
        ' base weights, but add their own products'
    ),
    'scoring_flops': _UNMERGED,
    'generation_flops': _UNMERGED,
}


def question(budget: str) -> questions.Question:
  """The experiment at a budget: 'smoke', 'cpu', 'gpu' or 'pod'."""
  sizes = _SIZES[budget]
  old = _CORPUS.tokens(budget)
  new = _CORPUS.tokens(budget, of=(NEW,), name=f'tokens_{NEW}')
  base = _CORPUS.lm(budget, old, name='base')
  spec = speech.spec(budget)

  def arm(name, transform, rates, text):
    stage = _CORPUS.lm(
        budget,
        new,
        {
            'data.languages': (NEW,),
            'data.limit': sizes['examples'],
            # They are the base's.
            'objective.init_embeddings': False,
            **speech.lasting(sizes['steps']),
            'log_every': max(1, sizes['steps'] // 20),
            'models.lm.init_from': stages.output(base.name),
            'models.lm.schedule': optimizers.Cosine(
                learning_rate=rates[0], warmup_steps=sizes['steps'] // 10
            ),
            # What differs between the arms:
            'models.lm.param_transform': transform,
        },
        inputs=(base,),
    )
    return questions.Arm(
        name, stage, grid={speech.RATE: rates}, description=text
    )

  arms = (
      arm(
          'full', param_transforms.Full(), sizes['full'], 'every weight trains'
      ),
      *[
          arm(
              f'lora_{rank}',
              param_transforms.Lora(rank=rank, alpha=2.0 * rank, targets=('',)),
              sizes['lora'],
              f'rank-{rank} updates of every matrix, alpha {2 * rank}',
          )
          for rank in (4, 16)
      ],
  )
  return questions.Question(
      name='adaptation',
      title='Full fine-tuning or LoRA?',
      text=(
          'A language model over audio tokens knows English, French and'
          ' Spanish. It is adapted to Italian, which neither it nor its'
          f' tokenizer has heard, from the same {sizes["examples"]} clips in'
          ' the same number of steps, batches and orders (by seed). What'
          ' differs: which parameters train, and in which form; the learning'
          ' rate is chosen for each arm on Italian validation clips. Seeds'
          ' vary data order, crops, dropout and adapters; base model,'
          ' tokenizer and the clips to learn from are one draw, so the'
          ' intervals hold given these.'
      ),
      arms=arms,
      baseline='full',
      validate=speech.measure(
          'validation', {NEW: _CORPUS.bits('validation', sizes['clips'])}
      ),
      select=f'eval/{NEW}/bits_per_frame',
      test=speech.measure(
          'test',
          {
              NEW: _CORPUS.bits('test', sizes['clips'], new),
              'old': _CORPUS.bits('test', sizes['clips'], old),
          },
          (new, old),
      ),
      outcomes=(
          questions.Outcome(
              'gain',
              f'eval/{NEW}/bits_per_frame',
              'bits/frame',
              'fewer bits a frame of held-out Italian than the base needs',
              sign=-1,
              better='higher',
              margin=0.1,
              likelihood=True,
          ),
          questions.Outcome(
              'forgetting',
              'eval/old/bits_per_frame',
              'bits/frame',
              'more bits a frame of held-out en, fr, es than the base needs',
              margin=0.1,
              likelihood=True,
          ),
      ),
      contrasts=(
          ('lora_4', 'full'),
          ('lora_16', 'full'),
          ('lora_16', 'lora_4'),
      ),
      differences={
          'models.lm.param_transform': 'which parameters train is the question'
      },
      mismatches=_MISMATCHES,
      seeds=sizes['seeds'],
      row_seconds=arms[0].stage.config.data.frames / spec.frame_rate,
      bits_per_second=spec.bits_per_second,
      null='what trains does not matter at 60 steps',
      base=base,
  )
