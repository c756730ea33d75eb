"""Training a codec: spectral reconstruction and a codebook that follows."""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
import numpy as np

from audiolm_jax import config
from audiolm_jax import streaming
from audiolm_jax import tokenizers
from audiolm_jax.objectives import base
from audiolm_jax.objectives import spectral
from audiolm_jax.tokenizers import bound

_Positive = Annotated[int, config.Range(min=1)]
_Share = Annotated[float, config.Range(min=0, max=1)]
_Weight = Annotated[float, config.Range(min=0)]


@dataclasses.dataclass(frozen=True)
class Codec(base.Objective):
  """Reconstruction of the waveform's spectra through a bottleneck.

  One model, 'codec'. Batches hold `audio` [B, T, C] and `lengths` [B] in
  samples. Terms are per valid sample (spectral ones) or latent frame (those of
  the bottleneck, whose factors its config has).

  Attributes:
    tokenizer: the codec.
    samples: T of training's crops.
    mel_weight: of the multi-scale log mel distance.
    stft_weight: of the multi-resolution STFT distance.
    complex_weight: of the compressed complex STFT distance.
    sizes: STFT windows, in samples.
    mels: bands at each window.
    complex_size: window of the complex distance, one of `sizes`.
    complex_power: compression of the magnitudes in it.
  """

  tokenizer: Annotated[Any, config.Kind(lambda: tokenizers.TOKENIZERS)]
  samples: _Positive = 16000
  mel_weight: _Weight = 3.0
  stft_weight: _Weight = 0.5
  complex_weight: _Weight = 10.0
  sizes: Annotated[tuple[int, ...], config.Range(min=16)] = (
      128,
      256,
      512,
      1024,
      2048,
  )
  mels: Annotated[tuple[int, ...], config.Range(min=1)] = (16, 32, 64, 80, 80)
  complex_size: _Positive = 512
  complex_power: _Share = 0.5

  def __post_init__(self):
    if len(self.sizes) != len(self.mels):
      raise config.ConfigError(
          f'{len(self.sizes)} sizes, but mels for {len(self.mels)} of them'
      )
    if self.complex_size not in self.sizes:
      raise config.ConfigError(
          f'complex_size = {self.complex_size}: expected one of {self.sizes}'
      )

  @property
  def loss_weights(self) -> dict[str, float]:
    return {
        'mel': self.mel_weight,
        'stft': self.stft_weight,
        'complex': self.complex_weight,
        **self.tokenizer.bottleneck.loss_weights,
    }

  def init(self, rng: Array) -> base.Variables:
    return {'codec': self.tokenizer.init(rng)}

  def example_batch(self, batch_size: int) -> base.Batch:
    shape = (batch_size, self.samples, self.tokenizer.spec.channels)
    return {
        'audio': np.zeros(shape, np.float32),
        'lengths': np.zeros(batch_size, np.int32),
        'id': np.zeros(batch_size, np.int32),
    }

  def __call__(
      self, variables: base.Variables, batch: base.Batch, rng: Array
  ) -> base.Output:
    codec = self.tokenizer
    spec = codec.spec
    lengths = batch['lengths']
    size = batch['audio'].shape[1]
    valid = streaming.length_mask(lengths, size)
    audio = jnp.where(valid[..., None], batch['audio'], 0.0)
    dropout_rng, sample_rng, statistics_rng = jax.random.split(rng, 3)
    quantised = codec.quantise(
        variables['codec'],
        audio,
        lengths,
        levels=codec.bottleneck.levels(dropout_rng, audio.shape[0]),
        rng=sample_rng,
    )
    estimate = codec.decode_latents(
        variables['codec']['params'], quantised.latents, lengths
    )
    frames = streaming.length_mask(
        -(-lengths // spec.hop) * codec.bottleneck.frames,
        quantised.latents.shape[1],
    )
    sums = spectral.distances(
        estimate[:, :size, 0],
        audio[..., 0],
        lengths,
        sample_rate=spec.sample_rate,
        sizes=self.sizes,
        mels=self.mels,
        complex_size=self.complex_size,
        complex_power=self.complex_power,
    )
    samples = jnp.sum(lengths).astype(jnp.float32)
    terms = {name: (value, samples) for name, value in sums.items()}
    frame_count = jnp.sum(frames).astype(jnp.float32)
    for name, value in quantised.losses.items():
      terms[name] = (jnp.sum(value), frame_count)
    statistics = codec.bottleneck.statistics(
        jax.lax.stop_gradient(quantised), frames, statistics_rng
    )
    metrics = codec.bottleneck.metrics(variables['codec']['state'])
    return base.Output(
        terms=terms,
        statistics=statistics,
        metrics={name: (m, jnp.ones(())) for name, m in metrics.items()},
    )

  def finish(
      self, states: dict[str, Any], statistics: Any, rng: Array
  ) -> dict[str, Any]:
    bottleneck = self.tokenizer.bottleneck
    return {'codec': bottleneck.update(states['codec'], statistics, rng)}

  def bind(self, variables: base.Variables) -> bound.BoundTokenizer:
    return bound.BoundTokenizer(self.tokenizer, variables['codec'])

  def audio_seconds(self, batch: base.Batch) -> float:
    return float(np.sum(batch['lengths'])) / self.tokenizer.spec.sample_rate
