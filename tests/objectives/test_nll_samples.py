"""The objective's sums, the bound model, and a signal that can be learnt."""

import dataclasses
import math

import flax.linen as nn
import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import objectives
from audiolm_jax.decoders import waveform_heads
from audiolm_jax.models import sample_lm
from audiolm_jax.streaming import testing

T = 14


@pytest.fixture(scope='module', autouse=True)
def _quick():
  """Everything here compiles for longer than it runs."""
  name = 'jax_disable_most_optimizations'
  jax.config.update(name, True)
  yield
  jax.config.update(name, False)


def _objective(**options):
  decoder = {
      'kind': 'wavenet',
      'bits': 8,
      'stack': {'width': 6, 'skip': 8, 'dilations': (1, 2), 'cycles': 1},
      'head': {'kind': 'gaussian'},
      **options,
  }
  return config.build(
      objectives.NLL,
      {'decoder': decoder, 'lengths': {'samples': T}, 'rate': 100.0},
  )


@pytest.fixture(scope='module')
def objective():
  return _objective()


def _variables(objective):
  init = jax.jit(objective.init, compiler_options=testing.quick_options())
  return nn.meta.unbox(init(jax.random.key(0)))


@pytest.fixture(scope='module')
def variables(objective):
  return _variables(objective)


@pytest.fixture(scope='module')
def bound(objective, variables):
  return objective.bind(variables)


@pytest.fixture(scope='module')
def loss(objective):
  return jax.jit(objective.__call__)


def _batch(num_samples=(T, 5, 0, 9)):
  rng = np.random.default_rng(0)
  audio = rng.uniform(-1, 1, (len(num_samples), T, 1)).astype(np.float32)
  return {
      'audio': audio,
      'num_samples': np.array(num_samples, np.int32),
      'id': np.arange(len(num_samples), dtype=np.int32),
  }


def test_example_batch_has_the_shapes_of_training(objective):
  batch, example = _batch(), objective.example_batch(4)
  assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
      k: (v.shape, v.dtype) for k, v in example.items()
  }
  assert objective.audio_seconds(batch) == pytest.approx((T + 14) / 100)


def test_terms_and_metrics_are_sums_of_the_scores(variables, bound, loss):
  batch = _batch()
  output = loss(variables, batch, jax.random.key(0))
  scores = bound.score(batch['audio'], batch['num_samples'])['samples']
  nll, count = output.terms['nll']
  assert float(count) == T + 14
  np.testing.assert_allclose(nll, -scores.log_prob.sum(), rtol=1e-5)
  bits, count = output.metrics['bits_per_sample']
  assert float(count) == T + 14
  np.testing.assert_allclose(bits, nll / math.log(2), rtol=1e-5)
  per_row = bound.bits_per_sample(batch['audio'], batch['num_samples'])
  assert np.isnan(per_row[2])
  weighted = np.nansum(per_row * batch['num_samples'])
  assert weighted == pytest.approx(float(bits), rel=1e-5)


def test_audio_is_scored_on_the_grid(bound):
  audio = _batch()['audio'][:1]
  step = 1 / 128

  def score(audio):
    return bound.score(audio)['samples']

  rounded = np.clip(np.round(audio / step), -128, 127) * step
  np.testing.assert_array_equal(score(audio).log_prob, score(rounded).log_prob)
  moved = rounded + step * (rounded < 0)
  assert (score(moved).log_prob != score(audio).log_prob).any()


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


def test_conditions_come_with_the_batch():
  objective = _objective(
      stack={
          'width': 6,
          'skip': 8,
          'dilations': (1, 2),
          'cycles': 1,
          'film': 3,
          'local': 2,
          'local_hop': 4,
      }
  )
  example = objective.example_batch(2)
  assert example['teacher'].shape == (2, 4, 2)
  assert example['film'].shape == (2, 3)
  variables = _variables(objective)
  rng = np.random.default_rng(1)
  batch = {
      **_batch((T, T)),
      'teacher': rng.normal(size=(2, 4, 2)).astype(np.float32),
      'film': rng.normal(size=(2, 3)).astype(np.float32),
  }

  @jax.jit
  def nll(batch):
    return objective(variables, batch, jax.random.key(0)).terms['nll'][0]

  for name in ('teacher', 'film'):
    other = {**batch, name: np.zeros_like(batch[name])}
    assert float(nll(other)) != pytest.approx(float(nll(batch)), rel=1e-6)
  context = {'local': batch['teacher'], 'film': batch['film']}
  bound = objective.bind(variables)
  bits = bound.bits_per_sample(batch['audio'], context=context).sum()
  assert bits * T * math.log(2) == pytest.approx(float(nll(batch)), rel=1e-5)
  audio = bound.generate(batch['audio'][:, :3], T / 100, context=context)
  assert audio.shape == (2, T, 1)


def test_generate_keeps_prompts_and_repeats_with_its_seed(bound, monkeypatch):
  prompt = _batch()['audio'][:2, :5]
  kwargs = {'num_samples': [5, 2], 'temperature': 0.5}
  audio = bound.generate(prompt, 0.2, **kwargs)
  assert audio.shape == (2, 20, 1) and audio.dtype == np.float32
  grid = waveform_heads.from_grid(waveform_heads.to_grid(prompt, 8), 8)
  np.testing.assert_array_equal(audio[0, :5], grid[0])
  np.testing.assert_array_equal(audio[1, :2], grid[1, :2])
  assert (audio[1, 2:5] != grid[1, 2:5]).any()
  np.testing.assert_array_equal(audio, bound.generate(prompt, 0.2, **kwargs))
  assert (audio != bound.generate(prompt, 0.2, seed=1, **kwargs)).any()
  # In runs of 4 samples: 18 of them, with the rest of a prompt in the first.
  monkeypatch.setattr(sample_lm, '_RUN', 4)
  np.testing.assert_array_equal(audio, bound.generate(prompt, 0.2, **kwargs))
  assert bound.generate(prompt[:, :0], 0.04).shape == (2, 4, 1)
  np.testing.assert_array_equal(bound.generate(prompt, 0.05), grid)


def test_a_session_fed_gives_the_scores_and_unfed_what_is_generated(bound):
  audio = _batch()['audio'][:2, :12]
  levels = np.asarray(waveform_heads.to_grid(audio, 8))
  session = bound.session(audio[:, :4], num_samples=[4, 4])
  session.step(8, levels[:, 4:])
  expected = bound.score(audio)['samples'].log_prob[:, 4:]
  np.testing.assert_allclose(session.log_prob, expected, rtol=1e-4, atol=1e-4)
  session = bound.session(audio[:, :4], num_samples=[4, 2], seed=5)
  drawn = [session.prompts, session.step(3), session.step(7)]
  drawn = waveform_heads.from_grid(np.concatenate(drawn, axis=1), 8)
  expected = bound.generate(audio[:, :4], 0.12, num_samples=[4, 2], seed=5)
  np.testing.assert_array_equal(drawn, expected)
  with pytest.raises(ValueError, match='temperature = '):
    bound.session(audio, temperature=-1.0)


@pytest.mark.parametrize(
    ('shape', 'num_samples', 'message'),
    [
        ((2, 3), None, r'expected \[B, T, 1\]'),
        ((2, 3, 2), None, r'expected \[B, T, 1\]'),
        ((1, 3, 1), [4], 'not within 3'),
        ((1, 3, 1), [1, 1], 'lengths'),
    ],
)
def test_wrong_input_is_refused(bound, shape, num_samples, message):
  with pytest.raises(ValueError, match=message):
    bound.score(np.zeros(shape), num_samples)


@pytest.mark.parametrize('value', [np.nan, np.inf, -1.0])
def test_numbers_out_of_range_are_refused(bound, value):
  none = np.zeros((1, 0, 1))
  with pytest.raises(ValueError, match='seconds = '):
    bound.generate(none, value)
  with pytest.raises(ValueError, match='temperature = '):
    bound.generate(none, 0.01, temperature=value)
  with pytest.raises(ValueError, match='int16: expected floats'):
    bound.score(np.zeros((1, 3, 1), np.int16))
  if not np.isfinite(value):
    with pytest.raises(ValueError, match='not finite'):
      bound.score(np.full((1, 3, 1), value))


def test_a_result_shorter_than_its_prompt_is_refused(bound):
  with pytest.raises(ValueError, match='2 samples < the prompt'):
    bound.generate(np.zeros((1, 3, 1)), 0.02)


@pytest.mark.parametrize(
    'name, value',
    [
        ('init_embeddings', True),
        ('load_balance', 0.1),
        ('lengths', {'frames': 9}),
    ],
)
def test_what_samples_do_not_have_is_refused(objective, name, value):
  with pytest.raises(config.ConfigError, match=f'config.objective.{name}'):
    dataclasses.replace(objective, **{name: value})


@pytest.mark.parametrize(
    'head',
    [
        {'kind': 'mu_law', 'classes': 64},
        {'kind': 'gaussian'},
    ],
    ids=lambda head: head['kind'],
)
def test_it_learns_to_predict_a_sine(head):
  """The bits of a sine's phase go; those of its noise, of 3 levels, stay."""
  objective = _objective(head=head)
  variables = _variables(objective)
  rng = np.random.default_rng(0)
  # Of a Gaussian of this deviation on the grid.
  entropy = math.log2(3 * math.sqrt(2 * math.pi * math.e))

  def batch(size):
    phase = rng.uniform(0, 2 * np.pi, (size, 1, 1))
    audio = 0.6 * np.sin(phase + 0.7 * np.arange(T)[:, None])
    audio = audio + 3 / 128 * rng.normal(size=audio.shape)
    return {
        'audio': audio.astype(np.float32),
        'num_samples': np.full(size, T, np.int32),
    }

  @jax.jit
  def step(variables, moments, batch, n):
    def total(variables):
      nll, count = objective(variables, batch, jax.random.key(0)).terms['nll']
      return nll / count

    gradient = jax.grad(total)(variables)
    # Adam: gradients of means are of another size than those of scales.
    moments = jax.tree.map(
        lambda m, g: (0.9 * m[0] + 0.1 * g, 0.99 * m[1] + 0.01 * g * g),
        moments,
        gradient,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    size = 0.02 * np.sqrt(1 - 0.99**100) / (1 + n / 100)
    return (
        jax.tree.map(
            lambda w, m: w - size * m[0] / (m[1] ** 0.5 + 1e-8),
            variables,
            moments,
        ),
        moments,
    )

  moments = jax.tree.map(lambda w: (0.0 * w, 0.0 * w), variables)
  for n in range(300):
    variables, moments = step(variables, moments, batch(32), float(n))
  held_out = batch(64)['audio']
  scores = objective.bind(variables).score(held_out)['samples']
  bits = -np.asarray(scores.log_prob)[..., 0].mean(axis=0) / math.log(2)
  assert bits[0] > 6.5
  assert (bits[4:] < entropy + 1.5).all()
  assert bits[4:].mean() > entropy
