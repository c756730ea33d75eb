"""What may be asked of generation beside how codes are drawn."""

from typing import Any

import flax
from jaxtyping import Array, Float

from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.generation import guidance as guidance_lib
from audiolm_jax.generation import sampling
from audiolm_jax.generation import weights
from audiolm_jax.streaming import base as streaming_base


class Options(flax.struct.PyTreeNode):
  """The options of `generate` and of sessions.

  Attributes:
    context: what the backbone sees of the conditions; see `Decoder.context`.
    null_context: what replaces it where conditions are dropped; if not None,
      predictions are guided.
    guidance: how far predictions move away from those without conditions; see
      `guidance.combine`.
    stop: what ends a row (of segments, the last one) before its length. Codes
      that are given do not.
    cache_length: steps that attention without a window keeps in sight; None for
      all.
    sink_tokens: first steps that stay in sight beside them.
  """

  context: streaming_base.Context = None
  null_context: streaming_base.Context = None
  guidance: Float[Array, ''] | float = 1.0
  stop: sampling.Stop | None = flax.struct.field(
      pytree_node=False, default=None
  )
  cache_length: int | None = flax.struct.field(pytree_node=False, default=None)
  sink_tokens: int = flax.struct.field(pytree_node=False, default=0)

  @property
  def guided(self) -> bool:
    """Whether there are predictions without conditions, too."""
    return self.null_context is not None

  def check(self, decoder: Any) -> None:
    """Refuses options that are out of range, or would do nothing.

    Args:
      decoder: what generates.

    Raises:
      ValueError: naming the option.
    """
    guidance, stop = self.guidance, self.stop
    plain = isinstance(guidance, (int, float)) and guidance == 1
    if not self.guided and not plain:
      raise ValueError('guidance does nothing without a null_context')
    if self.cache_length is not None and self.cache_length < 1:
      raise ValueError(
          f'cache_length = {self.cache_length}: expected at least 1 step, or'
          ' None'
      )
    if self.sink_tokens < 0:
      raise ValueError(
          f'sink_tokens = {self.sink_tokens}: expected at least 0 steps'
      )
    if self.sink_tokens and self.cache_length is None:
      raise ValueError(
          f'sink_tokens = {self.sink_tokens} does nothing without a'
          ' cache_length: all is kept'
      )
    if stop is not None:
      _check_stop(stop, decoder)

  def prepare(self, decoder: Any, params: Any) -> dict[str, Any]:
    """What `tracks.Track` has of them.

    Args:
      decoder: what generates, unrolled.
      params: its parameters.
    """
    context = self.context
    if self.guided:
      context = guidance_lib.pair(context, self.null_context)
    return {
        'context': weights.with_keys(decoder, params, context),
        'guidance': self.guidance if self.guided else None,
        'stop': self.stop,
    }


def _check_stop(stop, decoder):
  """Refuses a code that its slot does not have, or that would end nothing."""
  segments, vocabularies = decoder.sequence.segments, decoder.vocabularies
  if len(segments) > 1 and isinstance(decoder, decoder_lib.Framed):
    raise ValueError('a stage goes on from frames that are there: no stop')
  last = segments[-1]
  turns = last.role == 'observe' or decoder.sequence.ends_in_turns
  named = last.slots if stop.slot is None else (stop.slot,)
  if max(named) >= len(vocabularies):
    raise ValueError(f'{stop}: there are {len(vocabularies)} slots')
  for slot in named:
    if max(stop.codes) >= vocabularies[slot]:
      raise ValueError(
          f'{stop}: slot {slot} has codes 0 to {vocabularies[slot] - 1}'
      )
  if turns or not set(named) <= set(last.slots):
    raise ValueError(
        f'{stop}: only codes that are predicted in the last segment'
        f' ({last.label}) end it, and only if it takes no turns'
    )
  pattern = last.pattern
  if not pattern.streamable:
    raise ValueError(f'{pattern} knows where a row ends: no stop')
  if stop.slot is None and pattern.layout(1, len(last.slots)).step.any():
    raise ValueError(f'{stop}: a frame takes several steps of {pattern}')
