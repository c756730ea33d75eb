"""Masked discrete diffusion over frames of codes (2107.03006, 2209.04800)."""

from typing import Annotated, Any, Literal, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
import numpy as np

from audiolm_jax import backbones
from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.decoders import conditioned
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import embedding as embedding_lib
from audiolm_jax.decoders import gaps as gaps_lib
from audiolm_jax.decoders import heads
from audiolm_jax.decoders import of_frames
from audiolm_jax.decoders import scores as scores_lib
from audiolm_jax.decoders.heads import independent
from audiolm_jax.processes import discrete
from audiolm_jax.processes import hiding
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.streaming import base as streaming_base

# A window that nothing lies beyond.
_ALL = np.iinfo(np.int32).max
# What a row's keys are folded with.
_LEVEL, _PLACES, _GAPS = 0, 1, 2


class Draw(NamedTuple):
  """What a score is of: which places are hidden, and what they weigh.

  Attributes:
    masked: places whose codes are scored.
    unknown: places that are not given, whatever is hidden of them.
    stage: of each row.
    weight: what the nats of a row's masked places are multiplied by.
  """

  masked: Bool[Array, 'B F K']
  unknown: Bool[Array, 'B F K']
  stage: Int[Array, 'B']
  weight: Float[Array, 'B']


class Masked(of_frames.OfFrames):
  """Some places are hidden, and it says what they hold given all others.

  Each frame's input is the sum of its codes' embeddings, of a learned vector in
  place of each hidden one. Any set of codes may be given; all others are drawn
  in any order and number of steps (`processes.unmasking`). A network of this
  kind needs to be told no time.

  `score` draws a bound of -log p, the mean over all orders of the places; its
  tag is 'bound'. In training it is the loss of `hiding`, which may be no bound.

  With `stages` the slots are drawn one stage after the other: those of earlier
  stages are seen, those of later ones are hidden. Training hides places of one
  random stage a row, and a bound is the sum over stages (SoundStorm, 2305.09636;
  MAGNeT, 2401.04577).

  Attributes:
    vocabularies: how many values each slot takes.
    backbone: over frames, bidirectional unless that is what is studied.
    head: what gives each slot's distribution; the slots of a frame are
      independent given all that is seen.
    tie: whether the head's classifiers are the embeddings.
    conditions: what it is given beside the codes, by name.
    stages: the slots of each stage, in order; None for one of all slots.
    windows: for each stage, how near keys must be to be seen, on both sides;
      None for all. MAGNeT's restricted context.
    hiding: what training hides.
    gaps: the frames among which it does; all codes of the others are given, as
      those of a prompt are. None for all frames. With stages only then a model
      learns to see later slots of frames that are given.
  """

  vocabularies: config.Sizes
  backbone: Annotated[Any, config.Kind(lambda: backbones.BACKBONES)] = (
      stack_lib.Stack(mixers=(attention.Attention(mask_kind='bidirectional'),))
  )
  head: Annotated[Any, config.Kind(lambda: HEADS)] = independent.Independent()
  tie: bool = False
  conditions: Annotated[
      Any,
      config.Named(
          Annotated[Any, config.Kind(lambda: conditioners.CONDITIONERS)]
      ),
  ] = flax.core.FrozenDict()
  stages: tuple[tuple[config.Count, ...], ...] | None = None
  windows: tuple[config.Positive | None, ...] | None = None
  hiding: Annotated[Any, config.Kind(lambda: hiding.HIDINGS)] = hiding.Subset()
  gaps: gaps_lib.Gaps | None = None

  tag = 'bound'

  def __post_init__(self):
    self.conditions = flax.core.freeze(dict(self.conditions))
    if not self.vocabularies:
      raise config.ConfigError('vocabularies = (): expected one for each slot')
    slots = list(range(len(self.vocabularies)))
    if self.stages is not None and sorted(sum(self.stages, ())) != slots:
      raise config.ConfigError(
          f'stages = {self.stages}: expected each slot of {slots} in one of them'
      )
    if not all(self.order):
      raise config.ConfigError(f'stages = {self.stages}: one has no slots')
    if self.windows is not None:
      self._check_windows()
    super().__post_init__()

  @nn.nowrap
  def _check_windows(self):
    if len(self.windows) != len(self.order):
      raise config.ConfigError(
          f'windows = {self.windows}: expected one for each of'
          f' {len(self.order)} stages'
      )
    for mixer in getattr(self.backbone, 'mixers', (None,)):
      if getattr(mixer, 'mask_kind', None) != 'bidirectional':
        raise config.ConfigError(
            f'windows = {self.windows} are of bidirectional attention, but a'
            f' mixer of the backbone is {mixer}'
        )
    for name, module in self.conditions.items():
      if module.how == 'prefix':
        raise config.ConfigError(
            f'windows = {self.windows}: most frames would not see'
            f' conditions.{name}, a prefix; let it act by cross'
        )

  def setup(self):
    conditioners.fit(self.conditions, self.backbone)
    width = self.backbone.width
    self.embedding = embedding_lib.Embedding(
        self.vocabularies, width, self.backbone.dtype
    )
    if len(self.order) > 1:
      init = nn.initializers.normal(0.02)
      shape = len(self.order), width
      self.turns = ops.weight(self, 'stage', init, shape, (None, 'embed'))

  @property
  def order(self) -> tuple[tuple[int, ...], ...]:
    """The slots of each stage."""
    return self.stages or (tuple(range(len(self.vocabularies))),)

  @property
  def predicted(self) -> tuple[int, ...]:
    """The slots that are scored: all of them."""
    return self.slots('frames')

  @property
  def step_layout(self) -> heads.StepLayout:
    """What a frame holds."""
    return heads.StepLayout(
        self.vocabularies, tuple((slot,) for slot in self.predicted)
    )

  @property
  def stage_of_slot(self) -> Int[np.ndarray, 'K']:
    """The stage in which each slot is drawn."""
    stages = np.zeros(len(self.vocabularies), np.int32)
    for stage, slots in enumerate(self.order):
      stages[list(slots)] = stage
    return stages

  def logits(
      self,
      codes: Int[Array, 'B F K'],
      masked: Bool[Array, 'B F K'],
      num_frames: Int[Array, 'B'],
      stage: Int[Array, 'B'],
      context: streaming_base.Context = None,
      conditions: conditioners.Conditions | None = None,
  ) -> Float[Array, 'B F K V']:
    """Logits (fp32) of every place, given those that are not masked.

    V is that of the largest slot; codes that a slot does not have are at -inf.
    Unspecified past a row's length.

    Args:
      codes: anything where masked or past a row's length.
      masked: hidden places, those of later stages among them.
      num_frames: of each row.
      stage: that is drawn, of each row.
      context: what `context` gives; None for a decoder without conditions.
      conditions: in place of the context, what it is computed from.
    """
    context = self._context(context, conditions, len(codes))
    output = self._seen(codes, masked, num_frames, stage, context)
    exists = jnp.ones_like(masked)
    return self.head.logits(
        output.y, codes, exists, self._places(codes), *self._classes()
    )

  def score(
      self,
      codes: Int[Array, 'B F K'],
      num_frames: Int[Array, 'B'],
      context: streaming_base.Context = None,
      conditions: conditioners.Conditions | None = None,
      keys: Key[Array, 'B'] | None = None,
      level: Float[Array, 'B'] | None = None,
  ) -> scores_lib.Scores:
    """One draw of the bound, in training (an rng stream 'frames') of `hiding`.

    The log-probability of each hidden code is multiplied by what makes its mean
    over draws that of the bound: sums over codes are estimates, single codes
    mostly 0.

    Args:
      codes: anything past a row's length.
      num_frames: of each row.
      context: what `context` gives; None for a decoder without conditions.
      conditions: in place of the context, what it is computed from.
      keys: of the rows; None for some of the rng stream 'bound'.
      level: uniform numbers in [0, 1) that choose a row's stage and how much is
        hidden, such as stratified ones; None for some of the keys, stratified
        over rows where those are not given.
    """
    self.check(codes, num_frames)
    keys, level = self._random(keys, level, len(codes))
    training = self.has_rng('frames')
    rule = self.hiding if training else hiding.Subset()
    valid = unknown = self._valid(codes, num_frames)
    if training and self.gaps is not None:
      gaps = self.gaps.draw(
          noise_lib.fold(keys, _GAPS), num_frames, codes.shape[1]
      )
      unknown &= gaps[..., None]
    stages = len(self.order)
    stage = jnp.minimum(jnp.floor(level * stages), stages - 1).astype(jnp.int32)
    free = unknown & (self.stage_of_slot == stage[:, None, None])
    hidden = rule(noise_lib.fold(keys, _PLACES), level * stages - stage, free)
    # Every stage is drawn as often as the others.
    factor = 1 if training else stages
    draw = Draw(hidden.masked, unknown, stage, hidden.weight * factor)
    if not training:
      scored = valid
    else:
      # Means over what might be hidden, or without weights over what is.
      scored = free if rule.bound else hidden.masked
    return self._scores(codes, num_frames, draw, scored, context, conditions)

  def step_score(
      self,
      codes: Int[Array, 'B F K'],
      num_frames: Int[Array, 'B'],
      keep: Float[np.ndarray, 'T+1'],
      keys: Key[Array, 'B'],
      level: Float[Array, 'B'],
      context: streaming_base.Context = None,
      conditions: conditioners.Conditions | None = None,
  ) -> scores_lib.Scores:
    """One draw of the bound of codes that are sampled in T steps a stage.

    Those that are revealed in one step are drawn independently of each other, so
    it is above the bound of `score`, and falls to it as T grows. For random
    order; see `discrete.Absorbing.step_bound`.

    Args:
      codes: anything past a row's length.
      num_frames: of each row.
      keep: the share of places that are shown before each step and after the
        last, from 0 to 1: `Absorbing.keep` of a grid's times.
      keys: of the rows.
      level: uniform numbers in [0, 1) that choose the stage and the step.
      context: what `context` gives; None for a decoder without conditions.
      conditions: in place of the context, what it is computed from.
    """
    self.check(codes, num_frames)
    valid = self._valid(codes, num_frames)
    count, steps = len(self.order), len(keep) - 1
    number = jnp.floor(level * count * steps).astype(jnp.int32)
    number = jnp.minimum(number, count * steps - 1)
    stage, step = number // steps, number % steps
    free = valid & (self.stage_of_slot == stage[:, None, None])
    keep = jnp.asarray(keep, jnp.float32)
    before, after = keep[step], keep[step + 1]
    uniforms = noise_lib.draw(
        jax.random.uniform, noise_lib.fold(keys, _PLACES), codes.shape[1:]
    )
    masked = free & (uniforms >= before[:, None, None])
    weight = count * steps * (after - before) / (1 - before)
    draw = Draw(masked, valid, stage, weight)
    return self._scores(codes, num_frames, draw, valid, context, conditions)

  def _random(self, keys, level, rows):
    """Keys and levels of the rows, where they are not given."""
    number = jnp.arange(rows)
    if keys is not None:
      if level is None:
        each = noise_lib.fold(keys, _LEVEL)
        level = jax.vmap(jax.random.uniform)(each)
      return keys, level
    rng = self.make_rng('bound')
    if level is None:
      # Stratified over rows: each has a part of [0, 1) of its own.
      offset = jax.random.uniform(jax.random.fold_in(rng, _LEVEL), (rows,))
      level = (number + offset) / rows
    return noise_lib.row_keys(jax.random.fold_in(rng, _PLACES), number), level

  def _valid(self, codes, num_frames):
    inside = streaming_base.length_mask(num_frames, codes.shape[1])
    return jnp.broadcast_to(inside[..., None], codes.shape)

  def _scores(self, codes, num_frames, draw, scored, context, conditions):
    """The weighted log-probabilities of what a draw hides."""
    context = self._context(context, conditions, len(codes))
    later = draw.unknown & (self.stage_of_slot > draw.stage[:, None, None])
    output = self._seen(
        codes, draw.masked | later, num_frames, draw.stage, context
    )
    codes = jnp.where(draw.masked, codes, 0)
    log_prob, _ = self.head.log_prob(
        output.y, codes, draw.masked, self._places(codes), *self._classes()
    )
    log_prob = jnp.where(draw.masked, log_prob, 0)
    log_prob *= draw.weight[:, None, None]
    streams = {'frames': scores_lib.StreamScores(log_prob, scored)}
    steps = jnp.asarray(num_frames)
    if context is not None and 'prefix' in context:
      steps += context['prefix_lengths']
    return scores_lib.Scores(streams, output.losses, steps, self.tag)

  def _seen(self, codes, masked, num_frames, stage, context):
    """The backbone's output, its y that of the frames."""
    mask = streaming_base.length_mask(num_frames, codes.shape[1])
    exists = mask[..., None] & ~masked
    slots = jnp.broadcast_to(self._places(codes), codes.shape)
    x = self.embedding(codes, slots, exists).sum(axis=2)
    if len(self.order) > 1:
      x += ops.take(self.turns, stage, x.dtype)[:, None]
    if self.windows is not None:
      windows = np.array([_ALL if w is None else w for w in self.windows])
      window = jnp.asarray(windows, jnp.int32)[stage]
      context = {**(context or {}), 'window': window}
    output = self.backbone.transform(
        *conditioned.join(x, mask, context), context=context
    )
    return output.replace(y=conditioned.own(output.y, x.shape[1], context))

  def _places(self, codes):
    """The slots of frames, a host constant."""
    return np.broadcast_to(np.arange(codes.shape[2]), codes.shape[1:])

  def _classes(self):
    """What heads are given last."""
    return self.step_layout, self.embedding.table() if self.tie else None


# Of a frame's slots given the same output of the backbone.
HEADS = {'independent': independent.Independent}


def process(
    decoder: Masked, schedule: Literal['linear', 'cosine'] = 'linear'
) -> discrete.Absorbing:
  """The process that a masked decoder reverses.

  Args:
    decoder: whose codes it hides.
    schedule: see `discrete.Absorbing`.
  """
  return discrete.Absorbing(max(2, *decoder.vocabularies), schedule)
