"""What all evaluators share."""

import numpy as np
import pytest

from audiolm_jax.evaluation import base as evaluation_base


@pytest.mark.parametrize(
    'count, limit, places',
    [
        (5, None, [0, 1, 2, 3, 4]),
        (5, 9, [0, 1, 2, 3, 4]),
        (9, 3, [0, 4, 8]),
        (4, 1, [0]),
        (0, 3, []),
        (0, None, []),
    ],
)
def test_clips_are_evenly_spaced(count, limit, places):
  found = evaluation_base.spaced(count, limit)
  assert found.tolist() == places and found.dtype == np.int64
