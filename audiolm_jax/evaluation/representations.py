"""Audio as frames of vectors or codes: what probes, ABX and the like look at.

To add one: a frozen dataclass with `open(objective) -> Encoder`, and a line in
REPRESENTATIONS. `Mels` needs no model: it is what the others stand beside.
"""

import abc
from collections.abc import Sequence
import dataclasses
import functools
from typing import Annotated, Any, Literal

import jax
from jaxtyping import Float
import numpy as np

from audiolm_jax import config
from audiolm_jax.audio import resample
from audiolm_jax.data import pipeline
from audiolm_jax.data import token_cache
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import directory
from audiolm_jax.models import loading
from audiolm_jax.models import scoring
from audiolm_jax.ops import mel
from audiolm_jax.ops import sharding
from audiolm_jax.ops import stft
from audiolm_jax.tokenizers import base as tokenizers_base

# Clips that are encoded at once.
_ROWS = 8
_FLOOR = 1e-5  # Of magnitudes, before the logarithm.


@dataclasses.dataclass(frozen=True)
class Frames:
  """A clip as frames.

  Attributes:
    values: [F, D] float32 vectors, or [F, K] int32 codes.
    rate: frames a second; frame i stands for seconds i / rate to (i + 1) / rate.
    vocabularies: of the K slots of codes; () for vectors.
  """

  values: np.ndarray
  rate: float
  vocabularies: tuple[int, ...] = ()

  @property
  def times(self) -> Float[np.ndarray, 'F']:
    """The second in the middle of each frame."""
    return (np.arange(len(self.values)) + 0.5) / self.rate


class Encoder(abc.ABC):
  """A representation that is open."""

  @abc.abstractmethod
  def __call__(
      self, variables: Any, clips: Sequence[tuple[np.ndarray, int]]
  ) -> list[Frames]:
    """Frames of clips, in their order.

    Args:
      variables: as the objective takes them.
      clips: audio [T, C] in [-1, 1] and its rate in Hz.
    """


def log_mels(
    audio: Float[np.ndarray, 'T'], rate: int, hop: int, bands: int
) -> Float[np.ndarray, 'F bands']:
  """Natural logarithm of magnitude mel bands; frame i is centred on its span.

  Periodic Hann windows of the least power of two that holds four hops; bands
  are HTK's, of unit sums, floored at 1e-5. F = ceil(T / hop).

  Args:
    audio: samples.
    rate: Hz.
    hop: samples.
    bands: how many.
  """
  size = 1 << (4 * hop - 1).bit_length()
  count = -(-len(audio) // hop)
  before = (size - hop) // 2
  padded = np.zeros((count - 1) * hop + size if count else size, np.float32)
  padded[before : before + len(audio)] = audio
  windows = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
  spectra = np.abs(np.fft.rfft(windows[:count] * stft.hann(size), axis=-1))
  bank = mel.mel_filters(rate, size, bands)
  values = spectra @ (bank / bank.sum(axis=0))
  return np.log(np.maximum(values, _FLOOR)).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mels:
  """Log-mel bands of the audio: no model; what a representation may lose.

  Attributes:
    bands: how many.
    frame_rate: frames a second.
    sample_rate: that audio is brought to, Hz.
  """

  bands: config.Positive = 40
  frame_rate: config.Positive = 50
  sample_rate: config.Positive = 16000

  def open(self, objective: Any) -> Encoder:
    del objective
    return _Mels(self)


class _Mels(Encoder):

  def __init__(self, settings):
    self._settings = settings

  def __call__(self, variables, clips):
    settings = self._settings
    rate, hop = (
        settings.sample_rate,
        settings.sample_rate // settings.frame_rate,
    )
    return [
        Frames(
            log_mels(
                resample.mono(audio, old, rate), rate, hop, settings.bands
            ),
            rate / hop,
        )
        for audio, old in clips
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodecFrames:
  """What the codec that is trained makes of audio.

  Attributes:
    of: 'codes', as one-hot vectors; 'vectors', those that the codes stand for,
      one after the other; 'latents' that a continuous tokenizer gives, or that
      come before a codec's bottleneck.
    codebooks: only the first so many; None for all.
  """

  of: Literal['codes', 'vectors', 'latents'] = 'codes'
  codebooks: config.Positive | None = None

  def open(self, objective: Any) -> Encoder:
    """The encoder.

    Raises:
      ConfigError: for an objective that trains no tokenizer.
    """
    _, description = objective.model
    if not isinstance(description.module, tokenizers_base.Tokenizer):
      raise config.ConfigError(
          f'of.kind = codec: the run trains a {type(description.module).__name__},'
          ' which is no tokenizer. Use mels or states.'
      )
    return _Codec(self, objective)


class _Codec(Encoder):

  def __init__(self, settings, objective):
    self._settings, self._objective = settings, objective

  def __call__(self, variables, clips):
    return of_tokens(self._objective.bind(variables), clips, self._read)

  def _read(self, bound, tokens, audio, num_samples):
    """([B, F, D] or [B, F, K], vocabularies) of a batch."""
    spec, of, first = bound.spec, self._settings.of, self._settings.codebooks
    if of == 'latents':
      if tokens.latents is not None:
        return np.asarray(tokens.latents, np.float32), ()
      if not hasattr(bound.tokenizer, 'encode_latents'):
        raise config.ConfigError(
            f"of = 'latents': a {type(bound.tokenizer).__name__} has none"
        )
      params = bound.variables['params']
      latents = before_bottleneck(bound.tokenizer, params, audio, num_samples)
      return np.asarray(latents), ()
    if tokens.codes is None:
      raise config.ConfigError(
          f"of = {of!r}: the tokenizer has no codes; use 'latents'"
      )
    codes = np.asarray(tokens.codes)[..., :first]
    if of == 'codes':
      return codes, spec.vocabularies[: codes.shape[-1]]
    return code_vectors(bound, codes), ()


@functools.partial(jax.jit, static_argnames='tokenizer')
def before_bottleneck(tokenizer, params, audio, num_samples):
  """[B, F, D] before a codec's bottleneck; each process gets all rows."""
  return sharding.whole(tokenizer.encode_latents(params, audio, num_samples)[0])


def code_vectors(
    bound: audio_tokenizer.AudioTokenizer, codes: np.ndarray
) -> Float[np.ndarray, '*b KD']:
  """The vectors that codes [..., K] stand for, slot after slot.

  Raises:
    ConfigError: for a tokenizer whose codes stand for none.
  """
  tables = bound.code_vectors()
  if tables is None:
    raise config.ConfigError(
        "of = 'vectors': the codes of this tokenizer stand for no vectors of one"
        " shape; use 'codes'"
    )
  vectors = [tables[k][codes[..., k]] for k in range(codes.shape[-1])]
  return np.concatenate(vectors, axis=-1).astype(np.float32)


def of_tokens(bound, clips, read) -> list[Frames]:
  """Frames by a function of the tokens of batches.

  Args:
    bound: an `AudioTokenizer`.
    clips: audio [T, C] and its rate in Hz.
    read: (bound, tokens, audio, num_samples) -> ([B, F, ...], vocabularies) of a
      batch, whose audio is padded to whole frames.
  """
  spec = bound.spec
  audio = [
      resample.remix(
          resample.resample(x, rate, spec.sample_rate), spec.channels
      )
      for x, rate in clips
  ]
  lengths = np.array([len(x) for x in audio], np.int64)
  frames = np.asarray(spec.frames(lengths))
  bounds = sorted({audio_tokenizer.padded_frames(int(f)) for f in frames})
  result: list[Any] = [None] * len(clips)
  for bound_frames, size, members in pipeline.buckets(
      frames, bounds, [_ROWS] * len(bounds)
  ):
    rows = pipeline.pad(
        [audio[i] for i in members], size, bound_frames * spec.hop
    )
    num_samples = np.zeros(size, np.int32)
    num_samples[: len(members)] = lengths[members]
    tokens = bound.encode(rows, num_samples)
    if tokens.durations is not None:
      raise config.ConfigError(
          'the tokenizer gives tokens of varying durations, which have no times'
      )
    values, vocabularies = read(bound, tokens, rows, num_samples)
    for row, i in enumerate(members):
      kept = values[row, : frames[i]]
      result[i] = Frames(kept, spec.frame_rate, vocabularies)
  return result


@dataclasses.dataclass(frozen=True, kw_only=True)
class States:
  """Hidden states of the language model of frames that is trained.

  State f has read frames 0 to f (with a delayed pattern of the delayed slots
  fewer): it is the output that predicts the first slot of frame f + 1. The last
  frame has none.

  Attributes:
    tokenizer: directory of the model that makes its frames; None for where it
      was when the cache was filled. It must be the one that made the cache.
    cache: the token cache that says which; None for that of training's data.
    layer: after so many layers, before the final norm; None for the backbone's
      output.
  """

  tokenizer: Annotated[str, config.Path()] | None = None
  cache: Annotated[str, config.Path()] | None = None
  layer: config.Positive | None = None

  def with_data(self, source: Any) -> 'States':
    """Itself, with the cache of `source` (config.data) if it names none."""
    return evaluation_base.with_cache(self, source)

  def open(self, objective: Any) -> Encoder:
    """The encoder.

    Raises:
      ConfigError: for a model that is not of frames, or no tokenizer.
    """
    return _States(self, objective)


def tokenizer_of(
    vocabularies: Sequence[int], cache: str | None, tokenizer: str | None
) -> audio_tokenizer.AudioTokenizer:
  """The tokenizer of a language model's codes.

  Args:
    vocabularies: of the model.
    cache: the token cache that says which tokenizer it is, and where it was.
    tokenizer: its directory; None for where it was when the cache was filled.
      Without a cache, whichever is there is taken.

  Raises:
    ConfigError: if there is none, or the model is not of its codes.
    ModelError: if it is not the one that made the cache.
  """
  if cache is not None:
    header = token_cache.read_header(cache)
    speaks = directory.Speaks(header.tokenizer, header.fingerprint)
    bound = loading.tokenizer_of(speaks, cache, tokenizer)
  elif tokenizer is not None:
    bound = loading.load_codec(tokenizer)
  else:
    raise config.ConfigError(
        'tokenizer = None: config.data has no token cache that names one; give'
        ' its directory'
    )
  try:
    bound.check_speaks(vocabularies)
  except ValueError as error:
    where = f'cache = {cache!r}, tokenizer = {tokenizer!r}'
    raise config.ConfigError(f'{where}: the decoder {error}') from error
  return bound


class _States(Encoder):

  def __init__(self, settings, objective):
    self._decoder, self._layer = objective.decoder, settings.layer
    if list(self._decoder.streams) != ['frames']:
      raise config.ConfigError(
          f'the decoder, a {type(self._decoder).__name__}, has the streams'
          f' {list(self._decoder.streams)}: expected frames of a tokenizer'
      )
    self._bound = tokenizer_of(
        self._decoder.vocabularies, settings.cache, settings.tokenizer
    )

  def __call__(self, variables, clips):
    params = variables['lm']['params']
    decoder = self._decoder
    if self._layer is not None:
      decoder, params = decoder.cut(params, self._layer)

    def read(bound, tokens, audio, num_samples):
      codes = np.asarray(tokens.codes)[..., : len(decoder.vocabularies)]
      num_frames = np.asarray(bound.spec.frames(num_samples), np.int32)
      states = scoring.states(decoder, params, (codes, num_frames))
      return np.asarray(states, np.float32), ()

    frames = of_tokens(self._bound, clips, read)
    # The output at the last frame would need a frame after it.
    return [
        dataclasses.replace(f, values=f.values[: len(f.values) - 1])
        for f in frames
    ]


REPRESENTATIONS = {'mels': Mels, 'codec': CodecFrames, 'states': States}
