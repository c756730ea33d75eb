"""Trains the toy on simulated CPU devices and prints what the test compares.

python run_toy.py WORKDIR DEVICES DATA FSDP TENSOR [PROCESS PROCESSES PORT]
"""

import json
import os
import sys

os.environ['JAX_PLATFORMS'] = 'cpu'

import jax  # noqa: E402

from audiolm_jax import train  # noqa: E402
from audiolm_jax.training import launch  # noqa: E402
from audiolm_jax.training import writers  # noqa: E402

CONFIG = os.path.join(os.path.dirname(__file__), '../../configs/toy.py:smoke')


def main(workdir, devices, data, fsdp, tensor, process=0, processes=1, port=0):
  jax.config.update('jax_num_cpu_devices', int(devices))
  if int(processes) > 1:
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    jax.distributed.initialize(
        f'localhost:{port}', int(processes), int(process)
    )
  settings = launch.override(
      train.Config,
      launch.read_config(CONFIG),
      [
          f'config.mesh.data={data}',
          f'config.mesh.fsdp={fsdp}',
          f'config.mesh.tensor={tensor}',
          'config.log_every=1',
          'config.accumulation=2',
      ],
  )
  seen = {}
  compile_step = train._Run._compile

  def spied(self, batch):
    compiled = compile_step(self, batch)
    text = compiled.as_text()
    seen['collectives'] = [
        name for name in ('all-reduce', 'all-gather') if name in text
    ]
    return compiled

  train._Run._compile = spied
  loop = train._Run._loop

  def looped(self, state, *args):
    kernel = state.trainable['mlp']['blocks']['kernel']
    moment = state.optimizer_state['mlp'][0].mu['blocks']['kernel']
    seen['global'] = kernel.shape
    seen['shard'] = kernel.addressable_shards[0].data.shape
    seen['moment'] = moment.addressable_shards[0].data.shape
    return loop(self, state, *args)

  train._Run._loop = looped
  results = train.train(settings, workdir)
  seen['losses'] = [
      r['loss'] for r in writers.read_metrics(workdir) if 'loss' in r
  ]
  seen['evaluation'] = results['eval/toy/squared_error']
  print('RESULT ' + json.dumps(seen))


if __name__ == '__main__':
  main(*sys.argv[1:])
