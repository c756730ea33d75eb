"""Compiles a training step for accelerators that are not here, and reads it.

  python tools/compile_for.py --config=configs/lm/quickstart.py \\
      --topology=v5e:4x4 --mesh=fsdp=16 [--config.batch_size=64 ...]

Prints the bytes that each device needs and whether they fit it, what the
devices exchange, and the FLOPs of a step. Nothing is trained, no data is read:
only the compiler must be installed, in any environment beside this package.

TPUs: pip install 'libtpu==0.0.42.*' requests (what jax[tpu] of this jax asks
for); topologies are those of `jax.experimental.topologies`, such as v5e:4x4,
v5e:8x8, v5:4x4x4 or v6e:8x8. GPUs: pip install --no-deps jax-cuda12-pjrt
jax-cuda12-plugin, of jax's version; h100:8 are 8 in one host.

--mesh gives sizes of data, fsdp and tensor; those left out are 1. An LM of 160M
parameters takes a minute of two cores.
"""

import argparse
import os
import sys

if __name__ == '__main__':
  os.environ['JAX_PLATFORMS'] = 'cpu'
  # Ask no metadata server for TPUs, measure no kernels on GPUs.
  os.environ['TPU_SKIP_MDS_QUERY'] = '1'
  flags = os.environ.get('XLA_FLAGS', '')
  os.environ['XLA_FLAGS'] = f'{flags} --xla_gpu_autotune_level=0'

# pylint: disable=g-import-not-at-top,g-bad-import-order
# ruff: noqa: E402

import jax
from jax.experimental import topologies
import numpy as np

from audiolm_jax import config
from audiolm_jax.ops import sharding
from audiolm_jax.training import config_files
from audiolm_jax.training import costs
from audiolm_jax.training import lowering
from audiolm_jax.training import mesh as mesh_lib
from audiolm_jax.training import state as state_lib

# Bytes of a device's memory, by the start of a topology's name.
_MEMORY = {'v5e': 16e9, 'v5': 95e9, 'v6e': 32e9, 'h100': 80e9}
# A GpuTargetConfigProto: what XLA knows of a GPU.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84942979072
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def devices_of(topology: str) -> list[jax.Device]:
  """The devices of a topology; none of them is here.

  Raises:
    config.ConfigError: if its compiler is not installed, or knows no such one.
  """
  kind, _, shape = topology.partition(':')
  try:
    if kind == 'h100':
      found = topologies.get_topology_desc(
          platform='cuda', topology=f'1x1x{shape}', target_config=_H100
      )
    else:
      found = topologies.get_topology_desc(
          platform='tpu', topology_name=topology
      )
  except (RuntimeError, ValueError, ImportError) as error:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    raise config.ConfigError(
        f'--topology={topology}: {lines[0].rstrip(".")}. Is its compiler'
        ' installed? See --help.'
    ) from error
  return list(found.devices)


def sizes_of(text: str, count: int) -> list[int]:
  """Devices along each axis, from 'data=2,fsdp=8'.

  Raises:
    config.ConfigError: unless their product is `count`.
  """
  sizes = dict.fromkeys(sharding.AXES, 1)
  for part in text.split(','):
    axis, _, size = part.partition('=')
    if axis not in sizes or not size.isdigit() or not int(size):
      raise config.ConfigError(
          f'--mesh={text}: expected AXIS=SIZE,... with axes'
          f' {", ".join(sizes)} and sizes >= 1, not {part!r}.'
      )
    sizes[axis] = int(size)
  found = list(sizes.values())
  if np.prod(found) != count:
    raise config.ConfigError(
        f'--mesh={text} is of {np.prod(found)} devices, but the topology has'
        f' {count}.'
    )
  return found


def describe(assembly, memory: float) -> str:
  """Compiles the step of an `assembly.Assembly` and says what it costs."""
  example = assembly.objective.example_batch(1)
  traced = lowering.trace_step(assembly, example)
  try:
    compiled = traced.lower().compile()
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    # Compilers for TPUs give up on what does not fit.
    return f'DOES NOT FIT: {str(error).strip().splitlines()[0]}'
  needed = costs.memory(compiled)
  devices = assembly.mesh.size
  flops = costs.jaxpr_flops(traced.jaxpr)
  trainable = state_lib.size(assembly.abstract.trainable)
  read = costs.readable
  lines = [
      f'parameters that train  {read(trainable)}',
      f'rows a device          {assembly.config.batch_size / devices:g}',
      f'FLOPs of a step        {read(flops)}, {read(flops / devices)} a device',
      'bytes a device:',
      *(f'  {name:<20} {read(size, "B")}' for name, size in needed.items()),
      f'  {"memory":<20} {read(memory, "B")}:'
      f' {"fits" if needed["total"] <= memory else "DOES NOT FIT"}',
      'exchanged by a device in a step:',
  ]
  found = costs.collectives(compiled.as_text())
  lines += [
      f'  {kind:<20} {count} times, {read(size, "B")}'
      for kind, (count, size) in sorted(found.items())
  ]
  return '\n'.join(lines)


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
  )
  parser.add_argument('--config', required=True, metavar='FILE.py[:ARG]')
  parser.add_argument('--topology', required=True, metavar='NAME')
  parser.add_argument('--mesh', required=True, metavar='AXIS=SIZE,...')
  own, overrides = config_files.split(argv)
  options = parser.parse_args(own)
  try:
    settings = config_files.override(
        config_files.read(options.config), overrides
    )
    devices = devices_of(options.topology)
    sizes = sizes_of(options.mesh, len(devices))
    mesh = mesh_lib.over(np.array(devices).reshape(sizes))
    kind = options.topology.partition(':')[0]
    print(describe(settings.assemble(mesh), _MEMORY.get(kind, np.inf)))
  except config.ConfigError as error:
    print(f'compile_for: {error}', file=sys.stderr)
    return 1
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
