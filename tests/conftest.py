"""All tests: on the CPU, with the shared compilation cache, absl flags parsed."""

import os

# Before jax is imported anywhere.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import pytest  # noqa: E402

from audiolm_jax.data import corpora  # noqa: E402
from audiolm_jax.training import launch  # noqa: E402

launch.prepare()


@pytest.fixture(scope='session')
def cache(tmp_path_factory):
  """The cache directory, set for the session, with a tiny eSpeak corpus."""
  with pytest.MonkeyPatch.context() as patch:
    path = tmp_path_factory.mktemp('cache')
    patch.setenv('AUDIOLM_JAX_CACHE', str(path))
    corpora.prepare('espeak_sentences', ('en', 'fr'), limit=12)
    yield path
