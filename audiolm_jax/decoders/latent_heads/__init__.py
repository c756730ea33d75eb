"""What gives one frame of latents, given the output of a causal backbone.

    mixture    a mixture of normal distributions: an exact likelihood
    diffusion  noise to data by any process, target and solver: diffusion and
               flow heads; a likelihood by the divergence of the flow
    flow_map   one jump from noise to data, or a few

To add one: a class beside them (`base.LatentHead` is the seam), a line here, and
its place in the tests, which go through this table.
"""

from audiolm_jax.decoders.latent_heads.base import LatentHead
from audiolm_jax.decoders.latent_heads.base import LatentSampler
from audiolm_jax.decoders.latent_heads.diffusion import Diffusion
from audiolm_jax.decoders.latent_heads.flow_map import FlowMap
from audiolm_jax.decoders.latent_heads.mixture import Mixture

LATENT_HEADS = {
    'diffusion': Diffusion,
    'flow_map': FlowMap,
    'mixture': Mixture,
}
