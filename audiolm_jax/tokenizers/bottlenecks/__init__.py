"""What stands between an encoder and a decoder, swappable under any of them."""

from audiolm_jax.tokenizers.bottlenecks.base import Bottleneck
from audiolm_jax.tokenizers.bottlenecks.base import Quantised
from audiolm_jax.tokenizers.bottlenecks.distilled import DistilledRvq
from audiolm_jax.tokenizers.bottlenecks.factorised import FactorisedRvq
from audiolm_jax.tokenizers.bottlenecks.fsq import Fsq
from audiolm_jax.tokenizers.bottlenecks.grouped import GroupedRvq
from audiolm_jax.tokenizers.bottlenecks.lfq import Lfq
from audiolm_jax.tokenizers.bottlenecks.mu_law import MuLaw
from audiolm_jax.tokenizers.bottlenecks.multi_rate import MultiRateRvq
from audiolm_jax.tokenizers.bottlenecks.rvq import Rvq
from audiolm_jax.tokenizers.bottlenecks.split import SplitRvq
from audiolm_jax.tokenizers.bottlenecks.vae import SigmaVae
from audiolm_jax.tokenizers.bottlenecks.vae import Vae

# The `kind` of a bottleneck config -> its class.
BOTTLENECKS = {
    'rvq': Rvq,
    'distilled_rvq': DistilledRvq,
    'split_rvq': SplitRvq,
    'grouped_rvq': GroupedRvq,
    'factorised_rvq': FactorisedRvq,
    'multi_rate_rvq': MultiRateRvq,
    'fsq': Fsq,
    'lfq': Lfq,
    'vae': Vae,
    'sigma_vae': SigmaVae,
    'mu_law': MuLaw,
}
