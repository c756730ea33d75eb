"""Mu-law of the waveform as a tokenizer: one code a sample and channel."""

import jax
import numpy as np

from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers import parts
from tests.tokenizers import contract

CODEC = codec_lib.Codec(
    encoder=parts.ENCODERS['waveform'](channels=2),
    bottleneck=bottlenecks.BOTTLENECKS['mu_law'](channels=2),
    decoder=parts.DECODERS['waveform'](channels=2),
    sample_rate=8000,
)


def test_it_is_a_tokenizer():
  variables = CODEC.init(jax.random.key(0))
  assert not jax.tree.leaves(variables)
  contract.assert_tokenizer_contract(
      CODEC, variables, num_samples=[0, 1, 2, 31, 40], frames_a_step=4
  )
  assert CODEC.spec.bits_per_second == 8000 * 2 * 8
  assert CODEC.steppable and CODEC.spec.latency == 0


def test_8_bits_are_38_db():
  rng = np.random.default_rng(0)
  x = rng.uniform(-0.5, 0.5, (1, 4000, 2)).astype(np.float32)
  num_samples = np.array([4000])
  tokens = CODEC.encode(
      {'params': {'bottleneck': {}, 'encoder': {}}, 'state': {}}, x, num_samples
  )
  y, _ = CODEC.decode(
      {'params': {'bottleneck': {}, 'decoder': {}}, 'state': {}}, tokens
  )
  noise = np.mean(np.square(y - x))
  assert 36 < 10 * np.log10(np.mean(np.square(x)) / noise) < 40
