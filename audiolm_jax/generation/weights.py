"""Parameters as generation wants them."""

from typing import Any

from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import stack as stack_lib


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
