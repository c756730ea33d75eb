"""What encoders and decoders of a codec have in common."""

import abc

from audiolm_jax import streaming


class Part(abc.ABC):
  """An encoder or decoder as configuration: a frozen dataclass.

  Attributes:
    layer: audio [B, T, C] -> latents [B, T / hop, D], or back.
    hop: audio samples a latent frame.
    channels: C of the audio.
    dimension: D, the width of the latents; of a decoder None if it takes any.
    architecture: for `Dates.architecture`: CNN, RNN, CNN+RNN, CNN+T, T.
    representation: for `Dates.representation`: time or time-frequency.
  """

  layer: streaming.Layer
  hop: int
  channels: int
  dimension: int | None
  architecture: str
  representation: str = 'time'
