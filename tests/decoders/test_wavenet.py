"""The stack's contract; scores whole and stepwise; the paper's equations."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import generation
from audiolm_jax.decoders import waveform_heads
from audiolm_jax.decoders import wavenet
from audiolm_jax.streaming import testing

_jit = functools.partial(jax.jit, compiler_options=testing.quick_options())


def _stack(**options):
  return wavenet.GatedStack(
      **{'width': 4, 'skip': 6, 'dilations': (1, 2, 4), 'cycles': 1, **options}
  )


SPEC = jax.ShapeDtypeStruct((4,), jnp.float32)


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'taps': 3, 'dilations': (1, 2), 'cycles': 2, 'remat': True},
        {'film': 3, 'local': 2, 'local_hop': 4, 'dilations': (1, 3)},
    ],
    ids=['plain', 'remat', 'conditioned'],
)
def test_contract(options):
  rng = np.random.default_rng(0)
  context = {
      'film': rng.normal(size=(3, 3)).astype(np.float32),
      # Fewer features than positions: the last one goes on.
      'local': rng.normal(size=(3, 2, 2)).astype(np.float32),
  }
  stack = _stack(**options)
  testing.assert_streaming_contract(
      stack, SPEC, context=context, blocks=stack.receptive_field + 2
  )


def test_the_receptive_field_is_exact():
  """What the contract bounds from above is reached."""
  stack = _stack(cycles=2)
  assert stack.receptive_field == 1 + 2 * 7
  mask = jnp.ones((1, 16), bool)
  x = jax.random.normal(jax.random.key(0), (1, 16, 4))
  params = _jit(stack.init)(jax.random.key(1), x, mask)

  def last(x):
    return stack.apply(params, x, mask)[0][0, -1].sum()

  moved = np.abs(_jit(jax.grad(last))(x)[0]).sum(axis=1) > 0
  np.testing.assert_array_equal(moved, np.arange(16) >= 1)


def test_the_equations_of_the_paper():
  """In numpy, sample by sample and tap by tap, with both conditions."""
  stack = _stack(film=3, local=2, local_hop=2, dilations=(1, 2))
  rng = np.random.default_rng(0)
  x = rng.normal(size=(1, 7, 4)).astype(np.float32)
  film = rng.normal(size=(1, 3)).astype(np.float32)
  local = rng.normal(size=(1, 4, 2)).astype(np.float32)
  context, mask = {'film': film, 'local': local}, np.ones((1, 7), bool)
  params = nn.meta.unbox(_jit(stack.init)(jax.random.key(0), x, mask, context))[
      'params'
  ]
  params = jax.tree.map(
      lambda p: (p + 0.1 * rng.normal(size=p.shape)).astype(np.float32), params
  )
  actual, _ = stack.apply({'params': params}, x, mask, context)

  value, total = x[0].astype(float), 0.0
  for name, dilation in (('layer_0', 1), ('layer_1', 2)):
    p = jax.tree.map(lambda w: np.asarray(w, float), params[name])
    z = np.zeros((7, 8))
    for n in range(7):
      z[n] = p['conv']['bias'] + film[0] @ p['film_kernel']
      z[n] += (
          local[0, n // 2] @ p['local_kernel']
          + value[n] @ p['conv']['kernel'][1]
      )
      if n >= dilation:
        z[n] += value[n - dilation] @ p['conv']['kernel'][0]
    z = np.tanh(z[:, :4]) / (1 + np.exp(-z[:, 4:]))
    mixed = z @ p['mix_kernel'] + p['mix_bias']
    if name == 'layer_0':
      value = value + mixed[:, :4]
    total = total + mixed[:, -6:]
  assert params['layer_1']['mix_kernel'].shape == (4, 6)
  np.testing.assert_allclose(actual[0], total / 2**0.5, rtol=1e-4, atol=1e-5)


def test_a_missing_or_wrong_condition_is_named():
  x, mask = jnp.zeros((1, 3, 4)), jnp.ones((1, 3), bool)
  for context in (None, {'film': jnp.zeros((1, 2))}):
    with pytest.raises(ValueError, match=r"context\['film'\]"):
      jax.eval_shape(_stack(film=3).init, jax.random.key(0), x, mask, context)


def _model(head, **options):
  options = {'bits': 8, 'stack': _stack(film=2), **options}
  return wavenet.WaveNet(head=head, **options)


MODELS = {
    'mu_law': _model(waveform_heads.MuLaw(16), inputs='classes'),
    'logistics': _model(waveform_heads.Logistics(mixtures=2), channels=2),
    'gaussian': _model(waveform_heads.Gaussian(), bits=16),
}

FULL = np.array([20, 20, 20])


def _score(model):
  return lambda *inputs: model.apply(*inputs, method='score')['samples']


class _Case:
  """A model with parameters away from their start, and samples."""

  def __init__(self, name):
    self.model = MODELS[name]
    half = 2 ** (self.model.bits - 1)
    rng = np.random.default_rng(0)
    shape = (3, 20, self.model.channels)
    self.samples = rng.integers(-half, half, shape).astype(np.int32)
    self.num_samples = np.array([20, 11, 0])
    self.context = {'film': rng.normal(size=(3, 2)).astype(np.float32)}
    init = functools.partial(self.model.init, method='score')
    params = _jit(init)(
        jax.random.key(0), self.samples, self.num_samples, self.context
    )['params']
    self.params = jax.tree.map(
        lambda p: p + 0.2 * rng.normal(size=p.shape).astype(np.float32),
        nn.meta.unbox(params),
    )
    self.score = _jit(_score(self.model))

  def scores(self, samples=None, num_samples=None):
    samples = self.samples if samples is None else samples
    num_samples = self.num_samples if num_samples is None else num_samples
    return self.score(
        {'params': self.params}, samples, num_samples, self.context
    )


@pytest.fixture(scope='module', params=sorted(MODELS))
def case(request):
  return _Case(request.param)


def test_scores_of_padded_rows(case):
  scores = case.scores()
  assert case.model.tag == 'exact'
  assert scores.log_prob.shape == scores.mask.shape == case.samples.shape
  valid = np.arange(20) < case.num_samples[:, None]
  np.testing.assert_array_equal(
      scores.mask, np.broadcast_to(valid[..., None], case.samples.shape)
  )
  assert (scores.log_prob[~scores.mask] == 0).all()
  assert (scores.log_prob[scores.mask] < 0).all()
  # What stands past the end changes nothing; a row alone is scored the same.
  other = np.where(valid[..., None], case.samples, 10**6)
  np.testing.assert_array_equal(case.scores(other).log_prob, scores.log_prob)
  full = case.scores(num_samples=FULL)
  np.testing.assert_allclose(
      full.log_prob[1, :11], scores.log_prob[1, :11], rtol=1e-5
  )


def test_the_future_is_unseen_and_the_past_is_seen(case):
  base = np.asarray(case.scores(num_samples=FULL).log_prob)
  moved = np.array(case.samples)
  moved[:, 9] = -moved[:, 9] - 1
  change = np.asarray(case.scores(moved, FULL).log_prob) != base
  change = change.any(axis=(0, 2))
  assert not change[:9].any()
  assert change[9] and change[10:17].any()
  # The receptive field is 8 inputs: samples 10 to 17 see sample 9.
  assert not change[18:].any()


def test_probabilities_of_a_sample_given_the_past_add_up_to_1(case):
  """By enumeration through `score` itself, of one channel."""
  model = case.model
  levels = np.arange(-(2 ** (model.bits - 1)), 2 ** (model.bits - 1))
  rows = np.repeat(case.samples[:1, :4], len(levels), axis=0)
  rows[:, 3, 0] = levels
  context = {'film': np.repeat(case.context['film'][:1], len(levels), axis=0)}
  log_prob = case.score(
      {'params': case.params}, rows, np.full(len(levels), 4), context
  ).log_prob[:, 3, 0]
  total = np.exp(np.asarray(log_prob, np.float64)).sum()
  assert total == pytest.approx(1, abs=2e-5)


def _session(case, prompt=0, temperature=1.0, seed=3, lengths=None):
  """Samples after a prompt."""
  if lengths is None:
    lengths = np.full(3, prompt)
  return generation.SampleSession(
      case.model,
      case.params,
      case.samples[:, :prompt],
      lengths,
      jax.random.key(seed),
      temperature,
      case.context,
  )


def _both(session, *known):
  """Two blocks one after the other: (samples, log-probabilities)."""
  outputs = []
  for now in (slice(0, 7), slice(7, 20)):
    size = now.stop - now.start
    samples = session.step(size, *(x[:, now] for x in known))
    outputs.append((samples, session.log_prob))
  return [np.concatenate(x, axis=1) for x in zip(*outputs, strict=True)]


def test_stepwise_log_probs_are_the_teacher_forced_ones(case):
  expected = case.scores(num_samples=FULL).log_prob
  samples, log_prob = _both(_session(case), case.samples)
  np.testing.assert_array_equal(samples, case.samples)
  np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=1e-4)
  # A prompt taken in at once.
  session = _session(case, 10)
  np.testing.assert_array_equal(session.prompts, case.samples[:, :10])
  session.step(10, case.samples[:, 10:])
  np.testing.assert_allclose(
      session.log_prob, expected[:, 10:], rtol=1e-4, atol=1e-4
  )


def test_what_is_drawn_is_scored_and_what_is_given_kept(case):
  given = np.zeros((3, 20), bool)
  given[:, :4] = given[1, 10] = True
  session = _session(case)
  samples, log_prob = _both(session, case.samples, given)
  kept = given[..., None] & np.ones_like(case.samples, bool)
  np.testing.assert_array_equal(samples[kept], case.samples[kept])
  assert (samples[~kept] != case.samples[~kept]).mean() > 0.5
  scores = case.scores(samples, FULL)
  np.testing.assert_allclose(log_prob, scores.log_prob, rtol=1e-4, atol=1e-4)
  session.reset()
  again, _ = _both(session, case.samples, given)
  np.testing.assert_array_equal(again, samples)


def test_a_row_of_samples_depends_on_its_own_prompt_alone(case):
  """However long the others' are, and whichever rows restart."""
  lengths = np.array([6, 4, 5])
  session = _session(case, 6, lengths=lengths)
  assert session.prompts.shape[1] == 4
  whole = np.concatenate([session.prompts, session.step(16)], axis=1)
  for row, length in enumerate(lengths):
    np.testing.assert_array_equal(
        whole[row, :length], case.samples[row, :length]
    )
  alone = _session(case, 6, lengths=np.array([6, 2, 0]))
  alone = np.concatenate([alone.prompts, alone.step(20)], axis=1)
  np.testing.assert_array_equal(alone[0], whole[0])
  assert (alone[1:] != whole[1:]).any()
  session.reset(np.array([False, True, False]))
  assert session.entered.tolist() == [20, 4, 20]
  np.testing.assert_array_equal(session.step(8)[1], whole[1, 4:12])


def test_samples_that_no_session_takes_are_refused(case):
  session = _session(case)
  with pytest.raises(ValueError, match='expected'):
    session.step(2, case.samples[:, :3])
  with pytest.raises(ValueError, match='99999 is not in'):
    session.step(2, np.full_like(case.samples[:, :2], 99999))


def test_only_temperature_0_ignores_the_key(case):
  for temperature, same in ((0.0, True), (1.0, False)):
    one, other = (
        _session(case, 10, temperature, seed).step(10) for seed in (3, 9)
    )
    assert (one == other).all() == same


def test_activations_in_bfloat16_probabilities_in_float32():
  case = _Case('mu_law')
  model = case.model.clone(dtype='bfloat16')
  score = _jit(_score(model))
  variables = {'params': case.params}
  found = score(variables, case.samples, case.num_samples, case.context)
  expected = case.scores()
  assert found.log_prob.dtype == jnp.float32
  assert (found.log_prob != expected.log_prob).any()
  np.testing.assert_allclose(found.log_prob, expected.log_prob, atol=0.1)
