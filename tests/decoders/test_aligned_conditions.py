"""Conditions of frames: each acts where its frame is, in every kind of decoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax import generation
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.data import factors
from audiolm_jax.decoders import conditioned
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import latent_heads
from audiolm_jax.processes import noise as noise_lib
from tests.decoders import small
from tests.generation import quick

V, F, K, B, L = 3, 5, 2, 3, 2
SOURCE = factors.Aligned(length=6)
_RNG = np.random.default_rng(0)
CODES = _RNG.integers(0, V, (B, F, K)).astype(np.int32)
LATENTS = _RNG.normal(size=(B, F, L)).astype(np.float32)
LENGTHS = np.array([F, F - 1, F], np.int32)
EXISTS = np.arange(F) < LENGTHS[:, None]
# Of all frames, of some, and of none.
VALUES = [
    np.stack([_RNG.integers(0, n, F) for n in SOURCE.vocabularies], 1),
    np.array([[1, 0], [7, 3]]),
    None,
]
CONDITION = {'said': conditioners.Aligned(source=SOURCE)}


def _prepared(values=VALUES):
  return {'said': SOURCE.prepare(values)}


def _changed(row, frame):
  """The values with those of one frame of a row changed."""
  values = [None if v is None else np.array(v) for v in VALUES]
  values[row][frame] = (values[row][frame] + 1) % SOURCE.vocabularies
  return values


def test_vectors_stand_at_their_frames_and_nothing_is_known_elsewhere():
  decoder = decoders.Decoder((V,) * K, conditions=CONDITION)
  params = small.parameters(decoder, CODES, LENGTHS, None, _prepared())
  context = decoder.apply({'params': params}, _prepared(), B, method='context')
  found = np.asarray(context['frames'])
  weights = params['conditions_said']
  null = np.asarray(weights['null'])
  assert found.shape[:2] == (B, SOURCE.length + 1)
  np.testing.assert_array_equal(found[0, F:], np.tile(null, (2, 1)))
  np.testing.assert_array_equal(found[1, 2:], np.tile(null, (5, 1)))
  np.testing.assert_array_equal(found[2], np.tile(null, (7, 1)))
  table = np.asarray(weights['table'])
  for f, (phone, pitch) in enumerate(VALUES[0]):
    expected = table[phone] + table[SOURCE.vocabularies[0] + pitch]
    np.testing.assert_allclose(found[0, f], expected, rtol=1e-5, atol=1e-7)
  x = jnp.zeros((B, 3, found.shape[2]))
  frames = np.array([[0, 4, 99]] * B)
  seen = np.asarray(conditioned.add(x, context, frames))
  np.testing.assert_array_equal(seen[:, :2], found[:, [0, 4]])
  np.testing.assert_array_equal(seen[:, 2], np.tile(null, (B, 1)))


def test_two_conditions_of_other_lengths_add_up():
  short = conditioners.Aligned(source=factors.Aligned(('f0',), length=2))
  both = {**CONDITION, 'tune': short}
  decoder = decoders.Decoder((V,) * K, conditions=both)
  values = {**_prepared(), 'tune': short.source.prepare([[[3], [4]]] * B)}
  params = small.parameters(decoder, CODES, LENGTHS, None, values)
  variables = {'params': params}
  found = decoder.apply(variables, values, B, method='context')['frames']
  parts = []
  for name in both:
    alone = decoders.Decoder((V,) * K, conditions={name: both[name]})
    own = {'params': {f'conditions_{name}': params[f'conditions_{name}']}}
    context = alone.apply(own, {name: values[name]}, B, method='context')
    parts.append(np.asarray(context['frames']))
  longer = np.concatenate([parts[1], np.repeat(parts[1][:, -1:], 4, 1)], 1)
  np.testing.assert_allclose(found, parts[0] + longer, rtol=1e-5, atol=1e-7)


@functools.cache
def _model(pattern):
  """A decoder of a pattern by name, and its parameters."""
  decoder = decoders.Decoder(
      (V,) * K,
      pattern=small.PATTERNS[pattern],
      backbone=small.stack(),
      conditions=CONDITION,
  )
  return decoder, small.parameters(decoder, CODES, LENGTHS, None, _prepared())


@pytest.fixture(scope='module', params=sorted(small.PATTERNS))
def model(request):
  return _model(request.param)


def test_codes_see_the_frames_of_their_step_and_of_those_before(model):
  decoder, params = model
  score = small.scorer(decoder)

  def run(values):
    found = score(params, CODES, LENGTHS, None, _prepared(values))
    return np.asarray(found.log_prob)

  plain = run(VALUES)
  layout = decoder.pattern.layout(F, K)
  last = layout.frame.max(axis=1)
  for frame in range(F):
    moved = np.abs(run(_changed(0, frame)) - plain) > 1e-6
    assert not moved[1:].any()
    # Steps from the first one on that is told of that frame.
    steps = np.flatnonzero(last == frame)
    expected = layout.step >= steps[0]
    np.testing.assert_array_equal(moved[0], expected)


def test_generation_is_what_is_scored(model):
  decoder, params = model
  score, conditions = small.scorer(decoder), _prepared()
  context = small.quick_jit(
      lambda c: decoder.apply({'params': params}, c, B, method='context')
  )(conditions)
  mask = np.zeros(CODES.shape, bool)
  mask[:2, :2] = True
  found = []
  for prompt in (0, 2):
    made = quick.generate(
        decoder,
        params,
        CODES,
        mask,
        LENGTHS,
        jax.random.key(0),
        generation.Sampler(temperature=2.0),
        prompt,
        context=context,
    )
    found.append(np.asarray(made.codes))
    expected = score(params, found[-1], LENGTHS, None, conditions).log_prob
    drawn = np.asarray(made.log_prob)
    # Prompts that are taken in at once are not scored.
    kept = drawn != 0
    assert kept[:, 2:][EXISTS[:, 2:]].all()
    np.testing.assert_allclose(
        drawn[kept], np.asarray(expected)[kept], rtol=1e-4, atol=1e-5
    )
  np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    'pattern', [name for name, p in small.PATTERNS.items() if p.streamable]
)
def test_a_stream_goes_by_its_own_frames(pattern):
  decoder, params = _model(pattern)
  conditions = {'said': SOURCE.prepare(VALUES[:1])}
  context = decoder.apply({'params': params}, conditions, 1, method='context')
  options = {'context': context, 'cache_length': 20}
  args = jax.random.key(0), generation.Sampler(temperature=2.0)
  streamed = np.stack(
      list(quick.stream(decoder, params, CODES[0, :2], F, *args, **options))
  )
  mask = np.zeros((1, F, K), bool)
  mask[:, :2] = True
  whole = quick.generate(
      decoder, params, CODES[:1], mask, LENGTHS[:1], *args, **options
  ).codes
  np.testing.assert_array_equal(
      streamed, np.asarray(whole)[0, -len(streamed) :]
  )


def test_frames_of_latents_are_generated_as_they_are_scored():
  decoder = decoders.LatentDecoder(
      L,
      backbone=small.stack(),
      conditions=CONDITION,
      head=latent_heads.Mixture(components=2),
  )
  keys = noise_lib.row_keys(jax.random.key(0), jnp.arange(B))
  ends = np.ones(B, bool)
  inputs = LATENTS, LENGTHS, ends, keys, None, _prepared()
  params = small.parameters(decoder, *inputs, method='losses')

  @small.quick_jit
  def losses(conditions):
    inputs = LATENTS, LENGTHS, ends, keys, None, conditions
    return decoder.apply({'params': params}, *inputs, method='losses')['nll']

  plain = np.asarray(losses(_prepared()))
  for frame in range(F):
    found = np.asarray(losses(_prepared(_changed(0, frame))))
    moved = np.abs(found - plain) > 1e-6
    np.testing.assert_array_equal(moved[0], np.arange(F) >= frame)
    assert not moved[1:].any()
  # Step by step, from what is given: the outputs that the whole row has.
  variables = {'params': params}
  context = decoder.apply(variables, _prepared(), B, method='context')

  @small.quick_jit
  def outputs():
    state = decoder.initial_state(B, F)
    seen = []
    before = np.zeros((B, 1, L), np.float32)
    for frame in range(F):
      h, state = decoder.apply(
          variables,
          state,
          before,
          np.full((B, 1), frame > 0),
          context=context,
          frames=np.full((B, 1), frame),
          method='extend',
      )
      seen.append(h)
      before = LATENTS[:, frame : frame + 1]
    return jnp.stack(seen, axis=1)

  whole = decoder.apply(
      variables, LATENTS, EXISTS, context, None, method='_hidden'
  )
  found = np.asarray(outputs())
  np.testing.assert_allclose(
      found[EXISTS], np.asarray(whole)[EXISTS], rtol=1e-4, atol=1e-5
  )


def _flow():
  decoder = decoders.Flow(
      L,
      backbone=small.stack(
          mixer={'mask_kind': 'bidirectional'},
          adaptive='adaln_zero',
          film_silu=True,
      ),
      conditions=CONDITION,
  )
  t = np.full(B, 0.5, np.float32)

  def run(params, x, lengths, conditions):
    inputs = x, t[: len(x)], lengths, None, None, None, conditions
    return decoder.apply({'params': params}, *inputs, method='predict')

  inputs = LATENTS, t, LENGTHS, None, None, None, _prepared()
  return small.parameters(decoder, *inputs, method='predict'), run, LATENTS


def _masked():
  decoder = decoders.Masked(
      (V,) * K,
      backbone=small.stack(mixer={'mask_kind': 'bidirectional'}),
      conditions=CONDITION,
  )
  stage = np.zeros(B, np.int32)

  def run(params, x, lengths, conditions):
    masked = np.ones(x.shape, bool)
    inputs = x, masked, lengths, stage[: len(x)], None, conditions
    return decoder.apply({'params': params}, *inputs, method='logits')

  inputs = CODES, np.ones(CODES.shape, bool), LENGTHS, stage, None, _prepared()
  return small.parameters(decoder, *inputs, method='logits'), run, CODES


@pytest.mark.parametrize('make', [_flow, _masked])
def test_who_sees_all_frames_is_told_of_each_where_it_is(make):
  params, apply, x = make()
  run = small.quick_jit(apply)
  plain = np.asarray(run(params, x, LENGTHS, _prepared()))
  # A frame longer, whatever is there.
  longer = np.pad(x, ((0, 0), (0, 1), (0, 0)))
  padded = np.asarray(run(params, longer, LENGTHS, _prepared()))[:, :F]
  np.testing.assert_allclose(
      padded[EXISTS], plain[EXISTS], rtol=2e-4, atol=1e-5
  )
  alone = np.asarray(run(params, x[1:2], LENGTHS[1:2], _prepared(VALUES[1:2])))
  np.testing.assert_allclose(
      alone[0, : F - 1], plain[1, : F - 1], rtol=2e-4, atol=1e-5
  )
  # Where nothing is mixed over frames, a frame is told of itself alone.
  own = jax.tree.map(lambda leaf: leaf, params)
  mixer = own['backbone']['layer_0']['mixer']
  mixer['out'] = np.zeros_like(mixer['out'])
  for weights, mixed in ((params, True), (own, False)):
    plain, others = np.asarray(run(weights, x, LENGTHS, _prepared())), 0
    for frame in range(F):
      changed = _prepared(_changed(0, frame))
      found = np.asarray(run(weights, x, LENGTHS, changed))
      moved = np.abs(found - plain).reshape(B, F, -1).max(axis=2) > 1e-6
      assert moved[0, frame] and not moved[1:].any()
      others += moved[0].sum() - 1
    assert (others > 0) == mixed


def test_what_can_not_be_told_of_frames_is_refused():
  name = factors.Name(('a',))
  with pytest.raises(config.ConfigError, match="acts by 'frames'"):
    conditioners.fit(
        {'x': conditioners.Class(source=name, how='frames')}, small.stack()
    )
  with pytest.raises(config.ConfigError, match="acts by 'add'"):
    conditioners.fit({'x': conditioners.Aligned(how='add')}, small.stack())
  decoder = decoders.Decoder(
      (V,) * K, backbone=small.stack(), conditions=CONDITION
  )
  params = small.parameters(decoder, CODES, LENGTHS, None, _prepared())
  variables = {'params': params}
  context = decoder.apply(variables, _prepared(), B, method='context')
  step = np.zeros((B, 1, 2), np.int32)
  with pytest.raises(ValueError, match='steps need the frames'):
    decoder.apply(
        variables,
        decoder.initial_state(B, F),
        *(step, step, step > 0),
        context=context,
        method='extend',
    )
  blocks = attention.Attention(heads=2, mask_kind='block_causal', block=2)
  flow = decoders.Flow(
      L,
      backbone=small.stack_lib.Stack(
          8, 1, (blocks,), adaptive='adaln_zero', film_silu=True, scan=False
      ),
      conditions=CONDITION,
  )
  with pytest.raises(ValueError, match='conditions of frames are for whole'):
    flow.check_streams()


def test_a_decoder_comes_back_from_its_config():
  decoder = decoders.Decoder((V,) * K, conditions=CONDITION)
  values = config.to_config(decoder)
  assert values.conditions.said.kind == 'aligned'
  assert config.build(decoders.Decoder, values) == decoder
