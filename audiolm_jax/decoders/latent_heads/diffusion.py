"""Heads that denoise a frame: diffusion and flow matching."""

import math
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from audiolm_jax import config
from audiolm_jax.decoders.latent_heads import base
from audiolm_jax.decoders.latent_heads import network as network_lib
from audiolm_jax.processes import gaussian
from audiolm_jax.processes import likelihood
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import solvers
from audiolm_jax.processes import times as times_lib
from audiolm_jax.processes import weights

# What the keys of frames are folded with.
_TIME, _NOISE, _STEPS = 0, 1, 2


class Diffusion(base.LatentHead):
  """Predicts what a noisy frame is made of, by a small network (MAR).

  Rectified flow with target 'u' is a flow-matching head, the cosine process with
  'v' VibeVoice's. Guidance mixes its predictions.

  Attributes:
    network: of the predictions.
    process: how noise takes a frame's place.
    target: what is predicted.
    density: of the times to train at.
    weight: of the error at each time.
    draws: times and noises for each frame in training, whose times are
      stratified: the backbone costs more than the head.
    grid: times that frames are drawn by, unless the sampler says others.
    solver: of these steps, unless the sampler says another.
  """

  network: network_lib.AdalnMlp = network_lib.AdalnMlp()
  process: Annotated[Any, config.Kind(lambda: gaussian.PROCESSES)] = (
      gaussian.RectifiedFlow()
  )
  target: gaussian.Target = 'u'
  density: Annotated[Any, config.Kind(lambda: times_lib.DENSITIES)] = (
      times_lib.Uniform()
  )
  weight: Annotated[Any, config.Kind(lambda: weights.WEIGHTS)] = weights.Plain()
  draws: config.Positive = 4
  grid: times_lib.Grid = times_lib.Grid(steps=16)
  solver: Annotated[Any, config.Kind(lambda: solvers.SOLVERS)] = solvers.Euler()

  takes_steps = takes_solver = guides_predictions = True

  @property
  def tag(self):
    """'exact', up to the steps, where no data is left at t = 1."""
    return 'none' if self.process.scales(1.0)[0] else 'exact'

  @property
  def loss_weights(self):
    return {'denoising': 1.0}

  def predict(self, z, h, t):
    """A prediction of `target`, [M, L]."""
    return self.network(z, h, t)

  def losses(self, h, x, keys):
    count = len(keys)
    h, x, keys, number = base.several(self.draws, h, x, keys)
    part = base.within(noise_lib.fold(keys, _TIME), number, self.draws)
    t = self.density.quantile(self.process, part)
    e = noise_lib.normal(noise_lib.fold(keys, _NOISE), (1, x.shape[1]))[:, 0]
    output = self.predict(self.process.corrupt(x, e, t), h, t)
    target = self.process.target(self.target, x, e, t)
    weight = self.weight.factor(self.process, self.target, t)
    errors = weight * jnp.mean((output - target) ** 2, axis=-1)
    return {'denoising': errors.reshape(-1, count).mean(0)}

  def draw(self, h, keys, dimension, sampler, null=None, guidance=None):
    spread = math.sqrt(sampler.temperature)
    z = spread * noise_lib.normal(noise_lib.fold(keys, _NOISE), (1, dimension))
    return solvers.sample(
        sampler.solver or self.solver,
        self._denoiser(h, null, guidance),
        z,
        (sampler.grid or self.grid).times,
        noise_lib.fold(keys, _STEPS),
        spread=spread,
    )[:, 0]

  def log_prob(self, h, x, steps=None):
    if self.tag == 'none':
      raise ValueError(
          f'{self.process} leaves some of the data at t = 1: no likelihood'
      )
    times = np.linspace(0, 1, (steps or self.grid.steps) + 1)
    x = x.astype(jnp.float32)[:, None]
    return likelihood.log_prob(self._denoiser(h), x, times)

  @nn.nowrap
  def check(self, sampler):
    super().check(sampler)
    solver, grid = sampler.solver or self.solver, sampler.grid or self.grid
    times = times_lib.falling(grid.times)
    self.process.check(self.target, solver.visited(times), solver.needs_slopes)

  @nn.nowrap
  def evaluations(self, sampler):
    times = (sampler.grid or self.grid).times
    solver = sampler.solver or self.solver
    return solver.evaluations * (len(times) - 1)

  def _denoiser(self, h, null=None, guidance=None):
    """Of frames [M, 1, L]."""

    def predict(z, t):
      given = self.predict(z[:, 0], h, t)
      other = None if null is None else self.predict(z[:, 0], null, t)
      return base.mixed(given, other, guidance)[:, None]

    return gaussian.Denoiser(self.process, self.target, predict)
