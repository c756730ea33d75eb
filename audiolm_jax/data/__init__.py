"""Corpora, pipelines, and tokens on disk as training data.

To add a source: a dataclass with `open(...) -> base.BatchSource`, and a line
here.
"""

from audiolm_jax.data import corpora
from audiolm_jax.data.audio_crops import AudioCrops
from audiolm_jax.data.phone_clips import PhoneClips
from audiolm_jax.data.synthetic import Synthetic
from audiolm_jax.data.text_and_tokens import TextAndTokens
from audiolm_jax.data.token_crops import TokenCrops
from audiolm_jax.data.world_texts import WorldTexts

SOURCES = {
    'audio': AudioCrops,
    'phones': PhoneClips,
    'synthetic': Synthetic,
    'text_and_tokens': TextAndTokens,
    'tokens': TokenCrops,
    'world_texts': WorldTexts,
}

load_corpus = corpora.load_corpus
