"""Training a codec: reconstruction, and optionally a GAN and distillation."""

import dataclasses
from typing import Annotated, Any

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax import streaming
from audiolm_jax import tokenizers
from audiolm_jax.models import kinds
from audiolm_jax.objectives import base as objectives_base
from audiolm_jax.objectives import distances as distances_lib
from audiolm_jax.objectives import distillation as distillation_lib
from audiolm_jax.objectives import gan as gan_lib
from audiolm_jax.objectives import spectral


@dataclasses.dataclass(frozen=True)
class Codec(objectives_base.Objective):
  """Reconstruction of the waveform through a bottleneck.

  Models: 'codec'; with `gan` 'discriminator'; with `distillation`
  'distillation' (its linear map) and, if the teacher has variables, 'teacher',
  to be frozen. Batches hold `audio` [B, T, C] and `num_samples` [B] in samples, and
  what the teacher asks for. The encoder hears `audio`; all that is asked of the
  output is asked for `target` [B, T, C], which is `audio` where a batch has
  none: distances, what the discriminators take for real, and what a teacher
  hears are of it. A source whose batches hold both, such as noisy and clean
  recordings of the same samples, trains enhancement. Terms are per valid sample (of decoded audio) or
  latent frame (of the bottleneck, whose factors its config has, and
  distillation).

  Attributes:
    tokenizer: the codec.
    samples: T of training's crops; None for the data's.
    mel_weight: of the multi-scale log mel distance.
    stft_weight: of the multi-resolution STFT distance.
    complex_weight: of the compressed complex STFT distance.
    sizes: STFT windows of these three, in samples.
    mels: bands at each window.
    complex_size: window of the complex distance, one of `sizes`.
    complex_power: compression of the magnitudes in it.
    distances: further distances, under names of their terms.
    gan: discriminators and how they take part, or None.
    unquantised_rate: share of rows whose latents the decoder gets as they are
      (Mimi: half); the bottleneck learns from all rows.
    distillation: of the first level's vectors from a teacher, or None.
  """

  tokenizer: Annotated[Any, config.Kind(lambda: tokenizers.TOKENIZERS)]
  samples: config.Positive | None = None
  mel_weight: config.NonNegative = 3.0
  stft_weight: config.NonNegative = 0.5
  complex_weight: config.NonNegative = 10.0
  sizes: Annotated[tuple[int, ...], config.Range(min=16)] = (
      128,
      256,
      512,
      1024,
      2048,
  )
  mels: config.Sizes = (16, 32, 64, 80, 80)
  complex_size: config.Positive = 512
  complex_power: config.Share = 0.5
  distances: Annotated[
      dict[str, Any],
      config.Named(
          Annotated[Any, config.Kind(lambda: distances_lib.DISTANCES)]
      ),
  ] = dataclasses.field(default_factory=dict)
  gan: gan_lib.Gan | None = None
  unquantised_rate: config.Share = 0.0
  distillation: distillation_lib.Distillation | None = None

  def __post_init__(self):
    if len(self.sizes) != len(self.mels):
      raise config.ConfigError(
          f'{len(self.sizes)} sizes, but mels for {len(self.mels)} of them'
      )
    if self.complex_size not in self.sizes:
      raise config.ConfigError(
          f'complex_size = {self.complex_size}: expected one of {self.sizes}'
      )
    # A dict would make the config unhashable.
    frozen = flax.core.FrozenDict(self.distances)
    object.__setattr__(self, 'distances', frozen)
    taken = {*spectral.NAMES, 'adversarial', 'feature'}
    if taken & set(frozen):
      raise config.ConfigError(
          f'distances has {sorted(taken & set(frozen))}, names of other terms:'
          ' choose others'
      )
    bottleneck, width = self.tokenizer.bottleneck, self.tokenizer.encoder
    if (
        self.unquantised_rate
        and bottleneck.output_dimension(width.dimension) != width.dimension
    ):
      raise config.ConfigError(
          f'unquantised_rate = {self.unquantised_rate}: the decoder takes'
          ' latents of another width than the encoder gives'
      )

  def needs(self, source: Any) -> dict[str, tuple[str, Any]]:
    del source
    spec = self.tokenizer.spec
    needs = {
        'sample_rate': ('tokenizer.sample_rate', spec.sample_rate),
        'channels': ('tokenizer, channels of', spec.channels),
    }
    if self.distillation is not None:
      rate = self.distillation.teacher.feature_rate
      if rate is not None:
        key = 'distillation.teacher.frame_rate'
        needs['feature_rate'] = key, rate
    return needs

  def with_data(self, source: Any, read: bool) -> 'Codec':
    del read
    given = objectives_base.row_length(
        'samples', self.samples, source, 'config.objective.samples'
    )
    return dataclasses.replace(self, samples=given)

  @property
  def additive(self) -> bool:
    return self.gan is None or self.gan.additive

  @property
  def _audio_weights(self) -> dict[str, float]:
    """Terms of the decoded audio, with their factors."""
    builtin = (self.mel_weight, self.stft_weight, self.complex_weight)
    named = dict(zip(spectral.NAMES, builtin, strict=True))
    return {
        **{name: weight for name, weight in named.items() if weight},
        **{name: d.weight for name, d in self.distances.items()},
        **({} if self.gan is None else self.gan.weights),
    }

  @property
  def _balancer(self):
    return None if self.gan is None else self.gan.balancer

  @property
  def loss_weights(self) -> dict[str, float]:
    weights = dict(self.tokenizer.bottleneck.loss_weights)
    if self._balancer is None:
      weights |= self._audio_weights
    else:
      weights['balanced'] = 1.0
    if self.gan is not None:
      weights['discriminator'] = 1.0
    if self.distillation is not None:
      weights['distillation'] = self.distillation.weight
    return weights

  def init(self, rng: Array) -> objectives_base.Variables:
    models = {'codec': self.tokenizer.init(rng)}
    channels = self.tokenizer.spec.channels
    if self.gan is not None:
      models['discriminator'] = self.gan.init(
          jax.random.fold_in(rng, 1), channels, sorted(self._audio_weights)
      )
    if self.distillation is not None:
      width = self.tokenizer.bottleneck.semantic_dimension(
          self.tokenizer.encoder.dimension
      )
      models |= self.distillation.init(jax.random.fold_in(rng, 2), width)
    return models

  def example_batch(self, batch_size: int) -> objectives_base.Batch:
    spec = self.tokenizer.spec
    needed = {'samples': self.samples}
    config.check_given('config.objective', needed, 'config.data')
    batch = {
        'audio': np.zeros(
            (batch_size, self.samples, spec.channels), np.float32
        ),
        'num_samples': np.zeros(batch_size, np.int32),
        'id': np.zeros(batch_size, np.int32),
    }
    if self.distillation is not None:
      batch |= self.distillation.teacher.example(
          batch_size, self.samples, spec.sample_rate
      )
    return batch

  def __call__(
      self,
      variables: objectives_base.Variables,
      batch: objectives_base.Batch,
      rng: Array,
  ) -> objectives_base.Output:
    codec, num_samples = self.tokenizer, batch['num_samples']
    audio, target = _recordings(batch)
    size = audio.shape[1]
    dropout_rng, sample_rng, statistics_rng, bypass_rng = jax.random.split(
        rng, 4
    )
    params = variables['codec']['params']
    state = variables['codec']['state']
    latents, frames = codec.encode_latents(params, audio, num_samples)
    quantised = codec.bottleneck.quantise(
        {'params': params['bottleneck'], 'state': state},
        latents,
        frames,
        levels=codec.bottleneck.levels(dropout_rng, audio.shape[0]),
        rng=sample_rng,
    )
    decoded = self._bypassed(quantised.latents, latents, frames, bypass_rng)
    estimate = codec.decode_latents(params, decoded, num_samples)
    # Decoders that drop samples give fewer than there were.
    missing = max(size - estimate.shape[1], 0)
    estimate = streaming.pad_time(estimate, 0, missing)[:, :size]

    terms, norms, metrics = self._audio_terms(
        variables, target, estimate, num_samples
    )
    frame_count = jnp.sum(frames).astype(jnp.float32)
    for name, value in quantised.losses.items():
      terms[name] = (jnp.sum(value), frame_count)
    if self.distillation is not None:
      if quantised.semantic is None:
        raise config.ConfigError(
            'distillation needs a bottleneck with levels, not'
            f' {type(codec.bottleneck).__name__}'
        )
      terms['distillation'] = self.distillation(
          variables,
          {**batch, 'audio': target},
          quantised.semantic,
          frames,
          codec.sample_rate,
          codec.encoder.hop,
      )
    statistics = codec.bottleneck.statistics(
        jax.lax.stop_gradient(quantised), frames, statistics_rng
    )
    one = jnp.ones(())
    for name, value in codec.bottleneck.metrics(state).items():
      metrics[name] = (value, one)
    return objectives_base.Output(
        terms=terms,
        statistics={'codec': statistics, 'norms': norms},
        metrics=metrics,
    )

  def _bypassed(self, quantised, latents, frames, rng):
    """The decoder's input: quantised, but for a share of the rows."""
    if not self.unquantised_rate:
      return quantised
    rows = jax.random.bernoulli(rng, self.unquantised_rate, (latents.shape[0],))
    latents = streaming.zero_masked(latents.astype(quantised.dtype), frames)
    return jnp.where(rows[:, None, None], latents, quantised)

  def _audio_terms(self, variables, target, estimate, num_samples):
    """Terms of the decoded audio: (terms, gradient norms, metrics)."""
    gan = self.gan
    terms, of_codec, factor = {}, None, 1.0
    if gan is not None:
      discriminator = variables['discriminator']
      terms['discriminator'], of_codec = gan.terms(
          discriminator, target, estimate, num_samples
      )
      factor = gan.factor(discriminator['state'])

    def audio_terms(estimate):
      rows = self._distances(estimate, target, num_samples)
      terms = jax.tree.map(jnp.sum, rows)
      return terms if of_codec is None else terms | of_codec(estimate)

    late = () if gan is None else gan.weights
    if self._balancer is None:
      for name, (value, weight) in audio_terms(estimate).items():
        terms[name] = (factor * value if name in late else value, weight)
      return terms, {}, {}

    mask = streaming.length_mask(num_samples, target.shape[1])[..., None]

    def losses(estimate):
      # What stands past the lengths is no part of the gradient's norm.
      values = audio_terms(jnp.where(mask, estimate, 0.0))
      return {
          name: value / jnp.maximum(weight, 1.0)
          for name, (value, weight) in values.items()
      }, None

    balanced = self._balancer(
        variables['discriminator']['state']['balancer'],
        losses,
        estimate,
        {
            name: factor * weight if name in late else weight
            for name, weight in self._audio_weights.items()
        },
        jnp.sum(num_samples > 0).astype(jnp.float32),
    )
    terms['balanced'] = balanced.term
    one = jnp.ones(())
    metrics = {
        f'loss/{name}': (value, one) for name, value in balanced.losses.items()
    }
    return terms, balanced.norms, metrics

  def _distances(
      self,
      estimate: Float[Array, 'B T C'],
      target: Float[Array, 'B T C'],
      num_samples: Int[Array, 'B'],
  ) -> dict[str, distances_lib.Rows]:
    """(sum over valid samples, their number) of rows; channels are averaged."""
    rate = self.tokenizer.sample_rate
    names = [name for name in spectral.NAMES if name in self._audio_weights]
    rows = {}
    if names:
      channels = target.shape[-1]
      # Every channel is a row.
      x, y = (
          jnp.moveaxis(a, 2, 1).reshape(-1, a.shape[1])
          for a in (estimate, target)
      )
      values = spectral.distances(
          x,
          y,
          jnp.repeat(num_samples, channels),
          sample_rate=rate,
          sizes=self.sizes,
          mels=self.mels,
          complex_size=self.complex_size,
          complex_power=self.complex_power,
          names=names,
      )
      counts = num_samples.astype(jnp.float32)
      for name, sums in values.items():
        sums = jnp.sum(sums.reshape(-1, channels), axis=1) / channels
        rows[name] = (sums, counts)
    for name, distance in self.distances.items():
      rows[name] = distance(estimate, target, num_samples, rate)
    return rows

  def finish(
      self, states: dict[str, Any], statistics: Any, rng: Array
  ) -> dict[str, Any]:
    bottleneck = self.tokenizer.bottleneck
    new = {
        **states,
        'codec': bottleneck.update(states['codec'], statistics['codec'], rng),
    }
    if self.gan is not None:
      new['discriminator'] = self.gan.update(
          states['discriminator'], statistics['norms']
      )
    return new

  @property
  def model(self) -> tuple[str, kinds.Description]:
    return 'codec', kinds.Description(self.tokenizer)

  def audio_seconds(self, batch: objectives_base.Batch) -> float:
    return float(np.sum(batch['num_samples'])) / self.tokenizer.spec.sample_rate


def _recordings(batch):
  """(what the encoder hears, what is to come out), 0 past the lengths."""
  audio = batch['audio']
  target = batch.get('target', audio)
  if target.shape != audio.shape:
    raise ValueError(
        f"batch['target'] is {list(target.shape)}, but batch['audio'] is"
        f' {list(audio.shape)}: a target has the samples and the channels of its'
        ' audio'
    )
  valid = streaming.length_mask(batch['num_samples'], audio.shape[1])[..., None]
  return (jnp.where(valid, x, 0.0) for x in (audio, target))
