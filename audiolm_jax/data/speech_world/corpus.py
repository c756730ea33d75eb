"""speech_world as a corpus: built once into the cache, read by random access.

A config is 'LANGUAGE-POOL-CHANNELS-CLIPS', such as 'sentences-lm-clean-4000' or
'digits-espeak_lm-channels-400': the pool of speakers says which engine speaks.
"""

from collections.abc import Iterable, Iterator
import concurrent.futures
import dataclasses
import functools
import itertools
import multiprocessing
import os

import tensorflow_datasets as tfds

from audiolm_jax.data import building
from audiolm_jax.data.speech_world import clips as clips_lib
from audiolm_jax.data.speech_world import engine as engine_lib
from audiolm_jax.data.speech_world import languages

SIZES = (400, 4000, 40000)
_CHANNELS = {'clean': False, 'channels': True}
# Clips are those of their version; the second of channels has codecs.
_VERSIONS = {'clean': '1.0.0', 'channels': '2.0.0'}
# Clips: that are not worth the start of a process, that one renders at a time,
# and that are rendered before they are written.
_FEW, _BLOCK, _MANY = 1000, 25, 800


@dataclasses.dataclass(kw_only=True)
class World(tfds.core.BuilderConfig):
  """A set of clips of a size, named by its factors."""

  world: clips_lib.World
  size: int


def _configs() -> list[World]:
  return [
      World(
          name=f'{language}-{pool}-{channels}-{size}',
          version=tfds.core.Version(_VERSIONS[channels]),
          world=clips_lib.World(language, pool, channels=with_channels),
          size=size,
      )
      for language, (pool, engine), (channels, with_channels), size in (
          itertools.product(
              languages.LANGUAGES,
              clips_lib.POOLS.items(),
              _CHANNELS.items(),
              SIZES,
          )
      )
      if language in engine.speaks and size <= engine.most
  ]


class SpeechWorld(building.CorpusBuilder, skip_registration=True):
  """Synthetic speech whose every factor is stored and has a known entropy.

  `factors` of a clip are JSON: see `clips.Clip.factors`. They are rendered with
  its audio.
  """

  name = 'speech_world'
  BUILDER_CONFIGS = _configs()
  DEFAULT_CONFIGS = ('sentences-lm-clean-4000',)
  DESCRIPTION = 'Synthetic speech of known factors and entropies, 16 kHz.'
  LICENSE = 'Synthetic, made by this program.'
  FACTORS = ('factors',)

  def clips(self) -> Iterable[building.Clip]:
    world = self.builder_config.world
    for i in range(self.builder_config.size):
      clip = clips_lib.clip(world, i)
      yield building.Clip(
          id=clip.id,
          split=clip.split,
          prompt_id=clip.text.replace(' ', '-'),
          text=clip.text,
          speaker=clip.utterance.speaker.name,
          language='' if world.language in languages.MADE_UP else 'en',
          source=(world, i),
      )

  def load(self, clip: building.Clip):
    _, audio = _render(*clip.source)
    return audio, engine_lib.RATE

  def card_text(self) -> str:
    return clips_lib.card(self.builder_config.world)

  def download_and_prepare(self, **options) -> None:
    with concurrent.futures.ProcessPoolExecutor(
        os.cpu_count(), multiprocessing.get_context('spawn')
    ) as self._pool:  # It starts processes when it gets work.
      super().download_and_prepare(**options)

  def loaded(self, clips: list[building.Clip]) -> Iterator:
    """Clips and their factors beside their audio.

    A process for each core renders them; when what is said is known only from
    the audio, it says its factors, too.
    """
    for start in range(0, len(clips), _MANY):  # Not all in memory at once.
      part = clips[start : start + _MANY]
      sources = zip(*(clip.source for clip in part), strict=True)
      if len(clips) < _FEW:
        rendered = map(_render, *sources)
      else:
        rendered = self._pool.map(_render, *sources, chunksize=_BLOCK)
      for clip, (factors, audio) in zip(part, rendered, strict=True):
        known = dataclasses.replace(clip, factors={'factors': factors})
        yield known, functools.partial(_with_rate, audio)


def _with_rate(audio):
  return audio, engine_lib.RATE


def _render(world, index):
  """A clip's factors as JSON, and its audio."""
  clip = clips_lib.clip(world, index)
  return clips_lib.to_json(clip), clip.audio()[:, None]
