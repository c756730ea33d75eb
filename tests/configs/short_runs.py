"""Configs of language models over a few made-up tokens."""

import os

from audiolm_jax import config
from audiolm_jax import train


def shrunk(settings: train.Config, tokens: str | os.PathLike) -> train.Config:
  """Two steps over short rows of a cache, from random vectors."""
  return config.replace(
      settings,
      {
          'data.cache': str(tokens),
          'data.frames': 8,
          'objective.init_embeddings': False,
          'evaluators.lm.clips.max_frames': 8,
          'batch_size': 2,
          'steps': 2,
          'eval_every': 2,
      },
  )
