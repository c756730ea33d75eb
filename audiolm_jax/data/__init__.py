"""Corpora, pipelines and the token cache.

To add a source: a dataclass with `open(...) -> base.BatchSource`, and a line
here.
"""

from audiolm_jax.data.synthetic import Synthetic

SOURCES = {'synthetic': Synthetic}
