"""What autoregressive decoders share: a causal backbone that goes on in steps."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from audiolm_jax import config
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.decoders import conditioned
from audiolm_jax.decoders import conditioners
from audiolm_jax.streaming import base as streaming_base


class Causal(conditioned.Conditioned):
  """A decoder whose `backbone` takes in steps, and has a state between them."""

  def __post_init__(self):
    if not self.backbone.causal:
      raise config.ConfigError(
          'decoder.backbone has mixers that look ahead, and an autoregressive'
          ' decoder would see what it predicts: make them causal, or the decoder'
          " a 'masked' one"
      )
    super().__post_init__()

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

  def begin(self, state: Any, context: streaming_base.Context) -> Any:
    """The state before the first step, after what conditions put before it.

    Args:
      state: of `initial_state`.
      context: of `context`.
    """
    if context is None or 'prefix' not in context:
      return state
    conditioned.check_film(context)
    x, lengths = context['prefix'], context['prefix_lengths']
    mask = streaming_base.length_mask(lengths, x.shape[1])
    return self.backbone.transform(x, mask, state, context).state

  @property
  def aligned(self) -> bool:
    """Whether steps are told of which frame they are: a condition is of frames."""
    return conditioners.aligned(self.conditions)

  def _take(self, state, x, mask, context, frames):
    """The output at each row's last valid position, and the next state."""
    if context is None and self.conditions:
      raise ValueError('steps need a context: see `context`')
    if (frames is None) == self.aligned:
      raise ValueError(
          'steps need the frames that they predict where a condition is of'
          ' frames, and nowhere else'
      )
    x = conditioned.add(x, context, frames)
    if mask is None:
      mask = jnp.ones(x.shape[:2], bool)
    output = self.backbone.transform(x, mask, state, context)
    last = jnp.maximum(jnp.sum(mask, axis=1) - 1, 0)[:, None, None]
    return jnp.take_along_axis(output.y, last, axis=1)[:, 0], output.state
