"""The .tokens format: tokenised audio in a file or a pipe.

    magic, version, header (JSON), CRC
    block: 'B', frames, samples, payload, CRC      any number of times
    end:   'E', total frames, total samples, CRC

Codes take ceil(log2 V) bits each and only a block's end is padded to a byte. A
block can be written and read as soon as it is there, so a file of any length
passes through in constant memory. Each CRC-32 covers everything before it, the
other CRCs left out: a block that is damaged, missing, doubled or out of its
place is found when it is read, and the end's CRC is the file's checksum.
All numbers are little-endian; see `_HEAD`, `_BLOCK` and `_END`.
"""

from collections.abc import Iterable, Iterator
import contextlib
import dataclasses
import json
import os
import struct
import sys
from typing import Annotated, Any, BinaryIO, Literal
import zlib

from jaxtyping import Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax.audio import checks
from audiolm_jax.audio import outputs
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers import packing

VERSION = 1
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
_LONGEST_REASON = 300
_READ = 1 << 20  # bytes at once, so that only what is there takes memory
_MOST_SAMPLES = (1 << 31) - 1  # that `Tokens.num_samples` can say
_LATENTS = {'float16': '<f2', 'float32': '<f4'}


class TokenFileError(Exception):
  """A token file that is refused; the message says which, where and why."""


@dataclasses.dataclass(frozen=True)
class Header:
  """What the tokens of a file are.

  Attributes:
    spec: of the tokenizer.
    fingerprint: of the tokenizer and its variables (`bound.fingerprint`).
    tokenizer: where the tokenizer came from, for people.
    codebooks: how many of `spec.slots` are stored, the first; None for
      continuous tokens.
    rows: signals side by side (such as channels that were encoded apart).
    scales: whether each frame has a gain.
    precision: of latents and their file.
    samples: of each row, where known before the first block.
  """

  spec: tokenizers_base.Spec
  fingerprint: str
  tokenizer: str = ''
  codebooks: config.Positive | None = None
  rows: Annotated[int, config.Range(min=1, max=checks.MOST_CHANNELS)] = 1
  scales: bool = False
  precision: Literal['float16', 'float32'] = 'float32'
  samples: config.Count | None = None

  def __post_init__(self):
    if (self.codebooks is None) == (self.spec.dimension is None):
      raise ValueError('tokens are codes or latents: one of the two')
    slots = len(self.spec.slots)
    if self.codebooks is None and slots:
      raise ValueError(f'continuous tokens, and {slots} slots of codes')
    if self.codebooks is not None and not 0 < self.codebooks <= slots:
      raise ValueError(f'{self.codebooks} codebooks of {slots} slots')

  def to_dict(self) -> dict[str, Any]:
    """Plain values, for JSON; `from_dict` inverts it."""
    return dataclasses.asdict(self)

  @classmethod
  def from_dict(cls, values: dict[str, Any]) -> 'Header':
    """What `to_dict` gave, or a file says.

    Raises:
      ValueError: for a missing or unknown key, a wrong type or a value out of
        range; the message names the key.
    """
    return config.build(cls, values, 'header')

  @property
  def bits(self) -> tuple[int, ...]:
    """Bits of the code of each slot; empty for continuous tokens."""
    return tuple(
        packing.code_bits(v)
        for v in self.spec.vocabularies[: self.codebooks or 0]
    )

  def payload_bytes(self, frames: int) -> int:
    """Bytes that a block of `frames` takes, its head and CRC left out."""
    if self.codebooks is None:
      width = np.dtype(self.precision).itemsize * (self.spec.dimension or 0)
    else:
      width = 0
    codes = -(-self.rows * frames * sum(self.bits) // 8)
    return codes + self.rows * frames * (width + 4 * self.scales)


@dataclasses.dataclass(frozen=True)
class Block:
  """Some frames of every row.

  Attributes:
    samples: of audio that they stand for.
    codes: [R, F, K] or None.
    latents: [R, F, D] or None.
    scales: [R, F] or None.
  """

  samples: int
  codes: Int[np.ndarray, 'R F K'] | None = None
  latents: Float[np.ndarray, 'R F D'] | None = None
  scales: Float[np.ndarray, 'R F'] | None = None

  @property
  def frames(self) -> int:
    tokens = self.latents if self.codes is None else self.codes
    return tokens.shape[1]


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
    self.frames = self.samples = 0
    values = header.to_dict()
    Header.from_dict(values)  # What could not be read is not written.
    text = json.dumps(values).encode()
    self._put(_HEAD.pack(_MAGIC, VERSION, len(text)) + text)

  def write(self, block: Block) -> None:
    """Appends a block and flushes it; one without frames is left out.

    Raises:
      ValueError: for tokens that the header does not describe, codes out of
        their vocabularies, or more samples than the frames hold.
    """
    if not block.frames:
      if block.samples:
        raise ValueError(f'{block.samples} samples without a frame')
      return
    payload = _pack(self._header, block)
    if len(payload) > _LARGEST_BLOCK:
      raise ValueError(f'{block.frames} frames are too many for one block')
    frames, samples = self.frames + block.frames, self.samples + block.samples
    check_frames(self._header.spec, frames, samples)
    self._put(_BLOCK.pack(b'B', block.frames, block.samples) + payload)
    self.frames, self.samples = frames, samples

  def finish(self) -> None:
    """Writes the end. Without it the file is refused as truncated.

    Raises:
      ValueError: if the samples would take fewer frames than there are, or are
        not as many as the header says.
    """
    _check_totals(self._header, self.frames, self.samples)
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
    TokenFileError: if its header is not that of a token file; on iteration, as
      soon as damage is met; blocks given out before are sound.
  """

  def __init__(self, file: BinaryIO, name: str = 'tokens'):
    self._file = file
    self._name = name
    self._at = 0
    self._crc = 0
    self.frames = self.samples = 0
    head = self._take(len(_MAGIC), 'header')
    if head != _MAGIC:
      raise self._error(0, 'this is no token file (wrong first bytes)')
    head += self._take(_HEAD.size - len(head), 'header')
    _, version, size = _HEAD.unpack(head)
    if version > VERSION:
      raise self._error(
          8,
          f'it has version {version} of the format, and this audiolm_jax reads'
          f' up to {VERSION}: a newer one wrote it, or it is damaged',
      )
    if not version or size > _LARGEST_HEADER:
      raise self._error(8, 'damaged header (impossible version or size)')
    text = self._take(size, 'header')
    self._check('header')
    try:
      self.header = Header.from_dict(json.loads(text))
    except (ValueError, RecursionError) as error:
      # A value of megabytes is no help.
      reason = str(error)[:_LONGEST_REASON]
      raise self._error(_HEAD.size, f'unreadable header ({reason})') from error

  def __iter__(self) -> Iterator[Block]:
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
        check_frames(self.header.spec, self.frames, self.samples)
        block = _unpack(self.header, payload, frames, samples)
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
      _check_totals(self.header, frames, samples)
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
        raise TokenFileError(
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
    (found,) = _CRC.unpack(self._take(_CRC.size, f'{part} checksum'))
    self._crc = expected  # Checksums do not count themselves.
    if found != expected:
      raise self._error(start, f'damaged: the checksum of the {part} is wrong')

  def _error(self, position: int, reason: str) -> TokenFileError:
    return TokenFileError(f'{self._name}: {reason}, at byte {position}.')


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
    TokenFileError: as `Reader` does, and if there is no such file.
  """
  if os.fspath(path) == STANDARD_STREAM:
    yield Reader(sys.stdin.buffer, 'standard input')
    return
  try:
    file = open(path, 'rb')
  except OSError as error:
    raise TokenFileError(f'{path}: cannot be opened ({error}).') from error
  with file:
    yield Reader(file, os.fspath(path))


def read(path: str | os.PathLike) -> tuple[Header, tokenizers_base.Tokens]:
  """A whole file: its header, and the tokens of its rows.

  Raises:
    TokenFileError: as `opened`.
  """
  with opened(path) as reader:
    block = concatenate(reader.header, list(reader))
  header = reader.header
  if block.samples > _MOST_SAMPLES:
    raise TokenFileError(
        f'{path}: {block.samples} samples are too many for one array; read it'
        ' block by block.'
    )
  return header, tokenizers_base.Tokens(
      num_samples=np.full(header.rows, block.samples, np.int32),
      codes=block.codes,
      latents=block.latents,
      **({} if block.scales is None else {'scales': block.scales}),
  )


def announced_samples(path: str | os.PathLike) -> int | None:
  """Samples by a file's end, unchecked; None if it has none."""
  size = _END.size + _CRC.size
  try:
    with open(path, 'rb') as file:
      file.seek(-size, os.SEEK_END)
      kind, _, samples = _END.unpack(file.read(_END.size))
  except OSError:
    return None
  return samples if kind == b'E' else None


def check(path: str | os.PathLike) -> tuple[Header, int, int]:
  """Reads a file through: its header, frames and samples.

  Raises:
    TokenFileError: if it is not whole and sound.
  """
  with opened(path) as reader:
    for _ in reader:
      pass
  return reader.header, reader.frames, reader.samples


def concatenate(header: Header, blocks: Iterable[Block]) -> Block:
  """Blocks as one."""
  blocks = [empty(header), *blocks]
  arrays = {}
  for name in ('codes', 'latents', 'scales'):
    if getattr(blocks[0], name) is not None:
      arrays[name] = np.concatenate([getattr(b, name) for b in blocks], axis=1)
  return Block(samples=sum(b.samples for b in blocks), **arrays)


def empty(header: Header) -> Block:
  """A block without frames."""
  return _unpack(header, b'', 0, 0)


def check_frames(
    spec: tokenizers_base.Spec, frames: int, samples: int, whole: bool = False
) -> None:
  """Raises ValueError if `samples` samples take more than `frames` frames.

  Or fewer, if these are all of them (`whole`).
  """
  needed = spec.frames(samples)
  if needed > frames or whole and needed != frames:
    raise ValueError(
        f'{samples} samples take {needed} frames, and there are {frames}'
    )


def _check_totals(header: Header, frames: int, samples: int) -> None:
  check_frames(header.spec, frames, samples, whole=True)
  if header.samples not in (None, samples):
    raise ValueError(
        f'the header says {header.samples} samples, and there are {samples}'
    )


def _pack(header: Header, block: Block) -> bytes:
  """A block's payload: codes or latents, then scales."""
  parts = []
  if header.codebooks is None:
    shape = (header.rows, block.frames, header.spec.dimension)
    latents = _shaped('latents', block.latents, shape)
    with np.errstate(over='ignore'):
      latents = latents.astype(_LATENTS[header.precision])
    if not np.isfinite(latents).all():
      raise ValueError(f'latents are not finite in {header.precision}')
    parts.append(latents)
  else:
    shape = (header.rows, block.frames, header.codebooks)
    codes = _shaped('codes', block.codes, shape)
    if not np.issubdtype(codes.dtype, np.integer):
      raise ValueError(f'codes of type {codes.dtype}: expected integers')
    sizes = np.asarray(header.spec.vocabularies[: header.codebooks])
    if (codes < 0).any() or (codes >= sizes).any():
      raise ValueError('codes out of their vocabularies')
    flat = codes.reshape(-1, header.codebooks)
    parts.append(packing.pack(flat, header.bits))
  if header.scales:
    shape = (header.rows, block.frames)
    scales = _shaped('scales', block.scales, shape).astype('<f4')
    if not np.isfinite(scales).all():
      raise ValueError('scales are not finite')
    parts.append(scales)
  elif block.scales is not None:
    raise ValueError('the header says that there are no scales')
  return b''.join(p if isinstance(p, bytes) else p.tobytes() for p in parts)


def _unpack(header, payload, frames, samples) -> Block:
  rows, arrays = header.rows, {}
  scales = 4 * rows * frames * header.scales
  body = payload[: len(payload) - scales]
  if header.codebooks is None:
    latents = np.frombuffer(body, _LATENTS[header.precision])
    latents = latents.astype(np.float32)
    if not np.isfinite(latents).all():
      raise ValueError('latents are not finite')
    arrays['latents'] = latents.reshape(rows, frames, header.spec.dimension)
  else:
    codes = packing.unpack(body, rows * frames, header.bits)
    if (
        codes >= np.asarray(header.spec.vocabularies[: header.codebooks])
    ).any():
      raise ValueError('damaged: a code is out of its vocabulary')
    arrays['codes'] = codes.reshape(rows, frames, header.codebooks)
  if header.scales:
    found = np.frombuffer(payload[len(body) :], '<f4')
    if not np.isfinite(found).all():
      raise ValueError('scales are not finite')
    arrays['scales'] = found.reshape(rows, frames).astype(np.float32)
  return Block(samples=samples, **arrays)


def _shaped(name, value, shape) -> np.ndarray:
  if value is None or np.shape(value) != shape:
    found = None if value is None else np.shape(value)
    raise ValueError(f'{name} of shape {found}, and the header says {shape}')
  return np.asarray(value)
