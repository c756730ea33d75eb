"""Batches of audio from a corpus: random crops, or whole clips."""

from collections.abc import Iterator
import dataclasses
import functools
import pathlib
from typing import Annotated

from absl import logging
import numpy as np

from audiolm_jax import config
from audiolm_jax.audio import resample
from audiolm_jax.data import arrays
from audiolm_jax.data import base as data_base
from audiolm_jax.data import corpora
from audiolm_jax.data import pipeline

# Whole clips are padded to one of these, so that few shapes are compiled.
BUCKET_SECONDS = (2.0, 4.0, 8.0, 16.0, 32.0, 96.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioCrops:
  """Random crops of a corpus: batches of `audio`, `num_samples` and `id`.

  An epoch visits a clip once for every crop that it is long, so that each
  second is as likely as any other. Clips shorter than a crop are padded with
  zeros; `num_samples` says how much of a row is real.

  Attributes:
    corpus: a name that `corpora.load_corpus` knows.
    split: of the corpus.
    languages: which; empty for all.
    sample_rate: of the batches, in Hz; clips at another rate are resampled. None
      for that of the model that a run trains.
    channels: of the batches; stereo is averaged to mono if it is 1. None for as
      many as the model that a run trains hears.
    crop_seconds: length of a row.
    min_seconds: shorter clips are left out (and counted in the log).
    level_db: RMS to bring each clip to, in dB of full scale; None leaves it.
    gain_db: random gain in [-gain_db, gain_db] for each crop; never above full
      scale.
    features: folder of a teacher's features, ID.npy [N, E] for every clip, which
      batches then hold as `teacher` [B, crop_seconds feature_rate, E], cut at
      the same place as the audio. Crops then begin at a feature frame.
    feature_rate: feature frames a second; None for what the model that a run
      trains, or its teacher, takes.
    workers: reading processes; 0 reads in a thread.
    buffer: batches read ahead (per worker).
  """

  corpus: corpora.Name = 'asterisk_prompts'
  split: str = 'train'
  languages: tuple[str, ...] = ()
  sample_rate: config.Positive | None = None
  channels: config.Positive | None = None
  crop_seconds: Annotated[float, config.Range(min=1e-3, max=86_400)] = 1.0
  min_seconds: config.NonNegative = 0.5
  level_db: Annotated[float | None, config.Range(max=0)] = None
  gain_db: config.NonNegative = 0.0
  features: Annotated[str, config.Path()] | None = None
  feature_rate: Annotated[float, config.Range(min=1e-3)] | None = None
  workers: config.Count = 0
  buffer: config.Positive = 4

  @property
  def lengths(self) -> dict[str, int]:
    """How long rows of each stream are; empty where nothing says the rate."""
    if self.sample_rate is None:
      return {}
    return {'samples': round(self.crop_seconds * self.sample_rate)}

  def open(
      self, *, batch_size: int, seed: int, shard: tuple[int, int] = (0, 1)
  ) -> data_base.BatchSource:
    """See `CropSource`.

    Raises:
      CorpusError: where the corpus is not built.
      ConfigError: for None that nothing has filled in.
    """
    needed = {'sample_rate': self.sample_rate, 'channels': self.channels}
    if self.features is not None:
      needed['feature_rate'] = self.feature_rate
    config.check_given('config.data', needed, 'config.objective')
    corpus = corpora.load_corpus(self.corpus, self.split, self.languages)
    seconds = corpus.seconds()
    # To the sample, so that a clip of just one crop counts once.
    visits = np.ceil(seconds / self.crop_seconds - 1e-6).astype(int)
    short = seconds < self.min_seconds
    visits[short] = 0
    if short.any():
      logging.info(
          '%s %s: %d of %d clips are shorter than %g s and left out.',
          self.corpus,
          self.split,
          short.sum(),
          len(corpus),
          self.min_seconds,
      )
    if not visits.any():
      raise corpora.CorpusError(
          f'None of the {len(corpus)} clips of {self.corpus} {self.split} has'
          f' config.data.min_seconds = {self.min_seconds:g}.'
      )
    return pipeline.CropSource(
        functools.partial(crop, self, corpus),
        visits,
        batch_size=batch_size,
        seed=seed,
        shard=shard,
        workers=self.workers,
        buffer=self.buffer,
    )


def crop(
    settings: AudioCrops,
    corpus: corpora.Corpus,
    index: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
  """One row: `audio` [T, C] float32, zero from `num_samples` on; `teacher` [N, E]."""
  clip = corpus[index]
  audio, rate = clip['audio'], clip['sample_rate']
  target = round(settings.crop_seconds * settings.sample_rate)
  # Cut before resampling; a sample more, as soxr rounds to the nearest.
  span = -(-target * rate // settings.sample_rate) + (
      rate != settings.sample_rate
  )
  gain = 1.0
  if settings.level_db is not None:
    gain = resample.gain_to(audio, settings.level_db)
  if settings.gain_db:
    gain *= 10 ** (rng.uniform(-settings.gain_db, settings.gain_db) / 20)
  start = int(rng.integers(max(len(audio) - span, 0) + 1))
  row = {}
  if settings.features is not None:
    first = int(start * settings.feature_rate / rate)
    start = round(first * rate / settings.feature_rate)
    row['teacher'] = _features(settings, clip['id'], first)
  audio = resample.remix(audio[start : start + span], settings.channels)
  audio = resample.resample(audio, rate, settings.sample_rate)[:target]
  if gain != 1:
    audio = np.clip(audio * np.float32(gain), -1, 1)
  return {
      'audio': pipeline.pad([audio], 1, target)[0],
      'num_samples': np.int32(len(audio)),
      **row,
  }


def _features(settings, clip, first) -> np.ndarray:
  """The crop's feature frames from `first` on, zero past the clip's end."""
  path = pathlib.Path(settings.features) / f'{clip}.npy'
  if not path.exists():
    raise corpora.CorpusError(
        f'config.data.features = {settings.features!r} has no {clip}.npy.'
    )
  count = int(np.ceil(settings.crop_seconds * settings.feature_rate - 1e-6))
  whole = arrays.load(path)
  if whole.ndim != 2:
    raise corpora.CorpusError(f'{path} has {whole.shape}, not [frames, width].')
  features = np.asarray(whole[first : first + count], np.float32)
  if not np.isfinite(features).all():
    raise corpora.CorpusError(f'{path} has numbers that are not finite.')
  return np.pad(features, ((0, count - len(features)), (0, 0)))


def read(
    corpus: corpora.Corpus, index: int, sample_rate: int, channels: int = 1
) -> np.ndarray:
  """A whole clip [T, C] at a sample rate and number of channels."""
  clip = corpus[index]
  audio = resample.remix(clip['audio'], channels)
  return resample.resample(audio, clip['sample_rate'], sample_rate)


def whole_clips(
    corpus: corpora.Corpus,
    *,
    sample_rate: int,
    batch_seconds: float = 64.0,
    channels: int = 1,
    indices: np.ndarray | None = None,
    bucket_seconds: tuple[float, ...] = BUCKET_SECONDS,
    max_batch: int = 16,
) -> Iterator[dict[str, np.ndarray]]:
  """Every clip once, in padded batches of few shapes.

  Args:
    corpus: what to read.
    sample_rate: of the batches, in Hz.
    batch_seconds: most audio of a batch, padding included.
    channels: of the batches.
    indices: which clips; None for all.
    bucket_seconds: lengths to pad to; longer clips get a bucket of their own.
    max_batch: most rows of a batch.

  Yields:
    `audio` [B, T, C], `num_samples` [B], `id` [B]; the rows that fill up the last
    batch of a bucket have length 0 and id -1.
  """
  if indices is None:
    indices = np.arange(len(corpus))
  seconds = corpus.seconds()[indices]
  # Resampling rounds; the slack keeps the longest clip of a bucket in it.
  num_samples = np.ceil(seconds * sample_rate).astype(int)
  bounds = [round(s * sample_rate) for s in bucket_seconds]
  if len(num_samples) and num_samples.max() > bounds[-1]:
    bounds.append(int(num_samples.max()))
  sizes = [
      int(np.clip(batch_seconds * sample_rate // bound, 1, max_batch))
      for bound in bounds
  ]
  for bound, size, members in pipeline.buckets(num_samples, bounds, sizes):
    rows = [
        read(corpus, int(indices[i]), sample_rate, channels)[:bound]
        for i in members
    ]
    empty = size - len(rows)
    yield {
        'audio': pipeline.pad(rows, size, bound),
        'num_samples': np.int32([*map(len, rows), *[0] * empty]),
        'id': np.int32([*indices[members], *[-1] * empty]),
    }
