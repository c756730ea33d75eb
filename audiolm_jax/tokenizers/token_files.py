"""The .tokens format: tokenised audio in a file or a pipe.

    magic, version, header (JSON), CRC
    block: 'B', frames, samples, payload, CRC      any number of times
    end:   'E', total frames, total samples, CRC

The header and the payloads are those of `encoding`. A block can be written and
read as soon as it is there, so a file of any length passes through in constant
memory. Each CRC-32 covers everything before it, the
other CRCs left out: a block that is damaged, missing, doubled or out of its
place is found when it is read, and the end's CRC is the file's checksum.
All numbers are little-endian; see `_HEAD`, `_BLOCK` and `_END`.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import json
import os
import pathlib
import struct
import sys
from typing import Annotated, Any, BinaryIO
import zlib

import numpy as np

from audiolm_jax import config
from audiolm_jax.audio import outputs
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers import encoding

SUFFIX = '.tokens'
STANDARD_STREAM = '-'

# The first byte is not ASCII and the last is a line feed, so that a file that
# went through a text conversion is noticed.
_MAGIC = b'\x9fTOKENS\n'
_HEAD = struct.Struct('<8sHI')  # magic, version, bytes of JSON
_BLOCK = struct.Struct('<cIQ')  # b'B', frames, samples
_END = struct.Struct('<cQQ')  # b'E', total frames, total samples
_CRC = struct.Struct('<I')
_LARGEST_HEADER = 1 << 22
_LARGEST_BLOCK = 1 << 30  # bytes; damaged counts must not exhaust the memory
_READ = 1 << 20  # bytes at once, so that only what is there takes memory
_MOST_SAMPLES = (1 << 31) - 1  # that `Tokens.num_samples` can say


@dataclasses.dataclass(frozen=True)
class Header(encoding.Format):
  """What the tokens of a file are.

  Attributes:
    factors: what is known of the clip: id, text, speaker, language, split.
  """

  factors: Annotated[Any, config.Named(str)] = dataclasses.field(
      default_factory=dict
  )


class Writer:
  """Writes blocks to a binary file that need not be seekable.

  Args:
    file: where to.
    header: what is to come.

  Raises:
    ValueError: for a header with values out of their ranges.
  """

  def __init__(self, file: BinaryIO, header: Header):
    self._file = file
    self._header = header
    self._crc = 0
    self.frames = self.samples = self._lasting = 0
    values = header.to_dict()
    Header.from_dict(values)  # What could not be read is not written.
    text = json.dumps(values).encode()
    self._put(_HEAD.pack(_MAGIC, encoding.VERSION, len(text)) + text)

  def write(self, block: encoding.Block) -> None:
    """Appends a block and flushes it; one without frames is left out.

    Raises:
      ValueError: for tokens that the header does not describe, codes out of
        their vocabularies, or more samples than the frames hold.
    """
    if not block.frames:
      if block.samples:
        raise ValueError(f'{block.samples} samples without a frame')
      return
    payload = self._header.pack(block)
    if len(payload) > _LARGEST_BLOCK:
      raise ValueError(f'{block.frames} frames are too many for one block')
    samples, lasting = (
        self.samples + block.samples,
        self._lasting + block.lasting,
    )
    encoding.check_frames(self._header.spec, lasting, samples)
    self._put(_BLOCK.pack(b'B', block.frames, block.samples) + payload)
    self.frames += block.frames
    self.samples, self._lasting = samples, lasting

  def finish(self) -> None:
    """Writes the end. Without it the file is refused as truncated.

    Raises:
      ValueError: if the samples would take fewer frames than there are.
    """
    encoding.check_frames(
        self._header.spec, self._lasting, self.samples, whole=True
    )
    self._put(_END.pack(b'E', self.frames, self.samples))

  def _put(self, data: bytes) -> None:
    self._crc = zlib.crc32(data, self._crc)
    self._file.write(data + _CRC.pack(self._crc))
    self._file.flush()


class Reader:
  """Reads a token file block by block: `for block in reader`.

  Args:
    file: a binary file, such as a pipe.
    name: of it, for messages.

  Raises:
    TokensError: if its header is not that of a token file; on iteration, as
      soon as damage is met; blocks given out before are sound.
  """

  def __init__(self, file: BinaryIO, name: str = 'tokens'):
    self._file = file
    self._name = name
    self._at = 0
    self._crc = 0
    self.frames = self.samples = self._lasting = 0
    head = self._take(len(_MAGIC), 'header')
    if head != _MAGIC:
      raise self._error(0, 'this is no token file (wrong first bytes)')
    head += self._take(_HEAD.size - len(head), 'header')
    _, version, size = _HEAD.unpack(head)
    if version != encoding.VERSION:
      raise self._error(
          8,
          f'it has version {version} of the format, and this audiolm_jax reads'
          f' {encoding.VERSION}: another release wrote it, or it is damaged.'
          ' Make it again with `tokenize_audio.py encode`',
      )
    if size > _LARGEST_HEADER:
      raise self._error(8, 'damaged header (impossible size)')
    text = self._take(size, 'header')
    self._check('header')
    self.header = _header(text, name)

  def __iter__(self) -> Iterator[encoding.Block]:
    while True:
      start = self._at
      kind = self._take(1, 'block or end')
      if kind == b'E':
        return self._end(start)
      if kind != b'B':
        raise self._error(start, 'damaged: neither a block nor the end')
      rest = self._take(_BLOCK.size - 1, 'block')
      _, frames, samples = _BLOCK.unpack(kind + rest)
      size = self.header.payload_bytes(frames)
      if not frames or size > _LARGEST_BLOCK:
        raise self._error(start, f'damaged block ({frames} frames)')
      payload = self._take(size, 'block')
      self._check('block')
      self.frames += frames
      self.samples += samples
      try:
        block = self.header.unpack(payload, frames, samples)
        self._lasting += block.lasting
        encoding.check_frames(self.header.spec, self._lasting, self.samples)
      except ValueError as error:
        raise self._error(start, str(error)) from error
      yield block

  def _end(self, start: int) -> None:
    data = b'E' + self._take(_END.size - 1, 'end')
    self._check('end')
    _, frames, samples = _END.unpack(data)
    if (frames, samples) != (self.frames, self.samples):
      raise self._error(
          start,
          f'the end says {frames} frames and {samples} samples, the blocks'
          f' {self.frames} and {self.samples}',
      )
    try:
      encoding.check_frames(
          self.header.spec, self._lasting, samples, whole=True
      )
    except ValueError as error:
      raise self._error(start, str(error)) from error
    if self._file.read(1):
      raise self._error(self._at, 'something follows the end')

  def _take(self, size: int, part: str) -> bytes:
    """Exactly `size` bytes, waiting for them on a pipe."""
    pieces, missing = [], size
    while missing:
      try:
        piece = self._file.read(min(missing, _READ))
      except OSError as error:
        raise encoding.TokensError(
            f'{self._name}: cannot be read ({error}).'
        ) from error
      if not piece:
        raise self._error(
            self._at + size - missing, f'truncated: it ends inside a {part}'
        )
      pieces.append(piece)
      missing -= len(piece)
    data = b''.join(pieces)
    self._at += size
    self._crc = zlib.crc32(data, self._crc)
    return data

  def _check(self, part: str) -> None:
    expected, start = self._crc, self._at
    (written,) = _CRC.unpack(self._take(_CRC.size, f'{part} checksum'))
    self._crc = expected  # Checksums do not count themselves.
    if written != expected:
      raise self._error(start, f'damaged: the checksum of the {part} is wrong')

  def _error(self, position: int, reason: str) -> encoding.TokensError:
    return encoding.TokensError(f'{self._name}: {reason}, at byte {position}.')


@contextlib.contextmanager
def create(path: str | os.PathLike, header: Header) -> Iterator[Writer]:
  """A `Writer` to a file, which appears when it is whole, or to stdout ('-').

  An exception inside leaves no file, and on stdout no end.

  Raises:
    OSError: naming the file, if it can't be written.
  """
  if os.fspath(path) == STANDARD_STREAM:
    writer = Writer(sys.stdout.buffer, header)
    yield writer
    writer.finish()
    return
  with outputs.created(path) as file:
    writer = Writer(file, header)
    yield writer
    writer.finish()


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[Reader]:
  """A `Reader` of a file or of stdin ('-').

  Raises:
    encoding.TokensError: as `Reader` does, and if there is no such file.
  """
  if os.fspath(path) == STANDARD_STREAM:
    yield Reader(sys.stdin.buffer, 'standard input')
    return
  try:
    file = open(path, 'rb')
  except OSError as error:
    raise encoding.TokensError(
        f'{path}: cannot be opened ({error}).'
    ) from error
  with file:
    yield Reader(file, os.fspath(path))


def read(path: str | os.PathLike) -> tuple[Header, tokenizers_base.Tokens]:
  """A whole file: its header, and the tokens of its rows.

  Raises:
    encoding.TokensError: as `opened`.
  """
  with opened(path) as reader:
    block = reader.header.concatenate(reader)
  header = reader.header
  if block.samples > _MOST_SAMPLES:
    raise encoding.TokensError(
        f'{path}: {block.samples} samples are too many for one array; read it'
        ' block by block.'
    )
  return header, tokenizers_base.Tokens(
      num_samples=np.full(header.rows, block.samples, np.int32),
      **block.arrays,
  )


def below(folder: str | os.PathLike) -> Iterator[pathlib.Path]:
  """The token files of a folder and of those in it."""
  for path in pathlib.Path(folder).rglob('*'):
    if path.suffix.lower() == SUFFIX and not path.is_dir():
      yield path


def announced(path: str | os.PathLike) -> tuple[int, int] | None:
  """Frames and samples by a file's end, unchecked; None if it has none."""
  size = _END.size + _CRC.size
  try:
    with open(path, 'rb') as file:
      file.seek(-size, os.SEEK_END)
      kind, frames, samples = _END.unpack(file.read(_END.size))
  except OSError:
    return None
  return (frames, samples) if kind == b'E' else None


def check(path: str | os.PathLike) -> tuple[Header, int, int]:
  """Reads a file through: its header, frames and samples.

  Raises:
    encoding.TokensError: if it is not whole and sound.
  """
  with opened(path) as reader:
    for _ in reader:
      pass
  return reader.header, reader.frames, reader.samples


def _header(text: bytes, name: str) -> Header:
  """A header from its JSON."""
  fields = encoding.parsed(text, name)
  factors = fields.pop('factors', None)
  header = Header.from_dict(fields, name)
  if not isinstance(factors, dict) or not all(
      isinstance(value, str) for value in factors.values()
  ):
    raise encoding.TokensError(
        f'{name}: unreadable header (header.factors: expected texts).'
    )
  return dataclasses.replace(header, factors=factors)
