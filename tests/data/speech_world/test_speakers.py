"""Three pools of speakers: disjoint, on grids, with the data's statistics."""

import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.data.speech_world import phones as phones_lib
from audiolm_jax.data.speech_world import speakers


def test_pools_share_nobody():
  pools = {name: speakers.pool(name) for name in speakers.POOLS}
  everyone = [each for pool in pools.values() for each in pool]
  assert len(everyone) == 3 * 64 == len({s.name for s in everyone})
  voices = {
      (s.group, s.f0, s.scale, s.rd, s.jitter, s.breath) for s in everyone
  }
  assert len(voices) == len(everyone) == len({s.pattern for s in everyone})
  formants = {tuple(s.formants('ɑ')) for s in everyone}
  assert len(formants) == len(everyone)
  for pool in pools.values():
    assert {s.group for s in pool} == {0, 1, 2}
  with pytest.raises(config.ConfigError, match="no pool 'x'"):
    speakers.pool('x')


def test_values_are_on_their_grids():
  for s in speakers.pool('lm'):
    for value, step in (
        (s.f0, speakers.F0_STEP),
        (s.scale, speakers.SCALE_STEP),
    ):
      steps = np.log(value) / step
      assert steps == pytest.approx(round(steps), abs=1e-6)
    assert s.rd in speakers.RD_GRID and s.jitter in speakers.JITTER_GRID
    assert s.breath in speakers.BREATH_GRID


def test_the_population_has_the_datas_statistics():
  everyone = [s for name in speakers.POOLS for s in speakers.pool(name)]
  f0, tract = (
      np.log([getattr(s, key) for s in everyone]) for key in ('f0', 'tract')
  )
  group = np.array([s.group for s in everyone])
  for i, (mean, spread) in enumerate(
      ((130, 0.127), (221, 0.092), (262, 0.122))
  ):
    mine = f0[group == i]
    assert np.exp(mine.mean()) == pytest.approx(mean, rel=0.05)
    assert mine.std() == pytest.approx(spread, rel=0.35)
  assert np.corrcoef(f0, tract)[0, 1] == pytest.approx(0.87, abs=0.06)
  assert np.polyfit(f0, tract, 1)[0] == pytest.approx(0.335, abs=0.06)
  # Formants are the group's, scaled, but for a pattern of about 6%.
  own = [
      np.log(s.formants(v) / phones_lib.VOWEL_FORMANTS[v][s.group] / s.scale)
      for s in everyone
      for v in phones_lib.VOWEL_FORMANTS
  ]
  assert np.std(own) == pytest.approx(0.055, abs=0.005)
