"""Semantic distillation: the first codes should say what a teacher says.

The student is the first quantiser level's vectors through a linear map; the
teacher gives features of the same audio, at its own frame rate.
"""

import abc
import dataclasses
import functools
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax import streaming
from audiolm_jax import tokenizers
from audiolm_jax.ops import mel
from audiolm_jax.ops import stft


class Teacher(abc.ABC):
  """Where the features come from; subclasses are frozen dataclasses."""

  @property
  @abc.abstractmethod
  def dimension(self) -> int:
    """E of the features."""

  @abc.abstractmethod
  def hop(self, sample_rate: int) -> float:
    """Samples of audio a feature frame stands for."""

  @abc.abstractmethod
  def __call__(
      self, variables: Any, batch: dict[str, Array], sample_rate: int
  ) -> Float[Array, 'B N E']:
    """Features of `audio` [B, T, C], zero past `num_samples`, one frame a hop."""

  def init(self, rng: Array) -> dict[str, Any] | None:
    """Variables of a teacher that has any; they are never trained."""
    del rng
    return None

  @property
  def feature_rate(self) -> float | None:
    """Feature frames a second that batches are to hold; None if it makes them."""
    return None

  def example(
      self, batch_size: int, samples: int, sample_rate: int
  ) -> dict[str, np.ndarray]:
    """What it needs of a batch beside audio and lengths."""
    del batch_size, samples, sample_rate
    return {}


@dataclasses.dataclass(frozen=True)
class Features(Teacher):
  """Features made before, which batches hold as `teacher` [B, N, E].

  Attributes:
    width: E.
    frame_rate: frames a second; the first N = ceil(T frame_rate / sample_rate).
  """

  width: config.Positive = 768
  frame_rate: Annotated[float, config.Range(min=1e-3)] = 50.0

  @property
  def dimension(self):
    return self.width

  @property
  def feature_rate(self):
    return self.frame_rate

  def hop(self, sample_rate):
    return sample_rate / self.frame_rate

  def __call__(self, variables, batch, sample_rate):
    return batch['teacher']

  def example(self, batch_size, samples, sample_rate):
    count = int(np.ceil(samples / self.hop(sample_rate)))
    shape = (batch_size, count, self.width)
    return {'teacher': np.zeros(shape, np.float32)}


@dataclasses.dataclass(frozen=True)
class LogMel(Teacher):
  """Log mel bands without each row's mean: no semantics, but no weights either.

  Attributes:
    size: window, in samples.
    step: samples a frame.
    mels: bands.
  """

  size: Annotated[int, config.Range(min=16)] = 1024
  step: config.Positive = 320
  mels: config.Positive = 80

  @property
  def dimension(self):
    return self.mels

  def hop(self, sample_rate):
    return float(self.step)

  def __call__(self, variables, batch, sample_rate):
    audio = jnp.mean(batch['audio'], axis=-1)
    count = -(-audio.shape[1] // self.step)
    # Windows are centred on the middle of their hop.
    before = max(self.size - self.step, 0) // 2
    after = (count - 1) * self.step + self.size - before - audio.shape[1]
    audio = jnp.pad(audio, ((0, 0), (before, max(after, 0))))
    spectra = stft.stft(audio, self.size, self.step)[:, :count]
    bands = mel.mel_spectrogram(jnp.abs(spectra), sample_rate, self.mels)
    logs = jnp.log(bands + 1e-2)
    frames = -(-batch['num_samples'] // self.step)
    mask = streaming.length_mask(frames, count)[..., None]
    mean = jnp.sum(jnp.where(mask, logs, 0.0), axis=1, keepdims=True)
    return logs - mean / jnp.maximum(frames, 1)[:, None, None]


@dataclasses.dataclass(frozen=True)
class Codec(Teacher):
  """The latents of a codec's encoder, before its quantiser.

  It is the objective's model 'teacher': start it from a work directory
  (`config.models.teacher.init_from`) and freeze it.

  Attributes:
    tokenizer: the codec, at the student's sample rate.
  """

  tokenizer: Annotated[Any, config.Kind(lambda: tokenizers.TOKENIZERS)]

  @property
  def dimension(self):
    return self.tokenizer.encoder.dimension

  def hop(self, sample_rate):
    if sample_rate != self.tokenizer.sample_rate:
      raise config.ConfigError(
          f'the teacher hears {self.tokenizer.sample_rate} Hz, the student'
          f' {sample_rate} Hz: they must agree'
      )
    return float(self.tokenizer.encoder.hop)

  def init(self, rng):
    return self.tokenizer.init(rng)

  def __call__(self, variables, batch, sample_rate):
    latents, _ = self.tokenizer.encode_latents(
        variables['params'], batch['audio'], batch['num_samples']
    )
    return latents


TEACHERS = {'features': Features, 'log_mel': LogMel, 'codec': Codec}


class Projection(nn.Module):
  """The linear map from the student's vectors to the teacher's features."""

  features: int

  @nn.compact
  def __call__(self, x: Float[Array, 'B F D']) -> Float[Array, 'B F E']:
    axes = ('channels_in', 'channels_out')
    return ops.linear(self, 'kernel', x, self.features, axes, use_bias=True)


@dataclasses.dataclass(frozen=True)
class Distillation:
  """A term that draws the first level's vectors towards a teacher's features.

  Attributes:
    teacher: of `TEACHERS`.
    projection: whether there is a linear map between, the objective's model
      'distillation'. Bottlenecks that keep their own ('distilled_rvq') need
      none.
    weight: in the loss: 120 (SpeechTokenizer), 1 for 'frame' (Mimi).
    comparison: 'time': -log sigmoid of each feature's cosine over time (Zhang
      et al. 2023, eq. 1); 'frame': one minus the cosine of each frame (Defossez
      et al. 2024, section 3.3.3).
  """

  teacher: Annotated[Any, config.Kind(lambda: TEACHERS)] = Features()
  projection: bool = True
  weight: config.NonNegative = 120.0
  comparison: Literal['time', 'frame'] = 'time'

  def init(self, rng: Array, dimension: int) -> dict[str, dict[str, Any]]:
    """Variables of the models that there are of 'distillation' and 'teacher'.

    Raises:
      config.ConfigError: if there is no map, and should be one.
    """
    rng, teacher_rng = jax.random.split(rng)
    width, models = self.teacher.dimension, {}
    if self.projection:
      params = Projection(width).init(rng, jnp.zeros((1, 1, dimension)))
      models['distillation'] = {'params': params['params'], 'state': {}}
    elif dimension != width:
      raise config.ConfigError(
          f'projection = False: the bottleneck gives vectors of {dimension},'
          f' the teacher features of {width}'
      )
    teacher = self.teacher.init(teacher_rng)
    return models if teacher is None else {**models, 'teacher': teacher}

  def __call__(
      self,
      variables: dict[str, dict[str, Any]],
      batch: dict[str, Array],
      semantic: Float[Array, 'B F D'],
      mask: Bool[Array, 'B F'],
      sample_rate: int,
      hop: int,
  ) -> tuple[Float[Array, ''], Float[Array, '']]:
    """(sum over valid frames, their number); rows count by their frames.

    Args:
      variables: of the models that `init` names.
      batch: audio, zero past the lengths, lengths, and the teacher's entries.
      semantic: the first level's vectors.
      mask: valid frames.
      sample_rate: of the audio.
      hop: samples a frame of `semantic`.
    """
    teacher = self.teacher
    target = jax.lax.stop_gradient(
        teacher(variables.get('teacher'), batch, sample_rate)
    )
    student = semantic
    if self.projection:
      student = Projection(teacher.dimension).apply(
          {'params': variables['distillation']['params']}, semantic
      )
    target, features = align(
        target,
        batch['num_samples'],
        teacher.hop(sample_rate),
        student.shape[1],
        float(hop),
    )
    mask = mask & features
    compare = {'time': over_time, 'frame': over_features}[self.comparison]
    rows = compare(student, target, mask)
    counts = jnp.sum(mask, axis=1).astype(jnp.float32)
    return jnp.sum(rows * counts), jnp.sum(counts)


def align(
    features: Float[Array, 'B N E'],
    num_samples: Int[Array, 'B'],
    teacher_hop: float,
    frames: int,
    hop: float,
) -> tuple[Float[Array, 'B F E'], Bool[Array, 'B F']]:
  """Features at the student's frames, and which of them there are.

  A faster teacher is averaged over each student frame (by overlap), a slower
  one is interpolated linearly at its middle; frames past a row's length take no
  part.

  Args:
    features: frame n is of samples [n, n + 1) teacher_hop.
    num_samples: samples.
    teacher_hop: samples a feature frame.
    frames: F.
    hop: samples a student frame.
  """
  weights = _alignment(features.shape[1], teacher_hop, frames, hop)
  count = jnp.ceil(num_samples / teacher_hop).astype(jnp.int32)
  mask = streaming.length_mask(count, features.shape[1])
  features = jnp.where(mask[..., None], features, 0.0)
  total = jnp.einsum('fn,bne->bfe', weights, features)
  share = jnp.einsum('fn,bn->bf', weights, mask.astype(jnp.float32))
  return total / jnp.maximum(share, 1e-6)[..., None], share > 1e-6


@functools.lru_cache
def _alignment(count, teacher_hop, frames, hop) -> np.ndarray:
  """Weights [F, N] of teacher frames in student frames."""
  n, f = np.arange(count), np.arange(frames)[:, None]
  if teacher_hop <= hop:
    start = np.maximum(n * teacher_hop, f * hop)
    end = np.minimum((n + 1) * teacher_hop, (f + 1) * hop)
    weights = np.maximum(end - start, 0.0) / hop
  else:
    # Before the first middle, and after the last, there is nothing to mix.
    position = np.clip((f + 0.5) * hop / teacher_hop - 0.5, 0, count - 1)
    weights = np.maximum(0.0, 1 - np.abs(position - n))
  return weights.astype(np.float32)


def over_time(
    student: Float[Array, 'B F E'],
    target: Float[Array, 'B F E'],
    mask: Bool[Array, 'B F'],
) -> Float[Array, 'B']:
  """Mean over features of -log sigmoid(cosine over a row's valid frames)."""
  x, y = (jnp.where(mask[..., None], v, 0.0) for v in (student, target))
  return -jnp.mean(jax.nn.log_sigmoid(_cosine(x, y, axis=1)), axis=-1)


def over_features(
    student: Float[Array, 'B F E'],
    target: Float[Array, 'B F E'],
    mask: Bool[Array, 'B F'],
) -> Float[Array, 'B']:
  """Mean over a row's valid frames of 1 - cosine over the features."""
  x, y = (jnp.where(mask[..., None], v, 0.0) for v in (student, target))
  distance = jnp.where(mask, 1 - _cosine(x, y, axis=-1), 0.0)
  return jnp.sum(distance, axis=1) / jnp.maximum(jnp.sum(mask, axis=1), 1)


def _cosine(x, y, axis):
  """0, without a gradient, where either vector is."""
  inner = jnp.sum(x * y, axis=axis)
  square = jnp.sum(x * x, axis=axis) * jnp.sum(y * y, axis=axis)
  return inner * jax.lax.rsqrt(jnp.maximum(square, 1e-16))
