"""audiolm_jax: the lab for audio language models."""

__version__ = '0.1.0'


def load(workdir):
  """The trained model of a work directory, bound to its variables.

  See `audiolm_jax.loading.load`; imported late, so that `import audiolm_jax`
  costs nothing.
  """
  from audiolm_jax import loading  # pylint: disable=g-import-not-at-top

  return loading.load(workdir)
