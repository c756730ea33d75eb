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


def convnext_depthwise(
    width: int, kernel: int, lookahead: int = 0
) -> streaming.Conv:
  """The depthwise convolution of a ConvNeXt block (Liu et al. 2022).

  Its weights start at their standard deviation of .02: the norm that follows
  makes up for the scale, and steps of Adam's size turn small kernels faster.

  Args:
    width: channels.
    kernel: taps.
    lookahead: of them past the position.
  """
  return streaming.Conv(
      width,
      kernel,
      groups=width,
      lookahead=lookahead,
      init_scale=kernel * 0.02**2,
  )
