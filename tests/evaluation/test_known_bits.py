"""What clips truly cost: from what was drawn, over a cache's frames."""

import math

import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import evaluation
from audiolm_jax.data import token_cache
from audiolm_jax.data.speech_world import clips as clips_lib
from audiolm_jax.data.speech_world import languages
from audiolm_jax.evaluation import base as evaluation_base
from tests.data import made_caches

CLEAN = clips_lib.World('sentences')
BEHIND_CHANNELS = clips_lib.World('sentences', channels=True)


def _cache(directory, factors):
  """Of clips whose frames are 10, 11, ..."""
  writer = token_cache.Writer(
      directory, made_caches.identity((5,), {'test': len(factors)})
  )
  for split, part, indices in writer.missing():
    made = [
        made_caches.example(np.zeros((10 + i, 1), np.int32), factors=factors[i])
        for i in indices
    ]
    writer.write(split, part, made)
  assert writer.finish()
  return str(directory)


def _scores(cache, **options):
  clips = evaluation.TokenClips(cache=cache, split='test', **options)
  evaluator = evaluation.KnownBits(clips=clips).build(None)
  return list(evaluator.run({}))


def _factors(clip):
  return {'id': clip.id, 'factors': clips_lib.to_json(clip)}


def test_a_clip_costs_its_text_and_each_draw(tmp_path):
  clips = [clips_lib.clip(CLEAN, i) for i in range(3)]
  scores = _scores(_cache(tmp_path / 'c', [_factors(c) for c in clips]))
  language = languages.language('sentences')
  for i, clip in enumerate(clips):
    total, text = [s for s in scores if s.item == clip.id]
    assert (total.name, text.name) == (
        'bits_per_frame',
        'text_bits_per_frame',
    )
    assert total.weight == text.weight == 10 + i
    assert text.sum == pytest.approx(
        -language.grammar.log2_probability(clip.words)
    )
    # 4 rates, 3 ranges of f0, 4 energies, 64 speakers, 16 seeds, and an accent
    # or none for each word.
    drawn = math.log2(4 * 3 * 4 * 64 * 16) + len(clip.words)
    for longer in clip.utterance.longer:
      drawn -= math.log2(0.1 if longer else 0.9)
    assert total.sum == pytest.approx(text.sum + drawn)
  limited = _scores(str(tmp_path / 'c'), limit=1)
  assert len(limited) == 2
  means = evaluation_base.summarize(scores)
  assert means['bits_per_frame'] > means['text_bits_per_frame'] > 0


def test_costs_are_the_entropies_on_the_card_in_the_mean():
  costs = [
      clips_lib.costs(clips_lib.clip(CLEAN, i).factors()) for i in range(2000)
  ]
  for name, bits in clips_lib.entropies(CLEAN).items():
    assert np.mean([c[name] for c in costs]) == pytest.approx(bits, rel=0.03)


def test_what_has_no_known_cost_is_refused(tmp_path):
  def refused(name, factors, message):
    with pytest.raises(config.ConfigError, match=message):
      _scores(_cache(tmp_path / name, [factors]))

  refused('other', {'id': 'x'}, "clip x: its true cost is not known .'factors'")
  noisy = (clips_lib.clip(BEHIND_CHANNELS, i) for i in range(9))
  noisy = next(c for c in noisy if c.factors()['channel']['room'])
  refused('noisy', _factors(noisy), 'a channel was drawn')
  twin = clips_lib.clip(CLEAN, 0).twin()
  refused('twin', _factors(twin), 'a text of probability 0')
  with pytest.raises(config.ConfigError, match='clips.cache = None'):
    evaluation.KnownBits(clips=evaluation.TokenClips()).build(None)
