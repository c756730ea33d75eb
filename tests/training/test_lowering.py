"""The step as a program, with nothing allocated."""

import jax
import numpy as np
import pytest

from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import training
from audiolm_jax.data import synthetic
from audiolm_jax.objectives import toy
from audiolm_jax.training import mesh as mesh_lib


def _lowered(**fields):
  settings = assembly_lib.Config(
      objective=toy.Toy(),
      data=synthetic.Synthetic(),
      models={'mlp': assembly_lib.ModelTraining()},
      **fields,
  )
  mesh = mesh_lib.over(np.array(jax.devices()[:1]).reshape(1, 1, 1))
  return training.lowered_step(settings, mesh)


def test_a_step_is_lowered_and_nothing_is_allocated():
  before = len(jax.live_arrays())
  lowered = _lowered(batch_size=6)
  assert len(jax.live_arrays()) == before
  state, batch, _ = lowered.args_info[0]
  assert {x.shape[0] for x in jax.tree.leaves(batch)} == {6}
  # The state is taken over, the batch is not.
  assert all(x.donated for x in jax.tree.leaves(state))
  assert not any(x.donated for x in jax.tree.leaves(batch))


def test_what_does_not_fit_is_refused():
  with pytest.raises(config.ConfigError, match='batch_size = 6'):
    _lowered(batch_size=6, accumulation=4)
