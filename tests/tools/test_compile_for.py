"""What the compiler tool says, of devices that are here and of wrong words."""

import jax
import numpy as np
import pytest

from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax.data import synthetic
from audiolm_jax.objectives import toy
from audiolm_jax.training import mesh as mesh_lib
from tests import tool_module

CONFIG = '--config=configs/toy.py:smoke'


@pytest.fixture(scope='module')
def tool():
  return tool_module.load('compile_for')


def test_a_step_is_described(tool):
  settings = assembly_lib.Config(
      objective=toy.Toy(),
      data=synthetic.Synthetic(),
      models={'mlp': assembly_lib.ModelTraining()},
      batch_size=6,
  )
  mesh = mesh_lib.over(np.array(jax.devices()[:1]).reshape(1, 1, 1))
  assembly = settings.assemble(mesh)
  found = tool.describe(assembly, 1e9)
  assert 'rows a device          6' in found
  assert 'fits' in found and 'DOES NOT FIT' not in found
  assert 'DOES NOT FIT' in tool.describe(assembly, 1.0)


def test_mesh_sizes(tool):
  assert tool.sizes_of('fsdp=16', 16) == [1, 16, 1]
  assert tool.sizes_of('tensor=2,data=4', 8) == [4, 1, 2]
  for wrong in ('fsdp', 'fsdp=0', 'rows=8', 'fsdp=4', 'fsdp=-1'):
    with pytest.raises(config.ConfigError, match=f'--mesh={wrong}'):
      tool.sizes_of(wrong, 8)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ([CONFIG, '--topology=v99:4x4'], '--topology=v99:4x4'),
        ([CONFIG, '--topology=h100:many'], '--topology=h100:many'),
        (['--config=nowhere.py', '--topology=v5e:4x4'], 'no file'),
        ([CONFIG, '--topology=v5e:4x4', '--config.step=1'], 'config.step'),
    ],
)
def test_mistakes_end_in_one_line(tool, capsys, words, message):
  assert tool.main([*words, '--mesh=fsdp=16']) == 1
  out = capsys.readouterr()
  (line,) = out.err.strip().splitlines()
  assert line.startswith('compile_for: ') and message in line
  assert not out.out
