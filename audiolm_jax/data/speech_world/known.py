"""What the stored factors of a clip say at each moment of it.

They are JSON: `clips.Clip.factors`, parsed. No audio is needed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Bool, Float, Int
import numpy as np

from audiolm_jax.data.speech_world import phones as phones_lib
from audiolm_jax.data.speech_world import utterance as utterance_lib


def index_at(
    spans: Sequence[tuple[float, float]], t: Float[np.ndarray, ' n']
) -> Int[np.ndarray, ' n']:
  """Which span each second lies in; -1 for one that lies in none.

  Args:
    spans: (start, end) in seconds, ascending, the end not included.
    t: seconds.
  """
  starts, ends = np.array(spans, float).reshape(-1, 2).T
  if not len(starts):
    return np.full(len(t), -1)
  found = np.searchsorted(starts, t, side='right') - 1
  inside = (found >= 0) & (t < ends[np.maximum(found, 0)])
  return np.where(inside, found, -1)


def has_f0(factors: Mapping[str, Any]) -> bool:
  """Whether a clip's f0 and voicing are known: of our own synthesiser alone.

  Others whisper a vowel, or close a stop within what they call the vowel.
  """
  return 'f0_range' in factors


def f0(
    factors: Mapping[str, Any], t: Float[np.ndarray, ' n']
) -> Float[np.ndarray, ' n']:
  """Hz at seconds `t`, whether or not there is voice; without jitter.

  Raises:
    ValueError: for a clip of which `has_f0` is False.
  """
  _need_f0(factors)
  spans = [
      (start, end, accent)
      for (start, end), accent in zip(
          factors['word_times'], factors['accents'], strict=True
      )
  ]
  return utterance_lib.f0_contour(
      t, factors['speaker']['f0'], factors['f0_range'], spans
  )


def voiced(
    factors: Mapping[str, Any], t: Float[np.ndarray, ' n']
) -> Bool[np.ndarray, ' n']:
  """Whether the folds vibrate at seconds `t`, closures of b, d, g included.

  Raises:
    ValueError: for a clip of which `has_f0` is False.
  """
  _need_f0(factors)
  names, spans = [], []
  for phone, start, end in factors['phones']:
    names.append(has_voice(phone))
    spans.append((start, end))
  found = index_at(spans, t)
  return np.append(np.array(names, bool), False)[found]


def _need_f0(factors):
  if not has_f0(factors):
    raise ValueError(
        f'f0 and voicing of {factors["speaker"]["name"]} are not known: only'
        " those of speech_world's own synthesiser are"
    )


def has_voice(phone: str) -> bool:
  """Whether a phone of `phones.PHONES` is a vowel or a voiced consonant."""
  consonant = phones_lib.CONSONANTS.get(phone)
  return phone in phones_lib.VOWELS or bool(consonant and consonant.voiced)
