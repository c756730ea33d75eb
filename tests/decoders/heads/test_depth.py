"""What each option of the depth head means, in closed form; its sampling."""

import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import heads
from audiolm_jax.decoders.heads import depth
from audiolm_jax.patterns import interleaving
from tests.decoders import small

V, B, N, G, D = 5, 2, 6, 3, 4
PARALLEL = heads.StepLayout((V,) * G, ((0,), (1,), (2,)))
SLOTS = np.tile(np.arange(G), (N, 1))


def _inputs(seed=0):
  rng = np.random.default_rng(seed)
  h = rng.normal(size=(B, N, D)).astype(np.float32)
  codes = rng.integers(0, V, (B, N, G)).astype(np.int32)
  exists = rng.random((B, N, G)) < 0.8
  return h, codes, exists


def _run(head, params, *inputs, slots=SLOTS, step_layout=PARALLEL, rngs=None):
  return small.quick_jit(
      lambda params, rngs, h, codes, exists: head.apply(
          {'params': params},
          h,
          codes,
          exists,
          slots,
          step_layout,
          rngs=rngs,
          method='log_prob',
      )
  )(params, rngs, *inputs)


def _parameters(head, *inputs, slots=SLOTS, step_layout=PARALLEL):
  return small.parameters(head, *inputs, slots, step_layout, method='log_prob')


@pytest.mark.parametrize('per_place', [False, True])
@pytest.mark.parametrize('condition', ['every', 'first'])
@pytest.mark.parametrize('first', ['depth', 'backbone'])
def test_inputs_are_what_the_fields_say(per_place, condition, first):
  """With a transformer of zeros, outputs are inputs."""
  inner = small.stack(4, final_norm=False)
  head = depth.Depth(inner, per_place, condition, first)
  h, codes, exists = _inputs()
  params = _parameters(head, h, codes, exists)
  for name, tree in params.items():
    if name == 'backbone' or name.startswith('place_'):
      params[name] = jax.tree.map(np.zeros_like, tree)
  apart = first == 'backbone'
  start = int(apart and condition == 'every')
  stacks = (
      [f'place_{g}' for g in range(start, G)] if per_place else ['backbone']
  )
  assert {k for k in params if k.startswith(('place_', 'backbone'))} == set(
      stacks
  )
  found, scored = _run(head, params, h, codes, exists)
  np.testing.assert_array_equal(scored, exists)
  table = params['embedding']['table']
  for g in range(G):
    x = np.zeros((B, N, 4), np.float32)
    if condition == 'every' or g == 0:
      project = params['project']
      x += h @ (project[g - start] if project.ndim == 3 else project)
    if g:
      fill = G * V + g - 1
      before = np.where(
          exists[..., g - 1], (g - 1) * V + codes[..., g - 1], fill
      )
      x += table[before]
    kernel = params['kernel'][g - apart] if g or not apart else None
    if g == 0 and apart:
      x, kernel = h, params['first'][0]
    wanted = np.asarray(jax.nn.log_softmax(x @ kernel))
    wanted = np.take_along_axis(wanted, codes[..., g, None], axis=-1)[..., 0]
    np.testing.assert_allclose(found[..., g], wanted, rtol=1e-4, atol=1e-5)


def _head(fraction):
  return depth.Depth(small.stack(4), first='backbone', fraction=fraction)


def test_a_fraction_of_the_steps_is_scored_where_there_is_a_stream():
  h, codes, exists = _inputs()
  # Padding, which is chosen last.
  exists = exists | True
  exists[1, 2:] = False
  params = _parameters(_head(0.25), h, codes, exists)
  # Without the stream, all are.
  full, scored = _run(_head(0.25), params, h, codes, exists)
  np.testing.assert_array_equal(scored, exists)
  counts = np.zeros(exists.shape)
  runs = 30
  every = small.quick_jit(
      lambda seeds: jax.lax.map(
          lambda seed: _head(0.25).apply(
              {'params': params},
              h,
              codes,
              exists,
              SLOTS,
              PARALLEL,
              rngs={'frames': jax.random.key(seed)},
              method='log_prob',
          ),
          seeds,
      )
  )(np.arange(runs))
  for found, scored in zip(*map(np.asarray, every), strict=True):
    # A quarter of 12, of which 8 are there: whole steps.
    rest = scored[..., 1:]
    assert (rest.all(axis=-1) == rest.any(axis=-1)).all()
    assert rest[..., 0].sum() == 3
    np.testing.assert_allclose(
        found[scored], np.asarray(full)[scored], rtol=1e-4, atol=1e-5
    )
    counts += scored
  np.testing.assert_array_equal(counts[..., 0], runs * exists[..., 0])
  rest = counts[..., -1]
  assert (rest[~exists[..., 0]] == 0).all()
  # Each with the same chance 3 / 8: 11.25 +- 2.65 of 30.
  assert (np.abs(rest[exists[..., 0]] - 11.25) < 4 * 2.65).all()


def test_a_fraction_takes_its_share_of_every_order_of_slots():
  step_layout = heads.StepLayout((V,) * 3, ((0, 1, 2),))
  slots = np.arange(N)[:, None] % 3
  h, codes, exists = _inputs()
  codes, exists = codes[..., :1], exists[..., :1] | True
  head = depth.Depth(small.stack(4), fraction=0.5)
  params = _parameters(
      head, h, codes, exists, slots=slots, step_layout=step_layout
  )
  arguments = {'slots': slots, 'step_layout': step_layout}
  full, _ = _run(head, params, h, codes, exists, **arguments)
  rngs = {'frames': jax.random.key(0)}
  found, scored = map(
      np.asarray, _run(head, params, h, codes, exists, **arguments, rngs=rngs)
  )
  for slot in range(3):
    assert scored[:, slot::3].sum() == 2  # of 2 x 2
  np.testing.assert_allclose(
      found[scored], np.asarray(full)[scored], rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize('name', ['depth', 'depth of each place'])
def test_samples_have_the_frequencies_of_their_log_probs(name):
  """Given codes are kept, drawn ones follow what `log_prob` says."""
  head, rows = small.HEADS[name], 4000
  rng = np.random.default_rng(0)
  h = np.repeat(rng.normal(size=(1, 1, D)), rows, axis=0).astype(np.float32)
  given = np.tile(np.array([[0, 3, 0]], np.int32), (rows, 1))
  mask = np.tile(np.array([[False, True, False]]), (rows, 1))
  exists = np.ones((rows, G), bool)
  params = _parameters(
      head, h, given[:, None], exists[:, None], slots=SLOTS[:1]
  )
  drawn, log_prob = small.quick_jit(
      lambda params, rng: head.apply(
          {'params': params},
          h[:, 0],
          np.tile(SLOTS[:1], (rows, 1)),
          exists,
          given,
          mask,
          lambda logits, rng, slots: jax.random.categorical(rng, logits),
          rng,
          PARALLEL,
          method='sample',
      )
  )(params, jax.random.key(1))
  drawn = np.asarray(drawn)
  assert (drawn[:, 1] == 3).all()
  again, _ = _run(
      head, params, h, drawn[:, None], exists[:, None], slots=SLOTS[:1]
  )
  np.testing.assert_allclose(again[:, 0], log_prob, rtol=1e-4, atol=1e-5)
  pairs, inverse = np.unique(drawn, axis=0, return_inverse=True)
  frequency = np.bincount(inverse.ravel()) / rows
  # Of the places that were drawn; the middle one was given.
  wanted = np.zeros(len(pairs))
  wanted[inverse.ravel()] = np.exp(np.asarray(log_prob)[:, [0, 2]].sum(axis=1))
  error = np.sqrt(wanted * (1 - wanted) / rows)
  assert (np.abs(frequency - wanted) < 4.5 * error + 1 / rows).all()
  assert frequency.max() < 0.9


def test_places_that_are_not_predicted():
  """They are as if they were not there, and given where steps are sampled."""
  inner = small.stack(4)
  h, codes, exists = _inputs()
  params = _parameters(depth.Depth(inner), h, codes, exists)
  reference, _ = _run(depth.Depth(inner), params, h, codes, exists)
  head = depth.Depth(inner, predicted=2)
  layout = interleaving.Parallel()
  for chosen, predicted in ((head, (0, 1)), (depth.Depth(inner), (0, 1, 2))):
    decoder = decoder_lib.Decoder((V,) * G, inner, chosen, pattern=layout)
    assert decoder.predicted == predicted
  params = {**params, 'kernel': params['kernel'][:2]}
  fresh = _parameters(head, h, codes, exists)
  assert jax.tree.map(np.shape, fresh) == jax.tree.map(np.shape, params)
  found, scored = _run(head, params, h, codes, exists)
  np.testing.assert_allclose(
      found[..., :2], reference[..., :2], rtol=1e-5, atol=1e-6
  )
  np.testing.assert_array_equal(scored[..., :2], exists[..., :2])
  assert not np.asarray(scored)[..., 2].any()
  assert not np.asarray(found)[..., 2].any()
  drawn, log_prob = small.quick_jit(
      lambda params: head.apply(
          {'params': params},
          h[:, 0],
          SLOTS[:B],
          exists[:, 0],
          codes[:, 0],
          np.zeros((B, G), bool),
          lambda logits, rng, slots: jax.numpy.argmax(logits, axis=-1),
          jax.random.key(0),
          PARALLEL,
          method='sample',
      )
  )(params)
  np.testing.assert_array_equal(drawn[:, 2], codes[:, 0, 2])
  again, _ = _run(
      head,
      params,
      h[:, :1],
      np.asarray(drawn)[:, None],
      exists[:, :1],
      slots=SLOTS[:1],
  )
  np.testing.assert_allclose(again[:, 0], log_prob, rtol=1e-4, atol=1e-5)


def test_experts_are_refused():
  inner = stack_lib.Stack(8, 1, mlp=mlps.Moe(2, 1, 4), scan=False)
  h, codes, exists = _inputs()
  with pytest.raises(ValueError, match='no experts'):
    _parameters(depth.Depth(inner), h, codes, exists)


def test_it_can_be_configured():
  settings = {'kind': 'depth', 'backbone': {'kind': 'stack', 'width': 8}}
  assert config.build_kind(decoders.HEADS, settings).backbone.width == 8
