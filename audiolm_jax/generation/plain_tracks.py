"""Tracks of rows without a pattern: a step is a sample, or a frame of latents."""

import flax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from audiolm_jax.decoders import latent_heads
from audiolm_jax.generation import tracks

_static = flax.struct.field


class Plain(tracks.Track):
  """Rows whose steps hold one frame (or sample) each.

  Attributes:
    limit: [B] where all rows are to stand at the end of `steps.run`.
  """

  limit: Int[Array, 'B'] | None = None

  begun = window = 0

  @property
  def group(self):
    return self.slots

  def cells(self, step, frames):
    shape = (*step.shape, self.group)
    frame = jnp.broadcast_to(step[..., None], shape)
    slot = jnp.broadcast_to(jnp.arange(self.group), shape)
    return frame, slot, frame < frames.reshape(-1, *[1] * step.ndim)

  def ends(self, most):
    return lambda frames: self.limit


class Samples(Plain):
  """Samples of a `wavenet.WaveNet`: one a step, all of its channels.

  Attributes:
    temperature: of the draws, which are the head's own; 0 takes the likeliest.
  """

  temperature: Float[Array, ''] | float = 1.0

  @property
  def slots(self):
    return self.decoder.channels

  def begin(self, rows, cache_length, sink_tokens):
    return self.decoder.initial_state(rows)

  def first(self, slots, codes):
    none = jnp.zeros(slots.shape, jnp.int32)
    return none, none.astype(bool)

  def extend(self, cache, inputs, mask):
    # All rows take in all steps: a convolution has no gaps.
    samples, _, exists = inputs
    h, cache = self._apply(
        'extend', cache, samples, exists[..., 0], self.context
    )
    return h[:, -1], cache

  def sample(self, h, step, keys, recent):
    _, _, given, given_mask = step
    drawn = self._apply('sample', h, keys, self.temperature)
    samples = jnp.where(given_mask, given, drawn)
    return samples, self._apply('log_prob', h, samples)


class Latents(Plain):
  """Frames of a `latent_decoder.LatentDecoder`: a step each, of all dimensions.

  Attributes:
    options: how frames are drawn.
  """

  options: latent_heads.LatentSampler = _static(
      pytree_node=False, default=latent_heads.LatentSampler()
  )

  @property
  def slots(self):
    return self.decoder.dimension

  def cells(self, step, frames):
    cells = super().cells(step, frames)
    return (*cells, step) if self.decoder.aligned else cells

  def first(self, slots, codes):
    none = jnp.zeros(slots.shape, jnp.float32)
    return none, none.astype(bool)

  def extend(self, cache, inputs, mask):
    latents, _, exists, *frames = inputs
    return self._apply(
        'extend',
        cache,
        latents,
        exists[..., 0],
        mask=mask,
        context=self.context,
        frames=frames[0] if frames else None,
    )

  def sample(self, h, step, keys, recent):
    batch = len(keys)
    _, _, given, given_mask = (x[:batch] for x in step)
    null = h[batch:] if self.guided else None
    drawn = self._apply(
        'sample', h[:batch], keys, self.options, null, self.guidance
    )
    # Its density is `LatentDecoder.log_prob`'s: not all heads have one.
    return jnp.where(given_mask, given, drawn), jnp.zeros(drawn.shape)

  def until(self, frames, step, h, keys):
    if not (self.decoder.stop and self.options.ends):
      return frames
    frame, _, exists, _, given_mask = step
    last = self._apply('ended', h[: len(keys)], keys, self.options)
    last &= exists[:, 0] & ~given_mask.any(axis=1)
    return jnp.where(last, frame[:, 0] + 1, frames)

  def shown(self, codes, keys):
    return self.decoder.shown(codes, keys, self.options.history_noise)
