"""Texts as codes: fresh for every row, of one split, with an end."""

import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax.data import world_texts
from audiolm_jax.data.speech_world import clips as clips_lib
from audiolm_jax.data.speech_world import languages


def test_rows_are_texts_of_their_split_and_end():
  source = world_texts.WorldTexts(split='validation', frames=32)
  opened = source.open(batch_size=16, seed=0)
  language = languages.language('sentences')
  names = list(language.lexicon)
  seen = set()
  for _ in range(3):
    batch = opened.next(None)
    for codes, length in zip(batch['codes'], batch['num_frames'], strict=True):
      *words, end = codes[:length, 0]
      assert end == len(names) and not codes[length:].any()
      words = [names[k] for k in words]
      assert language.grammar.derivations(words) == 1
      assert clips_lib.split_of(words) == 'validation'
      seen.add(tuple(words))
  assert len(seen) == 48  # None comes again.
  state = opened.get_state()
  expected = opened.next(None)
  again = source.open(batch_size=16, seed=0)
  again.set_state(state)
  np.testing.assert_array_equal(again.next(None)['codes'], expected['codes'])


def test_the_split_of_a_text_is_that_of_its_clips():
  for i in range(30):
    clip = clips_lib.clip(clips_lib.World('matrix'), i)
    assert clips_lib.split_of(clip.words) == clip.split


def test_bits_stand_beside_those_of_the_grammar():
  source = world_texts.WorldTexts(language='sums')
  clips = evaluation.WorldTextClips(limit=20).with_data(source)
  assert clips.language == 'sums'
  decoder = decoders.Decoder(vocabularies=source.vocabularies)
  opened = clips.open(decoder, 3.0)
  ids = [i for batch in opened.batches() for i in batch['id'] if i >= 0]
  assert sorted(ids) == list(range(20))
  for i in ids:
    # All of the 200 sums are as likely; the end costs nothing.
    bits = opened.baselines(i)['grammar/']
    assert bits.sum() == pytest.approx(np.log2(200))
    assert bits[-1] == pytest.approx(0, abs=1e-9)
  assert len({opened.item(i) for i in ids}) == 20


def test_what_does_not_fit_is_refused():
  short = world_texts.WorldTexts(language='sums', frames=5)
  with pytest.raises(config.ConfigError, match='frames = 5'):
    short.open(batch_size=1, seed=0).next(None)
  with pytest.raises(config.ConfigError, match="split = 'dev'"):
    world_texts.WorldTexts(split='dev').open(batch_size=1, seed=0)
  with pytest.raises(config.ConfigError, match="split = 'dev'"):
    evaluation.WorldTextClips(language='sums', split='dev').open(
        decoders.Decoder(
            vocabularies=world_texts.WorldTexts(language='sums').vocabularies
        ),
        3.0,
    )
  with pytest.raises(config.ConfigError, match="no language 'latin'"):
    world_texts.WorldTexts(language='latin').open(batch_size=1, seed=0)
  with pytest.raises(config.ConfigError, match="'zzz'"):
    world_texts.text_codes('digits', ['one', 'zzz'])
  decoder = decoders.Decoder(vocabularies=(5,))
  with pytest.raises(config.ConfigError, match='vocabularies'):
    evaluation.WorldTextClips(language='sums').open(decoder, 3.0)
  with pytest.raises(config.ConfigError, match='language = None'):
    evaluation.WorldTextClips().open(decoder, 3.0)
  with pytest.raises(config.ConfigError, match='vocabularies'):
    objectives.NLL(decoder=decoder, rate=1.0).with_data(
        world_texts.WorldTexts(), read=False
    )
