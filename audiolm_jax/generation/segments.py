"""Generation of sequences of segments: what is not given is drawn."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax.decoders import segmented
from audiolm_jax.generation import checks
from audiolm_jax.generation import sampling
from audiolm_jax.generation import weights
from audiolm_jax.streaming import base as streaming_base


def generate(
    decoder: segmented.Segmented,
    params: Any,
    given: dict[str, Int[Array, 'B F K']],
    given_mask: dict[str, Bool[Array, 'B F K']],
    num_frames: dict[str, Int[Array, 'B']],
    rng: Array,
    sampler: sampling.Sampler,
    context: streaming_base.Context = None,
) -> tuple[dict[str, Int[Array, 'B F K']], dict[str, Float[Array, 'B F K']]]:
  """Fills what is not given of each row's segments, in their order.

  Segments that are observed come first in most sequences: their steps are taken
  in at once. A row's draws depend on nothing but the seed and the row.

  Args:
    decoder: what generates.
    params: its parameters.
    given: codes of each segment that are known, where
    given_mask: is True.
    num_frames: frames of each row, of each segment.
    rng: a key.
    sampler: how codes are drawn, without a penalty of repetition.
    context: see `Decoder.context`.

  Returns:
    For each segment, codes (0 past a row's length), and the log-probabilities
    under the model itself of those that were not taken in at once.

  Raises:
    ValueError: for more steps than there are learned positions, or a penalty
      of repetition; where arrays are not being traced, for codes and lengths
      out of range, and for a row without the given frame that it must start
      with.
  """
  checks.check_segments(decoder, given, given_mask, num_frames, sampler)
  return _generate(
      decoder, params, given, given_mask, num_frames, rng, sampler, context
  )


@functools.partial(jax.jit, static_argnames=('decoder', 'sampler'))
def _generate(
    decoder, params, given, given_mask, num_frames, rng, sampler, context
):
  """`generate`, compiled."""
  decoder, params = weights.unroll(decoder, params)
  context = weights.with_keys(decoder, params, context)
  frames = {label: codes.shape[1] for label, codes in given.items()}
  layout = decoder.sequence.layout(frames)
  packing = layout.packing(num_frames)
  rows, count = packing.mask.shape
  decoder.check_steps(count)
  cells = layout.cells(
      jnp.broadcast_to(jnp.arange(count), (rows, count)), num_frames
  )
  known = packing.pack(layout.to_steps(given_mask)) | ~cells.exists
  codes = packing.pack(layout.to_steps(given))
  codes = jnp.where(cells.exists & known, codes, 0)
  ends = jnp.sum(packing.mask, axis=1)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(rng, jnp.arange(rows))

  # Steps that are given to every row follow from nothing.
  begun = decoder.start.given

  def at(x, step):
    """x [B, N, ...] at each row's step [B, n]."""
    index = jnp.clip(step, 0, count - 1)
    index = index.reshape(*step.shape, *[1] * (x.ndim - 2))
    return jnp.take_along_axis(x, index, axis=1)

  def extend(state, codes, step, mask=None):
    """Takes in the inputs of some steps of each row, [B, n]."""
    slots = at(cells.slot, step - 1)
    before = at(codes, step - 1), at(cells.exists, step - 1)
    if not begun:
      first = decoder.start.first(slots[:, 0], None)
      before = [
          jnp.where((step == 0)[..., None], x[:, None], y)
          for x, y in zip(first, before, strict=True)
      ]
    return decoder.apply(
        {'params': params},
        state,
        before[0],
        slots,
        before[1],
        at(cells.segment, step),
        mask,
        context,
        method='extend',
    )

  state = decoder.apply(
      {'params': params},
      decoder.initial_state(rows, max(count, 1)),
      context,
      method='begin',
  )
  step = jnp.full(rows, begun, jnp.int32)
  most = _leading(layout)
  if most > begun:
    taken = jnp.all(known, axis=2) & packing.mask
    taken = jnp.cumprod(taken[:, begun:most], axis=1, dtype=jnp.int32) > 0
    now = jnp.broadcast_to(jnp.arange(begun, most), taken.shape)
    _, state = extend(state, codes, now, taken)
    step += jnp.sum(taken, axis=1, dtype=jnp.int32)

  def body(carry):
    state, codes, log_prob, step = carry
    h, state = extend(state, codes, step[:, None])
    slot, exists, here = [
        at(x, step[:, None])[:, 0] for x in (cells.slot, cells.exists, known)
    ]
    own = jax.vmap(jax.random.fold_in)(keys, step)

    def choose(logits, rng, slots):
      del rng
      each = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))(own, slots)
      return sampler(logits, each)

    drawn, score = decoder.apply(
        {'params': params},
        h,
        slot,
        exists,
        at(codes, step[:, None])[:, 0],
        here,
        choose,
        rng,
        method='sample',
    )
    # Out of bounds, where nothing is written.
    where = jnp.where(step < ends, step, count)
    index = jnp.arange(rows), where
    codes = codes.at[index].set(jnp.where(exists, drawn, 0), mode='drop')
    score = jnp.where(exists, score, 0)
    log_prob = log_prob.at[index].set(score, mode='drop')
    return state, codes, log_prob, step + 1

  log_prob = jnp.zeros(codes.shape, jnp.float32)
  _, codes, log_prob, _ = jax.lax.while_loop(
      lambda carry: jnp.any(carry[3] < ends),
      body,
      (state, codes, log_prob, step),
  )

  def segment(x, label):
    own = layout.layouts[label]
    group = own.frame.shape[1]
    table = packing.unpack(x)[:, layout.rows[label], :group]
    inside = own.scored(num_frames[label])
    return own.to_frames(jnp.where(inside, table, 0))

  return tuple(
      {label: segment(x, label) for label in frames} for x in (codes, log_prob)
  )


def _leading(layout) -> int:
  """Steps of the observed segments that come before all others."""
  observed = np.array([s.role == 'observe' for s in layout.segments])
  others = np.flatnonzero(~observed[layout.segment])
  return int(others[0]) if others.size else len(layout.segment)


def generate_stage(
    decoder: segmented.Staged,
    params: Any,
    given: Int[Array, 'B F K'],
    given_mask: Bool[Array, 'B F K'],
    num_frames: Int[Array, 'B'],
    rng: Array,
    sampler: sampling.Sampler,
    context: streaming_base.Context = None,
) -> tuple[Int[Array, 'B F K'], Float[Array, 'B F K']]:
  """`generate` for a stage of frames, as AudioLM has them.

  Args:
    decoder: what generates.
    params: its parameters.
    given: codes that are known (of all slots that it observes), where
    given_mask: is True.
    num_frames: frames of each row.
    rng: a key.
    sampler: how codes are drawn.
    context: see `generate`.

  Returns:
    Codes and log-probabilities, as of `generate`.
  """
  segments = decoder.sequence.segments
  by_segment = generate(
      decoder,
      params,
      *(
          {s.label: x[..., list(s.slots)] for s in segments}
          for x in (given, given_mask)
      ),
      {s.label: num_frames for s in segments},
      rng,
      sampler,
      context,
  )
  results = []
  for parts, like in zip(by_segment, (given, jnp.float32(0)), strict=True):
    x = jnp.zeros(given.shape, like.dtype)
    for s in segments:
      x = x.at[..., list(s.slots)].set(parts[s.label])
    results.append(x)
  return tuple(results)
