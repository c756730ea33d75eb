"""A trained model back from its work directory."""

import os
from typing import Any

from audiolm_jax import assembly as assembly_lib
from audiolm_jax.training import launch


def load(workdir: str | os.PathLike, step: int | None = None) -> Any:
  """The trained model of a work directory, bound to its variables.

  Averaged parameters are taken where they were kept.

  Args:
    workdir: of a run that has saved a checkpoint.
    step: which checkpoint; by default the best by the config's
      `checkpoint.best`, or else the last.

  Returns:
    What the run's objective binds: a tokenizer, or a decoder.

  Raises:
    config.ConfigError: if it is no work directory.
    checkpoints.CheckpointError: if it has no readable checkpoint.
  """
  launch.prepare()
  assembly, state = assembly_lib.restore(workdir, step)
  return assembly.objective.bind(assembly.variables(state))
