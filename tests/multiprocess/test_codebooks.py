"""Codebooks trained on rows spread over devices are those of one device."""

import numpy as np

from tests.multiprocess import scripts


def test_two_devices_train_the_same_codebooks():
  results = scripts.result(scripts.start('run_codebooks'))
  assert set(results) == {'rvq', 'lfq'}
  for one, two in results.values():
    assert (one['devices'], two['devices']) == (1, 2)
    assert (one['reduced'], two['reduced']) == (False, True)
    np.testing.assert_array_equal(two['codes'], one['codes'])
    assert len(np.unique(one['codes'])) > 5
    for a, b in zip(two['state'], one['state'], strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
