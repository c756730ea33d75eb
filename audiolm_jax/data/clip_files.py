"""The clips of a token cache as the files that they become, by their ids."""

from collections.abc import Collection
from collections.abc import Iterator
import dataclasses
import os
import pathlib

from audiolm_jax.audio import files
from audiolm_jax.data import cache_header
from audiolm_jax.data import token_cache
from audiolm_jax.tokenizers import encoding


@dataclasses.dataclass(frozen=True)
class Clip:
  """A clip of a cache; `name` is for messages."""

  header: cache_header.Header
  example: encoding.Example
  name: str


def clips(
    directory: str | os.PathLike, ids: Collection[str] = ()
) -> Iterator[tuple[Clip | None, pathlib.PurePath, str | None]]:
  """Clips, the files that they become (without a suffix), and why not.

  Args:
    directory: of the cache.
    ids: which clips; empty for all.

  Raises:
    TokensError: for a cache that can't be opened.
  """
  missing, taken = set(ids), set()
  header = token_cache.read_header(directory)
  for split in header.splits:
    cache = token_cache.TokenCache(directory, split)
    for i in range(len(cache)):
      path, fault = pathlib.PurePosixPath(f'{split}-{i}'), None
      try:
        example = cache[i]
      except encoding.TokensError as error:
        yield None, path, str(error)
        continue
      name = example.factors.get('id', str(path))
      if ids and name not in ids:
        continue
      missing.discard(name)
      path = pathlib.PurePosixPath(name)
      if path.suffix in files.SUFFIXES:
        path = path.with_suffix('')
      if path.is_absolute() or '..' in path.parts or not path.name:
        fault = f'{directory}: the id {name!r} is no name of a file.'
      elif path in taken:
        fault = f'{directory}: another clip is already to become {path}.'
      taken.add(path)
      yield Clip(header, example, f'{directory} {name}'), path, fault
  for name in sorted(missing):
    yield None, pathlib.PurePosixPath(), f'{directory} has no clip {name!r}.'
