"""Audio <-> tokens, discrete or continuous."""

from audiolm_jax.tokenizers import stft_codec

# The `kind` of a tokenizer config -> its class.
TOKENIZERS = {'stft_codec': stft_codec.StftCodec}
