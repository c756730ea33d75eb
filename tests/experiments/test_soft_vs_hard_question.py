"""The question of heads over samples: arms, and noise of known entropy."""

import numpy as np
import pytest
import scipy.stats

from audiolm_jax import data
from audiolm_jax.data import corpora
from audiolm_jax.decoders import waveform_heads
from audiolm_jax.lab import answering
from experiments import soft_vs_hard_tokens
from experiments.soft_vs_hard_tokens import noise


@pytest.mark.parametrize('budget', ['smoke', 'cpu'])
@pytest.mark.parametrize('variant', soft_vs_hard_tokens.VARIANTS)
def test_arms_differ_in_their_head(budget, variant):
  question = soft_vs_hard_tokens.question(budget, variant)
  planned = answering.plan(question)
  assert set(planned.tags.values()) == {'exact'}
  allowed = {'head'} if variant else {'head', 'inputs'}
  for lines in planned.differences.values():
    paths = {line.partition(': ')[0].split('.')[3] for line in lines}
    assert paths <= allowed
  grids = {arm.stage.config.objective.decoder.bits for arm in question.arms}
  assert len(grids) == 1


def test_entropies_are_those_of_the_densities():
  # log2 of deviation times a constant of the shape; cells are narrow.
  for kind, law in (
      ('gaussian', scipy.stats.norm(scale=1000)),
      ('laplace', scipy.stats.laplace(scale=1000 / np.sqrt(2))),
  ):
    p = noise.probabilities(kind, 16)
    assert p.shape == (65536,) and abs(p.sum() - 1) < 1e-12
    wanted = float(law.entropy()) / np.log(2)
    assert abs(noise.entropy(p) - wanted) < 1e-4
    levels = np.arange(-32768, 32768)
    assert abs(p @ levels) < 1e-6
    assert abs(np.sqrt(p @ levels**2) - 1000) < 0.1
  with pytest.raises(ValueError, match='no noise'):
    noise.probabilities('pink', 16)


def test_a_softmax_tells_apart_all_levels_of_the_noise_of_levels():
  p = noise.probabilities('levels', 8)
  assert (p > 0).sum() == 41 and abs(p.sum() - 1) < 1e-12
  classes = waveform_heads.mu_law_classes(8, 256)[p > 0]
  assert len(set(classes)) == 41
  counts = waveform_heads.MuLaw(256).counts(8)
  assert set(counts[classes]) == {1}


def test_clips_are_on_the_grid_as_often_as_they_should(tmp_path, monkeypatch):
  monkeypatch.setenv('AUDIOLM_JAX_CACHE', str(tmp_path / 'cache'))
  given = noise.write(tmp_path, {}, 'levels', 8, 12)
  p = noise.probabilities('levels', 8)
  assert given == {'metrics': {'entropy': noise.entropy(p)}}
  found = []
  for split in corpora.card(str(tmp_path / 'clips'))[0].totals:
    corpus = data.load_corpus(str(tmp_path / 'clips'), split)
    found += [corpus[i]['audio'][:, 0] for i in range(len(corpus))]
  levels = np.concatenate(found) * 128
  assert len(found) == 12 and np.array_equal(levels, np.round(levels))
  counts = np.bincount(levels.astype(int) + 128, minlength=256)
  assert abs(counts / counts.sum() - p).max() < 0.005
