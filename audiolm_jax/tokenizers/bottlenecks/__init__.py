"""What stands between an encoder and a decoder, swappable under any of them."""

from audiolm_jax.tokenizers.bottlenecks import rvq
from audiolm_jax.tokenizers.bottlenecks.base import Bottleneck
from audiolm_jax.tokenizers.bottlenecks.base import Quantised

# The `kind` of a bottleneck config -> its class.
BOTTLENECKS = {'rvq': rvq.Rvq}
