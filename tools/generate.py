"""Audio from a language model, from nothing or as the continuation of audio.

  python tools/generate.py --model=runs/quickstart/lm --prompt=in.wav \\
      --seconds=10 --out=out.wav
  python tools/generate.py --model=runs/quickstart/lm --seconds=inf --stream \\
      --out=- | aplay -f S16_LE -r 16000

--model is the work directory of a language model, whose token cache says which
codec speaks its tokens (--tokenizer=DIR: another place where that one is;
with --force it may be another one, or the token cache may be gone). The
prompt may have any rate, number of channels and length; its whole frames are
encoded, --seconds are added, and all of it is written. With --stream audio is
written while it is generated, the first of it as soon as the pattern of the
codebooks allows; it is the same audio for the same seed. An --out of - writes
16-bit samples without a header to stdout.

A model with conditions is told them by --condition=NAME=VALUE, its text by
--text; an audio prompt's value is an audio file, a vector's an .npy file.
--guidance above 1 follows them more closely than it learned to.
"""

import argparse
import math
import os
import pathlib
import sys
import time

from audiolm_jax.training import launch

_PIPE = '-'
# What an endless stream keeps in sight.
_CACHE_SECONDS = 30.0
# More than any memory: what is kept in sight is allocated.
_MOST_CACHE_SECONDS = 1e6


def _say(text: str) -> None:
  """Stdout may be a pipe of audio."""
  print(text, file=sys.stderr, flush=True)


def _load(options):
  """(language model, tokenizer, conditions), which must fit each other."""
  # Late, as it takes seconds: wrong arguments are told at once.
  from audiolm_jax import config  # pylint: disable=g-import-not-at-top
  from audiolm_jax.models import loading  # pylint: disable=g-import-not-at-top
  from audiolm_jax.models import token_lm  # pylint: disable=g-import-not-at-top

  lm = loading.load(options.model)
  if not isinstance(lm, token_lm.TokenLM) or not hasattr(lm.decoder, 'pattern'):
    raise config.ConfigError(
        f'--model={options.model} holds a {type(lm).__name__} that does not'
        ' continue audio tokens.'
    )
  wrong = [k for k in _conditions(options) if k not in lm.decoder.conditions]
  if options.guidance is not None and not lm.decoder.conditions:
    wrong = ['guidance']
  if options.guidance is not None and not wrong and not _conditions(options):
    raise config.ConfigError(
        '--guidance does nothing without a condition: give one of'
        f' {sorted(lm.decoder.conditions)}.'
    )
  if wrong:
    raise config.ConfigError(
        f'--{wrong[0]}: {options.model} was trained without it; its conditions:'
        f' {sorted(lm.decoder.conditions)}.'
    )
  if options.force:
    tokenizer = loading.load_codec(options.tokenizer)
  else:
    tokenizer = _tokenizer(options)
  wanted = tuple(lm.decoder.vocabularies)
  found = tuple(tokenizer.spec.vocabularies)
  if found[: len(wanted)] != wanted:
    raise config.ConfigError(
        f'{options.model} speaks tokens of vocabularies {wanted}, but the'
        f' tokenizer has {found or "continuous ones"}.'
    )
  told = _values(options, lm, tokenizer)
  if options.weights != 'float32':
    lm = lm.cast(options.weights)
  return lm, tokenizer, told


def _tokenizer(options):
  """The one that the language model's tokens are of."""
  from audiolm_jax import config  # pylint: disable=g-import-not-at-top
  from audiolm_jax.models import loading  # pylint: disable=g-import-not-at-top

  if not options.tokenizer:
    return loading.load_tokenizer(options.model)
  try:
    return loading.load_tokenizer(options.model, options.tokenizer)
  except config.ConfigError as error:
    raise config.ConfigError(
        f'{error} --force takes --tokenizer={options.tokenizer} unchecked.'
    ) from error


def _values(options, lm, tokenizer):
  """name -> what a condition's source takes, checked."""
  import numpy as np  # pylint: disable=g-import-not-at-top

  from audiolm_jax import config  # pylint: disable=g-import-not-at-top
  from audiolm_jax.data import factors  # pylint: disable=g-import-not-at-top

  found = {}
  for name, value in _conditions(options).items():
    source = lm.decoder.conditions[name].source
    try:
      if isinstance(source, factors.Codes):
        slots = len(source.vocabularies)
        value = _read_prompt(tokenizer, value, slots)[: source.length]
      elif isinstance(source, factors.Vector):
        value = np.load(value)
      source.prepare([value])
    except (OSError, ValueError) as error:
      raise config.ConfigError(f'--{name}: {error}') from error
    found[name] = value
  return found


def _conditions(options):
  """name -> value, of those that are given."""
  pairs = [pair.split('=', 1) for pair in options.condition]
  if options.text is not None:
    pairs.append(['text', options.text])
  return dict(pairs)


def _read_prompt(tokenizer, path, slots):
  """Codes [P, K] of the whole frames of an audio file, or of stdin."""
  import numpy as np  # pylint: disable=g-import-not-at-top

  from audiolm_jax.audio import checks  # pylint: disable=g-import-not-at-top
  from audiolm_jax.audio import files  # pylint: disable=g-import-not-at-top
  from audiolm_jax.audio import streams  # pylint: disable=g-import-not-at-top

  spec = tokenizer.spec
  if path is None:
    return np.zeros((0, slots), np.int32)
  with streams.opened(
      path, rate=spec.sample_rate, channels=spec.channels
  ) as stream:
    empty = np.zeros((0, spec.channels), np.float32)
    audio = np.concatenate([empty, *stream.blocks])
  try:
    checks.samples(audio, checks.LOUDEST)
  except ValueError as error:
    raise files.AudioFileError(f'{path}: {error}.') from error
  audio = audio[: len(audio) // spec.hop * spec.hop]
  if not len(audio):
    _say(f'{path}: shorter than a frame ({spec.hop} samples); no prompt.')
    return np.zeros((0, slots), np.int32)
  codes = tokenizer.encode(audio[None]).codes[0]
  return np.asarray(codes[: len(audio) // spec.hop, :slots], np.int32)


def _sampler(options):
  from audiolm_jax import config  # pylint: disable=g-import-not-at-top
  from audiolm_jax import generation  # pylint: disable=g-import-not-at-top

  names = (
      'temperature',
      'top_k',
      'top_p',
      'min_p',
      'repetition_penalty',
      'repetition_window',
  )
  values = {name: getattr(options, name) for name in names}
  return config.build(generation.Sampler, values)


def _frames(options, lm, tokenizer, prompt):
  """(frames of the result or None for no end, frames that stay in sight)."""
  from audiolm_jax import config  # pylint: disable=g-import-not-at-top
  from audiolm_jax import generation  # pylint: disable=g-import-not-at-top

  rate, pattern = tokenizer.spec.frame_rate, lm.decoder.pattern
  slots, seconds = len(lm.decoder.vocabularies), options.cache_seconds
  if options.seconds == math.inf:
    if not pattern.streamable:
      raise config.ConfigError(
          f'--seconds=inf: {pattern} must know the end beforehand.'
      )
    frames, cache_length = None, math.ceil((seconds or _CACHE_SECONDS) * rate)
  else:
    more = round(options.seconds * rate)
    if not more and (options.seconds or not len(prompt)):
      raise config.ConfigError(
          f'--seconds={options.seconds:g} gives no frame: one is'
          f' {1 / rate:.3g} s.'
      )
    frames, cache_length = len(prompt) + more, None
    if pattern.steps(frames, slots) >= generation.ENDLESS:
      raise config.ConfigError(
          f'--seconds={options.seconds:g} is too long: inf has no end.'
      )
    if seconds:
      # In steps: a pattern may take several for a frame.
      cache_length = pattern.steps(math.ceil(seconds * rate), slots)
  try:
    lm.decoder.check_steps(
        None if frames is None else pattern.steps(frames, slots)
    )
  except ValueError as error:
    raise config.ConfigError(
        f'--seconds={options.seconds:g}: {error}'
    ) from error
  return frames, cache_length


def _check_memory(options, decoder, frames, cache_length) -> None:
  """Refuses what stays in sight if no memory could hold it."""
  import jax  # pylint: disable=g-import-not-at-top
  import numpy as np  # pylint: disable=g-import-not-at-top

  from audiolm_jax.training import limits  # pylint: disable=g-import-not-at-top

  steps = cache_length or decoder.pattern.steps(
      frames, len(decoder.vocabularies)
  )
  rows = 1 if options.guidance is None else 2
  state = jax.eval_shape(
      lambda: decoder.initial_state(rows, steps, options.sink_tokens)
  )
  sizes = [
      math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
      for leaf in jax.tree.leaves(state)
  ]
  limits.check(
      sum(sizes),
      limits.device_memory(),
      f'Attention to {steps} steps (--seconds, or less with --cache_seconds)',
  )


def run(options) -> int:
  """Generates, and says what it took."""
  from audiolm_jax.audio import streams  # pylint: disable=g-import-not-at-top

  sampler = _sampler(options)
  lm, tokenizer, conditions = _load(options)
  spec = tokenizer.spec
  start = time.monotonic()
  prompt = _read_prompt(tokenizer, options.prompt, len(lm.decoder.vocabularies))
  frames, cache_length = _frames(options, lm, tokenizer, prompt)
  _check_memory(options, lm.decoder, frames, cache_length)
  told = {
      'cache_length': cache_length,
      'sink_tokens': options.sink_tokens,
      'conditions': {k: [v] for k, v in conditions.items()},
  }
  if options.guidance is not None:
    told['guidance'] = options.guidance
  first = None
  with streams.create(
      options.out,
      spec.sample_rate,
      spec.channels,
      samples=None if frames is None else int(spec.samples(frames)),
      raw=options.out == _PIPE,
  ) as writer:

    def write(audio):
      nonlocal first
      first = first or time.monotonic() - start
      writer.write(audio[0])

    make = _stream if options.stream else _whole
    make(lm, tokenizer, prompt, frames, options.seed, sampler, write, **told)
  elapsed = time.monotonic() - start
  name = 'standard output' if options.out == _PIPE else options.out
  _say(
      f'{name}: {writer.samples / spec.sample_rate:.2f} s of audio,'
      f' {len(prompt) / spec.frame_rate:.2f} s of it the prompt, in'
      f' {elapsed:.1f} s; the first after {first or elapsed:.2f} s'
  )
  return 0


def _whole(lm, tokenizer, prompt, frames, seed, sampler, write, **told):
  """All codes, and then all audio."""
  import numpy as np  # pylint: disable=g-import-not-at-top

  from audiolm_jax.tokenizers import base as tokenizers_base  # pylint: disable=g-import-not-at-top

  codes = lm.generate(prompt[None], frames, seed=seed, sampler=sampler, **told)
  samples = np.array([tokenizer.spec.samples(frames)])
  audio, _ = tokenizer.decode(
      tokenizers_base.Tokens(num_samples=samples, codes=codes)
  )
  write(audio[:, : samples[0]])


def _stream(lm, tokenizer, prompt, frames, seed, sampler, write, **told):
  """The audio of every frame as soon as the codec can tell."""
  session = lm.session(prompt[None], frames, seed=seed, sampler=sampler, **told)
  tokenizer.decode_frames(session, write)


def _seconds(text: str) -> float:
  value = float(text)
  if not value >= 0:
    raise ValueError
  return value


def _cache_seconds(text: str) -> float:
  value = float(text)
  if not 0 < value <= _MOST_CACHE_SECONDS:
    raise argparse.ArgumentTypeError(
        f'{text} is not over 0 and up to {_MOST_CACHE_SECONDS:g} seconds'
    )
  return value


def _whole_number(text: str) -> int:
  value = int(text)
  if not 0 <= value < 2**32:
    raise argparse.ArgumentTypeError(f'{text} is not in [0, 2**32)')
  return value


def _finite(text: str) -> float:
  value = float(text)
  if not math.isfinite(value):
    raise ValueError
  return value


def _pair(text: str) -> str:
  if '=' not in text:
    raise ValueError
  return text


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('--model', required=True, metavar='DIR', help='of a language model')
  add('--tokenizer', metavar='DIR', help='where its codec is')
  add('--force', action='store_true', help='take --tokenizer unchecked')
  add('--prompt', help='audio to continue; - for stdin')
  add('--text', help='what to say, for models that take text')
  add(
      '--condition',
      action='append',
      default=[],
      type=_pair,
      metavar='NAME=VALUE',
      help='such as language=it',
  )
  add(
      '--seconds',
      type=_seconds,
      default=10.0,
      help='to add to the prompt; inf for no end, with --stream',
  )
  add('--out', required=True, help='.wav, .flac, or - for stdout')
  add('--stream', action='store_true', help='write while generating')
  add('--seed', type=_whole_number, default=0)
  add('--temperature', type=float, default=1.0, help='0 for the likeliest')
  add('--top_k', type=int)
  add('--top_p', type=float, default=1.0)
  add('--min_p', type=float, default=0.0)
  add('--repetition_penalty', type=float, default=1.0)
  add('--repetition_window', type=int, default=0)
  add('--guidance', type=_finite, help='of models with conditions')
  add(
      '--cache_seconds',
      type=_cache_seconds,
      help='what attention keeps in sight; default: all, and'
      f' {_CACHE_SECONDS:g} without an end',
  )
  add(
      '--sink_tokens',
      type=_whole_number,
      default=0,
      help='first steps that stay in sight beside those seconds',
  )
  add(
      '--weights',
      choices=('float32', 'bfloat16', 'int8'),
      default='float32',
  )
  return parser


def main(argv: list[str]) -> int:
  parser = _parser()
  options = parser.parse_args(argv)
  if options.seconds == math.inf and not options.stream:
    parser.error('--seconds=inf needs --stream')
  if (
      options.sink_tokens
      and not options.cache_seconds
      and options.seconds < math.inf
  ):
    parser.error(
        '--sink_tokens does nothing without --cache_seconds: all is kept'
    )
  if options.force and not options.tokenizer:
    parser.error('--force does nothing without --tokenizer')
  names = [pair.partition('=')[0] for pair in options.condition]
  names += [] if options.text is None else ['text']
  for name in names:
    if names.count(name) > 1:
      parser.error(f'the condition {name} is given more than once')
  if options.prompt not in (None, _PIPE):
    if not pathlib.Path(options.prompt).is_file():
      parser.error(f'--prompt={options.prompt}: no such file')
  from audiolm_jax import config  # pylint: disable=g-import-not-at-top
  from audiolm_jax.audio import files  # pylint: disable=g-import-not-at-top
  from audiolm_jax.tokenizers import long  # pylint: disable=g-import-not-at-top
  from audiolm_jax.training import checkpoints  # pylint: disable=g-import-not-at-top

  try:
    return run(options)
  except BrokenPipeError:
    # Who reads has gone. Python would complain again on flushing.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
  except (
      config.ConfigError,
      checkpoints.CheckpointError,
      files.AudioFileError,
      long.LongFileError,
      OSError,
  ) as error:
    sys.exit(f'generate: {error}')


if __name__ == '__main__':
  launch.reexecute()
  sys.exit(main(sys.argv[1:]))
