"""Model directories that are written in no time."""

import pathlib

import flax
import jax

from audiolm_jax.models import directory
from audiolm_jax.models import toy


def write(path: pathlib.Path, name: str, module, variables, **more) -> None:
  """A directory of any module; `more` are fields of its Manifest."""
  directory.write(
      path,
      directory.Manifest(module, name, **more),
      flax.core.meta.unbox(variables),
      path,
  )


def toy_model(path: pathlib.Path, **more):
  """Writes the toy with random weights; returns (module, variables)."""
  module = toy.Mlp()
  variables = flax.core.meta.unbox(module.fresh(jax.random.key(0)))
  write(path, 'mlp', module, variables, **more)
  return module, variables
