"""A few clips of speech_world as a corpus, for any test; nothing is built."""

import functools
from typing import Any

from audiolm_jax.data.speech_world import clips as clips_lib


@functools.cache
def clips(
    count: int,
    pool: str = 'lm',
    channels: bool = False,
    language: str = 'digits',
) -> list[dict[str, Any]]:
  """The first clips that are not of the test, as a corpus gives them."""
  world = clips_lib.World(language, pool, channels=channels)
  found, index = [], 0
  while len(found) < count:
    clip = clips_lib.clip(world, index)
    index += 1
    if clip.split != 'test':
      found.append(
          {
              'id': clip.id,
              'text': clip.text,
              'speaker': clip.utterance.speaker.name,
              'language': 'en',
              'factors': clips_lib.to_json(clip),
              'audio': clip.audio()[:, None],
              'sample_rate': 16000,
          }
      )
  return found
