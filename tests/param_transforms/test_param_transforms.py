"""param_transforms: the seam's invariants for each of its members."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax import param_transforms
from audiolm_jax.param_transforms import base as param_transforms_base

PARAMS = {
    'embed': {'table': jnp.ones((7, 4))},
    'layers': {
        'w': jnp.arange(24.0).reshape(2, 3, 4),
        'scale': jnp.ones((2, 4)),
    },
    'conv': {'kernel': jnp.ones((5, 3, 4))},
}
AXES = {
    'embed': {'table': ('vocab', 'embed')},
    'layers': {'w': ('layers', 'embed', 'mlp'), 'scale': ('layers', 'embed')},
    'conv': {'kernel': (None, 'channels_in', 'channels_out')},
}


def _leaves(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    'transform',
    [
        param_transforms.Full(),
        param_transforms.Frozen(('embed', r'^conv/')),
        param_transforms.Lora(rank=2),
        param_transforms.Lora(rank=2, targets=('layers/w',), train=('scale',)),
    ],
)
def test_merge_inverts_split_and_nothing_stands_in_both(transform):
  params = transform.init(jax.random.key(0), PARAMS, AXES)
  trainable, frozen = transform.split(params)
  assert _leaves(trainable) + _leaves(frozen) == _leaves(params)
  merged = transform.merge(trainable, frozen)
  assert jax.tree.structure(merged) == jax.tree.structure(params)
  jax.tree.map(np.testing.assert_array_equal, merged, params)


def test_frozen_splits_by_path():
  transform = param_transforms.Frozen(('embed', r'^conv/'))
  trainable, frozen = transform.split(PARAMS)
  assert trainable['embed']['table'] is None
  assert frozen['embed']['table'] is not None
  assert set(param_transforms_base.paths(trainable)) == {
      'layers/w',
      'layers/scale',
  }


def test_lora_trains_the_factors_only_and_starts_at_the_base():
  transform = param_transforms.Lora(rank=2, alpha=6.0)
  params = transform.init(jax.random.key(0), PARAMS, AXES)
  trainable, frozen = transform.split(params)
  # Stacks of matrices get one pair of factors a layer, vectors none.
  assert params['layers']['w'].a.shape == (2, 3, 2)
  assert params['layers']['w'].b.shape == (2, 2, 4)
  assert params['conv']['kernel'].a.shape == (5, 3, 2)
  assert params['conv']['kernel'].b.shape == (2, 4)
  assert params['layers']['w'].scale == 3.0
  assert trainable['layers']['scale'] is None
  assert trainable['layers']['w'].w is None
  assert frozen['layers']['w'].a is None
  assert _leaves(trainable) == (14 + 8) + (12 + 16) + (30 + 8)
  merged = param_transforms.merge_update(params)
  jax.tree.map(np.testing.assert_array_equal, merged, PARAMS)
  # a must not be zero too, or no gradient would ever flow.
  assert float(jnp.abs(params['conv']['kernel'].a).min()) > 0


def test_merge_update_adds_the_product():
  transform = param_transforms.Lora(rank=2, alpha=2.0, targets=('embed',))
  params = transform.init(jax.random.key(0), PARAMS, AXES)
  leaf = params['embed']['table']
  params['embed']['table'] = leaf.replace(b=jnp.ones_like(leaf.b))
  merged = param_transforms.merge_update(params)['embed']['table']
  np.testing.assert_allclose(
      merged, 1 + np.asarray(leaf.a).sum(-1, keepdims=True).repeat(4, -1), 1e-5
  )


def test_lora_axes_match_its_leaves():
  transform = param_transforms.Lora(rank=2, train=('embed',))
  params = transform.init(jax.random.key(0), PARAMS, AXES)
  axes = transform.axes(AXES)
  flat, treedef = jax.tree.flatten(axes, is_leaf=lambda x: isinstance(x, tuple))
  assert treedef == jax.tree.structure(params)
  for names, leaf in zip(flat, jax.tree.leaves(params), strict=True):
    assert len(names) == leaf.ndim
  assert axes['layers']['w'].a == ('layers', 'embed', None)
  assert axes['layers']['w'].b == ('layers', None, 'mlp')
  assert not isinstance(params['embed']['table'], ops.LoraTensor)


@pytest.mark.parametrize(
    'make, words',
    [
        (lambda: param_transforms.Frozen(('lyaers',)), 'lyaers'),
        (lambda: param_transforms.Lora(targets=('scale',)), 'vectors only'),
        (lambda: param_transforms.Lora(targets=('(',)), 'regular expression'),
        (lambda: param_transforms.Lora(train=('nothing',)), 'nothing'),
    ],
)
def test_a_pattern_that_cannot_be_meant_is_refused(make, words):
  transform = make()
  with pytest.raises(ValueError, match=words):
    params = transform.init(jax.random.key(0), PARAMS, AXES)
    transform.split(params)


def test_lora_over_packed_weights():
  packed = {**PARAMS, 'conv': {'kernel': ops.pack(PARAMS['conv']['kernel'])}}
  transform = param_transforms.Lora(rank=2, targets=('conv',))
  params = transform.init(jax.random.key(0), packed, AXES)
  trainable, frozen = transform.split(params)
  assert isinstance(frozen['conv']['kernel'].w, ops.PackedTensor)
  assert _leaves(trainable) == 30 + 8
  merged = transform.merge(trainable, frozen)
  assert isinstance(merged['conv']['kernel'].w, ops.PackedTensor)
  gradient = jax.grad(
      lambda t: jnp.sum(
          ops.conv(
              jnp.ones((1, 9, 3)), transform.merge(t, frozen)['conv']['kernel']
          )
      )
  )(trainable)
  assert float(jnp.abs(gradient['conv']['kernel'].b).max()) > 0


def test_two_arms_differ_in_three_lines():
  full = {'kind': 'full'}
  lora = {'kind': 'lora', 'rank': 4, 'alpha': 8.0}
  assert config.build_kind(param_transforms.TRANSFORMS, full) == (
      param_transforms.Full()
  )
  assert config.build_kind(param_transforms.TRANSFORMS, lora) == (
      param_transforms.Lora(rank=4, alpha=8.0)
  )
