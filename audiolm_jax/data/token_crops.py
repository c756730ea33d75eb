"""Batches of tokens from a cache: random crops, or whole clips."""

from collections.abc import Iterator
import dataclasses
import functools
from typing import Annotated, Any

import numpy as np

from audiolm_jax import config
from audiolm_jax.tokenizers import encoding
from audiolm_jax.data import base as data_base
from audiolm_jax.data import clip_conditions
from audiolm_jax.data import factors
from audiolm_jax.data import moments as moments_lib
from audiolm_jax.data import pipeline
from audiolm_jax.data import token_cache

# Whole clips are padded to one of these, so that few shapes are compiled.
BUCKET_FRAMES = (128, 512, 2048)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenCrops:
  """Random crops of cached clips: batches of `codes`, `num_frames` and `id`.

  Of continuous tokens, `latents` stand for the codes, normalised by the moments
  of the cache, and `ends` says whether a row's last frame is its clip's;
  `durations` and `scales` are there if the cache has them.

  An epoch visits a clip once for every crop that it is long. Shorter clips are
  padded with zeros; `num_frames` counts the valid frames.

  Attributes:
    cache: directory of the token cache, or of token files.
    split: of the cache.
    languages: which; empty for all.
    codebooks: how many of the codes of a frame, from the first; None for as many
      as the model of a run has, or else for all.
    frames: length of a row.
    conditions: what a row tells of its clip beside the codes, by name: texts and
      names by those of the clip's factors ('text', 'speaker', 'language'), codes
      of the same speaker, vectors, seconds; see
      `clip_conditions.ConditionSampler`. It is of the whole clip, but for where
      a row begins: the text of a crop says more than is to be heard. Those that
      the model of a run reads are added.
    vectors: folder of the clips' vectors, ID.npy [E], for a condition of them.
    min_frames: shorter clips are left out.
    limit: only the first so many clips (of those languages), for learning from
      few examples; the order of a corpus is a fixed shuffle.
    tokenizer_hash: the hash that the cache must have; None takes any.
    workers: reading processes; 0 reads in a thread.
    buffer: batches read ahead (per worker).
  """

  cache: Annotated[str, config.Path()]
  split: str = 'train'
  languages: tuple[str, ...] = ()
  codebooks: Annotated[int | None, config.Range(min=1)] = None
  frames: config.Positive = 256
  conditions: Annotated[
      Any, config.Named(Annotated[Any, config.Kind(lambda: factors.FACTORS)])
  ] = dataclasses.field(default_factory=dict)
  vectors: Annotated[str, config.Path()] | None = None
  min_frames: config.Positive = 1
  limit: Annotated[int | None, config.Range(min=1)] = None
  tokenizer_hash: str | None = None
  workers: config.Count = 0
  buffer: config.Positive = 4

  @property
  def lengths(self) -> dict[str, int]:
    """How long rows of each stream are."""
    return {'frames': self.frames}

  def open(
      self, *, batch_size: int, seed: int, shard: tuple[int, int] = (0, 1)
  ) -> data_base.BatchSource:
    """See `CropSource`.

    Raises:
      encoding.TokensError: for a cache that doesn't fit, or latents without
        moments.
      ConfigError: for conditions that clips don't have.
    """
    cache = token_cache.open_cache(self)
    moments = None
    if cache.header.codebooks is None:
      moments = token_cache.latent_moments(self.cache)
    condition_sampler = clip_conditions.ConditionSampler(
        self.conditions, cache, self.vectors
    )
    visits = np.zeros(len(cache), int)
    chosen = cache.select(self.languages, self.limit)
    visits[chosen] = -(-cache.frames[chosen] // self.frames)
    visits[cache.frames < self.min_frames] = 0
    if not visits.any():
      raise encoding.TokensError(
          f'None of the {len(chosen)} clips of {self.cache} {self.split} has'
          f' config.data.min_frames = {self.min_frames}.'
      )
    return pipeline.CropSource(
        functools.partial(crop, self, cache, condition_sampler, moments),
        visits,
        batch_size=batch_size,
        seed=seed,
        shard=shard,
        workers=self.workers,
        buffer=self.buffer,
    )


def crop(
    settings: TokenCrops,
    cache: token_cache.TokenCache,
    condition_sampler: clip_conditions.ConditionSampler,
    moments: moments_lib.Moments | None,
    index: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
  """One row: arrays [F, ...], zero from `num_frames` on, and conditions."""
  example = cache[index]
  arrays = _arrays(example, settings.codebooks, moments)
  start = int(rng.integers(max(example.frames - settings.frames, 0) + 1))
  stop = min(start + settings.frames, example.frames)
  conditions = condition_sampler([index], rng, start, settings.frames)
  return {
      **{
          name: pipeline.pad([values[start:stop]], 1, settings.frames)[0]
          for name, values in arrays.items()
      },
      'num_frames': np.int32(stop - start),
      **_ends(arrays, stop == example.frames),
      **{key: value[0] for key, value in conditions.items()},
  }


def _arrays(example, codebooks, moments) -> dict[str, np.ndarray]:
  """A clip's arrays: its first codebooks, or its latents normalised."""
  arrays = example.arrays
  if 'codes' in arrays:
    arrays['codes'] = arrays['codes'][:, :codebooks]
  elif moments is not None:
    arrays['latents'] = moments.normalised(arrays['latents'])
  return arrays


def _ends(arrays, ends) -> dict[str, np.ndarray]:
  """Whether rows end with their clips, for models of latents, which say when."""
  return {'ends': np.asarray(ends, bool)} if 'latents' in arrays else {}


def whole_clips(
    cache: token_cache.TokenCache,
    *,
    indices: np.ndarray | None = None,
    codebooks: int | None = None,
    moments: moments_lib.Moments | None = None,
    max_frames: int | None = None,
    batch_frames: int = 8192,
    max_batch: int = 32,
    bucket_frames: tuple[int, ...] = BUCKET_FRAMES,
) -> Iterator[dict[str, np.ndarray]]:
  """Every clip once, in padded batches of few shapes.

  Args:
    cache: what to read.
    indices: which clips (see `TokenCache.select`); None for all.
    codebooks: how many of the codes of a frame; None for all.
    moments: by which latents are normalised; None leaves them as they are.
    max_frames: longer clips are cut to their beginning; None cuts none.
    batch_frames: most frames of a batch, padding included.
    max_batch: most rows of a batch.
    bucket_frames: lengths to pad to; longer clips get one of their own.

  Yields:
    `codes` [B, F, K] (or `latents` [B, F, D] and `ends` [B]; `durations` and
    `scales` [B, F], where the cache has them), `num_frames` [B], `id` [B]; the rows that fill up
    the last batch of a bucket have length 0 and id -1.
  """
  if indices is None:
    indices = np.arange(len(cache))
  num_frames = cache.frames[indices]
  if max_frames is not None:
    num_frames = np.minimum(num_frames, max_frames)
  whole = num_frames == cache.frames[indices]
  bounds = list(bucket_frames)
  if len(num_frames) and num_frames.max() > bounds[-1]:
    bounds.append(int(num_frames.max()))
  sizes = [int(np.clip(batch_frames // b, 1, max_batch)) for b in bounds]
  for bound, size, members in pipeline.buckets(num_frames, bounds, sizes):
    rows = [
        {
            name: values[: num_frames[i]]
            for name, values in _arrays(
                cache[indices[i]], codebooks, moments
            ).items()
        }
        for i in members
    ]
    empty = size - len(rows)
    yield {
        **{
            name: pipeline.pad([row[name] for row in rows], size, bound)
            for name in rows[0]
        },
        'num_frames': np.int32([*num_frames[members], *[0] * empty]),
        **_ends(rows[0], [*whole[members], *[False] * empty]),
        'id': np.int32([*indices[members], *[-1] * empty]),
    }
