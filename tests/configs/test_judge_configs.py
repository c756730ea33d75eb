"""Recognisers and models of words: configs build, and the smallest train."""

import flax.linen as nn
import jax
import numpy as np
import pytest

import audiolm_jax
from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import evaluation
from audiolm_jax import resolution
from audiolm_jax import train
from audiolm_jax.data import corpora
from audiolm_jax.data import phone_clips
from audiolm_jax.data.speech_world import languages
from audiolm_jax.data.speech_world import speakers
from audiolm_jax.models import recogniser as recogniser_lib
from audiolm_jax.training import config_files
from configs.judge import recogniser
from configs.lm import world_text

_NAMES = (
    'syllables-lm-clean-400',
    'syllables-lm-channels-400',
    'sentences-lm-clean-400',
)


@pytest.mark.parametrize('size', config_files.SIZES)
@pytest.mark.parametrize(
    'family, name',
    [
        *((recogniser, role) for role in recogniser.VARIANTS),
        *((world_text, language) for language in world_text.VARIANTS),
    ],
    ids=lambda x: x if isinstance(x, str) else x.__name__,
)
def test_they_build(family, name, size):
  given = family.get_config(f'{name},{size}')
  settings = resolution.resolve(config.build(train.Config, given))
  objective = settings.objective
  shapes = nn.meta.unbox(jax.eval_shape(objective.init, jax.random.key(0)))
  assert set(shapes) == set(settings.models)
  jax.eval_shape(objective, shapes, objective.example_batch(2), jax.random.key(0))  # fmt: skip
  assert config.build(train.Config, config.to_config(settings)) == settings


def test_judge_and_teacher_share_nothing():
  teacher, judge = (
      recogniser.get_config(f'{role},cpu') for role in ('teacher', 'judge')
  )
  assert teacher.seed != judge.seed
  fronts = [c.objective.recogniser.front_end for c in (teacher, judge)]
  assert type(fronts[0]) is not type(fronts[1])
  assert fronts[0].hop != fronts[1].hop and fronts[0].size != fronts[1].size
  pools = [
      {name.split('-')[1] for name in c.data.languages}
      for c in (teacher, judge)
  ]
  assert not pools[0] & pools[1] and 'held_out' not in pools[0] | pools[1]
  (one,), (other,) = pools
  assert not set(speakers.pool(one)) & set(speakers.pool(other))
  # Nothing of what they are asked about is in what they learn from.
  assert all(n.startswith('syllables') for n in judge.data.languages)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('AUDIOLM_JAX_CACHE', str(tmp_path_factory.mktemp('cache')))
    corpora.prepare('speech_world', _NAMES, limit=10)
    settings = config.replace(
        recogniser.get_config('judge,smoke'),
        {
            'batch_size': 4,
            'steps': 3,
            'eval_every': 3,
            'evaluators.sentences.channels': ('', 'noise'),
        },
    )
    workdir = tmp_path_factory.mktemp('run')
    results = train.train(settings, workdir)
    yield workdir, results


def test_a_recogniser_is_loaded_as_it_was_trained(run):
  workdir, results = run
  assert results['impossible'] == 0
  # Nothing has been learnt, and copies are no originals.
  assert results['eval/sentences/phone_error'] > 0.5
  assert 'eval/sentences/noise/phone_error' in results
  loaded = audiolm_jax.load(workdir)
  assert isinstance(loaded, recogniser_lib.PhoneRecogniser)
  assembly, state = assembly_lib.restore(workdir)
  trained = assembly.objective.bind(assembly.variables(state))
  audio = np.random.default_rng(0).normal(0, 0.1, (1, 9000, 1))
  a, b = (m.logits(audio.astype(np.float32))[0] for m in (loaded, trained))
  np.testing.assert_array_equal(a, b)
  # What training measured is what the loaded one says.
  evaluator = assembly.config.evaluators['sentences'].build(assembly.objective)
  scores = list(
      evaluator.run({'recogniser': {'params': loaded.params, 'state': {}}})
  )
  again = evaluation.base.summarize(scores)['phone_error']
  assert again == pytest.approx(results['eval/sentences/phone_error'])


def test_batches_hold_the_phones_of_their_clips(run):
  symbols = recogniser_lib.Recogniser().symbols
  source = phone_clips.PhoneClips(
      languages=_NAMES[:1], symbols=symbols, sample_rate=16000
  )
  corpus = corpora.load_corpus('speech_world', 'train', _NAMES[:1])
  batch = source.open(batch_size=6, seed=0).next(None)
  for row, index in enumerate(batch['id']):
    clip = corpus[int(index)]
    said = phone_clips.phones(clip)
    assert said == sum(
        map(list, languages.language('syllables').phones(clip['text'].split())),
        [],
    )
    count, length = batch['num_labels'][row], batch['num_samples'][row]
    assert [symbols[k - 1] for k in batch['labels'][row, :count]] == said
    assert not batch['labels'][row, count:].any()
    np.testing.assert_array_equal(
        batch['audio'][row, :length], clip['audio'][: 16 * 4100]
    )
  fast = config.replace(source, {'speeds': (2.0,)}).open(batch_size=6, seed=0)
  halved = fast.next(None)
  for index, length in zip(halved['id'], halved['num_samples'], strict=True):
    assert abs(2 * length - len(corpus[int(index)]['audio'])) <= 2


def test_clips_that_do_not_fit_are_refused(run):
  symbols = recogniser_lib.Recogniser().symbols
  options = {'symbols': symbols, 'sample_rate': 16000}
  source = phone_clips.PhoneClips(languages=_NAMES[:1], seconds=0.2, **options)
  with pytest.raises(corpora.CorpusError, match='seconds = 0.2'):
    source.open(batch_size=1, seed=0)
  with pytest.raises(config.ConfigError, match='symbols = None'):
    phone_clips.PhoneClips(sample_rate=16000).open(batch_size=1, seed=0)
  with pytest.raises(config.ConfigError, match="lacks 'b'"):
    phone_clips.labels(['a', 'b'], ('a',))
  with pytest.raises(corpora.CorpusError, match='does not say its phones'):
    phone_clips.phones({'id': 'x'})
  with pytest.raises(config.ConfigError, match="'tunnel'"):
    evaluation.PhoneErrors(channels=('tunnel',)).build(None)
  with pytest.raises(config.ConfigError, match='trains no recogniser'):
    evaluation.PhoneErrors().build(object())
