"""Reading and writing audio files."""

import os
import pathlib

import av
from jaxtyping import Float
import numpy as np
import soundfile

# What `read` is known to decode; anything else that FFmpeg knows works too.
SUFFIXES = ('.wav', '.flac', '.ogg', '.opus', '.mp3', '.m4a', '.aiff', '.g722')

# Containers that a file's content does not give away.
_RAW_FORMATS = {'.g722': 'g722'}


class AudioFileError(Exception):
  """A file that can't be read as audio; the message names it and says why."""


def read(
    path: str | os.PathLike,
) -> tuple[Float[np.ndarray, 'T C'], int]:
  """Decodes an audio file, whatever its container and codec.

  Args:
    path: wav, flac, ogg, opus, mp3, raw g722, ... (all that FFmpeg decodes).

  Returns:
    The samples in [-1, 1] (T may be 0) and the sample rate in Hz.

  Raises:
    AudioFileError: naming the file and the reason.
  """
  path = pathlib.Path(path)
  blocks = []
  try:
    if path.stat().st_size == 0:
      raise AudioFileError(f'{path}: the file is empty.')
    with av.open(
        str(path), format=_RAW_FORMATS.get(path.suffix.lower())
    ) as container:
      if not container.streams.audio:
        raise AudioFileError(f'{path}: the file holds no audio stream.')
      stream = container.streams.audio[0]
      for frame in container.decode(stream):
        blocks.append(_samples(frame))
      rate, channels = stream.rate, stream.channels
  except (OSError, ValueError, av.FFmpegError) as error:
    raise AudioFileError(f'{path}: cannot be decoded ({error}).') from error
  if not blocks:
    return np.zeros((0, channels or 1), np.float32), rate
  return np.concatenate(blocks), rate


def write(
    path: str | os.PathLike, audio: Float[np.ndarray, 'T C'], sample_rate: int
) -> None:
  """Writes 16-bit wav or flac by `path`'s suffix; never a half-written file.

  Args:
    path: where to; its folder is created.
    audio: samples, clipped to [-1, 1]; [T] is taken as one channel.
    sample_rate: in Hz.

  Raises:
    ValueError: for another suffix or for samples that are not finite.
  """
  path = pathlib.Path(path)
  audio = np.asarray(audio, np.float32)
  if path.suffix.lower() not in ('.wav', '.flac'):
    raise ValueError(f'{path}: write knows .wav and .flac.')
  if not np.isfinite(audio).all():
    raise ValueError(f'{path}: the samples are not finite.')
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'.{os.getpid()}-{path.name}')
  try:
    soundfile.write(
        temporary, np.clip(audio, -1, 1), sample_rate, subtype='PCM_16'
    )
    os.replace(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


def to_int16(audio: Float[np.ndarray, '...']) -> np.ndarray:
  """[-1, 1] floats as 16-bit integers (the inverse of `to_float`)."""
  return np.round(np.clip(audio, -1, 32767 / 32768) * 32768).astype(np.int16)


def to_float(audio: np.ndarray) -> Float[np.ndarray, '...']:
  """16-bit integers as float32 in [-1, 1)."""
  return audio.astype(np.float32) * np.float32(1 / 32768)


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
