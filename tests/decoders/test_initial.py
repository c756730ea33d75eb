"""Starting an LM from a codec's vectors."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.data import token_cache
from audiolm_jax.data import token_crops
from audiolm_jax.decoders import heads
from audiolm_jax.decoders import initial
from audiolm_jax.objectives import likelihood

CODEBOOKS = np.random.default_rng(0).normal(size=(3, 7, 4)) * [
    [[4.0]],
    [[2.0]],
    [[1.0]],
]


_LAYOUT = heads.StepLayout((7,) * 3, ((0,), (1,), (2,)))


def _values(codebooks, width, head=None, layout=_LAYOUT):
  head = head or heads.Independent()
  return initial.from_codebooks(codebooks, width, head, layout)


@pytest.mark.parametrize('width', [4, 16])
def test_geometry_is_kept_up_to_one_scale(width):
  values = _values(CODEBOOKS, width)
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
  assert _values(CODEBOOKS, 2)['head']['kernel'].shape == (3, 2, 7)


@pytest.mark.parametrize('per_place', [False, True])
@pytest.mark.parametrize('condition', ['every', 'first'])
@pytest.mark.parametrize('first', ['depth', 'backbone'])
def test_a_depth_head_starts_from_the_vectors_too(first, condition, per_place):
  inner = stack_lib.Stack(width=8, layers=1, scan=False)
  head = heads.Depth(inner, per_place, condition, first)
  values = _values(CODEBOOKS, 16, head)
  fresh = jax.eval_shape(
      lambda rng: head.init(
          rng,
          jnp.zeros((1, 1, 16)),
          jnp.zeros((1, 1, 3), jnp.int32),
          jnp.ones((1, 1, 3), bool),
          np.arange(3)[None],
          _LAYOUT,
          method='logits',
      ),
      jax.random.key(0),
  )
  shapes = nn.meta.unbox(fresh['params'])
  shapes = {
      name: jax.tree.map(np.shape, leaf)
      for name, leaf in shapes.items()
      if name in values['head']
  }
  assert shapes == jax.tree.map(np.shape, values['head'])
  assert ('first' in shapes) == (first == 'backbone')
  # What the backbone says of a frame's vectors, the transformer's embeddings
  # say of them too.
  outer, within = values['embedding']['table'], values['head']['embedding']
  project = values['head']['project'].reshape(-1, 16, 8)
  for each in project:
    np.testing.assert_allclose(outer @ each, within['table'], atol=1e-5)
  kernel = values['head']['kernel'][-1]
  scores = within['table'][14:21] @ kernel
  gram = CODEBOOKS[2] @ CODEBOOKS[2].T
  np.testing.assert_allclose(
      scores / scores[0, 0], gram / gram[0, 0], rtol=1e-4, atol=1e-5
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
  layout = settings.objective.decoder.step_layout
  want = _values(CODEBOOKS[:2].astype(np.float32), 8, layout=layout)
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
