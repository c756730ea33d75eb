"""The decoder is one distribution over frames, whatever the pattern and head."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import decoders
from audiolm_jax import ops
from audiolm_jax import patterns
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import starts
from audiolm_jax.patterns import interleaving
from tests.decoders import small

V, F, K = 3, 3, 2
# All sequences there are.
CODES = np.array(list(itertools.product(range(V), repeat=F * K)), np.int32)
CODES = CODES.reshape(-1, F, K)
FULL = np.full(len(CODES), F, np.int32)
RAGGED = np.resize(np.arange(F + 1), len(CODES)).astype(np.int32)


def make(pattern='delay', head='independent', vocabularies=(V,) * K, **options):
  backbone = options.pop('backbone', None) or small.stack()
  return decoder_lib.Decoder(
      vocabularies,
      pattern=small.PATTERNS[pattern],
      head=small.HEADS[head],
      backbone=backbone,
      **options,
  )


def init(decoder):
  codes = np.zeros((1, F, len(decoder.vocabularies)), np.int32)
  return small.parameters(decoder, codes, np.array([F]))


# The options of a head meet some patterns only: compiling all takes minutes.
PAIRS = [
    *itertools.product(small.PATTERNS, ('independent', 'depth')),
    ('delay', 'depth of each place'),
    ('coarse first in parallel', 'depth of each place'),
    ('delay', 'depth from the first'),
    ('flatten', 'depth from the first'),
]


@pytest.fixture(scope='module', params=PAIRS, ids=', '.join)
def model(request):
  decoder = make(*request.param)
  return decoder, init(decoder), small.scorer(decoder)


def test_every_pattern_and_head_is_tested_here():
  kinds = {type(p) for p in small.PATTERNS.values()}
  assert kinds == set(patterns.PATTERNS.values())
  kinds = {type(h) for h in small.HEADS.values()}
  assert kinds == set(decoders.HEADS.values())


def _probability(scores):
  return np.exp(np.asarray(scores.log_prob, np.float64).sum(axis=(1, 2)))


def test_probabilities_of_all_sequences_sum_to_one(model):
  decoder, params, score = model
  scores = score(params, CODES, FULL)
  assert decoder.tag == 'exact' and np.asarray(scores.mask).all()
  prob = _probability(scores)
  assert prob.sum() == pytest.approx(1, abs=1e-5)
  assert prob.std() > 1e-4  # It is no uniform model.
  # The same for two frames in a longer batch: every sequence is counted once
  # for each of the 9 codes of the frame that is not there.
  prob = _probability(score(params, CODES, FULL - 1))
  assert prob.sum() == pytest.approx(9, abs=1e-4)


def test_a_uniform_model_scores_k_log2_v_bits_a_frame(model):
  _, params, score = model
  scores = score(jax.tree.map(jnp.zeros_like, params), CODES, FULL)
  bits = -np.asarray(scores.log_prob).sum(axis=2) / math.log(2)
  np.testing.assert_allclose(bits, K * math.log2(V), rtol=1e-6)


def test_stepwise_log_probs_equal_teacher_forced_ones(model):
  """For every sequence, in rows of all lengths; and padding counts nothing."""
  decoder, params, score = model
  expected = score(params, CODES, RAGGED)
  found = small.stepwise(decoder)(params, CODES, RAGGED)
  np.testing.assert_allclose(found, expected.log_prob, rtol=1e-5, atol=1e-5)
  valid = np.arange(F)[:, None] < RAGGED[:, None, None]
  valid = np.broadcast_to(valid, CODES.shape)
  np.testing.assert_array_equal(expected.mask, valid)
  log_prob = np.asarray(expected.log_prob)
  assert (log_prob[~valid] == 0).all() and (log_prob[valid] < 0).all()
  other = np.where(valid, CODES, 2 - CODES)
  other[~valid & (other == 1)] = -(10**6)
  np.testing.assert_array_equal(score(params, other, RAGGED).log_prob, log_prob)


def test_code_logits_are_what_scores_are_of(model):
  decoder, params, score = model
  logits = small.code_logits(decoder)(params, CODES, RAGGED)
  assert logits.shape == (*CODES.shape, V) and logits.dtype == np.float32
  scores = score(params, CODES, RAGGED)
  found = np.where(scores.mask, small.picked(logits, CODES), 0)
  np.testing.assert_allclose(found, scores.log_prob, rtol=1e-5, atol=1e-5)


def test_no_code_sees_itself_or_what_the_pattern_puts_later(model):
  decoder, params, score = model
  layout = decoder.pattern.layout(F, K)
  codes, changed = np.ones((2, *CODES.shape), np.int32)
  cells = list(itertools.product(range(F), range(K)))
  for row, (frame, slot) in enumerate(cells):
    changed[row, frame, slot] = 2
  same = np.isclose(
      score(params, codes, FULL).log_prob,
      score(params, changed, FULL).log_prob,
      rtol=1e-5,
      atol=1e-6,
  )
  independent = isinstance(decoder.head, decoders.HEADS['independent'])
  for row, cell in enumerate(cells):
    for other in cells:
      if other == cell:
        continue
      steps = layout.step[other] - layout.step[cell]
      places = layout.place[other] - layout.place[cell]
      earlier = steps < 0 or (not steps and (independent or places < 0))
      assert same[(row, *other)] == earlier, (cell, other)


def test_a_row_in_a_padded_batch_has_the_scores_it_has_alone():
  decoder = make('coarse first', 'depth')
  params, score = init(decoder), small.scorer(decoder)
  batch = np.asarray(score(params, CODES, RAGGED).log_prob)
  for length in (1, 2):
    rows = np.flatnonzero(RAGGED == length)[50:53]
    alone = score(params, CODES[rows, :length], RAGGED[rows])
    np.testing.assert_allclose(
        alone.log_prob, batch[rows, :length], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ('pattern', 'head'),
    [
        ('parallel', 'independent'),
        ('flatten', 'independent'),
        ('flatten', 'depth'),
        ('parallel', 'depth of each place'),
    ],
)
def test_codes_beyond_a_slots_vocabulary_have_no_probability(pattern, head):
  decoder = make(pattern, head, (3, 2))
  params = init(decoder)
  codes = np.array(list(itertools.product(range(3), range(2))), np.int32)
  num_frames = np.ones(len(codes), np.int32)
  scores = small.scorer(decoder)(params, codes[:, None], num_frames)
  assert _probability(scores).sum() == pytest.approx(1, abs=1e-5)
  logits = np.asarray(
      small.code_logits(decoder)(params, codes[:, None], num_frames)
  )
  assert np.isneginf(logits[:, 0, 1, 2]).all()
  assert np.isfinite(logits).sum() == (3 + 2) * len(codes)
  # And none of them is ever drawn.
  shape = (200, decoder.group)
  _, slots = decoder.pattern.cells(np.ones(shape[0], int), 2)
  drawn, _ = small.quick_jit(
      lambda h: decoder.apply(
          {'params': params},
          h,
          slots,
          np.ones(shape, bool),
          np.zeros(shape, np.int32),
          np.zeros(shape, bool),
          lambda logits, rng, slots: jax.random.categorical(rng, logits),
          jax.random.key(0),
          method='sample',
      )
  )(np.zeros((shape[0], 8), np.float32))
  most = np.asarray(drawn).max(axis=0)
  assert (most == np.array((3, 2))[slots[0]] - 1).all()


@pytest.mark.parametrize(
    ('kind', 'tie'), [('lora', False), ('lora', True), ('packed', True)]
)
def test_every_weight_may_be_another_kind_of_leaf(kind, tie):
  """LoRA with b = 0 is the base exactly; a packed tree is its unpacked one."""
  decoder = make(
      'flatten', vocabularies=(4, 2), tie=tie, backbone=small.stack()
  )
  params = init(decoder)

  def convert(path, w):
    if path[-1].key == 'scale':
      return w
    if kind == 'packed':
      return ops.pack(w)
    a = jnp.ones((*w.shape[:-1], 2))
    return ops.LoraTensor(w, a, jnp.zeros((2, w.shape[-1])))

  converted = jax.tree_util.tree_map_with_path(convert, params)
  leaves = jax.tree.leaves(converted, is_leaf=lambda x: not isinstance(x, dict))
  # q, k, v, out, 3 of the perceptron; the table; 2 of the head.
  count = sum(not isinstance(leaf, np.ndarray) for leaf in leaves)
  assert count == 7 + 1 + 2 * (not tie)
  base = (
      params if kind == 'lora' else ops.map_weights(ops.materialize, converted)
  )
  codes = np.random.default_rng(2).integers(0, 2, (2, 4, 2)).astype(np.int32)
  num_frames = np.array([4, 3], np.int32)
  a, b = [
      small.scorer(decoder)(p, codes, num_frames).log_prob
      for p in (converted, base)
  ]
  np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_tied_head_is_the_embedding_table():
  tied = make('flatten', vocabularies=(4, 3), tie=True)
  plain = make('flatten', vocabularies=(4, 3))
  params = init(tied)
  assert 'head' not in params
  table = params['embedding']['table']
  kernels = {'kernel_0': table[:4].T, 'kernel_1': table[4:7].T}
  codes = np.random.default_rng(0).integers(0, 3, (2, 3, 2)).astype(np.int32)
  a, b = [
      small.scorer(d)(p, codes, np.array([3, 2])).log_prob
      for d, p in ((tied, params), (plain, {**params, 'head': kernels}))
  ]
  np.testing.assert_allclose(a, b, rtol=1e-6)
  with pytest.raises(ValueError, match='do not tie it'):
    init(make('flatten', 'depth', tie=True))


def test_embedding_scale_multiplies_embeddings():
  codes = np.random.default_rng(0).integers(0, 3, (2, 3, 2)).astype(np.int32)
  plain, scaled = make(), make(embedding_scale=3.0)
  params = init(plain)
  larger = {**params, 'embedding': {'table': 3 * params['embedding']['table']}}
  a, b = [
      small.scorer(d)(p, codes, np.array([3, 2])).log_prob
      for d, p in ((scaled, params), (plain, larger))
  ]
  np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize(
    'head', ['independent', 'depth', 'depth from the first']
)
def test_logits_are_what_the_ids_of_one_slot_predict(head):
  decoder = decoder_lib.Decoder(
      (5,),
      pattern=interleaving.Flatten(),
      head=small.HEADS[head],
      backbone=small.stack(),
      start=starts.Given(),
  )
  codes = np.random.default_rng(0).integers(0, 5, (2, 4, 1)).astype(np.int32)
  params = small.parameters(decoder, codes, np.array([4, 4]))

  @small.quick_jit
  def logits(ids, num_frames):
    return decoder.apply({'params': params}, ids, num_frames, method='logits')

  found = np.asarray(logits(codes[..., 0], np.array([4, 2])))
  assert found.shape == (2, 4, 5) and found.dtype == np.float32

  # Step by step, from nothing: no fill comes before the first id.
  @small.quick_jit
  def step(state, ids):
    exists = jnp.ones((2, 1, 1), bool)
    h, state = decoder.apply(
        {'params': params},
        state,
        ids[:, None, None],
        jnp.zeros((2, 1, 1), int),
        exists,
        method='extend',
    )
    _, log_prob = decoder.apply(
        {'params': params},
        jnp.repeat(h, 5, axis=0),
        jnp.zeros((10, 1), int),
        jnp.ones((10, 1), bool),
        jnp.tile(jnp.arange(5), 2)[:, None],
        jnp.ones((10, 1), bool),
        small.refuse,
        jax.random.key(0),
        method='sample',
    )
    return log_prob.reshape(2, 5), state

  state = decoder.initial_state(2, 4)
  for n in range(4):
    log_prob, state = step(state, codes[:, n, 0])
    wanted = jax.nn.log_softmax(found[:, n])
    for row in range(2 if n < 2 else 1):
      np.testing.assert_allclose(
          log_prob[row], wanted[row], rtol=1e-5, atol=1e-5
      )
  with pytest.raises(ValueError, match='logits of 2 slots'):
    make().apply({'params': params}, codes[..., 0], None, method='logits')


@pytest.mark.parametrize(
    'change',
    [
        {'remat': 'full'},
        {'remat': 'dots'},
        {'mixer': {'window': 2}},
        {'dtype': 'bfloat16'},
    ],
    ids=str,
)
def test_what_each_backbone_field_changes(change):
  plain, other = make(), make(backbone=small.stack(**change))
  params = init(plain)
  codes = np.random.default_rng(3).integers(0, 3, (2, 6, 2)).astype(np.int32)
  num_frames = np.array([6, 5], np.int32)

  def loss(decoder):
    def total(params):
      scores = decoder.apply(
          {'params': params}, codes, num_frames, method='score'
      )
      return -scores['frames'].log_prob.sum()

    value, gradient = small.quick_jit(jax.value_and_grad(total))(params)
    assert value.dtype == jnp.float32
    return float(value), gradient

  a, grad_a = loss(plain)
  b, grad_b = loss(other)
  if 'remat' in change:
    assert a == pytest.approx(b, rel=1e-6)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4),
        grad_a,
        grad_b,
    )
  else:
    assert a != b
    if 'dtype' in change:
      assert a == pytest.approx(b, rel=0.05)


def test_dropout_needs_its_rng_and_changes_the_score():
  decoder = make(backbone=small.stack(dropout=0.5))
  params = init(decoder)
  codes = np.ones((1, 4, 2), np.int32)

  @small.quick_jit
  def score(seed):
    return decoder.apply(
        {'params': params},
        codes,
        np.array([4]),
        rngs={'dropout': jax.random.key(seed)},
        method='score',
    )['frames'].log_prob.sum()

  assert score(0) == score(0) != score(1)


def test_heads_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match='width 8, heads 3'):
    init(make(backbone=small.stack(mixer={'heads': 3})))
