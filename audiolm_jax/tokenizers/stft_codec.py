"""A causal codec that works on spectra: fast to train on CPUs, and streams.

STFT features of 10 ms are stacked to frames, ConvNeXt blocks (Liu et al. 2022)
encode them, an RVQ quantises, further blocks decode, and an inverse STFT sounds
the predicted spectra (after Vocos, Siuzdak 2023). All at frame rate, where time-domain convolutions cost several times more. Everything is
causal; the only delay is what the overlap of the last windows needs.
"""

import dataclasses
import functools
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from audiolm_jax import config
from audiolm_jax import streaming
from audiolm_jax.tokenizers import base
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers.bottlenecks import vq

_Positive = Annotated[int, config.Range(min=1)]


@dataclasses.dataclass(frozen=True)
class StftCodec(base.Tokenizer):
  """Mono waveform <-> K codes a frame.

  Attributes:
    sample_rate: in Hz.
    hop: samples a frame; a multiple of `window_hop`.
    window: of STFT and inverse, in samples; a multiple of `window_hop`.
    window_hop: samples between windows.
    latency: samples by which decoded audio lags, at most window - window_hop.
      More lets the decoder see more of what follows a sample.
    width: channels of the blocks.
    hidden: channels inside a block.
    kernel: taps of a block's depthwise convolution.
    encoder_blocks: at frame rate.
    decoder_blocks: at frame rate.
    window_blocks: of the decoder, at the rate of the windows.
    codebooks: K.
    vocabulary: V.
    dimension: of the quantised latents.
  """

  sample_rate: _Positive = 16000
  hop: _Positive = 320
  window: _Positive = 640
  window_hop: _Positive = 160
  latency: Annotated[int, config.Range(min=0)] = 480
  width: _Positive = 256
  hidden: _Positive = 768
  kernel: _Positive = 7
  encoder_blocks: Annotated[int, config.Range(min=0)] = 3
  decoder_blocks: Annotated[int, config.Range(min=0)] = 4
  window_blocks: Annotated[int, config.Range(min=0)] = 1
  codebooks: _Positive = 8
  vocabulary: _Positive = 1024
  dimension: _Positive = 64

  def __post_init__(self):
    if self.hop % self.window_hop or self.window % self.window_hop:
      raise config.ConfigError(
          f'window_hop = {self.window_hop} must divide hop = {self.hop} and'
          f' window = {self.window}'
      )
    if self.latency > self.window - self.window_hop:
      raise config.ConfigError(
          f'latency = {self.latency}: at most window - window_hop ='
          f' {self.window - self.window_hop}'
      )

  @functools.cached_property
  def spec(self) -> base.Spec:
    slots = tuple(
        base.Slot(codebook=k, vocabulary=self.vocabulary)
        for k in range(self.codebooks)
    )
    dates = base.Dates(
        architecture='CNN',
        representation='time-frequency',
        quantiser='RVQ',
        bitrate='fixed',
        objective=('Rec', 'VQ'),
        auxiliary=(),
        domain=('speech', 'music', 'audio'),
        streamable=True,
    )
    return base.Spec(
        sample_rate=self.sample_rate,
        hop=self.hop,
        slots=slots,
        causal=True,
        latency=self.latency,
        dates=dates,
    )

  @functools.cached_property
  def encoder(self) -> streaming.Steppable:
    """Audio [B, T, 1] -> latents [B, T / hop, dimension]."""
    return streaming.Serial(
        (
            streaming.CausalStft(self.window, self.window_hop),
            streaming.Map(spectral_features),
            streaming.Stack(self.hop // self.window_hop),
            streaming.Dense(self.width),
            *[self._block() for _ in range(self.encoder_blocks)],
            streaming.FrameNorm(),
            streaming.Dense(self.dimension),
        )
    )

  @functools.cached_property
  def decoder(self) -> streaming.Steppable:
    """Latents [B, F, dimension] -> audio [B, F hop, 1]."""
    windows = self.hop // self.window_hop
    return streaming.Serial(
        (
            streaming.Dense(self.width),
            *[self._block() for _ in range(self.decoder_blocks)],
            streaming.ConvTranspose(self.width, windows, windows),
            *[self._block() for _ in range(self.window_blocks)],
            streaming.FrameNorm(),
            streaming.Dense(3 * (self.window // 2 + 1)),
            streaming.Map(spectra_of_features),
            streaming.CausalIstft(self.window, self.window_hop, self.latency),
        )
    )

  def init(self, rng: Array) -> base.Variables:
    encoder_rng, decoder_rng = jax.random.split(rng)
    audio = jnp.zeros((1, self.hop, 1))
    latents = jnp.zeros((1, 1, self.dimension))
    encoder = self.encoder.init(
        encoder_rng, audio, jnp.ones((1, self.hop), bool)
    )
    decoder = self.decoder.init(decoder_rng, latents, jnp.ones((1, 1), bool))
    return {
        'params': {'encoder': encoder['params'], 'decoder': decoder['params']},
        'state': vq.init(self.codebooks, self.vocabulary, self.dimension),
    }

  def encode(
      self,
      variables: base.Variables,
      audio: Float[Array, 'B T 1'],
      lengths: Int[Array, 'B'],
      rng: Array | None = None,
  ) -> base.Tokens:
    del rng  # Encoding is deterministic.
    return base.Tokens(
        lengths=lengths, codes=self.quantise(variables, audio, lengths).codes
    )

  def quantise(
      self,
      variables: base.Variables,
      audio: Float[Array, 'B T 1'],
      lengths: Int[Array, 'B'],
      levels: Int[Array, 'B'] | None = None,
  ) -> bottlenecks.Quantised:
    """`encode` with all that the quantiser says, margins included.

    Args:
      variables: params and state.
      audio: what stands past a row's length changes nothing.
      lengths: samples.
      levels: codebooks each row uses (quantizer dropout); default all.
    """
    mask = streaming.length_mask(lengths, audio.shape[1])
    latents, mask = self.encoder.apply(
        {'params': variables['params']['encoder']}, audio, mask
    )
    return vq.quantise(variables['state'].codebooks, latents, mask, levels)

  def decode(
      self, variables: base.Variables, tokens: base.Tokens
  ) -> tuple[Float[Array, 'B T 1'], Int[Array, 'B']]:
    """As the seam has it; codes may be those of the first N <= K codebooks."""
    latents = vq.dequantise(variables['state'].codebooks, tokens.codes)
    audio = self.decode_latents(variables['params'], latents, tokens.lengths)
    return audio, tokens.lengths

  def decode_latents(
      self,
      params: Any,
      latents: Float[Array, 'B F D'],
      lengths: Int[Array, 'B'],
  ) -> Float[Array, 'B T 1']:
    """Audio [B, F hop, 1], zero past `lengths` samples."""
    frames = streaming.length_mask(self.spec.frames(lengths), latents.shape[1])
    audio, _ = self.decoder.apply(
        {'params': params['decoder']}, latents, frames
    )
    mask = streaming.length_mask(lengths, audio.shape[1])
    return jnp.where(mask[..., None], audio, 0.0)

  def code_vectors(self, variables: base.Variables) -> Float[Array, 'K V D']:
    return variables['state'].codebooks

  def initial_state(self, batch: int) -> dict[str, Any]:
    """What `encode_step` ('encode') and `decode_step` ('decode') start from."""
    one = jax.ShapeDtypeStruct((1,), jnp.float32)
    latent = jax.ShapeDtypeStruct((self.dimension,), jnp.float32)
    return {
        'encode': self.encoder.initial_state(batch, one),
        'decode': self.decoder.initial_state(batch, latent),
    }

  def encode_step(
      self,
      variables: base.Variables,
      audio: Float[Array, 'B T 1'],
      mask: Bool[Array, 'B T'],
      state: Any,
  ) -> tuple[Int[Array, 'B F K'], Bool[Array, 'B F'], Any]:
    """The codes of the next T samples, a multiple of hop: (codes, mask, state).

    A frame of which any sample is valid is valid.
    """
    latents, mask, state = self.encoder.apply(
        {'params': variables['params']['encoder']},
        audio,
        mask,
        state,
        method='step',
    )
    quantised = vq.quantise(variables['state'].codebooks, latents, mask)
    return quantised.codes, mask, state

  def decode_step(
      self,
      variables: base.Variables,
      codes: Int[Array, 'B F N'],
      mask: Bool[Array, 'B F'],
      state: Any,
  ) -> tuple[Float[Array, 'B T 1'], Bool[Array, 'B T'], Any]:
    """The next F hop samples, which lag by `latency`: (audio, mask, state).

    Masked frames after the last one flush what is still to sound.
    """
    latents = vq.dequantise(variables['state'].codebooks, codes)
    return self.decoder.apply(
        {'params': variables['params']['decoder']},
        latents,
        mask,
        state,
        method='step',
    )

  def _block(self) -> streaming.Steppable:
    """A causal ConvNeXt block; relu, whose gradient is cheap on CPUs."""
    return streaming.Residual(
        streaming.Serial(
            (
                streaming.Conv(self.width, self.kernel, groups=self.width),
                streaming.FrameNorm(),
                streaming.Dense(self.hidden),
                streaming.Map(nn.relu),
                # Small, so that blocks start near the identity.
                streaming.Dense(self.width, init_scale=0.1),
            )
        )
    )


def spectral_features(spectra: Array) -> Float[Array, 'B N D']:
  """Log magnitude, and real and imaginary parts of |S|^0.3 e^(i phase)."""
  power = jnp.square(spectra.real) + jnp.square(spectra.imag) + 1e-8
  compress = power**-0.35
  return jnp.concatenate(
      [
          # About zero mean and unit variance on speech.
          (jnp.log(power) + 6.0) / 6.0,
          spectra.real * compress,
          spectra.imag * compress,
      ],
      axis=-1,
  )


def spectra_of_features(x: Float[Array, 'B N D']) -> Array:
  """Spectra e^m (a + i b) of [m, a, b], each a third of the last axis.

  The exponential gives the range of loudness; a and b give the phase without
  the wrap of an angle, which learns much more slowly.
  """
  log_scale, real, imaginary = jnp.split(x, 3, axis=-1)
  # Louder than any full-scale signal's; keeps exp from overflowing.
  scale = jnp.exp(jnp.minimum(log_scale, 6.0))
  return jax.lax.complex(scale * real, scale * imaginary)
