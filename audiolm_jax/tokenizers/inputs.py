"""Audio and tokens from outside, held against what a tokenizer takes.

For the methods that people call. Shapes and types are always checked; values
only of arrays that are there: while `jax.jit` traces there are none, and a code
out of range then sounds like another one or like NaN. Who compiles `encode` or
`decode` and does not know where the arrays are from calls these first.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from audiolm_jax.audio import checks
from audiolm_jax.ops import concrete
from audiolm_jax.tokenizers import base as tokenizers_base


def audio(
    spec: tokenizers_base.Spec,
    samples: Float[Array, 'B T C'],
    num_samples: Int[Array, 'B'],
) -> None:
  """Refuses audio that is no audio; past the rows' lengths anything may stand.

  Raises:
    ValueError: for another shape, integers, lengths that are negative or beyond
      T, samples that are not finite or far beyond full scale; it names the row
      and the sample.
  """
  kind(spec, samples)
  shape = np.shape(samples)
  num_samples, values = _lengths(num_samples, shape[0]), concrete.on_host(
      samples
  )
  if num_samples is None:
    return
  for row in np.flatnonzero(num_samples > shape[1]):
    raise ValueError(
        f'num_samples[{row}] = {num_samples[row]}, and the audio has {shape[1]} samples'
    )
  # Mostly nothing is wrong, wherever it stands.
  if values is not None and not checks.within(values, checks.LOUDEST):
    valid = np.arange(shape[1]) < num_samples[:, None]
    checks.samples(np.where(valid[..., None], values, 0), checks.LOUDEST)


def kind(spec: tokenizers_base.Spec, samples: Float[Array, 'B T C']) -> None:
  """The part of `audio` that is known of traced arrays too: shape and type."""
  shape = np.shape(samples)
  if len(shape) != 3 or shape[2] != spec.channels:
    raise ValueError(
        f'audio has shape {shape}; expected [B, T, {spec.channels}]'
    )
  checks.samples(np.zeros(0, samples.dtype))


def tokens(spec: tokenizers_base.Spec, given: tokenizers_base.Tokens) -> None:
  """Refuses tokens that `spec` does not describe.

  Past the frames that a row's length takes, anything may stand.

  Raises:
    ValueError: for codes where there should be latents or the other way round,
      another shape or type, lengths that are negative or beyond the frames,
      and values as `values` has it.
  """
  name = 'codes' if spec.slots else 'latents'
  given_tokens, other = given.codes, given.latents
  if not spec.slots:
    given_tokens, other = other, given_tokens
  if given_tokens is None or other is not None:
    raise ValueError(f'this tokenizer takes {name}, and nothing beside them')
  if given.durations is not None:
    raise ValueError('durations: all tokens of this tokenizer last one frame')
  if given.scales is not None and spec.segment is None:
    raise ValueError('scales: this tokenizer has no segments with gains')
  rows, frames = np.shape(given_tokens)[:2]
  if given.scales is not None and np.shape(given.scales) != (rows, frames):
    raise ValueError(
        f'scales have shape {np.shape(given.scales)}; expected'
        f' {(rows, frames)}, one for each frame'
    )
  num_samples = _lengths(given.num_samples, rows)
  if num_samples is None:
    values(spec, given_tokens, None)
    return
  needed = spec.frames(num_samples)
  for row in np.flatnonzero(needed > frames):
    raise ValueError(
        f'num_samples[{row}] = {num_samples[row]} samples take {needed[row]} frames,'
        f' and there are {frames}'
    )
  valid = np.arange(frames) < needed[:, None]
  values(spec, given_tokens, valid)
  scales = concrete.on_host(given.scales)
  if scales is not None and not np.isfinite(scales[valid]).all():
    raise ValueError('scales are not finite')


def values(
    spec: tokenizers_base.Spec, given: Array, valid: Bool[Array, 'B F'] | None
) -> None:
  """Refuses codes [B, F, k] or latents [B, F, D] that mean nothing.

  Args:
    spec: of the tokenizer.
    given: codes of the first slots, or latents.
    valid: the frames that count; None if that is not known, as while tracing.

  Raises:
    ValueError: for another shape or type; for a code out of its vocabulary or
      a latent that is not finite, naming row, frame, slot and value.
  """
  shape, dtype = np.shape(given), given.dtype
  wanted = jnp.integer if spec.slots else jnp.floating
  if not jnp.issubdtype(dtype, wanted):
    kind = 'integer codes' if spec.slots else 'floating-point latents'
    raise ValueError(f'tokens of type {dtype}: this tokenizer takes {kind}')
  width = len(spec.slots) or spec.dimension
  fits = len(shape) == 3 and (
      0 < shape[2] <= width if spec.slots else shape[2] == width
  )
  if not fits:
    most = 'at most ' if spec.slots else ''
    raise ValueError(
        f'tokens have shape {shape}; expected [B, F, {most}{width}]'
    )
  array, valid = concrete.on_host(given), concrete.on_host(valid)
  if array is None or valid is None:
    return
  if not spec.slots:
    wrong = ~np.isfinite(array)
  else:
    sizes = np.asarray(spec.vocabularies[: shape[2]])
    # Mostly nothing is wrong, which two passes tell.
    if not array.size or (array.min() >= 0 and (array < sizes).all()):
      return
    wrong = (array < 0) | (array >= sizes)
  for row, frame, slot in np.argwhere(wrong & valid[..., None]):
    value = array[row, frame, slot]
    if spec.slots:
      raise ValueError(
          f'slot {slot} of frame {frame} of row {row} holds code {value}, and'
          f' its vocabulary is {sizes[slot]}'
      )
    raise ValueError(f'latent {slot} of frame {frame} of row {row} is {value}')


def _lengths(num_samples, rows: int) -> np.ndarray | None:
  """The same if they are one natural number a row; None if not known."""
  if np.shape(num_samples) != (rows,):
    raise ValueError(
        f'num_samples have shape {np.shape(num_samples)}; expected ({rows},), samples'
        ' of each row'
    )
  lengths = concrete.on_host(num_samples)
  if lengths is None:
    return None
  if not np.issubdtype(lengths.dtype, np.integer):
    raise ValueError(f'num_samples of type {lengths.dtype}: expected integers')
  for row in np.flatnonzero(lengths < 0):
    raise ValueError(f'num_samples[{row}] = {lengths[row]}: expected >= 0')
  return lengths
