"""Conditions of the clips of a token cache, in training and in evaluation."""

from collections.abc import Mapping, Sequence
import functools
import os
import pathlib
from typing import Any

import numpy as np

from audiolm_jax import config
from audiolm_jax.data import arrays
from audiolm_jax.data import factors
from audiolm_jax.data import token_cache

# Numbers that every row has, in seconds: how long its clip is, and where in it
# the row begins.
SECONDS = ('seconds_start', 'seconds_total')


class ConditionSampler:
  """Conditions of clips as a batch holds them: see `factors.flatten`.

  - A text or a name is the clip's factor of the condition's name
    (`encoding.Example`). What a clip lacks, and names that a table lacks,
    are not known; long texts are cut.
  - Codes are an audio prompt: the same speaker in another clip, cut at random.
    Nothing is known where a speaker has one clip.
  - A vector is the clip's own, from a folder.
  - A number goes by its name: see `SECONDS`.
  - What is aligned is read from what speech_world stored of the clip; of other
    clips nothing is known.

  Args:
    wanted: factors by the names of their conditions.
    cache: of the clips.
    vectors: folder with ID.npy [E] for every clip, such as a speaker encoder's.

  Raises:
    ConfigError: if a prompt's vocabularies are not the cache's, or a vector has
      no folder, or a number another name.
  """

  def __init__(
      self,
      wanted: Mapping[str, factors.Factor],
      cache: token_cache.TokenCache,
      vectors: str | os.PathLike | None = None,
  ):
    self._wanted = dict(wanted)
    self._cache = cache
    self._vectors = None if vectors is None else pathlib.Path(vectors)
    for name, factor in self._wanted.items():
      if isinstance(factor, factors.Vector) and vectors is None:
        raise config.ConfigError(
            f'condition {name!r} is a vector: say in `vectors` which folder has'
            ' those of the clips'
        )
      if isinstance(factor, factors.Number) and name not in SECONDS:
        raise config.ConfigError(
            f'condition {name!r} is a number: rows of tokens have'
            f' {list(SECONDS)}'
        )
      if isinstance(factor, factors.Codes):
        available = cache.vocabularies
        if available[: len(factor.vocabularies)] != factor.vocabularies:
          raise config.ConfigError(
              f'condition {name!r} has codes of vocabularies'
              f' {factor.vocabularies}, but the token cache has {available}'
          )

  def __call__(
      self,
      indices: Sequence[int],
      rng: np.random.Generator | None = None,
      start: int = 0,
      frames: int | None = None,
  ) -> dict[str, np.ndarray]:
    """Of clips by their indices, -1 for a row without one.

    Args:
      indices: see above.
      rng: draws prompts; without it each clip always has the same.
      start: the first frame of the rows in their clips.
      frames: most frames of a row; None for whole clips.

    Raises:
      ConfigError: for a clip without a vector, or a row longer than what tells
        of each of its frames.
    """
    if not self._wanted:
      return {}
    rows = [
        {} if i < 0 else self.values(int(i), rng, start, frames)
        for i in indices
    ]
    return factors.flatten(
        {
            name: factor.prepare([row.get(name) for row in rows], strict=False)
            for name, factor in self._wanted.items()
        }
    )

  def values(
      self,
      index: int,
      rng: np.random.Generator | None = None,
      start: int = 0,
      frames: int | None = None,
  ) -> dict[str, Any]:
    """Of one clip, as the factors take them; see `__call__`.

    What is not known is not there, or None.
    """
    example = self._cache[index]
    known, spec = example.factors, self._cache.header.spec
    seconds = {
        'seconds_start': start / spec.frame_rate,
        'seconds_total': example.samples / spec.sample_rate,
    }
    values = {}
    for name, factor in self._wanted.items():
      if isinstance(factor, factors.Codes):
        values[name] = self._prompt(index, factor, rng)
      elif isinstance(factor, factors.Vector):
        values[name] = self._vector(known['id'], factor)
      elif isinstance(factor, factors.Number):
        values[name] = seconds[name]
      elif isinstance(factor, factors.Aligned):
        own = min(example.frames - start, frames or example.frames)
        if own > factor.length:
          raise config.ConfigError(
              f'condition {name!r} tells of {factor.length} frames, and a row of'
              f' {known["id"]} has {own}: give it a greater length'
          )
        if stored := known.get('factors'):
          values[name] = factor.of(stored, spec.frame_rate, start, own)
      else:
        # A corpus without texts has empty ones.
        values[name] = known.get(name) or None
    return values

  def _prompt(self, index, factor, rng):
    same = self._clips_of.get(self._cache.speakers[index], ())
    others = [i for i in same if i != index]
    if not others:
      return None
    rng = np.random.default_rng(index) if rng is None else rng
    codes = self._cache[others[rng.integers(len(others))]].codes
    start = rng.integers(max(len(codes) - factor.length, 0) + 1)
    stop = start + factor.length
    return codes[start:stop, : len(factor.vocabularies)]

  @functools.cached_property
  def _clips_of(self) -> dict[str, np.ndarray]:
    """speaker -> indices of the clips; unknown speakers are left out."""
    speakers = self._cache.speakers
    names = sorted(set(speakers) - {''})
    return {name: np.flatnonzero(speakers == name) for name in names}

  def _vector(self, clip, factor):
    path = self._vectors / f'{clip}.npy'
    if not path.exists():
      raise config.ConfigError(
          f'vectors = {os.fspath(self._vectors)!r} has no {clip}.npy'
      )
    vector = arrays.load(path)
    try:
      factor.row(vector, strict=True)
    except ValueError as error:
      raise config.ConfigError(f'{path}: {error}') from error
    return vector
