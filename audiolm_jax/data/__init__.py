"""Corpora, pipelines, and tokens on disk as training data.

To add a source: a dataclass with `open(...) -> base.BatchSource`, and a line
here.
"""

from audiolm_jax.data import corpora
from audiolm_jax.data.audio_crops import AudioCrops
from audiolm_jax.data.synthetic import Synthetic
from audiolm_jax.data.text_and_tokens import TextAndTokens
from audiolm_jax.data.token_crops import TokenCrops

SOURCES = {
    'audio': AudioCrops,
    'synthetic': Synthetic,
    'text_and_tokens': TextAndTokens,
    'tokens': TokenCrops,
}

load_corpus = corpora.load_corpus
