"""ConvNeXt codecs at frame rate: the transforms around them, and the contract."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import streaming
from audiolm_jax.ops import mel
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers import parts
from audiolm_jax.tokenizers.parts import fourier
from audiolm_jax.tokenizers.parts import vocos
from tests.tokenizers import contract

HOP, SIZE = 8, 32


def _codec(causal=False, **decoder):
  sizes = {
      'hop': HOP,
      'size': SIZE,
      'dimension': 4,
      'width': 8,
      'hidden': 12,
      'kernel': 3,
      'blocks': 1,
      'causal': causal,
  }
  return codec_lib.Codec(
      encoder=parts.ENCODERS['vocos'](sample_rate=800, mels=6, **sizes),
      bottleneck=bottlenecks.BOTTLENECKS['rvq'](codebooks=2, vocabulary=16),
      decoder=parts.DECODERS['vocos'](**sizes, **decoder),
      sample_rate=800,
  )


@pytest.mark.parametrize(
    'options, num_samples',
    [
        ({}, [0, 1, HOP, HOP + 1, 5 * HOP - 3]),
        ({'causal': True, 'latency': 2 * HOP}, [1, HOP, 5 * HOP - 3]),
        (
            {'prior': 'attention', 'groups': 2, 'conditions': 3},
            [0, 1, 5 * HOP - 3],
        ),
    ],
    ids=['ahead', 'causal', 'attention'],
)
def test_contract(options, num_samples):
  codec = _codec(**options)
  variables = contract.compiled(codec, 'init')(jax.random.key(0))
  assert codec.steppable == ('causal' in options)
  bounded = codec.decoder.layer.reach(0, 9) is not None
  assert bounded == ('prior' not in options)
  variables = contract.with_used_codes(codec, variables)
  contract.assert_tokenizer_contract(codec, variables, num_samples=num_samples)


def test_centred_transforms_invert_each_other_at_any_length():
  num_samples = np.array([0, 1, 7, 8, 9, 61])
  x = np.random.default_rng(0).standard_normal((6, 61, 1)).astype(np.float32)
  mask = np.arange(61) < num_samples[:, None]
  x[~mask] = np.nan
  forward = fourier.CentredStft(SIZE, HOP)
  spectra, frames = forward.apply({}, x, mask)
  np.testing.assert_array_equal(frames.sum(axis=1), -(-num_samples // HOP))
  spectra = jnp.where(frames[..., None], spectra, np.nan)
  back, valid = fourier.CentredIstft(SIZE, HOP).apply({}, spectra, frames)
  np.testing.assert_array_equal(valid.sum(axis=1), -(-num_samples // HOP) * HOP)
  back = np.asarray(back)[:, :61]
  # The floor of the sum of squared windows costs nothing inside.
  np.testing.assert_allclose(back[mask], x[mask], atol=2e-5)


@pytest.mark.parametrize('inverse', [False, True])
def test_centred_transforms_reach_what_they_say(inverse):
  layer = (fourier.CentredIstft if inverse else fourier.CentredStft)(SIZE, HOP)
  count, width = (12, SIZE // 2 + 1) if inverse else (12 * HOP, 1)
  mask = np.ones((1, count), bool)
  x = np.random.default_rng(0).standard_normal((1, count, width))

  def run(x):
    return jnp.abs(layer.apply({}, x.astype(jnp.float32), mask)[0]).sum(-1)[0]

  jacobian = jax.jacobian(lambda scale: run(x * scale[None, :, None]))(
      np.ones(count)
  )
  depends = np.abs(np.asarray(jacobian)) > 1e-7
  for start in range(len(depends)):
    first, last = layer.reach(start, start + 1)
    where = np.flatnonzero(depends[start])
    assert first <= where.min() and where.max() < last
    # The ends of a periodic window are zeros.
    assert where.min() <= max(first + 1, 0)
    assert where.max() >= min(last, count) - 2


def test_polar_is_bounded_and_has_a_gradient_where_it_is_loud():
  x = jnp.array([[[200.0, 0.3, 1.0, 2.0]]])
  spectra = fourier.polar(x)
  np.testing.assert_allclose(np.abs(spectra[0, 0, 0]), 100.0, rtol=1e-5)
  np.testing.assert_allclose(
      spectra[0, 0, 1], np.exp(0.3) * np.exp(2j), rtol=1e-5
  )
  gradient = jax.grad(lambda x: jnp.abs(fourier.polar(x)).sum())(x)
  assert np.isfinite(gradient).all()


def test_log_mel_is_finite_with_its_gradient_in_silence():
  spectra = jnp.zeros((1, 2, SIZE // 2 + 1), jnp.complex64)
  bands = vocos.log_mel(spectra, 800, 6)
  np.testing.assert_allclose(bands, np.log(1e-7), rtol=1e-6)
  gradient = jax.grad(
      lambda x: vocos.log_mel(jax.lax.complex(x, x), 800, 6).sum()
  )(jnp.zeros((1, 2, SIZE // 2 + 1)))
  assert np.isfinite(gradient).all()
  filters = mel.mel_filters(800, SIZE, 6)
  tone = jnp.zeros_like(spectra).at[0, :, 5].set(3.0)
  np.testing.assert_allclose(
      vocos.log_mel(tone, 800, 6)[0, 0],
      np.log(np.maximum(3 * filters[5], 1e-7)),
      rtol=1e-4,
  )


def test_only_the_first_row_of_a_table_is_used():
  layer = vocos.ConditionalNorm(3)
  x = np.random.default_rng(0).standard_normal((2, 4, 5)).astype(np.float32)
  mask = np.ones((2, 4), bool)
  params = {
      'scale': jnp.stack([jnp.full(5, v) for v in (2.0, 3.0, 4.0)]),
      'bias': jnp.stack([jnp.full(5, v) for v in (0.5, 1.0, 7.0)]),
  }
  y, _ = layer.apply({'params': params}, x, mask)
  plain = {'scale': jnp.full(5, 2.0), 'bias': jnp.full(5, 0.5)}
  expected, _ = streaming.FrameNorm(1e-6).apply({'params': plain}, x, mask)
  np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize(
    'options, message',
    [
        ({'size': 30}, 'multiple of hop'),
        ({'hop': 9, 'size': 18}, 'even number'),
        ({'kernel': 4}, 'must be odd'),
        ({'latency': 8}, 'latency'),
        ({'causal': True, 'prior': 'attention'}, 'whole row'),
    ],
)
def test_what_cannot_be_is_refused(options, message):
  decoder = _codec().decoder
  with pytest.raises(config.ConfigError, match=message):
    dataclasses.replace(decoder, **options)
