"""Corpora, pipelines and the token cache.

To add a source: a dataclass with `open(...) -> base.BatchSource`, and a line
here.
"""

from audiolm_jax.data import corpora
from audiolm_jax.data.audio_crops import AudioCrops
from audiolm_jax.data.synthetic import Synthetic

SOURCES = {
    'audio': AudioCrops,
    'synthetic': Synthetic,
}

load_corpus = corpora.load_corpus
