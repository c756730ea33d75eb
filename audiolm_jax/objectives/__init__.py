"""Losses: terms, statistics, metrics.

To add one: a dataclass that implements `base.Objective`, and a line here.
"""

from audiolm_jax.objectives.codec import Codec
from audiolm_jax.objectives.ctc import CTC
from audiolm_jax.objectives.denoising import Denoising
from audiolm_jax.objectives.flow_map_distillation import FlowMapDistillation
from audiolm_jax.objectives.likelihood import NLL
from audiolm_jax.objectives.next_latent import NextLatent
from audiolm_jax.objectives.toy import Toy

OBJECTIVES = {
    'codec': Codec,
    'ctc': CTC,
    'denoising': Denoising,
    'flow_map_distillation': FlowMapDistillation,
    'next_latent': NextLatent,
    'nll': NLL,
    'toy': Toy,
}
