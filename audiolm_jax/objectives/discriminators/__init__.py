"""Discriminators: modules that tell real audio from decoded audio.

To add one: a `base.Discriminator`, and a line here.
"""

from audiolm_jax.objectives.discriminators.base import Discriminator
from audiolm_jax.objectives.discriminators.base import level
from audiolm_jax.objectives.discriminators.base import Map
from audiolm_jax.objectives.discriminators.base import Verdict
from audiolm_jax.objectives.discriminators.frame_rate import FrameRate
from audiolm_jax.objectives.discriminators.spectrogram import MultiBandStft
from audiolm_jax.objectives.discriminators.spectrogram import MultiScaleStft
from audiolm_jax.objectives.discriminators.waveform import MultiPeriod
from audiolm_jax.objectives.discriminators.waveform import MultiScale

DISCRIMINATORS = {
    'multi_period': MultiPeriod,
    'multi_scale': MultiScale,
    'multi_scale_stft': MultiScaleStft,
    'multi_band_stft': MultiBandStft,
    'frame_rate': FrameRate,
}
