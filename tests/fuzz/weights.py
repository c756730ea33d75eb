"""Damaged directories of pretrained weights, for the fuzz suite."""

from collections.abc import Callable, Iterator
import json
import pathlib
import shutil
from typing import Any

import jax
import numpy as np

from audiolm_jax import interop
from audiolm_jax.interop import files
from tests.interop import tiny_weights

# What a user is told of a directory that can not be loaded.
ERRORS = (interop.PretrainedError,)

# (name, directory, whether loading must fail; None where either is right).
Inputs = Iterator[tuple[str, pathlib.Path, bool | None]]

_SHARDS = ('a.safetensors', 'b.safetensors')
# What no number, size, flag or name of a config is.
_NEVER = ([], {'a': 1}, [[1]])
_ODD = (
    *_NEVER,
    None,
    True,
    -1,
    0,
    1,
    1.5,
    1000,
    10**9,
    10**400,
    float('nan'),
    float('inf'),
    '',
    'x',
    '\ud800',
    [10**9],
    ['x'],
)
# Keys that are read by nobody, or for training only.
_UNREAD = {
    'architectures',
    'audio_token_id',
    'backbone_hidden_size',
    'codebook_dim',
    'dtype',
    'hidden_size',
    'hop_length',
    'input_size',
    'output_hidden_size',
}


def read(path: pathlib.Path) -> None:
  """Loads a directory as a user does.

  Raises:
    interop.PretrainedError: if it can not be loaded.
    AssertionError: if it is loaded and its numbers are not finite.
  """
  _, variables = interop.load_pretrained(path)
  for leaf in jax.tree.leaves(variables):
    assert np.isfinite(leaf).all()


def safetensors_inputs(
    directory: pathlib.Path, rng: np.random.Generator, count: int
) -> Inputs:
  """Damage of the weights' files, in one file or in shards.

  Args:
    directory: to write to.
    rng: draws families and damage.
    count: how many.
  """
  damages = (
      _cut,
      _flip_header,
      _header_length,
      _spliced,
      _retyped,
      _reshaped,
      _not_finite,
      _renamed,
      _without,
      _index,
      _kind,
      _shuffled_shards,
  )
  return _inputs(directory, rng, count, damages)


def config_inputs(
    directory: pathlib.Path, rng: np.random.Generator, count: int
) -> Inputs:
  """Damage of the config.json: of its bytes, and of single values.

  Args:
    directory: to write to.
    rng: draws families and damage.
    count: how many.
  """
  return _inputs(
      directory, rng, count, (_value, _value, _value, _removed, _text, _bytes)
  )


# Format -> (make, read).
FORMATS: dict[str, tuple[Callable[..., Inputs], Callable[..., None]]] = {
    'safetensors': (safetensors_inputs, read),
    'pretrained_config': (config_inputs, read),
}


def _inputs(directory, rng, count, damages):
  whole = {}
  # As many families as are worth being made.
  names = rng.permutation(sorted(tiny_weights.ALL))[: max(4, count // 8)]
  for i in range(count):
    damage = damages[i % len(damages)]
    name = str(names[rng.integers(len(names))])
    if name not in whole:
      whole[name] = directory / 'whole' / name
      tiny_weights.write(whole[name], name)
    label = f'{i:04d}-{name}-{damage.__name__.strip("_")}'
    path = directory / label
    shutil.copytree(whole[name], path)
    must_fail = damage(path, rng)
    yield label, path, must_fail


# -- weights: what each does, and whether loading must fail -------------------


def _cut(path, rng):
  data = (path / files.WEIGHTS).read_bytes()
  (path / files.WEIGHTS).write_bytes(data[: rng.integers(len(data))])
  return True


def _flip_header(path, rng):
  """A byte of the header, which may be one of a name or of a space."""
  data = bytearray((path / files.WEIGHTS).read_bytes())
  size = int.from_bytes(data[:8], 'little')
  data[rng.integers(8, 8 + size)] ^= 1 << rng.integers(8)
  (path / files.WEIGHTS).write_bytes(data)
  return None


def _header_length(path, rng):
  data = (path / files.WEIGHTS).read_bytes()
  size = int(rng.choice([0, 1, 7, 2**20, 2**31, 2**40, 2**63 - 1]))
  (path / files.WEIGHTS).write_bytes(size.to_bytes(8, 'little') + data[8:])
  return True


def _spliced(path, rng):
  """Bytes added somewhere, or at the end."""
  data = (path / files.WEIGHTS).read_bytes()
  at = len(data) if rng.integers(2) else rng.integers(8, len(data))
  more = rng.bytes(int(rng.integers(1, 100)))
  (path / files.WEIGHTS).write_bytes(data[:at] + more + data[at:])
  return True


def _retyped(path, rng):
  tensors = _tensors(path)
  name = _some(tensors, rng)
  kinds = (np.uint8, np.int8, np.int32, np.int64, np.uint16, bool)
  kind = kinds[rng.integers(len(kinds))]
  _write(path, {**tensors, name: np.ones(tensors[name].shape, kind)})
  return not _carries_nothing(name)


def _reshaped(path, rng):
  tensors = _tensors(path)
  name = _some(tensors, rng)
  x = tensors[name]
  changes = (
      lambda: x[None],
      lambda: x.reshape(-1)[:-1],
      lambda: np.zeros(0, np.float32),
      lambda: np.concatenate([x, x]),
      lambda: np.float32(1),
  )
  changed = np.asarray(changes[rng.integers(len(changes))]())
  _write(path, {**tensors, name: changed})
  # Factors may be stored with axes of one around them.
  same = changed.size == x.size
  return None if same or _carries_nothing(name) else True


def _not_finite(path, rng):
  tensors = _tensors(path)
  name = _some(tensors, rng)
  x = tensors[name].copy()
  x.flat[rng.integers(x.size)] = rng.choice([np.nan, np.inf, -np.inf])
  _write(path, {**tensors, name: x})
  return not _carries_nothing(name)


def _renamed(path, rng):
  tensors = _tensors(path)
  name = _some(tensors, rng)
  new = ('x' + name, '', name.upper(), 'model.' + name)[rng.integers(4)]
  tensors[new] = tensors.pop(name)
  _write(path, tensors)
  # A buffer, even of another name, may be ignored.
  return None if _carries_nothing(name) else True


def _without(path, rng):
  tensors = _tensors(path)
  name = _some(tensors, rng)
  del tensors[name]
  _write(path, tensors)
  return not _carries_nothing(name)


def _index(path, rng):
  """An index that is none."""
  _shard(path)
  text = json.loads((path / files.INDEX).read_text())
  weight_map = text['weight_map']
  name = _some(weight_map, rng)
  odd = (None, [], {}, 7, 'x')
  shards = (None, 7, '', '.', '..', '/etc/passwd', '../a', 'x' * 5000, 'a\0')
  changed = (
      {},
      {'weight_map': odd[rng.integers(len(odd))]},
      {'weight_map': {**weight_map, name: shards[rng.integers(len(shards))]}},
      {'weight_map': {**weight_map, 'more': _SHARDS[0]}},
      [],
  )[rng.integers(5)]
  (path / files.INDEX).write_text(json.dumps(changed))
  return True


def _kind(path, rng):
  """Weights, or a shard, that are no file."""
  target = path / files.WEIGHTS
  if rng.integers(2):
    _shard(path)
    target = path / _SHARDS[rng.integers(2)]
  target.unlink()
  if rng.integers(2):
    target.mkdir()
  else:
    target.symlink_to(target.name)
  return True


def _shuffled_shards(path, rng):
  """Shards in any order are the whole; their files exchanged are not."""
  _shard(path)
  if rng.integers(2):
    return False
  first, second = (path / name for name in _SHARDS)
  first.rename(path / 'other')
  second.rename(first)
  (path / 'other').rename(second)
  return True


# -- configs ------------------------------------------------------------------


def _value(path, rng):
  """A value of another type or size."""
  config = json.loads((path / files.CONFIG).read_text())
  at, key = _place(config, rng)
  odd = _ODD[rng.integers(len(_ODD))]
  before, at[key] = at[key], odd
  (path / files.CONFIG).write_text(json.dumps(config))
  is_number = isinstance(before, int | float) and not isinstance(before, bool)
  never = any(odd is x for x in _NEVER)
  # An id to end with may be a list of none.
  read_as_such = key not in _UNREAD and 'token_id' not in key
  return True if is_number and never and read_as_such else None


def _removed(path, rng):
  config = json.loads((path / files.CONFIG).read_text())
  at, key = _place(config, rng)
  del at[key]
  (path / files.CONFIG).write_text(json.dumps(config))
  return None


def _text(path, rng):
  """What is no object, or no JSON."""
  texts = (
      b'',
      b'[]',
      b'null',
      b'7',
      b'"x"',
      b'{}',
      b'{"model_type": ',
      b'\xff\xfe\x00',
      b'[' * 100_000,
      b'{"a":' * 100_000,
      b'{"model_type": []}',
      b'{"model_type": 1' + b'0' * 5000 + b'}',
  )
  (path / files.CONFIG).write_bytes(texts[rng.integers(len(texts))])
  return True


def _bytes(path, rng):
  """Flipped bits, of which some only change a number."""
  data = bytearray((path / files.CONFIG).read_bytes())
  for _ in range(rng.integers(1, 4)):
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
  (path / files.CONFIG).write_bytes(data)
  return None


# -- helpers ------------------------------------------------------------------


def _tensors(path):
  return files.read(path)[1]


def _write(path, tensors):
  config = json.loads((path / files.CONFIG).read_text())
  files.write(path, config, tensors)


def _some(names, rng) -> Any:
  listed = sorted(names)
  return listed[rng.integers(len(listed))]


def _carries_nothing(name):
  """Whether a tensor is a buffer that loading ignores."""
  ignored = ('inited', 'initialized', 'inv_freq', 'masked_spec_embed')
  return name.endswith(ignored)


def _shard(path):
  tensors = _tensors(path)
  (path / files.WEIGHTS).unlink()
  names = sorted(tensors)
  places = {n: _SHARDS[i % 2] for i, n in enumerate(names)}
  config = json.loads((path / files.CONFIG).read_text())
  for shard in _SHARDS:
    files.write(
        path, config, {n: tensors[n] for n in names if places[n] == shard}
    )
    (path / files.WEIGHTS).rename(path / shard)
  (path / files.INDEX).write_text(json.dumps({'weight_map': places}))


def _place(config, rng):
  """(object, key) of any depth."""
  found = []

  def walk(at):
    for key, value in at.items():
      found.append((at, key))
      if isinstance(value, dict):
        walk(value)

  walk(config)
  return found[rng.integers(len(found))]
