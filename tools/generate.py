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

A masked model draws all frames at once, in --steps passes for each of its stages
(16, or several numbers such as 16,1,1,1); --order and --schedule say which codes
are decided first. It also fills gaps: --infill=0.5:1.2 draws these seconds of the
--prompt anew, and may be given several times; all other codes stay as they are.

A model of latents draws all frames at once, too, in --steps of a --sampler (euler,
heun, midpoint, ddim, dpm_2m, sde, ping_pong), and fills gaps; what is given stays
as it is. --init=in.wav makes a variation of audio: it starts from its latents with
noise of the time --strength, near 0 for nearly the same and 1 for another. What is
longer than rows of training is made in windows, each of --window seconds, given
the last --overlap seconds of the one before. With --stream, a model whose attention
is block-causal makes one block after the other.

A model that gives latents frame by frame continues the --prompt like one of codes,
with --stream too, until it ends by itself, by chance or where that is as likely as
the --threshold; --steps and --sampler are of its head, --temperature multiplies
the variance of what is drawn.

A model with conditions is told them by --condition=NAME=VALUE, its text by
--text; an audio prompt's value is an audio file, a vector's an .npy file, a
number's the number (--condition=seconds_total=4.5).
--guidance above 1 follows them more closely than it learned to; of a model of
latents --guidance_kind says how (plain, rescaled, projected, interval), and
--negative=TEXT what it leads away from. What all of it took is said at the end.
"""

import argparse
import math
import os
import pathlib
import sys
import time

from audiolm_jax.training import launch

_PIPE = '-'
_whole_number = launch.number(
    int, lambda x: 0 <= x < 2**32, 'at least 0 and less than 2**32'
)


def _say(text: str) -> None:
  """Stdout may be a pipe of audio."""
  print(text, file=sys.stderr, flush=True)


def _load(options, given):
  """(kind, the language model with its tokenizer, {condition: its value})."""
  # Late, as it takes seconds: wrong arguments are told at once.
  from audiolm_jax import config  # pylint: disable=g-import-not-at-top
  from audiolm_jax.models import loading  # pylint: disable=g-import-not-at-top
  from audiolm_jax.models import synthesis  # pylint: disable=g-import-not-at-top
  from audiolm_jax.models.synthesis import base as synthesis_base  # pylint: disable=g-import-not-at-top

  model, where = options.model, options.tokenizer
  lm, told = loading.load(model), _conditions(options)
  kind = synthesis.kind_of(lm, model)
  synthesis.check_options(kind, lm, options, given)
  has, guided = lm.decoder.conditions, options.guidance is not None
  wrong = [k for k in told if k not in has]
  if guided and not has:
    wrong = ['guidance']
  if wrong:
    raise config.ConfigError(
        f'--{wrong[0]}: {model} was trained without it; its conditions:'
        f' {sorted(has)}.'
    )
  if guided and not told and options.negative is None:
    raise config.ConfigError(
        f'--guidance does nothing without a condition: give one of {sorted(has)}.'
    )
  named = synthesis_base.named
  if options.force:
    tokenizer = loading.load_codec(where)
  elif not where:
    tokenizer = loading.load_tokenizer(model)
  else:
    with named('{} --force takes --tokenizer=' + where + ' unchecked.'):
      tokenizer = loading.load_tokenizer(model, where)
  with named(model + ' {}.'):
    lm = lm.with_tokenizer(tokenizer)
  for name, value in told.items():
    with named('--' + name + ': {}'):
      told[name] = has[name].source.read(value, tokenizer.read_codes)
      has[name].source.prepare([told[name]])
  if options.weights != 'float32':
    lm = lm.cast(options.weights)
  return kind, lm, told


def _conditions(options):
  """name -> value, of those that are given."""
  text = [] if options.text is None else [('text', options.text)]
  return dict([pair.split('=', 1) for pair in options.condition] + text)


def run(options, given) -> int:
  """Generates, and says what it took.

  Args:
    options: as parsed.
    given: names of those that are not as they are by default.
  """
  from audiolm_jax.audio import streams  # pylint: disable=g-import-not-at-top
  from audiolm_jax.models.synthesis import base as synthesis_base  # pylint: disable=g-import-not-at-top

  synthesis_base.sampler(options)  # Before a model is read for nothing.
  kind, lm, conditions = _load(options, given)
  spec = lm.tokenizer.spec
  start, first = time.monotonic(), None
  prompt = kind.nothing(lm)
  if options.prompt is not None:
    prompt = kind.read(lm, options.prompt)
    if not len(prompt):
      _say(
          f'{options.prompt}: shorter than a frame ({spec.hop} samples); no'
          ' prompt.'
      )
  made = kind(lm, conditions, prompt, options)
  frames = made.frames
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

    made.make(write)
  elapsed = time.monotonic() - start
  name = 'standard output' if options.out == _PIPE else options.out
  seconds = writer.samples / spec.sample_rate
  _say(
      f'{name}: {seconds:.2f} s of audio,'
      f' {len(prompt) / spec.frame_rate:.2f} s of it the prompt, in'
      f' {elapsed:.1f} s (real-time factor'
      f' {elapsed / max(seconds, 1e-9):.2f}, compilation included); the first'
      f' after {first or elapsed:.2f} s'
  )
  if frames is not None:
    _say(made.cost())
  return 0


def _pair(text: str) -> str:
  if '=' not in text:
    raise ValueError
  return text


def _span(text: str) -> tuple[float, float]:
  first, last = map(float, text.split(':'))
  if not 0 <= first < last < math.inf:
    raise ValueError
  return first, last


def _steps(text: str) -> tuple[int, ...]:
  steps = tuple(map(int, text.split(',')))
  if min(steps) < 1:
    raise ValueError
  return steps


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  share = launch.number(float, lambda x: 0 <= x <= 1, 'from 0 to 1')
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
      type=launch.number(float, lambda x: x >= 0, 'at least 0'),
      help='to add to the prompt; inf for no end, with --stream; default: 10,'
      ' with --infill or --init 0',
  )
  add(
      '--infill',
      action='append',
      default=[],
      type=_span,
      metavar='FROM:TO',
      help='seconds of the prompt to draw anew, of models of all frames at once',
  )
  add(
      '--steps',
      type=_steps,
      help='passes a stage of masked models; steps of models of latents',
  )
  add('--sampler', help='of models of latents: euler, heun, dpm_2m, ...')
  add('--init', help='audio to vary, of models of latents; - for stdin')
  add(
      '--strength',
      type=launch.number(
          float, lambda x: 0 < x <= 1, 'more than 0 and at most 1'
      ),
      help='how much of --init is left to chance',
  )
  add('--order', choices=('confidence', 'random', 'span'))
  add('--schedule', choices=('cosine', 'linear'))
  add(
      '--temperature_end',
      type=share,
      help='factor of the temperature at the last of the --steps',
  )
  seconds = launch.number(float, lambda x: 0 < x <= 1e6, 'more than 0')
  add(
      '--window',
      type=seconds,
      help='seconds that a model of latents makes at once; default: all',
  )
  add(
      '--overlap',
      type=seconds,
      help='seconds that windows share; default: a quarter of them',
  )
  add(
      '--history_noise',
      type=share,
      help='share of noise in the frames before, of models of single latents',
  )
  add(
      '--threshold',
      type=share,
      help='rows end where that is so likely, of models of single latents;'
      ' default: by chance',
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
  finite = launch.number(float, math.isfinite, 'a finite number')
  add('--guidance', type=finite, help='of models with conditions')
  add('--guidance_kind', help='plain, rescaled, projected or interval')
  add('--negative', metavar='TEXT', help='what --guidance leads away from')
  add(
      '--cache_seconds',
      # Above is more than any memory: what is kept in sight is allocated.
      type=launch.number(
          float, lambda x: 0 < x <= 1e6, 'more than 0 and at most 1e6'
      ),
      help='what attention keeps in sight; default: all, and 30 without an end',
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


def _check(parser, options):
  """Refuses what can be seen to be wrong at once; gives --seconds its default."""
  if options.infill and options.prompt is None:
    parser.error('--infill draws a part of a --prompt anew: give one')
  _check_init(parser, options)
  if options.seconds is None:
    changed = options.infill or options.init is not None
    options.seconds = 0.0 if changed else 10.0
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
  if options.overlap is not None and options.window is None:
    parser.error('--overlap does nothing without --window')
  if options.guidance is None:
    for name in ('guidance_kind', 'negative'):
      if getattr(options, name) is not None:
        parser.error(f'--{name} does nothing without --guidance')
  if options.force and not options.tokenizer:
    parser.error('--force does nothing without --tokenizer')
  names = [pair.partition('=')[0] for pair in options.condition]
  names += [] if options.text is None else ['text']
  for name in names:
    if names.count(name) > 1:
      parser.error(f'the condition {name} is given more than once')
  for name in ('prompt', 'init'):
    path = getattr(options, name)
    if path not in (None, _PIPE) and not pathlib.Path(path).is_file():
      parser.error(f'--{name}={path}: no such file')


def _check_init(parser, options):
  """Refuses options beside which --init, or --strength, has no meaning."""
  if options.init is None:
    if options.strength is not None:
      parser.error('--strength does nothing without --init')
    return
  if options.strength is None:
    parser.error('--init needs a --strength: near 0 little of it changes')
  if options.prompt is not None:
    parser.error('--init is varied and --prompt kept: give one of them')
  if options.seconds:
    parser.error('--seconds adds to a --prompt: --init says how long it is')


def main(argv: list[str]) -> int:
  parser = _parser()
  options = parser.parse_args(argv)
  given = {k for k, v in vars(options).items() if v != parser.get_default(k)}
  _check(parser, options)
  from audiolm_jax import config  # pylint: disable=g-import-not-at-top
  from audiolm_jax.audio import files  # pylint: disable=g-import-not-at-top
  from audiolm_jax.tokenizers import long  # pylint: disable=g-import-not-at-top
  from audiolm_jax.training import checkpoints  # pylint: disable=g-import-not-at-top

  try:
    return run(options, given)
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
