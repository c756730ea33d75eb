"""Rows of a masked decoder: what is given stays, the rest is as planned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.data import factors
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import masked as masked_lib
from audiolm_jax.generation import sampling
from audiolm_jax.generation import unmask
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import unmasking
from tests.decoders import small

V, K, F = (5, 4), 2, 6
GREEDY = sampling.Sampler(temperature=0.0)
PLANS = {
    'random': unmask.Plan(unmasking.RandomOrder(), 3, 'linear'),
    'remasked': unmask.Plan(unmasking.RandomOrder(0.5), 4),
    'confidence': unmask.Plan(steps=4, temperature_end=0.5),
    'spans': unmask.Plan(unmasking.SpanOrder(2), 3),
    'greedy': unmask.Plan(steps=2, sampler=GREEDY),
}


def make(**options):
  mixer = {'mask_kind': 'bidirectional'}
  decoder = masked_lib.Masked(
      V, options.pop('backbone', small.stack(mixer=mixer)), **options
  )
  batch = decoder.example_batch(1, {'frames': F})
  return decoder, small.parameters(decoder, *decoder.read(batch))


MODELS = {'all': make(), 'stages': make(stages=((1,), (0,)))}
# Each plan with one of the models, to compile less.
every_plan = pytest.mark.parametrize(
    'name, plan',
    [
        ('all', PLANS['random']),
        ('stages', PLANS['remasked']),
        ('all', PLANS['confidence']),
        ('stages', PLANS['spans']),
        ('stages', PLANS['greedy']),
    ],
    ids=PLANS,
)
every_model = pytest.mark.parametrize('name', MODELS)


def generate(name, known, mask, lengths, plans, seed=0, **options):
  decoder, params = MODELS[name]
  return np.asarray(
      unmask.generate(
          decoder,
          params,
          known,
          mask,
          lengths,
          jax.random.key(seed),
          plans,
          **options,
      )
  )


def rows(seed=0):
  rng = np.random.default_rng(seed)
  known = rng.integers(0, min(V), (3, F, K))
  return known, rng.random((3, F, K)) < 0.4, np.array([F, 2, 4])


@every_plan
def test_given_codes_stay_and_drawn_ones_exist(name, plan):
  known, mask, lengths = rows()
  codes = generate(name, known, mask, lengths, [plan])
  valid = np.arange(F)[:, None] < lengths[:, None, None]
  np.testing.assert_array_equal(codes[mask & valid], known[mask & valid])
  assert not codes[~np.broadcast_to(valid, codes.shape)].any()
  assert (codes >= 0).all() and (codes < np.array(V)).all()
  # An empty mask and a full one.
  np.testing.assert_array_equal(
      generate(name, known, mask | True, lengths, [plan]),
      np.where(valid, known, 0),
  )
  nothing = generate(name, known, mask & False, lengths, [plan])
  # What is not known is not looked at, out of range or not.
  other = generate(name, known + 70, mask & False, lengths, [plan])
  np.testing.assert_array_equal(nothing, other)
  again = generate(name, known, mask & False, lengths, [plan], seed=1)
  assert (nothing != again).any() or plan.sampler == GREEDY


@every_plan
def test_padding_and_neighbours_change_nothing(name, plan):
  known, mask, lengths = rows()
  batch = generate(name, known, mask, lengths, [plan])
  padding = ((0, 0), (0, 2), (0, 0))
  longer = generate(
      name, np.pad(known, padding), np.pad(mask, padding), lengths, [plan]
  )
  np.testing.assert_array_equal(longer[:, :F], batch)
  # Without the rows behind it.
  first = generate(name, known[:1], mask[:1], lengths[:1], [plan])
  np.testing.assert_array_equal(first, batch[:1])


@every_model
def test_random_order_in_one_step_has_the_models_own_distribution(name):
  """Of each place, given what is known and the stages before."""
  decoder, params = MODELS[name]
  rows_, known = 4000, np.zeros((1, 3, K), int)
  mask = np.zeros((1, 3, K), bool)
  mask[0, 1] = True
  many = [np.broadcast_to(x, (rows_, 3, K)) for x in (known, mask)]
  plan = unmask.Plan(unmasking.RandomOrder(), 1)
  codes = generate(name, *many, np.full(rows_, 3), [plan])
  slot = decoder.order[0][0]
  logits = decoder.apply(
      {'params': params},
      known,
      ~mask,
      np.array([3]),
      np.array([0]),
      method='logits',
  )
  expected = np.asarray(jax.nn.softmax(logits[0, 0, slot]))
  shares = np.bincount(codes[:, 0, slot], minlength=max(V)) / rows_
  np.testing.assert_allclose(shares, expected, atol=0.03)
  assert np.abs(expected - 1 / len(expected)).max() > 0.06


def test_greedy_stages_are_the_likeliest_codes_given_the_stage_before():
  decoder, params = MODELS['stages']
  known, lengths = np.zeros((2, F, K), int), np.full(2, F)
  plans = [PLANS['random'], unmask.Plan(steps=1, sampler=GREEDY)]
  codes = generate('stages', known, known > 0, lengths, plans)
  hidden = np.broadcast_to(np.arange(K) == 0, codes.shape)
  logits = decoder.apply(
      {'params': params},
      codes,
      hidden,
      lengths,
      np.ones(2, int),
      method='logits',
  )
  np.testing.assert_array_equal(codes[..., 0], logits[..., 0, :].argmax(-1))
  # The first stage is that of a plan for both.
  both = generate('stages', known, known > 0, lengths, plans[:1])
  np.testing.assert_array_equal(codes[..., 1], both[..., 1])


def test_temperature_falls_to_its_end():
  """The last of many steps draws at almost none."""
  logits = jnp.array([0.0, 1.0]) * jnp.ones((2000, 1, 1, 1))
  keys = noise_lib.row_keys(jax.random.key(0), jnp.arange(2000))
  keys = keys[:, None, None]
  plan = unmask.Plan(temperature_end=0.0)
  for t in (1.0, 0.5, 0.1):
    share = float(unmask._choose(plan, logits, keys, jnp.float32(t)).mean())
    assert share == pytest.approx(1 / (1 + np.exp(-1 / t)), abs=0.03)


def test_conditions_are_followed_and_guided():
  source = factors.Name(('a', 'b'))
  module = conditioners.Class(how='add', source=source)
  decoder, params = make(conditions={'name': module})

  def context(names):
    conditions = {'name': source.prepare(names)}
    return decoder.apply(
        {'params': params}, conditions, len(names), method='context'
    )

  nothing = np.zeros((2, F, K), int)

  def run(**options):
    plan = options.pop('plan', PLANS['greedy'])
    return np.asarray(
        unmask.generate(
            decoder,
            params,
            nothing,
            nothing > 0,
            np.full(2, F),
            jax.random.key(0),
            [plan],
            **options,
        )
    )

  both = context(['a', 'b'])
  none = context([None, None])
  plain = run(context=both)
  assert (plain[0] != plain[1]).any()
  same = run(context=both, null_context=none, guidance=1.0)
  np.testing.assert_array_equal(plain, same)
  unconditional = run(context=both, null_context=none, guidance=0.0)
  np.testing.assert_array_equal(unconditional, run(context=none))
  assert (unconditional != plain).any()
  # On the side of the condition: the other sign is another result.
  more = run(context=both, null_context=none, guidance=4.0)
  assert (more != run(context=both, null_context=none, guidance=-4.0)).any()
  # Falling to 1 is as without at the last step only.
  one = unmask.Plan(steps=1, sampler=GREEDY, guidance_end=1.0)
  np.testing.assert_array_equal(
      run(context=both, null_context=none, guidance=4.0, plan=one),
      run(
          context=both,
          null_context=none,
          guidance=4.0,
          plan=unmask.Plan(steps=1, sampler=GREEDY),
      ),
  )


def test_guidance_falls_with_what_is_hidden():
  decoder, _ = MODELS['all']
  process = masked_lib.process(decoder, 'cosine')
  plan = unmask.Plan(guidance_end=1.0)
  t = jnp.array([1.0, 0.5])
  found = unmask._scale(plan, process, 10.0, t)
  hidden = np.sin(np.pi / 2 * np.array([1.0, 0.5]))
  np.testing.assert_allclose(
      found[:, 0, 0, 0], 10 * hidden + 1 - hidden, rtol=1e-6
  )


@pytest.mark.parametrize(
    'options, message',
    [
        ({'sampler': sampling.Sampler(repetition_window=3)}, 'no past'),
        ({'sampler': GREEDY, 'temperature_end': 0.5}, 'nothing'),
        ({'steps': 0}, 'at least 1'),
        ({'temperature_end': 1.5}, 'share'),
    ],
)
def test_plans_that_mean_nothing_are_refused(options, message):
  with pytest.raises(config.ConfigError, match=message):
    unmask.Plan(**options)


def test_what_does_not_fit_is_refused():
  known, mask, lengths = rows()
  plan = unmask.Plan(steps=1)
  with pytest.raises(ValueError, match='2 plans for 1'):
    generate('all', known, mask, lengths, [plan, plan])
  with pytest.raises(ValueError, match='0 plans'):
    generate('all', known, mask, lengths, [])
  with pytest.raises(ValueError, match='null_context'):
    generate('all', known, mask, lengths, [plan], guidance=2.0)
  with pytest.raises(ValueError, match='null_context'):
    falling = unmask.Plan(steps=1, guidance_end=1.0)
    generate('all', known, mask, lengths, [falling])
  with pytest.raises(ValueError, match='mask'):
    generate('all', known, mask[:, :3], lengths, [plan])
  with pytest.raises(ValueError, match='codes'):
    generate('all', known + 9, mask, lengths, [plan])
  with pytest.raises(ValueError, match='length|frames'):
    generate('all', known, mask, lengths + 9, [plan])
