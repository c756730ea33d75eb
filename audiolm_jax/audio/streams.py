"""Audio block by block: files and pipes of any length in constant memory."""

from collections.abc import Iterable, Iterator
from concurrent import futures
import contextlib
import dataclasses
import math
import os
import struct
import sys
from typing import Any, BinaryIO

from jaxtyping import Float
import numpy as np
import soxr

from audiolm_jax.audio import checks
from audiolm_jax.audio import containers
from audiolm_jax.audio import files
from audiolm_jax.audio import outputs
from audiolm_jax.audio import resample

STANDARD_STREAM = '-'

# Formats of wav files: tag and bits -> numpy type and full scale.
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_WAV_TYPES = {
    (_PCM, 8): ('u1', 128),
    (_PCM, 16): ('<i2', 1 << 15),
    (_PCM, 32): ('<i4', 1 << 31),
    (_FLOAT, 32): ('<f4', 1),
    (_FLOAT, 64): ('<f8', 1),
}
# What stands before the samples; more is left to FFmpeg, which skips it.
_LONGEST_HEAD = 1 << 24
# What one read of a pipe asks for; it returns with what is there.
_READ = 1 << 14


@dataclasses.dataclass(frozen=True)
class Raw:
  """Samples without a header: 16-bit little-endian, channels interleaved."""

  rate: int
  channels: int = 1


@dataclasses.dataclass(frozen=True)
class Stream:
  """Audio that is being read.

  Attributes:
    rate: samples a second, of the blocks.
    channels: of the blocks.
    seconds: as the file says; None where it does not, as for pipes.
    blocks: samples [T, C] in [-1, 1], of any T.
  """

  rate: int
  channels: int
  seconds: float | None
  blocks: Iterator[Float[np.ndarray, 'T C']]


@contextlib.contextmanager
def opened(
    path: str | os.PathLike,
    *,
    rate: int | None = None,
    channels: int | None = None,
    raw: Raw | None = None,
    strict: bool = False,
) -> Iterator[Stream]:
  """Reads a file, or stdin ('-'), at any rate and number of channels.

  The blocks together equal what `files.read`, `resample.remix` and
  `resample.resample` make of the whole.

  Args:
    path: of all that `files.decoding` takes. A wav file on stdin gives samples
      as they come; other formats come as soon as FFmpeg gives them out.
    rate: to resample to; default: as it is.
    channels: to mix to, by the rules of `resample.remix`; default: as they are.
    raw: what the samples are where there is no header.
    strict: refuse audio that is cut off or damaged; else a warning is logged.

  Raises:
    files.AudioFileError: naming the file and the reason, here or on iteration.
  """
  name = os.fspath(path)
  with contextlib.ExitStack() as stack:
    if name == STANDARD_STREAM:
      name, pipe = 'standard input', _Pipe(sys.stdin.fileno())
      stream = stack.enter_context(_from_pipe(pipe, name, raw, strict))
    elif raw is not None:
      with _explained(name):
        file = stack.enter_context(open(path, 'rb', buffering=0))
      stream = stack.enter_context(
          _from_pipe(_Pipe(file.fileno()), name, raw, strict)
      )
    else:
      stream = stack.enter_context(files.decoding(path, strict=strict))
    with _explained(name):
      # What is refused is refused before anything is read.
      if channels is not None:
        resample.remix(np.zeros((0, stream.channels), np.float32), channels)
    blocks = stream.blocks
    if channels is not None:
      blocks = (resample.remix(block, channels) for block in blocks)
    channels = channels or stream.channels
    if rate is not None and rate != stream.rate:
      blocks = resampled(blocks, stream.rate, rate, channels)
    yield Stream(rate or stream.rate, channels, stream.seconds, blocks)


def resampled(
    blocks: Iterable[Float[np.ndarray, 'T C']],
    rate: int,
    target_rate: int,
    channels: int,
) -> Iterator[Float[np.ndarray, 'U C']]:
  """`resample.resample` of the whole, block by block."""
  stream = soxr.ResampleStream(rate, target_rate, channels, dtype='float32')
  for block in blocks:
    yield stream.resample_chunk(np.ascontiguousarray(block, np.float32))
  empty = np.zeros((0, channels), np.float32)
  yield stream.resample_chunk(empty, last=True)


def fixed(
    blocks: Iterable[Float[np.ndarray, 'T C']], size: int
) -> Iterator[Float[np.ndarray, 'T C']]:
  """The same samples in blocks of `size`; the last may be shorter."""
  parts, have = [], 0
  for block in blocks:
    parts.append(block)
    have += len(block)
    if have >= size:
      joined = np.concatenate(parts)
      whole = have - have % size
      yield from np.split(joined[:whole], whole // size)
      parts, have = [joined[whole:]], have - whole
  if have:
    yield np.concatenate(parts)


@contextlib.contextmanager
def ahead(items: Iterable[Any]) -> Iterator[Iterator[Any]]:
  """Gives the same items; the next is made in a thread while one is worked on.

  The thread has ended when the context is left, whatever the reason, so that
  what the items come from can be closed: FFmpeg crashes if it is closed while
  it decodes.
  """
  items, end = iter(items), object()
  with futures.ThreadPoolExecutor(1) as reader:

    def made():
      upcoming = reader.submit(next, items, end)
      while (item := upcoming.result()) is not end:
        upcoming = reader.submit(next, items, end)
        yield item

    yield made()


class Writer:
  """Takes blocks of audio; made by `create`.

  Attributes:
    samples: taken so far.
  """

  def __init__(self, put, name: str, channels: int):
    self._put = put
    self._name = name
    self._channels = channels
    self.samples = 0

  def write(self, block: Float[np.ndarray, 'T C']) -> None:
    """Appends samples, clipped and rounded as by `files.to_int16`.

    Raises:
      ValueError: if they are integers, not finite, or have other channels.
      OSError: naming the file, if it can't be written.
    """
    if np.ndim(block) != 2 or np.shape(block)[1] != self._channels:
      raise ValueError(
          f'{self._name}: a block of shape {np.shape(block)} where there are'
          f' {self._channels} channels'
      )
    try:
      integers = files.to_int16(block)
    except ValueError as error:
      raise ValueError(f'{self._name}: {error}.') from error
    self._put(integers)
    self.samples += len(integers)


@contextlib.contextmanager
def create(
    path: str | os.PathLike,
    rate: int,
    channels: int,
    *,
    samples: int | None = None,
    raw: bool = False,
) -> Iterator[Writer]:
  """A 16-bit wav or flac file, which appears when it is whole; '-' is stdout.

  Args:
    path: its suffix says which; stdout gets wav of unknown size.
    rate: samples a second.
    channels: how many.
    samples: how many will come, if known: what a wav file can't hold is then
      written as RF64.
    raw: write no header, only samples.

  Raises:
    files.AudioFileError: for another suffix, for a rate or channels that such a
      file can't have, or a wav file over 4 GiB.
    OSError: naming the file, if it can't be written.
  """
  name = os.fspath(path)
  if name == STANDARD_STREAM:
    name, file = 'standard output', sys.stdout.buffer
    with _refused():
      outputs.check(name, rate, channels)
    if not raw:
      with outputs.naming(name):
        file.write(_wav_header(rate, channels))
        file.flush()
    yield Writer(_put_raw(file, name), name, channels)
    return
  with contextlib.ExitStack() as stack:
    if raw:
      with _refused():
        outputs.check(path, rate, channels)
      put = _put_raw(stack.enter_context(outputs.created(path)), name)
    else:
      with _refused():
        append = stack.enter_context(
            outputs.pcm16(path, rate, channels, samples)
        )

      def put(block):
        with _refused():
          append(block)

    yield Writer(put, name, channels)


@contextlib.contextmanager
def _refused():
  """What a file can't hold, as an AudioFileError."""
  try:
    yield
  except ValueError as error:
    raise files.AudioFileError(str(error)) from error


def _put_raw(file: BinaryIO, name: str):
  def put(block):
    with outputs.naming(name):
      file.write(block.astype('<i2').tobytes())
      file.flush()

  return put


def _wav_header(rate: int, channels: int) -> bytes:
  """Of a wav file of 16 bits whose size is not known."""
  size = 0xFFFFFFFF
  return struct.pack(
      '<4sI4s4sIHHIIHH4sI',
      b'RIFF',
      size,
      b'WAVE',
      b'fmt ',
      16,
      _PCM,
      channels,
      rate,
      2 * channels * rate,
      2 * channels,
      16,
      b'data',
      size,
  )


class _Pipe:
  """A file descriptor as a file: a read returns with what is there."""

  def __init__(self, descriptor: int):
    self._descriptor = descriptor
    self._kept = b''

  def read(self, size: int) -> bytes:
    if self._kept:
      data, self._kept = self._kept[:size], self._kept[size:]
      return data
    return os.read(self._descriptor, size)

  def exactly(self, size: int) -> bytes:
    """As many bytes, or fewer if the input ends."""
    parts = []
    while size and (part := self.read(size)):
      parts.append(part)
      size -= len(part)
    return b''.join(parts)

  def give_back(self, data: bytes) -> None:
    """Lets the next read begin with data."""
    self._kept = data + self._kept


@contextlib.contextmanager
def _from_pipe(pipe: _Pipe, name: str, raw: Raw | None, strict: bool):
  """Raw samples and plain wav by hand, without FFmpeg's delay; else by it."""
  with _explained(name):
    if raw is not None:
      form = _PCM, raw.channels, raw.rate, 16, None
    else:
      form, head = _wav_format(pipe)
    if form is not None:
      tag, channels, rate, bits, size = form
      checks.rate(rate)
      checks.channels(channels)
  if form is None:
    pipe.give_back(head)
    with files.decoding(pipe, name, strict=strict) as decoded:
      yield decoded
    return
  blocks = _pcm(pipe, name, form, strict)
  yield Stream(rate, channels, None, blocks)


def _wav_format(pipe: _Pipe):
  """((tag, channels, rate, bits, bytes or None) or None, what was read)."""
  head = bytearray(pipe.exactly(12))
  if not head:
    raise ValueError('it is empty')
  if head[:4] not in (b'RIFF', b'RF64') or head[8:] != b'WAVE':
    return None, bytes(head)
  form = None
  while True:
    chunk = pipe.exactly(8)
    head += chunk
    if len(chunk) < 8:
      return None, bytes(head)
    name, size = struct.unpack('<4sI', chunk)
    if name == b'data':
      break
    if len(head) + size > _LONGEST_HEAD:
      return None, bytes(head)
    body = pipe.exactly(size + size % 2)
    head += body
    if name == b'fmt ' and len(body) >= 16:
      tag, channels, rate, _, _, bits = struct.unpack('<HHIIHH', body[:16])
      if tag == _EXTENSIBLE and len(body) >= 26:
        (tag,) = struct.unpack('<H', body[24:26])
      form = tag, channels, rate, bits
  if form is None or (form[0], form[3]) not in _WAV_TYPES or not form[1]:
    return None, bytes(head)
  endless = not size or size >= containers.ENDLESS
  return (*form, None if endless else size), bytes(head)


def _pcm(pipe, name, form, strict):
  """Samples as they come, up to the announced bytes or the input's end."""
  tag, channels, rate, bits, size = form
  kind, scale = _WAV_TYPES[tag, bits]
  frame = np.dtype(kind).itemsize * channels
  left = math.inf if size is None else size
  rest, samples = b'', 0
  while left:
    with _explained(name):
      data = pipe.read(min(_READ, left))
    if not data:
      break
    left -= len(data)
    data = rest + data
    whole = len(data) - len(data) % frame
    data, rest = data[:whole], data[whole:]
    block = np.frombuffer(data, kind).astype(np.float32)
    # Eight bits are unsigned, about 128.
    block = (block - 128 * (kind == 'u1')) / np.float32(scale)
    samples += whole // frame
    yield block.reshape(-1, channels)
  if size is not None and left:
    announced = containers.Announced(
        size / frame / rate, fault=f'{size - left} of {size} bytes are there'
    )
    files.lacking(name, announced.lacking(samples / rate), strict)
  elif rest:
    fault = f'it ends within a frame, {len(rest)} of {frame} bytes are there'
    files.lacking(name, fault, strict)


@contextlib.contextmanager
def _explained(name: str):
  try:
    yield
  except (OSError, ValueError) as error:
    raise files.AudioFileError(f'{name}: cannot be read ({error}).') from error
