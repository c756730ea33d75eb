"""Audio <-> tokens, discrete or continuous."""

from audiolm_jax.tokenizers import codec as codec_lib

# The `kind` of a tokenizer config -> its class.
TOKENIZERS = {'codec': codec_lib.Codec}
