"""What generation costs: closed forms, and the sum over its single steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import generation
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.data import factors
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import segmented
from audiolm_jax.decoders import wavenet
from audiolm_jax.generation import tracks
from audiolm_jax.models import kinds
from audiolm_jax.models import rows as rows_lib
from audiolm_jax.patterns import interleaving
from audiolm_jax.patterns import sequence as sequence_lib
from audiolm_jax.training import costs
from tests.decoders import small

V, K, D = 4, 2, 8


def _model(decoder, rate=2.0):
  """With shapes in place of parameters."""
  description = kinds.Description(decoder, rate)
  return description.bind(jax.eval_shape(description.init, jax.random.key(0)))


def _decoder(**options):
  backbone = {'layers': 2, 'mixer': {'positions': None}, 'scan': True}
  return decoder_lib.Decoder(
      (V,) * K,
      pattern=interleaving.Parallel(),
      backbone=small.stack(**backbone, **options.pop('backbone', {})),
      **options,
  )


def _weights(params):
  """How many weights multiply a vector at each step."""
  params = {name: params[name] for name in ('backbone', 'head')}
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return sum(w.size for path, w in leaves if path[-1].key != 'scale')


@pytest.mark.parametrize('seconds', [0, 0.5, 3])
def test_a_small_transformer_has_its_closed_form(seconds):
  """Two FLOPs a weight and step, 4 n D a layer and step for attention."""
  model = _model(_decoder())
  n = int(2 * seconds)
  want = n * (2 * _weights(model.params) + 2 * 4 * n * D)
  assert model.generation_flops(seconds) == want


def test_a_pattern_of_more_steps_costs_more():
  parallel, flat = (
      _model(_decoder()).generation_flops(2),
      _model(
          decoder_lib.Decoder(
              (V,) * K,
              pattern=interleaving.Flatten(),
              backbone=_decoder().backbone,
          )
      ),
  )
  n = 2 * 2 * K
  want = n * (2 * _weights(flat.params) + 2 * 4 * n * D)
  assert flat.generation_flops(2) == want
  assert flat.generation_flops(2) > 1.9 * parallel


def test_a_bounded_cache_bounds_a_step():
  model = _model(_decoder())
  once, twice = (
      model.generation_flops(s, cache_length=3, sink_tokens=1) for s in (5, 10)
  )
  assert twice == 2 * once < model.generation_flops(10)


@pytest.fixture(scope='module', name='conditioned')
def _conditioned():
  """A depth head, a delay, a text that all steps attend to."""
  text = conditioners.Text(source=factors.Text(length=5), how='cross')
  return _model(
      decoder_lib.Decoder(
          (V,) * K,
          pattern=interleaving.Delay(),
          head=small.HEADS['depth'],
          backbone=small.stack(layers=2, cross=attention.Cross(heads=2)),
          conditions={'text': text},
      )
  )


@pytest.mark.parametrize('guided', [False, True])
def test_it_is_the_sum_over_single_steps(conditioned, guided):
  decoder, frames = conditioned.decoder, 3
  count = decoder.pattern.steps(frames, K)
  assert count == 4  # The delay adds one.

  def unrolled(params, text):
    rows = {'params': params}
    options = {
        'context': decoder.apply(rows, {'text': text}, 1, method='context')
    }
    if guided:
      options['null_context'] = decoder.apply(rows, None, 1, method='context')
    none = jnp.zeros((1, decoder.group), jnp.int32)
    lengths = jnp.array([frames])
    track = tracks.whole(
        decoder,
        jnp.zeros((1, frames, K), jnp.int32),
        params=params,
        sampler=generation.Sampler(),
        lengths=lengths,
        **generation.Options(**options).prepare(decoder, params),
    )
    state = generation.start(track, lengths, count, jax.random.key(0))
    drawn = []
    for _ in range(count):
      state, codes, _ = generation.step(track, state, none, none > 0)
      drawn.append(codes)
    return drawn

  text = decoder.conditions['text'].source.prepare([None])
  want = costs.flops(unrolled, conditioned.params, text)
  got = conditioned.generation_flops(frames / 2, guided=guided)
  assert got == pytest.approx(want, rel=1e-9)
  if guided:
    assert 1.5 < got / conditioned.generation_flops(frames / 2) < 2.5


def _segmented(kind, role='observe'):
  text = sequence_lib.Segment('text', (0,), role=role)
  speech = sequence_lib.Segment('speech', (1,))
  return _model(
      kind(
          vocabularies=(V,) * 2,
          sequence=sequence_lib.Sequence((text, speech)),
          backbone=_decoder().backbone,
      )
  )


def test_segments_that_are_observed_are_taken_in_at_once():
  """Three of text, four of speech: seven inputs, four of them drawn."""
  observed, predicted = (
      _segmented(segmented.Segmented, role) for role in ('observe', 'predict')
  )
  params, n = predicted.params, 7
  layers = 2 * _weights({'backbone': params['backbone'], 'head': {}})
  step = 2 * _weights(params) + 2 * 4 * n * D
  every = predicted.generation_flops(2, {'text': 3})
  assert every == n * step
  # Nothing is drawn, and no one needs what the last layer makes of them.
  taken = observed.generation_flops(2, {'text': 3}) - 4 * step
  assert 3 * layers / 2 < taken < 3 * step


def test_a_stage_draws_what_it_does_not_observe():
  """Of four frames, four steps are observed and four drawn."""
  stage = _segmented(segmented.Staged).generation_flops(2)
  model = _segmented(segmented.Segmented)
  assert stage == model.generation_flops(2, {'text': 4})


def test_samples_cost_a_step_each():
  stack = wavenet.GatedStack(width=8, skip=8, dilations=(1, 2), film=3)
  model = _model(wavenet.WaveNet(stack=stack), 100)
  context = {'film': np.zeros((1, 3), np.float32)}
  once = model.generation_flops(0.01, context)
  assert model.generation_flops(0.5, context) == pytest.approx(50 * once)
  # Two FLOPs a weight: each multiplies one input in a step.
  leaves = jax.tree_util.tree_leaves_with_path(model.params)
  weights = sum(w.size for path, w in leaves if 'bias' not in path[-1].key)
  assert once == 2 * weights


def test_wrong_durations_and_options_are_refused():
  model = _model(_decoder())
  for seconds in (-1, np.inf, np.nan):
    with pytest.raises(ValueError, match='seconds = '):
      model.generation_flops(seconds)
  with pytest.raises(ValueError, match='no frame rate'):
    _model(_decoder(), None).generation_flops(1)
  with pytest.raises(ValueError, match='no conditions'):
    model.generation_flops(1, guided=True)
  segments = _segmented(segmented.Segmented)
  for wrong in ({}, {'text': 1, 'speech': 2}, {'text': 1, 'pause': 1}):
    with pytest.raises(ValueError, match='all segments'):
      segments.generation_flops(1, wrong)


def test_durations_are_whole_frames():
  assert rows_lib.duration(1.5, 12.5) == 19
  assert rows_lib.duration(0, 50) == 0
