"""SpeechTokenizer, WavTokenizer and X-Codec-2: configs and names, without torch."""

import jax
import numpy as np
import pytest

from audiolm_jax import interop
from audiolm_jax.interop import base as interop_base
from tests.interop import tiny_weights

FAMILIES = tiny_weights.SPEECH_FAMILIES
each = pytest.mark.parametrize('name', FAMILIES)


def _includes(found, wanted):
  for key, value in wanted.items():
    if isinstance(value, dict):
      _includes(found[key], value)
    else:
      assert found[key] == value, key


@each
def test_published_configs(name):
  config, _, frames, bits = FAMILIES[name]
  recognised = [n for n, f in interop.FAMILIES.items() if f.recognises(config)]
  assert recognised == [name]
  family = interop.FAMILIES[name]
  codec = family.build(config, interop.Options())
  assert codec.spec.frame_rate == frames and not codec.spec.causal
  assert codec.spec.bits_per_second == bits
  _includes(family.config_of(codec), config)


@each
def test_what_was_saved_is_loaded(name, tmp_path):
  published, shrink, _, _ = FAMILIES[name]
  family = interop.FAMILIES[name]
  codec = family.build({**published, **shrink}, interop.Options())
  interop_base.check_complete(family, codec)
  rng = np.random.default_rng(0)

  def draw(path, spec):
    if jax.tree_util.keystr(path).endswith('updates'):
      return np.zeros(spec.shape, spec.dtype)  # It is not stored.
    return rng.standard_normal(spec.shape).astype(spec.dtype)

  variables = jax.tree_util.tree_map_with_path(
      draw, interop_base.abstract(codec)
  )
  interop.save_pretrained(tmp_path, codec, variables, name)
  loaded, found = interop.load_pretrained(tmp_path)
  assert loaded == codec
  jax.tree.map(
      # Folded weight norm is multiplied out in fp32.
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6),
      found,
      variables,
  )
