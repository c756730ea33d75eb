"""Checksums of arrays, so that a file that changed on disk is noticed.

An array has one for each block of it that some device holds: a process sees its
own devices' blocks only. They are CRC-32 of the block's bytes: it finds every
change of up to 32 bits in a row, and is made at several GB/s.
"""

from collections.abc import Mapping
import json
from typing import Any
import zlib

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np

from audiolm_jax.training import processes


def of_json(value: Any) -> int:
  """The checksum of a JSON value, whatever the order of its keys."""
  return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def of_leaves(leaves: Mapping[str, jax.Array]) -> dict[str, dict[str, int]]:
  """{leaf: {block: checksum}}, of all processes; a block is '0:4,8:16'."""
  for leaf in leaves.values():
    leaf.copy_to_host_async()
  own = {
      name: {
          _name(shard.index, leaf.shape): _crc(np.asarray(shard.data))
          for shard in leaf.addressable_shards
          if shard.replica_id == 0
      }
      for name, leaf in leaves.items()
  }
  result = {name: {} for name in leaves}
  for part in processes.gather(own):
    for name, blocks in part.items():
      result[name].update(blocks)
  return result


def problems(
    leaves: Mapping[str, jax.Array], stored: Mapping[str, Mapping[str, int]]
) -> list[str]:
  """A line for each leaf that is not what it was, or is not finite.

  All processes get the same lines.

  Args:
    leaves: as they were read; their shardings may be others than when saved.
    stored: from `of_leaves`; leaves that it does not have are only held to be
      finite.
  """
  lines = []
  for name, leaf in leaves.items():
    wanted = stored.get(name, {})
    blocks = {
        _name(shard.index, leaf.shape): shard.data
        for shard in leaf.addressable_shards
    }
    if not wanted.keys() <= _all_blocks(leaf):
      # It is cut otherwise than it was when it was saved.
      whole = _whole(leaf)
      blocks = {key: whole[_index(key)] for key in wanted}
    blocks = {key: np.asarray(block) for key, block in blocks.items()}
    if any(_crc(blocks[k]) != wanted[k] for k in wanted.keys() & blocks.keys()):
      lines.append(f'{name} is not what was saved')
    elif jnp.issubdtype(leaf.dtype, jnp.inexact) and not all(
        np.isfinite(block).all() for block in blocks.values()
    ):
      lines.append(f'{name} is not finite')
  return sorted({line for part in processes.gather(lines) for line in part})


def _all_blocks(leaf: jax.Array) -> set[str]:
  """Names of the blocks that the devices of all processes hold."""
  indices = leaf.sharding.devices_indices_map(leaf.shape).values()
  return {_name(index, leaf.shape) for index in indices}


def _whole(leaf: jax.Array) -> np.ndarray:
  if leaf.is_fully_addressable:
    return np.asarray(leaf)
  return multihost_utils.process_allgather(leaf, tiled=True)


def _name(index: tuple[slice, ...], shape: tuple[int, ...]) -> str:
  bounds = (s.indices(size)[:2] for s, size in zip(index, shape, strict=True))
  return ','.join(f'{start}:{stop}' for start, stop in bounds)


def _index(name: str) -> tuple[slice, ...]:
  bounds = (part.split(':') for part in name.split(',') if part)
  return tuple(slice(int(start), int(stop)) for start, stop in bounds)


def _crc(block: np.ndarray) -> int:
  # As bytes: bfloat16 has no buffer protocol, a scalar no view of another size.
  return zlib.crc32(np.ascontiguousarray(block).reshape(-1).view(np.uint8))
