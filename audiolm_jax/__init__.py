"""audiolm_jax: the lab for audio language models."""

__version__ = '0.1.0'


def load(path, *, base=None):
  """The trained model of a directory, with its variables, for people.

  See `audiolm_jax.models.loading.load`; imported late, so that `import
  audiolm_jax` costs nothing.
  """
  from audiolm_jax.models import loading  # pylint: disable=g-import-not-at-top

  return loading.load(path, base=base)
