"""Batches of whole clips with the phones that are said in them."""

from collections.abc import Sequence
import dataclasses
import functools
import json
from typing import Annotated, Any

from absl import logging
import numpy as np

from audiolm_jax import config
from audiolm_jax.data import audio_crops
from audiolm_jax.data import base as data_base
from audiolm_jax.data import corpora
from audiolm_jax.data import pipeline
from audiolm_jax.data.speech_world import phones as phones_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhoneClips:
  """Whole clips of a corpus whose `factors` name their phones.

  Batches hold `audio` [B, T, 1] and `num_samples` [B]; `labels` [B, L], the
  phones without silence as numbers from 1 on, 0 past their `num_labels` [B].
  Clips that do not fit a row are left out (and counted in the log).

  Attributes:
    corpus: a name that `corpora.load_corpus` knows, built as speech_world is.
    split: of the corpus.
    languages: which.
    symbols: the phones that the numbers 1, 2, ... stand for; None for those of
      the model that a run trains.
    sample_rate: of the batches, in Hz; None for that of the model.
    seconds: length of a row.
    speeds: how much faster a clip is played, drawn for each visit; pitch and
      formants go up with it, so that there are more voices (Ko et al. 2015).
    most_phones: L.
    workers: reading processes; 0 reads in a thread.
    buffer: batches read ahead (per worker).
  """

  corpus: corpora.Name = 'speech_world'
  split: str = 'train'
  languages: tuple[str, ...] = ()
  symbols: tuple[str, ...] | None = None
  sample_rate: config.Positive | None = None
  seconds: Annotated[float, config.Range(min=0.1, max=600)] = 4.1
  speeds: Annotated[tuple[float, ...], config.Range(min=0.5, max=2)] = (1.0,)
  most_phones: config.Positive = 32
  workers: config.Count = 0
  buffer: config.Positive = 4

  @property
  def lengths(self) -> dict[str, int]:
    """How long rows of each stream are; empty where nothing says the rate."""
    if self.sample_rate is None:
      return {}
    samples = round(self.seconds * self.sample_rate)
    return {'samples': samples, 'phones': self.most_phones}

  def open(
      self, *, batch_size: int, seed: int, shard: tuple[int, int] = (0, 1)
  ) -> data_base.BatchSource:
    """See `pipeline.CropSource`.

    Raises:
      CorpusError: where the corpus is not built, or has no clip that fits.
      ConfigError: for None that nothing has filled in.
    """
    needed = {'sample_rate': self.sample_rate, 'symbols': self.symbols}
    config.check_given('config.data', needed, 'config.objective')
    if not self.speeds:
      raise config.ConfigError(
          'config.data.speeds = (): expected at least one.'
      )
    corpus = corpora.load_corpus(self.corpus, self.split, self.languages)
    rows = [
        index
        for index, seconds in enumerate(corpus.seconds())
        if seconds <= self.seconds * min(self.speeds)
        and len(phones(corpus.factors(index))) <= self.most_phones
    ]
    left_out = len(corpus) - len(rows)
    if left_out:
      logging.info(
          '%s %s: %d of %d clips are longer than %g s or %d phones and left out.',
          self.corpus,
          self.split,
          left_out,
          len(corpus),
          self.seconds,
          self.most_phones,
      )
    if not rows:
      raise corpora.CorpusError(
          f'No clip of {self.corpus} {self.split} has config.data.seconds ='
          f' {self.seconds:g} and config.data.most_phones = {self.most_phones}'
          ' or less.'
      )
    visits = np.zeros(len(corpus), int)
    visits[rows] = 1
    return pipeline.CropSource(
        functools.partial(_row, self, corpus),
        visits,
        batch_size=batch_size,
        seed=seed,
        shard=shard,
        workers=self.workers,
        buffer=self.buffer,
    )


def phones(factors: dict[str, Any]) -> list[str]:
  """The phones of a clip of speech_world, without silence.

  Args:
    factors: of the clip, as the corpus gives them.

  Raises:
    CorpusError: for a clip of another corpus.
  """
  try:
    timed = json.loads(factors['factors'])['phones']
  except KeyError as error:
    raise corpora.CorpusError(
        f'clip {factors.get("id")!r} does not say its phones: expected factors'
        ' as speech_world has them.'
    ) from error
  return [phone for phone, *_ in timed if phone != phones_lib.SILENCE]


def labels(said: Sequence[str], symbols: Sequence[str]) -> np.ndarray:
  """Phones as their places in `symbols`, from 1 on, int32.

  Raises:
    ConfigError: for one that is not there.
  """
  unknown = sorted(set(said) - set(symbols))
  if unknown:
    raise config.ConfigError(
        f'config.data.symbols lacks {unknown[0]!r}, which is said in a clip.'
    )
  return np.array([symbols.index(phone) + 1 for phone in said], np.int32)


def _row(settings, corpus, index, rng) -> dict[str, np.ndarray]:
  """One clip, whole."""
  speed = settings.speeds[int(rng.integers(len(settings.speeds)))]
  audio = audio_crops.read(corpus, index, round(settings.sample_rate / speed))
  length = settings.lengths['samples']
  audio = audio[:length]  # Resampling may round up.
  said = labels(phones(corpus.factors(index)), settings.symbols)
  return {
      'audio': pipeline.pad([audio], 1, length)[0],
      'num_samples': np.int32(len(audio)),
      'labels': pipeline.pad([said], 1, settings.most_phones)[0],
      'num_labels': np.int32(len(said)),
  }
