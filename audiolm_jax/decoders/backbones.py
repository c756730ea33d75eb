"""What transforms sequences in decoders, by name."""

from audiolm_jax.decoders import stack as stack_lib

BACKBONES = {'stack': stack_lib.Stack}
