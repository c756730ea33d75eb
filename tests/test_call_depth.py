"""How many functions of ours lie between the step and a product.

Each is a name to look up for who follows a number from the loss to its origin.
"""

import pathlib
import traceback

import jax
import jax.numpy as jnp
import pytest

from audiolm_jax import assembly as assembly_lib
from audiolm_jax.ops import products
from audiolm_jax.training import config_files
from audiolm_jax.training import step as step_lib

ROOT = pathlib.Path(__file__).parent.parent
MOST = 13


def chain() -> list[str]:
  """Functions of ours that are being called, from the step's on, inwards."""
  stack = [
      frame
      for frame in traceback.extract_stack()
      if pathlib.Path(frame.filename).is_relative_to(ROOT / 'audiolm_jax')
  ]
  names = [f'{pathlib.Path(f.filename).name}:{f.name}' for f in stack]
  return names[names.index('step.py:__call__') + 1 :]


@pytest.fixture(scope='module')
def chains():
  """Those at each product of one step of the ladder's smallest model."""
  settings = config_files.read(f'{ROOT}/configs/lm/ladder.py:gpt2,smoke')
  assembly = assembly_lib.Assembly(settings)
  step = step_lib.Step(assembly.objective, assembly.model_optimizers)
  rates = step_lib.rates(step.model_optimizers, jnp.int32(0))
  batch = assembly.objective.example_batch(2)
  found = []

  def recorded(product):
    def call(*args, **options):
      found.append(chain())
      return product(*args, **options)

    return call

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(products, 'einsum', recorded(products.einsum))
    patch.setattr(jnp, 'einsum', recorded(jnp.einsum))
    jax.eval_shape(step, assembly.abstract, batch, rates)
  return found


def test_from_the_step_to_a_product(chains):
  deepest = max(chains, key=len)
  assert len(deepest) <= MOST, ' -> '.join(deepest)


def test_every_kind_of_product_was_counted(chains):
  ends = {names[-1] for names in chains}
  assert {'products.py:linear', 'attention.py:attend_parts'} <= ends
  assert all(names[0] == 'step.py:_loss' for names in chains)
