"""Clips of speech_world as hashes, made here or by another process."""

import hashlib
import json
import pathlib
import subprocess
import sys

from audiolm_jax.data.speech_world import clips as clips_lib

_ROOT = pathlib.Path(__file__).parents[3]


def here(language, pool, order):
  """Number -> hash of the audio, and the factors, of clips made in an order."""
  world = clips_lib.World(language, pool)
  made = {i: clips_lib.clip(world, i) for i in order}
  return {
      str(i): [
          hashlib.sha256(clip.audio().tobytes()).hexdigest(),
          clips_lib.to_json(clip),
      ]
      for i, clip in made.items()
  }


def elsewhere(language, pool, order):
  """The same by a fresh process."""
  asked = json.dumps([language, pool, list(order)])
  done = subprocess.run(
      [sys.executable, '-m', 'tests.data.speech_world.world_hashes', asked],
      capture_output=True,
      check=True,
      cwd=_ROOT,
  )
  return json.loads(done.stdout)


if __name__ == '__main__':
  print(json.dumps(here(*json.loads(sys.argv[1]))))
