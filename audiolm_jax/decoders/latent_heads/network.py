"""The network of heads that denoise (MAR, 2406.11838, section 4.3)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import norms
from audiolm_jax.decoders import time_embedding


class AdalnMlp(nn.Module):
  """A residual perceptron over a noisy frame, modulated by h and the times.

  Every block is norm, factor and offset, two layers, gate; the three come from
  SiLU of the sum of what h and each time become. Gates, the modulation of the
  last norm and the last layer are 0 at the start, and so is what it gives.

  Attributes:
    width: of the residual.
    layers: blocks.
    time: how times become vectors, each with weights of its own.
    hidden: between the two layers of a block; None for `width`.
    activation: there; see `mlps.activate`.
    norm: of blocks, and the last.
    norm_epsilon: what `norms.Norm` adds to the mean square.
    norm_bias: whether the norms of blocks have a learned offset.
    last_scale: whether the last norm has a learned factor of its own, beside
      that of its modulation.
    use_bias: whether all layers have biases, but for those of `time`.
  """

  width: config.Positive = 256
  layers: config.Positive = 3
  time: time_embedding.TimeEmbedding = time_embedding.TimeEmbedding()
  hidden: config.Positive | None = None
  activation: mlps.Activation = 'silu'
  norm: norms.Kind = 'layer'
  norm_epsilon: config.NonNegative = 1e-6
  norm_bias: bool = False
  last_scale: bool = True
  use_bias: bool = True

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
    width = self.width
    y = self._linear('condition', h.astype(jnp.float32), width)
    for i, t in enumerate(times):
      name = f'time_{i}'
      y += self.time.clone(parent=self, name=name)(t, width)
    y = nn.silu(y)
    x = self._linear('noisy', z, width)
    for i in range(self.layers):
      scale, shift, gate = self._modulation(f'block_{i}', y, 3)
      norm = self._norm(f'block_{i}_norm', use_bias=self.norm_bias)
      x += gate * self._perceptron(f'block_{i}', norm(x) * (1 + scale) + shift)
    scale, shift = self._modulation('last', y, 2)
    norm = self._norm('last_norm', use_scale=self.last_scale)
    x = norm(x) * (1 + scale) + shift
    return self._linear('denoised', x, z.shape[-1], ('embed', None), True)

  def _perceptron(self, name, x):
    """The two layers of a block, of which the first may be gated."""
    hidden, gate = self.hidden or self.width, None
    up = self._linear(f'{name}_inner', x, hidden)
    if self.activation in mlps.GATED:
      gate = self._linear(f'{name}_gate', x, hidden)
    x = mlps.activate(self.activation, up, gate)
    return self._linear(f'{name}_outer', x, self.width)

  def _norm(self, name, **options):
    return norms.Norm(
        self.norm, self.norm_epsilon, parent=self, name=name, **options
    )

  def _modulation(self, name, y, parts):
    """`parts` arrays [M, width], 0 at the start."""
    features = parts * self.width
    modulation = self._linear(f'{name}_modulation', y, features, zero=True)
    return jnp.split(modulation, parts, axis=-1)

  def _linear(self, name, x, features, axes=(None, 'embed'), zero=False):
    options = {'init': nn.initializers.zeros} if zero else {}
    bias = self.use_bias
    return ops.linear(self, name, x, features, axes, use_bias=bias, **options)
