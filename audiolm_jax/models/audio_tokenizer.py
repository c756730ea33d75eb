"""A tokenizer bound to its variables, for people and for scripts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import functools
import os

import flax
import jax
from jaxtyping import Array, Float, Int, Shaped
import numpy as np

from audiolm_jax import config
from audiolm_jax.audio import files
from audiolm_jax.audio import streams
from audiolm_jax.data import clip_files
from audiolm_jax.data import pipeline
from audiolm_jax.models import fingerprints
from audiolm_jax.models import tokenizer_session
from audiolm_jax.ops import sharding
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers import encoding
from audiolm_jax.tokenizers import inputs
from audiolm_jax.tokenizers import long
from audiolm_jax.tokenizers import transcoding
from audiolm_jax.tokenizers.bottlenecks import rvq
from audiolm_jax.tokenizers.bottlenecks import vq


@functools.partial(jax.jit, static_argnames='tokenizer')
def _encode(
    tokenizer: tokenizers_base.Tokenizer,
    variables: tokenizers_base.Variables,
    audio: Float[Array, 'B T C'],
    num_samples: Int[Array, 'B'],
) -> tokenizers_base.Tokens:
  """`tokenizer.encode`; each process gets all rows."""
  return sharding.whole(tokenizer.encode(variables, audio, num_samples))


@functools.partial(jax.jit, static_argnames='tokenizer')
def _decode(
    tokenizer: tokenizers_base.Tokenizer,
    variables: tokenizers_base.Variables,
    tokens: tokenizers_base.Tokens,
) -> tuple[Float[Array, 'B T C'], Int[Array, 'B']]:
  """`tokenizer.decode`; each process gets all rows."""
  return sharding.whole(tokenizer.decode(variables, tokens))


@jax.jit
def _nearest(
    codebooks: Float[Array, 'N V E'], vectors: Float[Array, 'B F E']
) -> Int[Array, 'B F N']:
  """Codes of vectors, each of what those before it leave."""
  valid = np.ones(vectors.shape[:2], bool)
  return sharding.whole(vq.quantise(codebooks, vectors, valid).codes)


class AudioTokenizer:
  """`encode` and `decode`, compiled, on host arrays.

  Time is padded to one of few sizes (two in each octave), so that clips of all
  lengths share a few compilations; results are cut back and equal the unpadded.
  What is compiled is shared by all that are of one tokenizer, whatever their
  variables: to bind those of the next evaluation costs nothing.

  Attributes:
    tokenizer: the pure tokenizer.
    variables: its variables, unboxed.
  """

  def __init__(
      self,
      tokenizer: tokenizers_base.Tokenizer,
      variables: tokenizers_base.Variables,
  ):
    self.tokenizer = tokenizer
    self.variables = flax.core.meta.unbox(variables)
    self._coders: dict[long.Settings, long.Coder] = {}

  @property
  def spec(self) -> tokenizers_base.Spec:
    return self.tokenizer.spec

  def check_speaks(self, vocabularies: Sequence[int]) -> None:
    """Refuses a model of codes that are not those of the first slots.

    Args:
      vocabularies: of the slots of a frame, as the model has them.

    Raises:
      ValueError: if the tokenizer's are others, or its tokens continuous.
    """
    wanted, found = tuple(vocabularies), tuple(self.spec.vocabularies)
    if found[: len(wanted)] != wanted:
      raise ValueError(
          f'speaks tokens of vocabularies {wanted}, but the tokenizer has'
          f' {found or "continuous ones"}'
      )

  def code_vectors(self) -> Float[np.ndarray, 'K V D'] | None:
    """The vectors that the codes of each slot stand for, if there are such."""
    vectors = self.tokenizer.code_vectors(self.variables)
    return None if vectors is None else np.asarray(vectors)

  def codes_to_vectors(
      self, codes: Int[np.ndarray, '*b F N']
  ) -> Float[np.ndarray, '*b F E']:
    """The sums of the vectors of the first N codes of each frame.

    They are what is decoded, before the bottleneck's map (if it has one).

    Raises:
      ConfigError: for a tokenizer without residual codebooks.
    """
    vectors = self._residual_vectors()
    count = np.shape(codes)[-1]
    if not 0 < count <= len(vectors):
      raise config.ConfigError(
          f'{count} codes a frame: the tokenizer has {len(vectors)}'
      )
    return sum(vectors[k][codes[..., k]] for k in range(count))

  def vectors_to_codes(
      self, vectors: Float[np.ndarray, 'B F E'], codebooks: int
  ) -> Int[np.ndarray, 'B F N']:
    """Codes of any vectors, by the tokenizer's own quantiser.

    It is greedy: the codes of a sum of vectors may be others than those that it
    is of, whose sum is as near.

    Args:
      vectors: of the width of `codes_to_vectors`.
      codebooks: N, how many of a frame, from the first.

    Raises:
      ConfigError: for a tokenizer without residual codebooks, or with fewer.
    """
    books = self._residual_vectors()
    if not 0 < codebooks <= len(books):
      raise config.ConfigError(
          f'codebooks = {codebooks}: the tokenizer has {len(books)}'
      )
    return np.asarray(_nearest(books[:codebooks], np.asarray(vectors)))

  def _residual_vectors(self):
    bottleneck = getattr(self.tokenizer, 'bottleneck', None)
    if not isinstance(bottleneck, rvq.Rvq) or bottleneck.normalize:
      raise config.ConfigError(
          'vectors of frames are sums over the codebooks of an Rvq that looks'
          f' codes up by distance; the tokenizer has {bottleneck}'
      )
    return self.code_vectors()

  def encode(
      self,
      audio: Float[np.ndarray, 'B T C'] | Float[np.ndarray, 'T'],
      num_samples: Int[np.ndarray, 'B'] | None = None,
  ) -> tokenizers_base.Tokens:
    """Tokens of audio at `spec.sample_rate`, as numpy arrays.

    Args:
      audio: [B, T, C], or one mono clip [T]; floats in [-1, 1].
      num_samples: samples of each row; default all of T.

    Raises:
      ValueError: for what `inputs.audio` refuses: another shape or type, NaN,
        samples far beyond full scale, impossible lengths.
    """
    audio = np.asarray(audio)
    if audio.ndim == 1:
      audio = audio[None, :, None]
    if num_samples is None:
      num_samples = np.full(audio.shape[:1], audio.shape[1])
    inputs.audio(self.spec, audio, num_samples)
    audio = audio.astype(np.float32, copy=False)
    frames = int(self.spec.frames(audio.shape[1]))
    missing = padded_frames(frames) * self.spec.hop - audio.shape[1]
    audio = np.pad(audio, ((0, 0), (0, missing), (0, 0)))
    num_samples = np.asarray(num_samples, np.int32)
    tokens = _encode(self.tokenizer, self.variables, audio, num_samples)
    tokens = tokenizers_base.numpy_tokens(tokens)
    return jax.tree.map(lambda x: x if x.ndim == 1 else x[:, :frames], tokens)

  def read_codes(self, path: str | os.PathLike) -> Int[np.ndarray, 'F K']:
    """Codes of the whole frames of an audio file of any rate and channels.

    Args:
      path: as for `streams.opened`: '-' for stdin.

    Raises:
      files.AudioFileError: for what can not be read, NaN, and samples far beyond
        full scale; naming the file.
    """
    audio = self._read(path)
    if not audio.shape[1]:
      return np.zeros((0, len(self.spec.slots)), np.int32)
    return self.encode(audio).codes[0]

  def read_latents(self, path: str | os.PathLike) -> Float[np.ndarray, 'F D']:
    """Latents of the whole frames of an audio file: see `read_codes`."""
    audio = self._read(path)
    if not audio.shape[1]:
      return np.zeros((0, self.spec.dimension), np.float32)
    return self.encode(audio).latents[0]

  def _read(self, path):
    """The whole frames of an audio file [1, F hop, C]."""
    spec = self.spec
    with streams.opened(
        path, rate=spec.sample_rate, channels=spec.channels
    ) as stream:
      empty = np.zeros((0, spec.channels), np.float32)
      audio = np.concatenate([empty, *stream.blocks])[None]
    size = audio.shape[1]
    try:
      inputs.audio(spec, audio, np.array([size]))
    except ValueError as error:
      raise files.AudioFileError(f'{path}: {error}.') from error
    return audio[:, : size // spec.hop * spec.hop]

  def decode(
      self, tokens: tokenizers_base.Tokens
  ) -> tuple[Float[np.ndarray, 'B T C'], Int[np.ndarray, 'B']]:
    """Audio [B, F hop, C], zero past each row's length, and the lengths.

    Raises:
      ValueError: for what `inputs.tokens` refuses: codes out of their
        vocabularies, latents that are not finite, another shape or type,
        lengths that take more frames than there are.
    """
    tokens = tokenizers_base.numpy_tokens(tokens)
    inputs.tokens(self.spec, tokens)
    given = tokens.latents if tokens.codes is None else tokens.codes
    frames = given.shape[1]
    missing = padded_frames(frames) - frames
    padded = jax.tree.map(
        lambda x: x
        if x.ndim == 1
        else np.pad(x, ((0, 0), (0, missing), *[(0, 0)] * (x.ndim - 2))),
        tokens,
    )
    audio, num_samples = _decode(self.tokenizer, self.variables, padded)
    audio = np.asarray(audio)[:, : frames * self.spec.hop]
    return audio, np.asarray(num_samples)

  def encode_long(
      self,
      path_in: str | os.PathLike,
      path_out: str | os.PathLike,
      settings: long.Settings = long.DEFAULT,
      *,
      each_channel: bool = False,
      raw: streams.Raw | None = None,
      name: str = '',
      factors: Mapping[str, str] | None = None,
      show: bool = True,
  ) -> long.Report:
    """Audio file (any rate, length, format) to token file, in constant memory.

    Args:
      path_in: '-' for stdin.
      path_out: '-' for stdout.
      settings: size of blocks, codebooks to keep, and what to do where there is
        no exact way.
      each_channel: encode channels apart, as rows.
      raw: what stdin holds if it has no header.
      name: where this tokenizer is, for the file's header.
      factors: what is known of the clip, for the file's header.
      show: a progress bar, on a terminal.

    Raises:
      files.AudioFileError, long.LongFileError: see `transcoding.encode_file`.
    """
    return transcoding.encode_file(
        self._coder(settings),
        transcoding.Source(self.fingerprint(), name),
        path_in,
        path_out,
        each_channel=each_channel,
        raw=raw,
        factors=factors,
        show=show,
    )

  def decode_long(
      self,
      source: str | os.PathLike | clip_files.Clip,
      path_out: str | os.PathLike,
      settings: long.Settings = long.DEFAULT,
      *,
      force: bool = False,
      raw: bool = False,
      show: bool = True,
  ) -> long.Report:
    """Tokens to wav or flac, in constant memory.

    Args:
      source: a token file, '-' for stdin, or a clip of a token cache.
      path_out: '-' for stdout.
      settings: size of blocks, and what to do where there is no exact way.
      force: decode another tokenizer's tokens, if their shapes fit.
      raw: write samples without a header.
      show: a progress bar, on a terminal.

    Raises:
      encoding.TokensError, long.LongFileError: see `transcoding.decode`.
    """
    coder = self._coder(settings)
    mine = transcoding.Source(self.fingerprint())
    options = {'force': force, 'raw': raw, 'show': show}
    if not isinstance(source, clip_files.Clip):
      return transcoding.decode_file(coder, mine, source, path_out, **options)
    return transcoding.decode(
        coder,
        mine,
        source.header,
        [source.example.block],
        path_out,
        name=source.name,
        samples=source.example.samples,
        **options,
    )

  def session(self, rows: int = 1) -> tokenizer_session.TokenizerSession:
    """Rows that are encoded and decoded block by block, while audio comes.

    Args:
      rows: B.

    Raises:
      ValueError: for a tokenizer that has no steps.
    """
    return tokenizer_session.TokenizerSession(self._coder(self._live), rows)

  def decode_frames(
      self,
      frames: Iterable[Shaped[np.ndarray, 'R K']],
      write: Callable[[Float[np.ndarray, 'R T C']], None],
  ) -> None:
    """Audio of frames while they come, by the smallest steps there are.

    Tokenizers without steps go by windows or segments; see `long`.

    Args:
      frames: codes of R rows, of the first slots; or latents.
      write: is given the audio.

    Raises:
      ValueError: see `long.Coder.decode`, as for the next.
      long.LongFileError: if there is no exact way.
    """
    samples = self.spec.samples
    kind = 'latents' if self.spec.dimension else 'codes'
    blocks = (
        # Overlapping segments share some samples.
        encoding.Block(
            int(samples(i + 1) - samples(i)), **{kind: frame[:, None]}
        )
        for i, frame in enumerate(frames)
    )
    self._coder(self._live).decode(blocks, write)

  @property
  def _live(self) -> long.Settings:
    """Blocks as small as they may be."""
    spec = self.spec
    return long.Settings(block_seconds=spec.hop / spec.sample_rate)

  def _coder(self, settings: long.Settings) -> long.Coder:
    """One for each settings, as it keeps compiled functions."""
    if settings not in self._coders:
      self._coders[settings] = long.Coder(
          self.tokenizer, self.variables, settings
      )
    return self._coders[settings]

  def fingerprint(self) -> str:
    """sha256 over spec, config and all variables: which tokens these are."""
    return self._fingerprint

  @functools.cached_property
  def _fingerprint(self) -> str:
    return fingerprints.of(self.tokenizer, self.variables)


def padded_frames(frames: int) -> int:
  """The next of 0, 32, 48, 64, 96, 128, 192, ... frames."""
  return pipeline.padded(frames, 32)
