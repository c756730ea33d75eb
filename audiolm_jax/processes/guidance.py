"""Guidance: the difference that a condition makes, enlarged (2207.12598)."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float


def guided(
    conditional: Callable[[Any, Any], Any],
    unconditional: Callable[[Any, Any], Any],
    scale: Float[Array, ''] | float,
) -> Callable[[Any, Any], Any]:
  """A prediction: unconditional + scale (conditional - unconditional).

  Args:
    conditional: predicts from z and t.
    unconditional: predicts the same target without the condition.
    scale: 1 for the conditional prediction itself. F5-TTS, CosyVoice and
      MaskGCT call scale - 1 the guidance.
  """

  def predict(z, t):
    with_it, without = conditional(z, t), unconditional(z, t)
    return scale * with_it + (1 - scale) * without

  return predict
