"""Tokens as bytes, the same ones in token files and in token caches.

A header says what the tokens are (`Format`). Some frames of them are a payload:

    codes     ceil(log2 V) bits each, zero bits up to a whole byte; or (`aligned`)
              1, 2 or 4 whole bytes each, which read ten times as fast
    latents   float16 or float32, instead of codes
    durations int32, if tokens last several frames
    scales    float32, if frames have gains

All numbers are little-endian. What can not be right is refused both in writing
and in reading.
"""

from collections.abc import Iterable
import dataclasses
import functools
import json
import math
from typing import Annotated, Any, Literal, Self

from jaxtyping import Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax.audio import checks
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers import packing

# Of files and of caches.
VERSION = 3
ARRAYS = ('codes', 'latents', 'durations', 'scales')
_STORED = {'durations': '<i4', 'scales': '<f4'}
_LATENTS = {'float16': '<f2', 'float32': '<f4'}
_LONGEST = (1 << 31) - 1  # frames that a token lasts
_LONGEST_REASON = 300  # of a header; a value of megabytes is no help


class TokensError(config.ConfigError):
  """Tokens on disk that are refused; the message says which, where and why."""


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
class Example:
  """One clip as tokens; exactly one of `codes` and `latents` is set.

  Attributes:
    codes: [F, K], only the valid frames.
    samples: length of the audio it stands for.
    factors: what is known of the clip: id, prompt_id, text, speaker, language.
    latents: [F, D] of continuous tokens.
    durations: [F] frames that each token lasts, where that varies.
    scales: [F] gains, where frames have any.
  """

  codes: Int[np.ndarray, 'F K'] | None = None
  samples: int = 0
  factors: dict[str, str] = dataclasses.field(default_factory=dict)
  latents: Float[np.ndarray, 'F D'] | None = None
  durations: Int[np.ndarray, 'F'] | None = None
  scales: Float[np.ndarray, 'F'] | None = None

  @property
  def frames(self) -> int:
    return len(self.latents if self.codes is None else self.codes)

  @property
  def arrays(self) -> dict[str, np.ndarray]:
    """The arrays that there are, by name; codes or latents come first."""
    named = [(name, getattr(self, name)) for name in ARRAYS]
    return {name: values for name, values in named if values is not None}

  @property
  def block(self) -> Block:
    """The clip as the one row of a block."""
    arrays = {k: np.asarray(values)[None] for k, values in self.arrays.items()}
    return Block(self.samples, **arrays)

  @classmethod
  def of(cls, block: Block, factors: dict[str, str]) -> 'Example':
    """The one row of a block."""
    arrays = {name: values[0] for name, values in block.arrays.items()}
    return cls(samples=block.samples, factors=factors, **arrays)


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
    aligned: whether codes take whole bytes, for speed, or as few bits as they
      can, for size.
    rows: signals side by side (such as channels that were encoded apart).
  """

  spec: tokenizers_base.Spec
  fingerprint: str
  tokenizer: str = ''
  codebooks: Annotated[int, config.Range(min=1)] | None = None
  scales: bool = False
  durations: bool = False
  precision: Literal['float16', 'float32'] = 'float32'
  aligned: bool = False
  rows: Annotated[int, config.Range(min=1, max=checks.MOST_CHANNELS)] = 1

  def __post_init__(self):
    if (self.codebooks is None) == (self.spec.dimension is None):
      raise ValueError('tokens are codes or latents: one of the two')
    slots = len(self.spec.slots)
    if self.codebooks is None and slots:
      raise ValueError(f'continuous tokens, and {slots} slots of codes')
    if self.codebooks is not None and not 0 < self.codebooks <= slots:
      raise ValueError(f'{self.codebooks} codebooks of {slots} slots')

  @classmethod
  def for_tokenizer(
      cls,
      tokenizer: tokenizers_base.Tokenizer,
      codebooks: int | None = None,
      /,
      **fields: Any,
  ) -> Self:
    """What a tokenizer gives.

    Args:
      tokenizer: see above.
      codebooks: how many are kept, the first; None for all.
      **fields: the others of this class.
    """
    spec = tokenizer.spec
    codebooks = codebooks or len(spec.slots) or None
    scales = tokenizer.has_scales
    return cls(spec=spec, codebooks=codebooks, scales=scales, **fields)

  def to_dict(self) -> dict[str, Any]:
    """Plain values, for JSON; `from_dict` inverts it."""
    return dataclasses.asdict(self)

  @classmethod
  def from_dict(cls, values: dict[str, Any], name: str = 'tokens') -> Self:
    """What `to_dict` gave, or a file says.

    Args:
      values: see above.
      name: of the file, for messages.

    Raises:
      TokensError: for a missing or unknown key, a wrong type or a value out of
        range; the message names the key.
    """
    try:
      return _built(cls, json.dumps(values))
    except (ValueError, RecursionError) as error:
      reason = str(error)[:_LONGEST_REASON]
      raise TokensError(f'{name}: unreadable header ({reason}).') from error

  @functools.cached_property
  def vocabularies(self) -> tuple[int, ...]:
    """Of the slots that are stored; empty for continuous tokens."""
    return self.spec.vocabularies[: self.codebooks or 0]

  @functools.cached_property
  def bits(self) -> tuple[int, ...]:
    """Bits of the code of each slot; empty for continuous tokens."""
    return tuple(map(packing.code_bits, self.vocabularies))

  @functools.cached_property
  def arrays(self) -> dict[str, tuple[int, ...]]:
    """The arrays of a block, and the shape of each one's frames."""
    if self.codebooks is None:
      arrays = {'latents': (self.spec.dimension,)}
    else:
      arrays = {'codes': (self.codebooks,)}
    flags = {'durations': self.durations, 'scales': self.scales}
    return arrays | {name: () for name, there in flags.items() if there}

  @functools.cached_property
  def _layout(self) -> list[tuple[str, tuple[int, ...], np.dtype | None, int]]:
    """(name, shape of a frame, type, bits of a frame) of each array.

    The type of codes in bits is None.
    """
    codes = None
    if self.aligned and self.bits:
      codes = np.min_scalar_type(max(self.vocabularies) - 1).newbyteorder('<')
    stored = {**_STORED, 'codes': codes, 'latents': _LATENTS[self.precision]}
    layout = []
    for name, shape in self.arrays.items():
      dtype, bits = stored[name] and np.dtype(stored[name]), sum(self.bits)
      if dtype is not None:
        bits = 8 * dtype.itemsize * math.prod(shape)
      layout.append((name, shape, dtype, bits))
    return layout

  @functools.cached_property
  def _fewest(self) -> int:
    """The smallest vocabulary."""
    return min(self.vocabularies)

  def payload_bytes(self, frames: int) -> int:
    """Bytes of the payload of `frames` frames of every row."""
    return sum(self._sizes(frames))

  def _sizes(self, frames: int) -> list[int]:
    """Bytes of each array."""
    count = self.rows * frames
    return [-(-count * bits // 8) for _, _, _, bits in self._layout]

  def pack(self, block: Block) -> bytes:
    """The payload of a block.

    Raises:
      ValueError: for arrays that this does not describe, codes out of their
        vocabularies, and numbers that are not finite.
    """
    arrays, parts = block.arrays, []
    for name in arrays.keys() - self.arrays.keys():
      raise ValueError(f'the header says that there are no {name}')
    for name, shape, stored, _ in self._layout:
      shape = (self.rows, block.frames, *shape)
      values = arrays.get(name)
      if values is None or values.shape != shape:
        shown = None if values is None else values.shape
        raise ValueError(
            f'{name} of shape {shown}, and the header says {shape}'
        )
      if name in ('codes', 'durations'):
        if values.dtype.kind not in 'iu':
          raise ValueError(f'{name} of type {values.dtype}: expected integers')
        # Before it is cast to a type that may not hold it.
        self._check(name, values)
      if stored is None:
        parts.append(packing.pack(values.reshape(-1, shape[2]), self.bits))
        continue
      with np.errstate(over='ignore'):
        values = values.astype(stored)
      self._check(name, values)
      parts.append(values.tobytes())
    return b''.join(parts)

  def unpack(self, payload: bytes, frames: int, samples: int) -> Block:
    """The block of a payload.

    Raises:
      ValueError: for what `pack` does not make.
    """
    arrays = self._unpacked(payload, frames, (self.rows, frames))
    return Block(samples, **arrays)

  def _unpacked(self, payload, frames, shape) -> dict[str, np.ndarray]:
    """The arrays of a payload, [*shape, ...]."""
    sizes = self._sizes(frames)
    if len(payload) != sum(sizes):
      raise ValueError(
          f'{len(payload)} bytes, and {frames} frames take {sum(sizes)}'
      )
    arrays, start = {}, 0
    for (name, more, stored, _), size in zip(self._layout, sizes, strict=True):
      part = payload[start : start + size]
      start += size
      if stored is None:
        values = packing.unpack(part, self.rows * frames, self.bits)
      else:
        values = np.frombuffer(part, stored)
      self._check(name, values)
      kind = np.float32 if values.dtype.kind == 'f' else np.int32
      arrays[name] = values.astype(kind).reshape(shape + more)
    return arrays

  def pack_clip(self, clip: Example) -> bytes:
    """A clip on its own: a head (JSON), a zero byte, and the payload.

    Raises:
      ValueError: for what `pack` refuses, and samples that take another number
        of frames.
    """
    block = clip.block
    payload = self.pack(block)
    check_frames(self.spec, block.lasting, clip.samples, whole=True)
    head = {
        'frames': clip.frames,
        'samples': clip.samples,
        'factors': clip.factors,
    }
    return json.dumps(head).encode() + b'\0' + payload

  def unpack_clip(self, data: bytes) -> Example:
    """What `pack_clip` was given.

    Raises:
      ValueError: for what it does not make.
    """
    head, _, payload = data.partition(b'\0')
    head = json.loads(head.decode())
    try:
      frames, samples = int(head['frames']), int(head['samples'])
      factors = dict(head['factors'])
    except (KeyError, TypeError) as error:
      raise ValueError(f'no record of a clip ({error!r})') from error
    arrays = self._unpacked(payload, frames, (frames,))
    lasting = int(arrays['durations'].sum()) if self.durations else frames
    check_frames(self.spec, lasting, samples, whole=True)
    return Example(samples=samples, factors=factors, **arrays)

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

  def _check(self, name: str, values: np.ndarray) -> None:
    """Raises ValueError for values that no token has."""
    if name == 'codes':
      least = 0 if values.dtype.kind == 'u' else values.min(initial=0)
      if least >= 0 and values.max(initial=0) < self._fewest:
        return  # Nearly always, and quick.
      values = values.reshape(-1, len(self.vocabularies))
      wrong = (values < 0) | (values >= np.asarray(self.vocabularies))
      if wrong.any():
        slot = np.argwhere(wrong)[0][1]
        raise ValueError(
            f'a code {values[wrong][0]} in slot {slot}, whose vocabulary is'
            f' {self.vocabularies[slot]}'
        )
    elif name == 'durations':
      wrong = (values < 1) | (values > _LONGEST)
      if wrong.any():
        raise ValueError(f'a duration of {values[wrong][0]} frames')
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


def parsed(text: bytes, name: str) -> dict[str, Any]:
  """The fields of a header in JSON.

  Args:
    text: see above.
    name: of the file, for messages.

  Raises:
    TokensError: for what is no JSON of an object, or has a key twice.
  """
  try:
    fields = json.loads(text, object_pairs_hook=_once)
    if isinstance(fields, dict):
      return fields
    reason = f'a {type(fields).__name__} instead of an object'
  except (ValueError, RecursionError) as error:
    reason = str(error)[:_LONGEST_REASON]
  raise TokensError(f'{name}: unreadable header ({reason}).')


def _once(pairs):
  """The object of some pairs; Python alone would take the last of a key."""
  fields = dict(pairs)
  if len(fields) < len(pairs):
    raise ValueError('a key is there twice')
  return fields


@functools.lru_cache(maxsize=16)
def _built(cls, text: str):
  """A header of some class; files of a folder say the same, and it takes ms."""
  return config.build(cls, json.loads(text), 'header')
