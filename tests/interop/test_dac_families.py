"""Weights of DAC's kin: what is saved is loaded; what does not fit is refused."""

import dataclasses

import jax
import numpy as np
import pytest

from audiolm_jax import interop
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import files
from tests.interop import tiny_weights

CONFIGS = tiny_weights.DAC_FAMILIES


def _made(name, weight_norm):
  family = interop.FAMILIES[name]
  codec = family.build(
      CONFIGS[name], interop_base.Options(weight_norm=weight_norm)
  )
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
      lambda s: rng.standard_normal(s.shape).astype(np.float32),
      interop_base.abstract(codec),
  )
  return codec, variables


@pytest.mark.parametrize('weight_norm', [False, True])
@pytest.mark.parametrize('name', sorted(CONFIGS))
def test_what_is_saved_is_loaded(name, weight_norm, tmp_path):
  codec, variables = _made(name, weight_norm)
  interop_base.check_complete(interop.FAMILIES[name], codec)
  interop.save_pretrained(tmp_path, codec, variables, name)
  loaded, found = interop.load_pretrained(tmp_path, weight_norm=weight_norm)
  assert loaded == codec
  # DAC's files hold no weight norm: directions come back at other lengths.
  if weight_norm and name == 'dac':
    loaded, found = interop.load_pretrained(tmp_path)
    other = tmp_path / 'again'
    interop.save_pretrained(other, loaded, found, name)
    first, second = (files.read(d)[1] for d in (tmp_path, other))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    return
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=3e-6, atol=1e-7),
      found,
      variables,
  )


def test_the_name_that_diffusers_gives_a_file(tmp_path):
  codec, variables = _made('oobleck', True)
  interop.save_pretrained(tmp_path, codec, variables, 'oobleck')
  (tmp_path / files.WEIGHTS).rename(tmp_path / files.DIFFUSERS)
  loaded, _ = interop.load_pretrained(tmp_path, weight_norm=True)
  assert loaded == codec


def test_a_codec_that_a_family_has_not_is_not_saved(tmp_path):
  codec, variables = _made('dac', True)
  encoder = dataclasses.replace(codec.encoder, dilations=(1, 3))
  other = dataclasses.replace(codec, encoder=encoder)
  with pytest.raises(interop.PretrainedError, match='no such encoder'):
    interop.save_pretrained(tmp_path, other, variables, 'dac')


def test_a_level_of_another_shape_is_named(tmp_path):
  codec, variables = _made('dac', False)
  interop.save_pretrained(tmp_path, codec, variables, 'dac')
  config, tensors = files.read(tmp_path)
  name = 'quantizer.quantizers.1.codebook.weight'
  tensors[name] = tensors[name][:3]
  files.write(tmp_path, config, tensors)
  with pytest.raises(interop.PretrainedError, match=f'{name} .3, 3.'):
    interop.load_pretrained(tmp_path)
