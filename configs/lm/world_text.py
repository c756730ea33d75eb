"""A model of what speech_world says, held against what it truly costs.

python -m audiolm_jax.main --config=configs/lm/world_text.py:sentences,cpu \
    --workdir=runs/world_text/sentences

Words are codes of one codebook, and a text ends with a code of its own:
`eval/text/bits_per_frame`, bits a word, stands beside `grammar/`, minus log2 of
the same test texts' true probability. A language model of audio can know no
more of what is said. `pairs` is the share of test sentences that the model
prefers to their ungrammatical twins, and a curve of it by the words between
noun and verb. Texts are drawn anew for every row, so nothing can be learnt by
heart.

Hardware: 2 CPU cores, 5 to 8 minutes for `sentences,cpu` (1500 steps). Expect
4.862 bits a word where the grammar costs 4.859, .07% more (95% interval of 1000
test sentences: .04 to .10%), 42.22 bits a sentence for 42.19; and all of 1000
pairs right, at every distance. `--evaluate --workdir=...` in place of `--config`
prints them again. Other sub-languages and `:gpu` were built and traced here, not
trained.
"""

from audiolm_jax import data
from audiolm_jax import decoders
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax import patterns
from audiolm_jax import train
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.data.speech_world import languages
from audiolm_jax.training import checkpoints
from audiolm_jax.training import config_files
from audiolm_jax.training import optimizers

VARIANTS = languages.LANGUAGES


def get_config(arg: str = 'sentences,cpu') -> train.Config:
  """The config; `arg` is a sub-language and 'smoke', 'cpu' or 'gpu'."""
  language, size = config_files.choose(arg, VARIANTS, config_files.SIZES)
  steps = {'smoke': 20, 'cpu': 1500, 'gpu': 20_000}[size]
  width = {'smoke': 32, 'cpu': 128, 'gpu': 512}[size]
  source = data.WorldTexts(language=language, frames=32)
  count = {'smoke': 40, 'cpu': 1000, 'gpu': 4000}[size]
  evaluators = {
      'text': evaluation.Bits(
          clips=evaluation.WorldTextClips(limit=count), baselines=True
      )
  }
  if language in ('sentences', 'sums'):  # In the others nothing is wrong.
    evaluators['pairs'] = evaluation.GrammarPairs(count=count)
  return train.Config(
      objective=objectives.NLL(
          decoder=decoders.Decoder(
              vocabularies=source.vocabularies,
              pattern=patterns.Parallel(),
              backbone=stack_lib.Stack(
                  width=width,
                  layers=2 if size != 'gpu' else 6,
                  mixers=(attention.Attention(heads=4),),
                  mlp=mlps.Dense(hidden=4 * width, activation='relu'),
              ),
          ),
          rate=3.0,  # About as many words as are spoken in a second.
      ),
      data=source,
      evaluators=evaluators,
      models={
          'lm': train.ModelTraining(
              optimizer=optimizers.AdamW(weight_decay=0.01),
              schedule=optimizers.Cosine(
                  learning_rate=3e-3, warmup_steps=min(100, steps // 4)
              ),
              clip=1.0,
          )
      },
      steps=steps,
      batch_size={'smoke': 8, 'cpu': 128, 'gpu': 512}[size],
      log_every=16,
      eval_every=steps,
      checkpoint=checkpoints.Config(every=min(500, steps // 2)),
  )
