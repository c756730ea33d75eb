"""What clips of a token cache tell: texts, names, prompts, vectors."""

import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.data import clip_conditions
from audiolm_jax.data import factors
from audiolm_jax.data import token_cache
from audiolm_jax.data import token_crops
from audiolm_jax.data.speech_world import clips as clips_lib
from tests.data import made_caches

# Text, language, speaker, frames.
CLIPS = [
    ('no', 'it', 'ada', 5),
    ('', 'fr', 'bob', 9),
    ('long text', '', 'ada', 2),
    ('x', 'en', 'ada', 7),
    ('y', 'en', '', 4),
    ('z', 'en', '', 4),
]
SLOTS = (50, 60, 70)
WANTED = {
    'text': factors.Text(length=4),
    'language': factors.Name(('en', 'it')),
}
PROMPT = {'prompt': factors.Codes(SLOTS[:2], length=4)}


@pytest.fixture(scope='module', name='directory')
def _directory(tmp_path_factory):
  """A cache whose codes count up: (clip, its frame, 69)."""
  directory = tmp_path_factory.mktemp('clips') / 'cache'
  identity = made_caches.identity(tuple(SLOTS), {'train': len(CLIPS)})
  writer = token_cache.Writer(directory, identity)
  ((split, part, _),) = writer.missing()
  examples = []
  for i, (text, language, speaker, frames) in enumerate(CLIPS):
    codes = np.stack(
        [np.full(frames, i), np.arange(frames), np.full(frames, 69)], 1
    )
    known = {
        'id': f'c{i}',
        'text': text,
        'language': language,
        'speaker': speaker,
    }
    # What is not known may also be missing.
    known = {
        key: value for key, value in known.items() if value or key == 'text'
    }
    examples.append(made_caches.example(codes.astype(np.int32), known))
  writer.write(split, part, examples)
  assert writer.finish()
  return directory


@pytest.fixture(scope='module', name='cache')
def _cache(directory):
  return token_cache.TokenCache(directory, 'train')


def test_texts_and_names_are_the_clips(cache):
  batch = clip_conditions.ConditionSampler(WANTED, cache)([0, 1, 2, -1])
  # A text that is cut, and one that is none; a name that is not in the table.
  np.testing.assert_array_equal(batch['conditions/text/lengths'], [3, 0, 4, 0])
  np.testing.assert_array_equal(
      batch['conditions/language/lengths'], [1, 0, 0, 0]
  )
  assert batch['conditions/language/values'][0, 0] == 1
  assert not clip_conditions.ConditionSampler({}, cache)([0, 1])


def test_a_prompt_is_the_same_speaker_elsewhere(cache):
  condition_sampler = clip_conditions.ConditionSampler(PROMPT, cache)
  rng = np.random.default_rng(0)
  seen = set()
  for _ in range(100):
    told = condition_sampler([0, 1, 4, -1], rng)
    values = told['conditions/prompt/values']
    num_frames = told['conditions/prompt/lengths']
    assert values.shape == (4, 4, 2)
    # One clip of Bob's, two of nobody's, and no clip: none has a prompt.
    np.testing.assert_array_equal(num_frames[1:], 0)
    clip, start = values[0, 0]
    frames = CLIPS[clip][3]
    assert clip in (2, 3) and num_frames[0] == min(frames, 4)
    row = values[0, : num_frames[0]]
    np.testing.assert_array_equal(row[:, 0], clip)
    np.testing.assert_array_equal(row[:, 1], start + np.arange(num_frames[0]))
    assert not values[0, num_frames[0] :].any()
    seen.add((int(clip), int(start)))
  assert seen == {(2, 0), (3, 0), (3, 1), (3, 2), (3, 3)}


def test_without_a_generator_a_clip_always_has_the_same_prompt(cache):
  condition_sampler = clip_conditions.ConditionSampler(PROMPT, cache)
  both, alone = condition_sampler([0, 3]), condition_sampler([3])
  for key, value in alone.items():
    np.testing.assert_array_equal(both[key][1:], value)


def test_vectors_are_read_from_a_folder(cache, tmp_path):
  voice = {'voice': factors.Vector(2)}
  np.save(tmp_path / 'c3.npy', np.array([1.0, -2.0]))
  condition_sampler = clip_conditions.ConditionSampler(voice, cache, tmp_path)
  told = condition_sampler([3, -1])
  np.testing.assert_array_equal(
      told['conditions/voice/values'], [[[1, -2]], [[0, 0]]]
  )
  np.testing.assert_array_equal(told['conditions/voice/lengths'], [1, 0])
  with pytest.raises(config.ConfigError, match='no c0.npy'):
    condition_sampler([0])
  for bad in (np.ones(3), np.array(['x']), np.array([np.nan, 0]), b'', b'PK'):
    path = tmp_path / 'c0.npy'
    path.write_bytes(bad) if isinstance(bad, bytes) else np.save(path, bad)
    with pytest.raises(config.ConfigError, match='c0.npy'):
      condition_sampler([0])
  with pytest.raises(config.ConfigError, match="'voice' is a vector"):
    clip_conditions.ConditionSampler(voice, cache)


def test_seconds_are_those_of_the_clip_and_of_the_crop(directory, cache):
  """50 frames a second; codes say which frames a crop has."""
  total = {'seconds_total': factors.Number(0.0, 0.15)}
  wanted = {'seconds_start': factors.Number(), **total}
  told = clip_conditions.ConditionSampler(wanted, cache)([0, 1, -1])
  # Of clips, those that are evaluated, all begins at 0; what is long counts as
  # the longest.
  for name, values in (('start', [0, 0, 0]), ('total', [0.1, 0.15, 0])):
    key = f'conditions/seconds_{name}'
    np.testing.assert_allclose(told[f'{key}/values'][:, 0], values, rtol=1e-6)
    np.testing.assert_array_equal(told[f'{key}/lengths'], [1, 1, 0])
  settings = token_crops.TokenCrops(
      cache=str(directory), frames=2, conditions=wanted
  )
  source = settings.open(batch_size=8, seed=0)
  batches = [source.next(None) for _ in range(3)]
  source.close()
  starts = set()
  for batch in batches:
    frames = np.array([CLIPS[i][3] for i in batch['id']])
    start = batch['codes'][:, 0, 1]
    starts.update(start.tolist())
    for name, values in (
        ('start', start / 50),
        ('total', np.minimum(frames / 50, 0.15)),
    ):
      values_of = batch[f'conditions/seconds_{name}/values'][:, 0]
      np.testing.assert_allclose(values_of, values, rtol=1e-6)
  assert len(starts) > 3
  with pytest.raises(config.ConfigError, match="'tempo' is a number.*seconds_"):
    clip_conditions.ConditionSampler({'tempo': factors.Number()}, cache)


def test_what_is_aligned_begins_where_a_crop_does(tmp_path):
  """50 frames a second; a clip of which nothing is stored has nothing."""
  stored = clips_lib.to_json(clips_lib.clip(clips_lib.World('digits', 'lm'), 0))
  frames = 60
  codes = np.arange(frames, dtype=np.int32)[:, None]
  clips = [{'id': 'a', 'factors': stored}, {'id': 'b'}]
  identity = made_caches.identity((frames,), {'train': len(clips)})
  made_caches.write(
      tmp_path, identity, lambda _, i: made_caches.example(codes, clips[i])
  )
  wanted = {'said': factors.Aligned(length=60)}
  whole = wanted['said'].of(stored, 50.0, 0, frames)
  assert len(np.unique(whole[:, 0])) > 3
  cache = token_cache.TokenCache(tmp_path, 'train')
  told = clip_conditions.ConditionSampler(wanted, cache)([0, 1, -1])
  np.testing.assert_array_equal(
      told['conditions/said/values'][0, :frames], whole
  )
  np.testing.assert_array_equal(told['conditions/said/lengths'], [frames, 0, 0])
  settings = token_crops.TokenCrops(
      cache=str(tmp_path), frames=20, conditions=wanted
  )
  source = settings.open(batch_size=8, seed=0)
  batch = source.next(None)
  source.close()
  for row, clip in enumerate(batch['id']):
    start = batch['codes'][row, 0, 0]
    length = batch['conditions/said/lengths'][row]
    assert length == (20 if clip == 0 else 0)
    np.testing.assert_array_equal(
        batch['conditions/said/values'][row, :length],
        whole[start : start + length],
    )
  short = {'said': factors.Aligned(length=59)}
  sampler = clip_conditions.ConditionSampler(short, cache)
  with pytest.raises(config.ConfigError, match="'said' tells of 59.* has 60"):
    sampler([0])
  assert sampler([0], frames=59)['conditions/said/lengths'] == 59


def test_prompts_of_another_tokenizer_are_refused(cache):
  other = {'prompt': factors.Codes((50, 50))}
  with pytest.raises(
      config.ConfigError, match=r'\(50, 50\), but .*\(50, 60, 70'
  ):
    clip_conditions.ConditionSampler(other, cache)


def test_speakers_are_known_without_reading_clips(cache):
  expected = [speaker for _, _, speaker, _ in CLIPS]
  np.testing.assert_array_equal(cache.speakers, expected)


def test_crops_tell_of_their_clips(directory, cache):
  """And draw the same prompts again after a restart."""
  wanted = {**WANTED, **PROMPT}
  settings = token_crops.TokenCrops(
      cache=str(directory), frames=2, codebooks=1, conditions=wanted
  )
  source = settings.open(batch_size=8, seed=0)
  batch = source.next(None)
  state = source.get_state()
  later = source.next(None)
  source.close()
  assert batch['conditions/text/values'].shape == (8, 4)
  expected = clip_conditions.ConditionSampler(WANTED, cache)(batch['id'])
  for key, value in expected.items():
    np.testing.assert_array_equal(batch[key], value)
    assert batch[key].dtype == value.dtype
  num_frames = batch['conditions/prompt/lengths']
  for row, clip in enumerate(batch['id']):
    assert bool(num_frames[row]) == (CLIPS[clip][2] == 'ada')
    if num_frames[row]:
      assert batch['conditions/prompt/values'][row, 0, 0] != clip
  again = settings.open(batch_size=8, seed=0)
  again.set_state(state)
  resumed = again.next(None)
  again.close()
  for key, value in later.items():
    np.testing.assert_array_equal(resumed[key], value)
