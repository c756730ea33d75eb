"""What decoders of steps share: embeddings + backbone + head."""

import abc
from collections.abc import Mapping
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
from audiolm_jax.data import factors
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import embedding as embedding_lib
from audiolm_jax.decoders import heads
from audiolm_jax.decoders import scores as scores_lib
from audiolm_jax.decoders import starts
from audiolm_jax.decoders.heads import independent
from audiolm_jax.patterns import base as patterns_base
from audiolm_jax.patterns import sequence as sequence_lib
from audiolm_jax.streaming import base as streaming_base


class Table(NamedTuple):
  """A batch laid out in steps.

  Attributes:
    layout: of the steps.
    codes: what the steps hold, 0 where not `exists`.
    exists: positions that hold a code of a row.
    mask: [B, N] the steps that a row has, as a prefix once packed.
    packing: where the steps of each row go if they are no prefix; else None.
    add: [1, N, D] what is added to the steps' inputs; 0 for nothing.
  """

  layout: patterns_base.Layout | sequence_lib.SequenceLayout
  codes: Int[Array, 'B N G']
  exists: Bool[Array, 'B N G']
  mask: Bool[Array, 'B N']
  packing: patterns_base.Packing | None = None
  add: Float[Array, '1 N D'] | int = 0


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


class Steps(nn.Module, abc.ABC):
  """What all decoders of steps share: embeddings, backbone and head.

  Step n's input is the codes of step n - 1, so its output predicts its own;
  what the first step has in their place is said by `start`.

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

  def setup(self):
    conditioners.fit(self.conditions, self.backbone)
    self.embedding = embedding_lib.Embedding(
        self.vocabularies, self.backbone.width, self.backbone.dtype
    )

  @property
  @abc.abstractmethod
  def step_layout(self) -> heads.StepLayout:
    """What the steps may hold."""

  @nn.nowrap
  @abc.abstractmethod
  def _begins_whole(self) -> bool:
    """Whether a first step that is given is a part of the rows by itself."""

  @property
  def predicted(self) -> tuple[int, ...]:
    """The slots that are scored, ascending."""
    groups = self.step_layout.groups[: self.head.predicted]
    return tuple(sorted({slot for group in groups for slot in group}))

  @property
  def tag(self) -> str:
    """What `score` gives: 'exact', 'bound' or 'none'."""
    return self.head.tag

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
    conditioned = []
    for name, module in sorted(self.conditions.items()):
      given = conditions.get(name) or module.source.prepare([None] * batch)
      vectors = module(
          jnp.asarray(given['values']),
          jnp.asarray(given['lengths']),
          self.backbone.width,
          dtype,
      )
      conditioned.append((module.how, vectors))
    return conditioners.context(conditioned)

  def begin(self, state: Any, context: streaming_base.Context) -> Any:
    """The state before the first step, after what conditions put before it.

    Args:
      state: of `initial_state`.
      context: of `context`.
    """
    if context is None or 'prefix' not in context:
      return state
    _check_film(context)
    x, lengths = context['prefix'], context['prefix_lengths']
    mask = streaming_base.length_mask(lengths, x.shape[1])
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
    streams = {}
    for label, (layout, *seen) in parts.items():
      log_prob, scored = self.head.log_prob(
          *seen, self.step_layout, self._table()
      )
      streams[label] = scores_lib.StreamScores(
          layout.to_frames(jnp.where(scored, log_prob, 0)),
          layout.to_frames(scored),
      )
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
    return streams

  def _teacher_forced(self, codes, num_frames, context, conditions):
    """What the head sees where each code's past is the given one.

    Returns:
      {stream: Part}; the backbone's output; [B] how many of its positions each
      row has.
    """
    table = self._lay_out(codes, num_frames)
    context = self._context(context, conditions, table.mask.shape[0])
    exists, packing = table.exists, table.packing
    steps = table.codes, jnp.broadcast_to(table.layout.slot, exists.shape)
    steps, add = (*steps, exists), table.add
    number = jnp.arange(exists.shape[1])
    if packing is not None:
      steps, number = map(packing.pack, steps), packing.position
    x = self._embed(*self.start.inputs(starts.Inputs(*steps)))
    if not isinstance(add, int):
      add = packing.pack(jnp.broadcast_to(add, x.shape))
      add = self.start.positions(add)
    x, mask = self._join(x + add, self.start.positions(table.mask), context)
    output = self.backbone.transform(x, mask, context=context)
    y = self.start.steps(self._own(output.y, exists.shape[1], context))
    y = y if packing is None else packing.unpack(y)
    if self.start.given:
      # Steps that are given to every row are not predicted.
      exists &= (number >= self.start.given)[..., None]
    parts = self._parts(table.layout, y, table.codes, exists)
    return parts, output, jnp.sum(mask, axis=1)

  @property
  def streams(self) -> dict[str, scores_lib.Stream]:
    """All streams of its batches, by label: one of frames unless overridden."""
    stream = scores_lib.Stream('num_frames', 'bits_per_frame', self.predicted)
    return {'frames': stream}

  @nn.nowrap
  def slots(self, label: str) -> tuple[int, ...]:
    """Which of its slots a stream has."""
    del label
    return tuple(range(len(self.vocabularies)))

  @nn.nowrap
  def example_batch(
      self, batch_size: int, lengths: Mapping[str, int]
  ) -> dict[str, np.ndarray]:
    """A batch of zeros.

    Args:
      batch_size: B.
      lengths: frames of a row, for each stream.
    """
    shape = (batch_size, lengths['frames'], len(self.vocabularies))
    return {
        'codes': np.zeros(shape, np.int32),
        'num_frames': np.zeros(batch_size, np.int32),
        **self._no_conditions(batch_size),
    }

  @nn.nowrap
  def read(self, batch: Mapping[str, Array]) -> tuple[Any, ...]:
    """What `score` takes of a batch, in the order of its arguments."""
    conditions = factors.unflatten(batch, sorted(self.conditions))
    return batch['codes'], batch['num_frames'], None, conditions

  @nn.nowrap
  def _no_conditions(self, batch_size):
    """The entries of a batch whose rows have no condition."""
    return factors.flatten(
        {
            name: module.source.prepare([None] * batch_size)
            for name, module in sorted(self.conditions.items())
        }
    )

  @abc.abstractmethod
  def _lay_out(self, codes, num_frames) -> Table:
    """A batch in steps, checked where it holds values."""

  @abc.abstractmethod
  def _parts(self, layout, y, codes, exists) -> dict[str, Part]:
    """By label, what a table's steps hold of the streams that are predicted."""

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

  def _join(self, x, mask, context):
    """Inputs [B, N, D] and their mask, after what conditions put before them."""
    x = _add(x, context)
    if context is None or 'prefix' not in context:
      return x, mask
    _check_film(context)
    prefix, lengths = context['prefix'], context['prefix_lengths']
    count = lengths + jnp.sum(mask, axis=1)
    x = conditioners.join(prefix, lengths, x)
    return x, streaming_base.length_mask(count, x.shape[1])

  def _own(self, y, count, context):
    """The inverse of `_join`: the outputs of the `count` inputs."""
    if context is None or 'prefix' not in context:
      return y
    return conditioners.part(y, context['prefix_lengths'], count)

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


def _check_film(context):
  """Refuses film by position: a prefix stands elsewhere in each row."""
  if np.ndim(context.get('film', 0)) > 2:
    raise ValueError(
        f"context['film'] has shape {context['film'].shape}, expected [B, C]:"
        ' beside conditions that are a prefix it is one vector a row'
    )


def _add(x, context):
  """x [B, N, D] and what conditions add to every step."""
  if context is None or 'add' not in context:
    return x
  return x + context['add'][:, None].astype(x.dtype)
