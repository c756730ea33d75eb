"""Ways of drawing rows of frames: one for each kind of model and number of steps."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

from jaxtyping import Bool, Int, Num
import numpy as np

from audiolm_jax import generation
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import flow
from audiolm_jax.decoders import latent_decoder
from audiolm_jax.decoders import latent_heads
from audiolm_jax.decoders import masked as masked_lib
from audiolm_jax.generation import unmask
from audiolm_jax.processes import times as times_lib

# What draws frames of codes or latents.
DECODERS = (
    decoder_lib.Decoder
    | masked_lib.Masked
    | flow.Flow
    | (latent_decoder.LatentDecoder)
)


class Rows(NamedTuple):
  """What is to be drawn.

  Attributes:
    tokens: codes or latents, anything where not known.
    known: frames that are given.
    num_frames: of each row.
    conditions: by name, one for each row; None for none.
  """

  tokens: Num[np.ndarray, 'B F *k']
  known: Bool[np.ndarray, 'B F']
  num_frames: Int[np.ndarray, 'B']
  conditions: Mapping[str, Sequence[Any]]


class Way(NamedTuple):
  """A way of drawing rows.

  Attributes:
    at_once: whether all frames are known at the end only, none before.
    draw: (rows, seed) -> their tokens.
    passes: of so many frames, how often the backbone is run, one after the other.
    flops: of one row of so many seconds.
  """

  at_once: bool
  draw: Callable[[Rows, int], Num[np.ndarray, 'B F *k']]
  passes: Callable[[int], int]
  flops: Callable[[float], float]


def takes_steps(decoder: Any) -> bool:
  """Whether a decoder is sampled in as many steps as one likes."""
  if isinstance(decoder, latent_decoder.LatentDecoder):
    return decoder.head.takes_steps
  return not isinstance(decoder, decoder_lib.Decoder)


def fills(decoder: Any) -> bool:
  """Whether a decoder draws some frames of a row given others after them."""
  if isinstance(decoder, flow.Flow):
    return decoder.gaps is not None
  return not isinstance(decoder, latent_decoder.LatentDecoder)


def of_model(
    model: Any, steps: Sequence[int], sampler: generation.Sampler
) -> dict[int | None, Way]:
  """How a model is drawn from, by the number of steps; None for its own.

  Args:
    model: what an objective's `bind` gives, of a decoder of frames.
    steps: each of them.
    sampler: of codes.
  """
  return {n: _way(model, n, sampler) for n in steps or (None,)}


def _way(model, steps, sampler) -> Way:
  decoder = model.decoder
  if isinstance(decoder, decoder_lib.Decoder):
    slots = len(decoder.vocabularies)
    return Way(
        not decoder.pattern.streamable,
        functools.partial(_of_codes, model, sampler=sampler),
        lambda frames: decoder.pattern.steps(frames, slots),
        model.generation_flops,
    )
  if isinstance(decoder, masked_lib.Masked):
    plan = unmask.Plan(sampler=sampler)
    if steps is not None:
      plan = dataclasses.replace(plan, steps=steps)
    count = plan.steps * len(decoder.order)
    return Way(
        True,
        functools.partial(_of_codes, model, plans=(plan,)),
        lambda frames: count,
        functools.partial(model.generation_flops, plans=(plan,)),
    )
  if isinstance(decoder, flow.Flow):
    grid = None if steps is None else times_lib.Grid(steps)
    chosen = model.settings(grid=grid)
    count = chosen.grid.steps * chosen.solver.evaluations
    return Way(
        True,
        functools.partial(_of_flow, model, grid),
        lambda frames: count,
        functools.partial(model.generation_flops, grid=grid),
    )
  options = {} if steps is None else {'grid': times_lib.Grid(steps)}
  latent_sampler = latent_heads.LatentSampler(ends=False, **options)
  return Way(
      False,
      functools.partial(_of_latents, model, latent_sampler),
      lambda frames: frames,
      functools.partial(model.generation_flops, sampler=latent_sampler),
  )


def _of_codes(model, rows, seed, **options):
  known = np.broadcast_to(rows.known[..., None], rows.tokens.shape)
  return model.infill(
      rows.tokens,
      np.array(known),
      num_frames=rows.num_frames,
      seed=seed,
      conditions=rows.conditions,
      **options,
  )


def _of_flow(model, grid, rows, seed):
  options = {}
  if rows.known.any():
    options = {'given': rows.tokens, 'given_mask': rows.known}
  return model.generate(
      rows.known.shape[1],
      rows.num_frames,
      seed=seed,
      grid=grid,
      conditions=rows.conditions,
      **options,
  )


def _of_latents(model, sampler, rows, seed):
  none = np.zeros((len(rows.tokens), 0, rows.tokens.shape[2]), np.float32)
  return model.generate(
      none,
      rows.known.shape[1],
      seed=seed,
      sampler=sampler,
      conditions=rows.conditions,
  ).latents
