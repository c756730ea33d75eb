"""How rows start: scores, steps, streams and prompts mean the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import generation
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import segmented
from audiolm_jax.decoders import starts
from audiolm_jax.patterns import interleaving
from audiolm_jax.patterns import sequence as sequence_lib
from tests.decoders import small
from tests.generation import quick

V, F, K = 5, 6, 2
BEGIN = (3, 1)
KEY = jax.random.key(0)
HOT = generation.Sampler(
    temperature=2.0, repetition_penalty=1.5, repetition_window=2
)
CODES = np.random.default_rng(0).integers(0, V, (4, F, K), np.int32)
LENGTHS = np.array([6, 4, 1, 0], np.int32)
GIVEN = starts.Given(BEGIN)


def _decoder(start=GIVEN, pattern=None, **options):
  return decoder_lib.Decoder(
      (V,) * K,
      pattern=pattern or interleaving.Parallel(),
      backbone=small.stack(**options),
      start=start,
  )


@pytest.fixture(scope='module', name='params')
def _params():
  return small.parameters(_decoder(), CODES, LENGTHS)


def _with_begin(codes):
  begin = np.broadcast_to(np.array(BEGIN, np.int32), (len(codes), 1, K))
  return np.concatenate([begin, codes], axis=1)


@pytest.mark.parametrize('positions', ['none', 'learned'])
def test_a_code_before_all_rows_is_their_first_frame(positions):
  """A code that is no frame, and the same code given as the first frame."""
  options = {'positions': positions, 'max_positions': F + 1}
  given = _decoder(**options)
  params = small.parameters(given, CODES, LENGTHS)
  scores = small.score(given)(params, _with_begin(CODES), LENGTHS + 1)
  wanted = scores['frames']
  code = _decoder(starts.Code(BEGIN), **options)
  found = small.scorer(code)(params, CODES, LENGTHS)
  np.testing.assert_array_equal(wanted.mask[:, 1:], found.mask)
  np.testing.assert_allclose(
      wanted.log_prob[:, 1:], found.log_prob, rtol=1e-5, atol=1e-5
  )
  # The first is not scored, and its row's losses are of one position less.
  assert not np.asarray(wanted.mask)[:, 0].any()
  assert not np.asarray(wanted.log_prob)[:, 0].any()
  np.testing.assert_array_equal(scores.steps, LENGTHS)
  # Nor is it that of a learned row.
  own = small.scorer(_decoder(starts.Own(), **options))(params, CODES, LENGTHS)
  assert (np.abs(own.log_prob - found.log_prob)[0] > 1e-4).any()
  logits = np.asarray(small.code_logits(given)(params, CODES, LENGTHS))
  assert np.isneginf(logits[:, 0]).all()
  np.testing.assert_allclose(
      small.picked(logits[0, 1:], CODES[0, 1:]),
      small.scorer(given)(params, CODES, LENGTHS).log_prob[0, 1:],
      rtol=1e-5,
      atol=1e-5,
  )


@pytest.mark.parametrize('start', [starts.Code(BEGIN), GIVEN], ids=str)
def test_what_is_generated_is_scored_so(start, params):
  """After no prompt, of one frame, of some; taken in at once or not."""
  decoder = _decoder(start)
  prompts, totals = np.array([3, 1, 0, 0]), np.array([6, 5, 6, 0], np.int32)
  mask = np.broadcast_to(
      np.arange(F)[:, None] < prompts[:, None, None], CODES.shape
  )

  def run(most, **options):
    return quick.generate(
        decoder, params, CODES, mask, totals, KEY, HOT, most, **options
    )

  stepwise = run(0)
  codes = np.asarray(stepwise.codes)
  np.testing.assert_array_equal(run(4).codes, codes)
  np.testing.assert_array_equal(codes[mask], CODES[mask])
  scores = small.scorer(decoder)(params, codes, totals)
  np.testing.assert_allclose(
      stepwise.log_prob, scores.log_prob, rtol=1e-5, atol=1e-5
  )
  begins = (codes[2, 0] == BEGIN).all()
  assert begins == (start == GIVEN)


def test_a_stream_starts_as_the_loop(params):
  decoder = _decoder()
  for length in (2, 1, 0):
    mask = np.broadcast_to(np.arange(F)[:, None] < length, (1, F, K))
    expected = quick.generate(
        decoder, params, CODES[:1], mask, np.full(1, F), KEY, HOT
    ).codes[0]
    prompt = CODES[0, :length]
    found = quick.stream(decoder, params, prompt, F, KEY, HOT)
    np.testing.assert_array_equal(list(found), expected)
  none = quick.stream(decoder, params, CODES[0, :0], 0, KEY, HOT)
  assert not list(none)


def test_guided_rows_start_alike(params):
  """Both halves have the same first frame: guidance by itself is nothing."""
  decoder = _decoder(cross=attention.Cross(heads=2))
  context = {
      'cross': jnp.ones((4, 2, 8)),
      'cross_mask': jnp.ones((4, 2), bool),
  }
  params = small.parameters(decoder, CODES, LENGTHS, context)
  mask = np.broadcast_to(np.arange(F)[:, None] < 2, CODES.shape)
  plain, guided = (
      quick.generate(
          decoder,
          params,
          CODES,
          mask,
          LENGTHS,
          KEY,
          HOT,
          2,
          context=context,
          **options,
      )
      for options in ({}, {'null_context': context, 'guidance': 3.0})
  )
  np.testing.assert_array_equal(plain.codes, guided.codes)


def test_a_given_frame_comes_after_what_is_put_before_it():
  source = conditioners.factors.Name(('it', 'en'))
  decoder = decoder_lib.Decoder(
      (V,) * K,
      pattern=interleaving.Parallel(),
      backbone=small.stack(),
      conditions={'language': conditioners.Class(source=source, how='prefix')},
      start=GIVEN,
  )
  told = {'language': source.prepare(['it', 'en', None, 'it'])}
  params = small.parameters(decoder, CODES, LENGTHS, None, told)

  @small.quick_jit
  def score(codes):
    return decoder.apply(
        {'params': params}, codes, LENGTHS, None, told, method='score'
    )['frames'].log_prob

  context = decoder.apply({'params': params}, told, 4, method='context')
  found = quick.generate(
      decoder,
      params,
      CODES,
      np.zeros(CODES.shape, bool),
      LENGTHS,
      KEY,
      HOT,
      context=context,
  )
  np.testing.assert_allclose(
      found.log_prob, score(np.asarray(found.codes)), rtol=1e-5, atol=1e-5
  )


def test_ids_of_one_slot_follow_what_rows_start_with():
  ids = CODES[:2, :, 0]
  for start in (starts.Own(), starts.Code((2,)), starts.Given()):
    decoder = decoder_lib.Decoder(
        (V,),
        pattern=interleaving.Flatten(),
        backbone=small.stack(),
        start=start,
    )
    codes, num_frames = ids[..., None], np.array([F, 3])
    params = small.parameters(decoder, codes, num_frames)
    logits = small.quick_jit(
        lambda params, decoder=decoder: decoder.apply(
            {'params': params}, ids, np.array([F, 3]), method='logits'
        )
    )(params)
    wanted = small.code_logits(decoder)(params, codes, num_frames)
    for row, length in enumerate(num_frames):
      np.testing.assert_allclose(
          logits[row, : length - 1],
          wanted[row, 1:length, 0],
          rtol=1e-5,
          atol=1e-5,
      )


def test_segments_start_with_a_given_text():
  """As CSM: a text whole, of which nothing is predicted, and then frames."""
  text = sequence_lib.Segment('text', (0,), role='observe')
  speech = sequence_lib.Segment('speech', (1, 2), interleaving.Delay())
  num_frames = {'text': np.array([3, 1, 2]), 'speech': np.array([4, 2, 0])}
  rng = np.random.default_rng(0)
  given = {
      'text': rng.integers(0, V, (3, 3, 1), np.int32),
      'speech': rng.integers(0, V, (3, 4, 2), np.int32),
  }
  mask = {
      'text': np.ones((3, 3, 1), bool),
      'speech': np.zeros((3, 4, 2), bool),
  }
  warm = generation.Sampler(temperature=2.0)
  found = {}
  for start in (starts.Code((2, 0, 0)), starts.Given()):
    decoder = segmented.Segmented(
        vocabularies=(V,) * 3,
        sequence=sequence_lib.Sequence((text, speech)),
        backbone=small.stack(),
        start=start,
    )
    params = small.parameters(decoder, given, num_frames)
    codes, log_prob, _ = quick.generate(
        decoder, params, given, mask, num_frames, KEY, warm
    )
    scores = small.scorer(decoder)(params, codes, num_frames)
    np.testing.assert_allclose(
        log_prob['speech'],
        scores['speech'].log_prob,
        rtol=1e-4,
        atol=1e-5,
    )
    found[start.given] = np.asarray(codes['speech'])
  assert (found[0] != found[1]).any()
  none = {**num_frames, 'text': np.array([3, 0, 2])}
  with pytest.raises(ValueError, match='text: row 1 has no first frame'):
    generation.generate(decoder, params, given, mask, none, KEY, warm)


def test_rows_without_a_code_to_begin_with_need_a_prompt(params):
  decoder = _decoder(starts.Given())
  mask = np.zeros(CODES.shape, bool)
  mask[0, 0] = True
  totals = np.array([6, 4, 1, 0], np.int32)
  with pytest.raises(ValueError, match='row 1 has no first frame'):
    generation.generate(decoder, params, CODES, mask, totals, KEY, HOT)
  with pytest.raises(ValueError, match='row 0 has no first frame'):
    next(quick.stream(decoder, params, CODES[0, :0], F, KEY, HOT))


@pytest.mark.parametrize(
    'start, pattern, message',
    [
        (starts.Given(), interleaving.Delay(), 'all of the first frame'),
        (starts.Given(), interleaving.Flatten(), 'all of the first frame'),
        (starts.Given((1,)), None, 'start.begin = .1,.: expected a code for'),
        (starts.Given((1, V)), None, 'expected a code for each slot'),
        (starts.Code((0, V)), None, 'start.codes = .0, 5.: expected'),
    ],
    ids=str,
)
def test_starts_that_do_not_fit_are_refused(start, pattern, message):
  with pytest.raises(config.ConfigError, match=message):
    _decoder(start, pattern)


def test_segments_that_are_predicted_do_not_start_with_a_given_frame():
  speech = sequence_lib.Segment('speech', (0,))
  with pytest.raises(config.ConfigError, match='that is observed'):
    segmented.Segmented(
        vocabularies=(V,),
        sequence=sequence_lib.Sequence((speech,)),
        start=starts.Given(),
    )


def test_a_start_comes_back_from_its_config():
  for start in (starts.Own(), starts.Code(BEGIN), GIVEN, starts.Given()):
    decoder = _decoder(start)
    again = config.build(decoder_lib.Decoder, config.to_config(decoder))
    assert again == decoder and hash(again) == hash(decoder)
