"""The built corpus holds what its clips are made of."""

import json

import numpy as np
import pytest

from audiolm_jax.data import corpora
from audiolm_jax.data.speech_world import clips as clips_lib
from audiolm_jax.data.speech_world import corpus as speech_world

NAME = 'digits-tokenizer-channels-400'


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('AUDIOLM_JAX_CACHE', str(tmp_path_factory.mktemp('cache')))
    # Few clips by processes, too: as many as are built otherwise.
    patch.setattr(speech_world, '_FEW', 8)
    patch.setattr(speech_world, '_MANY', 5)
    (card,) = corpora.prepare('speech_world', (NAME,), limit=8)
    yield card


def test_clips_are_those_that_are_made_on_the_fly(built):
  world = clips_lib.World('digits', 'tokenizer', channels=True)
  seen = set()
  for split in ('train', 'validation', 'test'):
    corpus = corpora.load_corpus('speech_world', split, (NAME,))
    assert len(corpus) == 8
    for i in range(len(corpus)):
      stored = corpus[i]
      clip = clips_lib.clip(world, int(stored['id'].rpartition('/')[2]))
      assert (stored['split'] if 'split' in stored else split) == clip.split
      np.testing.assert_allclose(
          stored['audio'][:, 0], clip.audio(), atol=0.51 / 32767
      )
      assert stored['sample_rate'] == 16000
      assert stored['text'] == clip.text and stored['language'] == 'en'
      assert json.loads(stored['factors']) == clip.factors()
      assert stored['speaker'] == clip.utterance.speaker.name
      pool = 'held_out' if split == 'test' else 'tokenizer'
      assert stored['speaker'].startswith(pool)
      seen.add(stored['id'])
  assert len(seen) == 24


def test_the_card_has_the_entropies(built):
  assert 'speech_world/digits' in str(built)
  assert '  text                   11.551' in str(built)
  assert 'channel room' in str(built) and built.rejected == []


def test_names_are_of_configs_and_one_is_the_default(built):
  with pytest.raises(corpora.CorpusError, match='sentences-lm-clean-4000'):
    corpora.load_corpus('speech_world', 'train')
  with pytest.raises(corpora.CorpusError, match="no language 'digits'"):
    corpora.prepare('speech_world', ('digits',))
  names = [config.name for config in speech_world.SpeechWorld.BUILDER_CONFIGS]
  # Three pools of two engines say all languages, Piper's one English alone, in 400 clips.
  assert len(set(names)) == 5 * 6 * 2 * 3 + 3 * 2
  assert set(speech_world.SpeechWorld.DEFAULT_CONFIGS) <= set(names)


def test_a_version_is_of_the_channels(built):
  versions = {
      config.name.split('-')[2]: str(config.version)
      for config in speech_world.SpeechWorld.BUILDER_CONFIGS
  }
  assert versions == {'clean': '1.0.0', 'channels': '2.0.0'}
  assert f'speech_world/{NAME}/2.0.0' in str(built)


def test_espeaks_clips_say_their_factors_when_they_are_rendered(built):
  del built  # Its cache.
  name = 'digits-espeak_lm-clean-400'
  (card,) = corpora.prepare('speech_world', (name,), limit=2)
  assert 'pitch_range' in str(card) and 'espeak_lm/' in str(card)
  world = clips_lib.World('digits', 'espeak_lm')
  for split, pool in (('train', 'espeak_lm/'), ('test', 'espeak_held_out/')):
    stored = corpora.load_corpus('speech_world', split, (name,))[0]
    clip = clips_lib.clip(world, int(stored['id'].rpartition('/')[2]))
    assert json.loads(stored['factors']) == clip.factors()
    np.testing.assert_allclose(
        stored['audio'][:, 0], clip.audio(), atol=0.51 / 32767
    )
    assert stored['speaker'].startswith(pool)
