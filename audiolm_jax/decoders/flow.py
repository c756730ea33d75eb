"""Decoders that denoise frames of latents: diffusion and flow transformers."""

from typing import Annotated, Any

import flax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from audiolm_jax import backbones
from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.data import moments as moments_lib
from audiolm_jax.decoders import conditioned
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import gaps as gaps_lib
from audiolm_jax.decoders import of_latents
from audiolm_jax.decoders import time_embedding
from audiolm_jax.ops import sharding
from audiolm_jax.processes import gaussian
from audiolm_jax.streaming import base as streaming_base


class Flow(of_latents.OfLatents):
  """Predicts what noisy latents are made of, all frames of a row at once.

  The backbone sees of each frame the noisy latent, the clean one where it is
  given, and whether it is; and as `film` the time, before that of conditions.
  The last matrix is 0 at the start, and so is what is predicted.

  Some frames may be given (infilling). As in F5-TTS (2410.06885) and
  stable-audio, those are noisy, too, in training and in generation, and what
  comes out there counts for nothing.

  With `jump` it is a flow map (`processes.flow_maps`): the mean velocity from t
  to a second time s, at s = t the velocity itself. At the start the second time
  adds 0, so that the weights of a flow without give the same to the bit.

  Attributes:
    dimension: D of the latents.
    process: how noise takes their place.
    target: what is predicted.
    backbone: over all frames, `adaptive`.
    time: how times become vectors.
    jump: how t - s does, which is added to the time's; None for a model of one
      time. Of its scale the loss's derivative by s is a multiple: keep it small.
    conditions: what it is given beside the latents, by name.
    gaps: which frames are hidden in training; None for a model that all frames
      are hidden from, and which takes none.
    moments: of the latents that it sees normalised; None for those of training's
      data.
  """

  dimension: config.Positive
  process: Annotated[Any, config.Kind(lambda: gaussian.PROCESSES)] = (
      gaussian.RectifiedFlow()
  )
  target: gaussian.Target = 'u'
  backbone: Annotated[Any, config.Kind(lambda: backbones.BACKBONES)] = (
      stack_lib.Stack(
          mixers=(attention.Attention(mask_kind='bidirectional'),),
          adaptive='adaln_zero',
          film_silu=True,
      )
  )
  time: time_embedding.TimeEmbedding = time_embedding.TimeEmbedding()
  conditions: Annotated[
      Any,
      config.Named(
          Annotated[Any, config.Kind(lambda: conditioners.CONDITIONERS)]
      ),
  ] = flax.core.FrozenDict()
  gaps: gaps_lib.Gaps | None = gaps_lib.Gaps()
  moments: moments_lib.Moments | None = None
  jump: time_embedding.TimeEmbedding | None = None

  def __post_init__(self):
    self.conditions = flax.core.freeze(dict(self.conditions))
    if getattr(self.backbone, 'adaptive', 'none') == 'none':
      raise config.ConfigError(
          "decoder.backbone.adaptive = 'none': the time would not act"
      )
    conditioners.fit(self.conditions, self.backbone)
    straight = isinstance(self.process, gaussian.RectifiedFlow)
    if self.jump is not None and not (straight and self.target == 'u'):
      raise config.ConfigError(
          f'decoder.jump with decoder.target = {self.target!r} of'
          f' {type(self.process).__name__}: jumps are of the velocity u of'
          ' RectifiedFlow'
      )
    super().__post_init__()

  @nn.compact
  def predict(
      self,
      z: Float[Array, 'B F D'],
      t: Float[Array, 'B'],
      num_frames: Int[Array, 'B'],
      given: Float[Array, 'B F D'] | None = None,
      hidden: Bool[Array, 'B F'] | None = None,
      context: streaming_base.Context = None,
      conditions: conditioners.Conditions | None = None,
      s: Float[Array, 'B'] | None = None,
  ) -> Float[Array, 'B F D']:
    """A prediction of `target`, 0 past a row's length.

    Args:
      z: noisy latents, normalised. Anything past a row's length.
      t: times of the rows.
      num_frames: frames of each row.
      given: latents, normalised; anything where hidden. None for none given.
      hidden: where to predict; with `given`.
      context: what `context` gives; None for a decoder without conditions.
      conditions: in place of the context, what it is computed from.
      s: times to jump to, at most t; None for t itself.

    Raises:
      ValueError: for given latents of a decoder without gaps, or one of `given`
        and `hidden` without the other, or times to jump to of a decoder that
        takes one time.
    """
    exists = streaming_base.length_mask(num_frames, z.shape[1])
    x = self._inputs(z, given, hidden)
    x = streaming_base.zero_masked(x, exists).astype(self.backbone.dtype)
    width = self.backbone.width
    x = ops.linear(self, 'noisy', x, width, (None, 'embed'), use_bias=True)
    x = sharding.constrain(x, ('batch',))
    context = dict(self._context(context, conditions, len(z)) or {})
    film = [self._times(t, s, width)]
    if 'film' in context:
      film.append(context['film'].astype(film[0].dtype))
    context['film'] = jnp.concatenate(film, axis=-1)
    x, mask = conditioned.join(x, exists, context)
    y = self.backbone.transform(x, mask, context=context).y
    y = conditioned.own(y, z.shape[1], context).astype(jnp.float32)
    y = streaming_base.zero_masked(y, exists)
    y = ops.linear(
        self,
        'denoised',
        y,
        self.dimension,
        ('embed', None),
        use_bias=True,
        init=nn.initializers.zeros,
    )
    y = sharding.constrain(y, ('batch',))
    return streaming_base.zero_masked(y, exists)

  @nn.nowrap
  def _times(self, t, s, width):
    """The vector of t, and of how far a jump goes."""
    time = self.time(t, width)
    if self.jump is None:
      if s is not None:
        raise ValueError('times to jump to, but the decoder takes one time')
      return time
    length = jnp.zeros_like(t) if s is None else t - s
    return time + self.jump(length, width, zero=True)

  @nn.nowrap
  def _inputs(self, z, given, hidden):
    """z, and where the decoder has gaps what is given and where not."""
    if (given is None) != (hidden is None):
      raise ValueError('given latents go with where they are hidden')
    if self.gaps is None:
      if given is not None:
        raise ValueError('given latents, but the decoder has no gaps')
      return z
    if given is None:
      given, hidden = jnp.zeros_like(z), jnp.ones(z.shape[:2], bool)
    given = streaming_base.zero_masked(given, ~hidden)
    hidden = hidden[..., None].astype(z.dtype)
    return jnp.concatenate([z, given.astype(z.dtype), hidden], axis=-1)
