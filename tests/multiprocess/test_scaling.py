"""Each device computes its own rows: more devices, the same memory on each."""

import numpy as np
import pytest

from tests.multiprocess import scripts


@pytest.fixture(scope='module', params=['lm', 'codec'])
def found(request):
  return scripts.result(scripts.start('run_scaling', request.param))


def test_memory_a_device_stays_where_devices_are_added(found):
  four, *eight = found['temporaries'].values()
  assert len(eight) == 2
  np.testing.assert_allclose(eight, four, rtol=0.1)


def test_numbers_are_those_of_one_device(found):
  assert len(found['one']) == 2
  for one, several in zip(found['one'], found['all'], strict=True):
    assert one.keys() == several.keys()
    # Gradients of a log mel distance are sums of large terms.
    np.testing.assert_allclose(
        list(several.values()), list(one.values()), rtol=1e-4, atol=1e-6
    )
