"""Content errors and acceptance, by a judge that hears what it is told to."""

import types

import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax import patterns
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.data import factors
from audiolm_jax.data.speech_world import clips as clips_lib
from audiolm_jax.data.speech_world import languages
from audiolm_jax.decoders import conditioners
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import content
from audiolm_jax.evaluation import speaking
from audiolm_jax.models import token_lm
from audiolm_jax.patterns import sequence as sequence_lib
from tests.data import made_caches

_DIGITS = languages.language('digits').lexicon
_RATE = 16000


class _Judge:
  """Hears in a clip the phones whose places in a list its samples are."""

  def __init__(self):
    self.symbols = sorted({p for phones in _DIGITS.values() for p in phones})

  def say(self, phones):
    places = [self.symbols.index(p) for p in phones]
    return np.array(places, np.float32)[:, None] / 64

  def hear(self, audio, sample_rate):
    assert sample_rate == _RATE
    return audio[:, 0]

  def phones(self, clips):
    return [[self.symbols[round(64 * x)] for x in clip] for clip in clips]


def _spelled(text):
  return [p for word in text.split() for p in _DIGITS[word]]


def _clip(judge, item, text, heard):
  return speaking.Clip(item, text, judge.say(heard), _RATE)


def test_errors_are_those_between_what_is_said_and_heard():
  judge = _Judge()
  listener = content.Listener(judge, 'digits')
  right = _spelled('one two')
  clips = [
      _clip(judge, 'right', 'one two', right),
      _clip(judge, 'other', 'one two', _spelled('one three five')),
      _clip(judge, 'blurred', 'six nine', [*_spelled('six'), 'n', 'aɪ']),
      _clip(judge, 'silent', 'four', []),
  ]
  scores = {
      (s.name, s.item): (s.sum, s.weight)
      for s in listener.errors(clips, 'made/')
  }
  assert scores['made/word_error', 'right'] == (0, 2)
  assert scores['made/word_error', 'other'] == (2, 2)
  assert scores['made/insertions', 'other'] == (1, 2)
  assert scores['made/substitutions', 'other'] == (1, 2)
  # A phone is lost, and the word still the nearest.
  assert scores['made/word_error', 'blurred'] == (0, 2)
  assert scores['made/phone_error', 'blurred'] == (1, 7)
  assert scores['made/deletions', 'silent'] == (1, 1)
  with pytest.raises(config.ConfigError, match='ten'):
    list(listener.errors([_clip(judge, 'x', 'ten', right)]))


def test_the_grammar_accepts_digits_in_twos_to_fours():
  judge = _Judge()
  listener = content.Listener(judge, 'digits')
  texts = ['one two', 'one', 'one two three four', 'one two three four five']
  clips = [_clip(judge, text, '', _spelled(text)) for text in texts]
  clips.append(_clip(judge, 'silent', '', []))
  scores = list(listener.accepted(clips))
  found = [s.sum for s in scores if s.name == 'accepted']
  assert found == [1, 0, 1, 0, 0]
  assert evaluation_base.summarize(scores) == {'accepted': 0.4, 'away': 0.0}
  away = listener.accepted([_clip(judge, 'x', '', ['w', 'ʌ', 't', 'u'])])
  assert evaluation_base.summarize(away)['away'] == 0.25


def test_other_orders_of_sentences_are_not_accepted():
  clips = [clips_lib.clip(clips_lib.World('sentences'), i) for i in range(30)]
  language = languages.language('sentences')
  heard = [
      [p for word in language.phones(c.words) for p in word] for c in clips
  ]
  judge = types.SimpleNamespace(
      hear=lambda audio, rate: audio, phones=lambda _: heard
  )
  listener = content.Listener(judge, 'sentences')
  silent = [speaking.Clip(c.id, '', np.zeros((1, 1)), _RATE) for c in clips]
  ends = evaluation_base.summarize(
      [*listener.accepted(silent), *listener.shuffled(silent, 'shuffled/')]
  )
  assert ends['accepted'] == 1 and ends['shuffled/accepted'] < 0.2


class _Tokenizer:
  """Codes are how often a thousandth goes into a sample; a frame is one."""

  spec = made_caches.spec((11, 13), 1)

  def decode(self, tokens):
    return np.asarray(tokens.codes[..., :1], np.float32) / 1000, None


def _texts():
  return [
      speaking.Clip(f'c{i}', text, np.zeros((3 + i, 1), np.float32), _RATE)
      for i, text in enumerate(('one', 'two', 'one'))
  ]


def _lm(**options):
  decoder = decoders.Decoder(
      vocabularies=(11, 13),
      pattern=patterns.Parallel(),
      backbone=stack_lib.Stack(width=16, layers=1),
      **options,
  )
  objective = objectives.NLL(decoder=decoder, rate=50.0)
  return objective.bind(objective.init(jax.random.key(0)))


def test_a_model_speaks_each_text_as_long_as_its_clip_lasts():
  text = conditioners.Text(
      source=factors.Text(length=8),
      how='prefix',
      encoder=stack_lib.Stack(width=8, layers=1, scan=False),
  )
  model, told = _lm(conditions={'text': text}), []
  speaker = speaking.Speaker(batch_size=2, seed=3)

  class Told(token_lm.TokenLM):

    def generate(self, prompt, frames, **options):
      told.append((prompt.shape, frames, options))
      return super().generate(prompt, frames, **options)

  model = Told(model.decoder, model.params, 50.0)
  made = list(speaker.says(model, _Tokenizer(), _texts()))
  assert [len(clip.audio) for clip in made] == [3, 4, 5]
  assert [(c.item, c.text) for c in made] == [
      ('c0', 'one'),
      ('c1', 'two'),
      ('c2', 'one'),
  ]
  assert [options['conditions']['text'] for *_, options in told] == [
      ['one', 'two'],
      ['one', None],
  ]
  assert {(shape, frames) for shape, frames, _ in told} == {((2, 0, 2), 5)}
  assert len({options['seed'] for *_, options in told}) == 2
  again = list(speaker.says(model, _Tokenizer(), _texts()))
  for a, b in zip(made, again, strict=True):
    np.testing.assert_array_equal(a.audio, b.audio)


def test_a_model_of_segments_speaks_its_texts():
  segments = (
      sequence_lib.Segment('text', (0,)),
      sequence_lib.Segment('speech', (1, 2), patterns.Delay()),
  )
  decoder = decoders.Segmented(
      vocabularies=(256, 11, 13),
      sequence=sequence_lib.Sequence(segments),
      backbone=stack_lib.Stack(width=16, layers=1),
  )
  objective = objectives.NLL(decoder=decoder, rate=50.0)
  model = objective.bind(objective.init(jax.random.key(0)))
  made = list(
      speaking.Speaker(batch_size=3).says(model, _Tokenizer(), _texts())
  )
  assert [len(clip.audio) for clip in made] == [3, 4, 5]


def test_who_takes_no_text_is_refused():
  speaker = speaking.Speaker(batch_size=2)
  with pytest.raises(config.ConfigError, match='no condition called text'):
    list(speaker.says(_lm(), _Tokenizer(), _texts()))
  with pytest.raises(config.ConfigError, match='speaks no texts'):
    list(speaker.says(object(), _Tokenizer(), _texts()))
  with pytest.raises(config.ConfigError, match='cache'):
    speaker.load()
  silent = [clip._replace(text='') for clip in _texts()]
  assert len(list(speaker.says(_lm(), _Tokenizer(), silent))) == 3


def test_a_judge_must_be_one_and_the_tokenizer_that_of_the_cache(tmp_path):
  with pytest.raises(config.ConfigError, match='is no directory'):
    evaluation.GrammarAcceptance(judge=str(tmp_path / 'none')).build(None)
  identity = made_caches.identity((11, 13), {'train': 0})
  cache = made_caches.write(tmp_path / 'cache', identity, None)
  with pytest.raises(config.ConfigError, match='nowhere'):
    speaking.Speaker(cache=cache).load()


def test_a_codec_is_held_against_its_own_originals(monkeypatch):
  judge = _Judge()
  corpus = [
      {'id': f'c{i}', 'text': t, 'audio': judge.say(_spelled(t)), 'sample_rate': _RATE}
      for i, t in enumerate(('one two', 'six nine'))
  ]  # fmt: skip
  monkeypatch.setattr(content.corpora, 'load_corpus', lambda *_: corpus)
  monkeypatch.setattr(content.speaking, 'load_judge', lambda _: judge)
  monkeypatch.setattr(
      content.speaking,
      'reconstructed',
      lambda model, clip: clip._replace(audio=clip.audio[:-1]),
  )
  codec = object.__new__(content.audio_tokenizer.AudioTokenizer)
  objective = types.SimpleNamespace(bind=lambda variables: codec)
  settings = evaluation.ContentError(judge='judge', language='digits')
  evaluator = settings.with_data(None).build(objective)
  for _ in range(2):  # Twice, as what is known is kept.
    found = evaluation_base.summarize(evaluator.run({}))
    assert found['original/phone_error'] == found['original/word_error'] == 0
    assert found['phone_error'] == 2 / 12
