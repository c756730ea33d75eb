"""A decoder of discrete tokens: pattern + embeddings + backbone + head."""

from typing import Annotated, Any

import flax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax import patterns
from audiolm_jax.decoders import heads
from audiolm_jax.decoders import stack
from audiolm_jax.patterns import interleaving

BACKBONES = {'stack': stack.Stack}
HEADS = {'independent': heads.Independent}


class Scores(flax.struct.PyTreeNode):
  """Log-probabilities, position by position; reducing them is the caller's.

  Attributes:
    log_prob: [B, F, K] float32, nats; 0 where not scored.
    mask: [B, F, K] scored positions.
    tag: 'exact', 'bound' or 'none': what log_prob is.
  """

  log_prob: Float[Array, 'B F K']
  mask: Bool[Array, 'B F K']
  tag: str = flax.struct.field(pytree_node=False, default='exact')


class Embedding(nn.Module):
  """The sum of a step's codes, each from its slot's part of one table.

  The table's last K rows fill places that hold no frame.
  """

  vocabularies: tuple[int, ...]
  width: int
  dtype: str

  @nn.compact
  def __call__(
      self,
      codes: Int[Array, 'B N G'],
      slots: Int[Array, 'B N G'],
      exists: Bool[Array, 'B N G'],
  ) -> Float[Array, 'B N D']:
    total = sum(self.vocabularies)
    shape = (total + len(self.vocabularies), self.width)
    table = ops.weight(
        self, 'table', nn.initializers.normal(0.02), shape, ('vocab', 'embed')
    )
    offsets = jnp.array([0, *np.cumsum(self.vocabularies)[:-1]])
    ids = jnp.where(exists, offsets[slots] + codes, total + slots)
    return ops.take(table, ids, jnp.dtype(self.dtype)).sum(axis=2)


class Decoder(nn.Module):
  """An autoregressive model of frames of discrete codes.

  Step n's input is the codes of step n - 1, so its output predicts its own.

  Attributes:
    vocabularies: how many values each slot of a frame takes.
    pattern: how slots are laid out in steps.
    backbone: causal over steps.
    head: scores and samples the codes of a step.
  """

  vocabularies: Annotated[tuple[int, ...], config.Range(min=1)]
  pattern: Annotated[Any, config.Kind(lambda: patterns.PATTERNS)] = (
      interleaving.Delay()
  )
  backbone: Annotated[Any, config.Kind(lambda: BACKBONES)] = stack.Stack()
  head: Annotated[Any, config.Kind(lambda: HEADS)] = heads.Independent()

  @property
  def group(self) -> int:
    """G, codes a step."""
    return self.pattern.group(len(self.vocabularies))

  def setup(self):
    self.embedding = Embedding(
        self.vocabularies, self.backbone.width, self.backbone.dtype
    )

  def score(
      self,
      codes: Int[Array, 'B F K'],
      lengths: Int[Array, 'B'],
  ) -> Scores:
    """Log-probability of every code of every row's first `lengths` frames.

    Args:
      codes: anything past a row's length changes nothing.
      lengths: frames of each row.
    """
    frames, slots = codes.shape[1:]
    layout = self.pattern.layout(frames, slots)
    exists = layout.scored(lengths)
    steps = jnp.where(exists, layout.to_steps(codes), 0)
    # The first input is a step of nothing but fill.
    later = ((0, 0), (1, 0), (0, 0))
    x = self.embedding(
        jnp.pad(steps[:, :-1], later),
        np.concatenate([layout.slot[:1], layout.slot[:-1]]),
        jnp.pad(exists[:, :-1], later),
    )
    h, _ = self.backbone(x, layout.active(lengths))
    log_prob = self.head.log_prob(h, steps, layout.slot, self.vocabularies)
    log_prob = layout.to_frames(jnp.where(exists, log_prob, 0))
    return Scores(log_prob, layout.to_frames(exists), self.head.tag)

  @nn.nowrap
  def initial_state(self, batch: int, room: int) -> Any:
    """The backbone's state before the first step.

    Args:
      batch: rows.
      room: steps that attention without a window keeps in sight.
    """
    backbone = self.backbone.with_room(room)
    return backbone.initial_state(batch, backbone.output_spec(None))

  def extend(
      self,
      state: Any,
      codes: Int[Array, 'B n G'],
      slots: Int[Array, 'B n G'],
      exists: Bool[Array, 'B n G'],
  ) -> tuple[Float[Array, 'B D'], Any]:
    """Takes in the next n >= 1 steps; what predicts the step after them."""
    x = self.embedding(codes, slots, exists)
    mask = jnp.ones(x.shape[:2], bool)
    output = self.backbone.transform(x, mask, state)
    return output.y[:, -1], output.state

  def sample(
      self,
      h: Float[Array, 'B D'],
      slots: Int[Array, 'B G'],
      given: Int[Array, 'B G'],
      given_mask: Bool[Array, 'B G'],
      choose: Any,
      rng: Array,
  ) -> tuple[Int[Array, 'B G'], Float[Array, 'B G']]:
    """A step's codes and their log-probabilities; see `heads`."""
    return self.head.sample(
        h, slots, given, given_mask, choose, rng, self.vocabularies
    )
