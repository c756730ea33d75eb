"""What is known of a clip, as arrays: the host's part of conditions.

A factor turns values of one kind, one for each row, into `values` [B, S, ...],
padded with zeros, and `lengths` [B]: how much of them there is, 0 where nothing
is known. What a decoder makes of them: `decoders/conditioners.py`.
"""

import abc
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import json
from typing import Annotated, Any, Literal

import numpy as np

from audiolm_jax import config
from audiolm_jax.data.speech_world import known as known_lib
from audiolm_jax.data.speech_world import phones as phones_lib

Arrays = dict[str, np.ndarray]
_PREFIX = 'conditions'


class Factor(abc.ABC):
  """One kind of value."""

  @property
  @abc.abstractmethod
  def spec(self) -> tuple[tuple[int, ...], type]:
    """Shape [S, ...] of a row, padded, and its dtype."""

  @abc.abstractmethod
  def row(self, value: Any, strict: bool) -> np.ndarray | None:
    """A value as [s, ...], not padded; None for one that is not known."""

  def read(self, text: str, encode: Callable[[str], np.ndarray]) -> Any:
    """The value that a command line says: the text itself, or its file's.

    Args:
      text: a value, or a path: of a vector's .npy, of codes' audio.
      encode: audio file -> codes [F, K] of its whole frames.

    Raises:
      OSError, ValueError: for a file that can not be read.
    """
    del encode
    return text

  def prepare(self, values: Sequence[Any], strict: bool = True) -> Arrays:
    """`values` [B, S, ...] and `lengths` [B] of a value for each row.

    Args:
      values: None where nothing is known.
      strict: if False, as in training, what is too long is cut, and names that
        are not in a table are nothing known.

    Raises:
      ValueError: for a value of another kind, size or range.
    """
    shape, dtype = self.spec
    padded = np.zeros((len(values), *shape), dtype)
    lengths = np.zeros(len(values), np.int32)
    for i, value in enumerate(values):
      row = None if value is None else self.row(value, strict)
      if row is not None:
        padded[i, : len(row)], lengths[i] = row, len(row)
    return {'values': padded, 'lengths': lengths}


def _fit(row, length, strict, what):
  if strict and len(row) > length:
    raise ValueError(f'{what} of {len(row)}, but the longest has {length}')
  return row[:length]


@dataclasses.dataclass(frozen=True)
class Text(Factor):
  """Texts as ids: bytes (UTF-8) or sentencepiece's, and a mark of the end.

  A text that is cut has no mark.

  Attributes:
    length: most ids, the mark included.
    pieces: file of a sentencepiece model; None for bytes.
    vocabulary: how many ids there are, without the mark.
  """

  length: config.Positive = 128
  pieces: Annotated[str, config.Path()] | None = None
  vocabulary: config.Positive = 256

  def __post_init__(self):
    if self.pieces is None and self.vocabulary != 256:
      raise config.ConfigError(
          f'vocabulary = {self.vocabulary}: bytes have 256 without pieces'
      )

  @property
  def spec(self):
    return (self.length,), np.int32

  def row(self, value, strict):
    if not isinstance(value, str):
      raise ValueError(f'a text, not {value!r}, was expected')
    if self.pieces is None:
      ids = np.frombuffer(value.encode(), np.uint8)
    else:
      ids = _pieces(self.pieces, self.vocabulary).encode(value)
    ids = np.array([*ids, self.vocabulary], np.int32)
    return _fit(ids, self.length, strict, f'ids of the text {value[:40]!r}')


@functools.cache
def _pieces(path, vocabulary):
  """The sentencepiece model of a file.

  Raises:
    ConfigError: if the package is missing, or the model has another size.
  """
  try:
    import sentencepiece  # An extra: only who asks for pieces needs it.
  except ImportError as error:
    raise config.ConfigError(
        f'pieces = {path!r} needs sentencepiece: pip install audiolm_jax[text]'
    ) from error
  model = sentencepiece.SentencePieceProcessor(model_file=path)
  if model.vocab_size() != vocabulary:
    raise config.ConfigError(
        f'vocabulary = {vocabulary}, but {path} has {model.vocab_size()}'
    )
  return model


@dataclasses.dataclass(frozen=True)
class Name(Factor):
  """One of some names, such as those of languages or speakers.

  Attributes:
    names: which. A model keeps their order.
  """

  names: tuple[str, ...]

  def __post_init__(self):
    if not self.names or len(set(self.names)) < len(self.names):
      raise config.ConfigError(f'names = {self.names}: none, or one twice')

  @property
  def spec(self):
    return (1,), np.int32

  def row(self, value, strict):
    if value in self.names:
      return np.array([self.names.index(value)], np.int32)
    if strict:
      raise ValueError(f'{value!r} is none of the names {list(self.names)}')
    return None


@dataclasses.dataclass(frozen=True)
class Vector(Factor):
  """A vector, such as a speaker's, of any scale: norm it before.

  Attributes:
    width: how many numbers it has.
  """

  width: config.Positive

  @property
  def spec(self):
    return (1, self.width), np.float32

  def read(self, text, encode):
    del encode
    return np.load(text)

  def row(self, value, strict):
    vector = np.asarray(value)
    if vector.shape != (self.width,) or vector.dtype.kind not in 'fiu':
      raise ValueError(
          f'a vector of {self.width} numbers was expected, not'
          f' {vector.dtype} {vector.shape}'
      )
    if not np.isfinite(vector).all():
      raise ValueError('a vector has numbers that are not finite')
    return vector[None].astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Number(Factor):
  """A number, such as a length in seconds.

  Attributes:
    low: the least that it may be.
    high: the most; in training, what is beyond either counts as that.
  """

  low: float = 0.0
  high: float = 512.0

  def __post_init__(self):
    if not -np.inf < self.low < self.high < np.inf:
      raise config.ConfigError(
          f'low = {self.low}: expected less than high = {self.high}, both finite'
      )

  @property
  def spec(self):
    return (1,), np.float32

  def read(self, text, encode):
    del encode
    try:
      return float(text)
    except ValueError as error:
      raise ValueError(f'{text!r} is no number') from error

  def row(self, value, strict):
    number = np.asarray(value)
    if number.ndim or number.dtype.kind not in 'fiu':
      raise ValueError(f'a number was expected, not {value!r}')
    if not np.isfinite(number):
      raise ValueError(f'{value} is not finite')
    if strict and not self.low <= number <= self.high:
      raise ValueError(
          f'{value:g} is not within {self.low:g} and {self.high:g}, which the'
          ' model was made for'
      )
    return np.clip(number, self.low, self.high).astype(np.float32)[None]


@dataclasses.dataclass(frozen=True)
class Codes(Factor):
  """Frames of codes [F, K], such as an audio prompt. No frames are none known.

  Attributes:
    vocabularies: of its slots.
    length: most frames.
  """

  vocabularies: config.Sizes
  length: config.Positive = 150

  @property
  def spec(self):
    return (self.length, len(self.vocabularies)), np.int32

  def read(self, text, encode):
    return encode(text)[: self.length, : len(self.vocabularies)]

  def row(self, value, strict):
    codes = np.asarray(value)
    slots = len(self.vocabularies)
    if (
        codes.ndim != 2
        or codes.shape[1] != slots
        or codes.dtype.kind not in ('iu')
    ):
      raise ValueError(
          f'codes [F, {slots}] were expected, not {codes.dtype} {codes.shape}'
      )
    if ((codes < 0) | (codes >= np.array(self.vocabularies))).any():
      raise ValueError(f'codes outside of vocabularies {self.vocabularies}')
    return _fit(codes, self.length, strict, 'a prompt')


# Of an f0: Hz of the lowest, and steps of a semitone from it on.
_LOWEST, _SEMITONES = 55.0, 48
# Codes of what is known of each frame; 0 is nothing, of f0 no voice either.
_VOCABULARIES = {'phone': 1 + len(phones_lib.PHONES), 'f0': 1 + _SEMITONES}


@dataclasses.dataclass(frozen=True)
class Aligned(Factor):
  """What is known at each frame of a clip, as codes [F, K].

  Of clips of speech_world: the phone in the middle of the frame (1 + its place in
  `phones.PHONES`), and the semitone of f0 above 55 Hz where there is voice (1 to
  48, what is beyond as the last). 0 is a frame of which nothing is known.

  Attributes:
    labels: what, slot by slot.
    length: most frames.
  """

  labels: tuple[Literal['phone', 'f0'], ...] = ('phone', 'f0')
  length: config.Positive = 256

  def __post_init__(self):
    if not self.labels or len(set(self.labels)) < len(self.labels):
      raise config.ConfigError(f'labels = {self.labels}: none, or one twice')

  @property
  def vocabularies(self) -> tuple[int, ...]:
    """Of its slots."""
    return tuple(_VOCABULARIES[label] for label in self.labels)

  @property
  def spec(self):
    return (self.length, len(self.labels)), np.int32

  def read(self, text, encode):
    del encode
    return np.load(text)

  def row(self, value, strict):
    return Codes(self.vocabularies, self.length).row(value, strict)

  def of(self, stored: str, rate: float, start: int, frames: int) -> np.ndarray:
    """The codes [frames, K] of what speech_world stored of a clip.

    Args:
      stored: its `factors`, JSON.
      rate: frames a second.
      start: the first frame.
      frames: how many.
    """
    known = json.loads(stored)
    t = (start + np.arange(frames) + 0.5) / rate
    codes = {'phone': _phones, 'f0': _semitones}
    return np.stack([codes[label](known, t) for label in self.labels], axis=1)


def _phones(known, t):
  spans = [(start, end) for _, start, end in known['phones']]
  places = [1 + phones_lib.PHONES.index(name) for name, *_ in known['phones']]
  return np.array([*places, 0])[known_lib.index_at(spans, t)]


def _semitones(known, t):
  if not known_lib.has_f0(known):
    return np.zeros(len(t), int)
  above = 12 * np.log2(known_lib.f0(known, t) / _LOWEST)
  places = 1 + np.clip(np.round(above), 0, _SEMITONES - 1).astype(int)
  return np.where(known_lib.voiced(known, t), places, 0)


FACTORS = {
    'aligned': Aligned,
    'codes': Codes,
    'name': Name,
    'number': Number,
    'text': Text,
    'vector': Vector,
}


def flatten(conditions: Mapping[str, Arrays]) -> dict[str, np.ndarray]:
  """Conditions as entries of a batch: `conditions/NAME/values`, `.../lengths`."""
  return {
      f'{_PREFIX}/{name}/{key}': value
      for name, arrays in conditions.items()
      for key, value in arrays.items()
  }


def unflatten(
    batch: Mapping[str, Any], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
  """The conditions of a batch, by name.

  Raises:
    ValueError: for one that it lacks.
  """
  conditions = {}
  for name in names:
    keys = {key: f'{_PREFIX}/{name}/{key}' for key in ('values', 'lengths')}
    if any(key not in batch for key in keys.values()):
      raise ValueError(
          f'the batch has no condition {name!r}: give the data source the'
          ' factors that the decoder has'
      )
    conditions[name] = {key: batch[flat] for key, flat in keys.items()}
  return conditions
