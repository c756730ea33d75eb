"""The evaluator of probes on clips whose factors are known."""

import json

import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import evaluation
from audiolm_jax.comparison import statistics
from audiolm_jax.data.speech_world import clips as clips_lib
from audiolm_jax.data.speech_world import known as known_lib
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import labels as labels_lib
from audiolm_jax.evaluation import representations
from tests.evaluation import worlds

CLIPS = 60


class _Planted(representations.Encoder):
  """Noise, in which a clip's label or nothing is planted."""

  def __init__(self, values):
    self._values, self._next = values, 0

  def __call__(self, variables, clips):
    rows = self._values[self._next : self._next + len(clips)]
    self._next += len(clips)
    return [representations.Frames(row, 50.0) for row in rows]


@pytest.fixture
def corpus(monkeypatch):
  clips = worlds.clips(CLIPS)
  monkeypatch.setattr(data, 'load_corpus', lambda *_: clips)
  return clips


def _scores(settings, values):
  evaluator = settings.build(None)
  evaluator._encoder = _Planted(values)
  return list(evaluator.run({}))


def test_a_planted_bit_is_found_and_none_is_not(corpus, monkeypatch):
  rng = np.random.default_rng(0)
  many = [
      {
          **corpus[i % CLIPS],
          'id': f'clip{i}',
          'text': f't{i}',
          'odd': str(i % 2),
      }
      for i in range(400)
  ]
  monkeypatch.setattr(data, 'load_corpus', lambda *_: many)
  noise = rng.standard_normal((400, 3, 8)).astype(np.float32)
  settings = evaluation.Probe(factor='odd', hold_out=('text',))
  nothing = _scores(settings, noise)
  means = evaluation_base.summarize(nothing)
  assert means['accuracy'] <= means['chance_high'] + 0.02
  assert means['uniform_bits'] == 1 and means['code_bits'] > 0.97
  items = {
      s.item: (s.sum, s.weight) for s in nothing if s.name == 'information'
  }
  # The upper end bounds the leak.
  assert abs(statistics.bootstrap(items).high) < 0.1
  planted = noise.copy()
  planted[:, :, 0] += 5 * (np.arange(400) % 2)[:, None]
  means = evaluation_base.summarize(_scores(settings, planted))
  assert means['accuracy'] == 1 and means['information'] > 0.9
  assert means['code_bits'] < 0.3
  assert 'control_accuracy' in means


def test_no_group_is_on_both_sides(corpus):
  evaluator = evaluation.Probe(factor='phone').build(None)
  clips, _ = evaluator._read(corpus, {})
  train, test = evaluator._split([clips])
  for k in range(2):
    assert not {c.groups[k] for c in train} & {c.groups[k] for c in test}
  assert test and len(train) + len(test) < len(clips)
  with pytest.raises(config.ConfigError, match="values of 'speaker'"):
    evaluator._split([clips[:30], clips[30:]])


def test_phones_are_read_from_mels_across_speakers_and_texts(corpus):
  settings = evaluation.Probe(
      factor='phone', limit=60, precisions=(10.0,), share=0.4, code=False
  )
  means = evaluation_base.summarize(settings.build(None).run({}))
  assert means['accuracy'] > 1.5 * means['chance_high']
  assert means['information'] > 1.2
  # A linear probe of mels knows phones, not which words they are of.
  assert means['selectivity'] > 0.1


def test_f0_is_read_in_cents_and_noise_is_not(corpus):
  settings = evaluation.Probe(factor='f0', precisions=(10.0,), share=0.4)
  mels = evaluation_base.summarize(settings.build(None).run({}))
  rng = np.random.default_rng(0)
  noise = [
      rng.standard_normal((len(c['audio']) // 320, 4)).astype(np.float32)
      for c in corpus
  ]
  none = evaluation_base.summarize(_scores(settings, noise))
  assert none['unexplained'] == pytest.approx(1, abs=0.15)
  assert mels['unexplained'] < 0.7 and mels['error'] < none['error']


def test_examples_are_those_of_the_factors():
  clip = clips_lib.clip(clips_lib.World('digits', channels=True), 3)
  known = labels_lib.known(
      {'id': 'x', 'speaker': 'lm/01', 'factors': clips_lib.to_json(clip)}
  )
  u = clip.utterance
  frames = representations.Frames(
      np.arange(u.ends[-1], dtype=np.float32)[:, None], 100.0
  )
  phones = labels_lib.factor('phone').examples(frames, known)
  steps = np.diff((0, *u.ends))
  assert phones.labels == np.repeat(u.phones, steps).tolist()
  # Voiced frames alone have an f0, which is the contour's.
  f0 = labels_lib.factor('f0').examples(frames, known)
  kept = known_lib.voiced(known['world'], frames.times)
  np.testing.assert_allclose(
      f0.labels, 1200 * np.log2(u.f0(frames.times[kept]) / 55)
  )
  np.testing.assert_array_equal(f0.x[:, 0], np.flatnonzero(kept))
  # The mean frame of a word is the middle of its span.
  words = labels_lib.factor('word').examples(frames, known)
  assert words.labels == list(clip.words) == words.types
  for row, (a, b, _) in zip(words.x, u.accents, strict=True):
    assert row[0] == (a + b - 1) / 2
  factors = json.loads(clips_lib.to_json(clip))
  for name, value in (
      ('noise', factors['channel']['noise'] or 'none'),
      ('room', str(factors['channel']['room'])),
      ('noise_seed', str(factors['noise_seed'])),
      ('mu_law', str(factors['channel']['bits'])),
      ('speaker', 'lm/01'),
  ):
    assert labels_lib.factor(name).examples(frames, known).labels == [value]
  none = labels_lib.known({'id': 'x', 'speaker': '', 'text': 'a'})
  for name in ('speaker', 'phone', 'word', 'noise'):
    assert not labels_lib.factor(name).examples(frames, none).labels
  codes = representations.Frames(np.array([[0, 2], [1, 2]]), 1.0, (2, 3))
  pooled = labels_lib.pool(codes, slice(None))
  np.testing.assert_array_equal(pooled, [0.5, 0.5, 0, 0, 1])


def test_what_another_engine_does_not_know_has_no_label():
  clip = clips_lib.clip(clips_lib.World('digits', 'espeak_lm', True), 3)
  known = labels_lib.known(
      {
          'id': 'x',
          'speaker': clip.utterance.speaker.name,
          'factors': clips_lib.to_json(clip),
      }
  )
  frames = representations.Frames(
      np.arange(int(clip.seconds * 100), dtype=np.float32)[:, None], 100.0
  )

  def labels(name):
    return labels_lib.factor(name).examples(frames, known).labels

  unknown = 'f0 voiced accent group speaker_f0 noise_seed f0_range'
  for name in unknown.split():
    assert not labels(name)
  assert labels('pitch') == [str(clip.utterance.pitch)]
  assert labels('codec') == [clip.channel.codec or 'none']
  assert labels('word') == list(clip.words)
  assert set(labels('phone')) == {p for p, *_ in known['world']['phones']}
  for read in (known_lib.f0, known_lib.voiced):
    with pytest.raises(ValueError, match='voicing of espeak_.* are not known'):
      read(known['world'], frames.times)
  # Clips that were stored before there were codecs went through none.
  del known['world']['channel']['codec']
  assert labels('codec') == ['none']


def test_what_can_not_be_probed_is_refused(corpus):
  with pytest.raises(config.ConfigError, match="'phones'"):
    list(evaluation.Probe(factor='phones').build(None).run({}))
  speaker = evaluation.Probe(factor='speaker', hold_out=('speaker',))
  with pytest.raises(config.ConfigError, match='no training clip has'):
    list(speaker.build(None).run({}))
  built = config.build_kind(
      evaluation.EVALUATORS,
      {'kind': 'probe', 'factor': 'phone', 'of': {'kind': 'codec'}},
  )
  assert built.of == representations.CodecFrames()
