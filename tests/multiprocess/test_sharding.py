"""Sharded runs equal one device's, and are really sharded."""

import numpy as np
import pytest

from tests.multiprocess import scripts


@pytest.fixture(scope='module')
def one(tmp_path_factory):
  return scripts.result(
      scripts.start('run_toy', tmp_path_factory.mktemp('one'), 1, 1, 1, 1)
  )


def _assert_equal_and_sharded(found, one):
  assert len(one['losses']) == 20
  np.testing.assert_allclose(found['losses'], one['losses'], rtol=1e-5)
  np.testing.assert_allclose(found['evaluation'], one['evaluation'], rtol=1e-5)
  assert np.prod(found['shard']) < np.prod(found['global'])
  assert found['moment'] == found['shard']
  assert {'all-reduce', 'all-gather'} <= set(found['collectives'])
  assert not one['collectives']
  # Its model directory was gathered from shards.
  assert found['loaded'] == found['global']


@pytest.mark.parametrize('axes', [(2, 2, 1), (1, 2, 2)])
def test_four_devices(one, tmp_path, axes):
  found = scripts.result(scripts.start('run_toy', tmp_path, 4, *axes))
  _assert_equal_and_sharded(found, one)
  assert found['resumed'] == found['losses']


def test_two_processes_of_two_devices(one, tmp_path):
  port = scripts.free_port()
  found, _ = scripts.results(
      [
          scripts.start('run_toy', tmp_path, 2, 2, 2, 1, i, 2, port)
          for i in range(2)
      ]
  )
  _assert_equal_and_sharded(found, one)


@pytest.mark.parametrize(
    'axes', [(2, 2, 1), pytest.param((1, 2, 2), marks=pytest.mark.slow)]
)
def test_decoders_that_denoise_on_four_devices(axes):
  """Noise, gaps and times go by the row, wherever it is computed."""
  found = scripts.result(scripts.start('run_objectives', *axes))
  for name, apart in found.items():
    assert max(apart['terms']) < 1e-4, name
    assert apart['gradients'] < 1e-3, name
    assert apart['share'] < 0.8, name
