"""Heads: what gives the codes of a step from the backbone's output.

`base.Head` is the seam. To add one: a Linen module with `log_prob`, `logits` and
`sample`, a line here, and its place in tests/decoders/test_decoder.py.
"""

from audiolm_jax.decoders.heads.base import Choose
from audiolm_jax.decoders.heads.base import Head
from audiolm_jax.decoders.heads.base import StepLayout
from audiolm_jax.decoders.heads.depth import Depth
from audiolm_jax.decoders.heads.independent import Independent

HEADS = {'depth': Depth, 'independent': Independent}
