"""The header of a token cache: what its clips are, sealed with a checksum."""

import dataclasses
import hashlib
import json
import os
import pathlib
import shlex
from typing import Annotated, Any

from audiolm_jax import config
from audiolm_jax.config import relocation
from audiolm_jax.tokenizers import encoding
from audiolm_jax.training import writers

NAME = 'header.json'
VERSION = 2
AGAIN = (
    'To make it again, remove it, and run the `tokenize_audio.py corpus` of'
    ' this cache once more: it makes what is missing.'
)
# Of a clip, and of a split: no audio is that long.
_MOST = 2**48
_NUMBERS = ('frames', 'samples', 'checksums')


class CacheError(config.ConfigError):
  """A token cache that can't be used; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Identity(encoding.Format):
  """What a cache was made from; caches with the same one hold the same.

  Attributes:
    languages: which of the corpus; empty for all.
    clips: split -> how many.
    build: which build of the corpus; a folder that has changed is another.
  """

  languages: tuple[str, ...] = ()
  clips: Annotated[Any, config.Named(Annotated[int, config.Range(min=0)])] = (
      dataclasses.field(default_factory=dict)
  )
  build: str = ''


@dataclasses.dataclass(frozen=True)
class Header(Identity):
  """The header of a whole cache.

  Attributes:
    splits: split -> lists with an entry a clip: its 'frames', 'samples',
      'language', 'speaker' ('' where not known) and 'checksums'.
    vectors: checksum of the file of code vectors; None if there is none.
  """

  splits: dict[str, dict[str, list]] = dataclasses.field(default_factory=dict)
  vectors: int | None = None


def write(directory: pathlib.Path, header: Header) -> None:
  """Writes a cache's header, whole or not at all."""
  tokenizer = relocation.relative(header.tokenizer, directory)
  fields = {**header.to_dict(), 'version': VERSION, 'tokenizer': tokenizer}
  fields = json.loads(json.dumps(fields))
  fields['checksum'] = _checksum(fields)
  writers.write_atomically(directory / NAME, json.dumps(fields))


def read(directory: str | os.PathLike) -> Header:
  """A whole cache's header; the path of the tokenizer is absolute.

  Raises:
    CacheError: if there is none, or it is not as it was written.
  """
  path = pathlib.Path(directory) / NAME
  again = (
      'with: python tools/tokenize_audio.py corpus --tokenizer=TOKENIZER'
      f' --out={shlex.quote(os.fspath(directory))}'
  )
  if not path.exists():
    state = 'is unfinished' if path.parent.is_dir() else 'does not exist'
    raise CacheError(
        f'The token cache {directory} {state}. Make it (or go on) {again}'
    )
  fields = read_json(path)
  if fields.get('version') != VERSION:
    raise CacheError(
        f'{path} is of version {fields.get("version")}, this program reads'
        f' {VERSION}. Remove the token cache, and make it again {again}'
    )
  checksum = fields.pop('checksum', None)
  fault = None
  if checksum != _checksum(fields):
    fault = 'its checksum is of something else'
  del fields['version']
  rest = {name: fields.pop(name, None) for name in ('splits', 'vectors')}
  try:
    identity = Identity.from_dict(fields)
  except ValueError as error:
    fault = fault or str(error)
  if fault := fault or _fault(**rest):
    raise CacheError(f'{path} is not as it was written: {fault}. {AGAIN}')
  tokenizer = relocation.located(identity.tokenizer, directory)
  return Header(**{**vars(identity), **rest, 'tokenizer': tokenizer})


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """A file with a JSON object.

  Raises:
    CacheError: naming the file, for anything else.
  """
  try:
    fields = json.loads(path.read_bytes(), object_pairs_hook=_once)
    if isinstance(fields, dict):
      return fields
    reason = f'a {type(fields).__name__} instead of an object'
  except (ValueError, OSError, RecursionError) as error:
    reason = str(error)
  raise CacheError(f'{path} is damaged ({reason}). {AGAIN}')


def _checksum(fields: dict[str, Any]) -> str:
  text = json.dumps(fields, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _once(pairs):
  """The object of some pairs; Python alone would take the last of a key."""
  fields = dict(pairs)
  if len(fields) < len(pairs):
    raise ValueError('a key is there twice')
  return fields


def _fault(splits: Any, vectors: Any) -> str | None:
  """What a reader of the clips' lists can't take."""
  if vectors is not None and not _is_count(vectors):
    return 'vectors is no checksum'
  if not isinstance(splits, dict):
    return 'splits is no object'
  for name, index in splits.items():
    if not isinstance(index, dict):
      return f'splits.{name} is no object'
    for key in (*_NUMBERS, 'language', 'speaker'):
      values, first = index.get(key), index.get('samples')
      good = isinstance(values, list) and (
          all(map(_is_count, values)) if key in _NUMBERS else _are_texts(values)
      )
      if not good or not isinstance(first, list) or len(values) != len(first):
        return f'splits.{name}.{key} has no value for each clip'
  return None


def _is_count(value: Any) -> bool:
  return type(value) is int and 0 <= value < _MOST


def _are_texts(values: Any) -> bool:
  return all(isinstance(value, str) for value in values)
