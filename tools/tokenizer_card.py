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

# All of it is held at once, on its way through the network.
_MOST_SECONDS = 600


def _clips(paths, spec):
  """All files, at the tokenizer's rate and channels."""
  from audiolm_jax.audio import checks  # pylint: disable=g-import-not-at-top
  from audiolm_jax.audio import files  # pylint: disable=g-import-not-at-top
  from audiolm_jax.audio import resample  # pylint: disable=g-import-not-at-top

  for path in map(pathlib.Path, paths):
    found = [path]
    if path.is_dir():
      found = sorted(
          p
          for p in path.rglob('*')
          if p.suffix.lower() in files.SUFFIXES and not p.is_dir()
      )
      if not found:
        raise files.AudioFileError(f'{path} holds no audio files.')
    for file in found:
      audio, rate = files.read(file)
      try:
        audio = resample.remix(audio, spec.channels)
        audio = resample.resample(audio, rate, spec.sample_rate)
        checks.samples(audio, checks.LOUDEST)
      except ValueError as error:
        raise files.AudioFileError(f'{file}: {error}.') from error
      yield audio


def _paths(text: str) -> list[str]:
  paths = text.split(',')
  if not all(paths):
    raise argparse.ArgumentTypeError('expected names with commas between')
  return paths


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('tokenizer', metavar='DIR')
  parser.add_argument('--json', action='store_true')
  parser.add_argument(
      '--audio',
      type=_paths,
      default=[],
      help='files and folders, to measure the entropy of the codes',
  )
  parser.add_argument(
      '--seconds',
      type=launch.number(
          float,
          lambda x: 0 < x <= _MOST_SECONDS,
          f'more than 0 and at most {_MOST_SECONDS} seconds',
      ),
      default=10.0,
      help='of a run',
  )
  count = launch.number(int, lambda x: x >= 1, '1 or more')
  parser.add_argument('--repeats', type=count, default=5)
  options = parser.parse_args(argv)
  from audiolm_jax import config  # pylint: disable=g-import-not-at-top
  from audiolm_jax.models import loading  # pylint: disable=g-import-not-at-top
  from audiolm_jax.audio import files  # pylint: disable=g-import-not-at-top
  from audiolm_jax.models import tokenizer_card  # pylint: disable=g-import-not-at-top
  from audiolm_jax.training import checkpoints  # pylint: disable=g-import-not-at-top

  try:
    tokenizer = loading.load_codec(options.tokenizer)
    if options.audio and not tokenizer.spec.slots:
      raise config.ConfigError('--audio: continuous tokens have no entropy.')
    made = tokenizer_card.make(
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
  print(
      json.dumps(made, indent=2) if options.json else tokenizer_card.text(made)
  )
  return 0


if __name__ == '__main__':
  launch.reexecute()
  sys.exit(main(sys.argv[1:]))
