"""Grammar pairs: the true grammar finds all, a uniform model none."""

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
from audiolm_jax.data import world_texts
from audiolm_jax.data.speech_world import clips as clips_lib
from audiolm_jax.data.speech_world import languages
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import pair_scores
from audiolm_jax.evaluation import pairs
from audiolm_jax.evaluation import representations
from audiolm_jax.evaluation import world_clips
from audiolm_jax.patterns import sequence as sequence_lib
from audiolm_jax.tokenizers import base as tokenizers_base
from tests.data import made_caches


def _grammar(clips):
  return [
      languages.language(c.world.language).grammar.log2_probability(c.words)
      for c in clips
  ]


def _uniform(clips):
  return [-len(c.utterance.phones) for c in clips]


def _clips(language='sentences', count=40):
  return world_clips.held_out(clips_lib.World(language), count)


def test_the_grammar_finds_every_one_and_a_uniform_model_half():
  clips = _clips()
  scores = list(pairs.preferences(clips, _grammar))
  assert evaluation_base.summarize(scores) == {'pairs': 1.0}
  distances = [
      languages.language('sentences').agreement(c.words).distance for c in clips
  ]
  places = sorted({float(min(d, 6)) for d in distances})
  assert evaluation_base.curves(scores) == {
      'pairs by distance': [(place, 1.0) for place in places]
  }
  assert len(places) > 2 and max(distances) > 6
  # A pair stands at its own distance.
  assert [s.along[1] for s in scores if s.along] == [
      float(min(d, 6)) for d in distances
  ]
  half = evaluation_base.summarize(pairs.preferences(clips, _uniform))
  assert set(half.values()) == {0.5}
  wrong = pairs.preferences(clips, lambda c: -np.array(_grammar(c)))
  assert set(evaluation_base.summarize(wrong).values()) == {0.0}


def test_sums_have_no_distances():
  scores = list(pairs.preferences(_clips('sums'), _grammar))
  assert evaluation_base.summarize(scores) == {'pairs': 1.0}
  assert evaluation_base.curves(scores) == {}


def test_clips_are_held_out_and_their_scores_must_be_numbers():
  clips = _clips(count=5)
  assert {c.split for c in clips} == {'test'}
  assert all(c.utterance.speaker.name.startswith('held_out') for c in clips)
  with pytest.raises(ValueError, match='log-probabilities'):
    list(pairs.preferences(clips, lambda c: np.full(len(c), np.nan)))


@pytest.fixture(scope='module')
def objective():
  source = world_texts.WorldTexts()
  return objectives.NLL(
      decoder=decoders.Decoder(
          vocabularies=source.vocabularies,
          pattern=patterns.Parallel(),
          backbone=stack_lib.Stack(width=16, layers=1),
      ),
      rate=3.0,
  )


def test_a_model_of_words_is_scored_by_its_own_likelihood(objective):
  settings = evaluation.GrammarPairs(count=10, batch_size=4)
  settings = settings.with_data(world_texts.WorldTexts())
  assert settings.language == 'sentences'
  variables = objective.init(jax.random.key(0))
  model = objective.bind(variables)
  rows = [
      world_texts.text_codes('sentences', c.words) for c in _clips(count=10)
  ]
  log2p = pair_scores.log2_probabilities(model, rows, 4)
  for row, value in zip(rows[:3], log2p, strict=False):
    bits = model.bits_per_frame(row[None])[0] * len(row)
    assert value == pytest.approx(-bits, rel=1e-5)
  scores = list(settings.build(objective).run(variables))
  twins = [
      world_texts.text_codes('sentences', c.twin().words)
      for c in _clips(count=10)
  ]
  expected = log2p > pair_scores.log2_probabilities(model, twins, 4)
  found = [s.sum for s in scores if s.along is None]
  assert found == expected.astype(float).tolist()


def test_what_cannot_be_compared_is_refused(objective):
  with pytest.raises(config.ConfigError, match='language = None'):
    evaluation.GrammarPairs().build(objective)
  with pytest.raises(config.ConfigError, match='digits'):
    evaluation.GrammarPairs(language='digits').build(objective)
  with pytest.raises(config.ConfigError, match='whole frames'):
    evaluation.GrammarPairs(language='sums').build(objectives.Toy())
  given = sequence_lib.Segment('coarse', (0,), role='observe')
  stage = decoders.Staged(
      vocabularies=(4, 4),
      sequence=sequence_lib.Sequence(
          (given, sequence_lib.Segment('fine', (1,)))
      ),
  )
  with pytest.raises(config.ConfigError, match='whole frames'):
    evaluation.GrammarPairs(language='sums').build(
        objectives.NLL(decoder=stage, rate=1.0)
    )
  bound = types.SimpleNamespace(
      model=(
          'lm',
          types.SimpleNamespace(
              module=types.SimpleNamespace(
                  streams={'frames': 0},
                  predicted=(0,),
                  vocabularies=(4,),
                  tag='bound',
              )
          ),
      )
  )
  with pytest.raises(config.ConfigError, match='bound'):
    evaluation.GrammarPairs(language='sums').build(bound)
  with pytest.raises(config.ConfigError, match='hears none'):
    evaluation.GrammarPairs(language='sentences', channels=True).build(
        objective
    )
  # Codes of some tokenizer, but which?
  other = objectives.NLL(decoder=decoders.Decoder(vocabularies=(7,)))
  with pytest.raises(config.ConfigError, match='cache'):
    evaluation.GrammarPairs(language='sums').build(other)


class _Loudness:
  """A tokenizer: a frame is half a second, its first code how loud that is."""

  spec = made_caches.spec((5, 5, 5), 8000)

  def __init__(self):
    self.heard = []

  def encode(self, audio):
    self.heard.append(audio[0, :, 0])
    frames = audio.shape[1] // 8000
    parts = audio[0, : frames * 8000].reshape(frames, 8000)
    codes = np.zeros((1, frames, 3), np.int32)
    codes[0, :, 0] = np.minimum(40 * np.sqrt(np.square(parts).mean(1)), 4)
    return tokenizers_base.Tokens(
        num_samples=np.int32([frames * 8000]), codes=codes
    )


def test_a_model_of_audio_hears_both_halves(monkeypatch):
  tokenizer, asked = _Loudness(), []

  def tokenizer_of(*arguments):
    asked.append(arguments)
    return tokenizer

  monkeypatch.setattr(representations, 'tokenizer_of', tokenizer_of)
  objective = objectives.NLL(
      decoder=decoders.Decoder(
          vocabularies=(5, 5),
          pattern=patterns.Parallel(),
          backbone=stack_lib.Stack(width=16, layers=1),
      ),
      rate=2.0,
  )
  variables = objective.init(jax.random.key(0))
  settings = evaluation.GrammarPairs(language='sums', count=4, batch_size=4)
  source = types.SimpleNamespace(cache='cache')
  evaluator = settings.with_data(source).build(objective)
  assert asked == [((5, 5), 'cache', None)]
  scores = list(evaluator.run(variables))
  clips = _clips('sums', 4)
  for audio, clip in zip(
      tokenizer.heard, [*clips, *(c.twin() for c in clips)], strict=True
  ):
    np.testing.assert_array_equal(audio, clip.audio())
  model = objective.bind(variables)
  # Of what the tokenizer gives the first codes are the model's.
  codes = [
      tokenizer.encode(c.audio()[None, :, None]).codes[0, :, :2] for c in clips
  ]
  right = pair_scores.log2_probabilities(model, codes, 4)
  codes = [
      tokenizer.encode(c.twin().audio()[None, :, None]).codes[0, :, :2]
      for c in clips
  ]
  wrong = pair_scores.log2_probabilities(model, codes, 4)
  assert [s.sum for s in scores] == (
      0.5 * (right >= wrong) + 0.5 * (right > wrong)
  ).tolist()
  # What is heard does not change while the model is trained: it is kept.
  count = len(tokenizer.heard)
  assert [s.sum for s in evaluator.run(variables)] == [s.sum for s in scores]
  assert len(tokenizer.heard) == count
