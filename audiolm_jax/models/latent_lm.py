"""Models that give latents frame by frame, with their parameters: for people."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key
import numpy as np

from audiolm_jax import generation
from audiolm_jax.decoders import latent_decoder
from audiolm_jax.decoders import latent_heads
from audiolm_jax.generation import plain_tracks
from audiolm_jax.models import latents_lm
from audiolm_jax.models import rows as rows_lib
from audiolm_jax.models import scoring
from audiolm_jax.ops import sharding
from audiolm_jax.training import costs

# Frames between two looks at whether all rows have ended.
_BLOCK = 64


class Rollout(NamedTuple):
  """Rows as a model made them.

  Attributes:
    latents: as the tokenizer decodes them; 0 past a row's length.
    num_frames: of each row.
  """

  latents: Float[np.ndarray, 'B F L']
  num_frames: Int[np.ndarray, 'B']


@dataclasses.dataclass(frozen=True)
class LatentLM(latents_lm.LatentsLM):
  """An autoregressive model of latents: what `audiolm_jax.load` returns."""

  decoder: latent_decoder.LatentDecoder

  def log_prob(
      self,
      latents: Float[Array, 'B F L'],
      num_frames: Int[Array, 'B'] | None = None,
      conditions: latents_lm.Values | None = None,
      steps: int | None = None,
  ) -> Float[np.ndarray, 'B F']:
    """Nats of each frame given those before, as normalised; compiles for shapes.

    Their density in the tokenizer's own units is less by the sum of the logs of
    the moments' deviations, the same for every model of one cache.

    Args:
      latents: as the tokenizer gives them; anything past a row's length.
      num_frames: frames of each row, F for all if not given.
      conditions: by name, B values (None for none).
      steps: of heads that take steps from data to noise; None for the head's.

    Raises:
      ValueError: for a head without a likelihood, or input that does not fit.
    """
    latents, num_frames = self._check(latents, num_frames)
    latents = self.decoder.normalised(latents)
    prepared = self.decoder.prepare(conditions, len(latents))
    inputs = latents, num_frames, prepared
    return np.asarray(log_prob(self.decoder, self.params, inputs, steps))

  def generate(
      self,
      prompt: Float[Array, 'B P L'],
      frames: int,
      *,
      num_frames: Int[Array, 'B'] | None = None,
      seed: int = 0,
      sampler: latent_heads.LatentSampler | None = None,
      conditions: latents_lm.Values | None = None,
      **options,
  ) -> Rollout:
    """Continues prompts, which come back to the bit.

    What is drawn depends on the seed, the row's number and the frame alone.

    Args:
      prompt: latents as the tokenizer gives them; P = 0 for none.
      frames: F, most frames of a row, its prompt included; at least P.
      num_frames: frames of each row's prompt, P for all if not given.
      seed: the same seed gives the same latents.
      sampler: how frames are drawn; None for the head's own way.
      conditions: by name, B values (None for none).
      **options: `guidance`, `cache_length` and `sink_tokens`; see
        `generation.Options`.

    Raises:
      ValueError: if the result is shorter than the prompt, or see `session`.
    """
    prompt, num_frames = self._check(prompt, num_frames)
    if frames < prompt.shape[1]:
      raise ValueError(f'frames = {frames} < the prompt has: {prompt.shape[1]}')
    session = self.session(
        prompt,
        frames,
        num_frames=num_frames,
        seed=seed,
        sampler=sampler,
        conditions=conditions,
        **options,
    )
    pieces = [session.prompts]
    for first in range(session.prompts.shape[1], frames, _BLOCK):
      if (session.num_frames < first).all():
        break
      pieces.append(session.step(min(_BLOCK, frames - first)))
    latents = np.concatenate(pieces, axis=1)
    missing = frames - latents.shape[1]
    return Rollout(
        np.pad(latents, ((0, 0), (0, missing), (0, 0))), session.num_frames
    )

  def session(
      self,
      prompt: Float[Array, 'B P L'],
      frames: int | None = None,
      *,
      num_frames: Int[Array, 'B'] | None = None,
      seed: int = 0,
      sampler: latent_heads.LatentSampler | None = None,
      conditions: latents_lm.Values | None = None,
      **options,
  ) -> generation.LatentSession:
    """Rows that go on block by block, and can be fed.

    Args:
      prompt: how the rows begin; P = 0 for no prompt.
      frames: most frames of a row; None for no end, which needs a cache_length.
      num_frames: frames of each row's prompt, P for all if not given.
      seed: the same seed gives the same latents.
      sampler: how frames are drawn; None for the head's own way.
      conditions: by name, B values (None for none).
      **options: see `generate`.

    Raises:
      ValueError: for input that does not fit, options that do nothing, more
        frames than there are learned positions, or no cache_length of rows
        without an end.
    """
    prompt, num_frames = self._check(prompt, num_frames)
    self.decoder.check_steps(frames)
    if options.get('cache_length') is None and frames is not None:
      options['cache_length'] = max(frames, 1)
    return generation.LatentSession(
        self.decoder,
        self.params,
        prompt,
        num_frames,
        jax.random.key(seed),
        sampler or latent_heads.LatentSampler(),
        **scoring.contexts(
            self.decoder, self.params, conditions, len(prompt), options
        ),
    )

  def generation_flops(
      self,
      seconds: float,
      *,
      sampler: latent_heads.LatentSampler | None = None,
      guided: bool = False,
      cache_length: int | None = None,
      sink_tokens: int = 0,
  ) -> float:
    """FLOPs of `generate` for one row without a prompt: what is computed.

    Every evaluation of the head, both passes of guidance, and what conditions
    become, once. A step attends over the whole cache, filled or not. Nothing is
    run: parameters may be shapes.

    Args:
      seconds: of audio, to whole frames.
      sampler: see `generate`.
      guided: whether there is guidance.
      cache_length: frames that attention keeps in sight; None for all.
      sink_tokens: first frames that stay in sight beside them.

    Raises:
      ValueError: for a duration below 0 or without an end, frames that are no
        time, or what `generate` refuses.
    """
    frames = rows_lib.duration(seconds, self.frame_rate)
    sampler = sampler or latent_heads.LatentSampler()
    self.decoder.check_sampler(sampler, guided)
    asked = {'guidance': 1.0} if guided else {}

    def contexts(params):
      return scoring.contexts(self.decoder, params, None, 1, asked)

    def step(params, options):
      options = generation.Options(**options)
      decoder, params = generation.unroll(self.decoder, params)
      track = plain_tracks.Latents(
          decoder, params, options=sampler, **options.prepare(decoder, params)
      )
      kept = cache_length or max(frames, 1)
      rows = jnp.ones(1, int)
      state = generation.start(
          track, rows, kept, jax.random.key(0), sink_tokens
      )
      none = jnp.zeros((1, track.group))
      return generation.step(track, state, none, none > 0)[1]

    options = jax.eval_shape(contexts, self.params)
    return costs.flops(contexts, self.params) + frames * costs.flops(
        step, self.params, options
    )

  def _check(self, latents, num_frames):
    """Host arrays, checked."""
    latents = np.asarray(latents)
    wanted = self.decoder.dimension
    if latents.ndim != 3 or latents.shape[2] != wanted:
      raise ValueError(f'latents {latents.shape}: expected [B, F, {wanted}]')
    if latents.size and latents.dtype.kind != 'f':
      raise ValueError(f'latents are {latents.dtype}: expected floats')
    num_frames = rows_lib.lengths(num_frames, latents.shape, 'latents')
    valid = np.arange(latents.shape[1]) < num_frames[:, None]
    if not np.isfinite(latents[valid]).all():
      raise ValueError('latents are not finite')
    return latents.astype(np.float32), num_frames


@functools.partial(jax.jit, static_argnames=('decoder', 'noisy'))
def losses(
    decoder: latent_decoder.LatentDecoder,
    params: Any,
    inputs: Any,
    ends: Any,
    keys: Key[Array, 'B'],
    noisy: bool = False,
) -> dict[str, Float[Array, 'B F']]:
  """`decoder.losses` without dropout; each process gets all rows.

  Args:
    decoder: the model.
    params: its parameters.
    inputs: as `decoder.read` gives them: normalised latents.
    ends: see `LatentDecoder.losses`.
    keys: of the rows.
    noisy: see `LatentDecoder.losses`.
  """
  latents, num_frames, conditions = inputs
  rows = latents, num_frames, ends, keys, None, conditions, noisy
  return sharding.whole(
      decoder.apply({'params': params}, *rows, method='losses')
  )


@functools.partial(jax.jit, static_argnames=('decoder', 'steps'))
def log_prob(
    decoder: latent_decoder.LatentDecoder,
    params: Any,
    inputs: Any,
    steps: int | None = None,
) -> Float[Array, 'B F']:
  """`decoder.log_prob` without dropout; each process gets all rows.

  Args:
    decoder: the model.
    params: its parameters.
    inputs: as `decoder.read` gives them: normalised latents.
    steps: see `LatentHead.log_prob`.
  """
  latents, num_frames, conditions = inputs
  rows = latents, num_frames, None, conditions, steps
  return sharding.whole(
      decoder.apply({'params': params}, *rows, method='log_prob')
  )
