"""Audio <-> tokens, discrete or continuous, and their encoding on disk."""

from audiolm_jax.tokenizers.codec import Codec

# The `kind` of a tokenizer config -> its class.
TOKENIZERS = {'codec': Codec}
