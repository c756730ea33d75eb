"""The training step as a program, for devices that need not be here."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from audiolm_jax.ops import sharding
from audiolm_jax.training import step as step_lib


def trace_step(assembly: Any, batch: Mapping[str, Any]) -> jax.stages.Traced:
  """The step of an `assembly.Assembly`, traced on shapes: nothing is allocated.

  Args:
    assembly: the parts of a run.
    batch: arrays as its objective takes them, of any number of rows; the step's
      are the config's `batch_size`.
  """
  settings, mesh = assembly.config, assembly.mesh
  optimizers = assembly.model_optimizers
  step = step_lib.Step(assembly.objective, optimizers, settings.accumulation)
  rows = jax.sharding.NamedSharding(mesh, sharding.BATCH)
  whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  shapes = {
      name: jax.ShapeDtypeStruct(
          (settings.batch_size, *value.shape[1:]), value.dtype, sharding=rows
      )
      for name, value in batch.items()
  }
  rate = jax.ShapeDtypeStruct((), jnp.float32, sharding=whole)
  rates = dict.fromkeys(optimizers, rate)
  jitted = jax.jit(
      step, donate_argnums=0, out_shardings=(assembly.shardings, whole)
  )
  with jax.set_mesh(mesh):
    return jitted.trace(assembly.abstract, shapes, rates)


def lowered_step(config: Any, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
  """The training step of a config, lowered for a mesh.

  Its devices need not be here (`jax.experimental.topologies` describes others):
  `.compile()` of the result needs their compiler only, and then tells of
  memory, collectives and the scheduled program. Nothing is allocated.

  Args:
    config: a built `assembly.Config`; its own `mesh` is not used.
    mesh: with the axes `ops.sharding.AXES`, all of them Auto.

  Raises:
    config.ConfigError: if parts of the config do not fit each other, or the
      mesh.
  """
  assembly = config.assemble(mesh)
  return trace_step(assembly, assembly.objective.example_batch(1)).lower()
