"""Audio <-> tokens: files, folders, pipes, and corpora for training.

  python tools/tokenize_audio.py encode in.wav out.tokens --tokenizer=DIR
  python tools/tokenize_audio.py decode out.tokens out.wav --tokenizer=DIR
  python tools/tokenize_audio.py encode FOLDER OUT_FOLDER --tokenizer=DIR
  python tools/tokenize_audio.py decode CACHE OUT_FOLDER --tokenizer=DIR
  arecord -f S16_LE -r 16000 | python tools/tokenize_audio.py encode - - \\
      --tokenizer=DIR | python tools/tokenize_audio.py decode - - \\
      --tokenizer=DIR | aplay
  python tools/tokenize_audio.py corpus --tokenizer=runs/quickstart/tokenizer \\
      --corpus=asterisk_prompts --out=runs/quickstart/tokens

DIR is a work directory, or one with a pretrained codec (config.json and
model.safetensors). Audio may have any rate, number of channels and length.
`corpus` caches a corpus for training language models on; interrupted and run
again, it goes on where it was, and run by several processes (--shard=0/4 ...
--shard=3/4) each does its share. OUT_FOLDER of `encode` can be trained on, too:
say --config.data.cache=OUT_FOLDER. A file is a clip with what FOLDER says of it
(FILE.txt, metadata.csv: see docs/tools.md), in the splits that a corpus of
FOLDER would have. `decode` takes token files, folders of them and caches.
"""

import argparse
from collections.abc import Iterator
import dataclasses
import functools
import math
import os
import pathlib
import re
import sys
import time
from typing import Any

from audiolm_jax.training import launch

_PIPE = '-'
# New audio in each block: files are done faster in large ones, but who listens
# at the other end of a pipe waits for a block.
_BLOCK_SECONDS = {True: 0.24, False: 5.0}


def _say(text: str) -> None:
  """Stdout may be a pipe of tokens or audio."""
  print(text, file=sys.stderr, flush=True)


def encode(options) -> int:
  """Audio -> tokens."""
  from audiolm_jax.audio import streams  # pylint: disable=g-import-not-at-top
  from audiolm_jax.config import relocation  # pylint: disable=g-import-not-at-top
  from audiolm_jax.data import token_cache  # pylint: disable=g-import-not-at-top
  from audiolm_jax.tokenizers import transcoding  # pylint: disable=g-import-not-at-top

  _check(options)
  raw = None
  if options.raw_rate is not None:
    raw = streams.Raw(options.raw_rate, options.raw_channels or 1)
  settings = _settings(options)
  tokenizer = _load(options.tokenizer)
  codebooks = transcoding.choose_codebooks(
      tokenizer.tokenizer, kbps=options.kbps, codebooks=options.codebooks
  )
  settings = dataclasses.replace(settings, codebooks=codebooks)
  known = _factors(options)
  vectors = tokenizer.code_vectors()
  if _is_folder(options.input) and vectors is not None:
    # For models that start from them.
    token_cache.write_codebooks(options.output, vectors)

  def one(path_in, path_out):
    folder = os.sep if path_out == _PIPE else os.path.dirname(path_out)
    return tokenizer.encode_long(
        path_in,
        path_out,
        settings,
        each_channel=options.channels == 'each',
        raw=raw,
        name=relocation.relative(options.tokenizer, folder),
        factors=known(path_in),
    )

  return _run(
      options, tokenizer, one, _have_tokens(tokenizer, codebooks, known)
  )


def decode(options) -> int:
  """Tokens -> audio."""
  _check(options)
  settings = _settings(options)
  tokenizer = _load(options.tokenizer)

  def one(given, path_out):
    return tokenizer.decode_long(
        given,
        path_out,
        settings,
        force=options.force,
        raw=options.raw,
    )

  return _run(options, tokenizer, one, lambda given, made: made.is_file())


def corpus(options) -> int:
  """A corpus -> a token cache."""
  from audiolm_jax.models import caching  # pylint: disable=g-import-not-at-top

  start = time.monotonic()
  seconds = caching.fill(
      _load(options.tokenizer),
      options.out,
      corpus=options.corpus,
      workdir=options.tokenizer,
      languages=tuple(options.languages),
      wanted=tuple(options.splits),
      batch_seconds=options.batch_seconds,
      limit=options.limit,
      shard=options.shard,
  )
  elapsed = time.monotonic() - start
  print(
      f'{options.out}: {seconds / 60:.1f} min of audio in {elapsed:.0f} s'
      f' ({seconds / elapsed:.0f} times real time).'
  )
  return 0


def _load(directory):
  # Late, as it takes seconds: wrong arguments are told at once.
  from audiolm_jax.models import loading  # pylint: disable=g-import-not-at-top

  return loading.load_codec(directory)


def _check(options) -> None:
  """Refuses files and options that do not go together."""
  from audiolm_jax import config  # pylint: disable=g-import-not-at-top
  from audiolm_jax.audio import files  # pylint: disable=g-import-not-at-top
  from audiolm_jax.data import cache_header  # pylint: disable=g-import-not-at-top

  given, made = options.input, options.output
  folder, suffix = _is_folder(given), pathlib.Path(made).suffix.lower()
  same = given != _PIPE and os.path.exists(given) and os.path.exists(made)
  faults = [
      ('input and output need names', not given or not made),
      ('a folder becomes a folder, not a pipe', folder and made == _PIPE),
      (
          f'{made} is both input and output',
          same and not folder and os.path.samefile(given, made),
      ),
  ]
  if options.function is encode:
    raw = options.raw_rate is not None
    faults += [
        (
            f'{made}: tokens in a file that is named as audio',
            suffix in files.SUFFIXES and not folder,
        ),
        (
            '--raw_channels says how --raw_rate is meant: give both',
            options.raw_channels is not None and not raw,
        ),
        ('--raw_rate is for one file or a pipe', raw and folder),
        (
            f'{given} says its own rate: leave --raw_rate out',
            raw and pathlib.Path(given).suffix.lower() in files.SUFFIXES,
        ),
    ]
  else:
    faults += [
        (
            f'--clip is for a token cache, which {given} is not',
            options.clip and not (folder and cache_header.is_cache(given)),
        ),
        ('--raw is for one file or a pipe', options.raw and folder),
        (
            f'--raw writes no header, which {made} must have',
            options.raw and suffix in files.SUFFIXES,
        ),
        (
            '--format is for folders; a file is named by its suffix',
            options.format is not None and not folder,
        ),
    ]
  for reason, holds in faults:
    if holds:
      raise config.ConfigError(f'{reason}.')


def _is_folder(path: str) -> bool:
  return path not in ('', _PIPE) and pathlib.Path(path).is_dir()


def _settings(options):
  from audiolm_jax.tokenizers import long  # pylint: disable=g-import-not-at-top

  piped = _PIPE in (options.input, options.output)
  block_seconds = options.block_seconds
  if block_seconds is None:
    block_seconds = _BLOCK_SECONDS[piped]
  return long.Settings(block_seconds, options.overlap_seconds)


def _factors(options):
  """A function of a path: what is known of the clip."""
  from audiolm_jax.data import folder_listing  # pylint: disable=g-import-not-at-top

  root = pathlib.Path(options.input)
  if not _is_folder(options.input):
    return lambda path: {} if path == _PIPE else {'id': root.name}
  known, unused = folder_listing.factors(root)
  for what, why in unused:
    _say(f'  {what}: {why}')
  return lambda path: known.get(path.relative_to(root).as_posix(), {})


def _have_tokens(tokenizer, codebooks, known):
  """Whether a whole file is there, as this would write it."""
  from audiolm_jax.tokenizers import encoding  # pylint: disable=g-import-not-at-top
  from audiolm_jax.tokenizers import token_files  # pylint: disable=g-import-not-at-top

  def have(path_in, path_out):
    try:
      header, _, _ = token_files.check(path_out)
    except encoding.TokensError:
      return False
    wanted = codebooks or len(tokenizer.spec.slots) or None
    return (header.fingerprint, header.codebooks, header.factors) == (
        tokenizer.fingerprint(),
        wanted,
        known(path_in),
    )

  return have


def _run(options, tokenizer, one, have) -> int:
  """Does one file or a folder; bad files of a folder are told at the end."""
  from audiolm_jax.audio import files  # pylint: disable=g-import-not-at-top
  from audiolm_jax.tokenizers import encoding  # pylint: disable=g-import-not-at-top

  expected = (files.AudioFileError, encoding.TokensError, OSError)
  convert = functools.partial(_convert, one, tokenizer.spec.sample_rate)
  if not _is_folder(options.input):
    try:
      convert(options.input, options.output)
    except BrokenPipeError:
      # Who reads has gone. Python would complain again on flushing.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      return 1
    except expected as error:
      _say(f'tokenize_audio: {error}')
      return 1
    return 0
  bad, done, skipped = [], 0, 0
  for path_in, path_out, fault in _pairs(options):
    if fault is None and not options.overwrite and have(path_in, path_out):
      skipped += 1
      continue
    try:
      if fault is not None:
        raise files.AudioFileError(fault)
      convert(path_in, path_out)
      done += 1
    except expected as error:
      bad.append(str(error))
      _say(f'  bad: {error}')
  _say(
      f'{options.output}: {done} done, {skipped} there before, {len(bad)} bad.'
  )
  for reason in bad:
    _say(f'  {reason}')
  return 1 if bad else 0


def _pairs(options) -> Iterator[tuple[Any, pathlib.Path, str | None]]:
  """(input, output, why not) of all clips of a cache, or files of a folder."""
  from audiolm_jax.audio import files  # pylint: disable=g-import-not-at-top
  from audiolm_jax.data import cache_header  # pylint: disable=g-import-not-at-top
  from audiolm_jax.data import clip_files  # pylint: disable=g-import-not-at-top
  from audiolm_jax.tokenizers import token_files  # pylint: disable=g-import-not-at-top

  suffixes, suffix = files.SUFFIXES, token_files.SUFFIX
  if options.function is decode:
    suffixes, suffix = (token_files.SUFFIX,), f'.{options.format or "wav"}'
  folder, out = pathlib.Path(options.input), pathlib.Path(options.output)
  if options.function is decode and cache_header.is_cache(folder):
    for clip, path, fault in clip_files.clips(folder, options.clip):
      yield clip, out / f'{path}{suffix}', fault
    return
  taken = {}
  for path in sorted(folder.rglob('*')):
    if path.suffix.lower() not in suffixes or path.is_dir():
      continue
    target = out / path.relative_to(folder).with_suffix(suffix)
    fault = None
    if not path.is_file():
      fault = f'{path}: no file (a link to nothing, or a device).'
    elif target in taken:
      fault = f'{path}: {taken[target]} is already to become {target}.'
    taken.setdefault(target, path)
    yield path, target, fault
  if not taken:
    raise SystemExit(
        f'tokenize_audio: {folder} has no file that ends in'
        f' {", ".join(suffixes)}.'
    )


def _convert(one, rate, path_in, path_out) -> None:
  """Does a file and says what it took."""
  start = time.monotonic()
  report = one(path_in, path_out)
  elapsed = time.monotonic() - start
  seconds = report.samples / rate
  name = 'standard output' if path_out == _PIPE else path_out
  _say(
      f'{name}: {seconds:.2f} s of audio, {report.frames} frames'
      f' ({seconds / elapsed:.1f} times real time)'
  )
  if not report.exact:
    shares = ', '.join(f'{100 * share:.2g}%' for share in report.disagreement)
    _say(
        '  not exactly what the whole file would give: windows differ by'
        f' {shares or "nothing"} in {report.compared} frames or samples that'
        ' they share'
    )


def _shard(text: str) -> tuple[int, int]:
  found = re.fullmatch(r'(\d+)/(\d+)', text)
  if not found or not int(found[1]) < int(found[2]):
    raise argparse.ArgumentTypeError('expected i/n with 0 <= i < n, as 0/4')
  return int(found[1]), int(found[2])


def _by(check, kind):
  """An argparse type: a number that `check` takes."""

  def convert(text):
    try:
      return check(kind(text))
    except ValueError as error:
      raise argparse.ArgumentTypeError(str(error)) from error

  return convert


def _positive(value):
  return 0 < value < math.inf


def _rate(value):
  from audiolm_jax.audio import checks  # pylint: disable=g-import-not-at-top

  return checks.rate(value)


def _channels(value):
  from audiolm_jax.audio import checks  # pylint: disable=g-import-not-at-top

  return checks.channels(value)


def _words(text: str) -> list[str]:
  return [word for word in text.split(',') if word]


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  commands = parser.add_subparsers(required=True, metavar='COMMAND')

  def command(function, summary):
    made = commands.add_parser(function.__name__, help=summary)
    made.set_defaults(function=function)
    made.add_argument(
        '--tokenizer',
        '--workdir',
        required=True,
        metavar='DIR',
        help='work directory, or directory of a pretrained codec',
    )
    return made

  for function, from_, to in (
      (encode, 'audio', 'tokens'),
      (decode, 'tokens', 'audio'),
  ):
    made = command(function, f'{from_} -> {to}: a file, a folder or a pipe')
    made.add_argument('input', help=f'{from_}: file, folder, or - for stdin')
    made.add_argument('output', help=f'{to}: file, folder, or - for stdout')
    made.add_argument(
        '--overwrite',
        action='store_true',
        help='do again what a folder already has',
    )
    made.add_argument(
        '--block_seconds',
        type=float,
        help='audio a block (default: 5, and 0.24 for pipes)',
    )
    made.add_argument(
        '--overlap_seconds',
        type=float,
        help='for tokenizers that have no exact way block by block',
    )
    if function is decode:
      made.add_argument(
          '--force', action='store_true', help="another tokenizer's tokens too"
      )
      made.add_argument(
          '--format',
          choices=('wav', 'flac'),
          help='of the files of a folder (default: wav)',
      )
      made.add_argument(
          '--clip',
          action='append',
          default=[],
          metavar='ID',
          help='of a token cache, only this one (again for more)',
      )
      made.add_argument(
          '--raw', action='store_true', help='16-bit samples without a header'
      )
      continue
    made.add_argument('--kbps', type=float, help='at most so many kbit/s')
    made.add_argument('--codebooks', type=int, help='keep the first N')
    made.add_argument(
        '--channels',
        choices=('mix', 'each'),
        default='mix',
        help='mix down to what the tokenizer takes, or encode each apart',
    )
    made.add_argument(
        '--raw_rate',
        type=_by(_rate, int),
        help='the input is 16-bit samples at this rate',
    )
    made.add_argument(
        '--raw_channels',
        type=_by(_channels, int),
        help='of --raw_rate (default: 1)',
    )

  made = command(corpus, 'a corpus -> a token cache to train on')
  made.add_argument('--corpus', default='asterisk_prompts')
  made.add_argument('--languages', type=_words, default=[])
  made.add_argument(
      '--splits', type=_words, default=['train', 'validation', 'test']
  )
  made.add_argument('--out', required=True, help='directory of the cache')
  made.add_argument(
      '--batch_seconds',
      type=launch.number(float, _positive, 'a number above 0'),
      default=32.0,
      help='padding included',
  )
  made.add_argument(
      '--limit',
      type=launch.number(int, _positive, 'a number above 0'),
      help='at most so many clips of each split',
  )
  made.add_argument('--shard', type=_shard, default=(0, 1), help='i/n')
  return parser


def main(argv: list[str]) -> int:
  options = _parser().parse_args(argv)
  from audiolm_jax import config  # pylint: disable=g-import-not-at-top
  from audiolm_jax.tokenizers import long  # pylint: disable=g-import-not-at-top
  from audiolm_jax.tokenizers import transcoding  # pylint: disable=g-import-not-at-top
  from audiolm_jax.training import checkpoints  # pylint: disable=g-import-not-at-top

  try:
    return options.function(options)
  except (
      config.ConfigError,
      checkpoints.CheckpointError,
      long.LongFileError,
      transcoding.BitrateError,
      OSError,
  ) as error:
    sys.exit(f'tokenize_audio: {error}')


if __name__ == '__main__':
  launch.reexecute()
  sys.exit(main(sys.argv[1:]))
