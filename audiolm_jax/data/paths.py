"""Where corpora, downloads and caches live."""

import os
import pathlib


def cache_dir() -> pathlib.Path:
  """`$AUDIOLM_JAX_CACHE`, by default ~/.cache/audiolm_jax."""
  return pathlib.Path(
      os.environ.get('AUDIOLM_JAX_CACHE', '~/.cache/audiolm_jax')
  ).expanduser()


def data_dir() -> pathlib.Path:
  """The TFDS data directory: built corpora."""
  return cache_dir() / 'data'


def downloads_dir() -> pathlib.Path:
  """What was fetched, to build from again without a network."""
  return cache_dir() / 'downloads'


def manual_dir() -> pathlib.Path:
  """Where people put files that can't be fetched from their machine."""
  return downloads_dir() / 'manual'
