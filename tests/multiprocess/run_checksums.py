"""Saves under one sharding and restores under another, in two processes.

python run_checksums.py DIRECTORY PROCESS PORT
"""

import json
import os
import pathlib
import sys

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['NPROC'] = '32'

import jax  # noqa: E402
from jax.sharding import NamedSharding  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402
import numpy as np  # noqa: E402

from audiolm_jax.training import checkpoints  # noqa: E402
from audiolm_jax.training import checksums  # noqa: E402
from audiolm_jax.training import launch  # noqa: E402

CASES = [(P(), P('x')), (P('x'), P()), (P('x'), P(None, 'x')), (P('x'), P('x'))]


def main(directory, process, port):
  jax.config.update('jax_num_cpu_devices', 2)
  jax.config.update('jax_cpu_enable_async_dispatch', False)
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(f'localhost:{port}', 2, int(process))
  launch.prepare()
  mesh = jax.make_mesh((4,), ('x',))
  values = np.arange(64, dtype=np.float32).reshape(8, 8)

  def put(values, spec):
    return jax.make_array_from_callback(
        values.shape, NamedSharding(mesh, spec), lambda index: values[index]
    )

  found = []
  store = checkpoints.Checkpoints(
      pathlib.Path(directory) / 'c', checkpoints.Config()
  )
  for step, (saved, read) in enumerate(CASES, 1):
    state = {'w': put(values, saved)}
    store.save(step, state, {'process': process}, {})
    store.wait()
    shape = jax.ShapeDtypeStruct(
        values.shape, np.float32, sharding=NamedSharding(mesh, read)
    )
    _, position = store.restore(step, {'w': shape})
    # The last value lies on one process only.
    damaged = {'w': put(values + (values == 63), read)}
    sums = checksums.of_leaves(state)
    found.append(
        [
            len(sums['w']),
            checksums.problems(damaged, sums),
            position == {'process': process},
        ]
    )
  store.close()
  print('RESULT ' + json.dumps(found))


if __name__ == '__main__':
  main(*sys.argv[1:])
