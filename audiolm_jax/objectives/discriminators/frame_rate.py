"""A discriminator that works at the rate of frames: cheap enough for CPUs."""

from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.objectives.discriminators import base as discriminators_base
from audiolm_jax.ops import stft


class _Frames(nn.Module):
  """ConvNeXt blocks on the spectra of one window."""

  size: int
  hop: int
  width: int
  hidden: int
  kernel: int
  blocks: int

  @nn.compact
  def __call__(self, audio, lengths):
    count = -(-audio.shape[1] // self.hop)
    # Frame n is centred on the middle of the n-th hop.
    before = (self.size - self.hop) // 2
    total = (count - 1) * self.hop + self.size
    audio = jnp.moveaxis(audio, 2, 1)
    audio = jnp.pad(audio, ((0, 0), (0, 0), (before, 0)))
    audio = discriminators_base.pad_to(audio, total, axis=2)[..., :total]
    spectra = stft.stft(audio, self.size, self.hop)
    spectra = jnp.moveaxis(spectra, 1, 2)
    x = spectra_features(spectra).reshape(audio.shape[0], count, -1)
    x = discriminators_base.Map.of(x, -(-lengths // self.hop))
    x = x.apply(lambda v: self._dense('input', v, self.width))
    features = []
    for i in range(self.blocks):
      x = self._block(f'block_{i}', x)
      features.append(x.apply(nn.relu))
    x = x.apply(lambda v: self._norm('norm', v))
    logits = x.apply(lambda v: self._dense('head', v, 1))
    return discriminators_base.Verdict(
        logits.replace(values=logits.values[..., 0]), tuple(features)
    )

  def _block(self, name, x):
    channels = x.values.shape[-1]
    filters = ops.weight(
        self,
        f'{name}_depthwise',
        nn.initializers.lecun_normal(in_axis=0, out_axis=()),
        (self.kernel, channels),
        (None, 'channels_out'),
    )
    padding = ((self.kernel - 1) // 2, self.kernel // 2)
    y = ops.depthwise_conv(x.values, filters, padding)
    y = self._norm(f'{name}_norm', y)
    y = nn.relu(self._dense(f'{name}_in', y, self.hidden))
    y = self._dense(f'{name}_out', y, channels, scale=0.1)
    return discriminators_base.Map.of(x.values + y, x.counts)

  def _dense(self, name, x, features, scale=1.0):
    return ops.linear(
        self,
        f'{name}_kernel',
        x,
        features,
        ('channels_in', 'channels_out'),
        use_bias=True,
        init=nn.initializers.variance_scaling(scale, 'fan_in', 'normal'),
    )

  def _norm(self, name, x):
    """Layer normalisation of every frame; its shift is the next bias's."""
    scale = ops.weight(
        self, f'{name}_scale', nn.initializers.ones, x.shape[-1:], (None,)
    )
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(variance + 1e-5) * scale


class FrameRate(discriminators_base.Discriminator):
  """One-dimensional ConvNeXt blocks (Liu et al. 2022) on STFT features.

  A two-dimensional discriminator convolves every bin of every frame; here a
  frame is one vector, as in the codecs that work at frame rate. ReLU, whose
  gradient is cheap on CPUs.

  Attributes:
    sizes: windows, in samples.
    overlap: windows that cover a sample; hops are size / overlap.
    width: channels.
    hidden: channels inside a block.
    kernel: taps of a block's depthwise convolution, in frames.
    blocks: for each window.
  """

  sizes: Annotated[tuple[int, ...], config.Range(min=16)] = (2048, 1024, 512)
  overlap: config.Positive = 2
  width: config.Positive = 192
  hidden: config.Positive = 384
  kernel: config.Positive = 7
  blocks: config.Positive = 2

  @nn.compact
  def __call__(
      self, audio: Float[Array, 'B T C'], lengths: Int[Array, 'B']
  ) -> tuple[discriminators_base.Verdict, ...]:
    audio = discriminators_base.zero_past(audio, lengths)
    return tuple(
        _Frames(
            size,
            size // self.overlap,
            self.width,
            self.hidden,
            self.kernel,
            self.blocks,
            name=f'size_{size}',
        )(audio, lengths)
        for size in self.sizes
    )


def spectra_features(spectra: Array) -> Float[Array, '*N D']:
  """Log magnitude, and real and imaginary parts of |S|^0.3 e^(i phase)."""
  power = jnp.square(spectra.real) + jnp.square(spectra.imag) + 1e-6
  compress = power**-0.35
  return jnp.concatenate(
      [
          (jnp.log(power) + 4.0) / 4.0,
          spectra.real * compress,
          spectra.imag * compress,
      ],
      axis=-1,
  )
