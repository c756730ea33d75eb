"""The Conformer of w2v-BERT 2.0 and its features, as codecs use it for meaning.

Gulati et al. 2020 (2005.08100); Barrault et al. 2023 (2312.05187, section 3.2.1).
Attention sees the whole row, its biases depend on how far a key is away.
"""

from fractions import Fraction
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from audiolm_jax import ops
from audiolm_jax import streaming
from audiolm_jax.ops import sharding
from audiolm_jax.ops import stft
from audiolm_jax.streaming import layers as streaming_layers

RATE = 16000
_SHIFT, _WINDOW, _FFT, _MELS = 160, 400, 512, 80
# Kaldi's features are of 16-bit samples; its floor is the least float32 step.
_SCALE, _FLOOR = 2.0**15, 1.1920929e-7
_PREEMPHASIS = 0.97
# Queries taken at a time, for memory linear in their number.
_CHUNK = 1024


class KaldiFeatures(streaming.Layer):
  """Log mel bands [B, T / 320, 160] of mono 16 kHz audio [B, T, 1].

  Kaldi's: windows of 25 ms each 10 ms, without their mean, with the first
  differences' emphasis. Each band has mean 0 and variance 1 over its row; two
  neighbours are one frame. A row's own end, not the batch's, is its end.
  """

  @property
  def block_size(self) -> int:
    return 2 * _SHIFT

  @property
  def output_ratio(self) -> Fraction:
    return Fraction(1, 2 * _SHIFT)

  @nn.nowrap
  def output_spec(self, spec):
    return jax.ShapeDtypeStruct((2 * _MELS,), spec.dtype)

  @nn.nowrap
  def reach(self, start, stop):
    return None  # The mean and variance are those of the row.

  def __call__(self, x, mask, context=None):
    del context
    missing = -x.shape[1] % self.block_size
    x = streaming.pad_time(
        streaming.zero_masked(x, mask), _SHIFT, missing + _SHIFT
    )
    mask = streaming_layers.block_mask(
        streaming.pad_time(mask, 0, missing), self.block_size
    )
    shape = (*mask.shape, 2 * _MELS)
    if not mask.shape[1]:
      return jnp.zeros(shape), mask
    frames = stft.frame(x[..., 0].astype(jnp.float32) * _SCALE, _WINDOW, _SHIFT)
    frames -= jnp.mean(frames, axis=-1, keepdims=True)
    before = jnp.concatenate([frames[..., :1], frames[..., :-1]], axis=-1)
    frames = (frames - _PREEMPHASIS * before) * _povey()
    spectra = sharding.by_rows(lambda x: jnp.fft.rfft(x, n=_FFT), frames)
    power = jnp.square(jnp.abs(spectra))
    with jax.default_matmul_precision('highest'):
      bands = jnp.log(jnp.maximum(power @ _kaldi_filters(), _FLOOR))
    bands = _standardised(bands, jnp.repeat(mask, 2, axis=1))
    return bands.reshape(shape), mask


class RelativeAttention(streaming.Layer):
  """Attention over the row with a learned term for each distance to a key.

  Attributes:
    heads: divides the width.
    left: farther keys before a query count as this far.
    right: farther keys after a query count as this far.
  """

  heads: int
  left: int = 64
  right: int = 8

  @nn.nowrap
  def reach(self, start, stop):
    return None

  @nn.compact
  def __call__(self, x, mask, context=None):
    del context
    batch, length, width = x.shape
    x = streaming.zero_masked(x, mask)

    def project(name):
      y, _ = streaming.Dense(width, name=name)(x, mask)
      return y.reshape(batch, length, self.heads, width // self.heads)

    q, k, v = project('query'), project('key'), project('value')
    distances = self.left + self.right + 1
    table = ops.weight(
        self,
        'distances',
        nn.initializers.normal(0.02),
        (distances, width // self.heads),
        (None, None),
    )
    near = ops.einsum('bnhd,pd->bnhp', q, table)

    def attend(start, size):
      def here(y):
        return jax.lax.dynamic_slice_in_dim(y, start, size, axis=1)

      away = jnp.arange(length) - (start + jnp.arange(size))[:, None]
      index = jnp.clip(away, -self.left, self.right) + self.left
      scores = jnp.einsum('bnhd,bshd->bnhs', here(q), k)
      scores += jnp.take_along_axis(here(near), index[None, :, None], axis=-1)
      scores = scores.astype(jnp.float32) * q.shape[-1] ** -0.5
      valid = mask[:, None, None]
      scores = jnp.where(valid, scores, jnp.finfo(jnp.float32).min)
      weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
      return jnp.einsum('bnhs,bshd->bnhd', weights, v)

    if length <= _CHUNK:
      y = attend(0, length)
    else:
      after = -length % _CHUNK
      q, near = (
          jnp.pad(a, ((0, 0), (0, after), (0, 0), (0, 0))) for a in (q, near)
      )
      chunk = jax.checkpoint(functools.partial(attend, size=_CHUNK))
      y = jax.lax.map(chunk, jnp.arange(0, length, _CHUNK))
      y = jnp.moveaxis(y, 0, 1).reshape(batch, -1, *q.shape[2:])[:, :length]
    y = y.reshape(batch, length, width)
    return streaming.Dense(width, name='out')(y, mask)[0], mask


def conformer_block(
    width: int,
    hidden: int,
    heads: int,
    kernel: int = 31,
    left: int = 64,
    right: int = 8,
    epsilon: float = 1e-5,
) -> streaming.Serial:
  """Half a perceptron, attention, a causal convolution, half a perceptron."""

  def norm():
    return streaming.FrameNorm(epsilon)

  def perceptron():
    layers = (
        norm(),
        streaming.Dense(hidden),
        streaming.Map(jax.nn.silu),
        streaming.Dense(width),
        streaming.Map(_half),
    )
    return streaming.Residual(streaming.Serial(layers))

  attention = (norm(), RelativeAttention(heads, left, right))
  convolution = (
      norm(),
      streaming.Dense(2 * width, use_bias=False),
      streaming.Map(_glu),
      streaming.Conv(width, kernel, groups=width, use_bias=False),
      norm(),
      streaming.Map(jax.nn.silu),
      streaming.Dense(width, use_bias=False),
  )
  return streaming.Serial(
      (
          perceptron(),
          streaming.Residual(streaming.Serial(attention)),
          streaming.Residual(streaming.Serial(convolution)),
          perceptron(),
          norm(),
      )
  )


def _half(x):
  return 0.5 * x


def _glu(x):
  value, gate = jnp.split(x, 2, axis=-1)
  return value * jax.nn.sigmoid(gate)


def _standardised(x, mask):
  """Mean 0 and (unbiased) variance 1 over each row's valid frames."""
  mask = mask[..., None]
  count = jnp.sum(mask, axis=1, keepdims=True)
  mean = jnp.sum(jnp.where(mask, x, 0), axis=1, keepdims=True)
  x = jnp.where(mask, x - mean / jnp.maximum(count, 1), 0)
  variance = jnp.sum(jnp.square(x), axis=1, keepdims=True)
  variance /= jnp.maximum(count - 1, 1)
  return x * jax.lax.rsqrt(variance + 1e-7)


@functools.cache
def _povey():
  """Kaldi's window: a symmetric Hann window to the power of 0.85."""
  return (np.hanning(_WINDOW) ** 0.85).astype(np.float32)


@functools.cache
def _kaldi_filters():
  """[257, 80]: triangles on the mel scale itself, from 20 Hz to 8 kHz."""

  def to_mel(hertz):
    return 1127.0 * np.log1p(hertz / 700.0)

  bins = to_mel(np.arange(_FFT // 2 + 1) * RATE / _FFT)[:, None]
  edges = np.linspace(to_mel(20.0), to_mel(RATE / 2), _MELS + 2)
  left, centre, right = edges[:-2], edges[1:-1], edges[2:]
  rising = (bins - left) / (centre - left)
  falling = (right - bins) / (right - centre)
  return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
