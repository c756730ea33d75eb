"""Conditions: each kind in each place, padded, dropped, stepped, and guided."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import generation
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.data import factors
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.patterns import coarse_first
from audiolm_jax.patterns import interleaving
from audiolm_jax.streaming import testing
from tests.decoders import small
from tests.generation import quick

V, F, K = 3, 4, 2
HOW = ('prefix', 'add', 'film', 'cross')
SOURCES = {
    'class': factors.Name(('it', 'en', 'de')),
    'codes': factors.Codes((3, 3), length=3),
    'number': factors.Number(0.0, 4.0),
    'text': factors.Text(length=5),
    'vector': factors.Vector(3),
}
# Of three rows; the last is not conditioned by all.
VALUES = {
    'class': ['en', 'it', None],
    'codes': [np.array([[1, 2]]), np.array([[0, 1], [2, 2], [1, 0]]), None],
    'number': [0.5, 4.0, None],
    'text': ['abc', 'x', 'uvwx'],
    'vector': [np.array([1, 0.5, -1]), np.array([-2, 1, 0]), None],
}
OTHERS = {
    'class': 'de',
    'codes': np.array([[0, 2], [1, 1]]),
    'number': 0.6,
    'text': 'ac',
    'vector': np.array([0, -1, 2.0]),
}
CODES = np.random.default_rng(0).integers(0, V, (3, F, K)).astype(np.int32)
LENGTHS = np.array([F, F, F - 1], np.int32)


def _stack(how, **options):
  if 'cross' in how:
    options['cross'] = attention.Cross(heads=2)
  return small.stack(adaptive='film' if 'film' in how else 'none', **options)


def _make(how, pattern=None, **options):
  """A decoder with a condition of each kind; `how` of one, or of each."""
  how = dict.fromkeys(SOURCES, how) if isinstance(how, str) else how
  modules = {
      kind: conditioners.CONDITIONERS[kind](how=how[kind], source=SOURCES[kind])
      for kind in how
  }
  return decoder_lib.Decoder(
      (V,) * K,
      pattern=pattern or interleaving.Delay(),
      backbone=_stack(how.values(), **options),
      conditions=modules,
  )


def _prepared(values=VALUES):
  return {kind: SOURCES[kind].prepare(rows) for kind, rows in values.items()}


def _scorer(decoder):
  score = small.scorer(decoder)
  return lambda params, codes, lengths, conditions: score(
      params, codes, lengths, None, conditions
  )


def _params(decoder, conditions):
  return small.parameters(decoder, CODES, LENGTHS, None, conditions)


@pytest.fixture(scope='module', params=HOW)
def model(request):
  decoder = _make(request.param)
  return decoder, _params(decoder, _prepared()), _scorer(decoder)


def _close(a, b):
  return np.isclose(a, b, rtol=1e-5, atol=1e-6)


def test_every_kind_is_tested_here():
  # What is of frames acts otherwise: test_aligned_conditions.py.
  kinds = {*SOURCES, 'aligned'}
  assert kinds == set(conditioners.CONDITIONERS)
  kinds = {type(source) for source in SOURCES.values()} | {factors.Aligned}
  assert kinds == set(factors.FACTORS.values())


def test_each_condition_moves_every_step_of_its_row_alone(model):
  decoder, params, score = model
  plain = score(params, CODES, LENGTHS, _prepared())
  mask = np.asarray(plain.mask)
  for kind, row in itertools.product(SOURCES, range(3)):
    rows = list(VALUES[kind])
    rows[row] = OTHERS[kind]
    changed = _prepared({**VALUES, kind: rows})
    found = score(params, CODES, LENGTHS, changed).log_prob
    moved = np.abs(np.asarray(found) - np.asarray(plain.log_prob))
    # Attention may look elsewhere: some steps hardly move.
    own = moved[row][mask[row]]
    assert (own > 0).all() and own.max() > 1e-3, (kind, row)
    assert np.delete(moved, row, axis=0).max() < 1e-6, (kind, row)


def test_what_is_past_a_length_counts_nothing(model):
  """In as many positions, or in more of them."""
  decoder, params, score = model
  plain = score(params, CODES, LENGTHS, _prepared()).log_prob
  for extra in (0, 2):
    padded = {}
    for kind, arrays in _prepared().items():
      values = np.array(arrays['values'])
      values = np.concatenate([values] + [values[:, :1]] * extra, axis=1)
      past = np.arange(values.shape[1]) >= arrays['lengths'][:, None]
      values[past] = np.nan if kind in ('number', 'vector') else 10**6
      padded[kind] = {'values': values, 'lengths': arrays['lengths']}
    found = score(params, CODES, LENGTHS, padded).log_prob
    np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-6)


def test_no_condition_is_the_null_one_exactly(model):
  decoder, params, score = model
  conditions = _prepared()
  dropped = {
      kind: {**arrays, 'lengths': 0 * arrays['lengths']}
      for kind, arrays in conditions.items()
  }
  nothing = {k: s.prepare([None] * 3) for k, s in SOURCES.items()}
  found = [
      score(params, CODES, LENGTHS, given).log_prob
      for given in (dropped, nothing)
  ]
  np.testing.assert_array_equal(*found)
  # A single vector, whatever the kind: a class whose vector is that one.
  null = params['conditions_class']['null']
  table = np.array(params['conditions_class']['table'])
  table[2] = null
  equal = {**params, 'conditions_class': {'null': null, 'table': table}}
  rows = _prepared({'class': ['de'] * 3})
  found = score(equal, CODES, LENGTHS, {**nothing, **rows}).log_prob
  wanted = score(params, CODES, LENGTHS, nothing).log_prob
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_parameters_are_those_in_use(model):
  decoder, params, _ = model
  names = {
      name.removeprefix('conditions_'): set(tree)
      for name, tree in params.items()
      if name.startswith('conditions')
  }
  assert names == {
      'class': {'null', 'table'},
      'codes': {'null', 'table'},
      'number': {'null', 'out'},
      'text': {'null', 'table'},
      'vector': {'null', 'out'},
  }
  assert set(params) - {f'conditions_{name}' for name in names} == {
      'backbone',
      'embedding',
      'head',
  }


def _stepwise(decoder):
  """(params, codes, lengths, conditions) -> log_prob [B, F, K]."""

  @small.quick_jit
  def run(params, codes, lengths, conditions):
    batch, frames, slots = codes.shape
    context = decoder.apply(
        {'params': params}, conditions, batch, method='context'
    )
    given = generation.generate(
        decoder,
        params,
        codes,
        jnp.ones(codes.shape, bool),
        lengths,
        jax.random.key(0),
        generation.Sampler(),
        context=context,
    )
    return given.log_prob

  return run


def test_steps_are_the_whole(model):
  decoder, params, score = model
  expected = score(params, CODES, LENGTHS, _prepared())
  found = _stepwise(decoder)(params, CODES, LENGTHS, _prepared())
  np.testing.assert_allclose(found, expected.log_prob, rtol=1e-4, atol=1e-5)


EACH = {
    'text': 'prefix',
    'class': 'add',
    'number': 'add',
    'vector': 'film',
    'codes': 'cross',
}


@pytest.fixture(scope='module')
def mixed():
  """Every `how` at once."""
  decoder = _make(EACH)
  return decoder, _params(decoder, _prepared())


def test_generation_is_conditioned_and_guided(mixed):
  """Scale 1 is with conditions, 0 without; prompts at once or by steps."""
  decoder, params = mixed
  conditions = _prepared()
  context, null = small.quick_jit(
      lambda conditions: (
          decoder.apply({'params': params}, conditions, 3, method='context'),
          decoder.apply({'params': params}, None, 1, method='context'),
      )
  )(conditions)
  mask = np.zeros(CODES.shape, bool)
  mask[:2, :2] = True
  hot = generation.Sampler(temperature=2.0)

  def run(prompt=0, **options):
    return quick.generate(
        decoder,
        params,
        CODES,
        mask,
        LENGTHS,
        jax.random.key(0),
        hot,
        prompt,
        **options,
    )

  plain = run(context=context)
  score = _scorer(decoder)
  codes = np.asarray(plain.codes)
  expected = score(params, codes, LENGTHS, conditions).log_prob
  np.testing.assert_allclose(plain.log_prob, expected, rtol=1e-4, atol=1e-5)
  guided = {'context': context, 'null_context': null}
  found = run(2, guidance=jnp.float32(1.0), **guided)
  np.testing.assert_array_equal(found.codes, codes)
  nothing = jax.tree.map(lambda x: jnp.repeat(x, 3, axis=0), null)
  wanted = run(context=nothing)
  found = run(2, guidance=jnp.float32(0.0), **guided)
  np.testing.assert_array_equal(found.codes, wanted.codes)
  assert (np.asarray(wanted.codes) != codes).any()


def test_a_prefix_stays_in_sight_of_a_stream():
  """Steps with a short cache are the whole form with a window that keeps it."""
  cache_length, frames = 2, 7
  how = {'text': 'prefix', 'class': 'prefix'}
  decoder = _make(how, interleaving.Parallel())
  window = {'window': cache_length, 'sink_tokens': 6}
  whole = _make(how, interleaving.Parallel(), mixer=window)
  # All of the positions that prefixes may have.
  conditions = _prepared({'text': ['abcd'] * 2, 'class': ['it', 'en']})
  codes = np.resize(CODES, (2, frames, K))
  lengths = np.full(2, frames, np.int32)
  params = _params(decoder, _prepared({k: VALUES[k] for k in how}))
  context = decoder.apply({'params': params}, conditions, 2, method='context')
  found = quick.generate(
      decoder,
      params,
      codes,
      np.ones(codes.shape, bool),
      lengths,
      jax.random.key(0),
      generation.Sampler(),
      context=context,
      cache_length=cache_length,
  ).log_prob
  expected = _scorer(whole)(params, codes, lengths, conditions).log_prob
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  # It matters at the last step, which lies beyond the cache.
  other = _prepared({'text': ['abcd'] * 2, 'class': ['de', 'de']})
  changed = _scorer(whole)(params, codes, lengths, other).log_prob
  assert (np.abs(changed - expected)[:, -1] > 1e-5).all()


def test_prefixes_before_steps_that_are_packed():
  """Rows of a padded batch have the scores that they have alone."""
  how = {'text': 'prefix', 'class': 'prefix'}
  decoder = _make(how, coarse_first.CoarseFirst())
  values = {kind: VALUES[kind] for kind in how}
  params = _params(decoder, _prepared(values))
  score = small.score(decoder)
  lengths = np.array([2, F, 3], np.int32)
  batch = score(params, CODES, lengths, None, _prepared(values))
  row = {kind: rows[2:] for kind, rows in values.items()}
  alone = score(params, CODES[2:, :3], lengths[2:], None, _prepared(row))
  np.testing.assert_allclose(
      alone['frames'].log_prob,
      batch['frames'].log_prob[2:, :3],
      rtol=1e-5,
      atol=1e-6,
  )
  # Losses of a backbone are sums over all of its positions: a text of 5 ids,
  # nothing (one vector), and 3 frames of 2 slots.
  assert int(alone.steps[0]) == int(batch.steps[2]) == 5 + 1 + 6


def test_logits_and_gradients_see_conditions(mixed):
  """Every parameter of a condition is in use."""
  decoder, params = mixed

  @small.quick_jit
  @jax.grad
  def gradient(params):
    scores = decoder.apply(
        {'params': params},
        CODES,
        LENGTHS,
        conditions=_prepared(),
        method='score',
    )
    return scores['frames'].log_prob.sum()

  found = gradient(params)
  for name in SOURCES:
    for key, leaf in found[f'conditions_{name}'].items():
      # All rows have a text.
      unused = (name, key) == ('text', 'null')
      assert unused == (np.abs(leaf).max() == 0), (name, key)
  one = decoder_lib.Decoder(
      (V,),
      pattern=interleaving.Flatten(),
      backbone=_stack(['prefix']),
      conditions={
          'class': conditioners.Class(how='prefix', source=SOURCES['class'])
      },
  )
  ids = CODES[..., 0]
  rows = [_prepared({'class': [name] * 3}) for name in ('it', 'en')]
  params = small.parameters(one, ids, None, None, rows[0], method='logits')
  a, b = [
      one.apply({'params': params}, ids, conditions=conditions, method='logits')
      for conditions in rows
  ]
  assert a.shape == (3, F, V) and not _close(a, b).all(axis=2).any()


def test_dropout_drops_rows_where_it_has_an_rng():
  lengths = np.ones(400, np.int32)
  values = np.resize(np.arange(3), (400, 1))

  def run(dropout, seed=None):
    module = conditioners.Class(dropout=dropout, source=SOURCES['class'])
    rngs = {} if seed is None else {'conditions': jax.random.key(seed)}
    return np.asarray(
        module.apply(
            {'params': params}, values, lengths, 4, jnp.float32, rngs=rngs
        ).x
    )

  module = conditioners.Class(source=SOURCES['class'])
  params = module.init(jax.random.key(0), values, lengths, 4, jnp.float32)[
      'params'
  ]
  params = jax.tree.map(lambda w: w.value, params, is_leaf=_boxed)
  kept = run(0.0)
  np.testing.assert_array_equal(run(0.0, 1), kept)
  np.testing.assert_array_equal(run(1.0), kept)
  null = np.broadcast_to(params['null'], kept.shape)
  np.testing.assert_array_equal(run(1.0, 1), null)
  found = run(0.3, 1)
  dropped = (found == null).all(axis=(1, 2))
  np.testing.assert_array_equal(found[~dropped], kept[~dropped])
  assert dropped.mean() == pytest.approx(0.3, abs=0.08)
  assert (run(0.3, 2) != found).any()


def _boxed(leaf):
  return hasattr(leaf, 'unbox')


@pytest.mark.parametrize('how', ['film', 'cross'])
def test_an_encoder_knows_the_order_of_a_text(how):
  """Without one, only positions of cross-attention do."""
  texts = SOURCES['text'].prepare(['abc', 'cba'])
  stack = small.stack(4, mixer={'mask_kind': 'bidirectional'}, final_norm=False)
  for encoder in (None, stack):
    module = conditioners.Text(how=how, encoder=encoder, source=SOURCES['text'])
    inputs = (texts['values'], texts['lengths'], 8, jnp.float32)
    params = small.parameters(module, *inputs, method='__call__')
    assert set(params) == {'null', 'table'} | (
        {'encoder', 'out'} if encoder else set()
    )
    vectors = module.apply({'params': params}, *inputs)
    assert vectors.x.shape == (2, 5, 8)
    mean = conditioners.context([('add', vectors)])['add']
    same = _close(mean[0], mean[1]).all()
    assert same == (encoder is None), how
    # Cross-attention sees a set of vectors; is it the same one?
    a, b = (sorted(map(tuple, np.round(x[:4], 4))) for x in vectors.x)
    assert (a == b) == (encoder is None and how != 'cross')


@pytest.mark.parametrize(
    ('how', 'backbone', 'message'),
    [
        ('cross', {'adaptive': 'film'}, "class acts by 'cross'.*lacks 'cross'"),
        ('film', {'cross': attention.Cross(2)}, "'film'.*lacks 'adaptive'"),
    ],
)
def test_backbones_must_take_in_what_conditions_give(how, backbone, message):
  module = conditioners.Class(how=how, source=SOURCES['class'])
  decoder = decoder_lib.Decoder(
      (V,) * K,
      backbone=small.stack(**backbone),
      conditions={'class': module},
  )
  with pytest.raises(config.ConfigError, match=message):
    _params(decoder, _prepared({'class': VALUES['class']}))


def test_a_backbone_may_take_more_than_conditions_give():
  """As a diffusion does: a text by cross-attention, its own time by FiLM."""
  text = conditioners.Text(source=SOURCES['text'], how='cross')
  decoder = decoder_lib.Decoder(
      (V,) * K,
      backbone=small.stack(
          adaptive='adaln_zero', cross=attention.Cross(heads=2)
      ),
      conditions={'text': text},
  )
  given = _prepared({'text': VALUES['text']})

  def log_prob(module, time):
    context = module.context(given, 3)
    if time is not None:
      context['film'] = time
    scores = module.score(CODES, LENGTHS, context=context)
    return scores['frames'].log_prob

  time = np.array([[0.1], [0.2], [0.3]], np.float32)
  key = jax.random.key(0)
  variables = jax.jit(
      lambda: nn.meta.unbox(decoder.init(key, time, method=log_prob)),
      compiler_options=testing.quick_options(),
  )()
  # Zero at the start: move all weights, so that what is there acts.
  variables = jax.tree.map(lambda w: w + 0.1, variables)
  apply = jax.jit(
      lambda time: decoder.apply(variables, time, method=log_prob),
      compiler_options=testing.quick_options(),
  )
  moved = np.abs(apply(time) - apply(time * np.array([[2], [1], [1]]))) > 1e-5
  assert moved[0].any() and not moved[1:].any()
  with pytest.raises(ValueError, match=r"'adaptive' takes context\['film'\]"):
    jax.eval_shape(lambda: decoder.apply(variables, None, method=log_prob))


def test_conditions_that_are_not_there_are_refused(mixed):
  decoder, params = mixed
  variables = {'params': params}
  with pytest.raises(ValueError, match="'tempo'.*'class', 'codes', 'number'"):
    decoder.apply(variables, {'tempo': {}}, 1, method='context')
  plain = decoder_lib.Decoder((V,) * K, backbone=small.stack())
  with pytest.raises(ValueError, match='of a decoder without'):
    _params(plain, _prepared())
  state = decoder.initial_state(1, 4)
  none = np.zeros((1, 1, K), np.int32)
  with pytest.raises(ValueError, match='need a context'):
    decoder.apply(
        variables, state, none, none, none.astype(bool), method='extend'
    )


def test_a_decoder_comes_back_from_its_config():
  decoder = _make(EACH)
  values = config.to_config(decoder)
  again = config.build(decoder_lib.Decoder, values)
  assert again == decoder and hash(again) == hash(decoder)
