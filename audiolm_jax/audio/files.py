"""Reading and writing audio files."""

from collections.abc import Iterator
import contextlib
import dataclasses
import os
import pathlib
from typing import BinaryIO

import av
from jaxtyping import Float
from jaxtyping import Int
import numpy as np

from audiolm_jax.audio import checks
from audiolm_jax.audio import outputs

# What `read` is known to decode; anything else that FFmpeg knows works too.
SUFFIXES = ('.wav', '.flac', '.ogg', '.opus', '.mp3', '.m4a', '.aiff', '.g722')

# Containers that a file's content does not give away.
_RAW_FORMATS = {'.g722': 'g722'}


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
    source: str | os.PathLike | BinaryIO, name: str | None = None
) -> Iterator[Decoded]:
  """Decodes block by block, whatever the container and codec.

  Args:
    source: wav, flac, ogg, opus, mp3, raw g722, ... (all that FFmpeg decodes);
      a path, or a file object, which need not be seekable.
    name: what messages call it; by default the path.

  Raises:
    AudioFileError: naming the file and the reason, here or on iteration.
  """
  name = name or os.fspath(source)
  if isinstance(source, (str, os.PathLike)):
    path = pathlib.Path(source)
    with _errors(name):
      if path.stat().st_size == 0:
        raise AudioFileError(f'{name}: the file is empty.')
    source, kind = str(path), _RAW_FORMATS.get(path.suffix.lower())
  else:
    kind = None
  with _errors(name):
    container = av.open(source, format=kind)
  with container:
    if not container.streams.audio:
      raise AudioFileError(f'{name}: the file holds no audio stream.')
    stream = container.streams.audio[0]
    frames = container.decode(stream)
    with _errors(name):
      # The rate that a header gives need not be that of the samples (HE-AAC).
      first = next(frames, None)
    rate = stream.rate if first is None else first.sample_rate
    channels = stream.channels if first is None else first.layout.nb_channels
    seconds = container.duration and container.duration / av.time_base
    blocks = _blocks(name, first, frames, rate, channels)
    yield Decoded(rate, channels or 1, seconds, blocks)


def _blocks(name, first, frames, rate, channels):
  """Samples of decoded frames, none of which may be of another kind."""
  frame = first
  while frame is not None:
    if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
      raise AudioFileError(
          f'{name}: it changes from {rate} Hz x {channels} to'
          f' {frame.sample_rate} Hz x {frame.layout.nb_channels} on the way.'
      )
    with _errors(name):
      block = _samples(frame)
      frame = next(frames, None)
    yield block


def read(
    path: str | os.PathLike,
) -> tuple[Float[np.ndarray, 'T C'], int]:
  """Decodes a whole audio file.

  Args:
    path: as for `decoding`.

  Returns:
    The samples in [-1, 1] (T may be 0) and the sample rate in Hz.

  Raises:
    AudioFileError: naming the file and the reason.
  """
  with decoding(path) as decoded:
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
def _errors(name: str):
  """What goes wrong inside, as an AudioFileError."""
  try:
    yield
  except (OSError, ValueError, av.FFmpegError) as error:
    raise AudioFileError(f'{name}: cannot be decoded ({error}).') from error


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
