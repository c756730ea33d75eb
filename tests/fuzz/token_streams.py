"""Token files that are damaged, and ones that lie with right checksums."""

from collections.abc import Iterable
import io
import json
from typing import Any
import zlib

from audiolm_jax.tokenizers import token_files

Raw = tuple[int, int, bytes]  # frames, samples, payload


def forged(header: Any, blocks: Iterable[Raw] = ()) -> bytes:
  """A token file of any header and blocks, whose checksums are right.

  Args:
    header: what JSON can hold, or bytes that stand for it.
    blocks: (frames, samples, payload), none of which need agree.
  """
  file, crc = io.BytesIO(), 0

  def put(data):
    nonlocal crc
    crc = zlib.crc32(data, crc)
    file.write(data + token_files._CRC.pack(crc))

  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  head = token_files._HEAD.pack(token_files._MAGIC, 1, len(text))
  put(head + text)
  frames = samples = 0
  for more_frames, more_samples, payload in blocks:
    head = token_files._BLOCK.pack(b'B', more_frames, more_samples)
    put(head + payload)
    frames, samples = frames + more_frames, samples + more_samples
  put(token_files._END.pack(b'E', frames, samples))
  return file.getvalue()
