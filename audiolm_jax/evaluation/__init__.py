"""Metrics and evaluators.

To add one: a dataclass with `build(objective) -> base.Evaluator`, and a line
here.
"""

from audiolm_jax.evaluation.codec import Codec
from audiolm_jax.evaluation.lm import LMBits
from audiolm_jax.evaluation.segments import SegmentBits
from audiolm_jax.evaluation.toy import ToyError
from audiolm_jax.evaluation.waveform import WaveformBits

EVALUATORS = {
    'codec': Codec,
    'lm': LMBits,
    'segments': SegmentBits,
    'toy': ToyError,
    'waveform': WaveformBits,
}
