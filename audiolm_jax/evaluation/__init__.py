"""Metrics and evaluators.

To add one: a dataclass with `build(objective) -> base.Evaluator`, and a line
here.
"""

from audiolm_jax.evaluation.benchmark_pairs import BenchmarkPairs
from audiolm_jax.evaluation.bits import Bits
from audiolm_jax.evaluation.bits import Bounds
from audiolm_jax.evaluation.clips import AudioClips
from audiolm_jax.evaluation.clips import TextClips
from audiolm_jax.evaluation.clips import TokenClips
from audiolm_jax.evaluation.codec import Codec
from audiolm_jax.evaluation.content import ContentError
from audiolm_jax.evaluation.content import GrammarAcceptance
from audiolm_jax.evaluation.denoising_errors import DenoisingErrors
from audiolm_jax.evaluation.discrimination import Abx
from audiolm_jax.evaluation.distributions import Distribution
from audiolm_jax.evaluation.known_bits import KnownBits
from audiolm_jax.evaluation.latent_losses import LatentLosses
from audiolm_jax.evaluation.pairs import GrammarPairs
from audiolm_jax.evaluation.phone_errors import PhoneErrors
from audiolm_jax.evaluation.probe import Probe
from audiolm_jax.evaluation.resynthesis import Resynthesis
from audiolm_jax.evaluation.speakers import Voices
from audiolm_jax.evaluation.toy import ToyError
from audiolm_jax.evaluation.world_clips import WorldTextClips

EVALUATORS = {
    'abx': Abx,
    'benchmark_pairs': BenchmarkPairs,
    'bits': Bits,
    'bounds': Bounds,
    'codec': Codec,
    'content_error': ContentError,
    'denoising_errors': DenoisingErrors,
    'distribution': Distribution,
    'grammar_acceptance': GrammarAcceptance,
    'grammar_pairs': GrammarPairs,
    'known_bits': KnownBits,
    'latent_losses': LatentLosses,
    'phone_errors': PhoneErrors,
    'probe': Probe,
    'resynthesis': Resynthesis,
    'toy': ToyError,
    'voices': Voices,
}
