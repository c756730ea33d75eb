"""The header of a token cache: what its clips are, sealed with a checksum."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shlex
from typing import Annotated, Any, Self

from audiolm_jax import config
from audiolm_jax.config import relocation
from audiolm_jax.data import moments as moments_lib
from audiolm_jax.tokenizers import encoding
from audiolm_jax.training import writers

NAME = 'header.json'
IDENTITY = 'identity.json'
AGAIN = (
    'To make it again, remove it, and run the `tokenize_audio.py corpus` of'
    ' this cache once more: it makes what is missing.'
)
# Of a clip, and of a split: no audio is that long.
_MOST = 2**48
_NUMBERS = ('frames', 'samples', 'checksums')


@dataclasses.dataclass(frozen=True)
class Identity(encoding.Format):
  """What a cache was made from; caches with the same one hold the same.

  Attributes:
    corpus: name of the corpus that was tokenised, or its path if it is a
      folder.
    languages: which of the corpus; empty for all.
    clips: split -> how many.
    build: which build of the corpus; a folder that has changed is another.
  """

  corpus: str = ''
  languages: tuple[str, ...] = ()
  clips: Annotated[Any, config.Named(Annotated[int, config.Range(min=0)])] = (
      dataclasses.field(default_factory=dict)
  )
  build: str = ''

  def __post_init__(self):
    super().__post_init__()
    if self.rows != 1:
      raise ValueError(f'clips of {self.rows} rows: a clip is one')

  def to_dict(self) -> dict[str, Any]:
    """As JSON gives it back, with the version of the encoding."""
    fields = {**super().to_dict(), 'version': encoding.VERSION}
    return json.loads(json.dumps(fields))


@dataclasses.dataclass(frozen=True)
class Header(Identity):
  """The header of a whole cache.

  Attributes:
    splits: split -> lists with an entry a clip: its 'frames', 'samples',
      'language', 'speaker' ('' where not known), and 'checksums' in parts or
      'files' in a folder of token files.
    moments: of the latents of its split 'train'; None for codes, for a split
      without frames, and in a folder of token files. See
      `token_cache.latent_moments`.
  """

  splits: dict[str, dict[str, list]] = dataclasses.field(default_factory=dict)
  moments: moments_lib.Moments | None = None

  @classmethod
  def of(cls, form: encoding.Format, **more: Any) -> Self:
    """A header with the fields of `form` that it has, and others."""
    known = {field.name for field in dataclasses.fields(cls)}
    names = [f.name for f in dataclasses.fields(form) if f.name in known]
    return cls(**{**{name: getattr(form, name) for name in names}, **more})

  @property
  def needs_moments(self) -> bool:
    """Whether it lacks the moments that it could have.

    Headers that were written before these were kept do.
    """
    frames = self.splits.get('train', {}).get('frames', ())
    return self.codebooks is None and self.moments is None and any(frames)

  def to_dict(self) -> dict[str, Any]:
    fields = super().to_dict()
    if self.moments is None:
      del fields['moments']
    return fields


def is_cache(directory: str | os.PathLike) -> bool:
  """Whether a folder is a corpus's token cache, finished or not."""
  return any((pathlib.Path(directory) / n).exists() for n in (NAME, IDENTITY))


def write(directory: pathlib.Path, header: Header) -> None:
  """Writes a cache's header, whole or not at all."""
  tokenizer = relocation.relative(header.tokenizer, directory)
  fields = {**header.to_dict(), 'tokenizer': tokenizer}
  fields['checksum'] = _checksum(fields)
  writers.write_atomically(directory / NAME, json.dumps(fields))


def read(directory: str | os.PathLike) -> Header:
  """A whole cache's header; the path of the tokenizer is absolute.

  Raises:
    TokensError: if there is none, or it is not as it was written.
  """
  path = pathlib.Path(directory) / NAME
  if not path.exists():
    state = 'does not exist'
    if path.parent.is_dir():
      unfinished = path.with_name(IDENTITY).exists()
      state = 'is unfinished' if unfinished else 'holds no tokens'
    raise encoding.TokensError(
        f'The token cache {directory} {state}. Make it (or go on) with:'
        f' {_command(directory, {})}'
    )
  fields = read_json(path)
  version = fields.pop('version', None)
  if version != encoding.VERSION:
    raise encoding.TokensError(
        f'{path} is of version {version}, this program reads'
        f' {encoding.VERSION}. Remove the token cache, and make it again with:'
        f' {_command(directory, fields)}'
    )
  checksum = fields.pop('checksum', None)
  with _saying_how_to_go_on():
    if checksum != _checksum({**fields, 'version': version}):
      raise encoding.TokensError(
          f'{path} is not as it was written: its checksum is of something else.'
      )
    index, moments = fields.pop('splits', None), fields.pop('moments', None)
    identity = Identity.from_dict(fields, str(path))
    if fault := _fault(index):
      raise encoding.TokensError(f'{path} is not as it was written: {fault}.')
    moments = _moments(moments, identity.spec.dimension, path)
  tokenizer = relocation.located(identity.tokenizer, directory)
  return Header.of(identity, splits=index, tokenizer=tokenizer, moments=moments)


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """A file with a JSON object.

  Raises:
    TokensError: naming the file, for anything else.
  """
  with _saying_how_to_go_on():
    try:
      text = path.read_bytes()
    except OSError as error:
      raise encoding.TokensError(f'{path} can not be read: {error}.') from error
    return encoding.parsed(text, str(path))


@contextlib.contextmanager
def _saying_how_to_go_on():
  try:
    yield
  except encoding.TokensError as error:
    raise encoding.TokensError(f'{error} {AGAIN}') from error


def _command(directory, fields: dict[str, Any]) -> str:
  """What makes a cache; of what an older header says, what is still so."""
  options = {'tokenizer': 'TOKENIZER', 'corpus': fields.get('corpus', 'CORPUS')}
  options['out'] = os.fspath(directory)
  words = [f'--{name}={shlex.quote(str(v))}' for name, v in options.items()]
  return ' '.join(['python tools/tokenize_audio.py corpus', *words])


def _checksum(fields: dict[str, Any]) -> str:
  text = json.dumps(fields, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _moments(values, dimension, path) -> moments_lib.Moments | None:
  """The moments that a header says."""
  if values is None:
    return None
  try:
    moments = config.build(moments_lib.Moments, values, 'moments')
    if len(moments.mean) != dimension:
      raise config.ConfigError(
          f'moments of {len(moments.mean)} dimensions, and latents of'
          f' {dimension}'
      )
  except config.ConfigError as error:
    raise encoding.TokensError(
        f'{path} is not as it was written: {error}.'
    ) from error
  return moments


def _fault(splits: Any) -> str | None:
  """What a reader of the clips' lists can't take."""
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
