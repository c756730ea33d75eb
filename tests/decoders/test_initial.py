"""Starting an LM from a codec's vectors."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax.data import token_cache
from audiolm_jax.data import token_crops
from audiolm_jax.decoders import initial
from audiolm_jax.objectives import likelihood

CODEBOOKS = np.random.default_rng(0).normal(size=(3, 7, 4)) * [
    [[4.0]],
    [[2.0]],
    [[1.0]],
]


@pytest.mark.parametrize('width', [4, 16])
def test_geometry_is_kept_up_to_one_scale(width):
  values = initial.from_codebooks(CODEBOOKS, width)
  table = values['embedding']['table']
  assert table.shape == (3 * 7 + 3, width)
  np.testing.assert_array_equal(table[-3:], 0)
  vectors = CODEBOOKS.reshape(21, 4) / np.sqrt(np.mean(CODEBOOKS[0] ** 2))
  np.testing.assert_allclose(
      table[:21] @ table[:21].T, vectors @ vectors.T, rtol=1e-4, atol=1e-5
  )
  # Each slot's classifier has its codebook's directions, at one scale.
  kernel = values['head']['kernel']
  assert kernel.shape == (3, width, 7)
  np.testing.assert_allclose(
      np.sqrt(np.sum(kernel**2, axis=(1, 2)) / 28), 0.1, rtol=1e-5
  )
  inner = table[:7] @ kernel[0]
  assert (inner.argmax(axis=1) == (vectors[:7] @ vectors[:7].T).argmax(1)).all()


def test_a_wide_codebook_is_projected_to_a_narrow_model():
  assert initial.from_codebooks(CODEBOOKS, 2)['head']['kernel'].shape == (
      3,
      2,
      7,
  )


@pytest.fixture(name='settings')
def _settings(tmp_path):
  token_cache.write_codebooks(tmp_path, CODEBOOKS)
  decoder = {
      'kind': 'tokens',
      'vocabularies': (7, 7),
      'backbone': {'kind': 'stack', 'width': 8, 'layers': 1},
  }
  objective = config.build(
      likelihood.NLL,
      {
          'decoder': decoder,
          'init_embeddings': True,
      },
  )
  return assembly_lib.Config(
      objective=objective,
      data=token_crops.TokenCrops(cache=str(tmp_path), frames=4),
      models={'lm': assembly_lib.ModelTraining()},
  )


def test_a_run_starts_from_the_first_codebooks_of_its_cache(settings):
  state = assembly_lib.Assembly(settings).create()
  found = state.trainable['lm']
  # A cache holds them in single precision.
  want = initial.from_codebooks(CODEBOOKS[:2].astype(np.float32), 8)
  np.testing.assert_array_equal(
      found['embedding']['table'], want['embedding']['table']
  )
  np.testing.assert_array_equal(found['head']['kernel'], want['head']['kernel'])
  # What it does not set is what it would have been.
  fresh = nn.meta.unbox(
      jax.jit(settings.objective.init)(jax.random.key(settings.seed))
  )['lm']['params']
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
      found['backbone'],
      fresh['backbone'],
  )


def test_data_without_a_cache_has_no_vectors_to_start_from(settings):
  with pytest.raises(config.ConfigError, match='AudioCrops, has no token'):
    settings.objective.initial_values(data.AudioCrops())


def test_codebooks_that_do_not_fit_are_refused(settings, tmp_path):
  token_cache.write_codebooks(tmp_path, CODEBOOKS[:1])
  with pytest.raises(config.ConfigError, match='1 codebooks of 7'):
    assembly_lib.Assembly(settings).create()
  (path,) = tmp_path.glob('codebooks-*')
  path.unlink()
  with pytest.raises(config.ConfigError, match='holds no codebooks'):
    assembly_lib.Assembly(settings).create()
