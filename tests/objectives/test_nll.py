"""The sums of the likelihood of frames, and the bound model people use."""

import math

import flax.linen as nn
import jax
import numpy as np
import pytest

from audiolm_jax import decoders
from audiolm_jax import generation
from audiolm_jax import objectives
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention


@pytest.fixture(scope='module')
def objective():
  backbone = stack_lib.Stack(
      width=8,
      layers=1,
      mixers=(attention.Attention(heads=2),),
      mlp=mlps.Dense(hidden=8),
  )
  return objectives.NLL(
      lengths={'frames': 6},
      decoder=decoders.Decoder(vocabularies=(7, 7), backbone=backbone),
  )


@pytest.fixture(scope='module')
def variables(objective):
  return jax.jit(
      objective.init, compiler_options={'xla_backend_optimization_level': 0}
  )(jax.random.key(0))


@pytest.fixture(scope='module')
def bound(objective, variables):
  return objective.bind(variables)


@pytest.fixture(scope='module')
def loss(objective):
  return jax.jit(objective.__call__)


def _batch(seed=0, num_frames=(6, 3, 0, 5)):
  rng = np.random.default_rng(seed)
  return {
      'codes': rng.integers(0, 7, (len(num_frames), 6, 2)).astype(np.int32),
      'num_frames': np.array(num_frames, np.int32),
      'id': np.arange(len(num_frames), dtype=np.int32),
  }


def test_example_batch_has_the_shapes_of_training(objective):
  batch, example = _batch(), objective.example_batch(4)
  assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
      k: (v.shape, v.dtype) for k, v in example.items()
  }


def test_terms_and_metrics_are_sums_of_the_scores(variables, bound, loss):
  batch = _batch()
  output = loss(variables, batch, jax.random.key(0))
  scores = bound.score(batch['codes'], batch['num_frames'])['frames']
  nll, count = output.terms['nll']
  assert float(count) == 2 * 14
  np.testing.assert_allclose(nll, -scores.log_prob.sum(), rtol=1e-5)
  bits, frames = output.metrics['bits_per_frame']
  assert float(frames) == 14
  np.testing.assert_allclose(bits, nll / math.log(2), rtol=1e-5)
  parts = [
      float(output.metrics[f'bits_per_frame_codebook_{k}'][0]) for k in (0, 1)
  ]
  assert sum(parts) == pytest.approx(float(bits), rel=1e-5)
  per_row = bound.bits_per_frame(batch['codes'], batch['num_frames'])
  assert np.isnan(per_row[2])
  weighted = np.nansum(per_row * batch['num_frames'])
  assert weighted == pytest.approx(float(bits), rel=1e-5)


def test_microbatches_add_exactly(variables, loss):
  batch = _batch()
  halves = [jax.tree.map(lambda x, i=i: x[i : i + 2], batch) for i in (0, 2)]
  whole = loss(variables, batch, jax.random.key(0))
  parts = [loss(variables, half, jax.random.key(0)) for half in halves]
  for name, total in {**whole.terms, **whole.metrics}.items():
    added = [
        sum(float({**p.terms, **p.metrics}[name][i]) for p in parts)
        for i in (0, 1)
    ]
    np.testing.assert_allclose(added, total, rtol=1e-5)


def test_generate_keeps_prompts_and_repeats_with_its_seed(bound):
  prompt = _batch()['codes'][:2, :3]
  kwargs = {'num_frames': [3, 1], 'temperature': 5.0}
  codes = bound.generate(prompt, 6, **kwargs)
  assert codes.shape == (2, 6, 2)
  np.testing.assert_array_equal(codes[0, :3], prompt[0])
  np.testing.assert_array_equal(codes[1, :1], prompt[1, :1])
  np.testing.assert_array_equal(codes, bound.generate(prompt, 6, **kwargs))
  assert (codes != bound.generate(prompt, 6, seed=1, **kwargs)).any()
  assert bound.generate(prompt[:, :0], 4).shape == (2, 4, 2)


def test_a_session_gives_the_frames_of_generate(bound):
  prompt = _batch()['codes'][:1, :3]
  sampler = generation.Sampler(temperature=5.0)
  session = bound.session(prompt, 6, seed=3, sampler=sampler)
  frames = np.concatenate(list(session))
  codes = bound.generate(prompt, 6, seed=3, temperature=5.0)
  np.testing.assert_array_equal(frames, codes[0])
  with pytest.raises(ValueError, match='frame 0 of row 0 is -'):
    bound.session(prompt - 9, 6)
  with pytest.raises(ValueError, match='frames = 2 < the prompt'):
    bound.session(prompt, 2)


def test_cast_changes_the_parameters_alone(bound):
  cast = bound.cast('int8')
  assert cast.decoder == bound.decoder
  jax.tree.map(
      np.testing.assert_array_equal,
      cast.params,
      generation.cast(bound.params, 'int8'),
  )


@pytest.mark.parametrize(
    ('codes', 'num_frames', 'message'),
    [
        (np.zeros((2, 3)), None, r'expected \[B, F, 2\]'),
        (np.zeros((2, 3, 3)), None, r'expected \[B, F, 2\]'),
        (np.full((1, 3, 2), 7), None, 'slot 0 of frame 0 of row 0 is 7'),
        (np.full((1, 3, 2), -1), [2], 'slot 0 of frame 0 of row 0 is -1'),
        (np.full((1, 3, 2), 2**32), None, 'is 4294967296, but'),
        (np.zeros((1, 3, 2)), None, 'float64: expected integers'),
        (np.zeros((1, 3, 2), int), [1.5], 'lengths are float64'),
        (np.zeros((1, 3, 2)), [4], 'not within 3'),
        (np.zeros((1, 3, 2)), [1, 1], 'lengths'),
    ],
)
def test_wrong_input_is_refused_rather_than_clipped(
    bound, codes, num_frames, message
):
  with pytest.raises(ValueError, match=message):
    bound.score(codes, num_frames)


def test_a_result_shorter_than_its_prompt_is_refused(bound):
  with pytest.raises(ValueError, match='frames = 2 < the prompt'):
    bound.generate(np.zeros((1, 3, 2), int), 2)


def test_it_learns_a_rule(objective, variables):
  """Slot 1 of a frame is slot 0 of the frame before: bits go to slot 0 only."""
  rng = np.random.default_rng(0)
  num_frames = np.full(16, 6, np.int32)

  @jax.jit
  def step(variables, batch):
    def total(variables):
      nll, count = objective(variables, batch, jax.random.key(0)).terms['nll']
      return nll / count

    gradient = jax.grad(total)(variables)
    return jax.tree.map(lambda w, g: w - 1.0 * g, variables, gradient)

  variables = nn.meta.unbox(variables)
  for _ in range(400):
    codes = rng.integers(0, 7, (16, 6, 2)).astype(np.int32)
    codes[:, 1:, 1] = codes[:, :-1, 0]
    variables = step(variables, {'codes': codes, 'num_frames': num_frames})
  scores = objective.bind(variables).score(codes, num_frames)['frames']
  bits = -np.asarray(scores.log_prob).mean(axis=0) / math.log(2)
  assert (bits[1:, 1] < 0.5).all()
  assert (bits[:, 0] > 2.5).all()
