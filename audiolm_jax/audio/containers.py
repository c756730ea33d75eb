"""What an audio file announces, and whether it holds all of it.

Decoders give what they can and say nothing of what is missing. Here the bytes
of a file are held against its own headers and checksums, without decoding.
"""

from collections.abc import Iterator
import dataclasses
import io
import os
import struct
from typing import BinaryIO
import zlib

# Sizes from here on mean "until the input ends", as FFmpeg and sox have it.
ENDLESS = 0x7FFFF000
_PCM_TAGS = (1, 3, 0xFFFE)
# After so many chunks a file is made to keep its reader busy.
_MOST_CHUNKS = 10_000
# Content that is none of the audio that has no header itself.
_FOREIGN = (
    b'\x89PNG',
    b'\xff\xd8\xff',
    b'PK\x03\x04',
    b'%PDF',
    b'\x1f\x8b',
    b'\x7fELF',
    b'\x93NUMPY',
    b'\x9fTOKENS',
)
# Encoders of mp3 that say how much of the ends is padding.
_TRIMMERS = (b'LAME', b'Lavc', b'Lavf')
_TEXT = bytes(range(32, 127)) + b'\t\n\r'


@dataclasses.dataclass(frozen=True)
class Announced:
  """What the headers say.

  Attributes:
    seconds: of audio; None if they do not say.
    tolerance: by how many seconds a decoder may give less.
    exact: whether it may not give more either.
    least: bytes that the file must have.
    fault: what of the file is missing or damaged; None if nothing is known.
    checksums: whether the decoder is to hold frames against checksums.
  """

  seconds: float | None = None
  tolerance: float = 0.1
  exact: bool = False
  least: int = 0
  fault: str | None = None
  checksums: bool = False

  def held_against(self, size: int) -> 'Announced':
    """With a fault if so many bytes, all that there are, are too few."""
    if self.fault is not None or size >= self.least:
      return self
    fault = f'{size} of {self.least} bytes are there'
    return dataclasses.replace(self, fault=fault)

  def lacking(self, seconds: float) -> str | None:
    """What is wrong with a file of which so much was decoded, or None."""
    more = 0.0 if self.seconds is None else seconds - self.seconds
    if self.exact and more > self.tolerance:
      return f'it goes on after {self.seconds:.2f} s, where it should end'
    if more >= -self.tolerance and self.fault is None:
      return None
    of = '' if self.seconds is None else f' of {self.seconds:.2f}'
    fault = '' if self.fault is None else f' ({self.fault})'
    return f'it ends after {seconds:.2f}{of} s{fault}'


def announced(path: str | os.PathLike) -> Announced:
  """What a file's headers say, and whether the file holds it.

  wav, aiff, flac, ogg (all codecs), mp3 with an Xing or VBRI header, mp4; of
  others nothing is known.

  Raises:
    OSError: if the file can't be read.
  """
  with open(path, 'rb') as file:
    count = _announced(file)
    return count.held_against(os.fstat(file.fileno()).st_size)


def announced_at_the_beginning(head: bytes) -> Announced:
  """What the first bytes say of what is to come on a pipe."""
  count = _announced(io.BytesIO(head))
  # Its header may go on.
  return Announced() if count.fault is not None else count


def _announced(file):
  start = _after_id3(file)
  file.seek(start)
  inspect = _inspector(file.read(12))
  if inspect is None:
    return Announced()
  file.seek(start)
  try:
    return inspect(file)
  except (struct.error, IndexError):
    return Announced(fault='it is cut off within its header')


def headerless(path: str | os.PathLike) -> bool:
  """Whether a file may be samples or frames without a header.

  Raises:
    OSError: if the file can't be read.
    ValueError: if it is something else, which is no audio.
  """
  with open(path, 'rb') as file:
    head = file.read(512)
  if head.startswith(_FOREIGN):
    raise ValueError('it begins as no audio does')
  if len(head) >= 16 and not head.translate(None, _TEXT):
    raise ValueError('it is text')
  # Any bytes may look like the beginning of a frame of mp3.
  known = _inspector(head[:12]) not in (None, _mp3)
  return not known and not head.startswith(b'ID3')


def _inspector(head: bytes):
  """The function for files that begin so."""
  if head[:4] in (b'RIFF', b'RF64') and head[8:] == b'WAVE':
    return _wav
  if head[:4] == b'FORM' and head[8:] in (b'AIFF', b'AIFC'):
    return _aiff
  if head[:4] == b'OggS':
    return _ogg
  if head[:4] == b'fLaC':
    return _flac
  if head[4:8] == b'ftyp':
    return _mp4
  if len(head) > 3 and _Mpeg.of(head[:4]) is not None:
    return _mp3
  return None


def _after_id3(file: BinaryIO) -> int:
  """Where what follows the ID3v2 tags at the beginning begins."""
  start = 0
  for _ in range(_MOST_CHUNKS):
    file.seek(start)
    head = file.read(10)
    if len(head) < 10 or head[:3] != b'ID3':
      break
    # Seven bits a byte; a footer is as long as the header.
    a, b, c, d = head[6:]
    start += 10 + (a << 21 | b << 14 | c << 7 | d) + 10 * (head[5] >> 4 & 1)
  return start


def _chunks(file, order) -> Iterator[tuple[bytes, int, int]]:
  """(name, announced bytes, position) of the chunks of a RIFF or IFF file."""
  at = 12
  for _ in range(_MOST_CHUNKS):
    file.seek(at)
    head = file.read(8)
    if len(head) < 8:
      return
    name, length = struct.unpack(f'{order}4sI', head)
    yield name, length, at + 8
    at += 8 + length + length % 2


def _wav(file) -> Announced:
  form = large = None
  for name, length, at in _chunks(file, '<'):
    if name == b'ds64':
      file.seek(at + 8)
      (large,) = struct.unpack('<Q', file.read(8))
    elif name == b'fmt ':
      file.seek(at)
      form = struct.unpack('<HHIIH', file.read(14))
    elif name == b'data':
      if length == 0xFFFFFFFF and large is not None:
        length = large
      elif not length or length >= ENDLESS:
        return Announced()
      least = at + length
      if form is None or form[0] not in _PCM_TAGS or not form[2] * form[4]:
        return Announced(least=least)
      _, _, rate, _, frame = form
      return Announced(length / (rate * frame), 1 / rate, least=least)
  return Announced(fault='it has no chunk of samples')


def _aiff(file) -> Announced:
  seconds, tolerance, least = None, 0.0, 0
  for name, length, at in _chunks(file, '>'):
    file.seek(at)
    if name == b'COMM':
      _, frames, _, exponent, mantissa = struct.unpack('>hIhHQ', file.read(18))
      # Those of compressed audio may be packets.
      plain = length < 22 or file.read(4).lower() in (
          b'none',
          b'sowt',
          b'twos',
          b'fl32',
          b'fl64',
          b'in24',
          b'in32',
      )
      # The rate is an 80-bit float.
      power = exponent - 16383 - 63
      if plain and mantissa and -64 <= power <= 0:
        rate = mantissa / 2**-power
        seconds, tolerance = frames / rate, 1 / rate
    elif name == b'SSND':
      least = at + length
  return Announced(seconds, tolerance, least=least)


def _flac(file) -> Announced:
  file.seek(18, os.SEEK_CUR)
  (bits,) = struct.unpack('>Q', file.read(8))
  rate, samples = bits >> 44, bits & ((1 << 36) - 1)
  if not rate or not samples:
    return Announced(checksums=True)
  return Announced(samples / rate, 0.5 / rate, exact=True, checksums=True)


def _mp4(file) -> Announced:
  at = 0
  for _ in range(_MOST_CHUNKS):
    file.seek(at)
    head = file.read(16)
    if len(head) < 8:
      break
    (length,) = struct.unpack('>I', head[:4])
    if length == 1:
      (length,) = struct.unpack('>Q', head[8:])
    if not length:  # It goes on to the end.
      break
    if length < 8:
      return Announced(fault=f'damaged at byte {at}')
    at += length
  return Announced(least=at)


@dataclasses.dataclass(frozen=True)
class _Mpeg:
  """The header of a frame of MPEG audio."""

  first: bool  # MPEG-1, not the half rates of 2 and 2.5
  layer: int
  rate: int
  mono: bool
  protected: bool

  @classmethod
  def of(cls, head: bytes) -> '_Mpeg | None':
    """From 4 bytes, if they are one."""
    (bits,) = struct.unpack('>I', head)
    version, layer = bits >> 19 & 3, 4 - (bits >> 17 & 3)
    bitrate, rate = bits >> 12 & 15, bits >> 10 & 3
    if bits >> 21 != 0x7FF or version == 1 or layer == 4:
      return None
    if bitrate in (0, 15) or rate == 3:
      return None
    rate = (44100, 48000, 32000)[rate] // {3: 1, 2: 2, 0: 4}[version]
    mono, protected = bits >> 6 & 3 == 3, not bits >> 16 & 1
    return cls(version == 3, layer, rate, mono, protected)


def _mp3(file) -> Announced:
  start = file.tell()
  data = file.read(256)
  frame = _Mpeg.of(data[:4])
  if frame.layer != 3:
    return Announced(checksums=frame.protected)
  side = 4 + (17, 9, 32, 17)[2 * frame.first + frame.mono]
  frames = length = None
  trimmed = 0
  for at in (side, side + 2):
    if data[at : at + 4] in (b'Xing', b'Info'):
      flags, *counts = struct.unpack_from('>III', data, at + 4)
      counts = iter(counts)
      frames = next(counts) if flags & 1 else None
      length = next(counts) if flags & 2 else None
      if flags & 15 == 15 and data[at + 120 : at + 124] in _TRIMMERS:
        a, b, c = data[at + 141 : at + 144]
        trimmed = (a << 4 | b >> 4) + ((b & 15) << 8 | c)
      break
  else:
    if data[36:40] == b'VBRI':
      length, frames = struct.unpack_from('>II', data, 46)
  if not frames:
    return Announced(checksums=frame.protected)
  samples = 1152 if frame.first else 576
  return Announced(
      max(frames * samples - trimmed, 0) / frame.rate,
      tolerance=2 * samples / frame.rate,
      least=start + (length or 0),
      checksums=frame.protected,
  )


# zlib has the polynomial of Ogg, but with the bits of each byte the other way.
_MIRRORED = bytes(int(f'{i:08b}'[::-1], 2) for i in range(256))


def _ogg_crc(page: bytes) -> bytes:
  """An Ogg page's checksum as it is stored; the page's own must be zero."""
  crc = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
  return struct.pack('>I', crc).translate(_MIRRORED)


class OggCheck:
  """Looks at the pages of Ogg data as they come.

  Attributes:
    fault: what is wrong with them; None so far.
  """

  def __init__(self):
    self.fault: str | None = None
    self._data = b''
    self._at = 0
    self._following = {}
    self._open = set()
    self._over = False

  def feed(self, data: bytes) -> None:
    """The next bytes."""
    if self.fault is None and not self._over:
      self._data += data
      start = 0
      while end := self._page(start):
        start = end
      self._at += start
      self._data = self._data[start:]

  def finish(self) -> None:
    """Nothing follows."""
    if self.fault is not None or self._over:
      return
    if self._data:
      self.fault = f'cut off within the page at byte {self._at}'
    elif self._open:
      self.fault = 'its last page is missing'

  def _page(self, start: int) -> int | None:
    """Checks the page there; where it ends, or None if it is not there yet."""
    head = self._data[start : start + 27]
    at = f'at byte {self._at + start}'
    if not b'OggS'.startswith(head[:4]):
      if self._open or not self._following:
        self.fault = f'damaged: no page {at}'
      # A tag of another kind may follow the end.
      self._over = True
    if len(head) < 27 or self._over:
      return None
    body = start + 27 + head[26]
    end = body + sum(self._data[start + 27 : body])
    if len(self._data) < max(body, end):
      return None
    page = head[:22] + bytes(4) + self._data[start + 26 : end]
    flags, (serial, number) = head[5], struct.unpack_from('<II', head, 14)
    if _ogg_crc(page) != head[22:26]:
      self.fault = f'the checksum of the page {at} is wrong'
    elif flags & 2:
      self._open.add(serial)
    elif number != self._following.get(serial):
      self.fault = f'pages are missing before the one {at}'
    self._following[serial] = (number + 1) % (1 << 32)
    if flags & 4:
      self._open.discard(serial)
    return end if self.fault is None else None


def _ogg(file) -> Announced:
  check = OggCheck()
  while check.fault is None and (data := file.read(1 << 18)):
    check.feed(data)
  check.finish()
  return Announced(fault=check.fault)
