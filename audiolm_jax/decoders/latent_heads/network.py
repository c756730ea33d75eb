"""The network of heads that denoise (MAR, 2406.11838, section 4.3)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.backbones import norms
from audiolm_jax.decoders import time_embedding


class AdalnMlp(nn.Module):
  """A residual perceptron over a noisy frame, modulated by h and the times.

  Every block is LayerNorm, factor and offset, two layers, gate; the three come
  from SiLU of the sum of what h and each time become. Gates, the modulation of
  the last norm and the last layer are 0 at the start, and so is what it gives.

  Attributes:
    width: of the residual.
    layers: blocks.
    time: how times become vectors, each with weights of its own.
  """

  width: config.Positive = 256
  layers: config.Positive = 3
  time: time_embedding.TimeEmbedding = time_embedding.TimeEmbedding()

  @nn.compact
  def __call__(
      self,
      z: Float[Array, 'M L'],
      h: Float[Array, 'M D'],
      *times: Float[Array, 'M'],
  ) -> Float[Array, 'M L']:
    """What is predicted, in single precision.

    Args:
      z: noisy latents.
      h: the backbone's outputs.
      *times: one or several.
    """
    width, axes = self.width, (None, 'embed')
    h = h.astype(jnp.float32)
    y = ops.linear(self, 'condition', h, width, axes, use_bias=True)
    for i, t in enumerate(times):
      name = f'time_{i}'
      y += self.time.clone(parent=self, name=name)(t, width)
    y = nn.silu(y)
    x = ops.linear(self, 'noisy', z, width, axes, use_bias=True)
    for i in range(self.layers):
      scale, shift, gate = self._modulation(f'block_{i}', y, 3)
      inner = self._norm(f'block_{i}_norm')(x) * (1 + scale) + shift
      inner = ops.linear(
          self, f'block_{i}_inner', inner, width, axes, use_bias=True
      )
      inner = ops.linear(
          self, f'block_{i}_outer', nn.silu(inner), width, axes, use_bias=True
      )
      x += gate * inner
    scale, shift = self._modulation('last', y, 2)
    x = self._norm('last_norm')(x) * (1 + scale) + shift
    return ops.linear(
        self,
        'denoised',
        x,
        z.shape[-1],
        ('embed', None),
        use_bias=True,
        init=nn.initializers.zeros,
    )

  def _norm(self, name):
    return norms.Norm('layer', 1e-6, parent=self, name=name)

  def _modulation(self, name, y, parts):
    """`parts` arrays [M, width], 0 at the start."""
    modulation = ops.linear(
        self,
        f'{name}_modulation',
        y,
        parts * self.width,
        (None, 'embed'),
        use_bias=True,
        init=nn.initializers.zeros,
    )
    return jnp.split(modulation, parts, axis=-1)
