"""Losses: terms, statistics, metrics.

To add one: a dataclass that implements `base.Objective`, and a line here.
"""

from audiolm_jax.objectives.codec import Codec
from audiolm_jax.objectives.lm import LM
from audiolm_jax.objectives.segments import Segments
from audiolm_jax.objectives.toy import Toy
from audiolm_jax.objectives.waveform import WaveformLM

OBJECTIVES = {
    'codec': Codec,
    'lm': LM,
    'segments': Segments,
    'toy': Toy,
    'waveform_lm': WaveformLM,
}
