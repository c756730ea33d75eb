"""Pocket-TTS without transformers: what is refused, and what people call."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

import audiolm_jax
from audiolm_jax import interop
from audiolm_jax.decoders import latent_heads
from audiolm_jax.interop import files
from audiolm_jax.models import latent_lm
from audiolm_jax.models import pretrained
from tests.interop import tiny_weights

_NAME = 'pocket_tts'
_NOTHING = np.zeros((2, 0, 3), np.float32)
_TEXTS = [[4, 1, 7], [3]]
_VOICES = [np.ones((2, 3), np.float32), None]
_STILL = latent_heads.LatentSampler(temperature=0.0, ends=False)


def _change(directory, **tensors):
  path = directory / files.WEIGHTS
  stored = safetensors.numpy.load_file(path)
  stored |= {k.replace('__', '.'): v for k, v in tensors.items()}
  safetensors.numpy.save_file(stored, path)


@pytest.fixture(name='weights', scope='module')
def _weights(tmp_path_factory):
  directory = tmp_path_factory.mktemp(_NAME)
  tiny_weights.write(directory, _NAME)
  std = np.array([0.5, 2.0, 1.0], np.float32)
  _change(directory, latent_std=std, latent_mean=std - 3)
  return directory


@pytest.fixture(name='lm', scope='module')
def _lm(weights):
  return audiolm_jax.load(weights)


def _copy(weights, directory, part=None, **changes):
  """The weights again, with another config."""
  config = json.loads((weights / files.CONFIG).read_text())
  (config if part is None else config[part]).update(changes)
  (directory / files.CONFIG).write_text(json.dumps(config))
  data = (weights / files.WEIGHTS).read_bytes()
  (directory / files.WEIGHTS).write_bytes(data)
  return directory


@pytest.mark.parametrize(
    'part, key, value, message',
    [
        ('flow_head_config', 'flow_type', 'drifting', 'not supported'),
        ('flow_head_config', 'latent_dim', 4, 'as of the backbone'),
        ('flow_head_config', 'condition_dim', 6, 'as of the backbone'),
        ('flow_head_config', 'frequency_embedding_size', 9, 'an even number'),
        ('flow_head_config', 'max_period', 61.0, 'max_period'),
        ('flow_head_config', 'hidden_size', 10**9, 'a size of the weights'),
        (None, 'audio_prompt_bos_token_id', 13, '0 to 12'),
        (None, 'hidden_act', 'tanh', 'one of'),
        (None, 'lsd_diagonal_weight', 1.5, 'at most 1'),
        (None, 'frame_rate', 0.0, 'above 0'),
    ],
)
def test_a_config_that_does_not_fit(
    part, key, value, message, weights, tmp_path
):
  directory = _copy(weights, tmp_path, part, **{key: value})
  with pytest.raises(interop.PretrainedError, match=message) as error:
    interop.load_pretrained(directory)
  assert key in str(error.value)


def test_what_only_training_needs_is_left_alone(weights, tmp_path):
  directory = _copy(weights, tmp_path)
  _change(
      directory,
      loss_weighting__proj__bias=np.zeros(1, np.float32),
      latent_stats_num_updates=np.zeros((), np.int64),
  )
  interop.load_pretrained(directory)
  _change(directory, another=np.zeros(1, np.float32))
  with pytest.raises(interop.PretrainedError, match='left over: another'):
    interop.load_pretrained(directory)


def test_deviations_are_above_0(weights, tmp_path):
  directory = _copy(weights, tmp_path)
  _change(directory, latent_std=np.array([1.0, 0.0, 2.0], np.float32))
  with pytest.raises(ValueError, match='latent_std'):
    audiolm_jax.load(directory)


def test_the_vector_before_the_first_frame_must_be_of_a_frame(
    weights, tmp_path
):
  model, variables = interop.load_pretrained(weights)
  interop.save_pretrained(tmp_path / 'same', model, variables, _NAME)
  variables['params']['before'] = np.arange(8, dtype=np.float32)
  with pytest.raises(interop.PretrainedError, match='before the first frame'):
    interop.save_pretrained(tmp_path / 'other', model, variables, _NAME)


def test_people_get_a_model_of_latents(lm):
  assert isinstance(lm, latent_lm.LatentLM)
  assert lm.frame_rate == 12.5 and lm.tokenizer is None
  np.testing.assert_allclose(lm.decoder.moments.std, [0.5, 2.0, 1.0])
  np.testing.assert_allclose(lm.decoder.moments.mean, [-2.5, -1.0, -2.0])
  assert lm.generation_flops(1.0) > 0


def test_rows_depend_on_their_own_texts_and_voices(lm):
  given = {'text': _TEXTS, 'voice': _VOICES}
  options = {'sampler': _STILL}
  found = lm.generate(_NOTHING, 3, conditions=given, **options).latents
  for changed, row in (
      ({**given, 'text': [[4, 2, 7], [3]]}, 0),
      ({**given, 'text': [[4, 1, 7], [3, 3]]}, 1),
      ({**given, 'voice': [_VOICES[0] * 2, None]}, 0),
      ({**given, 'voice': [_VOICES[0], _VOICES[0]]}, 1),
  ):
    other = lm.generate(_NOTHING, 3, conditions=changed, **options).latents
    apart = np.abs(other - found).max((1, 2))
    np.testing.assert_array_equal(apart > 1e-4, np.arange(2) == row)
  alone = lm.generate(
      _NOTHING[:1],
      3,
      conditions={'text': _TEXTS[1:]},
      **options,
  ).latents
  np.testing.assert_allclose(alone[0], found[1], rtol=1e-4, atol=1e-4)


def test_frames_are_drawn_as_kyutai_does_unless_said(lm):
  given = {'text': _TEXTS}
  found = lm.generate(_NOTHING, 4, conditions=given)
  sampler = latent_heads.LatentSampler(
      temperature=0.7, threshold=float(jax.nn.sigmoid(-4.0))
  )
  again = lm.generate(_NOTHING, 4, conditions=given, sampler=sampler)
  np.testing.assert_allclose(found.latents, again.latents, rtol=1e-5)
  assert pretrained.PocketTtsLM is type(lm)


@pytest.mark.parametrize(
    'conditions, message',
    [
        (None, "expected 'text'"),
        ({'voice': _VOICES}, "expected 'text'"),
        ({'text': _TEXTS, 'speaker': [1, 2]}, 'speaker'),
        ({'text': _TEXTS[:1]}, '1 values for 2 rows'),
        ({'text': [[], [3]]}, 'at least one id'),
        ({'text': ['hello', [3]]}, 'at least one id'),
        ({'text': [[4, 13], [3]]}, '0 to 12'),
        ({'text': [[4, 12], [3]]}, 'marks'),
        ({'text': _TEXTS, 'voice': [np.ones((2, 4)), None]}, '3 dimensions'),
        ({'text': _TEXTS, 'voice': [np.ones((2, 3), int), None]}, 'int64'),
        ({'text': _TEXTS, 'voice': [np.full((1, 3), np.nan), None]}, 'finite'),
    ],
)
def test_conditions_that_do_not_fit(conditions, message, lm):
  with pytest.raises(ValueError, match=message):
    lm.generate(_NOTHING, 3, conditions=conditions)


def test_guidance_of_a_model_that_never_learned_it_is_refused(lm):
  with pytest.raises(ValueError, match='guidance'):
    lm.generate(
        _NOTHING, 3, conditions={'text': _TEXTS}, guidance=2.0, sampler=_STILL
    )
