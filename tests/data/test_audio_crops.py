"""Crops and whole clips of a corpus."""

import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax.audio import resample
from audiolm_jax.data import audio_crops
from audiolm_jax.data import corpora

RATE = 16000


def _settings(**options):
  defaults = {
      'corpus': 'espeak_sentences',
      'languages': ('en', 'fr'),
      'sample_rate': 22050,  # The corpus's own.
      'channels': 1,
      'feature_rate': 50.0,
  }
  return audio_crops.AudioCrops(**{**defaults, **options})


def test_config_builds_it(cache):
  settings = {'kind': 'audio', 'crop_seconds': 0.5}
  source = config.build_kind(data.SOURCES, settings)
  assert source == data.AudioCrops(crop_seconds=0.5)
  assert source.corpus == 'asterisk_prompts'
  with pytest.raises(config.ConfigError, match='level_db'):
    config.build(data.AudioCrops, {'level_db': 3.0})
  with pytest.raises(config.ConfigError, match='data.sample_rate = None'):
    source.open(batch_size=2, seed=0)
  # What is not built is a config error too: no traceback for the user.
  source = config.replace(source, {'sample_rate': RATE, 'channels': 1})
  with pytest.raises(config.ConfigError, match='prepare_data'):
    source.open(batch_size=2, seed=0)


def test_crops_are_pieces_of_their_clips(cache):
  settings = _settings(crop_seconds=0.5)
  corpus = corpora.load_corpus('espeak_sentences', 'train', ('en', 'fr'))
  batch = settings.open(batch_size=8, seed=0).next(None)
  assert batch['audio'].shape == (8, 11025, 1)
  assert (batch['num_samples'] == 11025).all()
  for row, index in zip(batch['audio'], batch['id'], strict=True):
    clip = corpus[int(index)]['audio'][:, 0]
    windows = np.lib.stride_tricks.sliding_window_view(clip, 64)
    (starts,) = np.nonzero((windows == row[:64, 0]).all(1))
    assert any(np.array_equal(clip[s : s + 11025], row[:, 0]) for s in starts)


def test_a_crop_starts_anywhere_from_the_start_to_the_end():
  clip = np.arange(12, dtype=np.float32)[:, None] / 12
  corpus = [{'audio': clip, 'sample_rate': 16_000, 'id': 'a'}]
  settings = _settings(sample_rate=16_000, crop_seconds=10 / 16_000)
  rng = np.random.default_rng(0)
  rows = [
      audio_crops.crop(settings, corpus, 0, rng)['audio'] for _ in range(40)
  ]
  starts = {round(12 * float(row[0, 0])) for row in rows}
  assert starts == {0, 1, 2}


def test_nothing_long_enough_is_said_with_the_key(cache):
  with pytest.raises(config.ConfigError, match='espeak.*min_seconds = 99'):
    _settings(min_seconds=99.0).open(batch_size=1, seed=0)


def test_short_clips_are_padded_and_too_short_ones_left_out(cache):
  corpus = corpora.load_corpus('espeak_sentences', 'train', ('en', 'fr'))
  seconds = corpus.seconds()
  bound = float(np.median(seconds))
  settings = _settings(crop_seconds=10.0, min_seconds=bound)
  source = settings.open(batch_size=8, seed=0)
  for _ in range(3):
    batch = source.next(None)
    assert (seconds[batch['id']] >= bound).all()
    for row, length, i in zip(
        batch['audio'], batch['num_samples'], batch['id'], strict=True
    ):
      np.testing.assert_array_equal(row[:length], corpus[int(i)]['audio'])
      assert not row[length:].any()


def test_resampled_crops_keep_length_and_content(cache):
  settings = _settings(sample_rate=RATE, crop_seconds=0.5, channels=2)
  batch = settings.open(batch_size=8, seed=0).next(None)
  assert batch['audio'].shape == (8, RATE // 2, 2)
  assert (batch['num_samples'] == RATE // 2).all()
  np.testing.assert_array_equal(batch['audio'][..., 0], batch['audio'][..., 1])


def test_cutting_before_resampling_is_resampling_before_cutting(cache):
  corpus = corpora.load_corpus('espeak_sentences', 'train', ('en',))

  class Start:  # 1764 samples at 22050 Hz are 1280 at 16 kHz.

    def integers(self, bound):
      assert bound > 1764
      return 1764

  settings = _settings(sample_rate=RATE, crop_seconds=0.5)
  row = audio_crops.crop(settings, corpus, 0, Start())
  whole = audio_crops.read(corpus, 0, RATE)[1280 : 1280 + RATE // 2]
  inner = slice(200, -200)  # The filter's ends see other neighbours.
  np.testing.assert_allclose(row['audio'][inner], whole[inner], atol=2e-3)


def test_features_are_cut_where_the_audio_is(cache, tmp_path):
  corpus = corpora.load_corpus('espeak_sentences', 'train', ('en',))
  rate = 22050
  for i in range(len(corpus)):
    clip = corpus[i]
    path = tmp_path / f"{clip['id']}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    # The first sample of every fiftieth of a second.
    starts = np.arange(0, len(clip['audio']), rate / 50).round().astype(int)
    starts = starts[starts < len(clip['audio'])]
    np.save(path, np.repeat(clip['audio'][starts], 3, axis=1))
  settings = _settings(
      languages=('en',), crop_seconds=0.2, features=str(tmp_path)
  )
  batch = settings.open(batch_size=6, seed=0).next(None)
  assert batch['teacher'].shape == (6, 10, 3)
  moved = 0
  for row, features in zip(batch['audio'], batch['teacher'], strict=True):
    np.testing.assert_array_equal(features[0], row[0].repeat(3))
    np.testing.assert_allclose(features[5], row[round(rate / 10)].repeat(3))
    moved += row[0, 0] != 0
  assert moved
  path = next(iter(tmp_path.rglob('*.npy')))
  for bad in (np.ones(3), np.full((999, 3), np.nan)):
    np.save(path, bad)
    with pytest.raises(corpora.CorpusError, match=path.name):
      for i in range(len(corpus)):
        audio_crops.crop(settings, corpus, i, np.random.default_rng(0))
  path.unlink()
  with pytest.raises(corpora.CorpusError, match='has no .*npy'):
    for i in range(len(corpus)):
      audio_crops.crop(settings, corpus, i, np.random.default_rng(0))


def test_levels(cache):
  quiet = _settings(level_db=-40.0, crop_seconds=10.0)
  batch = quiet.open(batch_size=8, seed=0).next(None)
  for row, length in zip(batch['audio'], batch['num_samples'], strict=True):
    assert resample.rms_db(row[:length]) == pytest.approx(-40, abs=0.01)
  plain = _settings().open(batch_size=8, seed=0).next(None)
  varied = _settings(gain_db=6.0).open(batch_size=8, seed=0).next(None)
  assert np.abs(varied['audio']).max() <= 1
  assert not np.array_equal(plain['audio'], varied['audio'])


def test_whole_clips_hold_every_clip_once(cache):
  corpus = corpora.load_corpus('espeak_sentences', 'train', ('en', 'fr'))
  seen = []
  shapes = set()
  for batch in audio_crops.whole_clips(
      corpus, sample_rate=RATE, bucket_seconds=(2.5, 3.0), batch_seconds=9
  ):
    shapes.add(batch['audio'].shape)
    for row, length, i in zip(
        batch['audio'], batch['num_samples'], batch['id'], strict=True
    ):
      assert not row[length:].any()
      if i < 0:
        assert length == 0
        continue
      np.testing.assert_array_equal(
          row[:length], audio_crops.read(corpus, int(i), RATE)
      )
      seen.append(int(i))
  assert sorted(seen) == list(range(len(corpus)))
  assert len(shapes) <= 3 and (3, int(2.5 * RATE), 1) in shapes
