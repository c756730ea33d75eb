"""X-Codec-2's parts where no other library is needed: lengths, edges, chunks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers import parts
from audiolm_jax.tokenizers.parts import conformer
from audiolm_jax.tokenizers.parts import xcodec2
from tests.tokenizers import contract

HOP = 320


def tiny():
  """A codec that compiles in seconds."""
  grid = (4, 4, 3)
  return codec_lib.Codec(
      encoder=parts.ENCODERS['xcodec2'](
          width=1,
          strides=(64, 5),
          acoustic=6,
          semantic=8,
          hidden=8,
          layers=1,
          heads=2,
          kernel=3,
          left=2,
          right=1,
          grid=grid,
      ),
      bottleneck=bottlenecks.BOTTLENECKS['fsq'](grid=grid, project=False),
      decoder=parts.DECODERS['xcodec2'](
          dimension=3,
          fused=6,
          width=8,
          hidden=8,
          layers=1,
          heads=2,
          head_width=4,
          groups=4,
      ),
      whole_frames=True,
  )


def test_contract():
  codec = tiny()
  assert not codec.steppable and codec.encoder.layer.reach(0, 1) is None
  variables = contract.compiled(codec, 'init')(jax.random.key(0))
  contract.assert_tokenizer_contract(
      codec, variables, num_samples=[0, 1, HOP, 4 * HOP - 3]
  )


def test_strides_must_meet_the_features():
  with pytest.raises(config.ConfigError, match='320'):
    dataclasses.replace(tiny().encoder, strides=(8, 8))


def test_features_are_standardised_over_a_rows_own_frames():
  num_samples = np.array([0, 2, 5]) * HOP
  x = np.random.default_rng(0).standard_normal((3, 5 * HOP, 1), np.float32)
  mask = np.arange(5 * HOP) < num_samples[:, None]
  layer = conformer.KaldiFeatures()
  found, frames = layer.apply({}, np.where(mask[..., None], x, np.nan), mask)
  assert np.isfinite(found).all()
  np.testing.assert_array_equal(frames.sum(axis=1), num_samples // HOP)
  for row, count in zip(np.asarray(found), num_samples // HOP, strict=True):
    bands = row[:count].reshape(-1, 80)
    if count:
      np.testing.assert_allclose(bands.mean(axis=0), 0, atol=1e-4)
      np.testing.assert_allclose(bands.var(axis=0, ddof=1), 1, rtol=1e-3)


def test_attention_in_chunks_is_attention_at_once(monkeypatch):
  layer = conformer.RelativeAttention(heads=2, left=3, right=2)
  x = np.random.default_rng(0).standard_normal((2, 11, 6)).astype(np.float32)
  mask = np.arange(11) < np.array([[11], [4]])
  params = layer.init(jax.random.key(0), x, mask)
  whole, _ = layer.apply(params, x, mask)
  monkeypatch.setattr(conformer, '_CHUNK', 4)
  chunks, _ = layer.apply(params, x, mask)
  np.testing.assert_allclose(chunks[0], whole[0], atol=1e-5)
  np.testing.assert_allclose(chunks[1, :4], whole[1, :4], atol=1e-5)


class TestAntiAliasedSnake:
  """Against the filters written as matrices at twice the rate."""

  def setup_method(self):
    self.layer = xcodec2.AntiAliasedSnake(separate=True, log_scale=True)
    rng = np.random.default_rng(0)
    self.params = {
        'alpha': jnp.array([0.3, -0.2]),
        'beta': jnp.array([0.1, 0.4]),
    }
    self.x = rng.standard_normal((1, 19, 2)).astype(np.float32)

  def run(self, x, mask=None):
    mask = np.ones(x.shape[:2], bool) if mask is None else mask
    return self.layer.apply({'params': self.params}, x, mask)[0]

  def test_is_interpolation_snake_and_decimation(self):
    taps = xcodec2.low_pass()
    np.testing.assert_allclose(taps, taps[::-1], atol=1e-7)
    columns = []
    for channel, (a, b) in enumerate(
        np.exp(np.stack([self.params['alpha'], self.params['beta']], axis=-1))
    ):
      x = np.pad(self.x[0, :, channel], 5, mode='edge')
      zeros = np.zeros(2 * len(x))
      zeros[::2] = x
      up = 2 * np.convolve(zeros, taps)[15 : 15 + 38]
      up = up + np.sin(a * up) ** 2 / b
      down = np.convolve(np.pad(up, (5, 6), mode='edge'), taps, 'valid')[::2]
      columns.append(down)
    np.testing.assert_allclose(
        self.run(self.x)[0], np.stack(columns, axis=-1), atol=1e-5
    )

  def test_a_constant_passes_as_through_snake(self):
    a, b = np.exp(self.params['alpha']), np.exp(self.params['beta'])
    found = self.run(jnp.full((1, 9, 2), 0.7))
    expected = 0.7 + np.sin(a * 0.7) ** 2 / b
    np.testing.assert_allclose(
        found, np.broadcast_to(expected, (1, 9, 2)), rtol=1e-5
    )

  def test_padding_reaches_nothing(self):
    mask = np.arange(19)[None] < 7
    x = np.where(mask[..., None], self.x, np.nan)
    found = self.run(x, mask)[:, :7]
    np.testing.assert_allclose(found, self.run(self.x[:, :7]), atol=1e-6)

  def test_reach_is_what_it_says(self):
    jacobian = jax.jacobian(lambda x: self.run(x).sum(-1)[0, 9])(self.x)
    where = np.flatnonzero(np.abs(jacobian).sum(-1)[0] > 1e-9)
    assert (where.min(), where.max() + 1) == self.layer.reach(9, 10)
    assert not self.layer.steppable
