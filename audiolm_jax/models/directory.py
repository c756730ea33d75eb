"""A trained model as a directory of its own.

    config.json        the module, and what its model for people needs beside;
                       checksums of the tensors and of the file itself
    model.safetensors  {'params', 'state'} as tensors with dotted names, such as
                       'params.encoder.layer_0.kernel'
    README.md          what it is, for people

An adapter's directory has what was trained alone, and says of which base.
"""

from collections.abc import Iterator
import dataclasses
import json
import os
import pathlib
import shutil
from typing import Annotated, Any
import zlib

import flax.linen as nn
import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np

from audiolm_jax import config
from audiolm_jax import param_transforms
from audiolm_jax.config import relocation
from audiolm_jax.interop import fields
from audiolm_jax.models import fingerprints
from audiolm_jax.models import kinds
from audiolm_jax.models import tensors
from audiolm_jax.ops import weights
from audiolm_jax.training import checkpoints
from audiolm_jax.training import checksums
from audiolm_jax.training import mesh as mesh_lib
from audiolm_jax.training import options
from audiolm_jax.training import writers

FOLDER = 'model'  # In a work directory.
CONFIG, WEIGHTS, CARD = 'config.json', 'model.safetensors', 'README.md'
_FORMAT = 'audiolm_jax/1'
# Stand in config.json beside the fields of a Manifest.
_OWN = ('format', 'checksums', 'checksum')


class ModelError(config.ConfigError):
  """A directory that holds no model, a damaged one, or not the wanted one."""


@dataclasses.dataclass(frozen=True)
class Adapter:
  """What a model adds to another one.

  Attributes:
    transform: how its parameters stand on the base's.
    base: the base's model directory.
    fingerprint: the base's.
  """

  transform: Annotated[Any, config.Kind(lambda: param_transforms.TRANSFORMS)]
  base: Annotated[str, config.Path()]
  fingerprint: str


@dataclasses.dataclass(frozen=True)
class Speaks:
  """The tokenizer whose tokens a model was trained on.

  Attributes:
    directory: where it was.
    fingerprint: which it is.
  """

  directory: Annotated[str, config.Path()]
  fingerprint: str


@dataclasses.dataclass(frozen=True)
class Manifest:
  """A model but for its variables.

  Attributes:
    module: a tokenizer or a decoder.
    model: its name in its run, such as 'lm'.
    rate: frames or samples a second; None for a tokenizer, whose spec says it.
    step: optimizer steps of its run.
    fingerprint: of the whole model, the base of an adapter included.
    adapter: what it stands on, if it is not whole.
    tokenizer: whose tokens it is of, where it is of such.
  """

  module: Annotated[
      Any, config.Kind(lambda: {k: v.module for k, v in kinds.KINDS.items()})
  ]
  model: str
  rate: float | None = None
  step: config.Count = 0
  fingerprint: str = ''
  adapter: Adapter | None = None
  tokenizer: Speaks | None = None

  @property
  def description(self) -> kinds.Description:
    return kinds.Description(self.module, self.rate)


@dataclasses.dataclass(frozen=True)
class Stored:
  """A directory's config.json.

  Attributes:
    path: the directory.
    manifest: what the model is.
    checksums: of its tensors, by name.
  """

  path: pathlib.Path
  manifest: Manifest
  checksums: dict[str, int]


# -- writing ------------------------------------------------------------------


def write(
    path: pathlib.Path,
    manifest: Manifest,
    variables: Any,
    place: pathlib.Path,
) -> None:
  """Writes a directory, tensor by tensor; one that is there is replaced.

  All processes of a run call it, and the first one writes. Of sharded arrays
  one at a time is gathered, so that a host needs memory for one.

  Args:
    path: where to write it.
    manifest: what it is, but for the fingerprint.
    variables: {'params', 'state'} of the whole model, with the leaves of the
      adapter's transform if there is one. Without one, low-rank weights become
      plain.
    place: where the directory is going to be: paths in it are from there.
  """
  whole = manifest.adapter is None
  leaves = jax.tree_util.tree_leaves_with_path(
      variables, is_leaf=weights.is_weight if whole else None
  )
  names = {mesh_lib.key(p) for p, _ in leaves}
  if not whole:
    trained, _ = manifest.adapter.transform.split(variables['params'])
    names = set(mesh_lib.flat({'params': trained, 'state': variables['state']}))
  specs = {
      mesh_lib.key(p): jax.eval_shape(weights.materialize, leaf)
      for p, leaf in leaves
      if mesh_lib.key(p) in names
  }
  digest = fingerprints.Fingerprint(manifest.module, manifest.rate)
  sums: dict[str, int] = {}

  def gathered() -> Iterator[np.ndarray]:
    for key_path, leaf in leaves:
      array = gather(weights.materialize(leaf))
      name = mesh_lib.key(key_path)
      digest.add(key_path, array)
      if name in names:
        sums[name] = checksum(array)
        yield array
      del array

  if jax.process_index():
    for _ in gathered():
      pass
    return
  shutil.rmtree(path, ignore_errors=True)
  path.mkdir(parents=True)
  tensors.write(path / WEIGHTS, specs, gathered())
  manifest = dataclasses.replace(manifest, fingerprint=digest.hexdigest())
  writers.write_atomically(path / CARD, _card(manifest, specs))
  text = _config_text(manifest, sums, place)
  writers.write_atomically(path / CONFIG, text)
  _sync(path)


def _config_text(manifest, sums, place) -> str:
  values = config.to_config(manifest).to_dict()
  values = relocation.portable(Manifest, values, place)
  values |= {'format': _FORMAT, 'checksums': sums}
  # As it is read back: tuples are lists there.
  values = json.loads(json.dumps(values))
  values['checksum'] = checksums.of_json(values)
  return json.dumps(values, indent=2, sort_keys=True) + '\n'


def swap(new: pathlib.Path, place: pathlib.Path) -> None:
  """Puts a written directory in a place, of whose old one nothing is left.

  At any moment the old or the new one is whole at the place or, between two
  renames, the old one at the side, where `located` looks, too.
  """
  aside = _aside(place)
  if place.exists():
    shutil.rmtree(aside, ignore_errors=True)
    place.rename(aside)
  new.rename(place)
  _sync(place.parent)
  shutil.rmtree(aside, ignore_errors=True)


def recover(place: pathlib.Path) -> None:
  """Ends a `swap` that was cut off between its renames."""
  if not place.exists() and _aside(place).is_dir():
    _aside(place).rename(place)


def located(place: pathlib.Path) -> pathlib.Path | None:
  """Where the directory that belongs in a place is; None if there is none."""
  for path in (place, _aside(place)):
    if path.is_dir():
      return path
  return None


def _aside(place):
  return place.with_name(f'{place.name}.old')


def _sync(path: pathlib.Path) -> None:
  """Waits until the names in a directory are on the disk."""
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)


def gather(leaf: Any) -> np.ndarray:
  """A leaf on the host of every process; nothing of it is kept on `leaf`."""
  if not isinstance(leaf, jax.Array):
    return np.asarray(leaf)
  if not leaf.is_fully_addressable:
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
  # Of a copy: an array keeps what it once was on the host.
  return np.asarray(jnp.copy(leaf))


def checksum(array: np.ndarray) -> int:
  """CRC-32 of an array's bytes."""
  return zlib.crc32(fingerprints.raw(array))


def _card(manifest: Manifest, specs) -> str:
  module, adapter = manifest.module, manifest.adapter
  size = sum(spec.size for spec in specs.values())
  lines = [
      f'# {type(module).__name__} ({manifest.description.kind})',
      '',
      f'A model of audiolm_jax after {manifest.step} steps:'
      " `audiolm_jax.load('DIRECTORY')`.",
      '',
      f'- fingerprint: `{manifest.fingerprint}`',
      f'- numbers in model.safetensors: {size}',
  ]
  if adapter is not None:
    kind = type(adapter.transform).__name__
    lines.append(
        f'- an adapter ({kind}) of the base `{adapter.fingerprint}`, without'
        ' which it cannot be loaded'
    )
  if manifest.tokenizer is not None:
    lines.append(f'- its tokenizer: `{manifest.tokenizer.fingerprint}`')
  return '\n'.join(lines) + '\n'


# -- reading ------------------------------------------------------------------


def is_model(values: Any) -> bool:
  """Whether what a config.json holds is of such a directory."""
  return isinstance(values, dict) and 'format' in values


def stored(path: pathlib.Path) -> Stored:
  """What a directory's config.json says, checked.

  Raises:
    ModelError: naming the file, if it is missing or damaged, or of a class that
      is not known here.
  """
  file = path / CONFIG
  try:
    values = fields.read(file)
  except fields.PretrainedError as error:
    raise ModelError(str(error)) from error
  if values.get('format') != _FORMAT:
    raise ModelError(
        f'{file}: format = {fields.shown(values.get("format"))}: expected'
        f' {_FORMAT!r}.'
    )
  own = {key: values.pop(key, None) for key in _OWN}
  sums = own['checksums']
  signed = {**values, **{k: own[k] for k in ('format', 'checksums')}}
  if own['checksum'] != checksums.of_json(signed) or not isinstance(sums, dict):
    raise ModelError(
        f'{file} is damaged: it is not what was written. Export the model anew.'
    )
  try:
    values = relocation.placed(Manifest, values, path)
    with options.building('its module'):
      manifest = config.build(Manifest, values, 'model')
  except config.ConfigError as error:
    raise ModelError(f'{file}: {error}') from error
  return Stored(path, manifest, sums)


def variables_of(
    entry: Stored, base: tuple[Stored, Any] | None = None
) -> dict[str, Any]:
  """A directory's variables, held to be what was written.

  Args:
    entry: the directory.
    base: an adapter's base, and its variables.

  Returns:
    {'params', 'state'} on the default device. An adapter's parameters have the
    leaves of its transform.

  Raises:
    ModelError: listing the tensors that are missing, left over, of another
      shape or type, or not what was written.
  """
  manifest, file = entry.manifest, entry.path / WEIGHTS
  frozen = None
  try:
    with options.building('the module'):
      boxed = jax.eval_shape(manifest.description.init, jax.random.key(0))
      variables = {'state': {}, **nn.meta.unbox(boxed)}
      if manifest.adapter is not None:
        transform = manifest.adapter.transform
        axes = mesh_lib.logical_axes(boxed['params'])
        whole = transform.init(jax.random.key(0), base[1]['params'], axes)
        variables['params'], frozen = transform.split(whole)
  except config.ConfigError as error:
    raise ModelError(f'{entry.path / CONFIG}: {error}') from error
  variables = _filled(file, variables, entry.checksums)
  if frozen is not None:
    variables['params'] = transform.merge(variables['params'], frozen)
  own = fingerprints.of(manifest.module, variables, manifest.rate)
  if own != manifest.fingerprint:
    raise ModelError(
        f'{entry.path} is damaged: its fingerprint is {own[:12]}, not'
        f' {manifest.fingerprint[:12]}. Export the model anew.'
    )
  return variables


def _filled(file: pathlib.Path, variables: Any, sums: dict[str, int]) -> Any:
  """A tree of shapes with a file's tensors in their places."""
  wanted = mesh_lib.flat(variables)
  try:
    specs, arrays = tensors.read(file)
    problems = checkpoints.mismatches(
        {k: v.shape for k, v in wanted.items()},
        {k: v.shape for k, v in specs.items()},
    )
    problems += [
        f'of another type: {name} is {specs[name].dtype}, expected'
        f' {leaf.dtype}'
        for name, leaf in wanted.items()
        if name in specs and specs[name].dtype != leaf.dtype
    ]
    if problems:
      raise ModelError(f'{file} does not fit:\n  ' + '\n  '.join(problems))
    read = {}
    for name, array in arrays:
      if checksum(array) != sums.get(name):
        problems.append(f'{name} is not what was written')
      # A copy: the file may change where it is mapped into memory.
      read[name] = jnp.array(array)
  except tensors.TensorFileError as error:
    raise ModelError(str(error)) from error
  if problems:
    raise ModelError(
        f'{file} is damaged: {"; ".join(problems)}. Export the model anew.'
    )
  return jax.tree_util.tree_map_with_path(
      lambda path, _: read[mesh_lib.key(path)], variables
  )


def is_base(entry: Stored, frozen: Any) -> bool:
  """Whether a directory holds, bit for bit, what an adapter stands on.

  Args:
    entry: of a model that may be the base.
    frozen: the parameters that do not train, as a transform splits them; holes
      are None.
  """
  if entry.manifest.adapter is not None:
    return False
  leaves = jax.tree_util.tree_leaves_with_path(
      {'params': frozen}, is_leaf=weights.is_weight
  )
  same = True
  for path, leaf in leaves:
    leaf = getattr(leaf, 'w', leaf)
    if weights.is_weight(leaf):
      return False  # Packed: no directory has such.
    # To the end, in every process: each takes part in the gathering.
    same &= checksum(gather(leaf)) == entry.checksums.get(mesh_lib.key(path))
  return same
