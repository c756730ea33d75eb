"""Content errors and acceptance, by a judge that hears what it is told to."""

import dataclasses
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
from audiolm_jax.evaluation import world_clips
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import token_lm
from audiolm_jax.patterns import sequence as sequence_lib
from audiolm_jax.tokenizers import base as tokenizers_base
from tests.data import made_caches
from tests.models import small_directories
from tests.tokenizers import tiny

_DIGITS = languages.language('digits').lexicon
_RATE = 16000


class _Judge:
  """Hears in a clip the phones whose places in a list its samples are."""

  sample_rate = _RATE

  def __init__(self):
    self.symbols = sorted({p for phones in _DIGITS.values() for p in phones})

  def say(self, phones):
    places = [self.symbols.index(p) for p in phones]
    return np.array(places, np.float32)[:, None] / 64

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
  heard = listener.hear([*clips, _clip(judge, 'silent', '', [])])
  assert [listener.accepts(each) for each in heard] == [1, 0, 1, 0, 0]
  assert {each.edits for each in heard} == {0}
  (away,) = listener.hear([_clip(judge, 'x', '', ['w', 'ʌ', 't', 'u'])])
  assert (away.words, away.edits) == (['one', 'two'], 1)
  # One of four phones is another.
  assert listener.accepts(away) and not listener.accepts(away, 0.2)


def test_originals_are_accepted_and_other_orders_are_not():
  world, language = clips_lib.World('sentences'), languages.language(
      'sentences'
  )
  clips = world_clips.held_out(world, 20)
  heard = [
      [p for word in language.phones(c.words) for p in word] for c in clips
  ]
  heard[0] = heard[0][1:]  # A phone is lost.
  judge = types.SimpleNamespace(sample_rate=_RATE, phones=lambda _: heard)
  scores = list(
      content.ends(content.Listener(judge, 'sentences'), 'sentences', 20)
  )
  found = evaluation_base.summarize(scores)
  assert found['original/accepted'] >= 0.95 > found['original/away'] > 0
  assert found['shuffled/accepted'] < 0.2
  assert {s.item for s in scores} == {clip.id for clip in clips}


def _codec():
  """As the model of an objective that trains a codec."""
  return 'codec', types.SimpleNamespace(module=tiny.CODECS['state']())


class _Tokenizer:
  """Codes are how often a thousandth goes into a sample; a frame is one."""

  spec = made_caches.spec((11, 13), 1)
  check_speaks = audio_tokenizer.AudioTokenizer.check_speaks

  def encode(self, audio):
    codes = np.rint(1000 * np.repeat(audio, 2, axis=2)).astype(np.int32)
    return tokenizers_base.Tokens(
        num_samples=np.int32([audio.shape[1]]), codes=codes
    )

  def decode(self, tokens):
    return np.asarray(tokens.codes[..., :1], np.float32) / 1000, None


def _texts():
  return [
      speaking.Clip(f'c{i}', text, np.zeros((3 + i, 1), np.float32), _RATE)
      for i, text in enumerate(('one', 'two', 'one'))
  ]


def _objective(decoder=decoders.Decoder, **options):
  if decoder is decoders.Decoder:
    options = {
        'vocabularies': (11, 13),
        'pattern': patterns.Parallel(),
        **options,
    }
  module = decoder(backbone=stack_lib.Stack(width=16, layers=1), **options)
  return objectives.NLL(decoder=module, rate=50.0)


def _bound(objective):
  return objective.bind(objective.init(jax.random.key(0)))


def _told(**options):
  """An objective of a model with a condition 'text'."""
  text = conditioners.Text(
      source=factors.Text(length=8),
      how='prefix',
      encoder=stack_lib.Stack(width=8, layers=1, scan=False),
  )
  return _objective(conditions={'text': text}, **options)


def _segments(*labels):
  segments = (
      sequence_lib.Segment(labels[0], (0,)),
      sequence_lib.Segment(labels[1], (1, 2), patterns.Delay()),
  )
  return _objective(
      decoders.Segmented,
      vocabularies=(256, 11, 13),
      sequence=sequence_lib.Sequence(segments),
  )


@pytest.fixture(scope='module')
def told():
  return _bound(_told())


def test_a_model_speaks_each_text_as_long_as_its_clip_lasts(told):
  asked = []
  speaker = speaking.Speaker(batch_size=2, seed=3)

  class Told(token_lm.TokenLM):

    def generate(self, prompt, frames, **options):
      asked.append((prompt.shape, frames, options))
      return super().generate(prompt, frames, **options)

  model = Told(told.decoder, told.params, 50.0)
  made = list(speaker.says(model, _Tokenizer(), _texts()))
  assert [len(clip.audio) for clip in made] == [3, 4, 5]
  assert [(c.item, c.text) for c in made] == [
      ('c0', 'one'),
      ('c1', 'two'),
      ('c2', 'one'),
  ]
  assert [options['conditions']['text'] for *_, options in asked] == [
      ['one', 'two'],
      ['one', None],
  ]
  assert {(shape, frames) for shape, frames, _ in asked} == {((2, 0, 2), 5)}
  assert len({options['seed'] for *_, options in asked}) == 2
  again = list(speaker.says(model, _Tokenizer(), _texts()))
  for a, b in zip(made, again, strict=True):
    np.testing.assert_array_equal(a.audio, b.audio)


def test_a_model_of_segments_speaks_its_texts():
  model = _bound(_segments('text', 'speech'))
  made = list(
      speaking.Speaker(batch_size=2).says(model, _Tokenizer(), _texts())
  )
  assert [len(clip.audio) for clip in made] == [3, 4, 5]
  assert speaking.spoken(model.decoder, told=True) == (11, 13)


def test_who_cannot_speak_is_refused(tmp_path):
  speaker = speaking.Speaker()
  plain = _objective().decoder
  with pytest.raises(config.ConfigError, match='no condition called text'):
    speaker.load(plain, told=True)
  with pytest.raises(config.ConfigError, match='cache = None'):
    speaker.load(plain, told=False)
  given = sequence_lib.Segment('coarse', (0,), role='observe')
  stages = decoders.Staged(
      vocabularies=(4, 4),
      sequence=sequence_lib.Sequence(
          (given, sequence_lib.Segment('fine', (1,)))
      ),
  )
  with pytest.raises(config.ConfigError, match='Staged speaks no texts'):
    speaking.spoken(stages, told=False)
  with pytest.raises(config.ConfigError, match="'notes', 'speech'"):
    speaking.spoken(_segments('notes', 'speech').decoder, told=False)
  with pytest.raises(config.ConfigError, match='guidance = 2'):
    speaking.Speaker(guidance=2.0).load(
        _segments('text', 'speech').decoder, told=True
    )
  with pytest.raises(config.ConfigError, match='told nothing follows nothing'):
    speaking.Speaker(guidance=2.0).load(plain, told=False)
  identity = made_caches.identity((11, 13), {'train': 0})
  cache = made_caches.write(tmp_path / 'cache', identity, None)
  with pytest.raises(config.ConfigError, match='nowhere'):
    speaking.Speaker(cache=cache).load(plain, told=False)


def test_the_tokenizer_must_be_of_the_models_codes(tmp_path, monkeypatch):
  identity = made_caches.identity((11, 13), {'train': 0})
  cache = made_caches.write(tmp_path / 'cache', identity, None)
  monkeypatch.setattr(speaking.loading, 'tokenizer_of', lambda *_: _Tokenizer())
  speaker = speaking.Speaker(cache=cache)
  first = _objective(vocabularies=(11,)).decoder
  assert isinstance(speaker.load(first, told=False), _Tokenizer)
  other = _objective(vocabularies=(11, 12)).decoder
  with pytest.raises(config.ConfigError, match=r'\(11, 12\)'):
    speaker.load(other, told=False)


def test_a_judge_must_be_one(tmp_path):
  with pytest.raises(config.ConfigError, match='is no directory'):
    evaluation.GrammarAcceptance(judge=str(tmp_path / 'none')).build(None)
  small_directories.toy_model(tmp_path)
  with pytest.raises(config.ConfigError, match='holds a Predictor'):
    speaking.load_judge(tmp_path)


def test_who_trains_a_recogniser_judges_by_that(corpus):
  settings = evaluation.ContentError(language='digits')
  with pytest.raises(config.ConfigError, match='judge = None'):
    settings.build(types.SimpleNamespace(model=_codec()))
  with pytest.raises(config.ConfigError, match="judge = 'x'"):
    dataclasses.replace(settings, judge='x').build(objectives.CTC())
  # What would do nothing: nobody speaks here.
  loud = dataclasses.replace(settings, speaker=speaking.Speaker(seed=1))
  with pytest.raises(config.ConfigError, match='Recogniser, which does not'):
    loud.build(objectives.CTC())
  assert dataclasses.replace(
      settings, speaker=speaking.Speaker(cache='of training')
  ).build(objectives.CTC())


@pytest.fixture
def corpus(monkeypatch):
  """Clips in which a judge, that is loaded from anywhere, hears their texts."""
  judge = _Judge()
  clips = [
      {
          'id': f'c{i}',
          'text': text,
          'audio': judge.say(_spelled(text)),
          'sample_rate': _RATE,
      }
      for i, text in enumerate(('one two', 'six nine'))
  ]
  monkeypatch.setattr(content.corpora, 'load_corpus', lambda *_: clips)
  monkeypatch.setattr(content.speaking, 'load_judge', lambda _: judge)
  return judge


def test_a_codec_is_held_against_its_own_originals(corpus, monkeypatch):
  monkeypatch.setattr(
      content.speaking,
      'reconstructed',
      lambda model, clip: clip._replace(audio=clip.audio[: model.variables]),
  )
  objective = types.SimpleNamespace(
      model=_codec(),
      bind=lambda variables: types.SimpleNamespace(variables=variables),
  )
  settings = evaluation.ContentError(judge='judge', language='digits')
  evaluator = settings.with_data(None).build(objective)
  # Each time with the variables of now, though what is known is kept.
  for kept, errors in ((-1, 2), (-2, 4), (-1, 2)):
    found = evaluation_base.summarize(evaluator.run(kept))
    assert found['original/phone_error'] == found['original/word_error'] == 0
    assert found['phone_error'] == errors / 12


def test_texts_of_another_language_are_told_before_training(corpus):
  settings = evaluation.ContentError(judge='judge', language='sentences')
  with pytest.raises(config.ConfigError, match="'one'"):
    settings.build(types.SimpleNamespace(model=_codec()))


def test_a_recogniser_that_is_trained_listens_itself(corpus):
  ctc = objectives.CTC()
  objective = types.SimpleNamespace(model=ctc.model, bind=lambda judge: judge)
  evaluator = evaluation.ContentError(language='digits').build(objective)
  found = evaluation_base.summarize(evaluator.run(corpus))
  assert found['word_error'] == found['phone_error'] == 0


class _World(_Tokenizer):
  """A tokenizer of which the judge hears nothing but phones."""

  spec = made_caches.spec((64, 64), 1)

  def decode(self, tokens):
    return np.asarray(tokens.codes[..., :1], np.float32) / 64, None

  def encode(self, audio):
    return super().encode(audio * 64 / 1000)


def test_a_language_model_is_held_against_its_tokenizer(corpus, monkeypatch):
  monkeypatch.setattr(speaking.Speaker, 'load', lambda *_, **__: _World())
  objective = _told(vocabularies=(64, 64))
  settings = evaluation.ContentError(
      judge='judge',
      language='digits',
      speaker=speaking.Speaker(batch_size=2),
  )
  evaluator = settings.build(objective)

  def blurred(text, frames):
    """The codes of a text whose first phone is lost."""
    codes = np.rint(64 * corpus.say(_spelled(text)[1:])).astype(int)
    rows = np.resize(codes[:, 0], frames)
    return np.stack([rows, rows], axis=1)

  monkeypatch.setattr(
      token_lm.TokenLM,
      'generate',
      lambda self, prompt, frames, *, conditions, **_: np.stack(
          [blurred(text, frames) for text in conditions['text']]
      ),
  )
  scores = list(evaluator.run(objective.init(jax.random.key(0))))
  found = evaluation_base.summarize(scores)
  assert found['original/phone_error'] == 0
  assert found['reconstruction/phone_error'] == 0
  # As clips last as long as they do, one phone too many is said at the end.
  assert found['phone_error'] == 4 / 12


def test_acceptance_is_between_its_ends(monkeypatch):
  judge = _Judge()
  monkeypatch.setattr(content.speaking, 'load_judge', lambda _: judge)
  monkeypatch.setattr(speaking.Speaker, 'load', lambda *_, **__: _World())
  ends = [evaluation_base.Score('original/accepted', 'x', 1.0, 1.0)]
  monkeypatch.setattr(content, 'ends', lambda *_: ends)
  settings = evaluation.GrammarAcceptance(
      judge='judge', language='digits', count=3, seconds=0.1
  )
  said = ['one two', 'one', 'nine nine nine']
  monkeypatch.setattr(
      speaking.Speaker,
      'says',
      lambda self, model, tokenizer, clips: [
          clip._replace(audio=judge.say(_spelled(text)))
          for clip, text in zip(clips, said, strict=True)
      ],
  )
  objective = _objective(vocabularies=(64, 64))
  variables = objective.init(jax.random.key(0))
  evaluator = settings.with_data(None).build(objective)
  for _ in range(2):
    scores = list(evaluator.run(variables))
    assert [s.sum for s in scores if s.name == 'accepted'] == [1, 0, 1]
    assert evaluation_base.summarize(scores)['original/accepted'] == 1
