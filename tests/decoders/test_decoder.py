"""The decoder is one distribution over frames, whatever the pattern."""

import functools
import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import ops
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import mlps
from audiolm_jax.decoders import stack
from audiolm_jax.decoders.mixers import attention
from audiolm_jax.patterns import interleaving

PATTERNS = [
    interleaving.Delay(),
    interleaving.Delay((2, 0)),
    interleaving.Parallel(),
    interleaving.Flatten(),
]


# Tiny shapes: compiling is what costs, and eager dispatch costs more.
quick_jit = functools.partial(
    jax.jit, compiler_options={'xla_backend_optimization_level': 0}
)


def scorer(decoder):
  return quick_jit(
      lambda params, codes, lengths: decoder.apply(
          {'params': params}, codes, lengths, method='score'
      )
  )


def make(pattern, vocabularies=(3, 3), *, mlp=None, mixer=None, **options):
  mixer = attention.Attention(**{'heads': 2, 'kv_heads': 1, **(mixer or {})})
  mlp = mlps.Dense(8, **(mlp or {}))
  return decoder_lib.Decoder(
      vocabularies,
      pattern=pattern,
      backbone=stack.Stack(8, 2, (mixer,), mlp, **options),
  )


def init(decoder, seed=0):
  codes = jnp.zeros((1, 3, len(decoder.vocabularies)), jnp.int32)
  variables = quick_jit(
      lambda rng: decoder.init(rng, codes, jnp.array([3]), method='score')
  )(jax.random.key(seed))
  params = nn.meta.unbox(variables['params'])
  # Sharper than at the start, so that every path matters.
  return jax.tree.map(
      lambda w: w
      + 0.5
      * (w.ndim > 1)
      * jnp.sin(jnp.arange(w.size, dtype=jnp.float32).reshape(w.shape) * 1.7),
      params,
  )


@pytest.fixture(scope='module', params=PATTERNS, ids=str)
def model(request):
  decoder = make(request.param)
  return decoder, init(decoder), scorer(decoder)


def test_probabilities_of_all_sequences_sum_to_one(model):
  decoder, params, score = model
  codes = np.array(list(itertools.product(range(3), repeat=6)), np.int32)
  codes = codes.reshape(-1, 3, 2)
  scores = score(params, codes, np.full(len(codes), 3, np.int32))
  assert scores.tag == 'exact'
  prob = np.exp(np.asarray(scores.log_prob, np.float64).sum(axis=(1, 2)))
  assert prob.sum() == pytest.approx(1, abs=1e-5)
  assert prob.std() > 1e-4  # It is no uniform model.
  # The same, for two frames in a longer batch: 9 of the last frame's codes
  # are out of the sequence, so every sequence is counted 9 times.
  scores = score(params, codes, np.full(len(codes), 2, np.int32))
  prob = np.exp(np.asarray(scores.log_prob, np.float64).sum(axis=(1, 2)))
  assert prob.sum() == pytest.approx(9, abs=1e-4)


def test_a_uniform_model_scores_k_log2_v_bits_a_frame(model):
  decoder, params, score = model
  params = {**params, 'head': jax.tree.map(jnp.zeros_like, params['head'])}
  codes = np.zeros((729, 3, 2), np.int32)
  scores = score(params, codes, np.full(729, 3, np.int32))
  bits = -np.asarray(scores.log_prob).sum(axis=2) / math.log(2)
  np.testing.assert_allclose(bits, 2 * math.log2(3), rtol=1e-6)


def test_padding_changes_nothing_and_is_not_scored(model):
  decoder, params, score = model
  rng = np.random.default_rng(0)
  codes = rng.integers(0, 3, (729, 3, 2)).astype(np.int32)
  lengths = np.resize(np.arange(4), 729).astype(np.int32)
  scores = score(params, codes, lengths)
  log_prob = np.asarray(scores.log_prob)
  valid = np.arange(3)[:, None] < lengths[:, None, None]
  valid = np.broadcast_to(valid, codes.shape)
  np.testing.assert_array_equal(scores.mask, valid)
  assert (log_prob[~valid] == 0).all() and (log_prob[valid] < 0).all()
  other = np.where(valid, codes, 2 - codes)
  other[~valid & (other == 1)] = -(10**6)
  np.testing.assert_array_equal(
      score(params, other, lengths).log_prob, log_prob
  )
  for row in (1, 2):
    length = lengths[row]
    alone = score(params, codes[[row], :length], lengths[[row]])
    np.testing.assert_allclose(
        alone.log_prob[0], log_prob[row, :length], rtol=1e-5, atol=1e-6
    )


def test_no_code_sees_itself_or_what_the_pattern_puts_later(model):
  decoder, params, score = model
  layout = decoder.pattern.layout(3, 2)
  codes = np.ones((729, 3, 2), np.int32)
  lengths = np.full(729, 3, np.int32)
  changed = codes.copy()
  cells = list(itertools.product(range(3), range(2)))
  for row, (frame, slot) in enumerate(cells):
    changed[row, frame, slot] = 2
  same = np.isclose(
      score(params, codes, lengths).log_prob,
      score(params, changed, lengths).log_prob,
      rtol=1e-5,
      atol=1e-6,
  )
  for row, cell in enumerate(cells):
    for other in cells:
      if other == cell:
        continue
      earlier = layout.step[other] <= layout.step[cell]
      assert same[(row, *other)] == earlier, (cell, other)


@pytest.mark.parametrize('block', [1, 2])
def test_stepwise_log_probs_equal_teacher_forced_ones(model, block):
  """Chunked or one by one."""
  decoder, params, score = model
  codes = np.random.default_rng(1).integers(0, 3, (2, 3, 2)).astype(np.int32)
  lengths = np.array([3, 3], np.int32)
  expected = score(params, codes, lengths)
  layout = decoder.pattern.layout(3, 2)
  steps = np.asarray(layout.to_steps(codes))
  count, group = layout.frame.shape
  exists = np.broadcast_to(layout.scored(lengths), steps.shape)
  slots = np.broadcast_to(layout.slot, steps.shape)
  inputs = [
      np.concatenate([first, x[:, :-1]], axis=1)
      for x, first in (
          (steps, 0 * steps[:, :1]),
          (slots, slots[:, :1]),
          (exists, ~exists[:, :1] & False),
      )
  ]

  @quick_jit
  def extend(cache, *x):
    return decoder.apply({'params': params}, cache, *x, method='extend')

  @quick_jit
  def log_prob_of(h, slots, codes):
    return decoder.apply(
        {'params': params},
        h,
        slots,
        jnp.ones((2, group), bool),
        codes,
        jnp.ones((2, group), bool),
        lambda logits, rng, slots: jnp.argmax(logits, -1),
        jax.random.key(0),
        method='sample',
    )[1]

  cache = decoder.initial_state(2, count)
  outputs = []
  for n in range(0, count, block):
    h, cache = extend(cache, *[x[:, n : n + block] for x in inputs])
    last = min(n + block, count) - 1
    outputs.append((last, log_prob_of(h, slots[:, last], steps[:, last])))
  wanted = np.asarray(layout.to_steps(expected.log_prob))
  for last, log_prob in outputs:
    np.testing.assert_allclose(
        np.where(exists[:, last], log_prob, 0),
        wanted[:, last],
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize('kind', ['lora', 'packed'])
def test_every_weight_may_be_another_kind_of_leaf(kind):
  """LoRA with b = 0 is the base exactly; a packed tree is its unpacked one."""
  decoder = make(interleaving.Flatten(), (4, 2))
  params = init(decoder)

  def convert(path, w):
    # Vectors, stacked over layers or not, are no matrices.
    if path[-1].key == 'scale':
      return w
    batch = w.shape[:-2]
    if kind == 'packed':
      return ops.pack(w) if w.shape[-1] % 2 == 0 else w
    a = jnp.ones((*w.shape[:-1], 2))
    return ops.LoraTensor(w, a, jnp.zeros((*batch, 2, w.shape[-1])))

  converted = jax.tree_util.tree_map_with_path(convert, params)
  changed = [
      leaf
      for leaf in jax.tree.leaves(
          converted, is_leaf=lambda x: not isinstance(x, dict)
      )
      if not isinstance(leaf, jax.Array)
  ]
  assert len(changed) == 10  # q, k, v, out, 3 of the MLP, table, 2 of the head.
  base = (
      params if kind == 'lora' else ops.map_weights(ops.materialize, converted)
  )
  codes = np.random.default_rng(2).integers(0, 2, (2, 4, 2)).astype(np.int32)
  lengths = np.array([4, 3], np.int32)
  a, b = [
      scorer(decoder)(p, codes, lengths).log_prob for p in (converted, base)
  ]
  np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_codes_beyond_a_slots_vocabulary_have_no_probability():
  decoder = make(interleaving.Delay(), (3, 2))
  params = init(decoder)
  codes = np.array(list(itertools.product(range(3), range(2))), np.int32)
  codes = codes.reshape(-1, 1, 2)
  scores = scorer(decoder)(params, codes, np.ones(len(codes), np.int32))
  prob = np.exp(scores.log_prob.sum(axis=(1, 2)))
  assert prob.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    'change',
    [
        {'remat': 'full'},
        {'remat': 'dots'},
        {'mlp': {'activation': 'relu'}},
        {'mlp': {'activation': 'gelu'}},
        {'mixer': {'window': 2}},
        {'dtype': 'bfloat16'},
    ],
    ids=str,
)
def test_what_each_backbone_field_changes(change):
  plain, other = make(PATTERNS[0]), make(PATTERNS[0], **change)
  params = init(plain)
  codes = np.random.default_rng(3).integers(0, 3, (2, 6, 2)).astype(np.int32)
  lengths = np.array([6, 5], np.int32)

  def loss(decoder):
    def total(params):
      scores = decoder.apply({'params': params}, codes, lengths, method='score')
      return -scores.log_prob.sum()

    value, gradient = quick_jit(jax.value_and_grad(total))(params)
    assert value.dtype == jnp.float32
    return float(value), gradient

  a, grad_a = loss(plain)
  b, grad_b = loss(other)
  if 'remat' in change:
    assert a == pytest.approx(b, rel=1e-6)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
        grad_a,
        grad_b,
    )
  else:
    assert a != b
    if 'dtype' in change:
      assert a == pytest.approx(b, rel=0.05)


def test_dropout_needs_its_rng_and_changes_the_score():
  decoder = make(PATTERNS[0], dropout=0.5)
  params = init(decoder)
  codes = np.ones((1, 4, 2), np.int32)

  @quick_jit
  def score(seed):
    return decoder.apply(
        {'params': params},
        codes,
        np.array([4]),
        rngs={'dropout': jax.random.key(seed)},
        method='score',
    ).log_prob.sum()

  assert score(0) == score(0) != score(1)


def test_heads_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match='width 8, heads 3'):
    init(make(PATTERNS[0], mixer={'heads': 3, 'kv_heads': None}))
