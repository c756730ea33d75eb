"""The recommended codec builds in all its sizes, streams, and answers soon."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import train
from audiolm_jax.config import diff
from configs.codec import causal_16khz


@pytest.mark.parametrize('arg', ['smoke', 'cpu', 'gpu', 'tune'])
def test_it_builds_and_streams(arg):
  values = causal_16khz.get_config(arg)
  objective = config.build(train.Config, values).objective
  codec = objective.tokenizer
  assert codec.steppable and codec.spec.causal
  assert codec.spec.latency <= 0.040 * codec.sample_rate
  assert codec.spec.bits_per_second == 4000
  if arg != 'smoke':
    shapes = nn.meta.unbox(jax.eval_shape(objective.init, jax.random.key(0)))
    leaves = jax.tree.leaves(shapes['codec']['params'])
    millions = sum(leaf.size for leaf in leaves) / 1e6
    expected = {'gpu': 28.9, 'cpu': 4.08, 'tune': 4.08}[arg]
    assert millions == pytest.approx(expected, rel=0.01)


def test_a_smoke_run_trains(cache, tmp_path):
  values = causal_16khz.get_config('smoke')
  assert np.isfinite(train.train(values, tmp_path)['loss'])


def test_tuning_differs_in_its_start_schedule_and_one_loss():
  lines = diff.lines(
      causal_16khz.get_config('cpu'), causal_16khz.get_config('tune')
  )
  allowed = (
      'config.objective.distances',
      'config.models.codec.init_from',
      'config.models.codec.ema',
      'config.models.codec.schedule.',
      'config.steps',
      'config.eval_every',
  )
  assert any(line.startswith('config.objective.distances') for line in lines)
  assert all(line.startswith(allowed) for line in lines), lines
