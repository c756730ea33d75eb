"""Backbones, heads, and the decoders made of them."""
