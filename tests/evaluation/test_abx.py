"""ABX: DTW against all paths, errors against their definition, folder sets."""

import itertools

import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import evaluation
from audiolm_jax.audio import files
from audiolm_jax.data.speech_world import phones as phones_lib
from audiolm_jax.evaluation import abx
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import benchmarks
from audiolm_jax.evaluation import discrimination
from audiolm_jax.evaluation import labels as labels_lib
from audiolm_jax.evaluation import representations
from tests.evaluation import worlds


def _paths(n, m):
  """All warping paths of an n by m matrix, by brute force."""
  if (n, m) == (1, 1):
    yield [(0, 0)]
    return
  for dn, dm in ((1, 1), (0, 1), (1, 0)):
    if n > dn and m > dm:
      for path in _paths(n - dn, m - dm):
        yield [*path, (n - 1, m - 1)]


def test_dtw_is_the_mean_along_the_cheapest_of_all_paths():
  rng = np.random.default_rng(0)
  sizes = list(itertools.product((1, 2, 4), (1, 3, 4)))
  costs = np.full((len(sizes), 4, 4), 99.0)
  expected = []
  for k, (n, m) in enumerate(sizes):
    costs[k, :n, :m] = rng.random((n, m))
    best = min(_paths(n, m), key=lambda p, k=k: sum(costs[k][at] for at in p))
    expected.append(np.mean([costs[k][at] for at in best]))
  got = abx.dtw(costs, *zip(*sizes, strict=True))
  np.testing.assert_allclose(got, expected)
  # Of equal paths the diagonal one is taken: 2 steps of cost 1,
  # not 3 whose mean is 2 / 3.
  flat = abx.dtw(np.array([[[1.0, 0.0], [0.0, 1.0]]]), [2], [2])
  assert flat[0] == 1


def test_distances_are_angles_and_differences():
  x = np.array([[1.0, 0], [0, 0]])
  y = np.array([[0, 2.0], [-3, 0], [5, 0], [0, 0]])
  expected = [[0.5, 1, 0, 0.5], [0.5, 0.5, 0.5, 0]]
  np.testing.assert_allclose(abx.frame_distances(x, y), expected, atol=1e-12)
  codes = abx.frame_distances(np.array([[1, 2]]), np.array([[1, 3], [1, 2]]))
  np.testing.assert_array_equal(codes, [[0.5, 0]])
  frames = np.arange(50)[:, None].astype(float)
  item = abx.Item('f', 0.1, 0.2, 'a', ('x', 'y'), 's')
  # ceil(5 - .5) to floor(10 - .5), not included.
  assert abx.cut(frames, 50.0, item)[:, 0].tolist() == [5, 6, 7, 8]


def test_ties_count_half_and_no_item_is_compared_with_itself():
  to_a = np.array([[0.0, 0.2], [0.2, 0.0]])
  to_b = np.array([[0.2, 0.3], [0.1, 0.1]])
  # X 0: A 1 is .2: ties with .2, right with .3. X 1: wrong twice.
  assert abx.error(to_a, to_b, same=True) == pytest.approx(2.5 / 4)
  # With the zeros, which are right each time.
  assert abx.error(to_a, to_b) == pytest.approx(2.5 / 8)


def _items(phones, speakers, each, context=('x', 'y')):
  return [
      abx.Item('f', 0, 1, p, context, s)
      for p in phones
      for s in speakers
      for _ in range(each)
  ]


@pytest.mark.parametrize('mode', ['within', 'across'])
def test_one_hot_phones_have_no_error_and_constants_have_half(mode):
  items = _items('abc', ('s', 't'), 3)
  hot = [np.eye(3)[['abc'.index(i.phone)] * 2] for i in items]
  errors = abx.errors(items, hot, mode)
  assert errors == {('a', 'b'): 0, ('a', 'c'): 0, ('b', 'c'): 0}
  codes = [np.array([['abc'.index(i.phone)]] * 3) for i in items]
  assert set(abx.errors(items, codes, mode).values()) == {0.0}
  same = [np.ones((2, 4)) for _ in items]
  assert set(abx.errors(items, same, mode).values()) == {0.5}


def test_speakers_confuse_across_and_not_within():
  items = _items('ab', ('s', 't'), 2)
  swapped = {('a', 's'): 0, ('b', 's'): 1, ('a', 't'): 1, ('b', 't'): 0}
  frames = [np.eye(2)[[swapped[i.phone, i.speaker]]] for i in items]
  assert abx.errors(items, frames, 'within') == {('a', 'b'): 0.0}
  assert abx.errors(items, frames, 'across') == {('a', 'b'): 1.0}
  # Other contexts are not compared, nor one phone with nothing.
  apart = [i._replace(context=(i.phone, 'y')) for i in items]
  assert abx.errors(apart, frames, 'within') == {}


def test_contexts_then_speakers_are_averaged():
  def items(speaker, context, bad):
    own = _items('ab', (speaker,), 2, (context, 'y'))
    frames = [np.eye(3)[['ab'.index(i.phone)]] for i in own]
    return own, [np.ones((1, 3)) for _ in own] if bad else frames

  found = [
      items('s', 'x', False),
      items('s', 'z', True),
      items('s', 'w', True),
      items('t', 'x', False),
  ]
  names, frames = ([v for part in found for v in part[k]] for k in (0, 1))
  # s: (0 + .5 + .5) / 3, t: 0; not the mean of four.
  (error,) = abx.errors(names, frames, 'within').values()
  assert error == pytest.approx(1 / 6)
  few = abx.errors(names, frames, 'within', most=2)
  assert few == abx.errors(names, frames, 'within')


class _Phones(representations.Encoder):
  """One-hot phones of speech_world's clips at 100 Hz."""

  def __init__(self, clips):
    self._clips = {c['audio'].tobytes(): c for c in clips}

  def __call__(self, variables, clips):
    found = []
    for audio, _ in clips:
      world = labels_lib.known(self._clips[audio.tobytes()])['world']
      times = (np.arange(round(len(audio) / 160)) + 0.5) / 100
      names, _ = labels_lib._phones(world, times)
      ids = [phones_lib.PHONES.index(n) for n in names]
      found.append(representations.Frames(np.array(ids)[:, None], 100.0, (99,)))
    return found


def test_phones_of_the_world_are_told_apart_by_themselves(monkeypatch):
  clips = worlds.clips(60)
  monkeypatch.setattr(data, 'load_corpus', lambda *_: clips)
  settings = evaluation.Abx()
  evaluator = settings.build(None)
  evaluator._encoder = _Phones(clips)
  means = evaluation_base.summarize(evaluator.run({}))
  assert means['abx_across'] < 0.02
  mels = evaluation_base.summarize(settings.build(None).run({}))
  print(mels)
  assert means['abx_across'] < mels['abx_across'] < 0.4
  first = discrimination.world_items('x', labels_lib.known(clips[0]))[0]
  world = labels_lib.known(clips[0])['world']
  (before, start, _), (phone, _, _), (after, _, end) = world['phones'][:3]
  assert first == abx.Item(
      'x', start, end, phone, (before, after), clips[0]['speaker']
  )


def test_an_item_file_and_its_folder_are_read(tmp_path):
  """Pure tones as phones: told apart within and across files."""
  lines = ['#file onset offset #phone prev-phone next-phone speaker']
  (tmp_path / 'dev' / 'sub').mkdir(parents=True)
  for s, speaker in enumerate(('84', '116')):
    t = np.arange(4000) / 16000
    tones = [np.sin(2 * np.pi * f * t) for f in (500, 2000, 510, 2010)]
    audio = 0.3 * np.concatenate(tones)[:, None].astype(np.float32)
    name = f'{speaker}-0001'
    folder = tmp_path / 'dev' / ('sub' if s else '')
    files.write(folder / f'{name}.{"flac" if s else "wav"}', audio, 16000)
    for i, phone in enumerate('abab'):
      lines.append(f'{name} {i / 4} {(i + 1) / 4} {phone} x y {speaker}')
  path = tmp_path / 'dev.item'
  path.write_text('\n'.join(lines) + '\n')
  scores = list(evaluation.Abx(items=str(path)).build(None).run({}))
  assert {(s.name, s.item) for s in scores} == {
      ('abx_within', 'a b'),
      ('abx_across', 'a b'),
  }
  assert all(s.sum == 0 for s in scores)
  path.write_text('\n'.join([*lines, '84-0001 0.1 x a x y 84']))
  with pytest.raises(benchmarks.BenchmarkError, match='line 10'):
    evaluation.Abx(items=str(path)).build(None)
  path.write_text('\n'.join([lines[0], 'gone 0 1 a x y 84']))
  with pytest.raises(benchmarks.BenchmarkError, match='no gone.wav'):
    evaluation.Abx(items=str(path)).build(None)
  path.write_text('\n'.join(lines[:2]))
  with pytest.raises(config.ConfigError, match='no triple'):
    list(evaluation.Abx(items=str(path)).build(None).run({}))
