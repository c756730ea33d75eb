"""What decoders of steps are: a sequence of segments + backbone + head."""

from typing import Annotated, Any, NamedTuple

import flax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax import backbones
from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.decoders import causal
from audiolm_jax.decoders import conditioned
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import embedding as embedding_lib
from audiolm_jax.decoders import heads
from audiolm_jax.decoders import scores as scores_lib
from audiolm_jax.decoders import starts
from audiolm_jax.decoders.heads import independent
from audiolm_jax.patterns import base as patterns_base
from audiolm_jax.streaming import base as streaming_base


class Part(NamedTuple):
  """A stream as the head sees it, each code with the given ones as its past.

  Attributes:
    layout: of the stream's own steps.
    h: outputs of the backbone.
    codes: of the steps.
    exists: positions that hold a code and are predicted.
    slots: of the positions, a host constant.
  """

  layout: patterns_base.Layout
  h: Float[Array, 'B n D']
  codes: Int[Array, 'B n G']
  exists: Bool[Array, 'B n G']
  slots: Int[np.ndarray, 'n G']


class Steps(causal.Causal):
  """An autoregressive model of one segment after the other.

  Step n's input is the codes of step n - 1, so its output predicts its own;
  what the first step has in their place is said by `start`. Of several
  segments, it also tells of which the step is: lengths are given, not modelled,
  and without it a model could not know when a segment ends.

  Subclasses have a `sequence`, the segments of the decoder's slots, as a field or
  a property, and say what batches hold: `segmented.Segmented` an array for each
  segment, `decoder.Framed` one of frames.

  Attributes:
    vocabularies: how many values each slot takes.
    backbone: causal over steps.
    head: scores and samples the codes of a step.
    tie: whether the head's classifiers are the embeddings.
    embedding_scale: what a step's embedding is multiplied by.
    conditions: what it is given beside the codes, by name.
    start: how rows start.
  """

  vocabularies: config.Sizes
  backbone: Annotated[Any, config.Kind(lambda: backbones.BACKBONES)] = (
      stack_lib.Stack()
  )
  head: Annotated[Any, config.Kind(lambda: heads.HEADS)] = (
      independent.Independent()
  )
  tie: bool = False
  embedding_scale: float = 1.0
  conditions: Annotated[
      Any,
      config.Named(
          Annotated[Any, config.Kind(lambda: conditioners.CONDITIONERS)]
      ),
  ] = flax.core.FrozenDict()
  start: Annotated[Any, config.Kind(lambda: starts.STARTS)] = starts.Own()

  def __post_init__(self):
    # Hashed, as the whole decoder is, where functions are compiled for it.
    self.conditions = flax.core.freeze(dict(self.conditions))
    if not self.vocabularies:
      raise config.ConfigError('vocabularies = (): expected one for each slot')
    self.start.check(self.vocabularies)
    if self.start.given and not self._begins_whole():
      raise config.ConfigError(
          f'{self.start} needs a first step that holds all of the first frame,'
          ' of a segment that is observed where there are segments'
      )
    super().__post_init__()
    if self._many and self.aligned:
      raise config.ConfigError(
          'decoder.conditions are of frames, and the decoder of several segments:'
          ' only decoders of one take them'
      )
    if self._many and getattr(self.start, 'begin', None) is not None:
      raise config.ConfigError(
          f'{self.start}: of several segments, the first is observed and given:'
          ' leave begin at None'
      )

  def setup(self):
    conditioners.fit(self.conditions, self.backbone)
    self.embedding = embedding_lib.Embedding(
        self.vocabularies, self.backbone.width, self.backbone.dtype
    )
    if self._many:
      self.turns = ops.weight(
          self,
          'segment',
          nn.initializers.normal(0.02),
          (len(self.sequence.segments), self.backbone.width),
          (None, 'embed'),
      )

  @nn.nowrap
  def _begins_whole(self) -> bool:
    """Whether a first step that is given is a part of the rows by itself."""
    return self.sequence.segments[0].role == 'observe'

  @property
  def _many(self):
    return len(self.sequence.segments) > 1

  @property
  def step_layout(self) -> heads.StepLayout:
    """What the steps may hold."""
    return heads.StepLayout(self.vocabularies, self.sequence.groups)

  @property
  def predicted(self) -> tuple[int, ...]:
    """The slots that are scored, ascending."""
    return tuple(
        sorted(
            {
                segment.slots[column]
                for segment in self.sequence.segments
                for column in self._scored(segment)
            }
        )
    )

  @nn.nowrap
  def _scored(self, segment):
    """The columns of a segment's codes that are scored, ascending."""
    if segment.role == 'observe':
      return ()
    groups = segment.pattern.groups(len(segment.slots))[: self.head.predicted]
    return tuple(sorted(column for group in groups for column in group))

  @property
  def tag(self) -> str:
    """What `score` gives: 'exact', 'bound' or 'none'."""
    return self.head.tag

  @property
  def group(self) -> int:
    """G, codes a step."""
    return len(self.step_layout.groups)

  def extend(
      self,
      state: Any,
      codes: Int[Array, 'B n G'],
      slots: Int[Array, 'B n G'],
      exists: Bool[Array, 'B n G'],
      segments: Int[Array, 'B n'] | None = None,
      mask: Bool[Array, 'B n'] | None = None,
      context: streaming_base.Context = None,
      frames: Int[Array, 'B n'] | None = None,
  ) -> tuple[Float[Array, 'B D'], Any]:
    """Takes in the next n >= 1 steps; what predicts the step after them.

    Args:
      state: where the rows stand.
      codes: of the steps; anything where not `exists`.
      slots: of the steps' positions.
      exists: positions that hold a frame.
      segments: of the step after each of them, that it is to predict; None of
        a single one.
      mask: how many of the n steps each row takes in, as a prefix; None for
        all. A row goes on later as if the others had never been.
      context: see the backbone.
      frames: the last frame of the step after each of them, for conditions of
        frames; None without such.

    Returns:
      The output at each row's last step taken in (unspecified for none), for
      `sample`; the next state.
    """
    x = self._embed(codes, slots, exists)
    if self._many:
      x += self._turn(segments)
    return self._take(state, x, mask, context, frames)

  def sample(
      self,
      h: Float[Array, 'B D'],
      slots: Int[Array, 'B G'],
      exists: Bool[Array, 'B G'],
      given: Int[Array, 'B G'],
      given_mask: Bool[Array, 'B G'],
      choose: heads.Choose,
      rng: Array,
  ) -> tuple[Int[Array, 'B G'], Float[Array, 'B G']]:
    """A step's codes and their log-probabilities; see `heads.Head`."""
    return self.head.sample(
        h,
        slots,
        exists,
        given,
        given_mask,
        choose,
        rng,
        self.step_layout,
        self._table(),
    )

  def score(
      self,
      codes: Any,
      num_frames: Any,
      context: streaming_base.Context = None,
      conditions: conditioners.Conditions | None = None,
  ) -> scores_lib.Scores:
    """Log-probability of every predicted code of every row.

    Where rows start with a given frame, that frame is not scored.

    Args:
      codes: [B, F, K] of frames; of segments, such an array for each label.
        Anything past a row's length changes nothing.
      num_frames: [B] frames of each row; of segments, an array for each label.
      context: what `context` gives; None for a decoder without conditions.
      conditions: in place of the context, what it is computed from.
    """
    parts, output, count = self._teacher_forced(
        codes, num_frames, context, conditions
    )
    log_probs, masks = {}, {}
    for label, (layout, *seen) in parts.items():
      log_prob, scored = self.head.log_prob(
          *seen, self.step_layout, self._table()
      )
      log_probs[label] = layout.to_frames(jnp.where(scored, log_prob, 0))
      masks[label] = layout.to_frames(scored)
    log_probs = self._joined(log_probs, 0)
    masks = self._joined(masks, False)
    streams = {
        k: scores_lib.StreamScores(log_probs[k], masks[k]) for k in masks
    }
    return scores_lib.Scores(streams, output.losses, count, self.tag)

  def code_logits(
      self,
      codes: Any,
      num_frames: Any,
      context: streaming_base.Context = None,
      conditions: conditioners.Conditions | None = None,
  ) -> dict[str, Float[Array, 'B F K V']]:
    """Logits (fp32) of which `score` is the log-probability, by stream.

    V is that of the largest slot; a code that a slot does not have is at -inf,
    and so is every code that is not predicted. Unspecified past a row's length.
    Far larger than `score`, so not for training.

    Args:
      codes: as `score` takes them. Those before a code, in the pattern's order,
        are what it sees.
      num_frames: [B] frames of each row; of segments, an array for each label.
      context: what `context` gives; None for a decoder without conditions.
      conditions: in place of the context, what it is computed from.
    """
    parts, _, _ = self._teacher_forced(codes, num_frames, context, conditions)
    streams = {}
    for label, (layout, *seen) in parts.items():
      logits = self.head.logits(*seen, self.step_layout, self._table())
      if self.start.given:
        exists = seen[2]
        logits = jnp.where(exists[..., None], logits, -jnp.inf)
      streams[label] = layout.to_frames(logits)
    return self._joined(streams, -jnp.inf)

  def _teacher_forced(self, codes, num_frames, context, conditions):
    """What the head sees where each code's past is the given one.

    Returns:
      {stream: Part}; the backbone's output; [B] how many of its positions each
      row has.
    """
    self.check(codes, num_frames)
    codes, num_frames = self.segments(codes, num_frames)
    layout = self.sequence.layout({k: c.shape[1] for k, c in codes.items()})
    exists = layout.scored(num_frames)
    codes = jnp.where(exists, layout.to_steps(codes), 0)
    packing = layout.packing(num_frames)
    context = self._context(context, conditions, len(exists))
    slots = jnp.broadcast_to(layout.slot, exists.shape)
    steps = map(packing.pack, (codes, slots, exists))
    x = self._embed(*self.start.inputs(starts.Inputs(*steps)))
    if self._many:
      turns = jnp.broadcast_to(self._turn(layout.segment[None]), x.shape)
      x += self.start.positions(packing.pack(turns))
    frames = None
    if self.aligned:
      (only,) = layout.segments
      frames = layout.layouts[only.label].frame.max(axis=1)
      frames = packing.pack(jnp.broadcast_to(frames, exists.shape[:2]))
      frames = self.start.positions(frames)
    x, mask = conditioned.join(
        x, self.start.positions(packing.mask), context, frames
    )
    output = self.backbone.transform(x, mask, context=context)
    y = self.start.steps(conditioned.own(output.y, exists.shape[1], context))
    if self.start.given:
      # Steps that are given to every row are not predicted.
      exists &= (packing.position >= self.start.given)[..., None]
    y = packing.unpack(y)
    parts = {}
    for segment in layout.segments:
      if segment.role == 'predict':
        label, group = segment.label, segment.group
        rows = layout.rows[label]
        parts[label] = Part(
            layout.layouts[label],
            y[:, rows],
            codes[:, rows, :group],
            exists[:, rows, :group],
            layout.slot[rows, :group],
        )
    return parts, output, jnp.sum(mask, axis=1)

  def _table(self) -> ops.Weight | None:
    return self.embedding.table() if self.tie else None

  def _embed(self, codes, slots, exists):
    x = self.embedding(codes, slots, exists).sum(axis=2)
    return x * jnp.asarray(self.embedding_scale, x.dtype)

  def _turn(self, segments):
    return ops.take(self.turns, segments, jnp.dtype(self.backbone.dtype))
