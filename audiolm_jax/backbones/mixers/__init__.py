"""What mixes time in a decoder: attention, state spaces, recurrences.

Each is a `streaming.Steppable` from [B, N, D] to [B, N, D].
"""

from audiolm_jax.backbones.mixers import attention
from audiolm_jax.backbones.mixers import mamba2
from audiolm_jax.backbones.mixers import rg_lru
from audiolm_jax.backbones.mixers import s4d
from audiolm_jax.streaming import lstm

MIXERS = {
    'attention': attention.Attention,
    'lstm': lstm.Lstm,
    'mamba2': mamba2.Mamba2,
    'rg_lru': rg_lru.RgLru,
    's4d': s4d.S4d,
}
