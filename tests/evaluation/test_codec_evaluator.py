"""The codec evaluator on stand-ins whose scores are known."""

import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import evaluation
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import codec as codec_evaluation
from audiolm_jax.evaluation import judges as judges_lib
from audiolm_jax.evaluation import metrics
from audiolm_jax.evaluation import opus
from audiolm_jax.tokenizers import base as tokenizers_base

RATE, HOP, SLOTS = 8000, 80, 3
SAMPLES = (400, 8000, 79, 12345, 801, 5000)
DATES = tokenizers_base.Dates('CNN', 'time', 'RVQ', 'fixed', (), (), ())


class _Corpus(list):
  pass


class _Bound:
  """Codes count frames; n codebooks give the audio times n / SLOTS."""

  def __init__(self, gain=1.0):
    self.variables = gain
    self.shapes = set()
    self.spec = tokenizers_base.Spec(
        sample_rate=RATE,
        hop=HOP,
        slots=tuple(tokenizers_base.Slot(k, 4) for k in range(SLOTS)),
        causal=True,
        latency=0,
        dates=DATES,
    )

  def encode(self, audio, num_samples):
    self.shapes.add(audio.shape)
    self._audio = audio
    codes = np.arange(audio.shape[1] // HOP) % 2
    codes = np.broadcast_to(
        codes[None, :, None], (len(audio), codes.size, SLOTS)
    )
    return tokenizers_base.Tokens(num_samples=num_samples, codes=codes)

  def decode(self, tokens):
    level = tokens.codes.shape[-1] / SLOTS * self.variables
    return level * self._audio, tokens.num_samples


class _Objective:

  def bind(self, variables):
    return _Bound(variables)


@pytest.fixture
def corpus(monkeypatch):
  rng = np.random.default_rng(0)
  clips = _Corpus(
      {
          'id': f'clip{i}',
          'audio': rng.standard_normal((n, 1)).astype(np.float32),
          'sample_rate': RATE,
          'text': '' if i == 4 else f'number {i}',
          'language': 'en',
      }
      for i, n in enumerate(SAMPLES)
  )
  asked = []

  def load(name, split, languages):
    asked.append((name, split, languages))
    return clips

  monkeypatch.setattr(data, 'load_corpus', load)
  clips.asked = asked
  return clips


def test_scores_are_those_of_each_whole_clip_alone(corpus):
  settings = codec_evaluation.Codec(
      codebooks=(1,), min_seconds=0.0, languages=('en',)
  )
  bound = _Bound()
  scores = list(codec_evaluation.CodecEvaluator(settings).score(bound))
  assert corpus.asked == [('asterisk_prompts', 'validation', ('en',))]
  found = {(s.name, s.item): s.sum / s.weight for s in scores}
  for clip in corpus:
    name, audio = clip['id'], clip['audio'][:, 0]
    assert found['mel', name] == found['stft', name] == 0
    third = audio / np.float32(3)
    expected = metrics.mel_distance(audio, third, RATE)
    assert found['mel@1', name] == pytest.approx(expected, rel=1e-5)
    expected = metrics.stft_distance(audio, third)
    assert found['stft@1', name] == pytest.approx(expected, rel=1e-5)
    assert found['si_sdr@1', name] > 90
  # Codes 0 and 1 of 4, padding not counted.
  assert found['usage_0', 'corpus'] == 0.5
  frames = sum(-(-n // HOP) for n in SAMPLES)
  odd = sum(-(-n // HOP) // 2 for n in SAMPLES) / frames
  entropy = -odd * np.log2(odd) - (1 - odd) * np.log2(1 - odd)
  assert found['entropy_2', 'corpus'] == pytest.approx(entropy)
  # Few shapes, whatever the lengths.
  assert len(bound.shapes) <= 2


def test_estimates_are_compared_with_the_target(corpus):
  """A bound that doubles is perfect where targets are twice the audio."""
  for clip in corpus:
    clip['target'] = 2 * clip['audio']
  settings = codec_evaluation.Codec(min_seconds=0.5)
  evaluator = codec_evaluation.CodecEvaluator(settings)
  doubled = evaluation_base.summarize(evaluator.score(_Bound(2.0)))
  assert doubled['mel'] == 0
  plain = evaluation_base.summarize(evaluator.score(_Bound(1.0)))
  assert plain['mel'] == pytest.approx(np.log10(2), abs=0.01)
  # Other codecs are given the audio, and judged by the target too.
  copy = {'copy': lambda audio, _: opus.Coded(audio, bits=1)}
  others = evaluator.compare(_Bound().spec, copy)
  mel = evaluation_base.summarize(others)['mel@copy']
  assert mel == pytest.approx(np.log10(2), abs=0.01)
  item = next(evaluator.reconstruct(_Bound()))
  assert not {'audio', 'target'} & item.clip.keys()
  corpus[1]['target'] = corpus[1]['target'][1:]
  evaluator = codec_evaluation.CodecEvaluator(settings)
  with pytest.raises(config.ConfigError, match='target of clip clip1'):
    evaluator.clips(_Bound().spec)


def test_limit_text_and_duration_choose_clips(corpus):
  def items(**settings):
    evaluator = codec_evaluation.CodecEvaluator(
        codec_evaluation.Codec(**settings)
    )
    scores = evaluator.score(_Bound())
    return {s.item for s in scores} - {'corpus'}

  assert items(min_seconds=0.05) == {f'clip{i}' for i in (0, 1, 3, 4, 5)}
  assert 'clip4' not in items(min_seconds=0.0, transcribed=True)
  assert items(min_seconds=0.0, limit=3) == {'clip0', 'clip2', 'clip5'}
  with pytest.raises(ValueError, match='no clip'):
    items(min_seconds=100.0)


def test_run_binds_the_given_variables(corpus):
  evaluator = codec_evaluation.Codec(min_seconds=0.0).build(_Objective())
  quiet = evaluation_base.summarize(evaluator.run(0.1))
  exact = evaluation_base.summarize(evaluator.run(1.0))
  assert exact['mel'] == 0 and quiet['mel'] == pytest.approx(1.0, abs=0.01)


def test_wrong_settings_are_refused(corpus):
  with pytest.raises(config.ConfigError, match='has 3'):
    list(
        codec_evaluation.CodecEvaluator(
            codec_evaluation.Codec(codebooks=(4,))
        ).score(_Bound())
    )
  with pytest.raises(config.ConfigError, match='pesq'):
    codec_evaluation.CodecEvaluator(codec_evaluation.Codec(judges=('peks',)))
  settings = {'kind': 'codec', 'limit': 3}
  built = config.build_kind(evaluation.EVALUATORS, settings)
  assert built == codec_evaluation.Codec(limit=3)
  with pytest.raises(config.ConfigError, match='limit'):
    config.build(codec_evaluation.Codec, {'limit': 0})


def test_judges_scores_are_kept_with_their_weights(corpus, monkeypatch):
  class Fake(judges_lib.Judge):
    name = 'fake'
    packages = ()

    def __call__(self, clip):
      if not clip.text:
        return {}
      return {'fake': (float(len(clip.estimate)), 2.0)}

  monkeypatch.setitem(judges_lib.JUDGES, 'fake', Fake)
  settings = codec_evaluation.Codec(judges=('fake',), min_seconds=0.0)
  scores = codec_evaluation.CodecEvaluator(settings).score(_Bound())
  found = {s.item: (s.sum, s.weight) for s in scores if s.name == 'fake'}
  expected = {
      f'clip{i}': (float(n), 2.0) for i, n in enumerate(SAMPLES) if i != 4
  }
  assert found == expected


def test_other_codecs_are_scored_on_the_same_clips(corpus):
  def halve(audio, rate):
    assert rate == RATE
    return opus.Coded(audio / 2, bits=2 * len(audio))

  settings = codec_evaluation.Codec(min_seconds=0.5)
  evaluator = codec_evaluation.CodecEvaluator(settings)
  scores = list(evaluator.compare(_Bound().spec, {'half': halve}))
  assert {s.item for s in scores} == {'clip1', 'clip3', 'clip5'}
  means = evaluation_base.summarize(scores)
  assert means['bits@half'] == 2 * RATE
  assert means['si_sdr@half'] == 100
  assert means['mel@half'] == pytest.approx(np.log10(2), abs=0.01)


def test_held_out_clips_suit_what_the_corpus_knows(monkeypatch):
  def corpus(*clips):
    found = [
        {'text': text, 'audio': np.zeros((round(s * RATE), 1))}
        | {'sample_rate': RATE}
        for text, s in clips
    ]
    monkeypatch.setattr(data, 'load_corpus', lambda *_: found)
    settings = codec_evaluation.held_out('mine', limit=3)
    assert (settings.split, settings.limit) == ('test', 3)
    return settings.transcribed, settings.min_seconds

  assert corpus(('a b', 2), ('c', 1), ('', 3)) == (True, 1)
  assert corpus(('a b', 0.5), ('', 3)) == (True, 0)
  # Few texts, none, or none that words can be made of.
  assert corpus(('a', 2), ('', 1), ('', 0.5)) == (False, 1)
  assert corpus(('', 0.5), ('?!', 0.5)) == (False, 0)
