"""What is no audio and what are no tokens is refused where it enters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.models import audio_tokenizer
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers import encoding
from audiolm_jax.tokenizers import long
from tests.tokenizers import tiny

FRAMES = 13
T = FRAMES * tiny.HOP


@functools.cache
def _bound(name):
  return audio_tokenizer.AudioTokenizer(*tiny.codec(name))


def _tokens(name, rows=2, frames=FRAMES):
  """Codes, or latents, of whole rows."""
  spec = tiny.codec(name)[0].spec
  num_samples = np.full(rows, spec.samples(frames), np.int32)
  if spec.dimension:
    latents = np.zeros((rows, frames, spec.dimension), np.float32)
    return tokenizers_base.Tokens(num_samples=num_samples, latents=latents)
  codes = np.zeros((rows, frames, len(spec.slots)), np.int32)
  return tokenizers_base.Tokens(num_samples=num_samples, codes=codes)


def _ways(name):
  """Every function that takes tokens: (name, function of tokens)."""
  codec, variables = tiny.codec(name)

  def coder(tokens):
    fields = {k: getattr(tokens, k) for k in ('codes', 'latents', 'scales')}
    block = encoding.Block(samples=int(tokens.num_samples[0]), **fields)
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
  if codec.min_step is not None:
    ways['steps'] = step
  return ways.items()


_SETTINGS = long.Settings(block_seconds=T / tiny.RATE)


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


@pytest.mark.parametrize('name', ['state', 'segments'])
@pytest.mark.parametrize('dtype', [np.int16, np.int32, np.uint8, bool])
def test_integers_for_audio(name, dtype):
  codec, variables = tiny.codec(name)
  audio = np.ones((2, T, 1), dtype)
  num_samples = np.full(2, T)
  ways = (
      lambda: _bound(name).encode(audio),
      lambda: codec.encode(variables, audio, num_samples),
      lambda: codec.encode(variables, jnp.asarray(audio), num_samples),
      lambda: jax.eval_shape(codec.encode, variables, audio, num_samples),
      lambda: long.Coder(codec, variables).encode([audio], lambda block: None),
  )
  for encode in ways:
    with pytest.raises(ValueError, match='samples; expected floats'):
      encode()


@pytest.mark.parametrize('name', ['state', 'segments'])
def test_audio_that_is_none(name):
  codec, variables = tiny.codec(name)
  good, num_samples = np.zeros((2, T, 1), np.float32), np.full(2, T)

  def with_sample(value):
    audio = good.copy()
    audio[1, 7, 0] = value
    return audio

  cases = [
      (with_sample(np.nan), num_samples, r'finite.*\(1, 7, 0\)'),
      (with_sample(-np.inf), num_samples, r'finite.*\(1, 7, 0\)'),
      (with_sample(-32768.0), num_samples, r'-32768 at \(1, 7, 0\).*scaled'),
      (good, num_samples + [0, 1], r'num_samples\[1\] = 209.*208 samples'),
      (good, num_samples * [1, -1], r'num_samples\[1\] = -208'),
      (good, num_samples[:1], r'num_samples have shape \(1,\)'),
      (good, num_samples * 1.0, 'num_samples of type float64'),
      (good[..., 0], num_samples, r'expected \[B, T, 1\]'),
      (np.tile(good, 2), num_samples, r'expected \[B, T, 1\]'),
      (good.astype(complex), num_samples, 'complex128 samples'),
  ]
  for audio, given, message in cases:
    with pytest.raises(ValueError, match=message):
      _bound(name).encode(audio, given)
    with pytest.raises(ValueError, match=message):
      codec.encode(variables, audio, given)
  # Past a row's end anything may stand.
  for value in (np.nan, 1e9):
    found = _bound(name).encode(with_sample(value), np.array([T, 7]))
    expected = _bound(name).encode(good, np.array([T, 7]))
    np.testing.assert_array_equal(found.codes, expected.codes)


def test_blocks_of_audio_that_is_none():
  coder = long.Coder(*tiny.codec('state'), _SETTINGS)
  good = np.zeros((1, T, 1), np.float32)
  bad = good.copy()
  bad[0, 5] = np.nan
  with pytest.raises(ValueError, match='after 208 samples: .*finite'):
    coder.encode([good, bad], lambda block: None)
  with pytest.raises(ValueError, match='after 208 frames: slot 0 of frame 0'):
    codes = np.zeros((1, T, 3), np.int32)
    blocks = [encoding.Block(T, codes=c) for c in (codes, codes - 1)]
    coder.decode(blocks, lambda audio: None)


@pytest.mark.parametrize('name', ['state', 'segments', 'continuous'])
def test_tokens_that_are_none(name):
  codec, variables = tiny.codec(name)
  good = _tokens(name)
  field = 'latents' if codec.spec.dimension else 'codes'
  values, num_samples = getattr(good, field), good.num_samples
  scales = np.ones((2, FRAMES), np.float32)
  cases = [
      (good.replace(durations=np.ones((2, FRAMES), int)), 'durations'),
      (good.replace(codes=None, latents=None), f'takes {field}'),
      (tokenizers_base.Tokens(num_samples, values, values), f'takes {field}'),
      (
          good.replace(num_samples=num_samples + [0, 1]),
          r'num_samples\[1\].*14 frames.*13',
      ),
      (
          good.replace(num_samples=num_samples * [1, -1]),
          r'num_samples\[1\] = -',
      ),
      (good.replace(num_samples=num_samples[:1]), 'num_samples have shape'),
      (good.replace(**{field: values[0]}), 'shape'),
      (good.replace(**{field: values[..., :0]}), 'shape'),
      (good.replace(**{field: np.tile(values, 2)}), 'shape'),
  ]
  if name == 'segments':
    cases += [
        (good.replace(scales=scales[:, 1:]), r'scales have shape \(2, 12\)'),
        (good.replace(scales=scales * np.nan), 'scales are not finite'),
    ]
  else:
    cases.append((good.replace(scales=scales), 'scales: .* no segments'))
  if name == 'continuous':
    broken = values.copy()
    broken[1, 4, 2] = np.inf
    cases += [
        (good.replace(latents=broken), 'latent 2 of frame 4 of row 1 is inf'),
        (good.replace(latents=values.astype(int)), 'type int64.*latents'),
    ]
  else:
    cases.append((good.replace(codes=values * 1.0), 'float64.*integer codes'))
  for tokens, message in cases:
    with pytest.raises(ValueError, match=message):
      _bound(name).decode(tokens)
    with pytest.raises(ValueError, match=message):
      codec.decode(variables, tokens)


def test_past_a_rows_frames_anything_may_stand():
  tokens = _tokens('state').replace(num_samples=np.array([T, 3 * tiny.HOP - 1]))
  expected, _ = _bound('state').decode(tokens)
  tokens.codes[1, 3:] = -1
  found, _ = _bound('state').decode(tokens)
  np.testing.assert_array_equal(found, expected)


def test_while_tracing_only_shapes_and_types_are_known():
  codec, variables = tiny.codec('state')
  tokens = _tokens('state')
  tokens.codes[0, 0, 0] = 99
  jax.eval_shape(codec.decode, variables, tokens)
  with pytest.raises(ValueError, match='float64.*integer codes'):
    floats = tokens.replace(codes=tokens.codes * 1.0)
    codec.decode(variables, floats)
  with pytest.raises(ValueError, match='shape'):
    wide = tokens.replace(codes=np.tile(tokens.codes, 2))
    jax.eval_shape(codec.decode, variables, wide)
