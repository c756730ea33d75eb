"""Mesh and sharding rules, train state, step, optimizers, checkpoints, writers, costs."""


def lowered_step(config, mesh):
  """The training step, lowered for devices that need not be here.

  See `lowering.lowered_step`; imported late, as scripts import
  `training.launch` before anything heavy.
  """
  from audiolm_jax.training import lowering  # pylint: disable=g-import-not-at-top

  return lowering.lowered_step(config, mesh)
