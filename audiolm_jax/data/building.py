"""What all our corpus builders share: the schema, the checks and the card.

Corpora are TFDS data sets in ArrayRecord files. Audio is a bytes-encoded int16
tensor: `features.Audio` needs TensorFlow, and unencoded integers are stored as
64-bit varints, at twice the size and a quarter of the speed.
"""

import abc
import collections
from collections.abc import Callable, Iterable, Iterator, Mapping
import dataclasses
import functools
import itertools
from typing import Any

from absl import logging
from jaxtyping import Float
import numpy as np
import tensorflow_datasets as tfds

from audiolm_jax import config
from audiolm_jax.audio import checks
from audiolm_jax.audio import files
from audiolm_jax.data import splits

MIN_SECONDS = 0.2


class CorpusError(config.ConfigError):
  """A corpus that can't be built or opened; the message says what to do."""


class RejectedClipError(Exception):
  """A strict build met a clip that can't be used; the message names it."""


@dataclasses.dataclass(frozen=True)
class Clip:
  """Where one example comes from.

  Attributes:
    id: unique in the corpus and stable.
    split: one of `splits.SPLITS`.
    prompt_id: what is said; equal for all clips that say the same.
    text: transcript, '' if there is none.
    speaker: name of the voice, '' if unknown.
    language: ISO 639-1 code, '' if unknown.
    source: what `CorpusBuilder.load` needs to get the audio.
    factors: the values of `CorpusBuilder.FACTORS`.
  """

  id: str
  split: str
  prompt_id: str
  text: str
  speaker: str
  language: str
  source: Any
  factors: Mapping[str, str] = dataclasses.field(default_factory=dict)


class CorpusBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A TFDS builder that lists `clips` and can `load` each.

  A clip that can't be used is left out, named in the log and in the card; with
  `strict` it ends the build.

  Attributes:
    DEFAULT_CONFIGS: names of those that stand for the corpus where none is
      named; empty for all.
    FACTORS: names of further texts that each clip has.
  """

  VERSION = tfds.core.Version('1.0.0')
  LICENSE: str
  DESCRIPTION: str
  HOMEPAGE = ''
  DEFAULT_CONFIGS: tuple[str, ...] = ()
  FACTORS: tuple[str, ...] = ()
  strict = False
  limit: int | None = None

  @abc.abstractmethod
  def clips(self) -> Iterable[Clip]:
    """All clips, in an order that does not depend on the machine.

    Raises:
      debian.CorpusUnavailable: if the files can't be had.
      CorpusError: if they can't be read.
    """

  @abc.abstractmethod
  def load(self, clip: Clip) -> tuple[Float[np.ndarray, 'T C'], int]:
    """A clip's samples and its sample rate.

    Raises:
      files.AudioFileError: if it can't be decoded.
    """

  def _info(self) -> tfds.core.DatasetInfo:
    features = tfds.features
    return tfds.core.DatasetInfo(
        builder=self,
        description=self.DESCRIPTION,
        license=self.LICENSE,
        homepage=self.HOMEPAGE,
        # TFDS saves it with the data, in the same atomic step.
        metadata=tfds.core.MetadataDict(rejected=[], totals={}),
        features=features.FeaturesDict(
            {
                # [T * C], channels interleaved.
                'audio': features.Tensor(
                    shape=(None,), dtype=np.int16, encoding='bytes'
                ),
                'channels': np.int32,
                'sample_rate': np.int32,
                'id': features.Text(),
                'prompt_id': features.Text(),
                'text': features.Text(),
                'speaker': features.Text(),
                'language': features.Text(),
                **{name: features.Text() for name in self.FACTORS},
            }
        ),
    )

  def card_text(self) -> str:
    """What the card says of this corpus alone."""
    return ''

  def loaded(self, clips: list[Clip]) -> Iterator[tuple[Clip, Callable]]:
    """Each clip beside a function that does what `load` does with it."""
    for clip in clips:
      yield clip, functools.partial(self.load, clip)

  def reject(self, what: str, reason: str) -> None:
    """Leaves something out of the corpus, and says so.

    Args:
      what: a clip's id, or the part of the source that is not used.
      reason: why.

    Raises:
      RejectedClipError: if the build is strict.
    """
    logging.warning('%s: left out %s: %s', self.name, what, reason)
    if self.strict:
      raise RejectedClipError(f'{self.name}: {what}: {reason}')
    self.info.metadata['rejected'].append({'id': what, 'reason': reason})

  def _split_generators(self, dl_manager) -> Mapping[str, Iterator]:
    del dl_manager
    by_split = collections.defaultdict(list)
    for clip in self.clips():
      by_split[clip.split].append(clip)
    generators = {}
    for name in splits.SPLITS:
      examples = self._generate_examples(by_split[name][: self.limit])
      # TFDS takes no split without an example.
      if (first := next(examples, None)) is not None:
        generators[name] = itertools.chain([first], examples)
      elif by_split[name]:
        self.reject(name, 'the split has no usable clip')
    if not generators:
      reasons = self.info.metadata['rejected']
      raise CorpusError(
          '\n  '.join(
              [
                  f'{self.info.full_name}: no usable clip found. It takes files'
                  f' that end in {", ".join(files.SUFFIXES)}.',
                  *(f'{r["id"]}: {r["reason"]}' for r in reasons[:20]),
              ]
          )
      )
    return generators

  def _generate_examples(self, clips: list[Clip]) -> Iterator:
    for clip, load in self.loaded(clips):
      try:
        audio, rate = load()
        reason = checks.fault(audio, rate, MIN_SECONDS)
      except files.AudioFileError as error:
        reason = str(error)
      if reason:
        self.reject(clip.id, reason)
        continue
      count(
          self.info.metadata['totals'],
          clip.split,
          dataclasses.asdict(clip),
          len(audio) / rate,
      )
      yield clip.id, {
          'audio': files.to_int16(audio).reshape(-1),
          'channels': audio.shape[1],
          'sample_rate': rate,
          'id': clip.id,
          'prompt_id': clip.prompt_id,
          'text': clip.text,
          'speaker': clip.speaker,
          'language': clip.language,
          **clip.factors,
      }


def count(
    totals: dict[str, dict[str, Any]],
    split: str,
    factors: Mapping[str, Any],
    seconds: float,
) -> None:
  """Adds a clip to {split: {clips, transcribed, seconds, speakers, ...}}."""
  total = totals.setdefault(
      split,
      {
          'clips': 0,
          'transcribed': 0,
          'seconds': 0.0,
          'speakers': {},
          'languages': {},
      },
  )
  total['clips'] += 1
  total['transcribed'] += bool(factors['text'])
  total['seconds'] += seconds
  for field in ('speaker', 'language'):
    by_value = total[field + 's']
    value = factors[field]
    by_value[value] = by_value.get(value, 0.0) + seconds
