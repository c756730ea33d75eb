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
from audiolm_jax import data  # noqa: E402
from audiolm_jax import decoders  # noqa: E402
from audiolm_jax import evaluate  # noqa: E402
from audiolm_jax import evaluation  # noqa: E402
from audiolm_jax import objectives  # noqa: E402
from audiolm_jax import tokenizers  # noqa: E402
from audiolm_jax.backbones import mlps  # noqa: E402
from audiolm_jax.backbones import stack as stack_lib  # noqa: E402
from audiolm_jax.backbones.mixers import attention  # noqa: E402
from audiolm_jax.decoders import wavenet  # noqa: E402
from audiolm_jax.tokenizers import bottlenecks  # noqa: E402
from audiolm_jax.tokenizers import parts  # noqa: E402
from audiolm_jax.training import launch  # noqa: E402
from audiolm_jax.training import mesh as mesh_lib  # noqa: E402

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
  backbone = stack_lib.Stack(
      width=16,
      layers=1,
      mixers=(attention.Attention(heads=2),),
      mlp=mlps.Moe(experts=4, hidden=16),
  )
  decoder = decoders.Decoder(vocabularies=(8,), backbone=backbone)
  bits = evaluation.Bits(clips=evaluation.TokenClips(cache=cache))
  return 'lm', objectives.NLL(decoder=decoder), bits


def _codec(cache):
  del cache
  sizes = {'hop': 16, 'window': 16, 'window_hop': 8, 'width': 8, 'hidden': 8}
  codec = tokenizers.Codec(
      sample_rate=RATE,
      encoder=parts.SpectralEncoder(dimension=4, blocks=1, **sizes),
      bottleneck=bottlenecks.Rvq(codebooks=1, vocabulary=8),
      decoder=parts.SpectralDecoder(
          latency=8, window_blocks=0, blocks=1, **sizes
      ),
  )
  objective = objectives.Codec(
      tokenizer=codec, sizes=(128,), mels=(8,), complex_size=128
  )
  return 'codec', objective, evaluation.Codec(min_seconds=0.0)


def _waveform(cache):
  del cache
  stack = wavenet.GatedStack(width=8, skip=8, dilations=(1, 2), cycles=1)
  objective = objectives.NLL(
      rate=float(RATE), decoder=decoders.WaveNet(stack=stack)
  )
  return 'lm', objective, evaluation.Bits(clips=evaluation.AudioClips())


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
    assembly = assembly_lib.Config(
        objective=objective,
        data=data.Synthetic(),
        models={model: assembly_lib.ModelTraining()},
        evaluators={'clips': evaluator},
        mesh=mesh_lib.Config(data=1, fsdp=-1),
    ).assemble()
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
