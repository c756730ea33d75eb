"""What carries the past to the next step: stacks of mixers and perceptrons.

A backbone is a `streaming.Steppable` from [B, N, D] to [B, N, D]. A `stack` has
a period of MIXERS (attention, state spaces, recurrences), and a perceptron of
MLPS in each layer. Decoders, heads and conditions name theirs by config.

To add one: a Linen module beside its kin, a line in its table, and its test in
tests/backbones.
"""

from audiolm_jax.backbones import stack as stack_lib

BACKBONES = {'stack': stack_lib.Stack}
