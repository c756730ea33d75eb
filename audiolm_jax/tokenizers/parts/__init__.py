"""Encoders and decoders of codecs: audio <-> latents at frame rate.

To add one: a frozen dataclass that is a `base.Part`, and a line here.
"""

from audiolm_jax.tokenizers.parts.convnext import ConvNextDecoder
from audiolm_jax.tokenizers.parts.convnext import ConvNextEncoder
from audiolm_jax.tokenizers.parts.dac import DacDecoder
from audiolm_jax.tokenizers.parts.dac import DacEncoder
from audiolm_jax.tokenizers.parts.seanet import SeanetDecoder
from audiolm_jax.tokenizers.parts.seanet import SeanetEncoder
from audiolm_jax.tokenizers.parts.snac import SnacDecoder
from audiolm_jax.tokenizers.parts.snac import SnacEncoder
from audiolm_jax.tokenizers.parts.spectral import SpectralDecoder
from audiolm_jax.tokenizers.parts.spectral import SpectralEncoder
from audiolm_jax.tokenizers.parts.vocos import VocosDecoder
from audiolm_jax.tokenizers.parts.vocos import VocosEncoder
from audiolm_jax.tokenizers.parts.waveform import Waveform
from audiolm_jax.tokenizers.parts.xcodec2 import Xcodec2Decoder
from audiolm_jax.tokenizers.parts.xcodec2 import Xcodec2Encoder

ENCODERS = {
    'convnext': ConvNextEncoder,
    'dac': DacEncoder,
    'seanet': SeanetEncoder,
    'snac': SnacEncoder,
    'spectral': SpectralEncoder,
    'vocos': VocosEncoder,
    'waveform': Waveform,
    'xcodec2': Xcodec2Encoder,
}
DECODERS = {
    'convnext': ConvNextDecoder,
    'dac': DacDecoder,
    'seanet': SeanetDecoder,
    'snac': SnacDecoder,
    'spectral': SpectralDecoder,
    'vocos': VocosDecoder,
    'waveform': Waveform,
    'xcodec2': Xcodec2Decoder,
}
