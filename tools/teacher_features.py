"""A recogniser's hidden states of a corpus: what a codec's first codes may learn.

  python tools/teacher_features.py --teacher=runs/judges/teacher \
      --corpus=speech_world --languages=sentences-tokenizer-clean-4000 \
      --out=runs/features

writes ID.npy [frames, width] (float16) for each clip of a split, for training with
`--config.data.features=runs/features`. With --of_other_clips each clip gets those
of another clip, over and over or cut to its own length: features of the same
statistics that say nothing of it. Run again, it goes on where it was; a folder is
of one teacher.
"""

import argparse
import io
import json
import pathlib
import sys

from audiolm_jax.training import launch

if __name__ == '__main__':
  launch.reexecute()  # Before the heavy imports.

# ruff: noqa: E402

import numpy as np

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax.audio import resample
from audiolm_jax.data import corpora
from audiolm_jax.evaluation import speaking
from audiolm_jax.models import fingerprints
from audiolm_jax.training import writers

_MANY = 64  # Clips whose audio is held at once.
_ABOUT = 'teacher.json'


def main(arguments=None):
  options = _options(arguments)
  try:
    counts = write(options)
  except (config.ConfigError, corpora.CorpusError, OSError) as error:
    launch.fail(f'teacher_features.py: {error}')
  made, found = counts
  print(f'{options.out}: {made} clips, beside {found} that were there.')


def write(options) -> tuple[int, int]:
  """Writes the features; how many clips got some, and how many had.

  Raises:
    config.ConfigError: for a folder that is of another teacher.
    corpora.CorpusError: if the corpus is not built, or has one clip only where
      features are of others.
  """
  teacher = speaking.load_judge(options.teacher)
  corpus = data.load_corpus(options.corpus, options.split, options.languages)
  out = pathlib.Path(options.out)
  _claim(out, teacher, options.of_other_clips)
  if options.of_other_clips and len(corpus) < 2:
    raise corpora.CorpusError(
        f'{options.corpus} {options.split} has {len(corpus)} clip: there is no'
        ' other one whose features it could have.'
    )
  paths = [out / f'{corpus.factors(i)["id"]}.npy' for i in range(len(corpus))]
  missing = [i for i, path in enumerate(paths) if not path.exists()]
  samples = np.rint(corpus.seconds() * teacher.sample_rate).astype(int)
  # Whose features each clip gets: its own, or those of one of the other half.
  shift = len(corpus) // 2 if options.of_other_clips else 0
  for start in range(0, len(missing), _MANY):
    members = missing[start : start + _MANY]
    heard = [corpus[(i + shift) % len(corpus)] for i in members]
    features = teacher.features(
        [
            resample.mono(x['audio'], x['sample_rate'], teacher.sample_rate)
            for x in heard
        ]
    )
    for i, values in zip(members, features, strict=True):
      if shift:
        frames = int(teacher.module.num_frames(samples[i]))
        values = np.resize(values, (frames, values.shape[1]))
      buffer = io.BytesIO()
      np.save(buffer, values.astype(np.float16))
      paths[i].parent.mkdir(parents=True, exist_ok=True)
      writers.write_atomically(paths[i], buffer.getvalue())
  return len(missing), len(corpus) - len(missing)


def _claim(out, teacher, of_other_clips):
  """Says what a folder is of; refuses one that is of something else."""
  about = {
      'teacher': fingerprints.of(
          teacher.module, {'params': teacher.params, 'state': {}}
      ),
      'of_other_clips': of_other_clips,
  }
  out.mkdir(parents=True, exist_ok=True)
  path = out / _ABOUT
  if path.exists() and json.loads(path.read_text('utf-8')) != about:
    raise config.ConfigError(
        f'{out} has the features of another teacher, or of other clips: give'
        ' another --out.'
    )
  writers.write_atomically(path, json.dumps(about))


def _options(arguments):
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--teacher', required=True, help='directory of a recogniser')
  add('--corpus', default='asterisk_prompts')
  add(
      '--languages',
      type=lambda text: tuple(text.split(',')),
      default=(),
      help='comma-separated; all if not given',
  )
  add('--split', default='train')
  add('--of_other_clips', action='store_true')
  add('--out', required=True)
  return parser.parse_args(arguments)


if __name__ == '__main__':
  main(sys.argv[1:])
