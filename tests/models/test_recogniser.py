"""Recognisers: padding and level change nothing; what is heard is decoded."""

import jax
import numpy as np
import pytest

from audiolm_jax.models import front_ends
from audiolm_jax.models import kinds
from audiolm_jax.models import recogniser as recogniser_lib

_SYMBOLS = ('a', 'b', 'c')


def _model(front_end):
  module = recogniser_lib.Recogniser(
      symbols=_SYMBOLS, front_end=front_end, width=16, blocks=2
  )
  description = kinds.Description(module)
  assert description.kind == 'recogniser'
  return description.bind(description.init(jax.random.key(0)))


@pytest.fixture(scope='module', params=sorted(front_ends.FRONT_ENDS))
def model(request):
  return _model(front_ends.FRONT_ENDS[request.param](bands=20))


def _noise(size, seed=0):
  rng = np.random.default_rng(seed)
  return (0.1 * rng.standard_normal(size)).astype(np.float32)


def test_padding_and_level_change_nothing(model):
  short, long = _noise(9001), _noise(15000, 1)
  audio = np.full((2, 15000, 1), np.nan, np.float32)
  audio[0, :9001, 0], audio[1, :, 0] = short, 0.25 * long
  logits, lengths = model.logits(audio, np.array([9001, 15000]))
  for row, clip in enumerate((short, long)):
    alone, count = model.logits(clip[None, :, None])
    assert count[0] == lengths[row] == alone.shape[1]
    np.testing.assert_allclose(
        logits[row, : count[0]], alone[0], atol=2e-3, rtol=1e-3
    )
  # The features do matter.
  assert np.abs(logits[0, :5] - logits[1, :5]).max() > 0.05
  hop = 2 * model.module.front_end.hop
  assert lengths.tolist() == [-(-9001 // hop), -(-15000 // hop)]


def test_outputs_are_a_linear_map_of_the_states(model):
  audio = np.zeros((2, 15000, 1), np.float32)
  audio[0, :9001, 0], audio[1, :, 0] = _noise(9001), _noise(15000, 1)
  num_samples = np.array([9001, 15000])
  logits, lengths = model.logits(audio, num_samples)
  clips = [row[:n, 0] for row, n in zip(audio, num_samples, strict=True)]
  empty, *states = model.features([clips[0][:0], *clips])
  assert empty.shape == (0, model.module.width)
  assert [len(x) for x in states] == lengths.tolist()
  output = jax.tree.map(np.asarray, model.params['output'])
  (kernel,) = [x for x in jax.tree.leaves(output) if x.ndim == 2]
  (bias,) = [x for x in jax.tree.leaves(output) if x.ndim == 1]
  for row, values in enumerate(states):
    np.testing.assert_allclose(
        values @ kernel + bias, logits[row, : len(values)], atol=1e-4
    )


def test_a_front_end_normalises_each_band_over_the_rows_frames(model):
  audio = np.stack([_noise(8000), _noise(8000, 2)])[..., None]
  lengths = np.array([8000, 5000])
  features, frames = jax.jit(model.module.front_end, static_argnums=2)(
      audio, lengths, 16000
  )
  for row, count in zip(np.asarray(features), frames, strict=True):
    np.testing.assert_allclose(row[:count].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(row[:count].std(axis=0), 1, atol=0.05)
    assert not row[count:].any()


def test_a_tone_is_in_the_band_of_its_frequency():
  t = np.arange(1600) / 16000
  # A tone that comes and goes, or normalised bands would not move.
  tone = np.sin(2 * np.pi * 1000 * t) * (t > 0.05)
  for front_end in (front_ends.LogMel(), front_ends.Gammatone()):
    power = np.zeros((1, 1, front_end.size // 2 + 1), np.float32)
    power[0, 0, round(1000 * front_end.size / 16000)] = 100.0
    bands = np.asarray(front_end.bands_of(power, 16000))[0, 0]
    features, _ = front_end(
        tone[None, :, None].astype(np.float32), np.array([1600]), 16000
    )
    late, early = np.asarray(features)[0, -3], np.asarray(features)[0, 1]
    assert (late - early)[bands.argmax()] > 1


def test_repeats_are_merged_and_blanks_left_out():
  frames = [0, 1, 1, 0, 1, 2, 2, 0, 3]
  logits = np.eye(4)[[frames, frames]]
  assert recogniser_lib.greedy(logits, np.array([9, 5])) == [
      [1, 1, 2, 3],
      [1, 1],
  ]
  assert recogniser_lib.greedy(logits, np.array([0, 1])) == [[], []]


def test_clips_of_all_lengths_are_heard_as_alone(model):
  clips = [_noise(n, n) for n in (3000, 20000, 16000, 7000)]
  clips.insert(2, np.zeros(0, np.float32))
  together = model.phones(clips, batch_size=3)
  assert together == [model.phones([clip], batch_size=3)[0] for clip in clips]
  assert together[2] == [] and model.phones([]) == []
  assert {p for each in together for p in each} <= set(_SYMBOLS)


@pytest.mark.parametrize(
    'audio, lengths, message',
    [
        (np.zeros((1, 900)), None, r'\[B, T, 1\]'),
        (np.zeros((1, 900, 2), np.float32), None, r'\[B, T, 1\]'),
        (np.zeros((1, 900, 1), np.float32), [901], 'at most'),
        (np.full((1, 900, 1), np.nan, np.float32), [900], 'finite|NaN'),
    ],
)
def test_what_is_no_audio_is_refused(model, audio, lengths, message):
  with pytest.raises(ValueError, match=message):
    model.logits(audio, lengths)
