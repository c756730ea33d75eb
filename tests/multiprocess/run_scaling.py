"""Compiles steps for 4 and 8 simulated devices; prints memory and metrics.

python run_scaling.py lm|codec
"""

import functools
import json
import math
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
from audiolm_jax import objectives  # noqa: E402
from audiolm_jax import tokenizers  # noqa: E402
from audiolm_jax import training  # noqa: E402
from audiolm_jax.backbones import mlps  # noqa: E402
from audiolm_jax.backbones import stack as stack_lib  # noqa: E402
from audiolm_jax.objectives import discriminators  # noqa: E402
from audiolm_jax.objectives import gan as gan_lib  # noqa: E402
from audiolm_jax.tokenizers import bottlenecks  # noqa: E402
from audiolm_jax.tokenizers import parts  # noqa: E402
from audiolm_jax.training import costs  # noqa: E402
from audiolm_jax.training import launch  # noqa: E402
from audiolm_jax.training import mesh as mesh_lib  # noqa: E402
from audiolm_jax.training import step as step_lib  # noqa: E402

# Rows a device.
ROWS = 2
# (data, fsdp).
MESHES = ((1, 4), (1, 8), (2, 4))


def _lm():
  backbone = stack_lib.Stack(
      width=64,
      layers=3,
      # Their sort of positions is each device's, too.
      mlp=mlps.Moe(experts=4, hidden=64),
      remat='full',
  )
  decoder = decoders.Decoder(vocabularies=(64, 64), backbone=backbone)
  return objectives.NLL(decoder=decoder, lengths={'frames': 256})


def _codec():
  sizes = {'hop': 64, 'window': 128, 'window_hop': 32, 'width': 16, 'blocks': 1}
  judge = discriminators.MultiScaleStft(sizes=(256,), filters=8, dilations=(1,))
  return objectives.Codec(
      tokenizer=tokenizers.Codec(
          encoder=parts.SpectralEncoder(dimension=16, hidden=32, **sizes),
          bottleneck=bottlenecks.Rvq(codebooks=1, vocabulary=16),
          decoder=parts.SpectralDecoder(
              latency=64, window_blocks=1, hidden=32, **sizes
          ),
      ),
      samples=4096,
      stft_weight=0.0,
      complex_weight=0.0,
      complex_size=512,
      sizes=(512,),
      mels=(16,),
      gan=gan_lib.Gan(discriminators={'spectra': judge}),
  )


def settings(objective, devices):
  """A run of as many rows on each of so many devices."""
  models = ['lm'] if objective is _lm else ['codec', 'discriminator']
  return assembly_lib.Config(
      objective=objective(),
      data=data.Synthetic(),
      models=dict.fromkeys(models, assembly_lib.ModelTraining()),
      batch_size=ROWS * devices,
  )


def grid(data_size, fsdp):
  """A mesh of the first devices."""
  devices = np.array(jax.devices()[: data_size * fsdp])
  return mesh_lib.over(devices.reshape(data_size, fsdp, 1))


def compile_step(run, mesh):
  # Buffers are the same however little the code in between is optimised.
  quick = {'xla_backend_optimization_level': 0}
  return training.lowered_step(run, mesh).compile(quick)


def train(run, mesh, compiled):
  """Metrics of two steps."""
  assembly, rows = run.assemble(mesh), run.batch_size
  rng, shapes = np.random.default_rng(0), assembly.objective.example_batch(rows)
  batch = {k: np.zeros(v.shape, v.dtype) for k, v in shapes.items()}
  name = 'audio' if 'audio' in batch else 'codes'
  shape = batch[name].shape
  length = 'num_samples' if name == 'audio' else 'num_frames'
  batch[length] = rng.integers(shape[1] // 2, shape[1], rows, np.int32)
  if name == 'audio':
    batch[name] = 0.1 * rng.standard_normal(shape).astype(np.float32)
  else:
    batch[name] = rng.integers(0, 64, shape, np.int32)
  rates = jax.jit(
      functools.partial(step_lib.rates, assembly.model_optimizers),
      out_shardings=assembly.shardings.step,
  )
  records = []
  with jax.set_mesh(mesh):
    state = assembly.create()
    placed = mesh_lib.put_batch(batch, mesh)
    for _ in range(2):
      state, metrics = compiled(state, placed, rates(state.step))
      records.append({k: float(v) for k, v in metrics['scalars'].items()})
  return records


def main(name):
  jax.config.update('jax_num_cpu_devices', 8)
  jax.config.update('jax_cpu_enable_async_dispatch', False)
  launch.prepare()
  objective = {'lm': _lm, 'codec': _codec}[name]
  found = {'temporaries': {}}
  for shape in MESHES:
    run, mesh = settings(objective, math.prod(shape)), grid(*shape)
    compiled = compile_step(run, mesh)
    key = f'data={shape[0]} fsdp={shape[1]}'
    found['temporaries'][key] = costs.memory(compiled)['temporaries']
  # The last one's batch, on all devices and on one.
  found['all'] = train(run, mesh, compiled)
  one = grid(1, 1)
  found['one'] = train(run, one, compile_step(run, one))
  print('RESULT ' + json.dumps(found))


if __name__ == '__main__':
  main(sys.argv[1])
