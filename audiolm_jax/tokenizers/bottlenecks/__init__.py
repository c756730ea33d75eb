"""What stands between an encoder and a decoder, swappable under any of them."""

from audiolm_jax.tokenizers.bottlenecks import distilled
from audiolm_jax.tokenizers.bottlenecks import factorised
from audiolm_jax.tokenizers.bottlenecks import fsq
from audiolm_jax.tokenizers.bottlenecks import grouped
from audiolm_jax.tokenizers.bottlenecks import lfq
from audiolm_jax.tokenizers.bottlenecks import mu_law
from audiolm_jax.tokenizers.bottlenecks import multi_rate
from audiolm_jax.tokenizers.bottlenecks import rvq
from audiolm_jax.tokenizers.bottlenecks import split
from audiolm_jax.tokenizers.bottlenecks import vae
from audiolm_jax.tokenizers.bottlenecks.base import Bottleneck
from audiolm_jax.tokenizers.bottlenecks.base import Quantised

# The `kind` of a bottleneck config -> its class.
BOTTLENECKS = {
    'rvq': rvq.Rvq,
    'distilled_rvq': distilled.DistilledRvq,
    'split_rvq': split.SplitRvq,
    'grouped_rvq': grouped.GroupedRvq,
    'factorised_rvq': factorised.FactorisedRvq,
    'multi_rate_rvq': multi_rate.MultiRateRvq,
    'fsq': fsq.Fsq,
    'lfq': lfq.Lfq,
    'vae': vae.Vae,
    'sigma_vae': vae.SigmaVae,
    'mu_law': mu_law.MuLaw,
}
