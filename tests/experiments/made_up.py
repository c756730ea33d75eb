"""Token caches of made-up codes, for questions end to end."""

from collections.abc import Sequence
import os

import numpy as np

from audiolm_jax.data import token_cache
from audiolm_jax.tokenizers import base as tokenizers_base
from tests.data import made_caches

_OWN = {'en': 1, 'fr': 2, 'es': 3, 'it': 4}


def spec(slots: int, vocabulary: int) -> tokenizers_base.Spec:
  """Of a tokenizer that does not exist."""
  return tokenizers_base.Spec(
      sample_rate=16000,
      hop=320,
      slots=tuple(tokenizers_base.Slot(k, vocabulary) for k in range(slots)),
      causal=True,
      latency=0,
      dates=tokenizers_base.Dates('CNN', 'time', 'RVQ', 'fixed', (), (), ()),
  )


def write_cache(
    directory: str | os.PathLike,
    languages: Sequence[str],
    of: tokenizers_base.Spec,
    tokenizer_hash: str = 'same',
) -> None:
  """Clips in which each language has its own code, and a little noise."""
  clips = {'train': 12, 'validation': 4, 'test': 6}
  identity = made_caches.identity(
      of.vocabularies,
      clips,
      spec=of,
      fingerprint=tokenizer_hash,
      languages=tuple(languages),
  )
  writer = token_cache.Writer(directory, identity)
  for split, part, indices in writer.missing():
    examples = []
    for i in indices:
      language = languages[i % len(languages)]
      rng = np.random.default_rng([len(split), i])
      codes = np.full((12, len(of.slots)), _OWN[language])
      codes[rng.random(codes.shape) < 0.1] = 0
      factors = {'id': f'{split}{i}', 'language': language}
      examples.append(made_caches.example(codes, factors, of.hop))
    writer.write(split, part, examples)
  assert writer.finish()
