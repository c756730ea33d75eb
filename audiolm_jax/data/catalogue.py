"""Data sets of the TFDS catalogue, seen through our schema.

Most have an `Audio` feature, which needs TensorFlow to build and to read: the
extra [tfds]. Their splits are their own, and clips are not checked.
"""

import re
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from audiolm_jax.audio import files
from audiolm_jax.data import building
from audiolm_jax.data import paths

# name, name/config, each with a version.
_NAME = re.compile(r'[a-zA-Z]\w*(/[\w.+-]+)?(:[\w.*]+)?')
_AUDIO = ('audio', 'speech')
_FACTORS = {
    'text': ('text', 'transcript', 'transcription', 'sentence'),
    'speaker': ('speaker', 'speaker_id'),
    'language': ('language', 'locale'),
    'prompt_id': ('prompt_id',),
    'id': ('id', 'tfds_id'),
}


def builder(name: str) -> tfds.core.DatasetBuilder | None:
  """The catalogue's builder ('name/config' too), None if it has no such name.

  It stores ArrayRecord files in the cache's data directory.

  Raises:
    CorpusError: for one that needs a package that is not here.
  """
  if not _NAME.fullmatch(name):  # TFDS would look for others on the network.
    return None
  try:
    return tfds.builder(
        name, data_dir=paths.data_dir(), file_format='array_record'
    )
  except tfds.core.DatasetNotFoundError:
    return None
  except ImportError as error:
    raise building.CorpusError(
        f'{name} is of the TFDS catalogue and needs what is not installed'
        f" ({error}): pip install -e '.[tfds]'."
    ) from error
  except ValueError as error:
    raise building.CorpusError(
        f'{name} is of the TFDS catalogue, which refuses it: {error}.'
    ) from error


def audio_feature(builder: tfds.core.DatasetBuilder) -> tuple[str, int]:
  """Name and sample rate of a data set's audio feature.

  Raises:
    CorpusError: if it has none, or one without a sample rate.
  """
  for name in _AUDIO:
    if name in builder.info.features:
      rate = getattr(builder.info.features[name], 'sample_rate', None)
      if rate:
        return name, int(rate)
  raise building.CorpusError(
      f'{builder.info.full_name} has no feature of {list(_AUDIO)} with a sample'
      f' rate: {list(builder.info.features)}.'
  )


class Part:
  """One split of a catalogue data set, as a corpus of ours stores it."""

  def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
    self._audio, self._rate = audio_feature(builder)
    self._split = split
    self._source = builder.as_data_source(split)

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    example = self._source[index]
    audio = np.asarray(example[self._audio])
    if np.issubdtype(audio.dtype, np.floating):
      audio = files.to_int16(audio)
    result = {
        'audio': audio.astype(np.int16).reshape(-1),
        'channels': audio.shape[1] if audio.ndim == 2 else 1,
        'sample_rate': self._rate,
    }
    for factor, names in _FACTORS.items():
      value, *_ = *(example[n] for n in names if n in example), b''
      result[factor] = (
          value if isinstance(value, bytes) else str(value).encode()
      )
    place = f'{self._split}/{index}'.encode()
    result['id'] = result['id'] or place
    result['prompt_id'] = result['prompt_id'] or result['id']
    return result
