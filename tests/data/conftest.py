"""A tiny corpus for the tests of this room: no network, built once."""

import pytest

from audiolm_jax.data import corpora


@pytest.fixture(scope='session')
def cache(tmp_path_factory):
  """The cache directory, set for the session, with a tiny eSpeak corpus."""
  with pytest.MonkeyPatch.context() as patch:
    path = tmp_path_factory.mktemp('cache')
    patch.setenv('AUDIOLM_JAX_CACHE', str(path))
    corpora.prepare('espeak_sentences', ('en', 'fr'), limit=12)
    yield path
