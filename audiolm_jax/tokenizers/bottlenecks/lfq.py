"""Lookup-free quantisation (Yu et al. 2023, MAGVIT-v2, 2310.05737)."""

import dataclasses
from typing import Annotated

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from audiolm_jax import config
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers.bottlenecks import base as bottlenecks_base
from audiolm_jax.tokenizers.bottlenecks import projections
from audiolm_jax.tokenizers.bottlenecks import vq


class State(flax.struct.PyTreeNode):
  """The average distribution over the codes: [G, V]."""

  average: Float[Array, 'G V']


@dataclasses.dataclass(frozen=True)
class Lfq(bottlenecks_base.Bottleneck):
  """The signs of a few dimensions; no codebook.

  The probability of code c given z is the softmax over codes of
  2 <z, c> / temperature (section 3.1). Losses, means over groups:
  'commitment', mean square of (z - its code); 'entropy', that of a frame's
  codes, in nats, which is to fall; 'diversity', minus that of the codes of all
  frames, which is to rise. The latter does not add over frames, so it is taken
  as the cross entropy with a running average of the distribution: it adds, and
  has the same gradient where the average is that of the batch.

  Attributes:
    bits: dimensions of a code; V = 2^bits.
    groups: codes side by side, each of dimensions of its own.
    project: linear maps with bias from and to the encoder's width, which
      otherwise must be groups * bits.
    scale: the values of a dimension are -scale and scale.
    temperature: of the distribution over codes.
    decay: of the average distribution, an optimizer step.
    commitment_weight: default factor of 'commitment'.
    entropy_weight: default factor of 'entropy'.
    diversity_weight: default factor of 'diversity'.
  """

  bits: Annotated[int, config.Range(min=1, max=16)] = 10
  groups: config.Positive = 1
  project: bool = True
  scale: Annotated[float, config.Range(min=1e-6)] = 1.0
  temperature: Annotated[float, config.Range(min=1e-6)] = 0.01
  decay: config.Share = 0.9
  commitment_weight: config.NonNegative = 0.25
  entropy_weight: config.NonNegative = 0.1
  diversity_weight: config.NonNegative = 0.1

  @property
  def loss_weights(self):
    return {
        'commitment': self.commitment_weight,
        'entropy': self.entropy_weight,
        'diversity': self.diversity_weight,
    }

  @property
  def quantiser(self):
    return 'FSQ'  # The nearest of the taxonomy's kinds: two values each.

  def slots(self):
    return tuple(
        tokenizers_base.Slot(codebook=k, vocabulary=2**self.bits)
        for k in range(self.groups)
    )

  def init(self, rng, dimension):
    width = self.groups * self.bits
    vocabulary = 2**self.bits
    uniform = jnp.full((self.groups, vocabulary), 1 / vocabulary)
    return {
        'params': projections.around(rng, dimension, width, self.project),
        'state': State(uniform),
    }

  def quantise(self, variables, x, mask, *, levels=None, rng=None):
    del levels, rng  # One level, deterministic.
    params = nn.meta.unbox(variables['params'])
    x = jnp.where(mask[..., None], x.astype(jnp.float32), 0.0)
    if self.project:
      x = projections.apply(params['in'], x)
    z = x.reshape(*mask.shape, self.groups, self.bits)
    chosen = jnp.where(z > 0, self.scale, -self.scale)
    codes = jnp.sum((z > 0) * self._basis, axis=-1, dtype=jnp.int32)
    far = jnp.abs(z) + self.scale
    margins = vq.margin(jnp.abs(z - chosen), far).min(axis=-1)
    latents = self._output(params, z + jax.lax.stop_gradient(chosen - z))
    latents = jnp.where(mask[..., None], latents, 0.0)
    products = jnp.einsum(
        'bfgd,vd->bfgv',
        z,
        self._vectors(),
        precision=jax.lax.Precision.HIGHEST,
    )
    log_p = jax.nn.log_softmax(2 * products / self.temperature)
    p = jnp.exp(log_p)
    average = jnp.log(jnp.maximum(variables['state'].average, 1e-12))
    losses = {
        'commitment': jnp.square(z - chosen).mean(axis=(-1, -2)),
        'entropy': -jnp.sum(p * log_p, axis=-1).mean(axis=-1),
        'diversity': jnp.sum(p * average, axis=-1).mean(axis=-1),
    }
    return bottlenecks_base.Quantised(
        latents=latents,
        losses={n: jnp.where(mask, v, 0.0) for n, v in losses.items()},
        codes=jnp.where(mask[..., None], codes, 0),
        margins=jnp.where(mask[..., None], margins, 1.0),
        semantic=latents,
        residuals=jax.lax.stop_gradient(p),
    )

  def dequantise(self, variables, tokens):
    self.check_prefix(tokens)
    bits = tokens[..., None] // self._basis % 2
    values = jnp.where(bits > 0, self.scale, -self.scale)
    return self._output(nn.meta.unbox(variables['params']), values)

  def statistics(self, quantised, mask, rng):
    del rng
    valid = mask[..., None, None]
    return {
        'probabilities': jnp.sum(quantised.residuals * valid, axis=(0, 1)),
        'frames': jnp.sum(mask).astype(jnp.float32),
    }

  def update(self, state, statistics, rng):
    del rng
    frames = statistics['frames']
    new = statistics['probabilities'] / jnp.maximum(frames, 1.0)
    average = self.decay * state.average + (1 - self.decay) * new
    return State(jnp.where(frames > 0, average, state.average))

  def metrics(self, state):
    return vq.average_metrics(state.average)

  def code_vectors(self, variables):
    del variables
    return jnp.stack([self._vectors()] * self.groups)

  @property
  def _basis(self):
    return 2 ** np.arange(self.bits, dtype=np.int32)

  def _vectors(self):
    bits = np.arange(2**self.bits)[:, None] // self._basis % 2
    return jnp.asarray(self.scale * (2.0 * bits - 1.0), jnp.float32)

  def _output(self, params, values):
    x = values.reshape(*values.shape[:2], -1)
    return projections.apply(params['out'], x) if self.project else x
