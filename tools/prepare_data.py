"""Builds a corpus and prints its card.

  python tools/prepare_data.py --corpus=asterisk_prompts --languages=en,fr
  python tools/prepare_data.py --corpus=speech_world --languages=digits-lm-clean-4000
  python tools/prepare_data.py --corpus=speech_world --languages=sums-espeak_lm-channels-400
  python tools/prepare_data.py --corpus=/data/my_recordings

A folder's files may have any format, rate and length. FILE.txt beside FILE.wav
is its transcript, or a row of metadata.csv in the folder: `file` and any of
text, speaker, language, split. Without a split there, folders train/,
validation/ and test/ are the splits, and without those a part is held out by
itself. Recordings over 40 s become clips of up to 20 s.

Corpora go to $AUDIOLM_JAX_CACHE/data (default ~/.cache/audiolm_jax/data). What
is there already is not built again. A clip that can't be used is left out and
named in the card; --strict makes it an error. Exit status 69: the files of a
corpus can't be had here.
"""

import dataclasses
import json
import os
import pathlib
import sys
import time

from absl import app
from absl import flags

from audiolm_jax.data import building
from audiolm_jax.data import corpora
from audiolm_jax.data import debian
from audiolm_jax.training import writers

_CORPUS = flags.DEFINE_string(
    'corpus',
    'asterisk_prompts',
    f'One of {", ".join(corpora.BUILDERS)}, or a folder of audio files.',
)
_LANGUAGES = flags.DEFINE_list(
    'languages',
    [],
    'Which, of speech_world LANGUAGE-POOL-CHANNELS-CLIPS; empty for all.',
)
_CARDS = flags.DEFINE_string('cards', None, 'Also write the cards here, JSON.')
_STRICT = flags.DEFINE_bool('strict', False, 'End at the first bad clip.')


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  start = time.monotonic()
  try:
    cards = corpora.prepare(
        _CORPUS.value, _LANGUAGES.value or None, strict=_STRICT.value
    )
    if _CARDS.value:
      writers.write_atomically(
          pathlib.Path(_CARDS.value),
          json.dumps([dataclasses.asdict(card) for card in cards]),
      )
  except debian.CorpusUnavailable as error:
    # A status of its own, for who would go on with another corpus.
    print(f'prepare_data: {error}', file=sys.stderr)
    sys.exit(os.EX_UNAVAILABLE)
  except (
      corpora.CorpusError,
      building.RejectedClipError,
      # Such as a full or read-only disk.
      OSError,
  ) as error:
    sys.exit(f'prepare_data: {error}')
  print('\n'.join(map(str, cards)))
  print(f'Ready after {time.monotonic() - start:.1f} s.')


if __name__ == '__main__':
  app.run(main)
