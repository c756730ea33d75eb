"""A head that draws a frame in one jump, or a few (Kyutai's Pocket-TTS)."""

import math
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp

from audiolm_jax import config
from audiolm_jax.decoders.latent_heads import base
from audiolm_jax.decoders.latent_heads import network as network_lib
from audiolm_jax.processes import flow_maps
from audiolm_jax.processes import gaussian
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import times as times_lib

# What the keys of frames are folded with.
_TIME, _NOISE = 0, 1
# Beyond the numbers of draws.
_START, _END = 2**30, 2**30 + 1
_PROCESS = gaussian.RectifiedFlow()


class FlowMap(base.LatentHead):
  """Mean velocities of rectified flow between any two times.

  Trained by flow matching on the diagonal, and by Lagrangian self-distillation
  off it (2505.18825), so without a teacher. Kyutai's weigh them by a learned
  factor, too. Guidance mixes the outputs of the backbone (CALM, 2509.06926). What
  it draws in a few jumps has no likelihood.

  Attributes:
    network: of the velocities, of two times.
    density: of the times to train at.
    draws: times and noises for each frame in training, of which one has a jump.
    distillation: its weight in the loss; flow matching has the rest.
    grid: times that frames are drawn by, unless the sampler says others.
  """

  network: network_lib.AdalnMlp = network_lib.AdalnMlp()
  density: Annotated[Any, config.Kind(lambda: times_lib.DENSITIES)] = (
      times_lib.Uniform()
  )
  draws: config.Positive = 4
  distillation: config.Share = 0.25
  grid: times_lib.Grid = times_lib.Grid(steps=1)

  takes_steps = True

  @property
  def loss_weights(self):
    share = self.distillation
    return {'denoising': 1 - share, 'distillation': share}

  def velocity(self, z, h, t, s):
    """u(z, t, s), [M, L]."""
    return self.network(z, h, t, s)

  def losses(self, h, x, keys):
    count, dimension = x.shape
    told, x, each, number = base.several(self.draws, h, x, keys)
    part = base.within(noise_lib.fold(each, _TIME), number, self.draws)
    t = self.density.quantile(_PROCESS, part)
    e = noise_lib.normal(noise_lib.fold(each, _NOISE), (1, dimension))[:, 0]
    z = _PROCESS.corrupt(x, e, t)
    still = flow_maps.diagonal_errors(
        lambda z, t, s: self.velocity(z, told, t, s), z, t, e - x
    )
    # One jump a frame, between two times of its own.
    ends = [
        self.density.quantile(_PROCESS, base.within(noise_lib.fold(keys, kind)))
        for kind in (_START, _END)
    ]
    jumps = flow_maps.lagrangian_errors(
        lambda z, t, s: self.velocity(z, h, t, s),
        _PROCESS.corrupt(x[:count], e[:count], jnp.maximum(*ends)),
        jnp.maximum(*ends),
        jnp.minimum(*ends),
    )
    return {
        'denoising': still.reshape(-1, count).mean(0),
        'distillation': jumps,
    }

  def draw(self, h, keys, dimension, sampler, null=None, guidance=None):
    h = base.mixed(h, null, guidance)
    spread = math.sqrt(sampler.temperature)
    z = spread * noise_lib.normal(noise_lib.fold(keys, _NOISE), (1, dimension))

    def u(z, t, s):
      return self.velocity(z[:, 0], h, t, s)[:, None]

    return flow_maps.sample(
        flow_maps.Jumps(),
        u,
        _PROCESS,
        z,
        (sampler.grid or self.grid).times,
    )[:, 0]

  @nn.nowrap
  def evaluations(self, sampler):
    return len((sampler.grid or self.grid).times) - 1
