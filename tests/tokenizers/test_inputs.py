"""What is no audio and what are no tokens is refused where it enters."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.tokenizers import base
from audiolm_jax.tokenizers import bound
from audiolm_jax.tokenizers import long
from audiolm_jax.tokenizers import token_files
from tests.tokenizers import tiny

FRAMES = 13
T = FRAMES * tiny.HOP


@functools.cache
def _bound(name):
  return bound.BoundTokenizer(*tiny.codec(name))


def _tokens(name, rows=2, frames=FRAMES):
  """Codes, or latents, of whole rows."""
  spec = tiny.codec(name)[0].spec
  lengths = np.full(rows, spec.samples(frames), np.int32)
  if spec.dimension:
    latents = np.zeros((rows, frames, spec.dimension), np.float32)
    return base.Tokens(lengths=lengths, latents=latents)
  codes = np.zeros((rows, frames, len(spec.slots)), np.int32)
  return base.Tokens(lengths=lengths, codes=codes)


def _ways(name):
  """Every function that takes tokens: (name, function of tokens)."""
  codec, variables = tiny.codec(name)

  def coder(tokens):
    fields = {k: getattr(tokens, k) for k in ('codes', 'latents', 'scales')}
    block = token_files.Block(samples=int(tokens.lengths[0]), **fields)
    long.Coder(codec, variables, _SETTINGS).decode([block], lambda audio: None)

  def step(tokens):
    values = tokens.latents if tokens.codes is None else tokens.codes
    mask = np.ones(values.shape[:2], bool)
    # Refused before anything is computed, the state included.
    codec.decode_step(variables, values, mask, None)

  ways = {
      'bound': _bound(name).decode,
      'pure': lambda tokens: codec.decode(variables, tokens),
      'on the device': lambda tokens: codec.decode(
          variables, jax.tree.map(jnp.asarray, tokens)
      ),
      'blocks': coder,
  }
  if codec.least_step is not None:
    ways['steps'] = step
  return ways.items()


_SETTINGS = long.Settings(block_seconds=T / tiny.RATE)


@pytest.mark.xfail(strict=True, reason='faults F3')
@pytest.mark.parametrize('name', ['state', 'reach', 'segments', 'multi_rate'])
@pytest.mark.parametrize('value', [-1, 8, 1 << 20])
def test_codes_out_of_their_vocabulary(name, value):
  tokens = _tokens(name)
  tokens.codes[1, 5, 2] = value
  message = f'slot 2 of frame 5 of row 1 holds code {value}.*vocabulary is 8'
  for way, decode in _ways(name):
    with pytest.raises(ValueError, match=message):
      decode(tokens)
      pytest.fail(way)


@pytest.mark.xfail(strict=True, reason='faults F9')
@pytest.mark.parametrize('name', ['state', 'segments'])
@pytest.mark.parametrize('dtype', [np.int16, np.int32, np.uint8, bool])
def test_integers_for_audio(name, dtype):
  codec, variables = tiny.codec(name)
  audio = np.ones((2, T, 1), dtype)
  lengths = np.full(2, T)
  ways = (
      lambda: _bound(name).encode(audio),
      lambda: codec.encode(variables, audio, lengths),
      lambda: codec.encode(variables, jnp.asarray(audio), lengths),
      lambda: jax.eval_shape(codec.encode, variables, audio, lengths),
      lambda: long.Coder(codec, variables).encode([audio], lambda block: None),
  )
  for encode in ways:
    with pytest.raises(ValueError, match='samples; expected floats'):
      encode()
