"""A corpus as tokens, made once and read many times.

A cache is a folder of ArrayRecord parts, each of `cache_parts.PART` consecutive
clips of a split, and a header.json that is written last: a folder without it is
a cache that was interrupted, which may be continued but not read. The header
has a checksum of every clip, which is looked at as clips are read: what was not
written with it is never given out. A folder of token files is read as a cache,
too: see `token_folder`.
"""

from collections.abc import Sequence
import io
import json
import os
import pathlib
from typing import Any
import zlib

from jaxtyping import Float
import numpy as np

from audiolm_jax import config
from audiolm_jax.data import arrays
from audiolm_jax.data import cache_header
from audiolm_jax.data import cache_parts
from audiolm_jax.data import moments as moments_lib
from audiolm_jax.data import token_folder
from audiolm_jax.tokenizers import encoding
from audiolm_jax.training import writers

_VECTORS = 'codebooks-*.npy'
# Clips of more frames (days) are looked at before anyone counts on them.
_LONG = 2**24


class Writer:
  """Fills a cache part by part; what is there already is kept.

  Args:
    directory: of the cache.
    identity: of what is to be written.

  Raises:
    TokensError: if the directory holds something else.
  """

  def __init__(
      self, directory: str | os.PathLike, identity: cache_header.Identity
  ):
    self._directory = pathlib.Path(directory)
    self._identity = identity
    self._directory.mkdir(parents=True, exist_ok=True)
    mine = identity.to_dict()
    path = self._directory / cache_header.IDENTITY
    if path.exists():
      theirs = cache_header.read_json(path)
      # The same tokenizer may have been moved.
      different = [
          f'{key}: {_short(theirs.get(key))} there, {_short(mine[key])} now'
          for key in mine
          if key != 'tokenizer' and theirs.get(key) != mine[key]
      ]
      if different:
        raise encoding.TokensError(
            f'{directory} holds the tokens of something else'
            f' ({"; ".join(different)}). Remove it or write elsewhere.'
        )
    elif any(self._directory.iterdir()):
      raise encoding.TokensError(
          f'{directory} is not empty and not a token cache.'
      )
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

  def write(
      self, split: str, part: int, examples: Sequence[encoding.Example]
  ) -> None:
    """Writes one part; it appears whole or not at all.

    Raises:
      TokensError: for codes that are not the tokenizer's, or if the part can't
        be written.
    """
    path = cache_parts.path_of(self._directory, split, part)
    records = []
    for i, example in enumerate(examples, part * cache_parts.PART):
      try:
        records.append(self._identity.pack_clip(example))
      except ValueError as error:
        raise encoding.TokensError(f'{path}: clip {i} has {error}.') from error
    # What it says of a part that is replaced is no longer so.
    (self._directory / cache_header.NAME).unlink(missing_ok=True)
    cache_parts.write(path, records)

  def finish(self) -> bool:
    """Writes the header if no part is missing; whether the cache is whole.

    The moments of latents are computed here, over all clips of 'train'.

    Raises:
      TokensError: for a part that can't be read, naming it.
    """
    if self.missing():
      return False
    if self._has_header():
      return True
    splits, running = {}, moments_lib.Running()
    for split, clips in self._identity.clips.items():
      records = cache_parts.Records(self._directory, split, self._identity)
      keys = ('frames', 'samples', 'language', 'speaker', 'checksums')
      index = splits[split] = {key: [] for key in keys}
      for i in range(clips):
        example = records[i]
        index['frames'].append(example.frames)
        index['samples'].append(example.samples)
        for key in ('language', 'speaker'):
          index[key].append(example.factors.get(key, ''))
        index['checksums'].append(records.checksum(i))
        if split == 'train' and example.latents is not None:
          running.add(example.latents)
    header = cache_header.Header.of(
        self._identity, splits=splits, moments=running.moments
    )
    cache_header.write(self._directory, header)
    return True

  def _has_header(self) -> bool:
    """Whether one is there that can be read and says all that it should."""
    try:
      header = read_header(self._directory)
    except encoding.TokensError:
      return False
    return not header.needs_moments and header.tokenizer == os.path.realpath(
        self._identity.tokenizer
    )


def read_header(directory: str | os.PathLike) -> cache_header.Header:
  """Of a token cache, or of a folder of token files as one.

  Raises:
    TokensError: if it is neither, unfinished, or damaged.
  """
  if token_folder.holds(directory):
    return token_folder.read(directory)
  return cache_header.read(directory)


def write_codebooks(
    directory: str | os.PathLike, vectors: Float[np.ndarray, 'K V D']
) -> None:
  """Keeps the vectors that a folder's codes stand for, for `read_codebooks`.

  The name of the file has its checksum.
  """
  buffer = io.BytesIO()
  np.save(buffer, np.asarray(vectors, np.float32))
  content = buffer.getvalue()
  path = pathlib.Path(directory) / f'codebooks-{zlib.crc32(content):08x}.npy'
  path.parent.mkdir(parents=True, exist_ok=True)
  writers.write_atomically(path, content)
  for other in set(path.parent.glob(_VECTORS)) - {path}:
    other.unlink()


def read_codebooks(
    directory: str | os.PathLike,
) -> Float[np.ndarray, 'K V D']:
  """The vectors that a cache's codes stand for.

  Raises:
    TokensError: if the cache has none, or they are not as they were written.
  """
  paths = list(pathlib.Path(directory).glob(_VECTORS))
  if len(paths) != 1:
    count = len(paths) or 'no'
    raise encoding.TokensError(
        f'{directory} holds {count} codebooks ({_VECTORS}) instead of one: it'
        ' has no tokens, or their tokenizer has no vectors of one shape for all'
        ' slots.'
    )
  (path,) = paths
  try:
    if f'codebooks-{zlib.crc32(path.read_bytes()):08x}.npy' != path.name:
      raise config.ConfigError(f'{path} has another checksum than its name.')
    vectors = np.array(arrays.load(path))
  except (config.ConfigError, OSError) as error:
    raise encoding.TokensError(f'{error} {cache_header.AGAIN}') from error
  if vectors.ndim != 3 or not np.isfinite(vectors).all():
    raise encoding.TokensError(
        f'{path} has {vectors.dtype} {vectors.shape}, not finite vectors [K, V,'
        f' D]. {cache_header.AGAIN}'
    )
  return vectors


class TokenCache:
  """Random access to one split: `cache[i]` is an `encoding.Example`.

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
    TokensError: if it is unfinished, another tokenizer's, or lacks the split.
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
      raise encoding.TokensError(
          f'The token cache {directory} was made by the tokenizer {made_by} (of'
          f' {self.header.tokenizer}), but {tokenizer_hash} is asked for.'
          ' Tokenize again with the right tokenizer.'
      )
    if split not in self.header.splits:
      raise encoding.TokensError(
          f'The token cache {directory} has no split {split!r}, but'
          f' {sorted(self.header.splits)}.'
      )
    self._arguments = (os.fspath(directory), split, tokenizer_hash)
    index = self.header.splits[split]
    self.frames = np.asarray(index['frames'], np.int64)
    self.languages = np.asarray(index['language'])
    self.speakers = np.asarray(index['speaker'])
    if 'files' in index:
      self._clips = token_folder.Files(index['files'], self.header)
    else:
      self._clips = cache_parts.Records(
          pathlib.Path(directory), split, self.header, index['checksums']
      )
    for i in np.flatnonzero(self.frames > _LONG):
      self[i]  # Else what is counted by this would take all memory.

  def __len__(self) -> int:
    return len(self.frames)

  def __getitem__(self, index: int) -> encoding.Example:
    """A clip.

    Raises:
      TokensError: if it is not the one that the header was written for.
    """
    index = int(index)
    example = self._clips[index]
    if example.frames != self.frames[index]:
      raise self._clips.error(
          index,
          f'it has {example.frames} frames, and {self.frames[index]} in the'
          ' header',
      )
    return example

  def __reduce__(self):
    return TokenCache, self._arguments

  def select(
      self, languages: Sequence[str] = (), limit: int | None = None
  ) -> np.ndarray:
    """Indices of the clips in some languages (all if empty), the first `limit`.

    Raises:
      TokensError: if no clip is left.
    """
    chosen = np.arange(len(self))
    if languages:
      chosen = chosen[np.isin(self.languages, list(languages))]
    if not len(chosen):
      raise encoding.TokensError(
          f'{self._arguments[0]} {self._arguments[1]} has no clip in'
          f' {list(languages)}, but in {sorted(set(self.languages))}.'
      )
    return chosen[:limit]


def latent_moments(directory: str | os.PathLike) -> moments_lib.Moments:
  """Of the latents of a cache's split 'train'; of a folder, by reading it all.

  Raises:
    TokensError: if it is of codes, has no such frames, or was made before caches
      kept them.
  """
  header = read_header(directory)
  if header.moments is not None:
    return header.moments
  index = header.splits.get('train', {})
  reason = "has no frames in the split 'train' to take them from"
  if header.codebooks is not None:
    reason = 'holds codes'
  elif 'files' in index:
    running = moments_lib.Running()
    clips = TokenCache(directory, 'train')
    for i in range(len(clips)):
      running.add(clips[i].latents)
    if running.moments is not None:
      return running.moments
  elif header.needs_moments:
    reason = (
        'was made before they were kept. To add them, run the'
        ' `tokenize_audio.py corpus` of this cache once more'
    )
  raise encoding.TokensError(
      f'{directory} has no means and deviations of latents: it {reason}.'
  )


def open_cache(settings: Any) -> TokenCache:
  """The cache of a source of batches, by its fields.

  Raises:
    TokensError: for a cache that doesn't fit.
    ConfigError: for more codebooks than it has.
  """
  cache = TokenCache(settings.cache, settings.split, settings.tokenizer_hash)
  wanted, available = settings.codebooks or 0, len(cache.vocabularies)
  if wanted > available:
    raise config.ConfigError(
        f'config.data.codebooks = {wanted}, but {settings.cache} has'
        f' {available or "continuous tokens and none"}.'
    )
  return cache


def _short(value: Any) -> str:
  text = json.dumps(value)
  return text if len(text) < 60 else f'{text[:57]}...'
