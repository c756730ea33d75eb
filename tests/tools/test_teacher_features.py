"""Features of a teacher: of the clips themselves, or of others."""

import flax
import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax.audio import files
from audiolm_jax.data import corpora
from audiolm_jax.evaluation import speaking
from audiolm_jax.models import recogniser as recogniser_lib
from tests import tool_module
from tests.models import small_directories

teacher_features = tool_module.load('teacher_features')


@pytest.fixture(name='root')
def _root(tmp_path, monkeypatch):
  """Clips of other lengths, and two teachers of other weights."""
  monkeypatch.setenv('AUDIOLM_JAX_CACHE', str(tmp_path / 'cache'))
  rng = np.random.default_rng(0)
  for i in range(8):
    audio = rng.uniform(-0.3, 0.3, (4000 + 700 * i, 1))
    files.write(tmp_path / 'clips' / f'c{i}.wav', audio, 8000)
  corpora.prepare(str(tmp_path / 'clips'))
  for seed in range(2):
    module = recogniser_lib.Recogniser(symbols=('a', 'b'), width=8, blocks=1)
    variables = flax.core.meta.unbox(module.fresh(jax.random.key(seed)))
    path = tmp_path / f'teacher{seed}'
    small_directories.write(path, 'recogniser', module, variables)
  return tmp_path


def _run(root, *flags, out='out', teacher=0):
  """How many clips got features, and how many had."""
  return teacher_features.write(
      teacher_features._options(
          [
              f'--teacher={root}/teacher{teacher}',
              f'--corpus={root}/clips',
              f'--out={root / out}',
              *flags,
          ]
      )
  )


def _expected(root):
  """(id, how many frames, features) of the training clips, each alone."""
  teacher = speaking.load_judge(root / 'teacher0')
  corpus = data.load_corpus(str(root / 'clips'), 'train')
  found = []
  for clip in (corpus[i] for i in range(len(corpus))):
    audio = np.repeat(clip['audio'][:, 0], 2)
    frames = int(teacher.module.num_frames(np.int64(len(audio))))
    found.append((clip['id'], frames, clip))
  return found


def test_clips_have_the_states_of_what_is_heard_in_them(root):
  made = _run(root)
  expected = _expected(root)
  assert made == (len(expected), 0)
  teacher = speaking.load_judge(root / 'teacher0')
  for name, frames, clip in expected:
    values = np.load(root / 'out' / f'{name}.npy')
    assert values.shape == (frames, 8) and values.dtype == np.float16
    audio = teacher_features.resample.mono(clip['audio'], 8000, 16000)
    (alone,) = teacher.features([audio])
    np.testing.assert_allclose(values, alone, atol=0.02)
  # Nothing is left to do; what is lost is made again.
  (root / 'out' / f'{expected[0][0]}.npy').unlink()
  assert _run(root) == (1, len(expected) - 1)


def test_others_features_fill_a_clip(root):
  _run(root)
  _run(root, '--of_other_clips', out='others')
  found = _expected(root)
  for name, frames, _ in found:
    values = np.load(root / 'others' / f'{name}.npy')
    own = np.load(root / 'out' / f'{name}.npy')
    assert values.shape == own.shape == (frames, 8)
    sources = [
        other
        for other, _, _ in found
        if np.array_equal(
            values,
            np.resize(np.load(root / 'out' / f'{other}.npy'), values.shape),
        )
    ]
    assert len(sources) == 1 and sources != [name]


def test_a_folder_is_of_one_teacher_and_kind(root):
  _run(root)
  with pytest.raises(config.ConfigError, match='features of another teacher'):
    _run(root, teacher=1)
  with pytest.raises(config.ConfigError, match='of other clips'):
    _run(root, '--of_other_clips')
  with pytest.raises(corpora.CorpusError, match='valid'):
    _run(root, '--split=valid', out='new')
