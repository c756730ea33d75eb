"""A masked decoder bounds likelihoods: by enumeration of all masks."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.backbones.mixers import bidirectional
from audiolm_jax.backbones.mixers import rg_lru
from audiolm_jax.data import factors
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import gaps as gaps_lib
from audiolm_jax.decoders import masked as masked_lib
from audiolm_jax.models import scoring
from audiolm_jax.processes import hiding
from audiolm_jax.processes import noise as noise_lib
from tests.decoders import small

# Values of a code, frames, slots.
V, F, K = 3, 3, 2
PLACES = F * K
MASKS = np.array(list(itertools.product([False, True], repeat=PLACES)))
CODES = np.array(list(itertools.product(range(V), repeat=PLACES)))


def stack(**options):
  mixer = {'mask_kind': 'bidirectional'}
  return small.stack(mixer=mixer, **options)


def make(vocabularies=(V,) * K, backbone=None, **options):
  return masked_lib.Masked(vocabularies, backbone or stack(), **options)


DECODERS = {
    'all': make(),
    'tied': make(tie=True),
    'stages': make(stages=((1,), (0,))),
    'windows': make(stages=((0,), (1,)), windows=(None, 2)),
    'causal': make(backbone=small.stack()),
    'recurrence': make(
        backbone=stack_lib.Stack(
            8,
            1,
            (bidirectional.Bidirectional(rg_lru.RgLru(heads=2)),),
            mlps.Dense(8),
        )
    ),
}
every_decoder = pytest.mark.parametrize('name', DECODERS)


def params_of(decoder, frames=F):
  """Parameters far from a uniform model's."""
  codes = jnp.zeros((1, frames, len(decoder.vocabularies)), jnp.int32)
  return small.parameters(decoder, codes, jnp.array([frames]))


@pytest.fixture(scope='module')
def params():
  return {name: params_of(decoder) for name, decoder in DECODERS.items()}


def stage_places(decoder, stage):
  """Which of the places [F K] a stage draws, and which come later."""
  own = np.tile(decoder.stage_of_slot == stage, F)
  return own, np.tile(decoder.stage_of_slot > stage, F)


@pytest.fixture(scope='module')
def log_probs(params):
  """name -> stage -> {mask: log p [V^FK, FK] of the codes given the others}."""

  def table(name):
    decoder = DECODERS[name]
    run = small.quick_jit(
        lambda masks, stage: jax.nn.log_softmax(
            decoder.apply(
                {'params': params[name]},
                CODES.reshape(-1, F, K),
                masks,
                np.full(len(CODES), F),
                jnp.full(len(CODES), stage),
                method='logits',
            )
        )
    )
    result = {}
    for stage in range(len(decoder.order)):
      own, later = stage_places(decoder, stage)
      result[stage] = {}
      for mask in MASKS:
        if (mask & ~own).any() or not mask.any():
          continue
        hidden = jnp.broadcast_to((mask | later).reshape(F, K), (1, F, K))
        hidden = jnp.broadcast_to(hidden, (len(CODES), F, K))
        values = np.asarray(run(hidden, stage)).reshape(-1, PLACES, V)
        values = np.take_along_axis(values, CODES[..., None], 2)[..., 0]
        result[stage][tuple(mask)] = values.astype(np.float64)
    return result

  cache = {}

  def get(name):
    if name not in cache:
      cache[name] = table(name)
    return cache[name]

  return get


def any_order(tables):
  """[V^FK]: the mean over all orders of -log p, summed over stages."""
  total = np.zeros(len(CODES))
  for table in tables.values():
    places = max(sum(mask) for mask in table)
    for mask, log_p in table.items():
      k = sum(mask)
      chance = 1 / (places * math.comb(places, k))
      total -= chance * places / k * log_p[:, np.array(mask)].sum(1)
  return total


def in_steps(tables, keep):
  """[V^FK]: the bound of sampling in the steps of `keep`, by enumeration."""
  total = np.zeros(len(CODES))
  for table in tables.values():
    places = max(sum(mask) for mask in table)
    for before, after in itertools.pairwise(keep):
      for mask, log_p in table.items():
        k = sum(mask)
        chance = (1 - before) ** k * before ** (places - k)
        reveal = (after - before) / (1 - before)
        total -= chance * reveal * log_p[:, np.array(mask)].sum(1)
  return total


@every_decoder
def test_bounds_are_no_likelihoods_above_one(name, log_probs):
  """exp(-bound) adds up to at most 1, and is far from uniform."""
  for bound in (
      any_order(log_probs(name)),
      in_steps(log_probs(name), (0, 0.2, 0.7, 1)),
  ):
    total = np.exp(-bound).sum()
    assert 0.1 < total <= 1 + 1e-6
    assert np.exp(-bound).max() > 5 / len(CODES)


def scores(name, params, codes, draws, **options):
  """Nats of the same codes in many draws, [draws]."""
  decoder = DECODERS[name]
  codes = jnp.broadcast_to(codes.reshape(1, F, K), (draws, F, K))
  given = codes, jnp.full(draws, F)
  keys = noise_lib.row_keys(jax.random.key(1), jnp.arange(draws))
  level = (jnp.arange(draws) + 0.5) / draws
  method = 'step_score' if 'keep' in options else 'score'
  run = small.quick_jit(
      lambda p: decoder.apply(
          {'params': p},
          *given,
          **options,
          keys=keys,
          level=level,
          method=method
      )
  )
  result = run(params[name])
  assert result['frames'].mask.all()
  return -np.asarray(result['frames'].log_prob, np.float64).sum((1, 2))


@every_decoder
@pytest.mark.parametrize('keep', [None, (0.0, 1.0), (0.0, 0.2, 0.7, 1.0)])
def test_draws_have_the_mean_of_their_bound(name, keep, params, log_probs):
  at = 333
  if keep is None:
    expected, options = any_order(log_probs(name))[at], {}
  else:
    expected = in_steps(log_probs(name), keep)[at]
    options = {'keep': np.array(keep)}
  nats = scores(name, params, CODES[at], 6000, **options)
  error = nats.std() / len(nats) ** 0.5
  assert abs(nats.mean() - expected) < max(4 * error, 1e-4)
  # A tenth would show.
  assert error < 0.02 * expected
  if keep == (0.0, 1.0) and len(DECODERS[name].order) == 1:
    # All is hidden, in every draw.
    np.testing.assert_allclose(nats, expected, rtol=1e-5)


@every_decoder
def test_rows_are_as_alone_and_padding_changes_nothing(name, params):
  decoder = DECODERS[name]
  codes = np.random.default_rng(0).integers(0, V, (3, 5, K))
  lengths = np.array([5, 2, 3])
  keys = noise_lib.row_keys(jax.random.key(0), jnp.array([7, 8, 9]))

  def run(codes, lengths, keys):
    inputs = codes, lengths, None, {}
    keep = 0.0, 0.5, 1.0
    found = [
        scoring.bound(decoder, params[name], inputs, keys, 3, k)[0]['frames']
        for k in (None, keep)
    ]
    return [np.asarray(f.log_prob) for f in found]

  junk = np.where(np.arange(5)[:, None] < lengths[:, None, None], codes, 77)
  clean, padded = run(codes, lengths, keys), run(junk, lengths, keys)
  alone = run(codes[1:2, :2], lengths[1:2], keys[1:2])
  for batch, same, row in zip(clean, padded, alone, strict=True):
    np.testing.assert_array_equal(batch, same)
    assert (np.abs(batch).sum((1, 2)) > 0).all()
    np.testing.assert_allclose(batch[1, :2], row[0], rtol=1e-4, atol=1e-5)
    assert not batch[1, 2:].any()


@every_decoder
def test_what_is_masked_is_not_seen_and_what_is_not_is(name, params):
  decoder = DECODERS[name]
  rng = np.random.default_rng(1)
  codes = jnp.asarray(rng.integers(0, V, (1, 6, K)))
  hidden = jnp.asarray(rng.random((1, 6, K)) < 0.4)

  def logits(codes, stage=0):
    return decoder.apply(
        {'params': params[name]},
        codes,
        hidden,
        jnp.array([6]),
        jnp.array([stage]),
        method='logits',
    )

  others = jnp.where(hidden, (codes + 1) % V, codes)
  np.testing.assert_array_equal(logits(codes), logits(others))
  seen = jnp.where(hidden, codes, (codes + 1) % V)
  assert np.abs(logits(codes) - logits(seen)).max() > 0.01
  if name != 'causal':
    # The last frame reaches the first one.
    last = codes.at[:, -1].set((codes[:, -1] + 1) % V)
    hidden = hidden.at[:, -1].set(False)
    assert np.abs((logits(codes) - logits(last))[:, 0]).max() > 1e-4


def test_stages_are_told_apart(params):
  decoder, codes = DECODERS['stages'], jnp.zeros((1, F, K), jnp.int32)
  both = [
      decoder.apply(
          {'params': params['stages']},
          codes,
          codes == 0,
          jnp.array([F]),
          jnp.array([stage]),
          method='logits',
      )
      for stage in (0, 1)
  ]
  assert np.abs(both[0] - both[1]).max() > 0.01


def test_a_window_is_of_its_stage(params):
  """In stage 1 keys are seen from 1 frame away at most, in stage 0 from all."""
  decoder = DECODERS['windows']
  codes = jnp.zeros((1, 6, K), jnp.int32)
  far = codes.at[:, 2:].set(1)

  def moved(stage):
    first, second = (
        decoder.apply(
            {'params': params['windows']},
            c,
            c < 0,
            jnp.array([6]),
            jnp.array([stage]),
            method='logits',
        )
        for c in (codes, far)
    )
    return np.abs(first - second).max((0, 2, 3))

  assert (moved(0) > 1e-4).all()
  assert moved(1)[0] == 0
  assert (moved(1)[1:] > 1e-4).all()


def test_training_hides_by_the_hiding_and_scoring_never():
  codes = jnp.zeros((64, 8, K), jnp.int32)
  lengths = jnp.full(64, 8)

  def masks(rule, training, stages=None):
    decoder = make(hiding=rule, stages=stages)
    params = params_of(decoder, 8)
    rngs = {'bound': jax.random.key(0)}
    if training:
      rngs['frames'] = jax.random.key(1)
    found = decoder.apply(
        {'params': params}, codes, lengths, rngs=rngs, method='score'
    )['frames']
    return np.asarray(found.mask), np.asarray(found.log_prob)

  mask, log_prob = masks(hiding.Rate('linear', 1.0), training=True)
  assert mask.all() and log_prob.all()
  mask, log_prob = masks(hiding.Rate('linear', 1.0), training=False)
  assert mask.all() and not log_prob.all()
  # Weights of the bound, over all that might be hidden.
  mask, log_prob = masks(hiding.Subset(), training=True)
  assert mask.all() and not log_prob.all()
  # Means over what is hidden.
  mask, log_prob = masks(hiding.Rate(), training=True)
  np.testing.assert_array_equal(mask, log_prob != 0)
  # One stage a row, each of them as often.
  mask, log_prob = masks(hiding.Subset(), training=True, stages=((1,), (0,)))
  assert (mask.any(1).sum(1) == 1).all()
  np.testing.assert_array_equal(mask.any((0, 1)), [True, True])
  assert mask[:, :, 0].any(1).sum() == 32


def test_gaps_are_where_training_hides_and_the_rest_is_given():
  """A frame that is given is seen in all slots, and costs nothing."""
  rows, frames = 32, 8
  prefixes = gaps_lib.Gaps(prefix=1.0, segments=0.0)
  codes = jnp.zeros((rows, frames, K), jnp.int32)
  lengths = jnp.full(rows, frames)

  def run(codes, gaps, training=True):
    decoder = make(
        hiding=hiding.Rate('linear', 1.0), stages=((0,), (1,)), gaps=gaps
    )
    rngs = {'bound': jax.random.key(0)}
    if training:
      rngs['frames'] = jax.random.key(1)
    return decoder.apply(
        {'params': params_of(decoder, frames)},
        codes,
        lengths,
        rngs=rngs,
        method='score',
    )['frames']

  found = run(codes, prefixes)
  hidden = np.asarray(found.mask)
  # All after a beginning of one stage's slot.
  for row in hidden:
    (slot,) = np.flatnonzero(row.any(0))
    first = np.argmax(row[:, slot])
    assert row[first:, slot].all()
  assert len({int(row.sum()) for row in hidden}) > 4
  # Codes of the beginnings are seen, those of later stages too: row by row
  # where the first slot is drawn.
  given = ~hidden.any(2, keepdims=True) & (np.arange(K) == 1)
  rows_ = hidden[..., 0].any(1) & given.any((1, 2))
  moved = run(codes + jnp.asarray(given), prefixes).log_prob
  apart = np.abs(moved - found.log_prob).max((1, 2))
  assert (apart[rows_] > 1e-5).all() and rows_.sum() > 5
  # Scores are of everything.
  np.testing.assert_array_equal(
      run(codes, prefixes, False).log_prob, run(codes, None, False).log_prob
  )


def test_levels_are_stratified_over_rows():
  """Each row of a batch hides another number of places."""
  decoder, rows = make(), 16
  params = params_of(decoder, 8)
  codes = jnp.zeros((rows, 8, K), jnp.int32)
  found = decoder.apply(
      {'params': params},
      codes,
      jnp.full(rows, 8),
      rngs={'bound': jax.random.key(0)},
      method='score',
  )['frames']
  counts = (np.asarray(found.log_prob) != 0).sum((1, 2))
  assert sorted(counts) == list(range(1, 17))


def test_conditions_act_wherever_they_stand():
  for how in ('add', 'cross', 'film', 'prefix'):
    backbone = stack(
        adaptive='film' if how == 'film' else 'none',
        cross=attention.Cross(heads=2) if how == 'cross' else None,
    )
    source = factors.Name(('a', 'b'))
    module = conditioners.Class(how=how, source=source)
    decoder = make(backbone=backbone, conditions={'name': module})
    batch = decoder.example_batch(2, {'frames': F})
    params = small.parameters(decoder, *decoder.read(batch))
    codes = np.zeros((2, F, K), np.int32)

    def logits(
        names,
        lengths,
        decoder=decoder,
        params=params,
        source=source,
        codes=codes,
    ):
      return decoder.apply(
          {'params': params},
          codes,
          codes == 0,
          lengths,
          np.zeros(2, int),
          None,
          {'name': source.prepare(names)},
          method='logits',
      )

    full = np.array([F, F])
    found = logits(['a', 'b'], full)
    assert np.abs(found[0] - found[1]).max() > 0.01, how
    alone = logits(['a', None], np.array([2, F]))
    shorter = logits(['a', None], np.array([2, 1]))
    np.testing.assert_allclose(alone[0, :2], shorter[0, :2], atol=1e-5)


@pytest.mark.parametrize(
    'options, message',
    [
        ({'vocabularies': ()}, 'each slot'),
        ({'stages': ((0,),)}, 'each slot'),
        ({'stages': ((0, 1), (1,))}, 'each slot'),
        ({'stages': ((0, 1), ())}, 'no slots'),
        ({'windows': (3, 3)}, '1 stages'),
        ({'windows': (3,), 'backbone': small.stack()}, 'bidirectional'),
        (
            {
                'windows': (3,),
                'conditions': {
                    'name': conditioners.Class(
                        how='prefix', source=factors.Name(('a',))
                    )
                },
            },
            'prefix',
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
  with pytest.raises(config.ConfigError, match=message):
    make(**options)


def test_an_autoregressive_decoder_does_not_look_ahead():
  for mixer in (
      attention.Attention(2, mask_kind='bidirectional'),
      attention.Attention(2, mask_kind='block_causal', block=2),
      bidirectional.Bidirectional(rg_lru.RgLru(heads=2)),
  ):
    with pytest.raises(config.ConfigError, match='look ahead'):
      decoder_lib.Decoder((V,), stack_lib.Stack(8, 1, (mixer,)))


def test_codes_out_of_range_are_refused():
  decoder = make()
  with pytest.raises(ValueError, match='codes'):
    decoder.apply(
        {'params': params_of(decoder)},
        np.full((1, F, K), V),
        np.array([F]),
        rngs={'bound': jax.random.key(0)},
        method='score',
    )
