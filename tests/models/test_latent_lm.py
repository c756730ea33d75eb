"""Latents that are given one after the other: prompts, ends, sessions, costs."""

import dataclasses

import jax
import numpy as np
import pytest

from audiolm_jax import decoders
from audiolm_jax.data import factors
from audiolm_jax.data import moments as moments_lib
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import latent_heads
from audiolm_jax.decoders import time_embedding
from audiolm_jax.decoders.latent_heads import network as network_lib
from audiolm_jax.models import kinds
from audiolm_jax.models import latent_lm
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import times as times_lib
from audiolm_jax.training import costs
from tests.decoders import small

F, L = 6, 2
MOMENTS = moments_lib.Moments((3.0, -7.0), (0.5, 20.0))
PROMPT = (
    np.random.default_rng(0)
    .normal([3, -7], [0.5, 20], size=(3, 3, L))
    .astype(np.float32)
)
LENGTHS = np.array([3, 1, 2], np.int32)
NEVER = latent_heads.LatentSampler(ends=False)
DIFFUSION = latent_heads.Diffusion(
    network_lib.AdalnMlp(
        8, 1, time_embedding.TimeEmbedding(frequencies=4, scale=10.0)
    ),
    grid=times_lib.Grid(2),
    draws=1,
)


def _model(head=DIFFUSION, how=(), seed=0, **options):
  modules = {
      way: conditioners.Class(how=way, source=factors.Name(('a', 'b')))
      for way in how
  }
  decoder = decoders.LatentDecoder(
      L,
      backbone=small.stack(),
      head=head,
      **{
          'moments': MOMENTS,
          'history_noise': 0.5,
          'conditions': modules,
          **options,
      },
  )
  batch = decoder.example_batch(1, F)
  latents, num_frames, conditions = decoder.read(batch)
  keys = noise_lib.row_keys(jax.random.key(0), np.arange(1))
  inputs = latents, num_frames, batch['ends'], keys, None, conditions
  params = small.parameters(decoder, *inputs, seed=seed, method='losses')
  return latent_lm.LatentLM(decoder, params, 2.0)


@pytest.fixture(scope='module', name='model')
def _plain():
  return _model()


@pytest.fixture(scope='module', name='whole')
def _whole(model):
  return model.generate(
      PROMPT, F, num_frames=LENGTHS, sampler=NEVER, seed=1
  ).latents


def test_prompts_come_back_to_the_bit_and_go_on(model, whole):
  holes = PROMPT.copy()
  holes[1, 1:] = holes[2, 2:] = np.nan
  found = model.generate(holes, F, num_frames=LENGTHS, sampler=NEVER, seed=1)
  np.testing.assert_array_equal(found.latents, whole)
  np.testing.assert_array_equal(found.num_frames, F)
  assert whole.dtype == np.float32 and np.isfinite(whole).all()
  for row, length in enumerate(LENGTHS):
    np.testing.assert_array_equal(whole[row, :length], PROMPT[row, :length])
  # Another prompt, another continuation; another seed, too.
  other = model.generate(
      PROMPT + 0.5, F, num_frames=LENGTHS, sampler=NEVER, seed=1
  ).latents
  assert (other[:, 3:] != whole[:, 3:]).all()
  other = model.generate(
      PROMPT, F, num_frames=LENGTHS, sampler=NEVER, seed=2
  ).latents
  assert (other[:, 3:] != whole[:, 3:]).all()


@pytest.mark.parametrize('blocks', [(1,) * 5, (2, 3), (5,)])
def test_sessions_in_any_blocks_are_generate(model, whole, blocks):
  session = model.session(PROMPT, F, num_frames=LENGTHS, sampler=NEVER, seed=1)
  assert session.prompts.shape[1] == 1
  pieces = [session.prompts, *(session.step(n) for n in blocks)]
  found = np.concatenate(pieces, axis=1)
  np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-4)
  # Once more, in one row.
  session.reset(np.array([False, True, False]))
  again = session.step(1)
  np.testing.assert_allclose(again[1, 0], whole[1, 1], rtol=1e-4, atol=1e-4)


def test_frames_come_one_by_one(model, whole):
  session = model.session(
      PROMPT, num_frames=LENGTHS, sampler=NEVER, seed=1, cache_length=F
  )
  frames = [frame for frame, _ in zip(session, range(F), strict=False)]
  np.testing.assert_allclose(
      np.stack(frames, axis=1), whole, rtol=1e-4, atol=1e-4
  )


def test_what_is_fed_comes_back_and_is_seen(model, whole):
  session = model.session(PROMPT, F, num_frames=LENGTHS, sampler=NEVER, seed=1)
  given = np.full((3, 5, L), np.nan, np.float32)
  given[:, 3] = 4.0, -1.0
  mask = np.zeros((3, 5), bool)
  mask[:, 3] = True
  found = session.step(5, given, mask)
  np.testing.assert_array_equal(found[:, 3], given[:, 3])
  np.testing.assert_allclose(found[:, :3], whole[:, 1:4], rtol=1e-4, atol=1e-4)
  assert (np.abs(found[:, 4] - whole[:, 5]) > 1e-3).all()


def test_fed_frames_are_what_a_prompt_is(model):
  prompted = model.generate(PROMPT, F, sampler=NEVER, seed=1).latents
  session = model.session(PROMPT[:, :1], F, sampler=NEVER, seed=1)
  fed = session.step(2, PROMPT[:, 1:])
  np.testing.assert_array_equal(fed, PROMPT[:, 1:])
  found = session.step(F - 3)
  np.testing.assert_allclose(found, prompted[:, 3:], rtol=1e-4, atol=1e-4)


def test_latents_are_as_the_tokenizer_gives_them(model, whole):
  """A model with moments is one without, before and after."""
  decoder = model.decoder.clone(moments=None)
  plain = dataclasses.replace(model, decoder=decoder)
  found = plain.generate(
      MOMENTS.normalised(PROMPT),
      F,
      num_frames=LENGTHS,
      sampler=NEVER,
      seed=1,
  ).latents
  np.testing.assert_allclose(
      MOMENTS.restored(found), whole, rtol=1e-4, atol=1e-4
  )
  mixture = _model(latent_heads.Mixture(components=2))
  without = dataclasses.replace(
      mixture, decoder=mixture.decoder.clone(moments=None)
  )
  np.testing.assert_allclose(
      mixture.log_prob(PROMPT, LENGTHS),
      without.log_prob(MOMENTS.normalised(PROMPT), LENGTHS),
      rtol=1e-4,
      atol=1e-4,
  )


def test_rows_are_themselves_alone(model, whole):
  alone = model.generate(PROMPT[:1], F, sampler=NEVER, seed=1).latents
  np.testing.assert_allclose(alone, whole[:1], rtol=1e-4, atol=1e-4)


def _ending(logit, **options):
  """A model that thinks every frame the last with this logit."""
  model = _model(**options)
  params = {**model.params, 'last_bias': np.full(1, logit, np.float32)}
  params['last'] = 0 * params['last']
  return dataclasses.replace(model, params=params)


def test_rows_end_as_often_as_the_model_says():
  model, rows = _ending(-1.0), 400
  none = np.zeros((rows, 0, L), np.float32)
  found = model.generate(none, 40, seed=3)
  exists = np.arange(40) < found.num_frames[:, None]
  np.testing.assert_array_equal(found.latents[~exists], 0)
  assert (found.latents[exists] != 0).all()
  likely = 1 / (1 + np.exp(1.0))
  # Geometric: the mean is 1 / p, the deviation sqrt(1 - p) / p.
  error = np.sqrt(1 - likely) / likely / np.sqrt(rows)
  assert abs(found.num_frames.mean() - 1 / likely) < 4 * error
  assert found.num_frames.min() == 1
  # Those that go on are what they were without the others.
  longest = int(found.num_frames.argmax())
  freely = model.generate(
      none, 40, seed=3, sampler=latent_heads.LatentSampler(ends=False)
  ).latents
  count = found.num_frames[longest]
  np.testing.assert_allclose(
      found.latents[longest, :count],
      freely[longest, :count],
      rtol=1e-4,
      atol=1e-4,
  )


def test_a_threshold_decides_without_chance_and_prompts_do_not_end():
  likely = 1 / (1 + np.exp(1.0))
  for model, threshold, length in (
      (_ending(-1.0), likely - 0.01, 4),
      (_ending(-1.0), likely + 0.01, F),
  ):
    sampler = latent_heads.LatentSampler(threshold=threshold)
    found = model.generate(PROMPT, F, sampler=sampler)
    np.testing.assert_array_equal(found.num_frames, length)
    np.testing.assert_array_equal(found.latents[:, :3], PROMPT)
  silent = _model(stop=False)
  np.testing.assert_array_equal(silent.generate(PROMPT, F).num_frames, F)


def test_noise_on_the_history_changes_what_follows(model, whole):
  sampler = latent_heads.LatentSampler(ends=False, history_noise=0.4)
  noisy = model.generate(
      PROMPT, F, num_frames=LENGTHS, sampler=sampler, seed=1
  ).latents
  for row, length in enumerate(LENGTHS):
    np.testing.assert_array_equal(noisy[row, :length], PROMPT[row, :length])
    assert (np.abs(noisy[row, length:] - whole[row, length:]) > 1e-4).any()
  # As in blocks: a frame's noise is its own.
  session = model.session(
      PROMPT, F, num_frames=LENGTHS, sampler=sampler, seed=1
  )
  pieces = [session.prompts, *(session.step(1) for _ in range(5))]
  np.testing.assert_allclose(
      np.concatenate(pieces, axis=1), noisy, rtol=1e-4, atol=1e-4
  )


def test_conditions_and_guidance():
  model = _model(how=('prefix', 'add'))
  none = np.zeros((2, 0, L), np.float32)

  def run(voices, **options):
    return model.generate(
        none,
        4,
        conditions={'prefix': voices, 'add': voices},
        sampler=NEVER,
        **options,
    ).latents

  one, other = run(['a', 'b']), run(['b', 'b'])
  np.testing.assert_allclose(one[1], other[1], rtol=1e-4, atol=1e-4)
  assert np.abs(one[0] - other[0]).max() > 1e-3
  np.testing.assert_allclose(
      run(['a', 'b'], guidance=1.0), one, rtol=1e-3, atol=1e-3
  )
  plain = model.generate(none, 4, sampler=NEVER).latents
  np.testing.assert_allclose(
      run(['a', 'b'], guidance=0.0)[:, 0], plain[:, 0], rtol=1e-3, atol=1e-3
  )
  assert np.abs(run(['a', 'b'], guidance=3.0) - one).max() > 1e-2


def test_bad_input_is_refused(model):
  for latents, what in (
      (PROMPT[..., :1], r'expected \[B, F, 2\]'),
      (PROMPT.astype(int), 'expected floats'),
      (PROMPT * np.nan, 'finite'),
  ):
    with pytest.raises(ValueError, match=what):
      model.generate(latents, F)
  with pytest.raises(ValueError, match='frames = 2'):
    model.generate(PROMPT, 2)
  with pytest.raises(ValueError, match='cache_length'):
    model.session(PROMPT)
  with pytest.raises(ValueError, match='finite'):
    model.session(PROMPT, F).step(1, np.full((3, 1, L), np.nan))
  with pytest.raises(ValueError, match='without'):
    model.generate(PROMPT, F, conditions={'add': ['a'] * 3})
  with pytest.raises(ValueError, match='guidance'):
    model.generate(PROMPT, F, guidance=2.0)
  with pytest.raises(ValueError, match='likelihood'):
    _model(latent_heads.FlowMap(DIFFUSION.network)).log_prob(PROMPT)


def test_flops_are_those_of_every_evaluation():
  """By hand: what two grids and guidance differ in is the head's network."""
  model = _model(how=('add',))
  shapes = dataclasses.replace(
      model,
      params=jax.tree.map(
          lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), model.params
      ),
  )

  def flops(steps=2, **options):
    sampler = latent_heads.LatentSampler(grid=times_lib.Grid(steps))
    return shapes.generation_flops(2.0, sampler=sampler, **options)

  head = DIFFUSION.network
  z, h = np.zeros((1, L), np.float32), np.zeros((1, 8), np.float32)
  params = model.params['head']['network']
  once = costs.flops(
      lambda p: head.apply({'params': p}, z, h, np.ones(1, np.float32)), params
  )
  assert flops(5) - flops(2) == 4 * 3 * once
  assert flops(5, guided=True) - flops(2, guided=True) == 2 * 4 * 3 * once
  assert shapes.generation_flops(4.0) > 1.9 * shapes.generation_flops(2.0)


def test_it_is_what_a_description_binds():
  decoder = _model().decoder
  described = kinds.Description(decoder, 2.0)
  assert described.kind == 'latents'
  model = described.bind(described.init(jax.random.key(0)))
  assert isinstance(model, latent_lm.LatentLM) and model.frame_rate == 2.0
  found = model.generate(PROMPT, F)
  assert np.isfinite(found.latents).all()


def test_frames_are_drawn_by_what_is_known_of_them():
  """Those before a frame of which something else is known are the same."""
  source = factors.Aligned(length=F)
  model = _model(conditions={'said': conditioners.Aligned(source=source)})
  rng = np.random.default_rng(0)
  said = [
      np.stack([rng.integers(0, n, F) for n in source.vocabularies], axis=1)
      for _ in range(3)
  ]

  def draw(values, prompt=PROMPT[:, :1]):
    options = {'sampler': NEVER, 'seed': 1, 'conditions': {'said': values}}
    return model.generate(prompt, F, **options).latents

  whole = draw(said)
  for frame in range(1, F):
    other = [x.copy() for x in said]
    other[1][frame, 0] = (other[1][frame, 0] + 1) % source.vocabularies[0]
    moved = np.abs(draw(other) - whole).max(axis=2) > 0
    np.testing.assert_array_equal(moved[1], np.arange(F) >= frame)
    assert not moved[[0, 2]].any()
  # A prompt that is taken in at once, or was drawn before.
  found = draw(said, whole[:, :3])
  np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-4)
