"""A stream gives out the frames of `generate`, each as soon as it is whole."""

import itertools

import jax
import numpy as np
import pytest

from audiolm_jax import generation
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.generation import live_rows
from tests.decoders import small
from tests.generation import quick

V, F, K = 5, 6, 2
HOT = generation.Sampler(temperature=3.0, repetition_window=2)
KEY = jax.random.key(0)
PROMPT = np.array([[1, 2], [3, 0], [4, 4]], np.int32)


def _decoder(pattern):
  decoder = decoder_lib.Decoder(
      (V,) * K, pattern=small.PATTERNS[pattern], backbone=small.stack()
  )
  codes = np.zeros((1, F, K), np.int32)
  return decoder, small.parameters(decoder, codes, np.array([F]))


def _whole(model, prompt, **options):
  given, mask, _ = generation.continue_prompts(
      prompt[None], np.array([len(prompt)]), F
  )
  found = quick.generate(
      *model, given, mask, np.array([F], np.int32), KEY, HOT, **options
  )
  return np.asarray(found.codes)[0, : int(found.num_frames[0])]


@pytest.mark.parametrize('pattern', ['delay', 'coarse first'])
def test_a_stream_equals_the_loop(pattern):
  model = _decoder(pattern)
  for length in (0, 3):
    prompt = PROMPT[:length]
    expected = _whole(model, prompt)
    found = list(quick.stream(*model, prompt, F, KEY, HOT))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.reshape(found[:length], (-1, K)), prompt)


def test_a_stream_without_an_end_and_one_that_stops():
  model = _decoder('delay')
  endless = quick.stream(*model, PROMPT, None, KEY, HOT, cache_length=2 * F)
  found = np.array(list(itertools.islice(endless, 4 * F)))
  assert found.shape == (4 * F, K) and found.max() < V
  np.testing.assert_array_equal(found[:F], _whole(model, PROMPT))
  stop = generation.Stop(int(found[4, 1]), 1)
  stopped = list(quick.stream(*model, PROMPT, F, KEY, HOT, stop=stop))
  assert 3 <= len(stopped) <= 4
  np.testing.assert_array_equal(stopped, _whole(model, PROMPT, stop=stop))
  for wrong in (
      quick.stream(*model, PROMPT, None, KEY, HOT),
      quick.stream(
          *_decoder('coarse first'), PROMPT, None, KEY, HOT, cache_length=9
      ),
  ):
    with pytest.raises(ValueError, match='without an end'):
      next(wrong)


def test_a_frame_comes_as_soon_as_it_is_whole(monkeypatch):
  """Delays of 2 and 0: after three steps, then one a step, and the last two."""
  model = _decoder('delay')
  count, real = [], live_rows._step

  def counted(*arguments, **options):
    count.append(1)
    return real(*arguments, **options)

  monkeypatch.setattr(live_rows, '_step', counted)
  frames = quick.stream(*model, PROMPT[:0], F, KEY, HOT)
  assert [len(count) for _ in frames] == [3, 4, 5, 6, 8, 8]
