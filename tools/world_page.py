"""Writes a page to look at and listen to speech_world.

  python tools/world_page.py --out=world.html --clips=3
  python tools/world_page.py --out=world.html --languages=sums --nochannels
  python tools/world_page.py --out=world.html --pool=espeak_lm

One file with everything in it: for each sub-language its card, and clips with
spectrogram, phones, f0, sound and factors; where a word can be wrong, the
ungrammatical twin beside each.
"""

import base64
import dataclasses
import html
import io
import pathlib

from absl import app
from absl import flags
from matplotlib import figure
import numpy as np

from audiolm_jax import config
from audiolm_jax.comparison import drawing
from audiolm_jax.data.speech_world import clips as clips_lib
from audiolm_jax.data.speech_world import engine as engine_lib
from audiolm_jax.data.speech_world import known as known_lib
from audiolm_jax.training import writers

_OUT = flags.DEFINE_string('out', 'world.html', 'The page.')
_LANGUAGES = flags.DEFINE_list(
    'languages', [], 'Which; empty for all that the pool speaks.'
)
_POOL = flags.DEFINE_enum(
    'pool', 'lm', list(clips_lib.POOLS), 'Of speakers, and so the engine.'
)
_CLIPS = flags.DEFINE_integer('clips', 3, 'Of each.', lower_bound=1)
_CHANNELS = flags.DEFINE_bool(
    'channels', True, "Each clip's drawn channel, too."
)

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 70rem;
  margin: 2rem auto; padding: 0 1rem; color: #1c2733 }
img { width: 100% } audio { width: 22rem; vertical-align: middle }
pre { overflow-x: auto; background: #f3f5f7; padding: .7rem; font-size: 12px }
section { border-top: 1px solid #d5dbe1; margin-top: 1.5rem }
"""


def _spectrogram(audio, factors) -> str:
  """A PNG as a data URL: 16-ms windows, phones and their times, f0 if known."""
  fig = figure.Figure(figsize=(13, 3.1), layout='constrained')
  axes = fig.subplots()
  size, hop = 256, 48
  windows = np.lib.stride_tricks.sliding_window_view(audio, size)[::hop]
  spectra = np.fft.rfft(windows * np.hanning(size))
  level = 20 * np.log10(np.abs(spectra) + 1e-4)
  rate, seconds = engine_lib.RATE, len(audio) / engine_lib.RATE
  axes.imshow(
      level.T,
      origin='lower',
      aspect='auto',
      cmap='magma',
      vmin=level.max() - 75,
      extent=(size / 2 / rate, seconds - size / 2 / rate, 0, 8),
  )
  label = 'kHz'
  if known_lib.has_f0(factors):
    t = np.arange(0.06, seconds - 0.1, 0.01)
    axes.plot(t, known_lib.f0(factors, t) / 100, color='#4fd1ff', linewidth=1)
    label = 'kHz; f0 in 100 Hz (line)'
  for phone, start, end in factors['phones']:
    axes.axvline(end, color='white', linewidth=0.4)
    axes.text((start + end) / 2, 8.1, phone, ha='center', fontsize=9)
  axes.set(xlabel='s', ylabel=label, ylim=(0, 8), xlim=(0, seconds))
  image = io.BytesIO()
  fig.savefig(image, dpi=85, format='png')
  data = base64.b64encode(image.getvalue()).decode()
  return f'data:image/png;base64,{data}'


def _sound(title, clip) -> str:
  """Its audio to play, and what it looks like."""
  audio = clip.audio()
  uri = drawing.audio_uri(audio, engine_lib.RATE)
  return (
      f'<p><audio controls src="{uri}"></audio>'
      f' {html.escape(title)}: <b>{html.escape(clip.text)}</b></p>'
      f'<img alt="spectrogram" src="{_spectrogram(audio, clip.factors())}">'
  )


def _entry(clip, with_channel) -> str:
  """A clip, its twin, and itself behind its channel."""
  parts = [_sound(f'{clip.split}, {-clip.log2p:.2f} bits', clip)]
  try:
    parts.append(_sound('one word wrong', clip.twin()))
  except config.ConfigError:
    pass  # Nothing can be wrong in this language.
  if with_channel:
    world = dataclasses.replace(clip.world, channels=True)
    behind = clips_lib.clip(world, clip.index)
    changed = {
        field.name: getattr(behind.channel, field.name)
        for field in dataclasses.fields(behind.channel)
        if getattr(behind.channel, field.name) != field.default
    }
    parts.append(_sound(f'channel {changed}', behind))
  factors = html.escape(clips_lib.to_json(clip))
  return (
      '<section>'
      + ''.join(parts)
      + f'<details><summary>all factors</summary><pre>{factors}</pre></details>'
      '</section>'
  )


def page(names, pool: str, count: int, with_channel: bool) -> str:
  """The page, complete in itself.

  Args:
    names: of sub-languages.
    pool: of speakers, and so the engine.
    count: clips of each.
    with_channel: whether each clip also goes through its drawn channel.
  """
  parts = []
  for name in names:
    world = clips_lib.World(name, pool)
    shown = dataclasses.replace(world, channels=with_channel)
    parts.append(
        f'<h2>{html.escape(name)}</h2>'
        f'<pre>{html.escape(clips_lib.card(shown))}</pre>'
    )
    parts += [
        _entry(clips_lib.clip(world, i), with_channel) for i in range(count)
    ]
  return (
      '<!doctype html><html lang="en"><meta charset="utf-8">'
      f'<title>speech_world</title><style>{_STYLE}</style>'
      '<h1>speech_world</h1>' + ''.join(parts) + '</html>'
  )


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  pool = _POOL.value
  names = _LANGUAGES.value or clips_lib.POOLS[pool].speaks
  text = page(names, pool, _CLIPS.value, _CHANNELS.value)
  writers.write_atomically(pathlib.Path(_OUT.value), text)
  print(f'{_OUT.value}: {len(text) / 1e6:.1f} MB')


if __name__ == '__main__':
  app.run(main)
