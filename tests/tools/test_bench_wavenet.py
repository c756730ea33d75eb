"""Steps by rings and recomputing the past give the same log-probabilities."""

import numpy as np
import pytest

from audiolm_jax import generation
from tools import bench_wavenet


def _compare():
  return bench_wavenet.compare(
      width=4, layers=3, batch=2, steps=6, naive_steps=6
  )


def test_both_forms_agree_and_are_timed():
  rates = _compare()
  assert set(rates) == {'ring', 'naive'}
  assert all(rate > 0 for rate in rates.values())


def test_a_difference_is_found(monkeypatch):
  step = generation.SampleSession.step

  def shifted(self, *arguments):
    samples = step(self, *arguments)
    self.log_prob = self.log_prob + 0.1
    return samples

  monkeypatch.setattr(generation.SampleSession, 'step', shifted)
  with pytest.raises(AssertionError):
    _compare()


def test_the_naive_form_uses_all_of_its_history():
  model, params = bench_wavenet.build(4, 3)
  size = model.stack.receptive_field
  assert size == 8
  history = np.zeros((1, size, 1), np.int32)
  _, before = bench_wavenet.naive(model, params, history, 1)
  # Another array: jax may still be reading the first one.
  other = history.copy()
  other[0, 0] = 1_000
  drawn, after = bench_wavenet.naive(model, params, other, 1)
  assert drawn.shape == (1, 1)
  assert abs(float(after[0, 0] - before[0, 0])) > 1e-6
