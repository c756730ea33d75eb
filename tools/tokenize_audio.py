"""Caches a corpus as tokens, with the tokenizer of a work directory.

  python tools/tokenize_audio.py --workdir=runs/quickstart/tokenizer \\
      --corpus=asterisk_prompts --out=runs/quickstart/tokens

Interrupted and run again, it goes on where it was. Run by several processes
(--shard=0/4 ... --shard=3/4), each does its share of the parts, and whichever is
last completes the cache.
"""

import sys
import time

from absl import app
from absl import flags

from audiolm_jax.training import launch

_WORKDIR = flags.DEFINE_string(
    'workdir', None, "The tokenizer's work directory.", required=True
)
_CORPUS = flags.DEFINE_string(
    'corpus', 'asterisk_prompts', 'Name of a built corpus, or a folder.'
)
_LANGUAGES = flags.DEFINE_list('languages', [], 'Which; empty for all.')
_SPLITS = flags.DEFINE_list(
    'splits', ['train', 'validation', 'test'], 'Which splits.'
)
_OUT = flags.DEFINE_string(
    'out', None, 'Directory of the token cache.', required=True
)
_BATCH_SECONDS = flags.DEFINE_float(
    'batch_seconds', 32.0, 'Audio of a batch, padding included.'
)
_LIMIT = flags.DEFINE_integer(
    'limit', None, 'At most so many clips of each split, for a quick look.'
)
_SHARD = flags.DEFINE_string('shard', '0/1', 'Which share of the work: i/n.')


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  # Late, as these take seconds: wrong flags are told at once.
  import audiolm_jax  # pylint: disable=g-import-not-at-top
  from audiolm_jax import config  # pylint: disable=g-import-not-at-top
  from audiolm_jax.tokenizers import caching  # pylint: disable=g-import-not-at-top
  from audiolm_jax.training import checkpoints  # pylint: disable=g-import-not-at-top

  start = time.monotonic()
  try:
    seconds = caching.fill(
        audiolm_jax.load(_WORKDIR.value),
        _OUT.value,
        corpus=_CORPUS.value,
        workdir=_WORKDIR.value,
        languages=tuple(_LANGUAGES.value),
        wanted=tuple(_SPLITS.value),
        batch_seconds=_BATCH_SECONDS.value,
        limit=_LIMIT.value,
        shard=tuple(map(int, _SHARD.value.split('/'))),
    )
  except (config.ConfigError, checkpoints.CheckpointError) as error:
    sys.exit(f'tokenize_audio: {error}')
  elapsed = time.monotonic() - start
  print(
      f'{_OUT.value}: {seconds / 60:.1f} min of audio in {elapsed:.0f} s'
      f' ({seconds / elapsed:.0f} times real time).'
  )


if __name__ == '__main__':
  launch.reexecute()
  app.run(main)
