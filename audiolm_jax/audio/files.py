"""Reading and writing audio files."""

from collections.abc import Iterator
import contextlib
import dataclasses
import os
import pathlib
from typing import BinaryIO

from absl import logging
import av
from jaxtyping import Float
from jaxtyping import Int
import numpy as np

from audiolm_jax.audio import checks
from audiolm_jax.audio import containers
from audiolm_jax.audio import outputs

# What `read` is known to decode; anything else that FFmpeg knows works too.
SUFFIXES = ('.wav', '.flac', '.ogg', '.opus', '.mp3', '.m4a', '.aiff', '.g722')

# Containers that a file's content does not give away.
_RAW_FORMATS = {'.g722': 'g722'}
# FFmpeg's names of containers whose duration is stored, not guessed.
_TIMED = ('mov', 'matroska')
# Bytes of a pipe that are looked at first.
_HEAD = 4096
_NOTHING = containers.Announced()


class AudioFileError(Exception):
  """Audio that can't be read or written; the message says which and why."""


@dataclasses.dataclass(frozen=True)
class Decoded:
  """What comes out of a decoder.

  Attributes:
    rate: samples a second.
    channels: how many.
    seconds: as the container says, which may be wrong; None if it does not.
    blocks: the samples in [-1, 1], some [T, C] at a time.
  """

  rate: int
  channels: int
  seconds: float | None
  blocks: Iterator[Float[np.ndarray, 'T C']]


@contextlib.contextmanager
def decoding(
    source: str | os.PathLike | BinaryIO,
    name: str | None = None,
    *,
    strict: bool = False,
) -> Iterator[Decoded]:
  """Decodes block by block, whatever the container and codec.

  Once all blocks were taken, a file that is not whole is reported: one that is cut
  off, gives less than its header says, or has a checksum that is wrong.

  Args:
    source: wav, flac, ogg, opus, mp3, raw g722, ... (all that FFmpeg decodes);
      a path, or a file object, which need not be seekable.
    name: what messages call it; by default the path.
    strict: refuse what is not whole; else a warning is logged.

  Raises:
    AudioFileError: naming the file and the reason, here or on iteration.
  """
  name = name or os.fspath(source)
  kind, announced, watched = None, _NOTHING, None
  if isinstance(source, (str, os.PathLike)):
    path = pathlib.Path(source)
    source = str(path)
    with _errors(name):
      if path.stat().st_size == 0:
        raise AudioFileError(f'{name}: the file is empty.')
      kind = _raw_format(path, name)
      if kind is None:
        announced = containers.announced(path)
  elif not hasattr(source, 'seek'):
    with _errors(name):
      source = watched = _Watched(source)
    announced = watched.announced
  with _errors(name, announced):
    # Tags in another encoding than UTF-8 are no reason to refuse a file.
    container = av.open(source, format=kind, metadata_errors='replace')
  with container:
    if not container.streams.audio:
      raise AudioFileError(f'{name}: the file holds no audio stream.')
    stream = container.streams.audio[0]
    announced = _known(announced, container, stream)
    if stream.codec_context is None:
      raise AudioFileError(f'{name}: of a codec that is not known.')
    if announced.checksums or stream.codec_context.name == 'flac':
      stream.codec_context.options = {'err_detect': 'crccheck+explode'}
    frames = container.decode(stream)
    with _errors(name, announced):
      # The rate that a header gives need not be that of the samples (HE-AAC).
      first = next(frames, None)
      rate = stream.rate if first is None else first.sample_rate
      channels = stream.channels if first is None else first.layout.nb_channels
      checks.rate(rate)
      checks.channels(channels)
    seconds = container.duration and container.duration / av.time_base
    blocks = _blocks(
        name, first, frames, rate, channels, announced, watched, strict
    )
    yield Decoded(rate, channels, seconds, blocks)


class _Watched:
  """A pipe that FFmpeg reads, whose bytes are looked at on the way.

  Attributes:
    announced: what its beginning says.
  """

  def __init__(self, pipe: BinaryIO):
    self._pipe = pipe
    self._head = b''
    while len(self._head) < _HEAD and (data := pipe.read(_HEAD)):
      self._head += data
    self.announced = containers.announced_at_the_beginning(self._head)
    self._pages = containers.OggCheck() if self._head[:4] == b'OggS' else None
    self._bytes = 0

  def read(self, size: int) -> bytes:
    data, self._head = self._head[:size], self._head[size:]
    data = data or self._pipe.read(size)
    self._bytes += len(data)
    if self._pages is not None:
      self._pages.feed(data)
    return data

  def held_against(self, announced):
    """`announced` with what was wrong, once all was read."""
    if self._pages is None:
      return announced.held_against(self._bytes)
    self._pages.finish()
    return dataclasses.replace(announced, fault=self._pages.fault)


def _raw_format(path, name):
  """FFmpeg's name of a format without a header, if the file has such a one."""
  kind = _RAW_FORMATS.get(path.suffix.lower())
  if kind is None:
    return None
  try:
    return kind if containers.headerless(path) else None
  except ValueError as error:
    raise AudioFileError(
        f'{name}: it is called {path.suffix}, but {error}.'
    ) from error


def _known(announced, container, stream):
  """`announced`, or what FFmpeg tells of containers that hold a duration."""
  if announced.seconds is not None or stream.duration is None:
    return announced
  if not container.format.name.startswith(_TIMED):
    return announced
  seconds = float(stream.duration * stream.time_base)
  return dataclasses.replace(announced, seconds=seconds)


def _blocks(name, first, frames, rate, channels, announced, watched, strict):
  """Samples of decoded frames, none of which may be of another kind."""
  frame, samples = first, 0
  while frame is not None:
    if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
      raise AudioFileError(
          f'{name}: it changes from {rate} Hz x {channels} to'
          f' {frame.sample_rate} Hz x {frame.layout.nb_channels} on the way.'
      )
    samples += frame.samples
    with _errors(name, announced, samples / rate):
      block = _samples(frame)
      frame = next(frames, None)
    yield block
  if watched is not None:
    announced = watched.held_against(announced)
  lacking(name, announced.lacking(samples / rate), strict)


def lacking(name: str, reason: str | None, strict: bool) -> None:
  """Tells that audio is not whole, if there is a reason to.

  Raises:
    AudioFileError: if strict; else a warning is logged.
  """
  if reason is None:
    return
  if strict:
    raise AudioFileError(f'{name}: {reason}.')
  logging.warning('%s: %s.', name, reason)


def read(
    path: str | os.PathLike, *, strict: bool = False
) -> tuple[Float[np.ndarray, 'T C'], int]:
  """Decodes a whole audio file.

  Args:
    path: as for `decoding`.
    strict: refuse a file that is cut off or damaged; else a warning is logged
      and what there is is given.

  Returns:
    The samples in [-1, 1] (T may be 0) and the sample rate in Hz.

  Raises:
    AudioFileError: naming the file and the reason.
  """
  with decoding(path, strict=strict) as decoded:
    blocks = list(decoded.blocks)
  empty = np.zeros((0, decoded.channels), np.float32)
  return np.concatenate([empty, *blocks]), decoded.rate


def write(
    path: str | os.PathLike, audio: Float[np.ndarray, 'T C'], sample_rate: int
) -> None:
  """Writes 16-bit wav or flac by `path`'s suffix; never a half-written file.

  Args:
    path: where to; its folder is created.
    audio: floats, clipped to [-1, 1] and rounded as by `to_int16`; [T] is taken
      as one channel.
    sample_rate: in Hz.

  Raises:
    ValueError: for another suffix, rate, shape, or samples that are integers or
      not finite.
    OSError: naming the file, if it can't be written.
  """
  try:
    samples = to_int16(audio)
  except ValueError as error:
    raise ValueError(f'{path}: {error}.') from error
  samples = samples[:, None] if samples.ndim == 1 else samples
  if samples.ndim != 2:
    raise ValueError(f'{path}: samples of shape {samples.shape}, not [T, C].')
  with outputs.pcm16(path, sample_rate, samples.shape[1]) as append:
    append(samples)


def to_int16(audio: Float[np.ndarray, '...']) -> Int[np.ndarray, '...']:
  """[-1, 1] floats as 16-bit integers (the inverse of `to_float`).

  They are clipped to that range and rounded to the nearest, halves to the even
  neighbour.

  Raises:
    ValueError: for integers and for samples that are not finite.
  """
  clipped = np.clip(checks.samples(audio), -1, 32767 / 32768)
  return np.round(clipped * 32768).astype(np.int16)


def to_float(audio: Int[np.ndarray, '...']) -> Float[np.ndarray, '...']:
  """16-bit integers as float32 in [-1, 1)."""
  return audio.astype(np.float32) * np.float32(1 / 32768)


@contextlib.contextmanager
def _errors(name, announced=_NOTHING, seconds=0.0):
  """What goes wrong inside, as an AudioFileError."""
  try:
    yield
  except (OSError, ValueError, av.FFmpegError) as error:
    after = ''
    if seconds:
      of = f' of {announced.seconds:.2f}' if announced.seconds else ''
      after = f' after {seconds:.2f}{of} s'
    # FFmpeg's own has a number and the file's name again.
    reason = getattr(error, 'strerror', None) or error
    fault = f'; {announced.fault}' if announced.fault else ''
    raise AudioFileError(
        f'{name}: cannot be decoded{after} ({reason}{fault}).'
    ) from error


def _samples(frame: av.AudioFrame) -> Float[np.ndarray, 'T C']:
  """A decoded frame as floats, channels last."""
  block = frame.to_ndarray()  # [C, T] if planar, else [1, T * C].
  channels = frame.layout.nb_channels
  block = block.T if frame.format.is_planar else block.reshape(-1, channels)
  if block.dtype == np.uint8:
    return (block.astype(np.float32) - 128) / 128
  if np.issubdtype(block.dtype, np.integer):
    return (block / -float(np.iinfo(block.dtype).min)).astype(np.float32)
  return block.astype(np.float32)
