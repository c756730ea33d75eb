"""What is particular to the split and the multi-rate quantisers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.tokenizers.bottlenecks import grouped
from audiolm_jax.tokenizers.bottlenecks import multi_rate
from audiolm_jax.tokenizers.bottlenecks import rvq
from audiolm_jax.tokenizers.bottlenecks import split

SPLIT = split.SplitRvq(acoustic=2, vocabulary=8, dimension=3)
MULTI = multi_rate.MultiRateRvq(strides=(4, 2, 1), vocabulary=16, dimension=3)
WIDTH = 6


def _jit(function):
  return jax.jit(
      function, compiler_options={'xla_backend_optimization_level': 0}
  )


def _random_state(state):
  """Codebooks of unit variance, all in use."""

  def fill(x):
    return jax.random.normal(jax.random.key(x.size), x.shape)

  return jax.tree.map(fill, state)


@pytest.fixture(name='x', scope='module')
def _x():
  rng = np.random.default_rng(0)
  return rng.standard_normal((3, 12, WIDTH)).astype(np.float32)


@pytest.fixture(name='variables', scope='module')
def _variables():
  fresh = nn.meta.unbox(
      _jit(lambda rng: SPLIT.init(rng, WIDTH))(jax.random.key(0))
  )
  return {**fresh, 'state': _random_state(fresh['state'])}


def test_split_is_two_rvqs_on_the_same_input(x, variables):
  mask = np.ones((3, 12), bool)
  found = _jit(SPLIT.quantise)(variables, x, mask)
  one = rvq.Rvq(codebooks=1, vocabulary=8, dimension=3)
  two = rvq.Rvq(codebooks=2, vocabulary=8, dimension=3)
  parts = {
      name: _jit(part.quantise)(
          {kind: tree[name] for kind, tree in variables.items()}, x, mask
      )
      for name, part in (('semantic', one), ('acoustic', two))
  }
  semantic, acoustic = parts['semantic'], parts['acoustic']
  codes = jnp.concatenate([semantic.codes, acoustic.codes], axis=-1)
  np.testing.assert_array_equal(found.codes, codes)
  np.testing.assert_allclose(
      found.latents, semantic.latents + acoustic.latents, atol=1e-5
  )
  # What distillation sees is free of the acoustic codes.
  np.testing.assert_allclose(found.semantic, semantic.latents, atol=1e-5)
  losses = [part.losses['commitment'] for part in (semantic, acoustic)]
  np.testing.assert_allclose(
      found.losses['commitment'], (losses[0] + 2 * losses[1]) / 3, rtol=1e-5
  )


def test_a_row_without_acoustic_levels_trains_the_semantic_maps_only(
    x, variables
):
  mask = np.ones((3, 12), bool)

  @_jit
  def gradients(params, levels):
    def total(params):
      given = {**variables, 'params': params}
      found = SPLIT.quantise(given, x, mask, levels=levels)
      return jnp.sum(found.latents**2) + found.losses['commitment'].sum()

    return jax.grad(total)(params)

  first = gradients(variables['params'], np.full(3, 1))
  both = gradients(variables['params'], np.full(3, 2))
  for name, moved in (('semantic', True), ('acoustic', False)):
    for leaf in jax.tree.leaves(first[name]):
      assert bool(np.abs(leaf).max() > 0) == moved
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(both[name]))
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(first))


def test_semantic_codes_ignore_the_acoustic_codebooks(x, variables):
  mask = np.ones((3, 12), bool)
  quantise = _jit(SPLIT.quantise)
  state = variables['state']
  other = {
      **state,
      'acoustic': state['acoustic'].replace(
          codebooks=-2 * state['acoustic'].codebooks
      ),
  }
  plain = quantise(variables, x, mask).codes
  changed = quantise({**variables, 'state': other}, x, mask).codes
  differs = np.asarray(plain != changed).any(axis=(0, 1))
  np.testing.assert_array_equal(differs, [False, True, True])


def test_frames_that_do_not_fill_a_token_frame_are_filled_with_zeros(x):
  variables = _jit(lambda rng: MULTI.init(rng, WIDTH))(jax.random.key(0))
  quantise = _jit(MULTI.quantise)
  # 6 frames: one token frame, and half of one.
  short = quantise(variables, x[:, :6], np.ones((3, 6), bool))
  padded = np.pad(x[:, :6], ((0, 0), (0, 2), (0, 0)))
  whole = quantise(variables, padded, np.ones((3, 8), bool))
  np.testing.assert_array_equal(short.codes, whole.codes)
  assert short.codes.shape == (3, 2, 7)
  np.testing.assert_allclose(
      short.latents, np.asarray(whole.latents)[:, :6], atol=1e-5
  )
  for name, loss in short.losses.items():
    np.testing.assert_allclose(
        loss, np.asarray(whole.losses[name])[:, :6], rtol=1e-4
    )


def test_multi_rate_slots_say_codebook_and_time():
  slots = multi_rate.MultiRateRvq().slots()
  assert [s.codebook for s in slots] == [0] + [1] * 2 + [2] * 4 + [3] * 8
  offsets = [s.offset * 8 for s in slots]
  assert offsets == [0, 0, 4, 0, 2, 4, 6, *range(8)]
  assert multi_rate.MultiRateRvq().prefixes() == (1, 3, 7, 15)
  with pytest.raises(config.ConfigError, match='divide'):
    multi_rate.MultiRateRvq(strides=(4, 3))


def test_multi_rate_codes_stand_at_their_offsets(x):
  """Another code in a slot changes the frames from its offset on, only."""
  variables = _jit(lambda rng: MULTI.init(rng, WIDTH))(jax.random.key(0))
  dequantise = _jit(MULTI.dequantise)
  codes = np.zeros((1, 2, 7), np.int32)
  base = dequantise(variables, codes)
  spans = [(0, 4), (0, 2), (2, 4), (0, 1), (1, 2), (2, 3), (3, 4)]
  for slot, (start, stop) in enumerate(spans):
    changed = codes.copy()
    changed[0, 1, slot] = 5
    moved = np.asarray(dequantise(variables, changed) != base).any(axis=-1)[0]
    expected = np.arange(8) - 4
    np.testing.assert_array_equal(
        moved, (expected >= start) & (expected < stop)
    )


def test_groups_do_not_see_each_other(x):
  one = grouped.GroupedRvq(groups=2, codebooks=2, vocabulary=8)
  fresh = one.init(jax.random.key(0), WIDTH)
  variables = {**fresh, 'state': _random_state(fresh['state'])}
  mask = np.ones((3, 12), bool)
  quantise = _jit(one.quantise)
  found = quantise(variables, x, mask)
  other = np.concatenate([x[..., :3], -x[..., 3:]], axis=-1)
  changed = quantise(variables, other, mask)
  differs = np.asarray(found.codes != changed.codes).any(axis=(0, 1))
  np.testing.assert_array_equal(differs, [False, True, False, True])
  np.testing.assert_array_equal(
      found.latents[..., :3], changed.latents[..., :3]
  )
  # The codes' vectors, one for each slot, make up the latents.
  vectors = np.asarray(one.code_vectors(variables))
  codes = np.asarray(found.codes)
  parts = [vectors[k][codes[..., k]] for k in range(4)]
  expected = np.concatenate([parts[0] + parts[2], parts[1] + parts[3]], -1)
  np.testing.assert_allclose(found.latents, expected, atol=1e-5)
  with pytest.raises(config.ConfigError, match='groups'):
    one.init(jax.random.key(0), 5)


@pytest.mark.parametrize('make', [rvq.Rvq, split.SplitRvq, grouped.GroupedRvq])
def test_k_means_needs_as_many_points_as_codes(make):
  with pytest.raises(config.ConfigError, match='k-means'):
    make(initial='k_means', vocabulary=1024, candidates=1000)
  make(initial='k_means', vocabulary=1024, candidates=1024)
