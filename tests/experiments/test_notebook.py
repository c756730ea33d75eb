"""The Colab notebook runs from its first cell to its last."""

import pathlib

import nbclient
import nbformat

from audiolm_jax.data import paths

_NOTEBOOK = (
    pathlib.Path(__file__).parents[2] / 'experiments/colab/quickstart.ipynb'
)


def test_the_quickstart_notebook_runs(tmp_path, monkeypatch):
  # Its own corpora, but the shared compilation cache.
  xla = paths.cache_dir() / 'xla'
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(xla))
  monkeypatch.setenv('AUDIOLM_JAX_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setenv('TMPDIR', str(tmp_path))
  notebook = nbformat.read(_NOTEBOOK, as_version=4)
  client = nbclient.NotebookClient(
      notebook,
      timeout=300,
      kernel_name='python3',
      resources={'metadata': {'path': str(_NOTEBOOK.parent)}},
  )
  client.execute()
  text = ''.join(
      output.get('text', '')
      for cell in notebook.cells
      for output in cell.get('outputs', [])
  )
  assert 'bits a frame of the prompt: [' in text
  assert 'parameters trained' in text
