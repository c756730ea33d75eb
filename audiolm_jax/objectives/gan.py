"""The adversarial part of a codec's training, as configuration."""

from collections.abc import Callable
import dataclasses
from typing import Annotated, Any, Literal

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from audiolm_jax import config
from audiolm_jax.objectives import adversarial
from audiolm_jax.objectives import balancer as balancer_lib
from audiolm_jax.objectives import discriminators

Verdicts = tuple[discriminators.Verdict, ...]
Variables = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Gan:
  """Discriminators, the losses with them, and how these come in.

  The discriminators are the objective's model 'discriminator'. Its state counts
  the steps, and holds the balancer's running means.

  Attributes:
    discriminators: names (of their parameters) -> `DISCRIMINATORS`.
    loss: of `adversarial.LOSSES`.
    reduction: of losses over sub-discriminators, and of features over layers.
    weight: of the codec's adversarial loss (or its share, with the balancer).
    feature_weight: of feature matching.
    normalise_features: whether each layer's distance is relative to the mean
      magnitude of the real features.
    level: whether discriminators get audio without mean and loudness.
    start: step until which the codec does not hear the discriminators, which
      learn from the first step on.
    ramp: steps over which its two losses then come in linearly.
    balancer: of all losses of the decoded audio, or None for plain weights.
  """

  discriminators: Annotated[
      dict[str, Any],
      config.Named(
          Annotated[Any, config.Kind(lambda: discriminators.DISCRIMINATORS)]
      ),
  ]
  loss: Literal['hinge', 'hinge_linear', 'least_squares'] = 'hinge'
  reduction: Literal['mean', 'sum'] = 'mean'
  weight: config.NonNegative = 1.0
  feature_weight: config.NonNegative = 1.0
  normalise_features: bool = False
  level: bool = False
  start: config.Count = 0
  ramp: config.Count = 0
  balancer: balancer_lib.Balancer | None = None

  def __post_init__(self):
    if not self.discriminators:
      raise config.ConfigError('discriminators = {}: expected at least one')
    # A dict would make the config unhashable.
    frozen = flax.core.FrozenDict(self.discriminators)
    object.__setattr__(self, 'discriminators', frozen)

  @property
  def additive(self) -> bool:
    """Whether all terms add over microbatches."""
    return self.balancer is None and not self.normalise_features

  @property
  def weights(self) -> dict[str, float]:
    """The codec's two losses, with their factors."""
    return {'adversarial': self.weight, 'feature': self.feature_weight}

  def init(self, rng: Array, channels: int, losses: list[str]) -> Variables:
    """The model 'discriminator', for audio of so many channels.

    Args:
      rng: random key.
      channels: of the audio.
      losses: names of what the balancer weighs.
    """
    audio = jnp.zeros((1, 1024, channels))
    num_samples = jnp.full(1, 1024)
    params = {
        name: module.init(jax.random.fold_in(rng, i), audio, num_samples)[
            'params'
        ]
        for i, (name, module) in enumerate(sorted(self.discriminators.items()))
    }
    state = {'steps': jnp.int32(0)}
    if self.balancer is not None:
      state['balancer'] = self.balancer.init(losses)
    return {'params': params, 'state': state}

  def judge(
      self,
      params: Any,
      audio: Float[Array, 'B T C'],
      num_samples: Int[Array, 'B'],
  ) -> Verdicts:
    """What all sub-discriminators say."""
    if self.level:
      audio = discriminators.level(audio, num_samples)
    verdicts = []
    for name, module in sorted(self.discriminators.items()):
      verdicts += module.apply({'params': params[name]}, audio, num_samples)
    return tuple(verdicts)

  def terms(
      self,
      variables: Variables,
      target: Float[Array, 'B T C'],
      estimate: Float[Array, 'B T C'],
      num_samples: Int[Array, 'B'],
  ) -> tuple[
      adversarial.Term,
      Callable[[Float[Array, 'B T C']], dict[str, adversarial.Term]],
  ]:
    """(the discriminators' term, decoded audio -> the codec's two terms).

    Gradients of the first reach the discriminators only, of the others only the
    decoded audio: one backward pass serves both models.
    """
    loss = adversarial.LOSSES[self.loss]
    params = variables['params']
    real = self.judge(params, target, num_samples)
    # The compiler shares this pass with that of the codec's terms.
    fake = self.judge(params, jax.lax.stop_gradient(estimate), num_samples)
    own = adversarial.discriminator_term(
        loss, real, fake, num_samples, self.reduction
    )

    def of_codec(estimate):
      fake = self.judge(jax.lax.stop_gradient(params), estimate, num_samples)
      return {
          'adversarial': adversarial.codec_term(
              loss, fake, num_samples, self.reduction
          ),
          'feature': adversarial.feature_term(
              jax.lax.stop_gradient(real),
              fake,
              num_samples,
              self.normalise_features,
              self.reduction,
          ),
      }

    return own, of_codec

  def factor(self, state: Any) -> Float[Array, '']:
    """How much of its adversarial and feature losses the codec gets now."""
    steps = state['steps'].astype(jnp.float32)
    if not self.ramp:
      return (steps >= self.start).astype(jnp.float32)
    return jnp.clip((steps - self.start) / self.ramp, 0.0, 1.0)

  def update(self, state: Any, norms: balancer_lib.Losses) -> Any:
    """The state after an optimizer step."""
    new = {'steps': state['steps'] + 1}
    if self.balancer is not None:
      new['balancer'] = self.balancer.update(state['balancer'], norms)
    return new
