"""What transforms sequences in decoders, by name."""

from audiolm_jax.decoders import stack

BACKBONES = {'stack': stack.Stack}
