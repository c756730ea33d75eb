"""A model finds the tokenizer that made its tokens, or says why not."""

import json

import pytest

from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import interop
from audiolm_jax import loading
from audiolm_jax.data import token_cache
from audiolm_jax.models import audio_tokenizer
from tests.tokenizers import tiny


class _Tokenizer:

  def fingerprint(self):
    return 'mine'


def _workdir(path, **data):
  (path / 'config.json').write_text(json.dumps({'data': data}))
  assert assembly_lib.read(path).data.to_dict() == data
  return path


@pytest.mark.parametrize('made_by,fits', [('mine', True), ('other', False)])
def test_the_caches_tokenizer(tmp_path, monkeypatch, made_by, fits):
  header = {'tokenizer_workdir': 'there', 'tokenizer_hash': made_by}
  monkeypatch.setattr(token_cache, 'read_header', lambda path: header)
  tokenizers = {'there': _Tokenizer()}
  monkeypatch.setattr(loading, 'load_codec', tokenizers.__getitem__)
  workdir = _workdir(tmp_path, kind='tokens', cache='/c')
  if fits:
    assert loading.load_tokenizer(workdir) is tokenizers['there']
  else:
    with pytest.raises(config.ConfigError, match='no longer the one'):
      loading.load_tokenizer(workdir)
  tokenizers |= {'here': tokenizers['there'], 'there': None}
  if fits:
    assert loading.load_tokenizer(workdir, 'here') is tokenizers['here']
  else:
    with pytest.raises(config.ConfigError, match='here is another tokenizer'):
      loading.load_tokenizer(workdir, 'here')


def test_a_model_of_something_else(tmp_path):
  workdir = _workdir(tmp_path, kind='synthetic')
  with pytest.raises(config.ConfigError, match="'synthetic'"):
    loading.load_tokenizer(workdir)


@pytest.mark.parametrize(
    'weights',
    [
        'model.safetensors',
        'model.safetensors.index.json',
        'diffusion_pytorch_model.safetensors',
    ],
)
def test_a_codec_of_either_kind_of_directory(tmp_path, monkeypatch, weights):
  codec, variables = tiny.codec('state')
  mine = audio_tokenizer.AudioTokenizer(codec, variables)
  monkeypatch.setattr(loading, 'load', lambda path: mine)
  assert loading.load_codec(tmp_path) is mine
  monkeypatch.setattr(loading, 'load', lambda path: 'a decoder')
  with pytest.raises(config.ConfigError, match='holds a str, not a tokenizer'):
    loading.load_codec(tmp_path)

  (tmp_path / weights).touch()
  monkeypatch.setattr(
      interop, 'load_pretrained', lambda path: (codec, variables)
  )
  assert loading.load_codec(tmp_path).tokenizer is codec
  monkeypatch.undo()
  with pytest.raises(config.ConfigError, match=str(tmp_path)):
    loading.load_codec(tmp_path)
