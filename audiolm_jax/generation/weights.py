"""Parameters as generation wants them: unrolled, and in fewer bits."""

from typing import Any, Literal

from audiolm_jax import ops
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.ops import weights
from audiolm_jax.streaming import base as streaming_base


def unroll(
    decoder: decoder_lib.Decoder, params: Any
) -> tuple[decoder_lib.Decoder, Any]:
  """The same decoder with its stacks' layers one after the other.

  A step of a scanned stack takes twice the time on CPUs. Nothing is copied
  where nothing is scanned.
  """
  backbone = decoder.backbone
  if not isinstance(backbone, stack_lib.Stack) or not backbone.scan:
    return decoder, params
  backbone, layers = backbone.unroll(params['backbone'])
  decoder = decoder.clone(parent=None, name=None, backbone=backbone)
  return decoder, {**params, 'backbone': layers}


def with_keys(
    decoder: decoder_lib.Decoder, params: Any, context: streaming_base.Context
) -> streaming_base.Context:
  """A context with what would else be computed of it in every step.

  Args:
    decoder: of `unroll`, as
    params: its parameters.
    context: see `Decoder.context`.
  """
  backbone = decoder.backbone
  if not isinstance(backbone, stack_lib.Stack) or context is None:
    return context
  return backbone.with_keys(params['backbone'], context)


def cast(
    params: Any, kind: Literal['bfloat16', 'int8'], least: int = 64
) -> Any:
  """Parameters with their large matrices in fewer bits.

  Steps of few rows are bound by reading the weights: on accelerators half the
  bytes is up to twice the speed. On CPUs a loop keeps a copy in fp32, and
  nothing is gained but the size of what is stored.

  Args:
    params: of any model. Low-rank updates stay beside a base in fewer bits.
    kind: bfloat16, or int8 with a scale for each output (`ops.quantize`).
    least: both sides of a matrix that counts as large. What is smaller, such as
      a state space's parameters, costs little and may need all its bits.
  """

  def convert(w):
    if weights.is_weight(w):
      return w.with_base(convert)
    if w.ndim < 2 or min(w.shape[-2:]) < least:
      return w
    return ops.quantize(w) if kind == 'int8' else w.astype('bfloat16')

  return ops.map_weights(convert, params)
