"""What single conditions become: vectors of the backbone's width."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.data import factors
from audiolm_jax.decoders import conditioners


def test_numbers_are_waves_of_their_place_in_the_range():
  source = factors.Number(1.0, 5.0)
  module = conditioners.Number(source=source, how='prefix', frequencies=3)
  given = source.prepare([1.0, 2.0, 5.0])
  inputs = given['values'], given['lengths'], 6, jnp.float32
  params = nn.meta.unbox(module.init(jax.random.key(0), *inputs))['params']
  # The vectors are the waves themselves.
  (path, leaf), *rest = jax.tree_util.tree_leaves_with_path(params['out'])
  assert leaf.shape == (6, 6) and not rest
  params['out'] = jax.tree_util.tree_map(lambda _: np.eye(6), params['out'])
  found = module.apply({'params': params}, *inputs)
  assert found.x.shape == (3, 1, 6), path
  radians = 1000 * np.array([1, 1e4 ** (-1 / 3), 1e4 ** (-2 / 3)])
  for row, place in enumerate((0, 0.25, 1)):
    waves = [*np.cos(place * radians), *np.sin(place * radians)]
    np.testing.assert_allclose(found.x[row, 0], waves, atol=1e-3)
  # A twentieth of a second of 512 is seen.
  source = factors.Number()
  module = conditioners.Number(source=source, how='film')
  inputs = source.prepare([30.0, 30.05]).values()
  inputs = *inputs, 4, jnp.float32
  params = module.init(jax.random.key(0), *inputs)
  one, other = np.asarray(module.apply(params, *inputs).x)[:, 0]
  assert np.abs(one - other).max() > 1e-3


def test_an_encoder_with_experts_is_refused():
  experts = {'kind': 'moe', 'experts': 2, 'hidden': 4}
  module = config.build(
      conditioners.Text,
      {'encoder': {'kind': 'stack', 'width': 8, 'layers': 1, 'mlp': experts}},
  )
  texts = factors.Text(length=5).prepare(['a'])
  with pytest.raises(ValueError, match='experts'):
    jax.eval_shape(
        lambda: module.init(
            jax.random.key(0), texts['values'], texts['lengths'], 8, jnp.float32
        )
    )
