"""The contract of tokenizers holds, and fails where it must."""

import dataclasses

import jax.numpy as jnp
import pytest

from audiolm_jax.tokenizers import codec as codec_lib
from tests.tokenizers import contract
from tests.tokenizers import tiny


@pytest.mark.parametrize('name', ['state', 'reach', 'segments'])
def test_tiny_codecs_hold_it(name):
  contract.assert_tokenizer_contract(*tiny.codec(name))


class _Faulty(codec_lib.Codec):
  """A codec with a fault in `encode` or `decode`."""


class _DropsSamples(_Faulty):

  def decode(self, variables, tokens):
    audio, num_samples = super().decode(variables, tokens)
    return audio, jnp.maximum(num_samples - 1, 0)


class _ReadsPastTheEnd(_Faulty):

  def encode(self, variables, audio, num_samples, rng=None):
    tokens = super().encode(variables, audio, num_samples, rng)
    seen = jnp.isnan(audio[:, -1:, :])
    return tokens.replace(codes=(tokens.codes + seen) % 8)


class _MixesRows(_Faulty):

  def decode(self, variables, tokens):
    audio, num_samples = super().decode(variables, tokens)
    mask = jnp.arange(audio.shape[1]) < num_samples[:, None]
    return audio + 1e-3 * audio.mean() * mask[..., None], num_samples


class _ForgetsState(_Faulty):

  def encode_step(self, variables, audio, mask, state):
    tokens, mask, _ = super().encode_step(variables, audio, mask, state)
    return tokens, mask, state


@pytest.mark.parametrize(
    'fault, message',
    [
        (_DropsSamples, 'not equal'),
        (_ReadsPastTheEnd, 'past an end'),
        (_MixesRows, 'a row decoded alone'),
        (_ForgetsState, 'steps'),
    ],
)
def test_planted_faults_are_found(fault, message):
  sound, variables = tiny.codec('state')
  fields = {
      f.name: getattr(sound, f.name)
      for f in dataclasses.fields(codec_lib.Codec)
  }
  with pytest.raises(AssertionError, match=message):
    contract.assert_tokenizer_contract(
        fault(**fields),
        variables,
        num_samples=[1, 3 * tiny.HOP + 1],
        # Noise without near ties: of so few codes one would be too many.
        seed=5,
    )
