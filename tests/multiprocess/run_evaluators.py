"""Scores clips with sharded models and prints every score.

python run_evaluators.py CACHE DEVICES [PROCESS PROCESSES PORT]

CACHE is a token cache of one slot of 8 codes.
"""

import json
import os
import sys

os.environ['JAX_PLATFORMS'] = 'cpu'
# See run_toy.py.
os.environ['NPROC'] = '32'

import jax  # noqa: E402
import numpy as np  # noqa: E402

from audiolm_jax import assembly as assembly_lib  # noqa: E402
from audiolm_jax import config  # noqa: E402
from audiolm_jax import data  # noqa: E402
from audiolm_jax import evaluate  # noqa: E402
from audiolm_jax.training import launch  # noqa: E402

RATE = 1600


class _Corpus(list):
  """Eight clips of noise, and what a corpus tells of them."""

  def seconds(self):
    return np.array([len(clip['audio']) / RATE for clip in self])

  def factors(self, index):
    return {'id': self[index]['id']}


def corpus():
  rng = np.random.default_rng(0)
  return _Corpus(
      {
          'id': f'clip{i}',
          'audio': 0.1
          * rng.standard_normal((400 + 100 * i, 1)).astype(np.float32),
          'sample_rate': RATE,
          'language': 'en',
      }
      for i in range(8)
  )


def _lm(cache):
  attention = {'kind': 'attention', 'heads': 2}
  experts = {'kind': 'moe', 'experts': 4, 'hidden': 16}
  return (
      'lm',
      {
          'kind': 'lm',
          'decoder': {
              'kind': 'tokens',
              'vocabularies': (8,),
              'backbone': {
                  'kind': 'stack',
                  'width': 16,
                  'layers': 1,
                  'mixers': (attention,),
                  'mlp': experts,
              },
          },
      },
      {'kind': 'lm', 'cache': cache},
  )


def _codec(cache):
  del cache
  sizes = {'hop': 16, 'window': 16, 'window_hop': 8, 'width': 8, 'hidden': 8}
  return (
      'codec',
      {
          'kind': 'codec',
          'sizes': (128,),
          'mels': (8,),
          'complex_size': 128,
          'tokenizer': {
              'kind': 'codec',
              'sample_rate': RATE,
              'encoder': {
                  'kind': 'spectral',
                  'dimension': 4,
                  'blocks': 1,
                  **sizes,
              },
              'bottleneck': {'kind': 'rvq', 'codebooks': 1, 'vocabulary': 8},
              'decoder': {
                  'kind': 'spectral',
                  'latency': 8,
                  'window_blocks': 0,
                  'blocks': 1,
                  **sizes,
              },
          },
      },
      {'kind': 'codec', 'min_seconds': 0.0},
  )


def _waveform(cache):
  del cache
  return (
      'lm',
      {
          'kind': 'waveform_lm',
          'sample_rate': RATE,
          'decoder': {
              'kind': 'wavenet',
              'stack': {
                  'width': 8,
                  'skip': 8,
                  'dilations': (1, 2),
                  'cycles': 1,
              },
          },
      },
      {'kind': 'waveform'},
  )


def main(cache, devices, process=0, processes=1, port=0):
  jax.config.update('jax_num_cpu_devices', int(devices))
  jax.config.update('jax_cpu_enable_async_dispatch', False)
  if int(processes) > 1:
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    jax.distributed.initialize(
        f'localhost:{port}', int(processes), int(process)
    )
  launch.prepare()
  clips = corpus()
  data.load_corpus = lambda name, split, languages=None: clips
  found = {}
  for make in (_lm, _codec, _waveform):
    model, objective, evaluator = make(cache)
    values = config.defaults(
        assembly_lib.Config,
        objective=objective,
        data=config.kind(data.SOURCES, 'synthetic'),
        models={model: {}},
        evaluators={'clips': evaluator},
        mesh={'data': 1, 'fsdp': -1},
    )
    assembly = config.build(assembly_lib.Config, values).assemble()
    with jax.set_mesh(assembly.mesh):
      variables = assembly.variables(assembly.create())
      evaluators = evaluate.build(assembly)
      scores = list(evaluators['clips'].run(variables))
    shards = [
        x.addressable_shards[0].data.size for x in jax.tree.leaves(variables)
    ]
    sizes = [x.size for x in jax.tree.leaves(variables)]
    found[make.__name__] = {
        'scores': [list(score) for score in scores],
        'share': sum(shards) / sum(sizes),
    }
  print('RESULT ' + json.dumps(found))


if __name__ == '__main__':
  main(*sys.argv[1:])
