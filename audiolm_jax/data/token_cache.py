"""A corpus as tokens, made once and read many times.

A cache is a folder of ArrayRecord parts, each of `PART` consecutive clips of a
split, and a header.json that is written last: a folder without it is a cache
that was interrupted, which may be continued but not read.
"""

from collections.abc import Sequence
import dataclasses
import functools
import json
import os
import pathlib
from typing import Any

from array_record.python import array_record_data_source
from array_record.python import array_record_module
from jaxtyping import Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax.training import writers

PART = 256
_HEADER = 'header.json'
_IDENTITY = 'identity.json'
_CODEBOOKS = 'codebooks.npy'


class CacheError(config.ConfigError):
  """A token cache that can't be used; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Identity:
  """What a cache was made from; caches with the same one hold the same.

  Attributes:
    tokenizer_hash: fingerprint of the tokenizer and its variables.
    tokenizer_workdir: where it was trained.
    tokenizer_spec: `Spec.to_dict()`.
    corpus: its name.
    languages: which; empty for all.
    clips: split -> how many.
  """

  tokenizer_hash: str
  tokenizer_workdir: str
  tokenizer_spec: dict[str, Any]
  corpus: str
  languages: tuple[str, ...]
  clips: dict[str, int]


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
    head, _, body = data.partition(b'\0')
    head = json.loads(head)
    codes = np.frombuffer(body, head['dtype']).reshape(head['shape'])
    return cls(codes.astype(np.int32), head['samples'], head['factors'])


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
      theirs = json.loads(path.read_text())
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
    """Writes one part; it appears whole or not at all."""
    path = _part(self._directory, split, part)
    temporary = path.with_suffix(f'.{os.getpid()}.tmp')
    writer = array_record_module.ArrayRecordWriter(
        str(temporary), 'group_size:1'
    )
    for example in examples:
      writer.write(example.to_bytes())
    writer.close()
    temporary.replace(path)

  def write_codebooks(self, vectors: Float[np.ndarray, 'K V D']) -> None:
    """Keeps the vectors that the codes stand for, for `read_codebooks`."""
    temporary = self._directory / f'codebooks.{os.getpid()}.npy'
    np.save(temporary, np.asarray(vectors, np.float32))
    temporary.replace(self._directory / _CODEBOOKS)

  def finish(self) -> bool:
    """Writes the header if no part is missing; whether the cache is whole."""
    if self.missing():
      return False
    if not (self._directory / _HEADER).exists():
      splits = {}
      for split, clips in self._identity.clips.items():
        records = _records(self._directory, split, clips)
        examples = [Example.from_bytes(records[i]) for i in range(clips)]
        splits[split] = {
            'frames': [len(e.codes) for e in examples],
            'samples': [e.samples for e in examples],
            'language': [e.factors.get('language', '') for e in examples],
            'speaker': [e.factors.get('speaker', '') for e in examples],
        }
      header = {**dataclasses.asdict(self._identity), 'splits': splits}
      writers.write_atomically(self._directory / _HEADER, json.dumps(header))
    return True


def read_header(directory: str | os.PathLike) -> dict[str, Any]:
  """A whole cache's header: `Identity`'s fields, and `splits`.

  Raises:
    CacheError: if there is none.
  """
  path = pathlib.Path(directory) / _HEADER
  if not path.exists():
    state = 'is unfinished' if path.parent.is_dir() else 'does not exist'
    raise CacheError(
        f'The token cache {directory} {state}. Make it (or go on) with: python'
        f' tools/tokenize_audio.py corpus --tokenizer=TOKENIZER'
        f' --out={directory}'
    )
  return json.loads(path.read_text())


def read_codebooks(
    directory: str | os.PathLike,
) -> Float[np.ndarray, 'K V D']:
  """The vectors that a cache's codes stand for.

  Raises:
    CacheError: if the cache has none.
  """
  path = pathlib.Path(directory) / _CODEBOOKS
  if not path.exists():
    raise CacheError(
        f'{directory} holds no codebooks ({path}): it is no token cache, or its'
        ' tokenizer has no vectors of one shape for all slots.'
    )
  return np.load(path)


class TokenCache:
  """Random access to one split: `cache[i]` is an `Example`.

  Attributes:
    header: see `read_header`.
    frames: [N] valid frames of each clip.
    languages: [N] language of each clip.

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
    found = self.header['tokenizer_hash']
    if tokenizer_hash is not None and tokenizer_hash != found:
      raise CacheError(
          f'The token cache {directory} was made by the tokenizer {found} (of'
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
    self._records = _records(pathlib.Path(directory), split, len(self.frames))

  @property
  def vocabularies(self) -> tuple[int, ...]:
    """Of the tokenizer's slots."""
    slots = self.header['tokenizer_spec']['slots']
    return tuple(slot['vocabulary'] for slot in slots)

  @functools.cached_property
  def speakers(self) -> np.ndarray:
    """[N] speaker of each clip, '' where not known."""
    index = self.header['splits'][self._arguments[1]]
    if 'speaker' in index:
      return np.asarray(index['speaker'])
    # A cache from before they stood in the header.
    every = (self[i].factors for i in range(len(self)))
    return np.asarray([known.get('speaker', '') for known in every])

  def __len__(self) -> int:
    return len(self.frames)

  def __getitem__(self, index: int) -> Example:
    return Example.from_bytes(self._records[int(index)])

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


def _part(directory: pathlib.Path, split: str, part: int) -> pathlib.Path:
  return directory / f'{split}-{part:05d}.array_record'


def _records(directory: pathlib.Path, split: str, clips: int):
  return array_record_data_source.ArrayRecordDataSource(
      [str(_part(directory, split, part)) for part in range(-(-clips // PART))]
  )


def _short(value: Any) -> str:
  text = json.dumps(value)
  return text if len(text) < 60 else f'{text[:57]}...'
