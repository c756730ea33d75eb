"""Backbones, heads, and the decoders made of them."""

from audiolm_jax.decoders import decoder

BACKBONES = decoder.BACKBONES
HEADS = decoder.HEADS
DECODERS = {'tokens': decoder.Decoder}
