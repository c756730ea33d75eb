"""libespeak-ng through ctypes: text to 16-bit samples, no system package."""

import _ctypes
from collections.abc import Iterator
import contextlib
import ctypes
import functools
import pathlib
import shutil
import tempfile
from typing import NamedTuple

import espeakng_loader
from jaxtyping import Int
import numpy as np

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples go to the callback only.
_UTF8, _PHONEMES = 1, 0x100  # Of a text: how it is written, [[...]] in it.
_RATE, _PITCH, _RANGE = 1, 3, 4  # espeak_PARAMETER
_PHONE_EVENTS = 3  # Of espeak_Initialize: with phones, which are IPA.
_PHONE = 7  # espeakEVENT_PHONEME


class _Event(ctypes.Structure):
  """espeak_EVENT of speak_lib.h."""

  _fields_ = [
      ('type', ctypes.c_int),
      ('unique_identifier', ctypes.c_uint),
      ('text_position', ctypes.c_int),
      ('length', ctypes.c_int),
      ('audio_position', ctypes.c_int),
      ('sample', ctypes.c_int),
      ('user_data', ctypes.c_void_p),
      # A phone's name: with 8 bytes it has no zero at its end.
      ('name', ctypes.c_uint8 * 8),
  ]


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_short),
    ctypes.c_int,
    ctypes.POINTER(_Event),
)


class SpeechError(Exception):
  """The engine refused; the message says what was asked of it."""


class Spoken(NamedTuple):
  """What was spoken.

  Attributes:
    audio: int16 samples.
    sample_rate: in Hz.
    phones: (name in IPA, the sample where it starts) each, ascending; '' for a
      pause. A vowel's name starts with its stress mark. The silence of a stop
      before its burst counts to the phone before.
  """

  audio: Int[np.ndarray, 'T']
  sample_rate: int
  phones: tuple[tuple[str, int], ...]


class _Engine:
  """The library's one global state; of a copy of its file, another."""

  def __init__(self, path: str, options: int = 0):
    self._library = ctypes.CDLL(path)
    data = espeakng_loader.get_data_path().encode()
    self.sample_rate = self._library.espeak_Initialize(
        _SYNCHRONOUS, 0, data, options
    )
    if self.sample_rate <= 0:
      raise SpeechError(f'espeak_Initialize failed with data in {data}.')
    self.blocks: list[np.ndarray] = []
    self.phones: list[tuple[str, int]] = []
    # Kept, so that it is not collected while the library holds it.
    self._callback = _CALLBACK(self._receive)
    self._library.espeak_SetSynthCallback(self._callback)

  def _receive(self, samples, count, events):
    if samples and count > 0:
      self.blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
    i = 0
    while events and events[i].type:  # The last is of type 0.
      if events[i].type == _PHONE:
        name = bytes(events[i].name).partition(b'\0')[0].decode()
        self.phones.append((name, events[i].sample))
      i += 1
    return 0

  def seed(self, seed: int) -> None:
    """Of noise: eSpeak's own, and the C library's, which Klatt's takes."""
    self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
    ctypes.CDLL(None).srand(seed)

  def close(self) -> None:
    """Unloads the library: of a copy only, which nobody else has."""
    self._library.espeak_Terminate()
    _ctypes.dlclose(self._library._handle)

  def speak(
      self,
      text: str,
      voice: str,
      rate: int,
      pitch: int,
      pitch_range: int | None = None,
      flags: int = _UTF8,
  ) -> np.ndarray:
    if self._library.espeak_SetVoiceByName(voice.encode()):
      raise SpeechError(f'espeak knows no voice {voice!r}.')
    self._library.espeak_SetParameter(_RATE, rate, 0)
    self._library.espeak_SetParameter(_PITCH, pitch, 0)
    if pitch_range is not None:
      self._library.espeak_SetParameter(_RANGE, pitch_range, 0)
    self.blocks.clear()
    self.phones.clear()
    encoded = text.encode()
    status = self._library.espeak_Synth(
        encoded, len(encoded) + 1, 0, 1, 0, flags, None, None
    )
    if status:
      raise SpeechError(f'espeak could not speak {text!r} (status {status}).')
    if not self.blocks:
      return np.zeros(0, np.int16)
    return np.concatenate(self.blocks)


@functools.cache
def _engine() -> _Engine:
  return _Engine(espeakng_loader.get_library_path())


def speak(
    text: str, voice: str, rate: int = 160, pitch: int = 50
) -> tuple[Int[np.ndarray, 'T'], int]:
  """Speaks `text`.

  Args:
    text: in the voice's language.
    voice: a language with an optional variant, such as 'en-us+f3'.
    rate: words a minute.
    pitch: 0 to 100.

  Returns:
    int16 samples and the sample rate in Hz.

  Raises:
    SpeechError: for an unknown voice, or if the engine fails.
  """
  engine = _engine()
  return engine.speak(text, voice, rate, pitch), engine.sample_rate


def speak_alone(
    text: str, voice: str, rate: int = 160, pitch: int = 50
) -> tuple[Int[np.ndarray, 'T'], int]:
  """As `speak`, by an engine that has spoken nothing before.

  Most variants remember: what they say depends on what they said before. A
  fresh copy of the library for each text, and seeded noise, make all of them
  reproducible, for about 10 ms. It seeds the C library's `rand`.

  Args:
    text: in the voice's language.
    voice: a language with an optional variant, such as 'en-us+f3'.
    rate: words a minute.
    pitch: 0 to 100.

  Returns:
    int16 samples and the sample rate in Hz.

  Raises:
    SpeechError: for an unknown voice, or if the engine fails.
  """
  with _alone() as engine:
    return engine.speak(text, voice, rate, pitch), engine.sample_rate


def speak_phonemes(
    phonemes: str,
    voice: str,
    rate: int = 160,
    pitch: int = 50,
    pitch_range: int = 50,
) -> Spoken:
  """Speaks phonemes, by an engine that has spoken nothing before.

  As `speak_alone`, of eSpeak's own names of phonemes. What its voice makes of
  them (a flap of a t between vowels, say) stands in the result's phones.

  Args:
    phonemes: such as "s'EvVn pl'Vs", words a space apart.
    voice: a language with an optional variant, such as 'en-us+f3'.
    rate: words a minute; from 450 on phones' times are wrong.
    pitch: 0 to 100.
    pitch_range: 0 to 100; 0 is a monotone. Three variants have none.

  Raises:
    SpeechError: for an unknown voice, or if the engine fails.
  """
  with _alone(_PHONE_EVENTS) as engine:
    audio = engine.speak(
        f'[[{phonemes}]]', voice, rate, pitch, pitch_range, _UTF8 | _PHONEMES
    )
    return Spoken(audio, engine.sample_rate, tuple(engine.phones))


@contextlib.contextmanager
def _alone(options: int = 0) -> Iterator[_Engine]:
  """An engine of a fresh copy of the library, its noise seeded."""
  with tempfile.TemporaryDirectory() as folder:
    path = shutil.copy(espeakng_loader.get_library_path(), folder)
    engine = _Engine(path, options)
    try:
      engine.seed(0)
      yield engine
    finally:
      engine.close()


@functools.cache
def variants() -> tuple[str, ...]:
  """Names of all variants, that a voice takes after its '+'."""
  folder = pathlib.Path(espeakng_loader.get_data_path()) / 'voices' / '!v'
  return tuple(sorted(path.name for path in folder.iterdir()))
