"""Encoders and decoders of codecs: audio <-> latents at frame rate.

To add one: a frozen dataclass that is a `base.Part`, and a line here.
"""

from audiolm_jax.tokenizers.parts.seanet import SeanetDecoder
from audiolm_jax.tokenizers.parts.seanet import SeanetEncoder
from audiolm_jax.tokenizers.parts.spectral import SpectralDecoder
from audiolm_jax.tokenizers.parts.spectral import SpectralEncoder

ENCODERS = {'seanet': SeanetEncoder, 'spectral': SpectralEncoder}
DECODERS = {'seanet': SeanetDecoder, 'spectral': SpectralDecoder}
