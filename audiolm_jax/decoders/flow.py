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
  given, and whether it is; and the time, as `film` before that of conditions, or
  as a position before the frames. The last matrix is 0 at the start, and so is
  what is predicted.

  Some frames may be given (infilling). As in F5-TTS (2410.06885) and
  stable-audio, those are noisy, too, in training and in generation, and what
  comes out there counts for nothing: in generation they are `held`.

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
    time_token: whether the time is a position before all others (stable-audio,
      2404.10301), alone or, for a backbone that is `adaptive`, beside its film.
      Conditions that act by 'token' are added to it.
    mixed_ends: whether latents x come in, and predictions go out, as x + W x,
      W being 0 at the start (stable-audio).
    use_bias: whether the matrices from and to latents have biases.
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
  jump: Annotated[time_embedding.TimeEmbedding | None, config.Added()] = None
  time_token: Annotated[bool, config.Added()] = False
  mixed_ends: Annotated[bool, config.Added()] = False
  use_bias: Annotated[bool, config.Added()] = True

  def __post_init__(self):
    self.conditions = flax.core.freeze(dict(self.conditions))
    if not self._is_adaptive and not self.time_token:
      raise config.ConfigError(
          "decoder.backbone.adaptive = 'none' without decoder.time_token: the"
          ' time would not act'
      )
    conditioners.fit(self.conditions, self.backbone, self.time_token)
    straight = isinstance(self.process, gaussian.RectifiedFlow)
    if self.jump is not None and not (straight and self.target == 'u'):
      raise config.ConfigError(
          f'decoder.jump with decoder.target = {self.target!r} of'
          f' {type(self.process).__name__}: jumps are of the velocity u of'
          ' RectifiedFlow'
      )
    super().__post_init__()

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
    context = self._context(context, conditions, len(z))
    return self._denoised(z, t, exists, given, hidden, context, s)[0]

  @nn.nowrap
  def held(
      self,
      output: Float[Array, 'B F D'],
      z: Float[Array, 'B F D'],
      t: Float[Array, 'B'],
      given: Float[Array, 'B F D'] | None,
      hidden: Bool[Array, 'B F'] | None,
  ) -> Float[Array, 'B F D']:
    """Predictions for sampling: of given frames what they are.

    There training leaves the network's output free, and solvers would lead given
    frames away from what training has shown of them: the given latents with noise
    of time t.

    Args:
      output: of `predict`.
      z: noisy latents.
      t: times of the rows.
      given: latents, normalised; None for none given.
      hidden: where they are not.
    """
    if given is None:
      return output
    a, b = gaussian.over(self.process.scales(t), z)
    # At t = 0 there is no noise to tell.
    e = jnp.where(b > 0, (z - a * given) / jnp.where(b > 0, b, 1), 0)
    known = self.process.target(self.target, given, e, t)
    return jnp.where(hidden[..., None], output, known)

  def extend(
      self,
      state: Any,
      z: Float[Array, 'B n D'],
      t: Float[Array, 'B'],
      exists: Bool[Array, 'B n'],
      given: Float[Array, 'B n D'] | None = None,
      hidden: Bool[Array, 'B n'] | None = None,
      context: streaming_base.Context = None,
  ) -> tuple[Float[Array, 'B n D'], Any]:
    """`predict` of the next block of frames, after those before at time t.

    Args:
      state: where the rows stand, at this time.
      z: noisy latents, normalised; whole blocks of the backbone.
      t: times of the rows.
      exists: frames within the rows' lengths.
      given: see `predict`.
      hidden: see `predict`.
      context: what `context` gives; None for a decoder without conditions.

    Returns:
      The prediction, 0 where no frame exists; the next state, at this time.
    """
    return self._denoised(z, t, exists, given, hidden, context, None, state)

  @nn.nowrap
  def initial_state(self, batch: int, cache_length: int) -> Any:
    """The state before the first block, of one time.

    Args:
      batch: rows.
      cache_length: frames that attention without a window keeps in sight.

    Raises:
      ValueError: see `check_streams`.
    """
    self.check_streams()
    backbone = self.backbone.with_cache_length(cache_length)
    return backbone.initial_state(batch, backbone.output_spec(None))

  @nn.nowrap
  def check_streams(self) -> None:
    """Refuses a decoder that can't go block by block.

    Raises:
      ValueError: for mixers that see all frames, or a position before them.
    """
    if not self.backbone.with_cache_length(1).steppable:
      raise ValueError(
          'the backbone sees all frames at once: to go block by block, give its'
          " attention mask_kind = 'block_causal' (or 'causal') in training"
      )
    if conditioners.aligned(self.conditions):
      raise ValueError(
          'conditions of frames are for whole rows: to go block by block, have'
          ' conditions act by film, add or cross'
      )
    if self.time_token or conditioners.positions(self.conditions):
      raise ValueError(
          'positions before the first frame would be the first block: have time'
          ' and conditions act by film, add or cross to go block by block'
      )

  @nn.compact
  def _denoised(self, z, t, exists, given, hidden, context, s, state=None):
    """(prediction, the next state; None without one)."""
    x = self._inputs(z, given, hidden)
    x = streaming_base.zero_masked(x, exists).astype(self.backbone.dtype)
    width = self.backbone.width
    if self.mixed_ends:
      x = self._mixed('noisy_mix', x)
    x = ops.linear(self, 'noisy', x, width, (None, 'embed'), self.use_bias)
    x = sharding.constrain(x, ('batch',))
    context = self._timed(dict(context or {}), self._times(t, s, width))
    x, mask = conditioned.join(x, exists, context)
    output = self.backbone.transform(x, mask, state, context)
    y = conditioned.own(output.y, z.shape[1], context).astype(jnp.float32)
    y = streaming_base.zero_masked(y, exists)
    y = ops.linear(
        self,
        'denoised',
        y,
        self.dimension,
        ('embed', None),
        self.use_bias,
        init=nn.initializers.zeros,
    )
    if self.mixed_ends:
      y = self._mixed('denoised_mix', y)
    y = sharding.constrain(y, ('batch',))
    return streaming_base.zero_masked(y, exists), output.state

  @property
  def _is_adaptive(self):
    return getattr(self.backbone, 'adaptive', 'none') != 'none'

  @nn.nowrap
  def _mixed(self, name, x):
    """x [B, F, D], and a matrix times it."""
    zeros = nn.initializers.zeros
    return x + ops.linear(self, name, x, x.shape[-1], (None, None), init=zeros)

  @nn.nowrap
  def _timed(self, context, time):
    """The context, and the time [B, D] where it acts."""
    if self._is_adaptive:
      film = [time]
      if 'film' in context:
        film.append(context['film'].astype(time.dtype))
      context = {**context, 'film': jnp.concatenate(film, axis=-1)}
    if not self.time_token:
      return context
    token = time + context.get('token', 0)
    token = token[:, None].astype(self.backbone.dtype)
    prefixes = [conditioners.Vectors(token, jnp.ones(len(time), jnp.int32))]
    if 'prefix' in context:
      before = context['prefix'], context['prefix_lengths']
      prefixes.append(conditioners.Vectors(*before))
    return context | conditioners.context([('prefix', p) for p in prefixes])

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
