"""The header of a token cache: what its clips are, sealed with a checksum."""

import hashlib
import json
import os
import pathlib
import shlex
from typing import Any

from audiolm_jax import config
from audiolm_jax.config import relocation
from audiolm_jax.training import writers

NAME = 'header.json'
VERSION = 1
AGAIN = (
    'To make it again, remove it, and run the `tokenize_audio.py corpus` of'
    ' this cache once more: it makes what is missing.'
)
# Of a clip, and of a split: no audio is that long.
_MOST = 2**48
_TEXTS = ('tokenizer_hash', 'tokenizer_workdir', 'corpus', 'build')
_NUMBERS = ('frames', 'samples', 'checksums')


class CacheError(config.ConfigError):
  """A token cache that can't be used; the message says why and what to do."""


def write(directory: pathlib.Path, fields: dict[str, Any]) -> None:
  """Writes a header, whole or not at all.

  Args:
    directory: of the cache.
    fields: those of `token_cache.Identity`; `codebooks`, the checksum of
      codebooks.npy or None; `splits`, for each its clips' frames, samples,
      language, speaker and checksums.
  """
  fields = json.loads(json.dumps(fields))
  workdir = relocation.relative(fields['tokenizer_workdir'], directory)
  fields |= {'version': VERSION, 'tokenizer_workdir': workdir}
  fields['checksum'] = _checksum(fields)
  writers.write_atomically(directory / NAME, json.dumps(fields))


def read(directory: str | os.PathLike) -> dict[str, Any]:
  """A whole cache's header, as `write` takes it; paths are absolute.

  Raises:
    CacheError: if there is none, or it is not as it was written.
  """
  path = pathlib.Path(directory) / NAME
  if not path.exists():
    state = 'is unfinished' if path.parent.is_dir() else 'does not exist'
    raise CacheError(
        f'The token cache {directory} {state}. Make it (or go on) with: python'
        ' tools/tokenize_audio.py corpus --tokenizer=TOKENIZER'
        f' --out={shlex.quote(os.fspath(directory))}'
    )
  fields = read_json(path)
  if fields.get('version') != VERSION:
    raise CacheError(
        f'{path} is of version {fields.get("version")}, this program reads'
        f' {VERSION}. Remove the token cache, and make it again with: python'
        ' tools/tokenize_audio.py corpus --tokenizer=TOKENIZER'
        f' --out={shlex.quote(os.fspath(directory))}'
    )
  checksum = fields.pop('checksum', None)
  fault = _fault(fields)
  if checksum != _checksum(fields):
    fault = 'its checksum is of something else'
  if fault:
    raise CacheError(f'{path} is not as it was written: {fault}. {AGAIN}')
  fields['tokenizer_workdir'] = relocation.located(
      fields['tokenizer_workdir'], directory
  )
  return fields


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


def vocabularies(fields: dict[str, Any]) -> tuple[int, ...]:
  """Of the slots of the tokenizer."""
  return tuple(s['vocabulary'] for s in fields['tokenizer_spec']['slots'])


def _checksum(fields: dict[str, Any]) -> str:
  text = json.dumps(fields, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _once(pairs):
  """The object of some pairs; Python alone would take the last of a key."""
  fields = dict(pairs)
  if len(fields) < len(pairs):
    raise ValueError('a key is there twice')
  return fields


def _fault(fields: dict[str, Any]) -> str | None:
  """What a reader can't take; its caller knows of nothing else."""
  for key in _TEXTS:
    if not isinstance(fields.get(key), str):
      return f'{key} is no text'
  spec = fields.get('tokenizer_spec')
  slots = spec.get('slots') if isinstance(spec, dict) else None
  if not isinstance(slots, list) or not all(
      isinstance(slot, dict)
      and _is_count(slot.get('vocabulary'))
      and slot['vocabulary']
      for slot in slots
  ):
    return 'tokenizer_spec.slots have no vocabularies'
  if not _are_texts(fields.get('languages')):
    return 'languages are no texts'
  codebooks = fields.get('codebooks')
  if codebooks is not None and not _is_count(codebooks):
    return 'codebooks is no checksum'
  splits = fields.get('splits')
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
  return isinstance(values, list) and all(isinstance(v, str) for v in values)
