"""Compares losses and gradients of objectives on one device and on four.

python run_objectives.py DATA FSDP TENSOR

Prints for each objective the relative difference of every term and of all
gradients, and the share of its parameters that a device holds.
"""

import json
import os
import pathlib
import sys

os.environ['JAX_PLATFORMS'] = 'cpu'
# As in run_toy.
os.environ['NPROC'] = '32'
sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import flax.linen as nn  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402

from audiolm_jax import config  # noqa: E402
from audiolm_jax.training import mesh as mesh_lib  # noqa: E402
from tests import test_every_model  # noqa: E402

NAMES = (
    'denoising',
    'distillation',
    'latents of a diffusion',
    'latents of a flow map',
    'latents of a mixture',
    'masked lm',
)


def main(data, fsdp, tensor):
  jax.config.update('jax_num_cpu_devices', 4)
  jax.config.update('jax_cpu_enable_async_dispatch', False)
  one = mesh_lib.over(np.array(jax.devices()[:1]).reshape(1, 1, 1))
  many = mesh_lib.Config(int(data), int(fsdp), int(tensor)).build()
  found = {}
  for name in NAMES:
    made = test_every_model.SMALL[name]()
    objective = config.build(type(made), made)
    (terms, grads, _), (others, theirs, share) = (
        _computed(objective, mesh) for mesh in (one, many)
    )
    found[name] = {
        'terms': [_apart(terms[k], others[k]) for k in terms],
        'gradients': _apart(grads, theirs),
        'share': share,
    }
  print('RESULT ' + json.dumps(found))


def _computed(objective, mesh):
  """(terms, all gradients in one vector, share of the parameters a device has)."""
  with jax.set_mesh(mesh):
    boxed = jax.eval_shape(objective.init, jax.random.key(0))
    params = {model: entry['params'] for model, entry in boxed.items()}
    axes = mesh_lib.flat_axes(mesh_lib.logical_axes(params))
    rng = np.random.default_rng(0)
    values = jax.tree.map(
        lambda x: 0.3 * rng.normal(size=x.shape).astype(x.dtype),
        nn.meta.unbox(params),
    )
    placed = mesh_lib.shardings(values, axes, mesh)
    values = jax.device_put(values, placed)
    batch = test_every_model.batch_of(objective, 8)
    batch = mesh_lib.put_batch(batch, mesh)

    def loss(params, batch):
      variables = {m: {'params': p, 'state': {}} for m, p in params.items()}
      terms = objective(variables, batch, jax.random.key(1)).terms
      return sum(total for total, _ in terms.values()), terms

    (_, terms), grads = jax.jit(
        jax.value_and_grad(loss, has_aux=True),
        out_shardings=((None, None), placed),
    )(values, batch)
    leaves = jax.tree.leaves(values)
    held = sum(x.addressable_shards[0].data.size for x in leaves)
    whole = sum(x.size for x in leaves)
    vector = np.concatenate([np.ravel(g) for g in jax.tree.leaves(grads)])
    terms = {k: np.asarray(total)[None] for k, (total, _) in terms.items()}
    return terms, vector, held / whole


def _apart(one, other):
  return float(np.abs(one - other).max() / np.abs(one).max())


if __name__ == '__main__':
  main(*sys.argv[1:])
