"""Evaluators of several processes see all scores, which are one device's."""

import numpy as np
import pytest

from audiolm_jax.data import token_cache
from tests.multiprocess import scripts
from tests.data import made_caches

CLIPS = {'train': 1, 'validation': 5, 'test': 1}


@pytest.fixture
def cache(tmp_path):
  writer = token_cache.Writer(
      tmp_path / 'tokens',
      made_caches.identity((8,), CLIPS),
  )
  rng = np.random.default_rng(0)
  for split, part, indices in writer.missing():
    clips = [
        made_caches.example(
            rng.integers(0, 8, (3 + 4 * i, 1), np.int32),
            factors={'id': f'{split}{i}', 'language': 'en'},
        )
        for i in indices
    ]
    writer.write(split, part, clips)
  assert writer.finish()
  return tmp_path / 'tokens'


def test_two_processes_see_the_scores_of_one(cache):
  one = scripts.result(scripts.start('run_evaluators', cache, 1))
  port = scripts.free_port()
  found = scripts.results(
      [scripts.start('run_evaluators', cache, 2, i, 2, port) for i in range(2)]
  )
  assert found[0] == found[1]
  for kind, expected in one.items():
    assert expected['share'] == 1 and found[0][kind]['share'] < 0.9
    assert len(expected['scores']) >= 8
    for score, (name, item, total, weight, along) in zip(
        found[0][kind]['scores'], expected['scores'], strict=True
    ):
      assert score[:2] == [name, item] and score[3:] == [weight, along]
      np.testing.assert_allclose(score[2], total, rtol=1e-3, atol=1e-4)
