"""Encoders and decoders of codecs: audio <-> latents at frame rate.

To add one: a frozen dataclass that is a `base.Part`, and a line here.
"""

from audiolm_jax.tokenizers.parts.spectral import SpectralDecoder
from audiolm_jax.tokenizers.parts.spectral import SpectralEncoder

ENCODERS = {'spectral': SpectralEncoder}
DECODERS = {'spectral': SpectralDecoder}
