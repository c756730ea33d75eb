"""The Tokenizer seam: audio in, `Tokens` out, and back."""

import abc
import dataclasses
import math
from typing import Annotated, Any

import flax
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax.audio import checks

Variables = dict[str, Any]  # {'params': ..., 'state': ...}

# Bounds of what files and configs say.
Rate = Annotated[
    int, config.Range(min=checks.LOWEST_RATE, max=checks.HIGHEST_RATE)
]
_Samples = Annotated[int, config.Range(min=1, max=1 << 20)]
_Channels = Annotated[int, config.Range(min=1, max=checks.MOST_CHANNELS)]


class Tokens(flax.struct.PyTreeNode):
  """A batch of tokenised audio; exactly one of `codes` and `latents` is set.

  Attributes:
    num_samples: [B] valid *audio samples* of each row before tokenisation, so that
      decode returns the lengths that encode was given. `spec.frames(num_samples)`
      gives the valid frames.
    codes: [B, F, K] int32, for discrete tokens.
    latents: [B, F, D] float32, for continuous ones.
    durations: [B, F] int32 frames each token lasts, where the rate varies.
    scales: [B, F] gain of the segment that a frame belongs to, where segments
      are normalised (EnCodec at 48 kHz).
  """

  num_samples: Int[Array, 'B']
  codes: Int[Array, 'B F K'] | None = None
  latents: Float[Array, 'B F D'] | None = None
  durations: Int[Array, 'B F'] | None = None
  scales: Float[Array, 'B F'] | None = None


@dataclasses.dataclass(frozen=True)
class Slot:
  """One of the K codes of a frame.

  Attributes:
    codebook: which codebook it indexes.
    vocabulary: how many values it takes.
    offset: its time in the frame, as a fraction of the hop in [0, 1).
    source: which source (speaker, stem) it describes.
    channel: which audio channel.
  """

  codebook: config.Count
  vocabulary: Annotated[int, config.Range(min=2, max=1 << 31)]
  offset: config.Share = 0.0
  source: config.Count = 0
  channel: config.Count = 0


@dataclasses.dataclass(frozen=True)
class Dates:
  """The taxonomy of Discrete Audio Tokens (2506.10274, section 2)."""

  architecture: str  # of encoder and decoder: CNN, RNN, CNN+RNN, CNN+T, T
  representation: str  # time or time-frequency
  quantiser: str  # RVQ, GVQ, SVQ, MSRVQ, CSRVQ, PQ, FSQ, k-means
  bitrate: str  # fixed or adaptive
  objective: tuple[str, ...]  # of GAN, Diff, MP, Feat, Rec, VQ
  auxiliary: tuple[str, ...]  # disentanglement, semantic distillation, ...
  domain: tuple[str, ...]  # speech, music, audio
  streamable: bool = False  # step by step, exactly, at a bounded latency


@dataclasses.dataclass(frozen=True)
class Spec:
  """What a tokenizer's tokens are.

  Attributes:
    sample_rate: of the audio, in Hz.
    hop: samples a frame (the coarsest hop where codebooks differ in rate).
    slots: the codes of a frame; empty for continuous tokens.
    dimension: latent width for continuous tokens, else None.
    channels: audio channels.
    segment: (samples, samples between starts) of the overlapping segments that
      are coded by themselves, or None.
    causal: whether frame f depends on samples before (f + 1) hop + latency only.
    latency: samples of delay from input to output that streaming needs, encoder
      and decoder together, beyond the frame itself.
    dates: taxonomy, for cards and reports.
  """

  sample_rate: Rate
  hop: _Samples
  slots: tuple[Slot, ...]
  causal: bool
  latency: config.Count
  dates: Dates
  dimension: _Samples | None = None
  channels: _Channels = 1
  segment: Annotated[tuple[int, int], config.Range(min=1)] | None = None

  def __post_init__(self):
    if self.segment is not None and (
        len(self.segment) != 2 or self.segment[1] > self.segment[0]
    ):
      raise config.ConfigError(
          f'segment = {self.segment}: expected (samples, samples between'
          ' starts), the second at most the first'
      )

  @property
  def frame_rate(self) -> float:
    """Frames a second."""
    if self.segment is None:
      return self.sample_rate / self.hop
    size, stride = self.segment
    return -(-size // self.hop) * self.sample_rate / stride

  @property
  def bits_per_second(self) -> float:
    """Of codes stored at log2 V each, before any entropy coding."""
    return self.frame_rate * sum(math.log2(s.vocabulary) for s in self.slots)

  @property
  def vocabularies(self) -> tuple[int, ...]:
    return tuple(slot.vocabulary for slot in self.slots)

  def frames(self, num_samples):
    """Frames that hold `num_samples` samples: ceil(num_samples / hop).

    Where audio is cut into segments: all of those before the last, and what the
    last one needs.
    """
    if self.segment is None:
      return -(-num_samples // self.hop)
    size, stride = self.segment
    before = (num_samples > 0) * (-(-num_samples // stride) - 1)
    rest = num_samples - before * stride
    return before * -(-size // self.hop) + -(-rest // self.hop)

  def samples(self, frames):
    """The most samples that `frames` frames hold."""
    if self.segment is None:
      return frames * self.hop
    size, stride = self.segment
    each = -(-size // self.hop)
    before = (frames > 0) * (-(-frames // each) - 1)
    rest = (frames - before * each) * self.hop
    return before * stride + np.minimum(rest, stride)

  def to_dict(self) -> dict[str, Any]:
    """Plain values, for JSON; `from_dict` inverts it."""
    return dataclasses.asdict(self)

  @classmethod
  def from_dict(cls, values: dict[str, Any]) -> 'Spec':
    """What `to_dict` gave, or a file says.

    Raises:
      config.ConfigError: for a missing or unknown key, a wrong type or a value
        out of range; the message names the key.
    """
    return config.build(cls, values, 'spec')


class Tokenizer(abc.ABC):
  """Audio <-> tokens as pure functions of explicit variables.

  `variables` is {'params': ..., 'state': ...}: what gradients train, and what
  statistics train (codebooks). Rows are independent: a padded batch equals its
  rows one by one, and whatever stands past a row's length changes nothing.
  """

  spec: Spec
  # Whether frames have gains: `Tokens.scales`.
  has_scales = False

  @abc.abstractmethod
  def init(self, rng: Array) -> Variables:
    """Fresh variables; params may be boxed with logical axis names."""

  @abc.abstractmethod
  def encode(
      self,
      variables: Variables,
      audio: Float[Array, 'B T C'],
      num_samples: Int[Array, 'B'],
      rng: Array | None = None,
  ) -> Tokens:
    """Tokenises; frames past `spec.frames(num_samples)` hold code 0 (latent 0).

    Raises:
      ValueError: for what `inputs.audio` refuses. Under `jax.jit` values are
        not known: samples that are not finite or not scaled pass.
    """

  @abc.abstractmethod
  def decode(
      self, variables: Variables, tokens: Tokens
  ) -> tuple[Float[Array, 'B T C'], Int[Array, 'B']]:
    """Audio [B, F * hop, C], zero past each row's length, and the lengths.

    Raises:
      ValueError: for what `inputs.tokens` refuses. Under `jax.jit` values are
        not known: a code out of its vocabulary then sounds like another one, or
        like NaN to the end.
    """

  def code_vectors(self, variables: Variables) -> Float[Array, 'K V D'] | None:
    """The vectors that the codes of each slot stand for, if there are such."""
    del variables
    return None


def numpy_tokens(tokens: Tokens) -> Tokens:
  """The same tokens on the host."""
  return Tokens(
      **{
          field.name: None if value is None else np.asarray(value)
          for field in dataclasses.fields(tokens)
          for value in [getattr(tokens, field.name)]
      }
  )
