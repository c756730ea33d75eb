"""Tokenising and sounding what does not fit into memory, block by block.

By what the tokenizer's network is, from the best way to the last resort:

*   It steps (causal codecs): the state is carried from block to block. EnCodec
    at 24 kHz, which mirrors the start of the audio, does so in blocks that are
    long enough.
*   It codes segments by themselves (EnCodec at 48 kHz): some at a time.
*   What an output depends on is bounded (`reach`): windows overlap by as much
    as that, and outputs whose dependencies leave the window are dropped.
*   None of these (bidirectional LSTMs, full attention): there is no exact way.
    Given `overlap_seconds`, windows overlap by so much, and how far their two
    versions of an overlap disagree is reported. Otherwise it is refused.

All but the last equal the whole-file result: audio within rounding, codes where
the quantiser's margin is clear. Blocks have one shape, so that each function
compiles once.
"""

from collections.abc import Callable, Iterable
import dataclasses
import functools
import math
from typing import Literal

import jax
from jaxtyping import Float
import numpy as np

from audiolm_jax import config
from audiolm_jax.streaming import base as streaming_base
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers import inputs
from audiolm_jax.tokenizers import encoding
from audiolm_jax.tokenizers import steppers
from audiolm_jax.tokenizers import windows

Audio = Float[np.ndarray, 'R T C']


# Blocks are held in memory, and networks take some hundred times as much.
_MOST_SECONDS = 3600


class LongFileError(ValueError):
  """A tokenizer for which there is no exact way, and none other was allowed."""


@dataclasses.dataclass(frozen=True)
class Settings:
  """How to go through long files.

  Attributes:
    block_seconds: new audio in each block; rounded up to what the tokenizer can
      take.
    overlap_seconds: where there is no exact way, how much neighbouring windows
      share; None to refuse.
    codebooks: how many slots of each frame to keep, the first, in encoding and
      in decoding; None for all.

  Raises:
    config.ConfigError: for values that mean nothing.
  """

  block_seconds: float = 5.0
  overlap_seconds: float | None = None
  codebooks: int | None = None

  def __post_init__(self):
    for name in ('block_seconds', 'overlap_seconds'):
      value = getattr(self, name)
      if value is None and name == 'overlap_seconds':
        continue
      number = isinstance(value, (int, float)) and not isinstance(value, bool)
      if not number or not 0 < value <= _MOST_SECONDS:
        raise config.ConfigError(
            f'{name} = {value!r}: expected more than 0 and at most'
            f' {_MOST_SECONDS} seconds'
        )
    codebooks = self.codebooks
    if codebooks is not None and (type(codebooks) is not int or codebooks < 1):
      raise config.ConfigError(
          f'codebooks = {codebooks!r}: expected a number of at least 1'
      )


DEFAULT = Settings()


@dataclasses.dataclass(frozen=True)
class Report:
  """What was done.

  Attributes:
    samples: of each row.
    frames: of each row.
    exact: whether it equals the whole-file result.
    compared: frames (in decoding, samples) that two windows both gave.
    disagreement: for codes, the fraction of those in which the two differ, for
      each slot; for latents and audio one number, the RMS of their difference
      over the RMS of the values.
  """

  samples: int
  frames: int
  exact: bool = True
  compared: int = 0
  disagreement: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Plan:
  """Windows of left + block + right units, of which `block` are new.

  Attributes:
    block: units from one window's start to the next one's.
    left: units before the kept ones, but for the first window.
    right: units after the kept ones, but for the last window.
    samples: of a unit.
    frames: of a unit.
    tail: samples of the last unit past its own, which the next one shares.
    exact: whether this equals the whole.
  """

  block: int
  left: int
  right: int
  samples: int
  frames: int
  tail: int = 0
  exact: bool = True

  @property
  def size(self) -> int:
    return self.left + self.block + self.right

  @property
  def window_samples(self) -> int:
    return self.size * self.samples + self.tail


class Coder:
  """Encodes and decodes streams of blocks; keeps its compiled functions.

  Args:
    tokenizer: a `codec.Codec`, or what has its networks and steps.
    variables: of it, unboxed.
    settings: size of blocks, codebooks, and what to do without an exact way.

  Raises:
    config.ConfigError: for settings that the tokenizer has no use for.
  """

  def __init__(
      self,
      tokenizer: tokenizers_base.Tokenizer,
      variables: tokenizers_base.Variables,
      settings: Settings = DEFAULT,
  ):
    self.tokenizer = tokenizer
    self.variables = variables
    self.settings = settings
    codebooks, spec = settings.codebooks, tokenizer.spec
    if codebooks is not None:
      if not spec.slots:
        raise config.ConfigError(
            f'codebooks = {codebooks}: the tokens are continuous'
        )
      if codebooks not in tokenizer.bottleneck.prefixes():
        raise config.ConfigError(
            f'{codebooks} codebooks: expected one of'
            f' {tokenizer.bottleneck.prefixes()}'
        )
    if settings.overlap_seconds is not None and self._exact:
      raise config.ConfigError(
          f'overlap_seconds = {settings.overlap_seconds}: this tokenizer goes'
          ' block by block exactly, and windows overlap by what that takes.'
          ' Leave it out'
      )
    self._encode = jax.jit(tokenizer.encode)
    self._decode = jax.jit(tokenizer.decode)

  @functools.cached_property
  def _encode_step(self):
    return jax.jit(self.tokenizer.encode_step, donate_argnums=3)

  @functools.cached_property
  def _decode_step(self):
    return jax.jit(self.tokenizer.decode_step, donate_argnums=3)

  @property
  def _exact(self) -> bool:
    """Whether there is an exact way to encode and to decode."""
    tokenizer = self.tokenizer
    if tokenizer.min_step is not None or tokenizer.spec.segment is not None:
      return True
    reaches = map(self._far_reach, ('encoder', 'decoder'))
    return None not in reaches

  @property
  def block(self) -> int:
    """Frames of new audio in a block."""
    spec, size = self.tokenizer.spec, 1
    least = self.tokenizer.min_step or 1
    frames = self.settings.block_seconds * spec.sample_rate / spec.hop
    # Steps must be whole blocks of both networks.
    for name, given in (('encoder', spec.hop), ('decoder', self._latents)):
      wanted = self._layer(name).block_size
      size = math.lcm(size, wanted // math.gcd(wanted, given))
    return math.ceil(max(frames, least) / size - 1e-9) * size

  def encode(
      self,
      audio: Iterable[Audio],
      write: Callable[[encoding.Block], None],
  ) -> Report:
    """Tokenises audio that comes block by block.

    Args:
      audio: blocks of any length, at `spec.sample_rate`.
      write: is given the tokens, some frames at a time.

    Raises:
      LongFileError: if there is no exact way and no `overlap_seconds`.
      ValueError: for blocks that are no audio (see `inputs.audio`).
    """
    pieces = ({'audio': x} for x in self._checked(audio))
    if self.tokenizer.min_step is not None:
      return self._encode_steps(pieces, write)
    return self._encode_windows(pieces, write, self._plan('encoder'))

  def decode(
      self,
      blocks: Iterable[encoding.Block],
      write: Callable[[Audio], None],
  ) -> Report:
    """Sounds tokens that come block by block.

    Args:
      blocks: of any number of frames.
      write: is given the audio: as many samples as the blocks stand for (fewer
        only of a codec that drops samples).

    Raises:
      LongFileError: if there is no exact way and no `overlap_seconds`.
      ValueError: for tokens that are not this tokenizer's (see `inputs.values`),
        and if the samples take more than the frames that came.
    """
    counter = _Counter(blocks, self.tokenizer.spec, self.settings.codebooks)
    if self.tokenizer.min_step is not None:
      return self._decode_steps(counter, write)
    return self._decode_windows(counter, write, self._plan('decoder'))

  def _checked(self, audio):
    done = 0
    for block in audio:
      try:
        num_samples = np.full(len(block), np.shape(block)[1])
        inputs.audio(self.tokenizer.spec, block, num_samples)
      except ValueError as error:
        raise ValueError(f'after {done} samples: {error}') from error
      done += block.shape[1]
      yield block

  @property
  def _latents(self) -> int:
    """Latents of a frame."""
    hop = self.tokenizer.spec.hop
    return int(hop * self._layer('encoder').output_ratio)

  def _layer(self, name: str) -> streaming_base.Layer:
    return getattr(self.tokenizer, name).layer

  def stepper(self, way: Literal['encode', 'decode']) -> steppers.Stepper:
    """The steps of a codec that has some, before the first block."""
    step, size = self._decode_step, self.block
    if way == 'encode':
      step, size = self._encode_step, self.block * self.tokenizer.spec.hop
    return steppers.Stepper(self.tokenizer, self.variables, way, step, size)

  def _encode_steps(self, pieces, write) -> Report:
    spec, step = self.tokenizer.spec, self.stepper('encode')
    out = _Emitter(write, self.settings)
    name = 'codes' if spec.slots else 'latents'
    for piece in windows.fixed(pieces, step.size):
      tokens, _ = step(piece['audio'])
      tokens = tokens[:, : spec.frames(windows.size(piece))]
      out.put({name: tokens}, windows.size(piece))
    return Report(out.samples, out.frames)

  def _decode_steps(self, counter, write) -> Report:
    made, decode = 0, self.stepper('decode')

    def step(piece):
      nonlocal made
      ((_, tokens),) = piece.items()
      audio, valid = decode(tokens)
      # Masked are the samples that lag behind, and those past the end.
      audio = audio[:, valid[0]][:, : counter.samples - made]
      made += audio.shape[1]
      if audio.shape[1]:
        write(audio)

    for piece in windows.fixed(counter.pieces(), decode.size):
      step(piece)
    before = None
    # Until nothing is left of what lags behind.
    while made < counter.samples and made != before:
      before = made
      step(windows.cut(piece, 0, 0))
    return Report(made, counter.frames)

  def _plan(self, name: str) -> _Plan:
    """How windows overlap for the encoder or the decoder."""
    spec = self.tokenizer.spec
    if spec.segment is not None:
      size, stride = spec.segment
      count = self.settings.block_seconds * spec.sample_rate / stride
      return _Plan(
          block=max(math.ceil(count), 1),
          # Audio also needs the segments that reach into it from before.
          left=-(-(size - stride) // stride) if name == 'decoder' else 0,
          right=0,
          samples=stride,
          frames=-(-size // spec.hop),
          tail=size - stride,
      )
    reach = self._far_reach(name)
    if reach is not None:
      left, right = reach
      return _Plan(self._new(left + right), left, right, spec.hop, 1)
    seconds = self.settings.overlap_seconds
    if seconds is None:
      raise LongFileError(
          f"the tokenizer's {name} depends on the whole file, so there is no"
          ' exact way to use it block by block. Give overlap_seconds to let'
          ' windows overlap (their disagreement is reported), or tokenize whole'
          ' files.'
      )
    side = max(math.ceil(seconds * spec.frame_rate / 2), 1)
    return _Plan(self._new(2 * side), side, side, spec.hop, 1, exact=False)

  def _new(self, shared: int) -> int:
    """Frames of a block, so that at most half of a window is done twice."""
    return -(-max(self.block, shared) // self.block) * self.block

  def _far_reach(self, name) -> tuple[int, int] | None:
    """Frames before and after a block that it depends on; None if unbounded."""
    # A stretch far from the start, where edges come in.
    start, stop = 1 << 24, (1 << 24) + self.block
    reached = self._reach(name, start, stop)
    if reached is None:
      return None
    return max(start - reached[0], 0), max(reached[1] - stop, 0)

  def _reach(self, name, start, stop) -> tuple[int, int] | None:
    """The frames that those of [start, stop), or their audio, depend on."""
    if name == 'encoder':
      given, reached = self._latents, self.tokenizer.spec.hop
    else:
      given, reached = self.tokenizer.spec.hop, self._latents
    span = self._layer(name).reach(start * given, stop * given)
    return span and (span[0] // reached, -(-span[1] // reached))

  def _encode_windows(self, pieces, write, plan) -> Report:
    spec, out = self.tokenizer.spec, _Emitter(write, self.settings)
    overlaps = windows.Overlaps(
        (plan.left + plan.right) * plan.frames, plan.block * plan.frames
    )
    steps = windows.overlapping(
        pieces, plan.window_samples, plan.block * plan.samples
    )
    for window in steps:
      audio = windows.padded(window.piece, plan.window_samples)['audio']
      num_samples = np.full(len(audio), window.size, np.int32)
      tokens = self._encode(self.variables, audio, num_samples)
      piece = encoding.Block(
          window.size, tokens.codes, tokens.latents, scales=tokens.scales
      ).arrays
      piece = windows.cut(piece, 0, spec.frames(window.size))
      if not plan.exact:
        overlaps.add(next(iter(piece.values())))
      start = 0 if window.first else plan.left
      stop = plan.size - plan.right
      if window.last:
        kept = windows.cut(piece, start * plan.frames)
        samples = window.size - start * plan.samples
      else:
        kept = windows.cut(piece, start * plan.frames, stop * plan.frames)
        samples = (stop - start) * plan.samples
      out.put(kept, samples)
    return Report(
        out.samples,
        out.frames,
        plan.exact,
        overlaps.compared,
        overlaps.disagreement(),
    )

  def _decode_windows(self, counter, write, plan) -> Report:
    overlap = (plan.left + plan.right) * plan.samples
    overlaps = windows.Overlaps(overlap, plan.block * plan.samples)
    made, before = 0, None
    steps = windows.overlapping(
        counter.pieces(), plan.size * plan.frames, plan.block * plan.frames
    )
    for window in steps:
      samples = plan.window_samples
      if window.last:
        past = window.start // plan.frames * plan.samples
        samples = counter.samples - past
      audio, samples = self._decode_piece(window.piece, samples, plan)
      if plan.exact:
        start = 0 if window.first else plan.left * plan.samples
        stop = (plan.size - plan.right) * plan.samples
        audio = audio[:, start : samples if window.last else stop]
      else:
        overlaps.add(audio)
        audio = windows.faded(before, audio)
        if not window.last:
          step = plan.block * plan.samples
          audio, before = audio[:, :step], audio[:, step:]
      made += audio.shape[1]
      write(audio)
    return Report(
        made,
        counter.frames,
        plan.exact,
        overlaps.compared,
        overlaps.disagreement(),
    )

  def _decode_piece(self, piece, samples, plan) -> tuple[Audio, int]:
    """Audio of a window, and how many samples of it there are."""
    piece = windows.padded(piece, plan.size * plan.frames)
    num_samples = np.full(windows.rows(piece), samples, np.int32)
    audio, num_samples = self._decode(
        self.variables, tokenizers_base.Tokens(num_samples=num_samples, **piece)
    )
    samples = int(num_samples[0])
    return np.asarray(audio)[:, :samples], samples


class _Emitter:
  """Hands on tokens as blocks of a token file, and counts."""

  def __init__(self, write, settings: Settings):
    self._write = write
    self._codebooks = settings.codebooks
    self.frames = self.samples = 0

  def put(self, piece: windows.Piece, samples: int) -> None:
    if 'codes' in piece:
      piece = {**piece, 'codes': piece['codes'][..., : self._codebooks]}
    self.frames += windows.size(piece)
    self.samples += samples
    self._write(encoding.Block(samples=samples, **piece))


class _Counter:
  """Blocks as pieces, with what they amount to so far."""

  def __init__(self, blocks: Iterable[encoding.Block], spec, codebooks):
    self._blocks = blocks
    self._spec = spec
    self._codebooks = codebooks
    self.frames = self.samples = 0

  def pieces(self):
    """The blocks; at the end all samples are held against all frames."""
    for block in self._blocks:
      piece = block.arrays
      if 'codes' in piece:
        piece['codes'] = piece['codes'][..., : self._codebooks]
      for name in ('codes', 'latents'):
        if name in piece:
          self._check(piece[name])
      self.frames += block.frames
      self.samples += block.samples
      yield piece
    encoding.check_frames(self._spec, self.frames, self.samples)

  def _check(self, values):
    try:
      inputs.values(self._spec, values, np.ones(values.shape[:2], bool))
    except ValueError as error:
      raise ValueError(f'after {self.frames} frames: {error}') from error
