"""Prints what a tokenizer is and what it costs on this machine.

  python tools/tokenizer_card.py runs/quickstart/tokenizer [--json]
  python tools/tokenizer_card.py DIR --audio=speech.wav,FOLDER

DIR is a work directory, or one with a pretrained codec. With --audio the
entropy of the codes is measured too.
"""

import argparse
import json
import pathlib
import sys

from audiolm_jax.training import launch


def _clips(paths, spec):
  """All files, at the tokenizer's rate and channels."""
  from audiolm_jax.audio import files  # pylint: disable=g-import-not-at-top
  from audiolm_jax.audio import resample  # pylint: disable=g-import-not-at-top

  for path in map(pathlib.Path, paths):
    found = [path]
    if path.is_dir():
      found = sorted(p for p in path.rglob('*') if p.suffix in files.SUFFIXES)
    for file in found:
      audio, rate = files.read(file)
      audio = resample.remix(audio, spec.channels)
      yield resample.resample(audio, rate, spec.sample_rate)


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('tokenizer', metavar='DIR')
  parser.add_argument('--json', action='store_true')
  parser.add_argument(
      '--audio',
      type=lambda text: text.split(','),
      default=[],
      help='files and folders, to measure the entropy of the codes',
  )
  parser.add_argument('--seconds', type=float, default=10.0, help='of a run')
  parser.add_argument('--repeats', type=int, default=5)
  options = parser.parse_args(argv)
  from audiolm_jax import config  # pylint: disable=g-import-not-at-top
  from audiolm_jax import loading  # pylint: disable=g-import-not-at-top
  from audiolm_jax.audio import files  # pylint: disable=g-import-not-at-top
  from audiolm_jax.tokenizers import card  # pylint: disable=g-import-not-at-top
  from audiolm_jax.training import checkpoints  # pylint: disable=g-import-not-at-top

  try:
    tokenizer = loading.load_codec(options.tokenizer)
    made = card.make(
        tokenizer,
        options.tokenizer,
        _clips(options.audio, tokenizer.spec),
        seconds=options.seconds,
        repeats=options.repeats,
    )
  except (
      config.ConfigError,
      checkpoints.CheckpointError,
      files.AudioFileError,
  ) as error:
    sys.exit(f'tokenizer_card: {error}')
  print(json.dumps(made, indent=2) if options.json else card.text(made))
  return 0


if __name__ == '__main__':
  launch.reexecute()
  sys.exit(main(sys.argv[1:]))
