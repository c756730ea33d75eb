"""The state of generation, its one step, and prompts taken in at once."""

import dataclasses
from typing import Any

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
import numpy as np

from audiolm_jax import config
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.generation import guidance as guidance_lib
from audiolm_jax.generation import sampling
from audiolm_jax.streaming import base as streaming_base

# More frames than any stream has.
ENDLESS = np.iinfo(np.int32).max


@dataclasses.dataclass(frozen=True)
class Stop:
  """A code that ends its row: the frame that holds it is not part of the row.

  Attributes:
    code: which, or several of which any does.
    slot: of which slot. If the pattern has other slots before it, codes past the
      end may have been drawn by then, and what came after has seen them.

  Raises:
    ConfigError: for no code, or one or a slot below 0.
  """

  code: int | tuple[int, ...]
  slot: config.Count = 0

  def __post_init__(self):
    if not self.codes or min(*self.codes, self.slot, 0) < 0:
      raise config.ConfigError(f'{self}: expected codes and a slot >= 0')

  @property
  def codes(self) -> tuple[int, ...]:
    """All that end a row."""
    return self.code if isinstance(self.code, tuple) else (self.code,)


class State(flax.struct.PyTreeNode):
  """Where generation stands, row by row.

  All leaves lead with the rows, B of them; the cache has 2B if guided.

  Attributes:
    cache: the decoder's state; it has not seen `codes` yet.
    codes: [B, G] of the step before.
    slots: [B, G] their slots.
    exists: [B, G] False where they only fill.
    step: [B] the next step.
    frames: [B] length of each row's sequence.
    recent: [B, K, w] the last codes of each slot, -1 where there were fewer.
    keys: [B] random keys.
  """

  cache: Any
  codes: Int[Array, 'B G']
  slots: Int[Array, 'B G']
  exists: Bool[Array, 'B G']
  step: Int[Array, 'B']
  frames: Int[Array, 'B']
  recent: Int[Array, 'B K w']
  keys: Key[Array, 'B']


def start(
    decoder: decoder_lib.Decoder,
    frames: Int[Array, 'B'],
    cache_length: int,
    rng: Array,
    *,
    sink_tokens: int = 0,
    guided: bool = False,
    window: int = 0,
    params: Any = None,
    context: streaming_base.Context = None,
    first: Int[Array, 'B K'] | None = None,
) -> State:
  """The state before the first step that is not given to every row.

  Args:
    decoder: what generates.
    frames: length of each row's sequence; `ENDLESS` for a stream.
    cache_length: steps that attention without a window keeps in sight. What lies
      further back falls out of sight, as if there were a window of `cache_length`: a
      stream has no end.
    rng: a key.
    sink_tokens: first steps that stay in sight beside them.
    guided: whether there are rows without conditions, too.
    window: the sampler's `repetition_window`.
    params: the decoder's parameters, where it has conditions.
    context: see `step`: what it puts before the first step is taken in.
    first: of a decoder whose rows start with a given frame: that frame.
  """
  batch, slots = frames.shape[0], len(decoder.vocabularies)
  rows = jnp.arange(batch)
  step = jnp.zeros(batch, jnp.int32)
  _, slot = decoder.pattern.cells(step, slots, frames)
  slot = jnp.broadcast_to(slot, (batch, decoder.group))
  codes, exists = decoder.start.first(slot, first)
  recent = jnp.full((batch, slots, window), -1)
  if decoder.start.given:
    recent = _remember(recent, codes, slot, exists)
  cache = decoder.initial_state((1 + guided) * batch, cache_length, sink_tokens)
  if context is not None and 'prefix' in context:
    cache = decoder.apply({'params': params}, cache, context, method='begin')
  return State(
      cache=cache,
      codes=codes,
      slots=slot,
      exists=exists,
      step=step + decoder.start.given,
      frames=jnp.array(frames, jnp.int32),
      recent=recent,
      keys=jax.vmap(jax.random.fold_in, (None, 0))(rng, rows),
  )


def restart(state: State, fresh: State, rows: Bool[Array, 'B']) -> State:
  """`state` with some rows taken from `fresh`, a state of `start`."""

  def pick(new, old):
    chosen = rows if new.shape[0] == rows.shape[0] else guidance_lib.twice(rows)
    return jnp.where(chosen.reshape(-1, *[1] * (old.ndim - 1)), new, old)

  return jax.tree.map(pick, fresh, state)


def step(
    decoder: decoder_lib.Decoder,
    params: Any,
    sampler: sampling.Sampler,
    state: State,
    given: Int[Array, 'B G'],
    given_mask: Bool[Array, 'B G'],
    *,
    context: streaming_base.Context = None,
    guidance: Float[Array, ''] | float | None = None,
    stop: Stop | None = None,
) -> tuple[State, Int[Array, 'B G'], Float[Array, 'B G']]:
  """Takes one step. Compiled by who calls it, the state may be donated.

  Args:
    decoder: what generates; see `weights.unroll`.
    params: its parameters.
    sampler: how codes are drawn.
    state: where generation stands.
    given: codes that are known, where
    given_mask: is True. Places without a frame are filled in any case.
    context: see the backbone; of 2B rows (`guidance.pair`) if guided.
    guidance: see `guidance.combine`; None for a state that is not guided.
    stop: what ends a row; codes that are given do not.

  Returns:
    The next state, whose `exists` says which of the codes are there; the step's
    codes (0 where there is no frame); their log-probabilities under the model
    itself, at temperature 1 and unfiltered (0 where there is no frame).

  Raises:
    ValueError: for a `stop` in a pattern that must know lengths beforehand.
  """
  if stop is not None and not decoder.pattern.streamable:
    raise ValueError(f'{decoder.pattern} knows where a row ends: no stop')
  batch, slots = state.recent.shape[:2]
  both = (lambda x: x) if guidance is None else guidance_lib.twice
  inputs = both((state.codes, state.slots, state.exists))
  h, cache = decoder.apply(
      {'params': params},
      state.cache,
      *(x[:, None] for x in inputs),
      context=context,
      method='extend',
  )
  frame, slot = decoder.pattern.cells(state.step, slots, state.frames)
  exists = (frame >= 0) & (frame < state.frames[:, None])
  keys = jax.vmap(jax.random.fold_in)(state.keys, state.step)

  def choose(logits, rng, slots):
    # One key a code, by its slot.
    del rng
    if guidance is not None:
      logits = guidance_lib.combine(logits, guidance)
    slots = slots[:batch]
    each = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))(keys, slots)
    recent = jnp.take_along_axis(state.recent, slots[..., None], axis=1)
    return both(sampler(logits, each, recent))

  codes, log_prob = decoder.apply(
      {'params': params},
      h,
      *both((slot, exists, given, given_mask)),
      choose,
      jax.random.key(0),
      method='sample',
  )
  codes, log_prob = codes[:batch], log_prob[:batch]
  frames = state.frames
  if stop is not None:
    ends = (codes[..., None] == jnp.array(stop.codes)).any(axis=-1)
    hit = exists & (slot == stop.slot) & ends & ~given_mask
    frames = jnp.where(hit, frame, frames[:, None]).min(axis=1)
    exists &= frame < frames[:, None]
  codes = jnp.where(exists, codes, 0)
  state = state.replace(
      cache=cache,
      codes=codes,
      slots=slot,
      exists=exists,
      step=state.step + 1,
      frames=frames,
      recent=_remember(state.recent, codes, slot, exists),
  )
  return state, codes, jnp.where(exists, log_prob, 0)


def _remember(recent, codes, slot, exists):
  """The last codes of each slot after a step that holds each at most once."""
  if not recent.shape[2]:
    return recent
  at = exists[..., None] & (slot[..., None] == jnp.arange(recent.shape[1]))
  new = jnp.sum(jnp.where(at, codes[..., None], 0), axis=1)
  later = jnp.concatenate([recent[:, :, 1:], new[..., None]], axis=2)
  return jnp.where(at.any(axis=1)[..., None], later, recent)


def take_prompts(
    decoder: decoder_lib.Decoder,
    params: Any,
    state: State,
    given: Int[Array, 'B F K'],
    prompts: Int[Array, 'B'],
    most: int,
    context: streaming_base.Context = None,
    guided: bool = False,
) -> tuple[State, Int[Array, 'B F K']]:
  """Takes in at once the steps that hold prompts only.

  Each row goes on from its own step: where a pattern delays slots, what a
  prompt has in later steps is still to be given to those.

  Args:
    decoder: what generates.
    params: its parameters.
    state: of `start`.
    given: the prompts, in F frames at most, with what `start` had of them.
    prompts: frames of each.
    most: the longest of them, at most F.
    context: see `step`.
    guided: see `start`.

  Returns:
    The state after them, and the codes taken in (0 elsewhere).
  """
  frames, slots = given.shape[1:]
  pattern = decoder.pattern
  layout = pattern.layout(frames, slots)
  count = layout.given_steps(most)
  rows = jnp.arange(given.shape[0])[:, None]
  if not count:
    return state, jnp.zeros_like(given)
  frame, slot = pattern.cells(
      jnp.arange(count)[None], slots, state.frames[:, None]
  )
  shape = (given.shape[0], count, decoder.group)
  frame, slot = jnp.broadcast_to(frame, shape), jnp.broadcast_to(slot, shape)
  exists = (frame >= 0) & (frame < state.frames[:, None, None])
  # The steps before the first one that holds something else.
  inside = ~exists | (frame < prompts[:, None, None])
  # `start` has seen to those that are given to every row.
  begun = decoder.start.given
  inside |= (jnp.arange(count) < begun)[:, None]
  taken = jnp.cumprod(jnp.all(inside, axis=2), axis=1, dtype=jnp.int32) > 0
  own = jnp.sum(taken, axis=1)
  at = rows[..., None], jnp.clip(frame, 0, frames - 1), slot
  codes = jnp.where(exists, given[at], 0)

  def before(first, x):
    return jnp.concatenate([first[:, None], x[:, :-1]], axis=1)

  inputs = (
      before(state.codes, codes),
      before(state.slots, slot),
      before(state.exists, exists),
      taken,
  )
  inputs = tuple(x[:, begun:] for x in inputs)
  if guided:
    inputs = guidance_lib.twice(inputs)
  cache = state.cache
  if count > begun:
    _, cache = decoder.apply(
        {'params': params}, cache, *inputs, context=context, method='extend'
    )

  def last(x, none):
    index = jnp.maximum(own - 1, 0)[:, None, None]
    value = jnp.take_along_axis(x, index, axis=1)[:, 0]
    return jnp.where(own[:, None] > 0, value, none)

  held = exists & taken[..., None]
  recent = _recent(given, held, slot, state.recent)
  state = state.replace(
      cache=cache,
      codes=last(codes, state.codes),
      slots=last(slot, state.slots),
      exists=last(exists, state.exists),
      step=state.step + own - begun,
      recent=recent,
  )
  at = rows[..., None], jnp.where(held, frame, frames), slot
  return state, jnp.zeros_like(given).at[at].set(codes, mode='drop')


def _recent(given, held, slot, recent):
  """The last codes that prompts hold of each slot, whose frames are in order."""
  slots, window = recent.shape[1:]
  own = slot[..., None] == jnp.arange(slots)
  count = jnp.sum(held[..., None] & own, axis=(1, 2))
  index = count[:, None] + jnp.arange(-window, 0)[:, None]
  codes = jnp.take_along_axis(given, jnp.maximum(index, 0), axis=1)
  return jnp.where(index >= 0, codes, -1).swapaxes(1, 2)
