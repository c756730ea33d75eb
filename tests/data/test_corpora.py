"""Building and reading corpora: splits, determinism, bad files, errors."""

import gzip
import itertools
import pickle
import sys

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds

from audiolm_jax.audio import files
from audiolm_jax.data import asterisk_prompts
from audiolm_jax.data import building
from audiolm_jax.data import corpora
from audiolm_jax.data import debian
from audiolm_jax.data import espeak_sentences
from audiolm_jax.data import paths
from audiolm_jax.data import splits

RATE = 16000


def _noise(seed, seconds=0.5, channels=1):
  rng = np.random.default_rng(seed)
  shape = (int(seconds * RATE), channels)
  return 0.3 * rng.uniform(-1, 1, shape).astype(np.float32)


def test_corpus_returns_clips(cache):
  corpus = corpora.load_corpus('espeak_sentences', 'train', ('en', 'fr'))
  assert len(corpus) == 24
  assert {corpus[i]['language'] for i in range(24)} == {'en', 'fr'}
  clip = corpus[20]
  assert clip['audio'].dtype == np.float32 and clip['audio'].shape[1] == 1
  assert clip['sample_rate'] == 22050
  assert clip['text'].endswith('.') and clip['speaker'].startswith('espeak_')
  assert clip['id'] == f'fr/{clip["prompt_id"]}'
  seconds = corpus.seconds()
  assert seconds[20] == pytest.approx(len(clip['audio']) / 22050)
  np.testing.assert_array_equal(seconds, corpus.seconds())  # From the index.
  copy = pickle.loads(pickle.dumps(corpus))
  np.testing.assert_array_equal(copy[20]['audio'], clip['audio'])
  with pytest.raises(IndexError, match='24'):
    corpus[24]


def test_speech_is_the_same_alone_and_in_any_order():
  def speak(languages):
    found = {}
    for language in languages:
      builder = espeak_sentences.EspeakSentences(config=language)
      for clip in itertools.islice(builder.clips(), 8):
        found[clip.id] = builder.load(clip)[0].tobytes()
    return found

  assert speak(['en', 'ru']) == speak(['ru', 'en'])


def test_build_is_deterministic(cache, tmp_path, monkeypatch):
  first = corpora.load_corpus('espeak_sentences', 'test', ('en',))
  monkeypatch.setenv('AUDIOLM_JAX_CACHE', str(tmp_path))
  corpora.prepare('espeak_sentences', ('en',), limit=12)
  second = corpora.load_corpus('espeak_sentences', 'test', ('en',))
  assert len(first) == len(second) > 0
  for i in range(len(first)):
    a, b = first[i], second[i]
    assert a['id'] == b['id']
    np.testing.assert_array_equal(a['audio'], b['audio'])


def test_errors_say_what_to_do(cache):
  with pytest.raises(corpora.CorpusError, match="mean 'asterisk_prompts'"):
    corpora.load_corpus('asterisk_promts', 'train')
  with pytest.raises(
      corpora.CorpusError, match='prepare_data.py.*espeak_sentences.*=de'
  ):
    corpora.load_corpus('espeak_sentences', 'train', ('de',))
  with pytest.raises(corpora.CorpusError, match="no language 'xx'"):
    corpora.load_corpus('espeak_sentences', 'train', ('xx',))
  with pytest.raises(corpora.CorpusError, match="no split 'dev'"):
    corpora.load_corpus('espeak_sentences', 'dev', ('en',))


def test_texts_and_prompts_stay_in_one_split():
  texts = {f'p{i}': [f'sentence {i}'] for i in range(1000)}
  texts['a'], texts['b'], texts['c'] = (
      ['One, two!'],
      ['one two', 'tres'],
      ['Tres.'],
  )
  fractions = {'test': 0.2, 'validation': 0.1}
  assigned = splits.assign(texts, fractions)
  assert assigned['a'] == assigned['b'] == assigned['c']
  shares = {s: list(assigned.values()).count(s) / 1003 for s in splits.SPLITS}
  assert shares['test'] == pytest.approx(0.2, abs=0.03)
  assert shares['validation'] == pytest.approx(0.1, abs=0.03)
  # The order of the prompts does not matter.
  assert splits.assign(dict(reversed(texts.items())), fractions) == assigned


def test_folder_reports_bad_files_and_keeps_the_good(tmp_path, monkeypatch):
  monkeypatch.setenv('AUDIOLM_JAX_CACHE', str(tmp_path / 'cache'))
  root = tmp_path / 'mine'
  for i in range(3):
    files.write(root / f'train/good{i}.wav', _noise(i), RATE)
  files.write(root / 'test/stereo.flac', _noise(9, channels=2), RATE)
  (root / 'train/good0.txt').write_text('Hello  there\n')
  (root / 'train/text.wav').write_text('not audio')
  (root / 'train/empty.wav').touch()
  files.write(root / 'train/silent.wav', np.zeros((RATE, 1)), RATE)
  files.write(root / 'train/short.wav', _noise(5, 0.05), RATE)
  nan = np.where(np.arange(RATE)[:, None] == 7, np.nan, _noise(6, 1.0))
  soundfile.write(root / 'train/nan.wav', nan, RATE, subtype='FLOAT')
  (root / 'metadata.csv').write_text(
      'file,speaker,language\ntrain/good1.wav,ann,en\n'
  )
  (card,) = corpora.prepare(str(root))
  reasons = {r['id']: r['reason'] for r in card.rejected}
  assert reasons.keys() == {
      f'train/{x}.wav' for x in ('text', 'empty', 'silent', 'short', 'nan')
  }
  for name in ('silent', 'empty'):
    assert name in reasons[f'train/{name}.wav']
  assert 'not finite: 1 of' in reasons['train/nan.wav']
  assert 'text.wav' in str(card) and 'left out: 5' in str(card)
  corpus = corpora.load_corpus(str(root), 'train')
  clips = {corpus[i]['id']: corpus[i] for i in range(len(corpus))}
  assert clips['train/good0.wav']['text'] == 'Hello there'
  assert clips['train/good1.wav']['speaker'] == 'ann'
  np.testing.assert_allclose(
      clips['train/good2.wav']['audio'], _noise(2), atol=1 / 32768
  )
  stereo = corpora.load_corpus(str(root), 'test')[0]['audio']
  np.testing.assert_allclose(stereo, _noise(9, channels=2), atol=1 / 32768)
  # A changed folder is another corpus, and strict ends at the first bad file.
  (root / 'train/another.wav').write_text('bad too')
  with pytest.raises(corpora.CorpusError, match='not built'):
    corpora.load_corpus(str(root), 'train')
  with pytest.raises(building.RejectedClipError, match='another.wav'):
    corpora.prepare(str(root), strict=True)


def test_a_damaged_build_is_named(tmp_path, monkeypatch):
  monkeypatch.setenv('AUDIOLM_JAX_CACHE', str(tmp_path / 'cache'))
  for i in range(3):
    files.write(tmp_path / f'mine/{i}.wav', _noise(i), RATE)
  mine = str(tmp_path / 'mine')
  corpora.prepare(mine)
  corpus = corpora.load_corpus(mine, 'train')
  seconds = corpus.seconds()
  for content in ('', '[1', '[]', '[["x"]]'):
    corpus._index.write_text(content)
    np.testing.assert_array_equal(corpus.seconds(), seconds)
  (part,) = (tmp_path / 'cache/data').rglob('*train*array_record*')
  for content in (part.read_bytes()[:70000], b'', None):
    part.unlink() if content is None else part.write_bytes(content)
    with pytest.raises(
        corpora.CorpusError, match='folder/mine.*Remove .*1.0.0'
    ):
      corpora.load_corpus(mine, 'train')[0]


def test_asterisk_builder_on_synthetic_packages(tmp_path, monkeypatch):
  """The packages' layout with made-up prompts, in the manual folder."""
  monkeypatch.setenv('AUDIOLM_JAX_CACHE', str(tmp_path))
  monkeypatch.setenv('PATH', '')  # No apt-get, no dpkg-deb.
  with pytest.raises(debian.CorpusUnavailable, match='manual') as error:
    corpora.prepare('asterisk_prompts', ('en',))
  assert 'asterisk-core-sounds-en-g722' in str(error.value)
  prompts = {f'vm-{i}': f'Message {i}.' for i in range(40)}
  prompts |= {'beep': '[a tone]', 'letters/at': 'at [@]', 'is': 'is'}
  for language in asterisk_prompts.LANGUAGES:
    name = f'asterisk-core-sounds-{language}'
    folder = paths.manual_dir() / name / 'usr/share/doc' / name
    folder.mkdir(parents=True)
    with gzip.open(folder / f'core-sounds-{language}.txt.gz', 'wt') as lines:
      lines.write('; a comment\n\n')
      lines.writelines(f'{k}: {v}\n' for k, v in prompts.items())
  sounds = (
      paths.manual_dir()
      / 'asterisk-core-sounds-en-g722/usr/share/asterisk/sounds/en_US_f_Allison'
  )
  for i, prompt in enumerate([*prompts, 'silence/1', 'unlisted']):
    path = sounds / f'{prompt}.g722'
    path.parent.mkdir(parents=True, exist_ok=True)
    # Any bytes are valid G.722: two samples each.
    noise = np.random.default_rng(i).integers(0, 256, RATE // 4)
    path.write_bytes(noise.astype(np.uint8).tobytes())
  (sounds / 'is.g722').write_bytes(b'')
  (card,) = corpora.prepare('asterisk_prompts', ('en',))
  assert [r['id'] for r in card.rejected] == ['en/is']
  clips = {}
  for split in card.totals:
    corpus = corpora.load_corpus('asterisk_prompts', split, ('en',))
    clips |= {corpus[i]['id']: corpus[i] for i in range(len(corpus))}
  assert clips.keys() == {
      f'en/{p}' for p in [*prompts, 'unlisted'] if p not in ('beep', 'is')
  }
  assert clips['en/letters/at']['text'] == 'at'
  assert clips['en/unlisted']['text'] == ''
  assert len(clips['en/vm-1']['audio']) == RATE // 2


def test_real_prompts_keep_sentences_in_one_split(monkeypatch):
  """On the languages that are built in the user's cache, if any."""
  monkeypatch.delenv('AUDIOLM_JAX_CACHE', raising=False)
  where, texts = {}, {}  # Over all languages.
  for language in asterisk_prompts.LANGUAGES:
    try:
      (card,) = corpora.card('asterisk_prompts', (language,))
    except corpora.CorpusError:
      continue
    usable = 0
    for split in splits.SPLITS:
      corpus = corpora.load_corpus('asterisk_prompts', split, (language,))
      seconds = corpus.seconds()
      for i in range(len(corpus)):
        clip = corpus.factors(i)
        assert where.setdefault(clip['prompt_id'], split) == split
        text = splits.normalize(clip['text'])
        assert not text or texts.setdefault(text, split) == split
        usable += split == 'test' and bool(text) and seconds[i] >= 1
    total = sum(t['seconds'] for t in card.totals.values())
    assert card.totals['test']['seconds'] >= 0.1 * total
    assert usable >= (60 if language == 'en' else 45)


class Tone(tfds.features.Tensor):
  """Stands for TFDS's Audio feature, which needs TensorFlow."""

  sample_rate = 8000


class CatalogueTones(tfds.core.GeneratorBasedBuilder):
  """A data set as catalogues have them: its own names, no metadata of ours."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    features = {
        'speech': Tone(shape=(None,), dtype=np.int64),
        'text': tfds.features.Text(),
        'speaker_id': np.int32,
    }
    return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
    )

  def _split_generators(self, dl_manager):
    return {'dev': self._generate_examples()}

  def _generate_examples(self):
    for i in range(3):
      speech = np.arange(1000 * (i + 1)) - 500
      yield i, {'speech': speech, 'text': f'tone {i}', 'speaker_id': 7}


def test_catalogue_data_sets(tmp_path, monkeypatch):
  monkeypatch.setenv('AUDIOLM_JAX_CACHE', str(tmp_path))
  with pytest.raises(corpora.CorpusError, match='catalogue_tones.*not built'):
    corpora.load_corpus('catalogue_tones', 'dev')
  (card,) = corpora.prepare('catalogue_tones')
  assert card.totals['dev']['seconds'] == pytest.approx(6000 / 8000)
  corpus = corpora.load_corpus('catalogue_tones', 'dev')
  clips = {corpus[i]['text']: corpus[i] for i in range(len(corpus))}
  clip = clips['tone 2']
  np.testing.assert_array_equal(
      clip['audio'][:, 0] * 32768, np.arange(3000) - 500
  )
  assert clip['sample_rate'] == 8000 and clip['speaker'] == '7'
  assert clip['id'].startswith('dev/')


def test_building_and_reading_need_no_tensorflow(cache):
  corpora.load_corpus('espeak_sentences', 'train', ('en',))
  assert not any(name.split('.')[0] == 'tensorflow' for name in sys.modules)
