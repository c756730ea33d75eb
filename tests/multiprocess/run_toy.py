"""Trains the toy on simulated CPU devices and prints what the test compares.

python run_toy.py WORKDIR DEVICES DATA FSDP TENSOR [PROCESS PROCESSES PORT]
"""

import json
import os
import shutil
import sys

os.environ['JAX_PLATFORMS'] = 'cpu'
# Simulated devices wait for each other within XLA's thread pool, which has as
# many threads as there are cores: with too few all of them wait, for ever.
os.environ['NPROC'] = '32'

import jax  # noqa: E402

import audiolm_jax  # noqa: E402
from audiolm_jax import train  # noqa: E402
from audiolm_jax.training import config_files  # noqa: E402
from audiolm_jax.training import writers  # noqa: E402

CONFIG = os.path.join(os.path.dirname(__file__), '../../configs/toy.py:smoke')


def main(workdir, devices, data, fsdp, tensor, process=0, processes=1, port=0):
  jax.config.update('jax_num_cpu_devices', int(devices))
  jax.config.update('jax_cpu_enable_async_dispatch', False)
  if int(processes) > 1:
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    jax.distributed.initialize(
        f'localhost:{port}', int(processes), int(process)
    )
  settings = config_files.override(
      config_files.read(CONFIG),
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
  if int(processes) == 1:
    # Back into shards from the checkpoint at half of the run.
    shutil.rmtree(os.path.join(workdir, 'checkpoints', '20'))
    train.train(settings, workdir)
    seen['resumed'] = [
        r['loss'] for r in writers.read_metrics(workdir) if 'loss' in r
    ]
  if int(process) == 0:
    # Gathered from its shards; what it holds is checked on loading.
    model = audiolm_jax.load(workdir)
    kernel = model.variables['params']['blocks']['kernel']
    seen['loaded'] = kernel.addressable_shards[0].data.shape
  print('RESULT ' + json.dumps(seen))


if __name__ == '__main__':
  main(*sys.argv[1:])
