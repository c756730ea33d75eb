"""Attention over time, and over a context: of decoders and codecs alike."""

from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
import numpy as np

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.ops import attention as attention_ops
from audiolm_jax.ops import rotary
from audiolm_jax.streaming import base as streaming_base

POSITIONS = {'rope': rotary.Rope}
# Keys and values of a context, as attention takes them.
Projected = tuple[Float[Array, 'B J S D'], Float[Array, 'B J S D']]


class Attention(streaming_base.Steppable):
  """Multi-head attention with all that models vary of it.

  Steps keep keys and values in a ring of `window` or `cache_length` positions, and
  beside it those of the first `sink_tokens`. Its size is a matter of the state alone:
  a state made with `cache_length` serves the same module without.

  Bidirectional attention heeds context['window'] [B], if there is one: a window of
  each row, beside its own.

  Attributes:
    heads: of queries.
    kv_heads: of keys and values; divides heads (GQA, 2305.13245; 1 is MQA,
      1911.02150). None: heads.
    head_width: None for width / heads.
    window: a query sees keys nearer than this; None for all.
    sink_tokens: the first positions, which every later query sees whatever the window
      (StreamingLLM, 2309.17453). A query sees them from no further than sink_tokens +
      window - 1, the largest distance among neighbours.
    mask_kind: `kind` of `ops.attention.Mask`: which positions a step may see.
    block: of block_causal; steps are multiples of it.
    positions: positional encoding of queries and keys.
    qk_norm: whether queries and keys are normed (RMS) in each head, before
      their rotation (2302.05442).
    qk_epsilon: of that norm.
    sinks: whether each head has a learned logit that takes its share of the
      softmax and adds nothing.
    use_bias: whether queries, keys and values have biases.
    out_bias: whether the output has.
    softmax_scale: of products of queries and keys; None for head_width**-.5.
    cache_length: positions that steps keep where there is no window. What lies further
      back falls out of sight, as with window = cache_length.
  """

  heads: config.Positive = 4
  kv_heads: config.Positive | None = None
  head_width: config.Positive | None = None
  window: config.Positive | None = None
  sink_tokens: config.Count = 0
  mask_kind: Literal['causal', 'bidirectional', 'block_causal'] = 'causal'
  block: config.Positive = 1
  positions: Annotated[Any, config.Kind(lambda: POSITIONS)] | None = (
      rotary.Rope()
  )
  qk_norm: Literal['none', 'rms'] = 'none'
  qk_epsilon: config.NonNegative = 1e-6
  sinks: bool = False
  use_bias: bool = False
  out_bias: bool = False
  softmax_scale: float | None = None
  cache_length: config.Positive | None = None

  @property
  def block_size(self) -> int:
    return self.block if self.mask_kind == 'block_causal' else 1

  @property
  def causal(self) -> bool:
    return self.mask_kind == 'causal'

  @property
  def steppable(self) -> bool:
    bounded = self.window is not None or self.cache_length is not None
    return self.mask_kind != 'bidirectional' and bounded

  @property
  def receptive_field(self) -> int | None:
    if self.window is None or self.sink_tokens:
      return None
    return self.window + self.block_size - 1

  @nn.nowrap
  def reach(self, start, stop):
    if self.mask_kind == 'bidirectional' and self.receptive_field is not None:
      return start - self.window + 1, stop + self.window - 1
    return super().reach(start, stop)

  @nn.nowrap
  def initial_state(self, batch, spec):
    """Rings of keys and values, and how many positions there have been.

    Raises:
      ValueError: if nothing bounds what they keep.
    """
    if not self.steppable:
      raise ValueError(
          'attention steps if it is causal and has a window or a cache_length'
      )
    kv_heads, size = _heads(self, spec.shape[-1])

    def zeros(slots):
      return jnp.zeros((batch, kv_heads, slots, size), spec.dtype)

    slots = self.window or self.cache_length
    state = {
        'keys': zeros(slots),
        'values': zeros(slots),
        'position': jnp.zeros(batch, jnp.int32),
    }
    if self.sink_tokens:
      state |= {
          'kept_keys': zeros(self.sink_tokens),
          'kept_values': zeros(self.sink_tokens),
      }
    return state

  @nn.compact
  def process(self, x, mask, state, context):
    """The next positions; without a state, a whole sequence."""
    within = None if context is None else context.get('window')
    if within is not None and self.mask_kind != 'bidirectional':
      raise ValueError(
          f"context['window'] is for bidirectional attention, which sees both"
          f' sides, and mask_kind is {self.mask_kind!r}'
      )
    positions = np.arange(x.shape[1], dtype=np.int32)[None]
    if state is not None:
      positions = state['position'][:, None] + positions
    kv_heads, size = _heads(self, x.shape[-1])
    q = _normed(self, 'query', _project(self, x, 'query', self.heads, size))
    k = _normed(self, 'key', _project(self, x, 'key', kv_heads, size))
    v = _project(self, x, 'value', kv_heads, size)
    k = self._rotate(k, positions)
    if state is None:
      window, (sets, kept) = self.window, self._whole(k, v, positions, mask)
    else:
      window = state['keys'].shape[2]
      state, sets, kept = self._extend(k, v, positions, mask, state)
    if kept is not None:
      most = kept.positions.shape[1] + window - 1
      kept = self._rotate(q, jnp.minimum(positions, most)), kept
    sinks = None
    if self.sinks:
      init = nn.initializers.zeros
      sinks = ops.weight(self, 'sinks', init, (self.heads,), (None,))
      sinks = ops.materialize(sinks)
    y = attention_ops.attend_keys(
        self._rotate(q, positions),
        positions,
        sets,
        attention_ops.Mask(self.mask_kind, window, self.block),
        kept,
        sinks,
        self.softmax_scale,
        within,
    )
    return _output(self, y, x.shape[-1]), mask, state

  def __call__(self, x, mask, context=None):
    x = streaming_base.zero_masked(x, mask)
    return self.process(x, mask, None, context)[:2]

  @nn.nowrap
  def _rotate(self, x, positions):
    return x if self.positions is None else self.positions.rotate(x, positions)

  @nn.nowrap
  def _whole(self, k, v, positions, mask):
    """The keys of a sequence, and the first of them if they are kept."""
    k, v = attention_ops.heads_first(k), attention_ops.heads_first(v)
    # Without a window everything is kept.
    count = self.sink_tokens if self.window is not None else 0
    sets = [attention_ops.Keys(k, v, positions, mask & (positions >= count))]
    if not count:
      return sets, None
    return sets, attention_ops.Keys(
        k[:, :, :count], v[:, :, :count], positions[:, :count], mask[:, :count]
    )

  @nn.nowrap
  def _extend(self, k, v, positions, mask, state):
    """The next state, the keys in sight, and the first if they are kept."""
    count = state['kept_keys'].shape[2] if 'kept_keys' in state else 0
    after, sets = attention_ops.extend_ring(state, k, v, positions, mask, count)
    if not count:
      return after, sets, None
    first = mask & (positions < count)
    for name, new in (('kept_keys', k), ('kept_values', v)):
      after[name] = attention_ops.write_ring(state[name], new, positions, first)
    at = jnp.arange(count)[None]
    exists = at < after['position'][:, None]
    kept = attention_ops.Keys(
        after['kept_keys'], after['kept_values'], at, exists
    )
    return after, sets, kept


class Cross(nn.Module):
  """Attention of every position over a context, such as text.

  Attributes:
    heads: of queries.
    kv_heads: see `Attention`, as all others.
  """

  heads: config.Positive = 4
  kv_heads: config.Positive | None = None
  head_width: config.Positive | None = None
  qk_norm: Literal['none', 'rms'] = 'none'
  qk_epsilon: config.NonNegative = 1e-6
  use_bias: bool = False
  out_bias: bool = False

  @nn.compact
  def __call__(
      self,
      x: Float[Array, 'B N D'],
      context: Float[Array, 'B S E'],
      mask: Bool[Array, 'B S'],
      projected: Projected | None = None,
      project_only: bool = False,
  ) -> Float[Array, 'B N D'] | Projected:
    """What x attends to; zeros (but for a bias) where the mask has nothing.

    Args:
      x: finite.
      context: where masked it may hold NaN.
      mask: which positions of the context exist.
      projected: the context's keys and values, if they are known.
      project_only: whether to give these, of which x has the width and dtype.
    """
    kv_heads, size = _heads(self, x.shape[-1])
    if projected is None:
      context = streaming_base.zero_masked(context, mask).astype(x.dtype)
      k = _project(self, context, 'key', kv_heads, size)
      v = _project(self, context, 'value', kv_heads, size)
      k = _normed(self, 'key', k)
      projected = attention_ops.heads_first(k), attention_ops.heads_first(v)
    if project_only:
      return projected
    q = _normed(self, 'query', _project(self, x, 'query', self.heads, size))
    part = attention_ops.Part(q, *projected, mask[:, None, :])
    return _output(self, attention_ops.attend_parts([part]), x.shape[-1])


def _heads(module, width) -> tuple[int, int]:
  """(heads of keys, width of a head) for inputs of `width`."""
  kv_heads = module.kv_heads or module.heads
  if module.heads % kv_heads or (
      not module.head_width and width % module.heads
  ):
    raise ValueError(
        f'width {width}, heads {module.heads} and kv_heads {kv_heads}: each'
        ' must be a multiple of the next.'
    )
  return kv_heads, module.head_width or width // module.heads


def _project(module, x, name, heads, size):
  """Queries, keys or values [B, N, heads, size]."""
  y = ops.linear(
      module, name, x, heads * size, ('embed', 'heads'), module.use_bias
  )
  return y.reshape(*x.shape[:2], heads, size)


def _normed(module, name, x):
  """x [B, N, H, D], with RMS 1 in each head where that is wanted."""
  if module.qk_norm == 'none':
    return x
  init = nn.initializers.ones
  scale = ops.weight(module, f'{name}_norm', init, x.shape[-1:], (None,))
  y = x.astype(jnp.float32)
  square = jnp.mean(jnp.square(y), axis=-1, keepdims=True)
  y *= jax.lax.rsqrt(square + module.qk_epsilon) * ops.materialize(scale)
  return y.astype(x.dtype)


def _output(module, y, width):
  """The heads' values y [B, N, H, D] as an output [B, N, width]."""
  y = y.reshape(*y.shape[:2], y.shape[2] * y.shape[3])
  return ops.linear(
      module, 'out', y, width, ('heads', 'embed'), module.out_bias
  )
