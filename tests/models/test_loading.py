"""A path leads to a model, or to an error that says why not."""

import shutil

import numpy as np
import pytest

import audiolm_jax
from audiolm_jax import config
from audiolm_jax import interop
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import directory
from audiolm_jax.models import kinds
from audiolm_jax.models import loading
from audiolm_jax.models import toy
from tests.interop import tiny_weights
from tests.models import small_directories
from tests.tokenizers import tiny


def test_a_path_is_a_work_directory_or_a_model_directory(tmp_path, monkeypatch):
  module, variables = small_directories.toy_model(tmp_path / 'work' / 'model')
  shutil.copytree(tmp_path / 'work' / 'model', tmp_path / 'elsewhere')
  x = np.ones((2, 5, 4), np.float32)
  wanted = toy.Predictor(module, variables)(x)
  monkeypatch.chdir(tmp_path / 'work')
  for path in ('.', 'model', '../elsewhere', tmp_path / 'work'):
    np.testing.assert_array_equal(audiolm_jax.load(path)(x), wanted)


def test_weights_from_elsewhere_by_the_same_call(tmp_path):
  tiny_weights.write(tmp_path / 'codec', 'encodec')
  codec, variables = interop.load_pretrained(tmp_path / 'codec')
  model = audiolm_jax.load(tmp_path / 'codec')
  wanted = audio_tokenizer.AudioTokenizer(codec, variables)
  assert model.fingerprint() == wanted.fingerprint()
  with pytest.raises(loading.ModelError, match='base = x is of no use'):
    audiolm_jax.load(tmp_path / 'codec', base='x')
  with pytest.raises(loading.ModelError, match='weights from elsewhere'):
    loading.load_tokenizer(tmp_path / 'codec')
  (tmp_path / 'codec' / 'config.json').write_text('{"model_type": "x"}')
  with pytest.raises(loading.ModelError, match=str(tmp_path)):
    audiolm_jax.load(tmp_path / 'codec')


def test_paths_without_a_model_say_what_to_do(tmp_path):
  with pytest.raises(loading.ModelError, match='nothing is no directory'):
    audiolm_jax.load(tmp_path / 'nothing')
  with pytest.raises(loading.ModelError, match='holds no model'):
    audiolm_jax.load(tmp_path)
  (tmp_path / 'config.json').write_text('{"objective": {}}')
  message = f'export_model.py {tmp_path}`'
  with pytest.raises(loading.ModelError, match=message):
    audiolm_jax.load(tmp_path)


def test_a_model_of_another_kind_is_no_tokenizer(tmp_path):
  small_directories.toy_model(tmp_path)
  with pytest.raises(config.ConfigError, match='Predictor, not a tokenizer'):
    loading.load_codec(tmp_path)
  with pytest.raises(config.ConfigError, match='no adapter: base = x'):
    audiolm_jax.load(tmp_path, base='x')


def test_a_model_knows_its_tokenizer(tmp_path):
  codec, variables = tiny.codec('state')
  small_directories.write(tmp_path / 'codec', 'codec', codec, variables)
  mine = audio_tokenizer.AudioTokenizer(codec, variables).fingerprint()
  assert loading.load_codec(tmp_path / 'codec').fingerprint() == mine
  # Moved with the model.
  speaks = directory.Speaks(str(tmp_path / 'codec'), mine)
  small_directories.toy_model(tmp_path / 'lm', tokenizer=speaks)
  assert loading.load_tokenizer(tmp_path / 'lm').fingerprint() == mine
  moved = tmp_path / 'moved'
  moved.mkdir()
  for name in ('codec', 'lm'):
    shutil.move(tmp_path / name, moved / name)
  assert loading.load_tokenizer(moved / 'lm').fingerprint() == mine
  # Without it.
  shutil.move(moved / 'codec', tmp_path / 'here')
  with pytest.raises(config.ConfigError, match='codec is no directory'):
    loading.load_tokenizer(moved / 'lm')
  found = loading.load_tokenizer(moved / 'lm', tmp_path / 'here')
  assert found.fingerprint() == mine
  # Another one.
  other = tiny.codec('segments')
  small_directories.write(tmp_path / 'other', 'codec', *other)
  with pytest.raises(config.ConfigError, match='other is another tokenizer'):
    loading.load_tokenizer(moved / 'lm', tmp_path / 'other')
  small_directories.toy_model(tmp_path / 'toy')
  with pytest.raises(config.ConfigError, match='not trained on tokens'):
    loading.load_tokenizer(tmp_path / 'toy')


def test_fingerprints_of_decoders_tell_rates_apart(tmp_path):
  module, variables = small_directories.toy_model(tmp_path / 'a')
  for name, rate in (('b', 50.0), ('c', 25.0)):
    directory.write(
        tmp_path / name,
        directory.Manifest(module, 'mlp', rate),
        variables,
        tmp_path / name,
    )
  prints = {
      directory.stored(tmp_path / name).manifest.fingerprint for name in 'abc'
  }
  assert len(prints) == 3
  rate = directory.stored(tmp_path / 'b').manifest.description.rate
  assert rate == 50.0 and kinds.Description(module).rate is None
