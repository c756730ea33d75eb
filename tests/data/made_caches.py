"""Token caches of made-up clips, for any test."""

from collections.abc import Callable
import os

import numpy as np

from audiolm_jax.data import cache_header
from audiolm_jax.data import token_cache
from audiolm_jax.tokenizers import encoding
from audiolm_jax.tokenizers import base as tokenizers_base

DATES = tokenizers_base.Dates('CNN', 'time', 'RVQ', 'fixed', (), (), ())


def spec(
    vocabularies: tuple[int, ...] = (), hop: int = 320, **options
) -> tokenizers_base.Spec:
  """The spec of a tokenizer at 16 kHz; continuous with a `dimension`."""
  slots = tuple(tokenizers_base.Slot(k, v) for k, v in enumerate(vocabularies))
  return tokenizers_base.Spec(
      16000, hop, slots, True, 0, dates=DATES, **options
  )


def identity(
    vocabularies: tuple[int, ...], clips: dict[str, int], **changes
) -> cache_header.Identity:
  """What such a cache says of itself."""
  fields = {
      'spec': spec(vocabularies),
      'fingerprint': 'hash',
      'tokenizer': 'nowhere',
      'codebooks': len(vocabularies) or None,
      'aligned': True,
      'corpus': 'made_up',
      'clips': clips,
  }
  return cache_header.Identity(**{**fields, **changes})


def example(
    codes: np.ndarray, factors: dict[str, str], hop: int = 320
) -> encoding.Example:
  """A clip of whole frames."""
  return encoding.Example(codes, hop * len(codes), factors)


def write(
    directory: str | os.PathLike,
    of: cache_header.Identity,
    example: Callable[[str, int], encoding.Example],
) -> str:
  """Writes a whole cache.

  Args:
    directory: where to.
    of: its identity.
    example: (split, index) -> the clip.

  Returns:
    The directory.
  """
  writer = token_cache.Writer(directory, of)
  for split, part, members in writer.missing():
    writer.write(split, part, [example(split, i) for i in members])
  assert writer.finish()
  return os.fspath(directory)


def clips_of(
    directory: str | os.PathLike,
) -> dict[str, tuple[str, encoding.Example]]:
  """id -> (split, clip) of all clips of a cache, or of what is read as one."""
  clips = {}
  for split in token_cache.read_header(directory).splits:
    cache = token_cache.TokenCache(directory, split)
    for i in range(len(cache)):
      clips[cache[i].factors['id']] = split, cache[i]
  return clips
