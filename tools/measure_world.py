"""What speech_world's engines and codecs do: speed, noise, and who hears them.

  python tools/measure_world.py --clips=40 --judge=runs/judges/judge

Prints, of each engine, how many seconds of audio a second of one core makes; of
each codec, the SNR of digits behind it, least and most in brackets; and, with a
recogniser of phones (configs/judge), which phones of matrix sentences it gets
wrong, with bootstrap intervals over clips. An engine that needs an extra which
is not installed is left out, by name. A minute on one core.
"""

import argparse
from collections.abc import Iterator
import sys
import time

from audiolm_jax.training import launch

if __name__ == '__main__':
  launch.reexecute()  # Before the heavy imports.

# ruff: noqa: E402

import numpy as np

from audiolm_jax import config
from audiolm_jax.comparison import statistics
from audiolm_jax.data import building
from audiolm_jax.data.speech_world import channels
from audiolm_jax.data.speech_world import clips as clips_lib
from audiolm_jax.evaluation import content
from audiolm_jax.evaluation import speaking
from audiolm_jax.evaluation import world_clips


def main(arguments=None):
  options = _options(arguments)
  try:
    for line in measured(options.clips, options.judge):
      print(line, flush=True)
  except (config.ConfigError, OSError) as error:
    launch.fail(f'measure_world.py: {error}')


def measured(count: int, judge: str | None) -> Iterator[str]:
  """The lines that the tool prints.

  Args:
    count: clips that each number is of.
    judge: directory of a recogniser of phones; None for none.
  """
  listener = judge and content.Listener(speaking.load_judge(judge), 'matrix')
  for engine in clips_lib.ENGINES:
    pool = engine.pools[-1]
    try:
      yield f'{pool}: {_speed(pool, count):.0f} times real time'
    except building.CorpusError as error:
      yield f'{pool}: left out: {error}'
      continue
    if listener:
      yield f'{pool}: {_wrong(listener, pool, "", count)} of phones wrong'
  for codec in channels.CODECS[1:]:
    yield f'{codec}: SNR {_snr(codec, count)} dB'
    if listener:
      yield f'{codec}: {_wrong(listener, "lm", codec, count)} of phones wrong'


def _speed(pool, count) -> float:
  """Seconds of audio for a second of a core."""
  world = clips_lib.World('digits', pool)
  drawn = [clips_lib.clip(world, i) for i in range(count)]
  drawn[0].audio()  # What is made once.
  start = time.process_time()
  samples = sum(len(clip.audio()) for clip in drawn[1:])
  return samples / channels.RATE / (time.process_time() - start)


def _snr(codec, count) -> str:
  """Mean of clips of digits, least and most."""
  world, decibels = clips_lib.World('digits'), []
  for i in range(count):
    audio = clips_lib.clip(world, i).audio()
    noise = audio - channels.coded(audio, codec)
    decibels.append(10 * np.log10(np.sum(audio**2) / np.sum(noise**2)))
  low, high = min(decibels), max(decibels)
  return f'{np.mean(decibels):.1f} ({low:.0f} to {high:.0f})'


def _wrong(listener, pool, codec, count) -> str:
  """Share of the phones of held-out matrix sentences, behind a codec."""
  heard = []
  for clip in world_clips.held_out(clips_lib.World('matrix', pool), count):
    channel = channels.Channel(codec=codec)
    audio = channels.apply(clip.audio(), channel)[:, None]
    heard.append(speaking.Clip(clip.id, clip.text, audio, channels.RATE))
  scores = [s for s in listener.errors(heard) if s.name == 'phone_error']
  found = statistics.bootstrap({s.item: (s.sum, s.weight) for s in scores})
  mean, low, high = (100 * x for x in (found.mean, found.low, found.high))
  return f'{mean:.1f}% [{low:.1f}, {high:.1f}]'


def _options(arguments):
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  count = launch.number(int, lambda x: x >= 2, '2 or more')
  parser.add_argument('--clips', type=count, default=40)
  parser.add_argument(
      '--judge', metavar='DIR', help='a recogniser of phones, to listen'
  )
  return parser.parse_args(arguments)


if __name__ == '__main__':
  sys.exit(main())
