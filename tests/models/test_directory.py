"""Model directories: what is read is what was written, or an error says why."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from audiolm_jax import ops
from audiolm_jax import param_transforms
from audiolm_jax.config import relocation
from audiolm_jax.data import factors
from audiolm_jax.models import directory
from audiolm_jax.models import fingerprints
from audiolm_jax.models import loading
from audiolm_jax.models import tensors
from audiolm_jax.models import toy
from audiolm_jax.ops import weights
from audiolm_jax.training import checksums
from audiolm_jax.training import mesh as mesh_lib
from tests.models import small_directories

ROOT = pathlib.Path(__file__).parents[2]


def test_a_file_of_tensors_is_the_librarys(tmp_path):
  arrays = {
      'matrix': np.arange(6, dtype=np.float32).reshape(2, 3),
      'scalar': np.float32(7),
      'none': np.zeros((0, 3), np.int8),
      'bits': np.array([True, False]),
      'half': np.array([1.5, -2], jnp.bfloat16),
      'turned': np.arange(6, dtype=np.uint32).reshape(2, 3).T,
  }
  specs = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in arrays.items()}
  path = tmp_path / 'x.safetensors'
  tensors.write(path, specs, iter(arrays.values()))
  library = safetensors.numpy.load_file(path)
  found, read = tensors.read(path)
  assert found == specs and library.keys() == arrays.keys()
  for name, array in read:
    np.testing.assert_array_equal(array, arrays[name])
    np.testing.assert_array_equal(library[name], arrays[name])
    assert array.dtype == library[name].dtype == arrays[name].dtype


def test_a_directory_gives_back_every_bit(tmp_path):
  module, variables = small_directories.toy_model(tmp_path, step=3)
  entry, read = loading.read(tmp_path)
  assert entry.manifest.module == module and entry.manifest.step == 3
  assert jax.tree.structure(read) == jax.tree.structure(variables)
  jax.tree.map(np.testing.assert_array_equal, read, variables)
  assert entry.manifest.fingerprint == fingerprints.of(module, variables)
  assert entry.manifest.fingerprint in (tmp_path / 'README.md').read_text()
  names = set(safetensors.numpy.load_file(tmp_path / 'model.safetensors'))
  assert names == {
      'params.blocks.bias', 'params.blocks.kernel', 'params.input',
      'params.output', 'state.mean',
  }  # fmt: skip


def test_one_tensor_at_a_time_is_on_the_host(tmp_path, monkeypatch):
  module, variables = toy.Mlp(), toy.Mlp().fresh(jax.random.key(0))
  alive, most = [], []
  gather = directory.gather

  def watched(leaf):
    array = gather(leaf)
    alive.append(weakref.ref(array))
    most.append(sum(ref() is not None for ref in alive))
    return array

  monkeypatch.setattr(directory, 'gather', watched)
  small_directories.write(tmp_path, 'mlp', module, variables)
  # The one that is being made, and the one that is let go of then.
  assert len(most) == 5 and max(most) <= 2


def _flipped(path):
  data = bytearray((path / 'model.safetensors').read_bytes())
  data[-30] ^= 1
  (path / 'model.safetensors').write_bytes(data)


def _cut(path):
  data = (path / 'model.safetensors').read_bytes()
  (path / 'model.safetensors').write_bytes(data[:-5])


def _other(**changes):
  def change(path):
    file = path / 'model.safetensors'
    arrays = {**safetensors.numpy.load_file(file), **changes}
    safetensors.numpy.save_file(
        {k: v for k, v in arrays.items() if v is not None}, file
    )

  return change


def _config(key, value, signed=True):
  """config.json with another value; with a checksum that fits, if signed."""

  def change(path):
    values = json.loads((path / 'config.json').read_text())
    at = values
    *groups, last = key.split('/')
    for group in groups:
      at = at[group]
    at[last] = value
    if signed:
      del values['checksum']
      values['checksum'] = checksums.of_json(values)
    (path / 'config.json').write_text(json.dumps(values))

  return change


def _text(text):
  return lambda path: (path / 'config.json').write_text(text)


def _pickled(path):
  (path / 'model.safetensors').unlink()
  (path / 'model.pkl').write_bytes(b'cos\nsystem\n.')


_ZEROS = np.zeros((4, 8), np.float32)


@pytest.mark.parametrize(
    'change,message',
    [
        (_flipped, 'model.safetensors is damaged: params.output is not what'),
        (_cut, 'model.safetensors is damaged'),
        (_pickled, 'model.safetensors is missing'),
        (_other(**{'params.input': None}), 'missing: params.input'),
        (_other(**{'params.more': _ZEROS}), 'left over: params.more'),
        (_other(**{'../../x': _ZEROS}), r'left over: \.\./\.\./x'),
        (
            _other(**{'params.input': _ZEROS.T.copy()}),
            r'mis-shaped: .*\(8, 4\)',
        ),
        (
            _other(**{'params.input': _ZEROS.astype(np.float16)}),
            'of another type: params.input is float16, expected float32',
        ),
        (_other(**{'params.input': _ZEROS}), 'params.input is not what was'),
        (_config('module/width', 9, signed=False), 'config.json is damaged'),
        (_config('module/width', 9), 'mis-shaped: params.input'),
        (_config('module/width', 'x'), "model.module.width = 'x'"),
        (_config('module/kind', 'os:system'), 'kind = .os:system'),
        (_config('module/kind', 'configs.none:X'), 'kind = .configs.none'),
        (_config('model', 7), 'model.model = 7'),
        (_config('fingerprint', 'x'), 'its fingerprint is'),
        (_config('format', 'audiolm_jax/9'), "expected 'audiolm_jax/1'"),
        (_config('checksums', 7), 'config.json is damaged'),
        (_text('[]'), r'config.json holds \[\]: expected an object'),
        (_text('{"format"'), 'config.json is not JSON'),
        (_text('[' * 100_000), 'config.json is nested too deeply'),
    ],
)
def test_damage_is_named_with_the_path(tmp_path, change, message):
  small_directories.toy_model(tmp_path)
  change(tmp_path)
  with pytest.raises(loading.ModelError, match=message) as error:
    loading.load(tmp_path)
  assert str(tmp_path) in str(error.value)


class Own(toy.Mlp):
  """A class of this test's own."""


def test_a_class_of_ones_own_runs_no_code_from_elsewhere(tmp_path):
  module = Own()
  variables = module.fresh(jax.random.key(0))
  small_directories.write(tmp_path, 'mlp', module, variables)
  # This module was imported, so it is known.
  assert type(loading.load(tmp_path).module) is Own
  text = (tmp_path / 'config.json').read_text()
  assert f'"kind": "{__name__}:Own"' in text
  (tmp_path / 'evil.py').write_text('raise SystemExit("ran")')
  _config('module/kind', 'evil:Own')(tmp_path)
  program = f'import audiolm_jax; audiolm_jax.load({str(tmp_path)!r})'
  done = subprocess.run(
      [sys.executable, '-c', program],
      cwd=tmp_path,
      env={**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
      capture_output=True,
      text=True,
      check=False,
  )
  assert 'ModelError' in done.stderr and 'import evil first' in done.stderr
  assert 'ran' not in done.stderr.splitlines()[-1]


class _Killed(BaseException):
  pass


def test_a_crash_at_any_moment_leaves_a_whole_one(tmp_path, monkeypatch):
  """Killed before each rename, sync and removal, one after the other."""
  module = toy.Mlp()
  trees = [module.fresh(jax.random.key(seed)) for seed in (0, 1)]
  old, new = (fingerprints.of(module, tree) for tree in trees)
  seen = []
  for moment in range(30):
    place = tmp_path / str(moment) / 'model'
    place.parent.mkdir()
    small_directories.write(place, 'mlp', module, trees[0])
    calls = []

    def killed(real, calls=calls, moment=moment):
      def call(*args, **kwargs):
        calls.append(real)
        if len(calls) == moment + 1:
          raise _Killed
        return real(*args, **kwargs)

      return call

    with monkeypatch.context() as patch:
      for owner, name in (
          (os, 'fsync'),
          (os, 'rename'),
          (os, 'replace'),
          (pathlib.Path, 'rename'),
          (pathlib.Path, 'replace'),
          (shutil, 'rmtree'),
      ):
        patch.setattr(owner, name, killed(getattr(owner, name)))
      try:
        beside = place.with_name('model.new')
        small_directories.write(beside, 'mlp', module, trees[1])
        directory.swap(beside, place)
      except _Killed:
        pass
    found = loading.read(place.parent)[0].manifest.fingerprint
    assert found in (old, new)
    seen.append(found)
    directory.recover(place)
    assert loading.read(place)[0].manifest.fingerprint == found
    if len(calls) <= moment:
      break
  # Old ones, then new ones, and more than ten moments.
  assert seen == sorted(seen, key=[old, new].index) and len(seen) > 10
  assert seen[0] == old and seen[-1] == new


def _adapted(module, variables, transform):
  """Variables in a transform's form, moved away from zero."""
  boxed = jax.eval_shape(module.fresh, jax.random.key(0))
  axes = mesh_lib.logical_axes(boxed['params'])
  params = transform.init(jax.random.key(1), variables['params'], axes)
  moved = ops.map_weights(
      lambda w: w.replace(b=w.b + 0.5) if weights.is_weight(w) else w, params
  )
  return {'params': moved, 'state': {'mean': jnp.float32(2)}}


@pytest.mark.parametrize(
    'transform,names',
    [
        (
            param_transforms.Lora(
                rank=2, targets=('input',), train=('output',)
            ),
            {'input.a', 'input.b', 'output'},
        ),
        (param_transforms.Frozen(('blocks',)), {'input', 'output'}),
    ],
)
def test_an_adapter_holds_what_it_adds(tmp_path, transform, names):
  module, variables = small_directories.toy_model(tmp_path / 'base')
  base = directory.stored(tmp_path / 'base')
  adapted = _adapted(module, variables, transform)
  _, frozen = transform.split(adapted['params'])
  assert directory.is_base(base, frozen)
  adapter = directory.Adapter(
      transform, str(tmp_path / 'base'), base.manifest.fingerprint
  )
  small_directories.write(
      tmp_path / 'adapter', 'mlp', module, adapted, adapter=adapter
  )
  stored = safetensors.numpy.load_file(
      tmp_path / 'adapter' / 'model.safetensors'
  )
  assert stored.keys() == {f'params.{name}' for name in names} | {'state.mean'}
  read = loading.read(tmp_path / 'adapter')[1]
  assert jax.tree.structure(read) == jax.tree.structure(adapted)
  jax.tree.map(np.testing.assert_array_equal, read, adapted)
  # The base elsewhere, and another one in its place.
  shutil.move(tmp_path / 'base', tmp_path / 'moved')
  with pytest.raises(loading.ModelError, match='whose base is not at .*/base'):
    loading.load(tmp_path / 'adapter')
  read = loading.read(tmp_path / 'adapter', tmp_path / 'moved')[1]
  jax.tree.map(np.testing.assert_array_equal, read, adapted)
  other = module.fresh(jax.random.key(5))
  small_directories.write(tmp_path / 'base', 'mlp', module, other)
  mine = base.manifest.fingerprint[:12]
  with pytest.raises(
      loading.ModelError, match=f'adapter of {mine}, but .*/base'
  ):
    loading.load(tmp_path / 'adapter')
  assert not directory.is_base(directory.stored(tmp_path / 'base'), frozen)
  with pytest.raises(loading.ModelError, match='is an adapter itself'):
    loading.load(tmp_path / 'adapter', base=tmp_path / 'adapter')


def test_low_rank_weights_without_a_base_become_plain(tmp_path):
  module, variables = toy.Mlp(), toy.Mlp().fresh(jax.random.key(0))
  transform = param_transforms.Lora(rank=2)
  variables = jax.tree.map(jnp.asarray, variables)
  small_directories.write(tmp_path / 'x', 'mlp', module, variables)
  adapted = _adapted(module, loading.read(tmp_path / 'x')[1], transform)
  small_directories.write(tmp_path / 'y', 'mlp', module, adapted)
  merged = {
      **adapted,
      'params': param_transforms.merge_update(adapted['params']),
  }
  jax.tree.map(
      np.testing.assert_array_equal, loading.read(tmp_path / 'y')[1], merged
  )


def test_a_path_in_the_module_does_not_stop_a_move(tmp_path):
  """Its last name stands in the fingerprint, wherever it lies."""
  values = {'pieces': '/a/b/pieces.model', 'vocabulary': 300, 'length': 5}
  assert relocation.names_only(factors.Text, values)['pieces'] == 'pieces.model'
