"""What mixes time in a decoder: attention, state spaces, recurrences.

Each is a `streaming.Steppable` from [B, N, D] to [B, N, D].
"""

from audiolm_jax.decoders.mixers import attention

MIXERS = {'attention': attention.Attention}
