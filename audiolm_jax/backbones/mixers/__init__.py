"""What mixes time in a decoder: attention, state spaces, recurrences.

Each is a `streaming.Steppable` from [B, N, D] to [B, N, D]; `bidirectional` makes
one of two that is not causal, and so has no steps.
"""

from audiolm_jax.backbones.mixers import attention
from audiolm_jax.backbones.mixers import bidirectional

MIXERS = {
    'attention': attention.Attention,
    'bidirectional': bidirectional.Bidirectional,
    **bidirectional.CAUSAL,
}
