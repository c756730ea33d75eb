"""Models by their names on a hub, which here is a server on this machine."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import audiolm_jax
from audiolm_jax.models import hub
from audiolm_jax.models import loading
from tests.interop import tiny_weights
from tests.models import hub_server
from tests.models import small_directories

pytest.importorskip('huggingface_hub')
ROOT = pathlib.Path(__file__).parents[2]
# The endpoint is read when the library is imported: a process of its own.
_PROGRAM = """
import json, sys
import audiolm_jax
from audiolm_jax.models import loading
results = []
for name in sys.argv[1:]:
  try:
    model = audiolm_jax.load(name)
    results.append([type(model).__name__, str(loading.locate(name))])
  except loading.ModelError as error:
    results.append(['ModelError', str(error)])
print(json.dumps(results))
"""


def _load(home, port, *names):
  environment = {
      **os.environ,
      'HF_ENDPOINT': f'http://127.0.0.1:{port}',
      'HF_HOME': str(home),
      'JAX_PLATFORMS': 'cpu',
      'PYTHONPATH': str(ROOT),
  }
  done = subprocess.run(
      [sys.executable, '-c', _PROGRAM, *names],
      env=environment,
      capture_output=True,
      text=True,
      check=False,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


def test_models_of_ours_and_of_others_come_by_name(tmp_path):
  root = tmp_path / 'hub'
  small_directories.toy_model(root / 'org' / 'toy')
  tiny_weights.write(root / 'org' / 'codec', 'encodec')
  (root / 'org' / 'toy' / 'code.py').write_text('raise SystemExit')
  (root / 'org' / 'toy' / 'pickled.bin').write_bytes(b'cos\nsystem\n.')
  with hub_server.serving(root) as server:
    ours, theirs, tagged, none, other = _load(
        tmp_path / 'home',
        server.server_port,
        'hf://org/toy',
        'hf://org/codec@main',
        'hf://org/toy@v1',
        'hf://org/none',
        'hf://org/toy@other',
    )
    port, asked = server.server_port, server.asked
  assert (ours[0], theirs[0], tagged[0]) == (
      'Predictor',
      'AudioTokenizer',
      ours[0],
  )
  # Tensors and JSON alone.
  assert not [path for path in asked if 'code.py' in path or '.bin' in path]
  files = {path.name for path in pathlib.Path(ours[1]).iterdir()}
  assert files == {'config.json', 'model.safetensors'}
  x = np.ones((2, 5, 4), np.float32)
  np.testing.assert_array_equal(
      audiolm_jax.load(ours[1])(x), audiolm_jax.load(root / 'org' / 'toy')(x)
  )
  for found, name in ((none, 'hf://org/none'), (other, 'hf://org/toy@other')):
    assert found[0] == 'ModelError' and f'{name} could not be had' in found[1]
  # Without the server: what is here already, and an error for the rest.
  again, absent = _load(
      tmp_path / 'home', port, 'hf://org/toy', 'hf://org/absent'
  )
  assert again == ours
  assert absent[0] == 'ModelError'
  assert 'hf://org/absent could not be had' in absent[1]


@pytest.mark.parametrize(
    'name',
    ['hf://', 'hf://a', 'hf://a/b/c', 'hf://a/../b', 'hf://a/b@', 'hf://a/b@..']
    + ['hf://a/b@x@y', 'hf:// a/b', 'hf://a/b?c', 'hf://-a/b'],
)
def test_malformed_names(name):
  with pytest.raises(loading.ModelError, match='is no name of a model'):
    audiolm_jax.load(name)


def test_without_the_library(monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(
      loading.ModelError, match=r"pip install 'audiolm_jax\[hub"
  ):
    hub.fetch('hf://org/name')
