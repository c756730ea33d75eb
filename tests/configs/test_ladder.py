"""From GPT-2 to gpt-oss: each rung changes what it says, and trains."""

import dataclasses
import functools
import re

import flax.linen as nn
import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import train
from audiolm_jax.config import diff
from audiolm_jax.streaming import testing
from audiolm_jax.training import config_files
from configs.lm import ladder

# Each rung, what it changes of the one before, and millions of parameters of
# its backbone at the size 'cpu'.
RUNGS = {
    'gpt2': (set(), 3.23),
    'rope': ({'mixers[0].positions', 'positions'}, 3.16),
    'rms_norm': ({'norm', 'norm_bias'}, 3.16),
    'swiglu': ({'mlp.activation', 'mlp.hidden'}, 3.12),
    'gqa': ({'mixers[0].kv_heads'}, 2.86),
    'moe': (
        {
            'mlp.experts',
            'mlp.hidden',
            'mlp.kind',
            'mlp.normalise',
            'mlp.router_bias',
            'mlp.top_k',
        },
        9.09,
    ),
    'sliding_window': ({'mixers'}, 9.09),
    'sinks': ({'mixers[0].sinks', 'mixers[1].sinks'}, 9.09),
    'no_dropout': ({'dropout'}, 9.09),
    'clamped_swiglu': ({'mlp.activation'}, 9.09),
    'gpt_oss': (
        {
            f'mixers[{i}].positions.{name}'
            for i in (0, 1)
            for name in ('theta', 'yarn')
        },
        9.09,
    ),
}
NAMES = list(RUNGS)


@functools.cache
def _objective(name, size):
  settings = ladder.get_config(f'{name},{size}')
  return config.build(train.Config, settings).objective


def test_every_rung_is_tested_here():
  assert NAMES == list(ladder.VARIANTS)


@pytest.mark.parametrize('size', config_files.SIZES)
@pytest.mark.parametrize('place', range(1, len(NAMES)))
def test_a_rung_changes_what_it_says_and_nothing_else(place, size):
  before, after = (
      ladder.get_config(f'{name},{size}')
      for name in NAMES[place - 1 : place + 1]
  )
  backbone = 'config.objective.decoder.backbone.'
  changed = set()
  for line in diff.lines(before, after):
    path = re.match(r'(\S+): ', line).group(1)
    assert path.startswith(backbone), line
    changed.add(path.removeprefix(backbone))
  assert changed == RUNGS[NAMES[place]][0]


@pytest.mark.parametrize('name', NAMES)
def test_a_rung_has_its_parameters(name):
  objective = _objective(name, 'cpu')
  shapes = nn.meta.unbox(jax.eval_shape(objective.init, jax.random.key(0)))
  leaves = jax.tree.leaves(shapes['lm']['params']['backbone'])
  millions = sum(leaf.size for leaf in leaves) / 1e6
  assert millions == pytest.approx(RUNGS[name][1], abs=0.01)


def test_the_end_is_gpt_oss():
  """As its own config has it, but for sizes."""
  stack = _objective('gpt_oss', 'cpu').decoder.backbone
  near, far = stack.mixers
  assert (near.window, far.window) == (32, None)
  for mixer in stack.mixers:
    assert mixer.sinks and mixer.use_bias and mixer.out_bias
    assert mixer.kv_heads < mixer.heads
    assert mixer.positions.theta == 150_000.0
    yarn = mixer.positions.yarn
    assert (yarn.factor, yarn.original_length) == (32.0, 4096)
    assert (yarn.beta_fast, yarn.beta_slow, yarn.truncate) == (32.0, 1.0, False)
  mlp = stack.mlp
  assert type(mlp).__name__ == 'Moe' and mlp.normalise == 'top_k'
  assert (mlp.activation, mlp.limit, mlp.alpha) == (
      'clamped_swiglu',
      7.0,
      1.702,
  )
  assert mlp.use_bias and mlp.router_bias
  assert (stack.norm, stack.norm_bias, stack.dropout) == ('rms', False, 0.0)


def test_every_ingredient_of_the_end_can_be_left_out():
  end = ladder.get_config('gpt_oss,cpu')
  differences = {}
  for field in dataclasses.fields(ladder.Ingredients):
    without = ladder.get_config(f'without_{field.name}')
    config.build(train.Config, without)
    differences[field.name] = lines = tuple(diff.lines(end, without))
    assert lines
  assert len(set(differences.values())) == len(ladder.WITHOUT)
  assert differences['dropout'] == (
      'config.objective.decoder.backbone.dropout: 0.0 -> 0.1',
  )


# These have every ingredient; the others are compiled at length only.
_ENDS = ('gpt2', 'gqa', 'gpt_oss')


@pytest.mark.parametrize(
    'name',
    [
        name if name in _ENDS else pytest.param(name, marks=pytest.mark.slow)
        for name in NAMES
    ],
)
def test_a_rung_takes_a_step_of_training(name):
  """At the size 'smoke' with short rows of few codes: the loss goes down."""
  objective = _objective(name, 'smoke')
  decoder = objective.decoder.clone(vocabularies=(16,) * 4)
  objective = dataclasses.replace(
      objective, decoder=decoder, lengths={'frames': 8}, init_embeddings=False
  )
  options = {'compiler_options': testing.quick_options()}
  variables = nn.meta.unbox(
      jax.jit(objective.init, **options)(jax.random.key(0))
  )
  rng = np.random.default_rng(0)
  batch = {
      'codes': rng.integers(0, 16, (2, 8, 4)).astype(np.int32),
      'num_frames': np.array([8, 5], np.int32),
      'id': np.arange(2, dtype=np.int32),
  }

  @functools.partial(jax.jit, **options)
  @jax.value_and_grad
  def loss(variables):
    terms = objective(variables, batch, jax.random.key(1)).terms
    assert set(terms) == set(objective.loss_weights)
    return sum(
        objective.loss_weights[term] * total / weight
        for term, (total, weight) in terms.items()
    )

  before, gradient = loss(variables)
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    assert np.isfinite(leaf).all(), path
    # What is added to every key of a softmax changes nothing.
    if 'key_bias' not in str(path):
      assert np.abs(leaf).max() > 1e-7, path
  after, _ = loss(jax.tree.map(lambda w, g: w - 0.01 * g, variables, gradient))
  assert after < before
