"""A corpus as tokens, made once and read many times.

A cache is a folder of ArrayRecord parts, each of `cache_parts.PART` consecutive
clips of a split, and a header.json that is written last: a folder without it is a cache
that was interrupted, which may be continued but not read. The header has a
checksum of every clip, which is looked at as clips are read: what was not
written with it is never given out.
"""

from collections.abc import Sequence
import dataclasses
import json
import os
import pathlib
from typing import Any
import zlib

from jaxtyping import Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax.data import arrays
from audiolm_jax.data import cache_header
from audiolm_jax.data import cache_parts
from audiolm_jax.tokenizers import encoding
from audiolm_jax.training import writers

_IDENTITY = 'identity.json'
_VECTORS = 'codebooks.npy'
# Clips of more frames (days) are looked at before anyone counts on them.
_LONG = 2**24

CacheError = cache_header.CacheError
read_header = cache_header.read


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
    return len(next(iter(self.arrays.values())))

  @property
  def arrays(self) -> dict[str, np.ndarray]:
    """The arrays that there are, by name; codes or latents come first."""
    named = {name: getattr(self, name) for name in encoding.ARRAYS}
    return {k: np.asarray(v) for k, v in named.items() if v is not None}

  def to_bytes(self, form: encoding.Format) -> bytes:
    """The clip as a record of a cache.

    Raises:
      ValueError: for tokens of another format.
    """
    arrays = {name: values[None] for name, values in self.arrays.items()}
    return form.pack_clip(encoding.Block(self.samples, **arrays), self.factors)

  @classmethod
  def from_bytes(cls, data: bytes, form: encoding.Format) -> 'Example':
    """The inverse of `to_bytes`.

    Raises:
      ValueError: for what it does not make.
    """
    block, factors = form.unpack_clip(data)
    return cls.of(block, factors)

  @classmethod
  def of(cls, block: encoding.Block, factors: dict[str, str]) -> 'Example':
    """The one row of a block."""
    arrays = {name: values[0] for name, values in block.arrays.items()}
    return cls(samples=block.samples, factors=factors, **arrays)


class Writer:
  """Fills a cache part by part; what is there already is kept.

  Args:
    directory: of the cache.
    identity: of what is to be written.

  Raises:
    CacheError: if the directory holds something else.
  """

  def __init__(
      self, directory: str | os.PathLike, identity: cache_header.Identity
  ):
    self._directory = pathlib.Path(directory)
    self._identity = identity
    self._directory.mkdir(parents=True, exist_ok=True)
    mine = json.loads(json.dumps(identity.to_dict()))
    path = self._directory / _IDENTITY
    if path.exists():
      theirs = cache_header.read_json(path)
      # The same tokenizer may have been moved.
      different = [
          f'{key}: {_short(theirs.get(key))} there, {_short(mine[key])} now'
          for key in mine
          if key != 'tokenizer' and theirs.get(key) != mine[key]
      ]
      if different:
        raise CacheError(
            f'{directory} holds the tokens of something else'
            f' ({"; ".join(different)}). Remove it or write elsewhere.'
        )
    elif any(self._directory.iterdir()):
      raise CacheError(f'{directory} is not empty and not a token cache.')
    else:
      writers.write_atomically(path, json.dumps(mine))

  def missing(self) -> list[tuple[str, int, range]]:
    """(split, part, clip indices) of all parts that are still to be written."""
    return [
        (split, part, range(start, min(start + cache_parts.PART, clips)))
        for split, clips in self._identity.clips.items()
        for part, start in enumerate(range(0, clips, cache_parts.PART))
        if not cache_parts.path_of(self._directory, split, part).exists()
    ]

  def write(self, split: str, part: int, examples: Sequence[Example]) -> None:
    """Writes one part; it appears whole or not at all.

    Raises:
      CacheError: for codes that are not the tokenizer's, or if the part can't
        be written.
    """
    path = cache_parts.path_of(self._directory, split, part)
    records = []
    for i, example in enumerate(examples, part * cache_parts.PART):
      try:
        records.append(example.to_bytes(self._identity))
      except ValueError as error:
        raise CacheError(f'{path}: clip {i} has {error}.') from error
    # What it says of a part that is replaced is no longer so.
    (self._directory / cache_header.NAME).unlink(missing_ok=True)
    cache_parts.write(path, records)

  def write_codebooks(self, vectors: Float[np.ndarray, 'K V D']) -> None:
    """Keeps the vectors that the codes stand for, for `read_codebooks`."""
    path = self._directory / _VECTORS
    temporary = self._directory / f'codebooks.{os.getpid()}.npy'
    np.save(temporary, np.asarray(vectors, np.float32))
    if not path.exists() or path.read_bytes() != temporary.read_bytes():
      (self._directory / cache_header.NAME).unlink(missing_ok=True)
    temporary.replace(path)

  def finish(self) -> bool:
    """Writes the header if no part is missing; whether the cache is whole.

    Raises:
      CacheError: for a part that can't be read, naming it.
    """
    if self.missing():
      return False
    if self._has_header():
      return True
    splits = {}
    for split, clips in self._identity.clips.items():
      records = cache_parts.Records(self._directory, split, clips)
      keys = ('frames', 'samples', 'language', 'speaker', 'checksums')
      index = splits[split] = {key: [] for key in keys}
      for i in range(clips):
        example = _example(records, i, self._identity)
        index['frames'].append(example.frames)
        index['samples'].append(example.samples)
        for key in ('language', 'speaker'):
          index[key].append(example.factors.get(key, ''))
        index['checksums'].append(zlib.crc32(records[i]))
    vectors = self._directory / _VECTORS
    checksum = zlib.crc32(vectors.read_bytes()) if vectors.exists() else None
    header = cache_header.Header(
        **vars(self._identity), splits=splits, vectors=checksum
    )
    cache_header.write(self._directory, header)
    return True

  def _has_header(self) -> bool:
    """Whether there is one that can be read and knows where the tokenizer is."""
    try:
      header = read_header(self._directory)
    except CacheError:
      return False
    return header.tokenizer == os.path.realpath(self._identity.tokenizer)


def read_codebooks(
    directory: str | os.PathLike,
) -> Float[np.ndarray, 'K V D']:
  """The vectors that a cache's codes stand for.

  Raises:
    CacheError: if the cache has none, or they are not as they were written.
  """
  path = pathlib.Path(directory) / _VECTORS
  if not path.exists():
    raise CacheError(
        f'{directory} holds no codebooks ({path}): it is no token cache, or its'
        ' tokenizer has no vectors of one shape for all slots.'
    )
  try:
    vectors = np.array(arrays.load(path))
  except config.ConfigError as error:
    raise CacheError(f'{error} {cache_header.AGAIN}') from error
  fault = None
  if vectors.ndim != 3 or vectors.dtype.kind != 'f':
    fault = f'it has {vectors.dtype} {vectors.shape}'
  elif not np.isfinite(vectors).all():
    fault = 'it has numbers that are not finite'
  elif (path.parent / cache_header.NAME).exists():
    if read_header(directory).vectors != zlib.crc32(path.read_bytes()):
      fault = 'its checksum is not that of header.json'
  if fault:
    raise CacheError(
        f'{path} is not as a token cache writes it: {fault}.'
        f' {cache_header.AGAIN}'
    )
  return vectors


class TokenCache:
  """Random access to one split: `cache[i]` is an `Example`.

  Attributes:
    header: of the cache.
    vocabularies: of the slots that are stored; empty for continuous tokens.
    frames: [N] valid frames of each clip.
    languages: [N] language of each clip.
    speakers: [N] speaker of each clip, '' where not known.

  Args:
    directory: of the cache.
    split: 'train', 'validation', 'test'.
    tokenizer_hash: if given, the hash the cache must have been made with.

  Raises:
    CacheError: if it is unfinished, another tokenizer's, or has no such split.
  """

  def __init__(
      self,
      directory: str | os.PathLike,
      split: str,
      tokenizer_hash: str | None = None,
  ):
    self.header = read_header(directory)
    self.vocabularies = self.header.vocabularies
    made_by = self.header.fingerprint
    if tokenizer_hash is not None and tokenizer_hash != made_by:
      raise CacheError(
          f'The token cache {directory} was made by the tokenizer {made_by} (of'
          f' {self.header.tokenizer}), but {tokenizer_hash} is asked for.'
          ' Tokenize again with the right tokenizer.'
      )
    if split not in self.header.splits:
      raise CacheError(
          f'The token cache {directory} has no split {split!r}, but'
          f' {sorted(self.header.splits)}.'
      )
    self._arguments = (os.fspath(directory), split, tokenizer_hash)
    index = self.header.splits[split]
    self.frames = np.asarray(index['frames'], np.int64)
    self.languages = np.asarray(index['language'])
    self.speakers = np.asarray(index['speaker'])
    self._records = cache_parts.Records(
        pathlib.Path(directory), split, len(self.frames)
    )
    self._checksums = index['checksums']
    for i in np.flatnonzero(self.frames > _LONG):
      self[i]  # Else what is counted by this would take all memory.

  def __len__(self) -> int:
    return len(self.frames)

  def __getitem__(self, index: int) -> Example:
    """A clip.

    Raises:
      CacheError: if it is not the one that the header was written for.
    """
    index = int(index)
    fault = None
    if zlib.crc32(self._records[index]) != self._checksums[index]:
      fault = 'another checksum than in header.json'
    else:
      example = _example(self._records, index, self.header)
      if example.frames != self.frames[index]:
        fault = f'{example.frames} frames, and {self.frames[index]} in'
        fault += ' header.json'
    if fault:
      raise self._records.error(index, f'it has {fault}')
    return example

  def __reduce__(self):
    return TokenCache, self._arguments

  def select(
      self, languages: Sequence[str] = (), limit: int | None = None
  ) -> np.ndarray:
    """Indices of the clips in some languages (all if empty), the first `limit`.

    Raises:
      CacheError: if no clip is left.
    """
    chosen = np.arange(len(self))
    if languages:
      chosen = chosen[np.isin(self.languages, list(languages))]
    if not len(chosen):
      raise CacheError(
          f'{self._arguments[0]} {self._arguments[1]} has no clip in'
          f' {list(languages)}, but in {sorted(set(self.languages))}.'
      )
    return chosen[:limit]


def facts(directory: str | os.PathLike, key: str) -> list[config.Fact]:
  """What a cache's tokens are, for `config.check_facts`.

  Args:
    directory: of the cache.
    key: of the config that names it.

  Raises:
    CacheError: if it can't be read.
  """
  header = read_header(directory)
  values = {
      'tokenizer': header.fingerprint,
      'vocabularies': header.vocabularies,
      'frame rate': header.spec.frame_rate,
  }
  where = f'{key} ({directory})'
  return [config.Fact(name, where, value) for name, value in values.items()]


def _example(records, index, form) -> Example:
  try:
    return Example.from_bytes(records[index], form)
  except ValueError as error:
    raise records.error(index, f'it has {error}') from error


def _short(value: Any) -> str:
  text = json.dumps(value)
  return text if len(text) < 60 else f'{text[:57]}...'
