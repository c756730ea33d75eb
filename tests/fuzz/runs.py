"""Damage to what a run leaves behind, and to what starts one.

Each of FORMATS is (make, read): `make(directory, rng, count)` yields (name,
path, must_fail), where must_fail is None if an error and the right result are
both right; `read(path)` reads one as a user would. ERRORS are the clear ones.
"""

from collections.abc import Iterator
import json
import pathlib
import shutil

import jax
import numpy as np

import audiolm_jax
from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import train
from audiolm_jax.training import checkpoints
from audiolm_jax.training import checksums
from audiolm_jax.training import config_files
from audiolm_jax.training import mesh as mesh_lib
from audiolm_jax.training import options
from audiolm_jax.training import writers

ERRORS = (config.ConfigError, checkpoints.CheckpointError)

_ROOT = pathlib.Path(__file__).parents[2]
_TOY = f'{_ROOT}/configs/toy.py:smoke'
_WEIGHTS = 'weights.npz'

# Values of every type and size that no key, or not this one, takes.
ODD = (
    None, True, -1, 0, 1, 7, 10**9, 10**30, 10**400, -0.5, 1e300, float('inf'),
    float('nan'), '', 'x', 'kind', '../..', '\0', '(' * 300, '{[]: 1}', [], [[]],
    {}, {'kind': 'x'}, {'kind': 7}, [1, 'a'], [0], '__import__("os")',
)  # fmt: skip

Cases = Iterator[tuple[str, pathlib.Path, bool | None]]


class WrongResult(AssertionError):
  """What was read is not what was saved."""


def _trained(workdir: pathlib.Path) -> None:
  """A run with two checkpoints, whose weights are kept beside it."""
  flags = ['config.steps=4', 'config.eval_every=2', 'config.log_every=1']
  flags += ['config.checkpoint.every=2']
  settings = config_files.override(config_files.read(_TOY), flags)
  train.train(settings, workdir)
  np.savez(workdir / _WEIGHTS, **_weights(workdir))


def _weights(workdir: pathlib.Path) -> dict[str, np.ndarray]:
  """Of the checkpoint."""
  assembly, state = assembly_lib.restore(workdir)
  return _named(assembly.variables(state)['mlp'])


def _named(variables) -> dict[str, np.ndarray]:
  return {
      mesh_lib.key(path): np.asarray(leaf)
      for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
  }


def _files(directory: pathlib.Path) -> list[pathlib.Path]:
  return sorted(p for p in directory.rglob('*') if p.is_file())


def damage(
    path: pathlib.Path, others: list[pathlib.Path], rng: np.random.Generator
) -> str:
  """Damages one file in a random way; returns which."""
  data = bytearray(path.read_bytes())
  kinds = ['flip', 'flips', 'cut', 'empty', 'missing', 'swapped', 'noise']
  kind = kinds[rng.integers(len(kinds))]
  if kind in ('flip', 'flips') and data:
    for _ in range(1 if kind == 'flip' else 20):
      data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
  elif kind == 'cut':
    path.write_bytes(data[: int(rng.integers(len(data) + 1))])
  elif kind == 'missing':
    path.unlink()
  elif kind == 'swapped':
    path.write_bytes(others[rng.integers(len(others))].read_bytes())
  elif kind == 'noise':
    path.write_bytes(rng.bytes(len(data)))
  else:
    path.write_bytes(b'')
  return kind


def _make_damaged(directory, rng, count, where) -> Cases:
  """Copies of one run, each with one damaged file among `where(copy)`."""
  whole = directory / 'whole'
  _trained(whole)
  yield 'whole', whole, False
  for index in range(count - 1):
    copy = directory / str(index)
    shutil.copytree(whole, copy)
    files = where(copy)
    path = files[index % len(files)]
    kind = damage(path, files, rng)
    yield f'{kind} {path.relative_to(copy)}', copy, None


def make_checkpoint(directory, rng, count) -> Cases:
  """Damage in every file of a run's checkpoints."""
  return _make_damaged(
      directory, rng, count, lambda d: _files(d / 'checkpoints')
  )


def read_checkpoint(path: pathlib.Path) -> None:
  """Restores the state; its model is the one that was saved."""
  _hold(_weights(path), path)


def _make_odd(directory, rng, indices, name):
  """Copies of one run, each with an odd value for a JSON file of it.

  Yields:
    What is odd, the file, and its values; writing them is the caller's.
  """
  text = (directory / 'whole' / name).read_text()
  paths = _paths(json.loads(text))
  for index in indices:
    copy = directory / str(index)
    shutil.copytree(directory / 'whole', copy)
    values = json.loads(text)
    path = paths[rng.integers(len(paths))]
    odd = ODD[rng.integers(len(ODD))]
    _set(values, path, odd)
    yield f'{".".join(path)} = {str(odd)[:30]}', copy / name, values


def make_model(directory, rng, count) -> Cases:
  """Damage in every file of a model directory, and values in its config."""
  cases = _make_damaged(
      directory, rng, count // 2, lambda d: _files(d / 'model')
  )
  yield from cases
  for what, file, values in _make_odd(
      directory, rng, range(count // 2, count), 'model/config.json'
  ):
    # As if by someone who knows how it is signed.
    values.pop('checksum', None)
    values['checksum'] = checksums.of_json(values)
    file.write_text(json.dumps(values))
    yield what, file.parents[1], None


def read_model(path: pathlib.Path) -> None:
  """Loads the model; it is the one that was written."""
  _hold(_named(audiolm_jax.load(path).variables), path)


def _hold(found, path) -> None:
  with np.load(path / _WEIGHTS) as saved:
    if found.keys() != set(saved.files):
      raise WrongResult(f'{sorted(found)}, not {sorted(saved.files)}')
    for name, value in found.items():
      if not np.array_equal(value, saved[name]):
        raise WrongResult(f'{name} differs')


def _set(values, path, value) -> None:
  *groups, key = path
  for part in groups:
    values = values[part]
  values[key] = value


def _paths(values, prefix=()) -> list[tuple]:
  """Paths to all values of nested dicts, groups among them."""
  found = []
  for key, value in values.items():
    found.append((*prefix, key))
    if isinstance(value, dict):
      found += _paths(value, (*prefix, key))
  return found


def make_config_json(directory, rng, count) -> Cases:
  """Damage in config.json and metrics.jsonl, and other values in the former."""
  names = ['config.json', 'metrics.jsonl']
  cases = _make_damaged(
      directory, rng, count // 2, lambda d: [d / name for name in names]
  )
  yield from cases
  for what, file, values in _make_odd(
      directory, rng, range(count // 2, count), 'config.json'
  ):
    file.write_text(json.dumps(values))
    yield what, file.parent, None


def read_config_json(path: pathlib.Path) -> None:
  """Restores the state, and reads the metrics."""
  read_checkpoint(path)
  writers.read_metrics(path)


def make_overrides(directory, rng, count) -> Cases:
  """Arguments of main.py, one a line, the config first."""
  directory.mkdir(parents=True, exist_ok=True)
  files = [
      f'{_ROOT}/configs/{name}'
      for name in ('toy.py', 'lm/quickstart.py', 'codec/quickstart.py')
  ]
  keys = {}
  for file in files:
    settings = config_files.read(f'{file}:smoke')
    values = config.to_config(settings).to_dict()
    keys[file] = ['.'.join(path) for path in _paths(values)]
  for index in range(count):
    file = files[rng.integers(len(files))]
    key = keys[file][rng.integers(len(keys[file]))]
    text, must_fail = str(ODD[rng.integers(len(ODD))]), None
    name = f'{file}:smoke'
    draw = rng.integers(8)
    if draw == 0:
      # A typo: the letters of a key in another order do not make one.
      key, must_fail = f'{key}x', True
    elif draw == 1:
      text = ''.join(map(chr, rng.integers(32, 500, size=12)))
    elif draw == 2:
      name, must_fail = f'{file}:{text[:20] or "nope"}', True
    elif draw == 3:
      name, must_fail = f'{file}{text[:20]}/', True
    path = directory / f'{index}.txt'
    path.write_text(f'{name}\nconfig.{key}={text}')
    case = f'{pathlib.Path(file).stem}: {name[-30:]} {key}={text[:30]}'
    yield case, path, must_fail


def read_overrides(path: pathlib.Path) -> None:
  """Gets as far as a start does before it opens its data."""
  name, *arguments = path.read_text().split('\n')
  settings = config_files.override(config_files.read(name), arguments)
  options.check(settings)
  assembly_lib.Assembly(settings).check_size()


FORMATS = {
    'checkpoint': (make_checkpoint, read_checkpoint),
    'model_directory': (make_model, read_model),
    'config_json': (make_config_json, read_config_json),
    'overrides': (make_overrides, read_overrides),
}
