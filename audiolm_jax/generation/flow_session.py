"""Latents that are denoised block by block, while they are heard."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
import numpy as np

from audiolm_jax.decoders import flow
from audiolm_jax.generation import checks
from audiolm_jax.generation import weights
from audiolm_jax.processes import flow_maps
from audiolm_jax.processes import guidance as guidance_lib
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import solvers
from audiolm_jax.processes import times as times_lib
from audiolm_jax.streaming import base as streaming_base

# What the keys of rows are folded with, for whole rows, too.
START, STEPS = 0, 1


Solver = solvers.Solver | flow_maps.Jumps


class Settings(NamedTuple):
  """What is compiled for; see `models.FlowLM.generate`."""

  solver: Solver
  grid: times_lib.Grid
  guidance: guidance_lib.Guidance | guidance_lib.Mixture | None
  strength: float | None = None


class FlowSession:
  """Rows of latents that go on by a block of the backbone at a time.

  All steps of a block are taken before the next one begins; its frames see those
  of earlier blocks as they were at the same time. So the blocks are `generate` of
  the whole row, where attention keeps all of it in sight.

  Attributes:
    block: frames of a block: how much of a row is made at once.
    latency: frames until a row's first one is heard: its block.
    entered: frames of each row so far, blocks past a row's end among them.
  """

  def __init__(
      self,
      decoder: flow.Flow,
      params: Any,
      num_frames: Int[np.ndarray, 'B'] | None,
      rows: int,
      key: Key[Array, ''],
      settings: Settings,
      cache_length: int,
      contexts: tuple[streaming_base.Context, streaming_base.Context],
  ):
    """Begins rows with nothing.

    Args:
      decoder: the model, block-causal; its stack is unrolled if it is not yet.
      params: its parameters.
      num_frames: of each row; None for no end.
      rows: B.
      key: of all rows.
      settings: how noise becomes data.
      cache_length: frames that attention keeps in sight, a block among them.
      contexts: with conditions, and without, for guidance.

    Raises:
      ValueError: for a decoder that can't go block by block, a cache shorter
        than a block, guidance that measures whole rows, or a solver and times
        at which what is predicted says too little.
    """
    decoder.check_streams()
    self.block = self.latency = decoder.backbone.block_size
    if cache_length < self.block:
      raise ValueError(
          f'cache_length = {cache_length}: expected a block of'
          f' {self.block} frames or more'
      )
    guidance = settings.guidance
    if not isinstance(guidance, guidance_lib.Plain | None):
      raise ValueError(
          f'{guidance} measures or weighs whole rows: in blocks, guidance is'
          ' Plain'
      )
    times = settings.grid.times
    solver = settings.solver
    decoder.process.check(
        decoder.target, solver.visited(times), solver.needs_slopes
    )
    self._decoder, self._params = weights.unroll(decoder, params)
    self._settings = settings
    self._contexts = tuple(
        weights.with_keys(self._decoder, self._params, c) for c in contexts
    )
    self._keys = noise_lib.row_keys(key, jnp.arange(rows))
    self._ends = np.full(rows, np.iinfo(np.int32).max)
    if num_frames is not None:
      self._ends = np.asarray(num_frames)
    self.entered = 0
    self._states = self._fresh(rows, cache_length)

  def step(
      self,
      given: Float[np.ndarray, 'B n D'] | None = None,
      mask: Bool[np.ndarray, 'B n'] | None = None,
  ) -> Float[np.ndarray, 'B n D']:
    """The next block of every row; n is `block`.

    Args:
      given: latents that are known, as the tokenizer has them; anything
        elsewhere. They come back to the bit.
      mask: where they are known, with `given`; None for everywhere.

    Returns:
      The latents, as the tokenizer decodes them; 0 past a row's length.

    Raises:
      ValueError: for given latents of a model that was made to take none, of
        another shape, or not finite.
    """
    shape = len(self._ends), self.block
    number = self.entered + np.arange(self.block)
    exists = number < self._ends[:, None]
    known, hidden = self._known(given, mask, shape)
    seen = None if known is None else self._decoder.normalised(known)
    found, self._states = _block(
        *(self._decoder, self._settings, self._params, self._keys),
        *(self._states, self.entered, exists, seen, hidden, self._contexts),
    )
    self.entered += self.block
    found = self._decoder.restored(np.asarray(found))
    if known is not None:
      found = np.where(hidden[..., None], found, known)
    return np.where(exists[..., None], found, 0).astype(np.float32)

  def __iter__(self):
    """All frames [B, D] of the rows, to the end of the longest."""
    longest = int(self._ends.max(initial=0))
    while self.entered < longest:
      left = longest - self.entered
      yield from self.step()[:, :left].swapaxes(0, 1)

  def _fresh(self, rows, cache_length):
    """A state for each evaluation of each step, with and without conditions."""
    one = self._decoder.initial_state(rows, cache_length)
    branches = 1 if self._settings.guidance is None else 2
    many = self._settings.grid.steps, self._settings.solver.evaluations
    return jax.tree.map(
        lambda x: jnp.broadcast_to(x, (*many, *x.shape)), (one,) * branches
    )

  def _known(self, given, mask, shape):
    """Checked latents, 0 where none is given, and where that is; or Nones."""
    if given is None:
      if mask is not None:
        raise ValueError('a mask of given latents, without these')
      if self._decoder.gaps is None:
        return None, None
      size = *shape, self._decoder.dimension
      return np.zeros(size, np.float32), np.ones(shape, bool)
    if self._decoder.gaps is None:
      raise ValueError('given latents, but the model was made to take none')
    mask = np.ones(shape, bool) if mask is None else np.asarray(mask, bool)
    if mask.shape != shape:
      raise ValueError(f'mask {mask.shape}: expected {shape}')
    size = self._decoder.dimension
    return checks.latents('given', given, mask, size), ~mask


@functools.partial(jax.jit, static_argnames=('decoder', 'settings'))
def _block(
    decoder,
    settings,
    params,
    keys,
    states,
    start,
    exists,
    known,
    hidden,
    contexts,
):
  """Normalised latents of the next block, and the states after it."""
  shape = exists.shape[1], decoder.dimension
  z = noise_lib.normal(noise_lib.fold(keys, START), shape, start)

  def predict(z, t, state):
    found = [
        decoder.apply(
            {'params': params},
            *(own, z, t, exists, known, hidden, context),
            method='extend',
        )
        # One state for a model that is not guided, and no second context.
        for own, context in zip(state, contexts, strict=False)
    ]
    outputs, after = zip(*found, strict=True)
    outputs = [decoder.held(y, z, t, known, hidden) for y in outputs]
    output = outputs[0]
    if settings.guidance is not None:
      # Plain guidance looks at nothing else.
      pair = guidance_lib.Pair(
          decoder.process, decoder.target, z, t, *outputs, exists
      )
      output = settings.guidance.combine(pair)
    return output, after

  return solvers.sample_block(
      settings.solver,
      predict,
      (decoder.process, decoder.target),
      z,
      settings.grid.times,
      states,
      noise_lib.fold(keys, STEPS),
      start,
  )
