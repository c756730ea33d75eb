"""Audio cut into overlapping segments that are coded by themselves."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from audiolm_jax import config
from audiolm_jax import streaming
from audiolm_jax.tokenizers import base as tokenizers_base


@dataclasses.dataclass(frozen=True)
class Segments:
  """EnCodec at 48 kHz: 1 s, 1% overlap, each normalised (2210.13438, 3.1).

  Decoded segments are added with triangular weights, divided by their sum.

  Attributes:
    size: samples of a segment.
    stride: samples between their starts.
    normalize: divide each segment by its RMS (of the channels' mean), and
      multiply again after decoding.
  """

  size: config.Positive = 48000
  stride: config.Positive = 47520
  normalize: bool = True

  def __post_init__(self):
    if self.stride > self.size:
      raise config.ConfigError(
          f'stride = {self.stride} of segments: at most size = {self.size}'
      )

  @property
  def samples(self) -> tuple[int, int]:
    return self.size, self.stride

  def encode(
      self,
      codec: Any,
      variables: tokenizers_base.Variables,
      audio: Float[Array, 'B T C'],
      num_samples: Int[Array, 'B'],
      rng: Array | None = None,
  ) -> tokenizers_base.Tokens:
    """Tokens of all segments in a row, with their gains as `scales`.

    A segment just before the last one may be a frame short of a full one; that
    frame then holds code 0.
    """
    rows, size = audio.shape[:2]
    count = -(-size // self.stride)
    mask = streaming.length_mask(num_samples, size)
    audio = streaming.zero_masked(audio, mask)
    needed = (count - 1) * self.stride + self.size
    audio = streaming.pad_time(audio, 0, max(needed - size, 0))
    pieces = [
        audio[:, i * self.stride : i * self.stride + self.size]
        for i in range(count)
    ]
    own = self._own(num_samples, count)
    if not count:
      return _empty(codec, rows, num_samples)
    pieces = jnp.stack(pieces, axis=1).reshape(-1, self.size, audio.shape[2])
    scales = jnp.ones(pieces.shape[0])
    if self.normalize:
      power = jnp.square(pieces.mean(axis=2)).sum(axis=1)
      scales = jnp.sqrt(power / jnp.maximum(own.reshape(-1), 1)) + 1e-8
      pieces = pieces / scales[:, None, None]
    quantised = codec.quantise(variables, pieces, own.reshape(-1), rng=rng)
    frames = -(-self.size // codec.hop)

    total = codec.spec.frames(size)

    def joined(x):
      if x is None:
        return None
      return x.reshape(rows, -1, *x.shape[2:])[:, :total]

    scales = jnp.repeat(scales.reshape(rows, count), frames, axis=1)[:, :total]
    return tokenizers_base.Tokens(
        num_samples=num_samples,
        codes=joined(quantised.codes),
        latents=joined(quantised.tokens),
        scales=scales if self.normalize else None,
    )

  def decode(
      self,
      codec: Any,
      variables: tokenizers_base.Variables,
      tokens: tokenizers_base.Tokens,
  ) -> tuple[Float[Array, 'B T C'], Int[Array, 'B']]:
    """Audio [B, F hop, C], zero past each row's length, and the lengths."""
    frames = -(-self.size // codec.hop)
    given = tokens.latents if tokens.codes is None else tokens.codes
    rows, total = given.shape[:2]
    if not total:
      return jnp.zeros((rows, 0, codec.spec.channels)), tokens.num_samples
    count = -(-total // frames)

    def cut(x):
      x = streaming.pad_time(x, 0, count * frames - total)
      return x.reshape(rows * count, frames, *x.shape[2:])

    pieces = jax.tree.map(
        lambda x: x if x.ndim == 1 else cut(x), tokens.replace(scales=None)
    )
    latents = codec.dequantise(variables, pieces)
    own = self._own(tokens.num_samples, count).reshape(-1)
    # Whole frames sound, as the overlap uses all of a segment.
    own = -(-own // codec.hop) * codec.hop
    audio = codec.decode_latents(variables['params'], latents, own)
    if tokens.scales is not None:
      scales = streaming.pad_time(tokens.scales, 0, count * frames - total)
      audio = audio * scales[:, ::frames].reshape(-1)[:, None, None]
    audio = self._add(audio.reshape(rows, count, *audio.shape[1:]), own)
    missing = max(total * codec.hop - audio.shape[1], 0)
    audio = streaming.pad_time(audio, 0, missing)[:, : total * codec.hop]
    mask = streaming.length_mask(tokens.num_samples, audio.shape[1])
    return streaming.zero_masked(audio, mask), tokens.num_samples

  def _own(self, num_samples, count):
    """[B, count] samples of each row in each segment."""
    starts = jnp.arange(count) * self.stride
    return jnp.clip(num_samples[:, None] - starts, 0, self.size) * (
        starts < num_samples[:, None]
    )

  def _add(self, pieces, own):
    """Weighted sum of decoded segments [B, count, size, C]."""
    rows, count, size = pieces.shape[:3]
    own = own.reshape(rows, count)
    place = jnp.arange(1, size + 1) / (size + 1)
    weight = 0.5 - jnp.abs(place - 0.5)
    valid = jnp.arange(size) < own[..., None]
    weight = weight * valid
    total = (count - 1) * self.stride + size
    audio = jnp.zeros((rows, total, pieces.shape[3]))
    sums = jnp.zeros((rows, total))
    for i in range(count):
      here = slice(i * self.stride, i * self.stride + size)
      audio = audio.at[:, here].add(pieces[:, i] * weight[:, i, :, None])
      sums = sums.at[:, here].add(weight[:, i])
    return audio / jnp.where(sums > 0, sums, 1.0)[..., None]


def _empty(codec, rows, num_samples):
  """Tokens of no audio."""
  slots, width = len(codec.spec.slots), codec.spec.dimension
  return tokenizers_base.Tokens(
      num_samples=num_samples,
      codes=jnp.zeros((rows, 0, slots), jnp.int32) if slots else None,
      latents=None if slots else jnp.zeros((rows, 0, width)),
      scales=jnp.zeros((rows, 0)),
  )
