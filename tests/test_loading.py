"""A model finds the tokenizer that made its tokens, or says why not."""

import json

import pytest

from audiolm_jax import assembly
from audiolm_jax import config
from audiolm_jax import loading
from audiolm_jax.data import token_cache


class _Tokenizer:

  def fingerprint(self):
    return 'mine'


def _workdir(path, **data):
  (path / 'config.json').write_text(json.dumps({'data': data}))
  assert assembly.read(path).data.to_dict() == data
  return path


@pytest.mark.parametrize('made_by,fits', [('mine', True), ('other', False)])
def test_the_caches_tokenizer(tmp_path, monkeypatch, made_by, fits):
  header = {'tokenizer_workdir': 'there', 'tokenizer_hash': made_by}
  monkeypatch.setattr(token_cache, 'read_header', lambda path: header)
  tokenizers = {'there': _Tokenizer()}
  monkeypatch.setattr(loading, 'load', tokenizers.__getitem__)
  workdir = _workdir(tmp_path, kind='tokens', cache='c')
  if fits:
    assert loading.load_tokenizer(workdir) is tokenizers['there']
  else:
    with pytest.raises(config.ConfigError, match='no longer the one'):
      loading.load_tokenizer(workdir)


def test_a_model_of_something_else(tmp_path):
  workdir = _workdir(tmp_path, kind='synthetic')
  with pytest.raises(config.ConfigError, match="'synthetic'"):
    loading.load_tokenizer(workdir)
