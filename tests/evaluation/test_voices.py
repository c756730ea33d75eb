"""Verification: error rates by definition, a fit that finds what differs."""

import dataclasses

import numpy as np
import pytest

from audiolm_jax import data
from audiolm_jax import evaluation
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import labels as labels_lib
from audiolm_jax.evaluation import speakers
from tests.evaluation import reconstructing
from tests.evaluation import worlds


def test_error_rates_are_where_both_errors_are_equal():
  same = np.array([True] * 4 + [False] * 4)
  apart = np.array([5, 6, 7, 8, 1, 2, 3, 4.0])
  assert speakers.error_rate(apart, same) == 0
  assert speakers.error_rate(np.zeros(8), same) == 0.5
  # Half of the way from (0, 3 / 4) to (1 / 4, 1) of the hull.
  crossed = np.array([3.5, 6, 7, 8, 1, 2, 3, 5.0])
  assert speakers.error_rate(crossed, same) == pytest.approx(1 / 8)
  # Worse than chance is not turned around: the hull ends at chance.
  assert speakers.error_rate(-apart, same) == pytest.approx(0.5)
  rng = np.random.default_rng(0)
  same = rng.random(20000) < 0.3
  scores = rng.standard_normal(20000) + 2 * same
  # Phi(-1) of two unit Gaussians two apart.
  assert speakers.error_rate(scores, same) == pytest.approx(0.1587, abs=0.01)
  with pytest.raises(ValueError, match='both kinds'):
    speakers.error_rate(scores, np.ones(20000, bool))


def test_the_fit_finds_the_direction_in_which_speakers_differ():
  rng = np.random.default_rng(0)
  names = [f's{i % 20}' for i in range(400)]
  voices = rng.standard_normal((20, 1))
  x = rng.standard_normal((400, 8)) * 5
  x[:, 3] = voices[np.arange(400) % 20, 0] + 0.1 * rng.standard_normal(400)
  embed = speakers.fit(x, names, 1)
  weights = np.abs(embed.weights[:, 0])
  assert weights.argmax() == 3 and weights[3] > 5 * np.delete(weights, 3).max()
  with pytest.raises(ValueError, match='20 speakers'):
    speakers.fit(x, names, 20)


def test_statistics_do_not_hear_level_or_silence():
  audio = worlds.clips(1)[0]['audio'][:, 0]
  base = speakers.statistics(audio)
  np.testing.assert_allclose(speakers.statistics(2 * audio), base, atol=0.1)
  padded = np.concatenate([np.zeros(16000, np.float32), audio])
  np.testing.assert_allclose(speakers.statistics(padded), base, atol=0.1)
  assert not speakers.statistics(audio[:100]).any()


def test_trials_are_of_other_texts_and_the_same_group():
  knowns = [labels_lib.known(c) for c in worlds.clips(40)]
  found = speakers.trials(knowns)
  assert found
  for i, j, same in found:
    a, b = knowns[i], knowns[j]
    assert a['text'] != b['text'] and same == (a['speaker'] == b['speaker'])
    groups = [k['world']['speaker']['group'] for k in (a, b)]
    assert groups[0] == groups[1]
  unknown = [{**k, 'speaker': ''} for k in knowns]
  assert speakers.trials(unknown) == []


@pytest.fixture
def few(monkeypatch):
  """The embedding of few clips, so that the test is quick."""
  monkeypatch.setattr(speakers, '_CLIPS', 160)
  monkeypatch.setattr(speakers, '_DIMENSION', 8)
  speakers.embedding.cache_clear()
  yield
  speakers.embedding.cache_clear()


def test_a_codec_that_copies_keeps_voices(few, monkeypatch):
  clips = worlds.clips(60, pool='held_out')
  monkeypatch.setattr(data, 'load_corpus', lambda *_: clips)
  evaluator = evaluation.Voices().build(reconstructing.Objective())
  scores = list(evaluator.run(1.0))
  means = evaluation_base.summarize(scores)
  assert means['similarity'] == pytest.approx(1)
  assert means['eer'] == pytest.approx(means['eer_original'], abs=0.01)
  # Better than chance, on voices and texts that it never heard.
  print(means)
  assert means['eer_original'] < 0.42
  items = {s.item for s in scores if s.name == 'eer'}
  assert items == {f'speakers-{speakers.embedding().hash[:12]}'}


class _Noisy(reconstructing.Bound):
  """Its variables are a level of noise and a sample rate."""

  def __init__(self, variables):
    super().__init__()
    self.level, rate = variables
    self.spec = dataclasses.replace(self.spec, sample_rate=rate)

  def decode(self, tokens):
    audio, num_samples = super().decode(tokens)
    noise = np.random.default_rng(0).standard_normal(audio.shape)
    return audio + self.level * noise.astype(np.float32), num_samples


class _Noise:
  bind = staticmethod(_Noisy)


def test_what_stays_is_kept_and_what_changes_is_made_anew(few, monkeypatch):
  """Through training: clips and the embedding stay, the codec does not."""
  clips, calls = worlds.clips(20, pool='held_out'), []
  monkeypatch.setattr(speakers, '_CLIPS', 60)

  def counted(name, function):
    return lambda *a: calls.append(name) or function(*a)

  monkeypatch.setattr(data, 'load_corpus', counted('clips', lambda *_: clips))
  monkeypatch.setattr(speakers, 'fit', counted('fit', speakers.fit))
  evaluator = evaluation.Voices().build(_Noise())

  def run(*variables):
    scores = list(evaluator.run(variables))
    means = evaluation_base.summarize(scores)
    return means, {s.item for s in scores if s.name == 'eer'}

  clean, name = run(0.0, 16000)
  noisy, _ = run(0.05, 16000)
  assert clean['similarity'] == pytest.approx(1)
  assert noisy['similarity'] < 0.9
  assert noisy['eer_original'] == clean['eer_original'] == clean['eer']
  assert run(0.0, 16000) == (clean, name)
  assert sorted(calls) == ['clips', 'fit']
  # Another rate of the codec is another reading of the clips.
  narrow, _ = run(0.0, 8000)
  assert narrow['similarity'] == pytest.approx(1)
  assert narrow['eer_original'] != clean['eer_original']
  assert sorted(calls) == ['clips', 'clips', 'fit']
  # Another embedding has another name, and its own scores.
  speakers.embedding.cache_clear()
  monkeypatch.setattr(speakers, '_DIMENSION', 4)
  other, renamed = run(0.05, 16000)
  assert sorted(calls) == ['clips', 'clips', 'fit', 'fit']
  assert renamed != name and other['similarity'] != noisy['similarity']


@pytest.mark.slow
def test_the_frozen_embedding_tells_the_third_pool_apart():
  clips = worlds.clips(200, pool='held_out', language='sentences')
  embed = speakers.embedding()
  vectors = np.stack([embed(c['audio'][:, 0], 16000) for c in clips])
  found = speakers.trials([labels_lib.known(c) for c in clips])
  scores = np.array([vectors[i] @ vectors[j] for i, j, _ in found])
  rate = speakers.error_rate(scores, np.array([s for *_, s in found]))
  print(f'EER on pool three, same group: {rate:.3f}')
  assert rate < 0.15
