"""A corpus as tokens, made once and read many times.

A cache is a folder of ArrayRecord parts, each of `PART` consecutive clips of a
split, and a header.json that is written last: a folder without it is a cache
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

from array_record.python import array_record_data_source
from array_record.python import array_record_module
from jaxtyping import Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax.data import arrays
from audiolm_jax.data import cache_header
from audiolm_jax.training import writers

PART = 256
_IDENTITY = 'identity.json'
_CODEBOOKS = 'codebooks.npy'
# Clips of more frames (days) are looked at before anyone counts on them.
_LONG = 2**24

CacheError = cache_header.CacheError
read_header = cache_header.read


@dataclasses.dataclass(frozen=True)
class Identity:
  """What a cache was made from; caches with the same one hold the same.

  Attributes:
    tokenizer_hash: fingerprint of the tokenizer and its variables.
    tokenizer_workdir: where it was trained.
    tokenizer_spec: `Spec.to_dict()`.
    corpus: its name, or its path if it is a folder.
    languages: which; empty for all.
    clips: split -> how many.
    build: which build of the corpus; a folder that has changed is another.
  """

  tokenizer_hash: str
  tokenizer_workdir: str
  tokenizer_spec: dict[str, Any]
  corpus: str
  languages: tuple[str, ...]
  clips: dict[str, int]
  build: str = ''


@dataclasses.dataclass(frozen=True)
class Example:
  """One clip as tokens.

  Attributes:
    codes: [F, K], only the valid frames.
    samples: length of the audio it stands for.
    factors: what is known of the clip: id, prompt_id, text, speaker, language.
  """

  codes: Int[np.ndarray, 'F K']
  samples: int
  factors: dict[str, str]

  def to_bytes(self) -> bytes:
    """JSON, a zero byte, and the codes in the smallest type that holds them."""
    codes = np.asarray(self.codes)
    codes = codes.astype(np.min_scalar_type(int(codes.max(initial=0))))
    head = {
        'samples': self.samples,
        'factors': self.factors,
        'shape': codes.shape,
        'dtype': codes.dtype.str,
    }
    return json.dumps(head).encode() + b'\0' + codes.tobytes()

  @classmethod
  def from_bytes(cls, data: bytes) -> 'Example':
    """The inverse of `to_bytes`.

    Raises:
      ValueError: for what it does not make.
    """
    head, _, body = data.partition(b'\0')
    head = json.loads(head)
    try:
      codes = np.frombuffer(body, head['dtype']).reshape(head['shape'])
      return cls(codes, int(head['samples']), dict(head['factors']))
    except (KeyError, TypeError) as error:
      raise ValueError(f'no record of a clip ({error!r})') from error

  def fault(self, vocabularies: Sequence[int]) -> str | None:
    """Why this is no clip of a tokenizer with such slots; None if it is."""
    codes = self.codes
    if codes.ndim != 2 or codes.shape[1] != len(vocabularies):
      return f'codes {codes.shape} for {len(vocabularies)} slots'
    if codes.dtype.kind not in 'iu':
      return f'codes of type {codes.dtype}'
    if not len(codes):
      return None
    for slot, (least, most, vocabulary) in enumerate(
        zip(codes.min(0), codes.max(0), vocabularies, strict=True)
    ):
      if least < 0 or most >= vocabulary:
        return (
            f'a code {least if least < 0 else most} in slot {slot}, whose'
            f' vocabulary is {vocabulary}'
        )
    return None


class Writer:
  """Fills a cache part by part; what is there already is kept.

  Args:
    directory: of the cache.
    identity: of what is to be written.

  Raises:
    CacheError: if the directory holds something else.
  """

  def __init__(self, directory: str | os.PathLike, identity: Identity):
    self._directory = pathlib.Path(directory)
    self._identity = identity
    self._directory.mkdir(parents=True, exist_ok=True)
    mine = json.loads(json.dumps(dataclasses.asdict(identity)))
    path = self._directory / _IDENTITY
    if path.exists():
      theirs = cache_header.read_json(path)
      # The same tokenizer may have been moved.
      different = [
          f'{key}: {_short(theirs.get(key))} there, {_short(mine[key])} now'
          for key in mine
          if key != 'tokenizer_workdir' and theirs.get(key) != mine[key]
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
        (split, part, range(start, min(start + PART, clips)))
        for split, clips in self._identity.clips.items()
        for part, start in enumerate(range(0, clips, PART))
        if not _part(self._directory, split, part).exists()
    ]

  def write(self, split: str, part: int, examples: Sequence[Example]) -> None:
    """Writes one part; it appears whole or not at all.

    Raises:
      CacheError: for codes that are not the tokenizer's, or if the part can't
        be written.
    """
    path = _part(self._directory, split, part)
    slots = self._identity.tokenizer_spec['slots']
    vocabularies = [slot['vocabulary'] for slot in slots]
    for i, example in enumerate(examples):
      if fault := example.fault(vocabularies):
        raise CacheError(f'{path}: clip {part * PART + i} has {fault}.')
    # What it says of a part that is replaced is no longer so.
    (self._directory / cache_header.NAME).unlink(missing_ok=True)
    temporary = path.with_suffix(f'.{os.getpid()}.tmp')
    try:
      writer = array_record_module.ArrayRecordWriter(
          str(temporary), 'group_size:1'
      )
      for example in examples:
        writer.write(example.to_bytes())
      writer.close()
      temporary.replace(path)
    except (OSError, RuntimeError) as error:
      raise CacheError(f'{path} can not be written: {error}') from error
    finally:
      temporary.unlink(missing_ok=True)

  def write_codebooks(self, vectors: Float[np.ndarray, 'K V D']) -> None:
    """Keeps the vectors that the codes stand for, for `read_codebooks`."""
    path = self._directory / _CODEBOOKS
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
      records = _Records(self._directory, split, clips)
      index = {
          key: [] for key in ('frames', 'samples', 'language', 'speaker')
      } | {'checksums': []}
      for i in range(clips):
        data, example = records[i]
        index['frames'].append(len(example.codes))
        index['samples'].append(example.samples)
        for key in ('language', 'speaker'):
          index[key].append(example.factors.get(key, ''))
        index['checksums'].append(zlib.crc32(data))
      splits[split] = index
    codebooks = self._directory / _CODEBOOKS
    cache_header.write(
        self._directory,
        {
            **dataclasses.asdict(self._identity),
            'splits': splits,
            'codebooks': zlib.crc32(codebooks.read_bytes())
            if codebooks.exists()
            else None,
        },
    )
    return True

  def _has_header(self) -> bool:
    """Whether there is one that can be read and knows where the tokenizer is."""
    try:
      header = read_header(self._directory)
    except CacheError:
      return False
    here = os.path.realpath(self._identity.tokenizer_workdir)
    return header['tokenizer_workdir'] == here


def read_codebooks(
    directory: str | os.PathLike,
) -> Float[np.ndarray, 'K V D']:
  """The vectors that a cache's codes stand for.

  Raises:
    CacheError: if the cache has none, or they are not as they were written.
  """
  path = pathlib.Path(directory) / _CODEBOOKS
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
    if read_header(directory)['codebooks'] != zlib.crc32(path.read_bytes()):
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
    header: see `read_header`.
    frames: [N] valid frames of each clip.
    languages: [N] language of each clip.
    speakers: [N] speaker of each clip, '' where not known.
    vocabularies: of the tokenizer's slots.

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
    made_by = self.header['tokenizer_hash']
    if tokenizer_hash is not None and tokenizer_hash != made_by:
      raise CacheError(
          f'The token cache {directory} was made by the tokenizer {made_by} (of'
          f' {self.header["tokenizer_workdir"]}), but {tokenizer_hash} is'
          ' asked for. Tokenize again with the right tokenizer.'
      )
    if split not in self.header['splits']:
      raise CacheError(
          f'The token cache {directory} has no split {split!r}, but'
          f' {sorted(self.header["splits"])}.'
      )
    self._arguments = (os.fspath(directory), split, tokenizer_hash)
    index = self.header['splits'][split]
    self.frames = np.asarray(index['frames'], np.int64)
    self.languages = np.asarray(index['language'])
    self.speakers = np.asarray(index['speaker'])
    self._records = _Records(pathlib.Path(directory), split, len(self.frames))
    self._checksums = index['checksums']
    self.vocabularies = cache_header.vocabularies(self.header)
    self._fewest = min(self.vocabularies, default=0)
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
    data, example = self._records[index]
    codes, fault = example.codes, None
    if zlib.crc32(data) != self._checksums[index]:
      fault = 'another checksum than in header.json'
    elif codes.shape[:1] != (self.frames[index],):
      fault = f'codes {codes.shape}, and {self.frames[index]} frames in'
      fault += ' header.json'
    elif not self._fits(codes):
      fault = example.fault(self.vocabularies)
    if fault:
      raise self._records.error(index, f'clip {index} has {fault}')
    return Example(codes.astype(np.int32), example.samples, example.factors)

  def _fits(self, codes: np.ndarray) -> bool:
    """Whether codes surely have no fault: in a microsecond for each clip."""
    return (
        codes.dtype.kind == 'u'
        and codes.shape[1:] == (len(self.vocabularies),)
        and codes.max(initial=0) < self._fewest
    )

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
  spec = header['tokenizer_spec']
  values = {
      'tokenizer': header['tokenizer_hash'],
      'vocabularies': cache_header.vocabularies(header),
  }
  if {'sample_rate', 'hop'} <= spec.keys():
    # As `tokenizers.base.Spec` has it.
    frames, stride = 1, spec['hop']
    if spec.get('segment'):
      size, stride = spec['segment']
      frames = -(-size // spec['hop'])
    values['frame rate'] = frames * spec['sample_rate'] / stride
  where = f'{key} ({directory})'
  return [config.Fact(name, where, value) for name, value in values.items()]


def _part(directory: pathlib.Path, split: str, part: int) -> pathlib.Path:
  return directory / f'{split}-{part:05d}.array_record'


class _Records:
  """The records of a split: `records[i]` is (bytes, Example)."""

  def __init__(self, directory: pathlib.Path, split: str, clips: int):
    starts = range(0, clips, PART)
    self._parts = [_part(directory, split, i) for i in range(len(starts))]
    for path in self._parts:
      if not path.exists():
        raise CacheError(
            f'{path} is missing. To make it again, run the `tokenize_audio.py'
            ' corpus` of this cache once more.'
        )
    self._source = _open(self._parts) if clips else []
    if len(self._source) != clips:
      for path, start in zip(self._parts, starts, strict=True):
        count, wanted = len(_open([path])), min(PART, clips - start)
        if count != wanted:
          raise _damaged(path, f'it has {count} clips instead of {wanted}')

  def __getitem__(self, index: int) -> tuple[bytes, Example]:
    try:
      data = self._source[index]
      return data, Example.from_bytes(data)
    except (RuntimeError, ValueError) as error:
      raise self.error(index, f'clip {index}: {error}') from error

  def error(self, index: int, fault: str) -> CacheError:
    """Of the part that holds a clip."""
    return _damaged(self._parts[index // PART], fault)


def _open(parts):
  try:
    return array_record_data_source.ArrayRecordDataSource(
        [str(path) for path in parts]
    )
  except (RuntimeError, ValueError, OSError) as error:
    if len(parts) > 1:
      for path in parts:
        _open([path])
    raise _damaged(parts[0], str(error)) from error


def _damaged(part: pathlib.Path, fault: str) -> CacheError:
  return CacheError(f'{part} is damaged ({fault}). {cache_header.AGAIN}')


def _short(value: Any) -> str:
  text = json.dumps(value)
  return text if len(text) < 60 else f'{text[:57]}...'
