"""Autoregressive decoders of frames of latents."""

from typing import Annotated, Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from audiolm_jax import backbones
from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.data import moments as moments_lib
from audiolm_jax.decoders import causal
from audiolm_jax.decoders import conditioned
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import latent_heads
from audiolm_jax.decoders import of_latents
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.streaming import base as streaming_base

# What the keys of rows, and of frames, are folded with.
_SHARE, _HISTORY, _FRAMES = 0, 1, 2
_DRAW, _END = 0, 1


class LatentDecoder(causal.Causal, of_latents.OfLatents):
  """A causal backbone over frames of latents, and a head that gives the next.

  Step n takes in frame n - 1, or a learned vector before the first, and its
  output h tells of frame n: by the head, and of whether it is the row's last.
  Both are given the frames before, and so independent of each other.

  Trained on noisy frames, a model trusts its own less, and drifts less from what
  it has seen (CAM, 2411.18447; CALM, 2509.06926): each row is shown
  sqrt(1 - k) x + sqrt(k) e of the frames before, with k uniform up to
  `history_noise`.

  Attributes:
    dimension: L of the latents.
    backbone: causal over frames.
    head: gives a frame.
    conditions: what it is given beside the latents, by name.
    history_noise: the largest k; 0 for clean frames.
    stop: whether it also says which frame is the last.
    moments: of the latents that it sees normalised; None for those of training's
      data.
  """

  dimension: config.Positive
  backbone: Annotated[Any, config.Kind(lambda: backbones.BACKBONES)] = (
      stack_lib.Stack()
  )
  head: Annotated[Any, config.Kind(lambda: latent_heads.LATENT_HEADS)] = (
      latent_heads.Diffusion()
  )
  conditions: Annotated[
      Any,
      config.Named(
          Annotated[Any, config.Kind(lambda: conditioners.CONDITIONERS)]
      ),
  ] = flax.core.FrozenDict()
  history_noise: config.Share = 0.0
  stop: bool = True
  moments: moments_lib.Moments | None = None

  def __post_init__(self):
    self.conditions = flax.core.freeze(dict(self.conditions))
    super().__post_init__()

  def setup(self):
    conditioners.fit(self.conditions, self.backbone)
    width, spread = self.backbone.width, nn.initializers.lecun_normal()
    shape = self.dimension, width
    self.latent = ops.weight(self, 'latent', spread, shape, (None, 'embed'))
    small = nn.initializers.normal(0.02)
    self.before = ops.weight(self, 'before', small, (width,), ('embed',))
    if self.stop:
      shape = width, 1
      self.last = ops.weight(self, 'last', spread, shape, ('embed', None))
      # Few frames are the last.
      rarely = nn.initializers.constant(-4.0)
      self.last_bias = ops.weight(self, 'last_bias', rarely, (1,), (None,))

  @property
  def tag(self) -> str:
    """What `log_prob` gives: 'exact' or 'none'."""
    return self.head.tag

  @property
  def loss_weights(self) -> dict[str, float]:
    """The factor of each of `losses`, but for that of 'stop'."""
    return dict(self.head.loss_weights)

  # -- whole rows -------------------------------------------------------------

  def losses(
      self,
      latents: Float[Array, 'B F L'],
      num_frames: Int[Array, 'B'],
      ends: Bool[Array, 'B'],
      keys: Key[Array, 'B'],
      context: streaming_base.Context = None,
      conditions: conditioners.Conditions | None = None,
      noisy: bool = True,
  ) -> dict[str, Float[Array, 'B F']]:
    """What is trained, frame by frame; 0 past a row's length.

    Those of the head, and 'stop': minus the log-probability (nats) of whether a
    frame is the last.

    Args:
      latents: normalised. Anything past a row's length.
      num_frames: frames of each row.
      ends: whether its last frame is the last of all.
      keys: of the rows: what is drawn goes by these and the frame.
      context: what `context` gives; None for a decoder without conditions.
      conditions: in place of the context, what it is computed from.
      noisy: whether to show noisy frames, if the decoder is trained on them.
    """
    shape = latents.shape[:2]
    exists = streaming_base.length_mask(num_frames, shape[1])
    x = streaming_base.zero_masked(latents, exists)
    seen = self._noisy(x, keys) if noisy and self.history_noise else x
    h = self._hidden(seen, exists, context, conditions)
    each = noise_lib.frame_keys(noise_lib.fold(keys, _FRAMES), shape[1])
    found = self.head.losses(_flat(h), _flat(x), each.reshape(-1))
    found = {name: loss.reshape(shape) for name, loss in found.items()}
    if self.stop:
      last = jnp.arange(shape[1]) == num_frames[:, None] - 1
      sign = jnp.where(last & ends[:, None], 1, -1)
      found['stop'] = jax.nn.softplus(-sign * self._last_logit(h))
    return {k: jnp.where(exists, loss, 0) for k, loss in found.items()}

  def log_prob(
      self,
      latents: Float[Array, 'B F L'],
      num_frames: Int[Array, 'B'],
      context: streaming_base.Context = None,
      conditions: conditioners.Conditions | None = None,
      steps: int | None = None,
  ) -> Float[Array, 'B F']:
    """log p of each frame given those before, in nats of normalised latents.

    0 past a row's length. Whether a row ends is not part of it.

    Args:
      latents: normalised. Anything past a row's length.
      num_frames: frames of each row.
      context: what `context` gives; None for a decoder without conditions.
      conditions: in place of the context, what it is computed from.
      steps: see `LatentHead.log_prob`.

    Raises:
      ValueError: if the head has no likelihood.
    """
    exists = streaming_base.length_mask(num_frames, latents.shape[1])
    x = streaming_base.zero_masked(latents, exists)
    h = self._hidden(x, exists, context, conditions)
    found = self.head.log_prob(_flat(h), _flat(x), steps)
    return jnp.where(exists, found.reshape(exists.shape), 0)

  def _hidden(self, x, exists, context, conditions):
    """The backbone's outputs [B, F, D], of which step n tells of frame n."""
    context = self._context(context, conditions, len(x))
    first = jnp.broadcast_to(self._first(), (len(x), 1, self.backbone.width))
    x = jnp.concatenate([first, self._embed(x)[:, :-1]], axis=1)
    x, mask = conditioned.join(x, exists, context)
    y = self.backbone.transform(x, mask, context=context).y
    return conditioned.own(y, exists.shape[1], context)

  def _noisy(self, x, keys):
    part = jax.vmap(jax.random.uniform)(noise_lib.fold(keys, _SHARE))
    e = noise_lib.normal(noise_lib.fold(keys, _HISTORY), x.shape[1:])
    share = (self.history_noise * part)[:, None, None]
    return _mixed(x, e, share)

  # -- steps ------------------------------------------------------------------

  def extend(
      self,
      state: Any,
      latents: Float[Array, 'B n L'],
      exists: Bool[Array, 'B n'],
      mask: Bool[Array, 'B n'] | None = None,
      context: streaming_base.Context = None,
      frames: Int[Array, 'B n'] | None = None,
  ) -> tuple[Float[Array, 'B D'], Any]:
    """Takes in the next n >= 1 frames; what tells of the frame after them.

    Args:
      state: where the rows stand.
      latents: of the frames, normalised; anything where not `exists`.
      exists: False for the step before a row's first frame.
      mask: how many of the n each row takes in, as a prefix; None for all.
      context: see the backbone.
      frames: the number of the frame after each of them, for conditions of
        frames; None without such.

    Returns:
      The output at each row's last frame taken in, for `sample` and `ended`; the
      next state.
    """
    x = self._embed(streaming_base.zero_masked(latents, exists))
    x = jnp.where(exists[..., None], x, self._first())
    return self._take(state, x, mask, context, frames)

  def sample(
      self,
      h: Float[Array, 'B D'],
      keys: Key[Array, 'B'],
      sampler: latent_heads.LatentSampler,
      null: Float[Array, 'B D'] | None = None,
      guidance: Float[Array, ''] | float | None = None,
  ) -> Float[Array, 'B L']:
    """A frame of each row, normalised; see `LatentHead.draw`."""
    keys = noise_lib.fold(keys, _DRAW)
    return self.head.draw(h, keys, self.dimension, sampler, null, guidance)

  def ended(
      self,
      h: Float[Array, 'B D'],
      keys: Key[Array, 'B'],
      sampler: latent_heads.LatentSampler,
  ) -> Bool[Array, 'B']:
    """Whether the frame that h tells of is the last of its row."""
    likely = jax.nn.sigmoid(self._last_logit(h[:, None])[:, 0])
    if sampler.threshold is not None:
      return likely >= sampler.threshold
    part = jax.vmap(jax.random.uniform)(noise_lib.fold(keys, _END))
    return part < likely

  @nn.nowrap
  def shown(
      self,
      latents: Float[Array, 'B *n L'],
      keys: Key[Array, 'B *n'],
      share: float,
  ) -> Float[Array, 'B *n L']:
    """Frames as the model is shown them in generation: with some noise.

    Args:
      latents: normalised.
      keys: of the frames.
      share: k, of noise; 0 for none.
    """
    if not share:
      return latents
    flat = noise_lib.fold(keys.reshape(-1), _HISTORY)
    e = noise_lib.normal(flat, (1, self.dimension)).reshape(latents.shape)
    return _mixed(latents, e, share)

  @nn.nowrap
  def check_sampler(
      self, sampler: latent_heads.LatentSampler, guided: bool = False
  ) -> None:
    """Refuses what would do nothing, or what the model has not learned.

    Raises:
      ValueError: see `LatentHead.check`; for noise beyond that of training, a
        threshold of a model that does not say where rows end, or guidance of one
        without conditions.
    """
    self.head.check(sampler)
    if sampler.history_noise > self.history_noise:
      raise ValueError(
          f'history_noise = {sampler.history_noise}, but the model was trained'
          f' with {self.history_noise} at most'
      )
    if sampler.threshold is not None and not self.stop:
      raise ValueError(
          f'threshold = {sampler.threshold} does nothing: the model does not'
          ' say where rows end'
      )
    if guided and not self.conditions:
      raise ValueError('guidance, but the model has no conditions')

  # ---------------------------------------------------------------------------

  def _embed(self, x):
    return ops.einsum('abl,lf->abf', x.astype(self._dtype), self.latent)

  def _first(self):
    return ops.materialize(self.before, self._dtype)

  def _last_logit(self, h):
    h = h.astype(jnp.float32)
    logit = ops.einsum('abd,df->abf', h, self.last)
    return (logit + ops.materialize(self.last_bias))[..., 0]

  @property
  def _dtype(self):
    return jnp.dtype(self.backbone.dtype)


def _flat(x):
  return x.reshape(-1, x.shape[-1])


def _mixed(x, e, share):
  """Noise of share k: the variance of normalised latents stays 1."""
  share = jnp.asarray(share, x.dtype)
  return jnp.sqrt(1 - share) * x + jnp.sqrt(share) * e
