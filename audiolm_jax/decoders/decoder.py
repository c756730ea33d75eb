"""A decoder of discrete tokens: pattern + embeddings + backbone + head."""

from typing import Annotated, Any, NamedTuple

import flax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax import backbones
from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax import patterns
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import embedding as embedding_lib
from audiolm_jax.decoders import heads
from audiolm_jax.decoders import ranges
from audiolm_jax.decoders import starts
from audiolm_jax.decoders.heads import independent
from audiolm_jax.patterns import base as patterns_base
from audiolm_jax.patterns import interleaving
from audiolm_jax.patterns import sequence as sequence_lib
from audiolm_jax.streaming import base as streaming_base


class Scores(flax.struct.PyTreeNode):
  """Log-probabilities, position by position; reducing them is the caller's.

  Attributes:
    log_prob: [B, F, K] float32, nats; 0 where not scored.
    mask: [B, F, K] scored positions.
    losses: what the backbone adds to the loss, by name: for each row a sum over
      its steps.
    steps: [B] how many steps that are; None where they are counted elsewhere.
    tag: 'exact', 'bound' or 'none': what log_prob is.
  """

  log_prob: Float[Array, 'B F K']
  mask: Bool[Array, 'B F K']
  losses: dict[str, Float[Array, 'B']] = flax.struct.field(default_factory=dict)
  steps: Int[Array, 'B'] | None = None
  tag: str = flax.struct.field(pytree_node=False, default='exact')


class TeacherForced(NamedTuple):
  """A batch as the head sees it, each code with the given ones as its past.

  Attributes:
    layout: of the steps.
    steps: their codes.
    exists: places that hold a frame and are predicted.
    output: of the backbone.
    count: [B] positions of the backbone.
  """

  layout: patterns_base.Layout | sequence_lib.SequenceLayout
  steps: Int[Array, 'B N G']
  exists: Bool[Array, 'B N G']
  output: stack_lib.Output
  count: Int[Array, 'B']


class Steps(nn.Module):
  """What all decoders of steps share: embeddings, backbone and head.

  Step n's input is the codes of step n - 1, so its output predicts its own;
  what the first step has in their place is said by `start`.

  Attributes:
    vocabularies: how many values each slot takes.
    backbone: causal over steps.
    head: scores and samples the codes of a step.
    tie: whether the head's classifiers are the embeddings.
    embedding_scale: what a step's embedding is multiplied by.
    conditions: what it is told beside the codes, by name.
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
    self.start.check(self.vocabularies)
    if self.start.given and not self._begins_whole():
      raise config.ConfigError(
          f'{self.start} needs a first step that holds all of the first frame,'
          ' of a segment that is observed where there are segments'
      )
    super().__post_init__()

  def setup(self):
    conditioners.fit(self.conditions, self.backbone)
    self.embedding = embedding_lib.Embedding(
        self.vocabularies, self.backbone.width, self.backbone.dtype
    )

  @property
  def step_layout(self) -> heads.StepLayout:
    """What the steps may hold."""
    raise NotImplementedError(type(self).__name__)

  @nn.nowrap
  def _begins_whole(self) -> bool:
    """Whether a first step that is given is a part of the rows by itself."""
    raise NotImplementedError(type(self).__name__)

  @property
  def predicted(self) -> tuple[int, ...]:
    """The slots that are scored, ascending."""
    groups = self.step_layout.groups[: self.head.predicted]
    return tuple(sorted({slot for group in groups for slot in group}))

  @property
  def group(self) -> int:
    """G, codes a step."""
    return len(self.step_layout.groups)

  @nn.nowrap
  def initial_state(
      self, batch: int, cache_length: int, sink_tokens: int = 0
  ) -> Any:
    """The backbone's state before the first step.

    Args:
      batch: rows.
      cache_length: steps that attention without a window keeps in sight.
      sink_tokens: first steps that stay in sight beside them.
    """
    # What conditions put before the first step stays in sight.
    sink_tokens += conditioners.positions(self.conditions)
    backbone = self.backbone.with_cache_length(cache_length, sink_tokens)
    return backbone.initial_state(batch, backbone.output_spec(None))

  @nn.nowrap
  def check_steps(self, count: int | None) -> None:
    """Refuses sequences of more steps than the backbone has positions for.

    Args:
      count: how many steps, without what conditions put before them; None for
        no end.

    Raises:
      ValueError: see `Stack.check_length`.
    """
    if isinstance(self.backbone, stack_lib.Stack):
      before = conditioners.positions(self.conditions)
      self.backbone.check_length(None if count is None else count + before)

  def context(
      self, conditions: conditioners.Conditions | None, batch: int
  ) -> dict[str, Array]:
    """What the other methods take as `context`, computed once.

    Args:
      conditions: by name, as their sources prepare them. Those that are not
        given are dropped in all rows, as in training: None for the context of
        unconditional predictions.
      batch: rows.

    Raises:
      ValueError: for a condition that the decoder does not have.
    """
    conditions = conditions or {}
    if not set(conditions) <= set(self.conditions):
      raise ValueError(
          f'conditions {sorted(conditions)}, but the decoder has'
          f' {sorted(self.conditions)}'
      )
    dtype = jnp.dtype(self.backbone.dtype)
    found = []
    for name, module in sorted(self.conditions.items()):
      given = conditions.get(name) or module.source.prepare([None] * batch)
      vectors = module(
          jnp.asarray(given['values']),
          jnp.asarray(given['lengths']),
          self.backbone.width,
          dtype,
      )
      found.append((module.how, vectors))
    return conditioners.context(found)

  def begin(self, state: Any, context: streaming_base.Context) -> Any:
    """The state before the first step, after what conditions put before it.

    Args:
      state: of `initial_state`.
      context: of `context`.
    """
    if context is None or 'prefix' not in context:
      return state
    x, num_frames = context['prefix'], context['prefix_lengths']
    mask = streaming_base.length_mask(num_frames, x.shape[1])
    return self.backbone.transform(x, mask, state, context).state

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

  def _context(self, context, conditions, batch):
    """The context of whole sequences."""
    if context is None and self.conditions:
      return self.context(conditions, batch)
    if conditions:
      raise ValueError('conditions beside a context, or of a decoder without')
    return context

  def _table(self) -> ops.Weight | None:
    return self.embedding.table() if self.tie else None

  def _embed(self, codes, slots, exists):
    x = self.embedding(codes, slots, exists).sum(axis=2)
    return x * jnp.asarray(self.embedding_scale, x.dtype)

  def _transform(
      self, codes, slots, exists, mask, packing=None, add=0, context=None
  ) -> stack_lib.Output:
    """The backbone's outputs for the steps of a table.

    Args:
      codes: [B, N, G].
      slots: [N, G], a host constant.
      exists: [B, N, G].
      mask: [B, N] the steps that a row has.
      packing: if they are no prefix: where they go.
      add: [1, N, D] to the inputs.
      context: see the backbone.
    """
    slots = jnp.broadcast_to(slots, codes.shape)
    if packing is not None:
      codes, slots, exists = map(packing.pack, (codes, slots, exists))
      mask = packing.mask
    inputs = self.start.inputs(starts.Inputs(codes, slots, exists))
    x = self._embed(*inputs)
    if packing is not None and not isinstance(add, int):
      add = packing.pack(jnp.broadcast_to(add, x.shape))
      add = self.start.positions(add)
    output = self._whole(x + add, self.start.positions(mask), context)
    y = self.start.steps(output.y)
    return output.replace(y=y if packing is None else packing.unpack(y))

  def _whole(self, x, mask, context):
    """The backbone's outputs for all steps [B, N, D] of a sequence."""
    x = _add(x, context)
    if context is None or 'prefix' not in context:
      return self.backbone.transform(x, mask, context=context)
    prefix, num_frames = context['prefix'], context['prefix_lengths']
    count = num_frames + jnp.sum(mask, axis=1)
    x = conditioners.join(prefix, num_frames, x)
    whole = streaming_base.length_mask(count, x.shape[1])
    output = self.backbone.transform(x, whole, context=context)
    own = conditioners.part(output.y, num_frames, mask.shape[1])
    return output.replace(y=own)

  def _asked(self, exists, packing):
    """`exists` [B, N, G] but for the steps that are given to every row."""
    if not self.start.given:
      return exists
    number = (
        jnp.arange(exists.shape[1]) if packing is None else packing.position
    )
    return exists & (number >= self.start.given)[..., None]

  def _count(self, mask, context):
    """How many positions of each row the backbone's losses are sums of."""
    count = jnp.sum(self.start.positions(mask), axis=1)
    if context is not None and 'prefix' in context:
      count += context['prefix_lengths']
    return count

  def _take(self, state, x, mask, context):
    """The output at each row's last valid position, and the next state."""
    if context is None and self.conditions:
      raise ValueError('steps need a context: see Decoder.context')
    x = _add(x, context)
    if mask is None:
      mask = jnp.ones(x.shape[:2], bool)
    output = self.backbone.transform(x, mask, state, context)
    last = jnp.maximum(jnp.sum(mask, axis=1) - 1, 0)[:, None, None]
    return jnp.take_along_axis(output.y, last, axis=1)[:, 0], output.state


class Decoder(Steps):
  """An autoregressive model of frames of discrete codes.

  Attributes:
    pattern: how slots are laid out in steps.
  """

  pattern: Annotated[Any, config.Kind(lambda: patterns.PATTERNS)] = (
      interleaving.Delay()
  )

  @nn.nowrap
  def _begins_whole(self):
    return not self.pattern.layout(1, len(self.vocabularies)).step.any()

  @property
  def step_layout(self) -> heads.StepLayout:
    groups = self.pattern.groups(len(self.vocabularies))
    return heads.StepLayout(self.vocabularies, groups)

  def score(
      self,
      codes: Int[Array, 'B F K'],
      num_frames: Int[Array, 'B'],
      context: streaming_base.Context = None,
      conditions: conditioners.Conditions | None = None,
  ) -> Scores:
    """Log-probability of every code of every row's first `num_frames` frames.

    Where rows start with a given frame, that is not scored.

    Args:
      codes: anything past a row's length changes nothing.
      num_frames: frames of each row.
      context: see the backbone.
      conditions: in its place, where the decoder has some; see `context`.
    """
    forced = self._teacher_forced(codes, num_frames, context, conditions)
    layout = forced.layout
    log_prob, scored = self.head.log_prob(
        forced.output.y,
        forced.steps,
        forced.exists,
        layout.slot,
        self.step_layout,
        self._table(),
    )
    return Scores(
        layout.to_frames(jnp.where(scored, log_prob, 0)),
        layout.to_frames(scored),
        forced.output.losses,
        forced.count,
        self.head.tag,
    )

  def code_logits(
      self,
      codes: Int[Array, 'B F K'],
      num_frames: Int[Array, 'B'],
      context: streaming_base.Context = None,
      conditions: conditioners.Conditions | None = None,
  ) -> Float[Array, 'B F K V']:
    """Logits (fp32) of which `score` is the log-probability, code by code.

    V is that of the largest slot; a code that a slot does not have is at -inf,
    and so is every code that is not predicted, as `score` says. Unspecified
    past a row's length. Far larger than `score`, so not for training.

    Args:
      codes: those before a code, in the pattern's order, are what it sees.
      num_frames: frames of each row.
      context: see `score`.
      conditions: likewise.
    """
    forced = self._teacher_forced(codes, num_frames, context, conditions)
    logits = self.head.logits(
        forced.output.y,
        forced.steps,
        forced.exists,
        forced.layout.slot,
        self.step_layout,
        self._table(),
    )
    if self.start.given:
      logits = jnp.where(forced.exists[..., None], logits, -jnp.inf)
    return forced.layout.to_frames(logits)

  def _teacher_forced(
      self, codes, num_frames, context, conditions
  ) -> TeacherForced:
    """The backbone's outputs where each code's past is the given one."""
    ranges.check_frames(codes, num_frames, self.vocabularies)
    context = self._context(context, conditions, codes.shape[0])
    frames, slots = codes.shape[1:]
    layout = self.pattern.layout(frames, slots)
    exists = layout.scored(num_frames)
    steps = jnp.where(exists, layout.to_steps(codes), 0)
    packing = None if layout.streamable else layout.packing(num_frames)
    mask = layout.active(num_frames)
    output = self._transform(
        steps, layout.slot, exists, mask, packing, context=context
    )
    asked = self._asked(exists, packing)
    return TeacherForced(
        layout, steps, asked, output, self._count(mask, context)
    )

  def logits(
      self,
      ids: Int[Array, 'B N'],
      num_frames: Int[Array, 'B'] | None = None,
      context: streaming_base.Context = None,
      conditions: conditioners.Conditions | None = None,
  ) -> Float[Array, 'B N V']:
    """What each id of a sequence predicts of the next, for K = 1.

    What it predicts of the first, if it does, is `code_logits`'.

    Args:
      ids: the first is a row's first frame, and comes after what `start` says.
      num_frames: of each row; None for all of it.
      context: see `score`.
      conditions: likewise.

    Raises:
      ValueError: if a frame has more than one slot.
    """
    if len(self.vocabularies) > 1:
      raise ValueError(f'logits of {len(self.vocabularies)} slots: score them')
    ranges.check_frames(ids[..., None], num_frames, self.vocabularies, 'ids')
    if num_frames is None:
      num_frames = jnp.full(ids.shape[0], ids.shape[1])
    codes = jnp.pad(ids, ((0, 0), (0, 1)))[..., None]
    slots = jnp.zeros_like(codes)
    inputs = self.start.inputs(starts.Inputs(codes, slots, slots == 0))
    # What stands before the ids.
    before = 1 - self.start.given
    count = before + ids.shape[1]
    x = self._embed(*inputs)[:, :count]
    mask = streaming_base.length_mask(num_frames + before, count)
    context = self._context(context, conditions, ids.shape[0])
    return self.next_logits(self._whole(x, mask, context).y[:, before:])

  def next_logits(self, y: Float[Array, 'B N D']) -> Float[Array, 'B N V']:
    """Of outputs of the backbone, for K = 1."""
    none = jnp.zeros((*y.shape[:2], 1), jnp.int32)
    logits = self.head.logits(
        y,
        none,
        none == 0,
        np.zeros((y.shape[1], 1), int),
        self.step_layout,
        self._table(),
    )
    return logits[:, :, 0]

  def extend(
      self,
      state: Any,
      codes: Int[Array, 'B n G'],
      slots: Int[Array, 'B n G'],
      exists: Bool[Array, 'B n G'],
      mask: Bool[Array, 'B n'] | None = None,
      context: streaming_base.Context = None,
  ) -> tuple[Float[Array, 'B D'], Any]:
    """Takes in the next n >= 1 steps; what predicts the step after them.

    Args:
      state: where the rows stand.
      codes: of the steps; anything where not `exists`.
      slots: of the steps' places.
      exists: places that hold a frame.
      mask: how many of the n steps each row takes in, as a prefix; None for
        all. A row goes on later as if the others had never been.
      context: see the backbone.

    Returns:
      The output at each row's last step taken in (unspecified for none), for
      `sample`; the next state.
    """
    return self._take(state, self._embed(codes, slots, exists), mask, context)


def _add(x, context):
  """x [B, N, D] and what conditions add to every step."""
  if context is None or 'add' not in context:
    return x
  return x + context['add'][:, None].astype(x.dtype)
