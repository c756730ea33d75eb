"""Trains codebooks on one and on two simulated devices; prints both results."""

import json
import os

os.environ['JAX_PLATFORMS'] = 'cpu'
# See run_toy.py.
os.environ['NPROC'] = '32'

import flax.linen as nn  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402

from audiolm_jax.tokenizers import bottlenecks  # noqa: E402
from audiolm_jax.training import mesh as mesh_lib  # noqa: E402

ROWS, FRAMES, WIDTH = 4, 40, 6
CONFIGS = {
    'rvq': {
        'codebooks': 2,
        'vocabulary': 16,
        'initial': 'k_means',
        'iterations': 3,
        'candidates': 32,
    },
    'lfq': {'bits': 4, 'temperature': 1.0},
}


def train(bottleneck, mesh):
  """State after updates on rows over the devices of `mesh` (None: one device)."""
  variables = nn.meta.unbox(bottleneck.init(jax.random.key(0), WIDTH))
  rng = np.random.default_rng(0)
  num_frames = np.array([40, 13, 0, 31])
  batch = {
      'x': rng.standard_normal((ROWS, FRAMES, WIDTH)).astype(np.float32),
      'mask': np.arange(FRAMES) < num_frames[:, None],
  }

  @jax.jit
  def step(state, batch, key):
    given = {**variables, 'state': state}
    found = bottleneck.quantise(given, batch['x'], batch['mask'])
    new = bottleneck.statistics(found, batch['mask'], key)
    return bottleneck.update(state, new, key), found.codes

  if mesh is not None:
    batch = mesh_lib.put_batch(batch, mesh)
  state = variables['state']
  compiled = step.lower(state, batch, jax.random.key(0)).compile().as_text()
  for i in range(4):
    state, codes = step(state, batch, jax.random.key(i))
  return {
      'state': [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(state)],
      'codes': np.asarray(codes).tolist(),
      'devices': len(batch['x'].devices()) if mesh is not None else 1,
      'reduced': 'all-reduce' in compiled,
  }


def main():
  jax.config.update('jax_num_cpu_devices', 2)
  jax.config.update('jax_cpu_enable_async_dispatch', False)
  mesh = mesh_lib.Config(data=2).build()
  results = {}
  for kind, fields in CONFIGS.items():
    bottleneck = bottlenecks.BOTTLENECKS[kind](**fields)
    results[kind] = [train(bottleneck, None)]
    with jax.set_mesh(mesh):
      results[kind].append(train(bottleneck, mesh))
  print('RESULT ' + json.dumps(results))


if __name__ == '__main__':
  main()
