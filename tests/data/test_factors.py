"""What is known of a clip as arrays: exact, padded, and checked."""

import json
import sys

import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.data import factors
from audiolm_jax.data.speech_world import clips as clips_lib
from audiolm_jax.data.speech_world import known as known_lib
from audiolm_jax.data.speech_world import phones as phones_lib


def test_texts_are_bytes_with_a_mark_of_the_end():
  found = factors.Text(length=6).prepare(['né', None, '', 'abcde'])
  assert found['values'].dtype == found['lengths'].dtype == np.int32
  np.testing.assert_array_equal(found['lengths'], [4, 0, 1, 6])
  np.testing.assert_array_equal(
      found['values'],
      [
          [*'né'.encode(), 256, 0, 0],
          [0] * 6,
          [256, 0, 0, 0, 0, 0],
          [*b'abcde', 256],
      ],
  )


def test_what_does_not_fit_is_refused_or_cut():
  text, name = factors.Text(length=3), factors.Name(('it', 'en'))
  with pytest.raises(ValueError, match="4 for|of 4.*longest has 3|'abc'"):
    text.prepare(['abc'])
  cut = text.prepare(['abc', 'ab'], strict=False)
  # Who reads it sees that it has no end.
  np.testing.assert_array_equal(cut['values'], [[97, 98, 99], [97, 98, 256]])
  with pytest.raises(ValueError, match="'fr'.*'it', 'en'"):
    name.prepare(['fr'])
  found = name.prepare(['en', 'fr', 'it'], strict=False)
  np.testing.assert_array_equal(found['values'], [[1], [0], [0]])
  np.testing.assert_array_equal(found['lengths'], [1, 0, 1])


def test_vectors():
  found = factors.Vector(2).prepare([[1, 2], None, np.array([0.5, -1])])
  np.testing.assert_array_equal(
      found['values'][:, 0], [[1, 2], [0, 0], [0.5, -1]]
  )
  np.testing.assert_array_equal(found['lengths'], [1, 0, 1])
  assert found['values'].dtype == np.float32


def test_numbers():
  number = factors.Number(1.0, 3.0)
  found = number.prepare([2, None, np.float32(1.5), 3.0])
  np.testing.assert_array_equal(found['values'], [[2], [0], [1.5], [3]])
  np.testing.assert_array_equal(found['lengths'], [1, 0, 1, 1])
  assert found['values'].dtype == np.float32
  # In training, what is beyond counts as the end.
  found = number.prepare([0.5, 99.0], strict=False)
  np.testing.assert_array_equal(found['values'], [[1], [3]])
  assert number.read('2.5', None) == 2.5
  with pytest.raises(ValueError, match="'long' is no number"):
    number.read('long', None)
  with pytest.raises(ValueError, match='nan is not finite'):
    number.prepare([np.nan], strict=False)


def test_codes():
  codes = factors.Codes((3, 5), length=2)
  found = codes.prepare([[[1, 4]], np.zeros((0, 2), int), None])
  assert found['values'].shape == (3, 2, 2)
  np.testing.assert_array_equal(found['values'][0], [[1, 4], [0, 0]])
  np.testing.assert_array_equal(found['lengths'], [1, 0, 0])


def test_what_is_aligned_is_what_the_world_stored():
  clip = clips_lib.clip(clips_lib.World('sentences', 'lm'), 3)
  stored = clips_lib.to_json(clip)
  known = json.loads(stored)
  rate, start, frames = 50.0, 4, 200
  both = factors.Aligned()
  codes = both.of(stored, rate, start, frames)
  assert codes.shape == (frames, 2)
  voices = 0
  for f, (phone, pitch) in enumerate(codes):
    t = (start + f + 0.5) / rate
    spoken = [p for p, begin, end in known['phones'] if begin <= t < end]
    if not spoken:
      assert phone == pitch == 0
      continue
    assert phones_lib.PHONES[phone - 1] == spoken[0]
    voice = known_lib.voiced(known, np.array([t]))[0]
    assert (pitch > 0) == voice
    if voice:
      hertz = known_lib.f0(known, np.array([t]))[0]
      assert (
          abs(55 * 2 ** ((pitch - 1) / 12) / hertz - 1) < 2 ** (1 / 24) - 0.999
      )
      voices += 1
  assert voices > 20 and (codes[-1] == 0).all()
  pitch = factors.Aligned(('f0',)).of(stored, rate, start, frames)
  np.testing.assert_array_equal(pitch, codes[:, 1:])
  # It is what a condition takes, cut where it is too long.
  found = factors.Aligned(length=9).prepare([codes, None], strict=False)
  np.testing.assert_array_equal(found['values'][0], codes[:9])
  np.testing.assert_array_equal(found['lengths'], [9, 0])


def test_f0_that_is_not_known_is_none():
  known = {
      'phones': [[phones_lib.PHONES[5], 0.0, 1.0]],
      'speaker': {'name': 'espeak_lm/x'},
      'word_times': [[0.0, 1.0]],
  }
  codes = factors.Aligned().of(json.dumps(known), 10.0, 0, 3)
  np.testing.assert_array_equal(codes, [[6, 0]] * 3)


@pytest.mark.parametrize(
    ('factor', 'value', 'message'),
    [
        (factors.Text(), b'abc', 'a text'),
        (factors.Name(('it',)), 3, 'none of the names'),
        (factors.Vector(3), [1.0, 2.0], 'vector of 3'),
        (factors.Vector(2), 'ab', 'vector of 2'),
        (factors.Vector(2), [1.0, np.nan], 'not finite'),
        (factors.Number(1.0, 3.0), 3.01, '3.01 is not within 1 and 3'),
        (factors.Number(1.0, 3.0), 0.5, 'not within'),
        (factors.Number(), np.inf, 'not finite'),
        (factors.Number(), '2', "number was expected, not '2'"),
        (factors.Number(), [2.0], 'number was expected'),
        (factors.Number(), True, 'number was expected'),
        (factors.Codes((3, 5)), [[1, 5]], 'outside of vocabularies'),
        (factors.Codes((3, 5)), [[-1, 0]], 'outside of vocabularies'),
        (factors.Codes((3, 5)), [[1, 2, 0]], r'\[F, 2\]'),
        (factors.Codes((3, 5)), [[1.0, 2.0]], r'\[F, 2\]'),
        (factors.Codes((3, 5), length=1), [[1, 2]] * 2, 'longest has 1'),
        (factors.Aligned(length=1), [[1, 2]] * 2, 'longest has 1'),
        (factors.Aligned(('f0',)), [[49]], 'outside of vocabularies'),
    ],
)
def test_bad_values_are_told(factor, value, message):
  with pytest.raises(ValueError, match=message):
    factor.prepare([None, value])


def test_bad_settings_are_told():
  with pytest.raises(config.ConfigError, match='one twice'):
    factors.Name(('it', 'it'))
  with pytest.raises(config.ConfigError, match='none'):
    factors.Name(())
  with pytest.raises(config.ConfigError, match='one twice'):
    factors.Aligned(('f0', 'f0'))
  with pytest.raises(config.ConfigError, match='less than high = 1'):
    factors.Number(1.0, 1.0)
  with pytest.raises(config.ConfigError, match='bytes have 256'):
    factors.Text(vocabulary=300)


def test_sentencepiece_is_an_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, 'sentencepiece', None)
  text = factors.Text(pieces='not_read.model', vocabulary=300)
  with pytest.raises(config.ConfigError, match=r'audiolm_jax\[text\]'):
    text.prepare(['a'])


def test_pieces_are_those_of_the_model(tmp_path):
  sentencepiece = pytest.importorskip('sentencepiece')
  lines = ['the cat sat on the mat', 'the hat is on the cat', 'that is that']
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(lines * 20),
      model_prefix=str(tmp_path / 'tiny'),
      vocab_size=18,
      minloglevel=2,
  )
  path = str(tmp_path / 'tiny.model')
  text = factors.Text(length=30, pieces=path, vocabulary=18)
  found = text.prepare(['the cat', 'that'])
  model = sentencepiece.SentencePieceProcessor(model_file=path)
  for row, line in enumerate(('the cat', 'that')):
    ids = model.encode(line)
    assert 0 < len(ids) < len(line)
    assert found['lengths'][row] == len(ids) + 1
    np.testing.assert_array_equal(
        found['values'][row], [*ids, 18] + [0] * (29 - len(ids))
    )
  wrong = factors.Text(pieces=path, vocabulary=19)
  with pytest.raises(config.ConfigError, match='19, but .* has 18'):
    wrong.prepare(['a'])


def test_a_batch_holds_them_flat():
  prepared = {
      'text': factors.Text(length=4).prepare(['no', None]),
      'voice': factors.Vector(2).prepare([None, np.ones(2)]),
  }
  batch = factors.flatten(prepared)
  assert set(batch) == {
      f'conditions/{name}/{key}'
      for name in ('text', 'voice')
      for key in ('values', 'lengths')
  }
  again = factors.unflatten(batch, ['text', 'voice'])
  for name, arrays in prepared.items():
    for key, value in arrays.items():
      np.testing.assert_array_equal(again[name][key], value)
  with pytest.raises(ValueError, match="no condition 'mood'"):
    factors.unflatten(batch, ['mood'])
