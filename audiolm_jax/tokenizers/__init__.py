"""Audio <-> tokens, discrete or continuous."""

from audiolm_jax.tokenizers import codec

# The `kind` of a tokenizer config -> its class.
TOKENIZERS = {'codec': codec.Codec}
