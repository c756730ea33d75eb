"""Frozen encoders of audio, for distances of sets: each has a hash.

A distance means nothing without its encoder, so the hash stands beside every
value. To add one: a frozen dataclass with `open() -> Frozen`, and a line in
ENCODERS.
"""

import abc
from collections.abc import Sequence
import dataclasses
import hashlib
from typing import Annotated

from jaxtyping import Float
import numpy as np

from audiolm_jax import config
from audiolm_jax.audio import resample
from audiolm_jax.evaluation import representations
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import loading


class Frozen(abc.ABC):
  """An encoder that is open.

  Attributes:
    hash: hexadecimal; equal hashes give equal embeddings.
  """

  hash: str

  @abc.abstractmethod
  def __call__(
      self, clips: Sequence[tuple[np.ndarray, int]]
  ) -> Float[np.ndarray, 'N D']:
    """One vector a clip, of audio [T, C] in [-1, 1] and its rate in Hz."""


def _pooled(frames: Float[np.ndarray, 'F D']) -> Float[np.ndarray, '2D']:
  """Mean and standard deviation over frames; zeros of none."""
  if not len(frames):
    return np.zeros(2 * frames.shape[1])
  frames = frames.astype(np.float64)
  return np.concatenate([frames.mean(axis=0), frames.std(axis=0)])


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomFeatures:
  """Random rectified projections of log-mel patches: no training, no weights.

  Patches of `patch` frames of 10 ms, 40 bands at 16 kHz, standardised by fixed
  numbers, times a random matrix of the seed, rectified; their mean and standard
  deviation over a clip's patches. Random convolutional features tell
  distributions apart as trained ones do, less like ears
  (cf. Naeem et al. 2020, who use a random VGG).

  Attributes:
    width: features, so that vectors have twice as many numbers.
    patch: frames.
    seed: of the projection.
  """

  width: config.Positive = 32
  patch: config.Positive = 9
  seed: config.Count = 0

  def open(self) -> Frozen:
    return _RandomFeatures(self)


# Of natural-log mel magnitudes of speech near -25 dB: what they are about.
_CENTRE, _SPREAD = -5.0, 3.0
_RATE, _HOP, _BANDS = 16000, 160, 40


class _RandomFeatures(Frozen):

  def __init__(self, settings):
    self._settings = settings
    size = settings.patch * _BANDS
    rng = np.random.default_rng((40, settings.seed))
    shape = (size + 1, settings.width)
    self._matrix = rng.standard_normal(shape) / np.sqrt(size)
    digest = hashlib.sha256(repr((settings, _CENTRE, _SPREAD)).encode())
    digest.update(self._matrix.astype('<f8').tobytes())
    self.hash = digest.hexdigest()

  def __call__(self, clips):
    return np.stack([_pooled(frames) for frames in self.patches(clips)])

  def patches(
      self, clips: Sequence[tuple[np.ndarray, int]]
  ) -> list[Float[np.ndarray, 'P D']]:
    """A vector of each patch, of mono or other audio [T, C], every 10 ms."""
    return [self._embed(audio, rate) for audio, rate in clips]

  def _embed(self, audio, rate):
    audio = resample.mono(audio, rate, _RATE)
    mels = representations.log_mels(audio, _RATE, _HOP, _BANDS)
    size = self._settings.patch
    mels = (mels - _CENTRE) / _SPREAD
    # A clip that is shorter than a patch is one patch, padded with its edge.
    missing = max(size - len(mels), 0) if len(mels) else 0
    mels = np.pad(mels, ((0, missing), (0, 0)), 'edge') if missing else mels
    if not len(mels):
      return np.zeros((0, self._settings.width))
    windows = np.lib.stride_tricks.sliding_window_view(mels, size, axis=0)
    patches = windows.reshape(len(windows), -1)
    z = patches @ self._matrix[:-1] + self._matrix[-1]
    return np.maximum(z, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfModel:
  """The frames of a tokenizer of yours: latents, or vectors of its codes.

  Attributes:
    path: what `audiolm_jax.load` takes, of a tokenizer.
  """

  path: Annotated[str, config.Path()]

  def open(self) -> Frozen:
    """The encoder.

    Raises:
      ConfigError: if it is no tokenizer.
    """
    bound = loading.load(self.path)
    if not isinstance(bound, audio_tokenizer.AudioTokenizer):
      raise config.ConfigError(
          f'path = {self.path!r} is a {type(bound).__name__}, not a tokenizer'
      )
    return _OfModel(bound)


class _OfModel(Frozen):

  def __init__(self, bound):
    self._bound = bound
    self.hash = bound.fingerprint()

  def __call__(self, clips):
    def read(bound, tokens, audio, num_samples):
      del audio, num_samples
      if tokens.codes is None:
        return np.asarray(tokens.latents), ()
      codes = np.asarray(tokens.codes)
      return representations.code_vectors(bound, codes), ()

    frames = representations.of_tokens(self._bound, clips, read)
    return np.stack([_pooled(f.values) for f in frames])


ENCODERS = {'random_features': RandomFeatures, 'model': OfModel}
