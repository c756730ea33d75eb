"""Metrics and evaluators.

To add one: a dataclass with `build(objective) -> base.Evaluator`, and a line
here.
"""

from audiolm_jax.evaluation.benchmark_pairs import BenchmarkPairs
from audiolm_jax.evaluation.bits import Bits
from audiolm_jax.evaluation.clips import AudioClips
from audiolm_jax.evaluation.clips import TextClips
from audiolm_jax.evaluation.clips import TokenClips
from audiolm_jax.evaluation.codec import Codec
from audiolm_jax.evaluation.discrimination import Abx
from audiolm_jax.evaluation.distributions import Distribution
from audiolm_jax.evaluation.probe import Probe
from audiolm_jax.evaluation.speakers import Voices
from audiolm_jax.evaluation.toy import ToyError

EVALUATORS = {
    'abx': Abx,
    'benchmark_pairs': BenchmarkPairs,
    'bits': Bits,
    'codec': Codec,
    'distribution': Distribution,
    'probe': Probe,
    'toy': ToyError,
    'voices': Voices,
}
