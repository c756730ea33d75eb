"""AudioLM's three stages (2209.03143): three models over one token cache.

python -m audiolm_jax.main --config=configs/lm/audiolm.py:semantic,cpu \
    --workdir=runs/audiolm/semantic

AudioLM models semantic tokens of w2v-BERT, then coarse and then fine tokens of
SoundStream, each stage given what the one before it made. Here there are no
tokens of w2v-BERT: **the codec's first codebook stands in for the semantic
tokens**. It is acoustic, too, so what these three stages show is the hierarchy,
not what semantic tokens add to it. With a codec whose first codebook is
distilled from a speech model (configs/codec/speechtokenizer_16khz.py), its
token cache makes them semantic without another change.

All three read the token cache that `tools/quickstart.py` makes
(runs/quickstart/tokens; give another by --config.data.cache), and are the
quickstart's in everything else. Slots are its codebooks, so that each stage's
bits a frame, and the baselines', are of the same codes as anywhere else.

| stage | a row | parameters | GFLOPs a step |
|---|---|---|---|
| semantic | codebook 1 | 3.7M | 23, 0.8 times the quickstart's |
| coarse | all of codebook 1, then 2 to 4 by frames | 5.2M | 108, 3.8 times |
| fine | codebooks 1 to 4 of its frames, then 5 to 8 | 7.3M | 106, 3.8 times |

How a frame sounds in detail is a matter of its neighbours: rows of the fine
stage are half as long as before.

Hardware: `:STAGE,cpu` 2 CPU cores. Their times, and the bits to expect, have
not been measured. `:STAGE,gpu` has the quickstart's budget for accelerators; it
was built and traced here, not run.
"""

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax import patterns
from audiolm_jax import train
from audiolm_jax.patterns import sequence as sequence_lib
from audiolm_jax.training import config_files
from configs.lm import quickstart


def _segment(label, slots, role):
  """Some codebooks, one after the other in each frame."""
  return sequence_lib.Segment(
      label=label, slots=tuple(slots), pattern=patterns.Flatten(), role=role
  )


# The codebooks that each stage reads, and its segments.
VARIANTS = {
    'semantic': (1, ()),
    'coarse': (
        4,
        (
            _segment('semantic', range(1), 'observe'),
            _segment('coarse', range(1, 4), 'predict'),
        ),
    ),
    'fine': (
        8,
        (
            _segment('coarse', range(4), 'observe'),
            _segment('fine', range(4, 8), 'predict'),
        ),
    ),
}


def get_config(arg: str = 'semantic,cpu') -> train.Config:
  """The config; `arg` is one of `VARIANTS` and a size."""
  name, size = config_files.choose(arg, VARIANTS, config_files.SIZES)
  codebooks, segments = VARIANTS[name]
  base = quickstart.get_config(size)
  shared = {
      'vocabularies': (1024,) * codebooks,
      'backbone': base.objective.decoder.backbone,
  }
  if segments:
    sequence = sequence_lib.Sequence(segments=segments)
    decoder = decoders.Staged(sequence=sequence, **shared)
  else:
    decoder = decoders.Decoder(pattern=patterns.Parallel(), **shared)
  frames = 512 if size == 'gpu' else 128
  if name == 'fine':
    frames //= 2
  return config.replace(
      base,
      {
          'objective.decoder': decoder,
          'data.frames': frames,
          'evaluators.lm.clips.max_frames': frames,
      },
  )
