"""Directories of weights: read, written, and refused with reasons."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from audiolm_jax import interop
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import files
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers import parts
from tests.interop import tiny_weights
from tests.tokenizers import contract

_SIZES = {'filters': 2, 'dimension': 6, 'ratios': (3, 2), 'lstm_layers': 1}


@pytest.fixture(scope='module')
def codec():
  return codec_lib.Codec(
      encoder=parts.ENCODERS['seanet'](**_SIZES),
      bottleneck=bottlenecks.BOTTLENECKS['rvq'](codebooks=2, vocabulary=16),
      decoder=parts.DECODERS['seanet'](**_SIZES),
      sample_rate=24000,
  )


@pytest.fixture(scope='module')
def variables(codec):
  """Every number another one."""
  shapes = interop_base.abstract(codec)
  rng = np.random.default_rng(0)
  return jax.tree.map(
      lambda s: np.zeros(s.shape, s.dtype)
      if s.dtype == np.int32
      else rng.standard_normal(s.shape).astype(np.float32),
      shapes,
  )


@pytest.fixture
def directory(codec, variables, tmp_path):
  interop.save_pretrained(tmp_path, codec, variables, 'encodec')
  return tmp_path


def _change(directory, change):
  path = directory / files.WEIGHTS
  tensors = safetensors.numpy.load_file(path)
  change(tensors)
  safetensors.numpy.save_file(tensors, path)


def test_what_was_saved_is_loaded(codec, variables, directory):
  loaded, found = interop.load_pretrained(directory)
  assert loaded.encoder == codec.encoder
  assert loaded.bottleneck.codebooks == 2
  jax.tree.map(
      # Folded weight norm is multiplied out in fp32.
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7),
      found,
      variables,
  )


def test_weight_norm_kept_is_weight_norm_folded(directory):
  folded, plain = interop.load_pretrained(directory)
  kept, normed = interop.load_pretrained(directory, weight_norm=True)
  assert 'gain' in normed['params']['encoder']['layers_0']['layers_0']
  x = np.random.default_rng(0).standard_normal((1, 50, 1)).astype(np.float32)
  num_samples = np.array([50])
  np.testing.assert_allclose(
      contract.compiled(kept, 'encode_latents')(
          normed['params'], x, num_samples
      )[0],
      contract.compiled(folded, 'encode_latents')(
          plain['params'], x, num_samples
      )[0],
      rtol=1e-4,
      atol=1e-5,
  )


def test_older_names_of_weight_norm(directory, variables):
  def rename(tensors):
    for name in list(tensors):
      new = name.replace('parametrizations.weight.original0', 'weight_g')
      new = new.replace('parametrizations.weight.original1', 'weight_v')
      tensors[new] = tensors.pop(name)

  _change(directory, rename)
  _, found = interop.load_pretrained(directory)
  np.testing.assert_allclose(
      found['params']['decoder']['layers_0']['layers_3']['kernel'],
      variables['params']['decoder']['layers_0']['layers_3']['kernel'],
      rtol=2e-6,
      atol=1e-7,
  )


def test_all_that_does_not_fit_is_listed(directory):
  def spoil(tensors):
    del tensors['encoder.layers.3.conv.bias']
    tensors['decoder.layers.0.conv.bias'] = np.zeros(3, np.float32)
    tensors['quantizer.layers.1.codebook.embed'] = np.zeros((4, 6), np.float32)
    tensors['surplus'] = np.zeros(1, np.float32)

  _change(directory, spoil)
  with pytest.raises(interop.PretrainedError) as error:
    interop.load_pretrained(directory)
  text = str(error.value)
  assert '4 tensors do not fit' in text and str(directory) in text
  assert 'missing: encoder.layers.3.conv.bias' in text
  assert 'decoder.layers.0.conv.bias [3] gives [3]' in text
  assert 'quantizer.layers.1.codebook.embed [4, 6]' in text
  assert 'left over: surplus' in text


def test_half_precision_and_shards(directory, variables):
  path = directory / files.WEIGHTS
  tensors = safetensors.numpy.load_file(path)
  names = sorted(tensors)
  parts_of = {'a.safetensors': names[::2], 'b.safetensors': names[1::2]}
  for name, members in parts_of.items():
    half = {n: tensors[n].astype(np.float16) for n in members}
    safetensors.numpy.save_file(half, directory / name)
  path.unlink()
  index = {n: name for name, members in parts_of.items() for n in members}
  (directory / files.INDEX).write_text(json.dumps({'weight_map': index}))
  _, found = interop.load_pretrained(directory)
  np.testing.assert_allclose(
      found['state'].codebooks, variables['state'].codebooks, rtol=2e-3
  )


def test_bfloat16(directory, variables):
  ml_dtypes = pytest.importorskip('ml_dtypes')
  _change(
      directory,
      lambda t: t.update(
          {k: v.astype(ml_dtypes.bfloat16) for k, v in t.items()}
      ),
  )
  _, found = interop.load_pretrained(directory)
  np.testing.assert_allclose(
      found['state'].codebooks, variables['state'].codebooks, rtol=2e-2
  )


def test_what_is_no_model_is_refused(directory):
  with pytest.raises(interop.PretrainedError, match='config.json is missing'):
    interop.load_pretrained(directory / 'nothing')
  config = json.loads((directory / files.CONFIG).read_text())
  (directory / files.WEIGHTS).write_bytes(b'damaged')
  with pytest.raises(interop.PretrainedError, match='model.safetensors'):
    interop.load_pretrained(directory)
  (directory / files.WEIGHTS).unlink()
  with pytest.raises(interop.PretrainedError, match='convert a torch'):
    interop.load_pretrained(directory)
  with pytest.raises(interop.PretrainedError, match='convert a torch'):
    interop.load_pretrained(directory)
  del config['model_type']
  (directory / files.CONFIG).write_text(json.dumps(config))
  safetensors.numpy.save_file({}, directory / files.WEIGHTS)
  with pytest.raises(interop.PretrainedError, match='none of'):
    interop.load_pretrained(directory)


def test_a_config_without_a_key_names_it(tmp_path):
  """Of a family that has no defaults."""
  tiny_weights.write(tmp_path, 'speechtokenizer')
  config = json.loads((tmp_path / files.CONFIG).read_text())
  del config['dilation_base']
  (tmp_path / files.CONFIG).write_text(json.dumps(config))
  with pytest.raises(interop.PretrainedError, match='dilation_base'):
    interop.load_pretrained(tmp_path)


def test_variables_of_another_codec_are_not_saved(codec, variables, tmp_path):
  other = {**variables, 'params': {**variables['params'], 'decoder': {}}}
  with pytest.raises(interop.PretrainedError, match='missing, expected'):
    interop.save_pretrained(tmp_path, codec, other, 'encodec')
  assert not list(tmp_path.iterdir())
  with pytest.raises(interop.PretrainedError, match='one of'):
    interop.save_pretrained(tmp_path, codec, variables, 'nonesuch')
