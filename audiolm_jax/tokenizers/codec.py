"""A codec made of an encoder, a bottleneck and a decoder, all by config."""

import dataclasses
import functools
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from audiolm_jax import config
from audiolm_jax import streaming
from audiolm_jax.ops import sharding
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import inputs
from audiolm_jax.tokenizers import parts
from audiolm_jax.tokenizers import segments
from audiolm_jax.tokenizers.bottlenecks import base as bottlenecks_base

_Words = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Codec(tokenizers_base.Tokenizer):
  """Waveform <-> tokens.

  Variables are {'params': {'encoder', 'bottleneck', 'decoder'}, 'state': what
  the bottleneck trains by statistics}.

  Attributes:
    encoder: of `parts.ENCODERS`.
    bottleneck: of `bottlenecks.BOTTLENECKS`.
    decoder: of `parts.DECODERS`; with the encoder's hop and channels.
    sample_rate: in Hz.
    whole_frames: whether a row is padded with zeros to whole token frames first
      (DAC, SNAC), rather than ending where it ends for every layer.
    segment: how the audio is cut, or None.
    objective: how it is trained, for its card.
    auxiliary: what else it is trained on, for its card.
    domain: the kinds of audio that it is trained on, for its card.
  """

  encoder: Annotated[Any, config.Kind(lambda: parts.ENCODERS)]
  bottleneck: Annotated[Any, config.Kind(lambda: bottlenecks.BOTTLENECKS)]
  decoder: Annotated[Any, config.Kind(lambda: parts.DECODERS)]
  sample_rate: tokenizers_base.Rate = 16000
  whole_frames: bool = False
  segment: segments.Segments | None = None
  objective: _Words = ('Rec', 'VQ')
  auxiliary: _Words = ()
  domain: _Words = ('speech', 'music', 'audio')

  def __post_init__(self):
    encoder, decoder = self.encoder, self.decoder
    if (encoder.hop, encoder.channels) != (decoder.hop, decoder.channels):
      raise config.ConfigError(
          f'the encoder has hop {encoder.hop} and {encoder.channels} channels,'
          f' the decoder {decoder.hop} and {decoder.channels}: they must agree'
      )
    for name in ('encoder', 'decoder'):
      rate = getattr(getattr(self, name), 'sample_rate', self.sample_rate)
      if rate != self.sample_rate:
        raise config.ConfigError(
            f'sample_rate = {self.sample_rate}, and that of the {name} {rate}:'
            ' they must agree'
        )
    given = self.bottleneck.output_dimension(encoder.dimension)
    if decoder.dimension not in (None, given):
      raise config.ConfigError(
          f'the decoder takes latents of width {decoder.dimension}, the'
          f' bottleneck gives {given}'
      )
    if self.bottleneck.frames > 1 and not self.whole_frames:
      raise config.ConfigError(
          f'a token frame of {self.bottleneck.frames} latent frames needs'
          ' whole_frames = True'
      )
    if self.steppable and encoder.layer.output_latency:
      raise config.ConfigError('the encoder must not lag behind its input')

  @property
  def has_scales(self) -> bool:
    return self.segment is not None and self.segment.normalize

  @property
  def hop(self) -> int:
    """Samples a token frame."""
    return self.encoder.hop * self.bottleneck.frames

  @property
  def steppable(self) -> bool:
    """Whether `encode_step` and `decode_step` may be used."""
    layers = (self.encoder.layer, self.decoder.layer)
    return self.segment is None and all(layer.steppable for layer in layers)

  @property
  def min_step(self) -> int | None:
    """Frames that each step must have at least; None if there are no steps.

    More than one where it mirrors the start of the audio (EnCodec at 24 kHz): it
    is causal and goes step by step in steps of this size, though it is not
    `steppable`.
    """
    encoder, decoder = self.encoder.layer, self.decoder.layer
    if self.segment is not None or None in (
        encoder.min_step,
        decoder.min_step,
    ):
      return None
    latents = self.bottleneck.frames
    return max(
        -(-encoder.min_step // self.hop), -(-decoder.min_step // latents)
    )

  @functools.cached_property
  def spec(self) -> tokenizers_base.Spec:
    kinds = (self.encoder.architecture, self.decoder.architecture)
    represented = (self.encoder.representation, self.decoder.representation)
    dates = tokenizers_base.Dates(
        architecture=' / '.join(dict.fromkeys(kinds)),
        representation=' / '.join(dict.fromkeys(represented)),
        quantiser=self.bottleneck.quantiser,
        bitrate='fixed',
        objective=self.objective,
        auxiliary=self.auxiliary,
        domain=self.domain,
        streamable=self.steppable,
    )
    latency = self.decoder.layer.output_latency if self.steppable else 0
    return tokenizers_base.Spec(
        sample_rate=self.sample_rate,
        hop=self.hop,
        slots=self.bottleneck.slots(),
        causal=self.steppable,
        latency=latency,
        dates=dates,
        dimension=self.bottleneck.latent_dimension(),
        channels=self.encoder.channels,
        segment=None if self.segment is None else self.segment.samples,
    )

  def init(self, rng: Array) -> tokenizers_base.Variables:
    encoder_rng, bottleneck_rng, decoder_rng = jax.random.split(rng, 3)
    audio = jnp.zeros((1, self.hop, self.encoder.channels))
    width = self.bottleneck.output_dimension(self.encoder.dimension)
    latents = jnp.zeros((1, self.bottleneck.frames, width))
    encoder = self.encoder.layer.init(
        encoder_rng, audio, jnp.ones(audio.shape[:2], bool)
    )
    decoder = self.decoder.layer.init(
        decoder_rng, latents, jnp.ones(latents.shape[:2], bool)
    )
    inner = self.bottleneck.init(bottleneck_rng, self.encoder.dimension)
    return {
        'params': {
            'encoder': encoder.get('params', {}),
            'bottleneck': inner['params'],
            'decoder': decoder.get('params', {}),
        },
        'state': inner['state'],
    }

  def encode(
      self,
      variables: tokenizers_base.Variables,
      audio: Float[Array, 'B T C'],
      num_samples: Int[Array, 'B'],
      rng: Array | None = None,
  ) -> tokenizers_base.Tokens:
    """As the seam has it; without `rng` nothing is random."""
    inputs.audio(self.spec, audio, num_samples)
    if self.segment is not None:
      return self.segment.encode(self, variables, audio, num_samples, rng)
    quantised = self.quantise(variables, audio, num_samples, rng=rng)
    return tokenizers_base.Tokens(
        num_samples=num_samples, codes=quantised.codes, latents=quantised.tokens
    )

  def quantise(
      self,
      variables: tokenizers_base.Variables,
      audio: Float[Array, 'B T C'],
      num_samples: Int[Array, 'B'],
      *,
      levels: Int[Array, 'B'] | None = None,
      rng: Array | None = None,
  ) -> bottlenecks_base.Quantised:
    """All that the bottleneck says of (one segment of) audio.

    Args:
      variables: params and state.
      audio: what stands past a row's length changes nothing.
      num_samples: samples.
      levels: codebooks each row uses (quantizer dropout); default all.
      rng: for bottlenecks that sample.
    """
    latents, mask = self.encode_latents(variables['params'], audio, num_samples)
    return self.bottleneck.quantise(
        self._bottleneck(variables), latents, mask, levels=levels, rng=rng
    )

  def encode_latents(
      self,
      params: Any,
      audio: Float[Array, 'B T C'],
      num_samples: Int[Array, 'B'],
  ) -> tuple[Float[Array, 'B F D'], Bool[Array, 'B F']]:
    """The encoder's output, before the bottleneck, and which frames are valid."""
    audio = streaming.pad_time(audio, 0, -audio.shape[1] % self.hop)
    mask = streaming.length_mask(num_samples, audio.shape[1])
    audio, mask = self._framed(audio, mask)
    latents, mask = self.encoder.layer.apply(
        {'params': params['encoder']}, audio, mask
    )
    return sharding.constrain(latents, ('batch',)), mask

  def decode(
      self, variables: tokenizers_base.Variables, tokens: tokenizers_base.Tokens
  ) -> tuple[Float[Array, 'B T C'], Int[Array, 'B']]:
    """As the seam has it; codes may be those of the first slots only.

    `bottleneck.prefixes()` says how many may be left.
    """
    inputs.tokens(self.spec, tokens)
    if self.segment is not None:
      return self.segment.decode(self, variables, tokens)
    latents = self.dequantise(variables, tokens)
    return self._decode_latents(
        variables['params'], latents, tokens.num_samples
    )

  def dequantise(
      self, variables: tokenizers_base.Variables, tokens: tokenizers_base.Tokens
  ) -> Float[Array, 'B F D']:
    """What the decoder sees of tokens, whose values are not checked here."""
    given = tokens.latents if tokens.codes is None else tokens.codes
    return self.bottleneck.dequantise(self._bottleneck(variables), given)

  def decode_latents(
      self,
      params: Any,
      latents: Float[Array, 'B F D'],
      num_samples: Int[Array, 'B'],
  ) -> Float[Array, 'B T C']:
    """Audio [B, F hop, C], zero past `num_samples` samples."""
    return self._decode_latents(params, latents, num_samples)[0]

  def _decode_latents(self, params, latents, num_samples):
    frames = -(-num_samples // self.hop) * self.bottleneck.frames
    audio, mask = self.decoder.layer.apply(
        {'params': params['decoder']},
        sharding.constrain(latents, ('batch',)),
        streaming.length_mask(frames, latents.shape[1]),
    )
    # A decoder that drops samples has fewer valid ones than were asked for.
    num_samples = jnp.minimum(num_samples, mask.sum(axis=1))
    mask = streaming.length_mask(num_samples, audio.shape[1])
    return streaming.zero_masked(audio, mask), num_samples

  def code_vectors(
      self, variables: tokenizers_base.Variables
  ) -> Float[Array, 'K V E'] | None:
    return self.bottleneck.code_vectors(self._bottleneck(variables))

  # -- step by step -----------------------------------------------------------

  def initial_state(self, batch: int) -> dict[Literal['encode', 'decode'], Any]:
    """What `encode_step` ('encode') and `decode_step` ('decode') start from.

    The steps may take the states over (`donate_argnums`).

    Raises:
      ValueError: if the codec has no steps.
    """
    if self.min_step is None:
      raise ValueError(
          'this codec has no steps: its layers look ahead, or see the whole of'
          ' a segment'
      )
    width = self.bottleneck.output_dimension(self.encoder.dimension)
    widths = {'encode': self.encoder.channels, 'decode': width}
    layers = {'encode': self.encoder.layer, 'decode': self.decoder.layer}
    states = {
        way: layer.initial_state(
            batch, jax.ShapeDtypeStruct((widths[way],), jnp.float32)
        )
        for way, layer in layers.items()
    }
    # Layers may use one zero for several leaves, which could not be donated.
    return jax.tree.map(lambda x: jnp.array(x, copy=True), states)

  def encode_step(
      self,
      variables: tokenizers_base.Variables,
      audio: Float[Array, 'B T C'],
      mask: Bool[Array, 'B T'],
      state: Any,
  ) -> tuple[Array, Bool[Array, 'B F'], Any]:
    """Tokens of the next T samples, a multiple of hop: (tokens, mask, state).

    Tokens are codes [B, F, K] or latents [B, F, E]. A token frame of which any
    sample is valid is valid. What the audio holds is checked by who cuts it
    (`long.Coder` does).

    Raises:
      ValueError: for another shape than [B, n hop, C], and integers.
    """
    inputs.kind(self.spec, audio)
    if audio.shape[1] % self.hop:
      raise ValueError(
          f'a step of {audio.shape[1]} samples: expected a multiple of'
          f' {self.hop}'
      )
    audio, mask = self._framed(audio, mask)
    latents, mask, state = self.encoder.layer.apply(
        {'params': variables['params']['encoder']},
        audio,
        mask,
        state,
        method='step',
    )
    quantised = self.bottleneck.quantise(
        self._bottleneck(variables), latents, mask
    )
    tokens = quantised.tokens if quantised.codes is None else quantised.codes
    return tokens, mask[:, :: self.bottleneck.frames], state

  def decode_step(
      self,
      variables: tokenizers_base.Variables,
      tokens: Array,
      mask: Bool[Array, 'B F'],
      state: Any,
  ) -> tuple[Float[Array, 'B T C'], Bool[Array, 'B T'], Any]:
    """The next F hop samples, which lag by `latency`: (audio, mask, state).

    Args:
      variables: params and state.
      tokens: codes [B, F, k] or latents [B, F, E].
      mask: valid frames. Masked ones after the last flush what is still to
        sound.
      state: from the step before.

    Raises:
      ValueError: for tokens that mean nothing, as `inputs.values` has it.
    """
    inputs.values(self.spec, tokens, mask)
    latents = self.bottleneck.dequantise(self._bottleneck(variables), tokens)
    return self.decoder.layer.apply(
        {'params': variables['params']['decoder']},
        latents,
        jnp.repeat(mask, self.bottleneck.frames, axis=1),
        state,
        method='step',
    )

  def _framed(self, audio, mask):
    """With `whole_frames`: rows padded with zeros to whole token frames."""
    if not self.whole_frames:
      return audio, mask
    audio = streaming.zero_masked(audio, mask)
    blocks = mask.reshape(mask.shape[0], -1, self.hop).any(axis=-1)
    return audio, jnp.repeat(blocks, self.hop, axis=1)

  def _bottleneck(self, variables):
    return {
        'params': variables['params']['bottleneck'],
        'state': variables['state'],
    }
