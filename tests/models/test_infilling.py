"""Autoregression fills gaps given what is before them."""

import numpy as np
import pytest

from audiolm_jax import decoders
from audiolm_jax.models import token_lm
from tests.decoders import small

V, B, F, K = 5, 3, 8, 2
LENGTHS = np.array([8, 6, 8], np.int32)


@pytest.fixture(name='model', params=['parallel', 'delay', 'flatten'])
def _model(request):
  pattern = small.PATTERNS[request.param]
  decoder = decoders.Decoder((V,) * K, pattern=pattern, backbone=small.stack())
  codes = np.zeros((B, F, K), np.int32)
  params = small.parameters(decoder, codes, LENGTHS)
  return token_lm.TokenLM(decoder, params, 50.0)


def _codes(seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, V, (B, F, K)).astype(np.int32)


def test_what_is_known_comes_back_and_what_follows_has_no_say(model):
  known = np.ones((B, F, K), bool)
  known[:, 3:5] = False
  codes = _codes()
  found = model.infill(codes, known, num_frames=LENGTHS, seed=3)
  valid = np.arange(F) < LENGTHS[:, None]
  np.testing.assert_array_equal(
      found, np.where(valid[..., None] & known, codes, found)
  )
  assert not found[~valid].any()
  later = codes.copy()
  later[:, 5:] = _codes(1)[:, 5:]
  other = model.infill(later, known, num_frames=LENGTHS, seed=3)
  # A delay pattern says slots of later frames before the others of earlier ones.
  if model.decoder.pattern != small.PATTERNS['delay']:
    np.testing.assert_array_equal(other[:, 3:5], found[:, 3:5])
  earlier = np.array(codes)
  changed = 0
  for seed in range(4):
    earlier[:, :3] = _codes(2 + seed)[:, :3]
    other = model.infill(earlier, known, num_frames=LENGTHS, seed=3)
    changed += (other[:, 3:5] != found[:, 3:5]).any()
  assert changed


def test_a_prompt_is_continued_as_by_generate(model):
  codes = _codes()
  known = np.zeros((B, F, K), bool)
  known[:, :3] = True
  found = model.infill(codes, known, seed=5)
  np.testing.assert_array_equal(found, model.generate(codes[:, :3], F, seed=5))


def test_what_does_not_fit_is_refused(model):
  codes = _codes()
  with pytest.raises(ValueError, match='expected booleans'):
    model.infill(codes, np.ones((B, F, K)))
  with pytest.raises(ValueError):
    model.infill(codes + V, np.ones((B, F, K), bool))
