"""Tokens as bytes, the same ones in token files and in token caches.

A header says what the tokens are (`Format`). Some frames of them are a payload:

    codes     ceil(log2 V) bits each, zero bits up to a whole byte
    latents   float16 or float32, instead of codes
    durations int32, if tokens last several frames
    scales    float32, if frames have gains

All numbers are little-endian. What can not be right is refused both in writing
and in reading.
"""

from collections.abc import Iterable
import dataclasses
import json
import math
from typing import Annotated, Any, Literal, Self

from jaxtyping import Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax.audio import checks
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers import packing

ARRAYS = ('codes', 'latents', 'durations', 'scales')
_STORED = {'durations': '<i4', 'scales': '<f4'}
_LATENTS = {'float16': '<f2', 'float32': '<f4'}


@dataclasses.dataclass(frozen=True)
class Block:
  """Some frames of every row.

  Attributes:
    samples: of audio that they stand for.
    codes: [R, F, K] or None.
    latents: [R, F, D] or None.
    durations: [R, F] frames that each token lasts; None if each lasts one.
    scales: [R, F] gains, or None.
  """

  samples: int
  codes: Int[np.ndarray, 'R F K'] | None = None
  latents: Float[np.ndarray, 'R F D'] | None = None
  durations: Int[np.ndarray, 'R F'] | None = None
  scales: Float[np.ndarray, 'R F'] | None = None

  @property
  def frames(self) -> int:
    tokens = self.latents if self.codes is None else self.codes
    return tokens.shape[1]

  @property
  def lasting(self) -> int:
    """Frames of audio that the tokens last together.

    Raises:
      ValueError: if they last longer in one row than in another.
    """
    if self.durations is None:
      return self.frames
    totals = np.unique(self.durations.sum(1, dtype=np.int64))
    if len(totals) != 1:
      raise ValueError(f'rows last {totals.tolist()} frames, not all as long')
    return int(totals[0])

  @property
  def arrays(self) -> dict[str, np.ndarray]:
    """The arrays that there are, by name; codes or latents come first."""
    named = {name: getattr(self, name) for name in ARRAYS}
    return {k: np.asarray(v) for k, v in named.items() if v is not None}


@dataclasses.dataclass(frozen=True)
class Format:
  """What the tokens of a file or a cache are, and how they are written.

  Attributes:
    spec: of the tokenizer.
    fingerprint: of the tokenizer and its variables.
    tokenizer: where the tokenizer came from.
    codebooks: how many of `spec.slots` are stored, the first; None for
      continuous tokens.
    scales: whether each frame has a gain.
    durations: whether tokens last several frames.
    precision: of latents as they are stored.
    corpus: name of the corpus that was tokenised, or its path if it is a
      folder; '' for a file on its own.
    rows: signals side by side (such as channels that were encoded apart).
  """

  spec: tokenizers_base.Spec
  fingerprint: str
  tokenizer: str = ''
  codebooks: Annotated[int, config.Range(min=1)] | None = None
  scales: bool = False
  durations: bool = False
  precision: Literal['float16', 'float32'] = 'float32'
  corpus: str = ''
  rows: Annotated[int, config.Range(min=1, max=checks.MOST_CHANNELS)] = 1

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
  def from_dict(cls, values: dict[str, Any]) -> Self:
    """What `to_dict` gave, or a file says.

    Raises:
      ValueError: for a missing or unknown key, a wrong type or a value out of
        range; the message names the key.
    """
    return config.build(cls, values, 'header')

  @property
  def vocabularies(self) -> tuple[int, ...]:
    """Of the slots that are stored; empty for continuous tokens."""
    return self.spec.vocabularies[: self.codebooks or 0]

  @property
  def bits(self) -> tuple[int, ...]:
    """Bits of the code of each slot; empty for continuous tokens."""
    return tuple(map(packing.code_bits, self.vocabularies))

  @property
  def arrays(self) -> dict[str, tuple[int, ...]]:
    """The arrays of a block, and the shape of each one's frames."""
    if self.codebooks is None:
      arrays = {'latents': (self.spec.dimension,)}
    else:
      arrays = {'codes': (self.codebooks,)}
    flags = {'durations': self.durations, 'scales': self.scales}
    return arrays | {name: () for name, there in flags.items() if there}

  def payload_bytes(self, frames: int) -> int:
    """Bytes of the payload of `frames` frames of every row."""
    codes = -(-self.rows * frames * sum(self.bits) // 8)
    return codes + self.rows * frames * sum(
        self._stored(name).itemsize * math.prod(shape)
        for name, shape in self.arrays.items()
        if name != 'codes'
    )

  def pack(self, block: Block) -> bytes:
    """The payload of a block.

    Raises:
      ValueError: for arrays that this does not describe, codes out of their
        vocabularies, and numbers that are not finite.
    """
    arrays, parts = block.arrays, []
    for name in arrays.keys() - self.arrays.keys():
      raise ValueError(f'the header says that there are no {name}')
    for name, shape in self.arrays.items():
      shape = (self.rows, block.frames, *shape)
      values = arrays.get(name)
      if values is None or values.shape != shape:
        shown = None if values is None else values.shape
        raise ValueError(
            f'{name} of shape {shown}, and the header says {shape}'
        )
      if name in ('codes', 'durations') and values.dtype.kind not in 'iu':
        raise ValueError(f'{name} of type {values.dtype}: expected integers')
      if name == 'codes':
        self._check(name, values)
        parts.append(packing.pack(values.reshape(-1, shape[2]), self.bits))
      else:
        with np.errstate(over='ignore'):
          values = values.astype(self._stored(name))
        self._check(name, values)
        parts.append(values.tobytes())
    return b''.join(parts)

  def unpack(self, payload: bytes, frames: int, samples: int) -> Block:
    """The block of a payload.

    Raises:
      ValueError: for what `pack` does not make.
    """
    size = self.payload_bytes(frames)
    if len(payload) != size:
      raise ValueError(f'{len(payload)} bytes, and {frames} frames take {size}')
    arrays, start, count = {}, 0, self.rows * frames
    for name, shape in self.arrays.items():
      if name == 'codes':
        start = -(-count * sum(self.bits) // 8)
        values = packing.unpack(payload[:start], count, self.bits)
      else:
        dtype, size = self._stored(name), count * math.prod(shape)
        values = np.frombuffer(payload, dtype, size, start)
        start += values.nbytes
        values = values.astype(np.int32 if dtype.kind == 'i' else np.float32)
      self._check(name, values.reshape(-1, *shape))
      arrays[name] = values.reshape(self.rows, frames, *shape)
    return Block(samples=samples, **arrays)

  def pack_clip(self, block: Block, factors: dict[str, str]) -> bytes:
    """A clip on its own: a head (JSON), a zero byte, and the payload.

    Raises:
      ValueError: for what `pack` refuses.
    """
    head = {
        'frames': block.frames,
        'samples': block.samples,
        'factors': factors,
    }
    return json.dumps(head).encode() + b'\0' + self.pack(block)

  def unpack_clip(self, data: bytes) -> tuple[Block, dict[str, str]]:
    """What `pack_clip` was given.

    Raises:
      ValueError: for what it does not make.
    """
    head, _, payload = data.partition(b'\0')
    head = json.loads(head)
    try:
      frames, samples = int(head['frames']), int(head['samples'])
      return self.unpack(payload, frames, samples), dict(head['factors'])
    except (KeyError, TypeError) as error:
      raise ValueError(f'no record of a clip ({error!r})') from error

  def empty(self) -> Block:
    """A block without frames."""
    return self.unpack(b'', 0, 0)

  def concatenate(self, blocks: Iterable[Block]) -> Block:
    """Blocks as one."""
    blocks = [self.empty(), *blocks]
    return Block(
        samples=sum(block.samples for block in blocks),
        **{
            name: np.concatenate([b.arrays[name] for b in blocks], axis=1)
            for name in self.arrays
        },
    )

  def _stored(self, name: str) -> np.dtype:
    return np.dtype(_STORED.get(name) or _LATENTS[self.precision])

  def _check(self, name: str, values: np.ndarray) -> None:
    """Raises ValueError for values that no token has."""
    if name == 'codes':
      wrong = (values < 0) | (values >= np.asarray(self.vocabularies))
      if wrong.any():
        slot = np.argwhere(wrong)[0][-1]
        raise ValueError(
            f'a code {values[wrong][0]} in slot {slot}, whose vocabulary is'
            f' {self.vocabularies[slot]}'
        )
    elif name == 'durations' and (values < 1).any():
      raise ValueError(f'a duration of {values.min()} frames')
    elif not np.isfinite(values).all():
      raise ValueError(f'{name} are not finite in {values.dtype}')


def check_frames(
    spec: tokenizers_base.Spec, frames: int, samples: int, whole: bool = False
) -> None:
  """Holds samples against the frames that are there for them.

  Args:
    spec: of the tokenizer.
    frames: that there are.
    samples: that they are to stand for.
    whole: whether these are all frames, so that more than are needed are as
      wrong as fewer.

  Raises:
    ValueError: if `samples` samples take another number of frames.
  """
  needed = spec.frames(samples)
  if needed > frames or whole and needed != frames:
    raise ValueError(
        f'{samples} samples take {needed} frames, and there are {frames}'
    )
