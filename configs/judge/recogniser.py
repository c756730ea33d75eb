"""Two recognisers of phones that share nothing, in minutes on two CPU cores.

for p in tokenizer lm; do python tools/prepare_data.py --corpus=speech_world \
    --languages=syllables-$p-clean-4000,syllables-$p-channels-4000; done
python tools/prepare_data.py --corpus=speech_world \
    --languages=sentences-lm-clean-4000,digits-lm-clean-400,matrix-lm-clean-4000
python -m audiolm_jax.main --config=configs/judge/recogniser.py:teacher,cpu \
    --workdir=runs/judges/teacher
python -m audiolm_jax.main --config=configs/judge/recogniser.py:judge,cpu \
    --workdir=runs/judges/judge

One may teach (its outputs, as features or targets), the other one only judges:
what was taught by a recogniser must not be judged by it. They differ in
speakers (of speech_world's pools `tokenizer` and `lm`), in front end (log-mel
every 10 ms; gammatone every 8 ms) and in seed. Both learn from `syllables`,
which have no words and no order, half of them behind drawn channels: so they
know nothing of what is likely to be said, and guess no word that was not
spoken. Their errors are on the third pool.

Hardware: 2 CPU cores, ten minutes each where they are idle (a step is .16 s).
Expect of the judge on clean clips of the third pool phone errors of 5.0%
(sentences), 6.4% (matrix) and 10.2% (digits), and by the nearest words
(`words_...`) word errors of 7.4, 2.2 and 2.6%; behind a telephone 13, 14 and 17%
of phones, pink noise at 10 dB 21, 18 and 28%, a room of .4 s 23, 22 and 27%,
white noise at 0 dB 52, 49 and 57%. docs/evaluation.md has intervals, and
the teacher's. `:gpu` was built and traced here, not trained.
"""

from audiolm_jax import data
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax import train
from audiolm_jax.models import front_ends
from audiolm_jax.models import recogniser as recogniser_lib
from audiolm_jax.training import checkpoints
from audiolm_jax.training import config_files
from audiolm_jax.training import optimizers

# Pool of speakers, front end and seed.
VARIANTS = {
    'judge': ('lm', front_ends.Gammatone(), 2),
    'teacher': ('tokenizer', front_ends.LogMel(), 1),
}
# Test clips of any pool are of speakers of `held_out`.
TESTS = {
    'sentences': 'sentences-lm-clean-4000',
    'digits': 'digits-lm-clean-400',
    'matrix': 'matrix-lm-clean-4000',
}


def get_config(arg: str = 'judge,cpu') -> train.Config:
  """The config; `arg` is 'teacher' or 'judge' and 'smoke', 'cpu' or 'gpu'."""
  role, size = config_files.choose(arg, VARIANTS, config_files.SIZES)
  pool, front_end, seed = VARIANTS[role]
  small = size == 'smoke'
  steps = {'smoke': 20, 'cpu': 4000, 'gpu': 20_000}[size]
  clips = 400 if small else 4000
  tests = {'sentences': 'sentences-lm-clean-400'} if small else TESTS
  limit = 10 if small else 200
  return train.Config(
      objective=objectives.CTC(
          recogniser=recogniser_lib.Recogniser(
              front_end=front_end,
              width={'smoke': 32, 'cpu': 160, 'gpu': 512}[size],
              blocks=2 if small else 6,
          )
      ),
      data=data.PhoneClips(
          languages=tuple(
              f'syllables-{pool}-{kind}-{clips}'
              for kind in ('clean', 'channels')
          ),
          speeds=(0.9, 1.0, 1.1),
          seconds=3.2,
      ),
      evaluators={
          **{
              name: evaluation.PhoneErrors(languages=(corpus,), limit=limit)
              for name, corpus in tests.items()
          },
          **{
              f'words_{name}': evaluation.ContentError(
                  language=name, languages=(corpus,), limit=limit
              )
              for name, corpus in tests.items()
          },
      },
      models={
          'recogniser': train.ModelTraining(
              optimizer=optimizers.AdamW(weight_decay=0.01),
              schedule=optimizers.Cosine(
                  learning_rate=1e-3 if size == 'gpu' else 2e-3,
                  warmup_steps=min(100, steps // 4),
              ),
              clip=1.0,
          )
      },
      seed=seed,
      steps=steps,
      batch_size={'smoke': 8, 'cpu': 16, 'gpu': 64}[size],
      log_every=16,
      eval_every=steps,
      checkpoint=checkpoints.Config(every=min(500, steps // 2)),
  )
