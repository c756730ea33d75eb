"""A causal decoder of latents: what sees what, its ends, its noisy history."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax.backbones import mlps
from audiolm_jax.data import factors
from audiolm_jax.data import moments as moments_lib
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import latent_heads
from audiolm_jax.processes import noise as noise_lib
from tests.decoders import small

B, F, L = 3, 5, 2
LENGTHS = np.array([F, 3, 4], np.int32)
EXISTS = np.arange(F) < LENGTHS[:, None]
ENDS = np.array([True, True, False])
KEYS = noise_lib.row_keys(jax.random.key(0), jnp.arange(B))
X = np.random.default_rng(0).normal(size=(B, F, L)).astype(np.float32)
HOW = ('prefix', 'add', 'film', 'cross')


def _make(how=(), **options):
  modules = {
      way: conditioners.Class(how=way, source=factors.Name(('a', 'b')))
      for way in how
  }
  cross = small.attention.Cross(heads=2) if 'cross' in how else None
  adaptive = 'adaln_zero' if 'film' in how else 'none'
  options = {'head': latent_heads.Mixture(components=2), **options}
  return decoders.LatentDecoder(
      L,
      backbone=small.stack(cross=cross, adaptive=adaptive),
      conditions=modules,
      **options,
  )


def _params(decoder, seed=0):
  conditions = decoder.prepare(None, B)
  inputs = X, LENGTHS, ENDS, KEYS, None, conditions
  return small.parameters(decoder, *inputs, seed=seed, method='losses')


def _losses(
    decoder, params, x=X, lengths=LENGTHS, rows=('a', None, 'b'), **more
):
  conditions = decoder.prepare(dict.fromkeys(decoder.conditions, rows), len(x))

  @small.quick_jit
  def run(x, lengths):
    inputs = x, lengths, ENDS[: len(x)], KEYS[: len(x)], None, conditions
    return decoder.apply({'params': params}, *inputs, method='losses', **more)

  return jax.tree.map(np.asarray, run(x, lengths))


def test_a_frame_tells_of_those_before_it_only():
  decoder = _make(how=HOW)
  params = _params(decoder)
  before = _losses(decoder, params)['nll']
  for frame in range(F):
    moved = X.copy()
    moved[:, frame] += 1
    after = _losses(decoder, params, moved)['nll']
    changed = np.abs(after - before) > 1e-5
    # Its own density changes and that of all later ones, where they are.
    expected = EXISTS & (np.arange(F) >= frame) & EXISTS[:, [frame]]
    np.testing.assert_array_equal(changed, expected)
  np.testing.assert_array_equal(before[~EXISTS], 0)


def test_rows_are_themselves_alone_and_padded():
  decoder = _make(how=HOW, history_noise=0.5)
  params = _params(decoder)
  whole = _losses(decoder, params)
  holes = np.where(EXISTS[..., None], X, np.nan)
  padded = np.pad(holes, ((0, 0), (0, 2), (0, 0)), constant_values=np.nan)
  for name, loss in _losses(decoder, params, padded).items():
    np.testing.assert_allclose(loss[:, :F], whole[name], rtol=2e-5, atol=1e-5)
  alone = _losses(decoder, params, X[:1], LENGTHS[:1], rows=('a',))
  for name, loss in alone.items():
    np.testing.assert_allclose(loss, whole[name][:1], rtol=2e-5, atol=1e-5)


def test_every_condition_acts():
  for way in HOW:
    decoder = _make(how=(way,))
    params = _params(decoder)
    one = _losses(decoder, params, rows=('a',) * B)['nll']
    other = _losses(decoder, params, rows=('b',) * B)['nll']
    assert (np.abs(one - other)[EXISTS] > 1e-5).all(), way


def test_the_end_is_that_of_the_last_frame_of_rows_that_end():
  decoder = _make()
  params = _params(decoder)

  def logit(losses):
    return losses['stop']

  @small.quick_jit
  def nats(ends):
    inputs = X, LENGTHS, ends, KEYS
    return logit(decoder.apply({'params': params}, *inputs, method='losses'))

  never, always = nats(np.zeros(B, bool)), nats(np.ones(B, bool))
  last = np.arange(F) == LENGTHS[:, None] - 1
  np.testing.assert_allclose(never[~last], always[~last], rtol=1e-6)
  # -log p and -log (1 - p) of the same p.
  total = np.exp(-never[last]) + np.exp(-always[last])
  np.testing.assert_allclose(total, 1, rtol=1e-5)
  np.testing.assert_array_equal(never[~EXISTS], 0)
  silent = _make(stop=False)
  assert 'stop' not in _losses(silent, _params(silent))


def test_steps_are_the_whole_and_end_as_likely():
  """Densities of `extend`'s outputs are those of `log_prob`."""
  decoder = _make(how=HOW)
  params = _params(decoder)
  conditions = decoder.prepare(dict.fromkeys(HOW, ('a', None, 'b')), B)

  def apply(*args, method):
    return decoder.apply({'params': params}, *args, method=method)

  @small.quick_jit
  def stepped():
    context = apply(conditions, B, method='context')
    state = decoder.initial_state(B, F)
    state = apply(state, context, method='begin')
    found, ended = [], []
    x = np.zeros((B, 1, L))
    for frame in range(F):
      exists = jnp.full((B, 1), frame > 0)
      h, state = decoder.apply(
          {'params': params},
          state,
          x,
          exists,
          context=context,
          method='extend',
      )
      x = X[:, frame : frame + 1]
      head = decoder.head.bind({'params': params['head']})
      found.append(head.log_prob(h, x[:, 0]))
      keys = jax.vmap(jax.random.fold_in, (0, None))(KEYS, frame)
      many = jnp.broadcast_to(h[:1], (2000, h.shape[1]))
      each = noise_lib.row_keys(keys[0], jnp.arange(2000))
      ended.append(
          apply(many, each, latent_heads.LatentSampler(), method='ended')
      )
    return jnp.stack(found, axis=1), jnp.stack(ended).mean(1)

  inputs = X, LENGTHS, None, conditions
  whole = small.quick_jit(lambda: apply(*inputs, method='log_prob'))()
  found, ended = stepped()
  np.testing.assert_allclose(
      np.where(EXISTS, found, 0), whole, rtol=1e-4, atol=1e-4
  )
  never = np.exp(-_losses(decoder, params)['stop'][0])
  np.testing.assert_allclose(1 - ended[: F - 1], never[: F - 1], atol=0.05)


def test_noise_on_the_history_reaches_what_is_seen_and_not_what_is_scored():
  noisy, clean = _make(history_noise=0.8), _make()
  params = _params(noisy)
  with_noise, without = _losses(noisy, params), _losses(clean, params)
  np.testing.assert_array_equal(
      _losses(noisy, params, noisy=False)['nll'], without['nll']
  )
  moved = np.abs(with_noise['nll'] - without['nll']) > 1e-4
  # The first frame is given none before it.
  np.testing.assert_array_equal(moved[:, 0], False)
  np.testing.assert_array_equal(moved[:, 1:], EXISTS[:, 1:])


def test_noisy_frames_have_the_variance_of_clean_ones_and_their_share():
  decoder = _make(history_noise=0.9)
  x = np.random.default_rng(1).normal(size=(4000, 1, L)).astype(np.float32)
  keys = noise_lib.row_keys(jax.random.key(1), jnp.arange(4000))
  for share in (0.0, 0.3):
    shown = decoder.shown(x[:, 0], keys, share)
    np.testing.assert_allclose(np.std(shown), 1, rtol=0.03)
    together = np.mean(np.asarray(shown) * x[:, 0])
    np.testing.assert_allclose(together, np.sqrt(1 - share), rtol=0.03)
  # In training any share up to the largest, one for each row.
  drawn = decoder._noisy(jnp.asarray(np.repeat(x, 400, 1)[:300]), keys[:300])  # pylint: disable=protected-access
  rest = np.asarray(drawn) - np.repeat(x, 400, 1)[:300]
  share = (
      1
      - (np.mean(drawn * x[:300], (1, 2)) / np.mean(x[:300] ** 2, (1, 2))) ** 2
  )
  del rest
  assert share.max() < 0.97 and share.min() < 0.1
  assert np.median(share) == pytest.approx(0.45, abs=0.08)


def test_what_does_not_fit_is_refused():
  with pytest.raises(config.ConfigError, match='look ahead'):
    decoders.LatentDecoder(
        L, backbone=small.stack(mixer={'mask_kind': 'bidirectional'})
    )
  with pytest.raises(config.ConfigError, match='experts'):
    decoders.LatentDecoder(
        L, backbone=small.stack().clone(mlp=mlps.Moe(4, 2, 1))
    )
  with pytest.raises(config.ConfigError, match='moments of 1'):
    _make(moments=moments_lib.Moments((0.0,), (1.0,)))
  sampler = latent_heads.LatentSampler
  with pytest.raises(ValueError, match='history_noise'):
    _make(history_noise=0.1).check_sampler(sampler(history_noise=0.2))
  with pytest.raises(ValueError, match='threshold'):
    _make(stop=False).check_sampler(sampler(threshold=0.2))
  with pytest.raises(ValueError, match='guidance'):
    _make().check_sampler(sampler(), guided=True)
