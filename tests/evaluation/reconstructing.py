"""A tokenizer that gives the audio back times a gain, for any test."""

import numpy as np

from audiolm_jax.tokenizers import base as tokenizers_base
from tests.data import made_caches


class Bound:
  """Bound as an `AudioTokenizer`; its variables are the gain."""

  def __init__(self, gain: float = 1.0):
    self.variables = gain
    self.spec = made_caches.spec((4,))

  def encode(self, audio, num_samples):
    self._audio = audio
    codes = np.zeros((len(audio), audio.shape[1] // self.spec.hop, 1), np.int32)
    return tokenizers_base.Tokens(num_samples=num_samples, codes=codes)

  def decode(self, tokens):
    return self.variables * self._audio, tokens.num_samples


class Objective:
  """Binds gains."""

  def bind(self, variables):
    return Bound(variables)
