"""libespeak-ng through ctypes: text to 16-bit samples, no system package."""

import _ctypes
import ctypes
import functools
import pathlib
import shutil
import tempfile

import espeakng_loader
from jaxtyping import Int
import numpy as np

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples go to the callback only.
_UTF8 = 1
_RATE, _PITCH = 1, 3  # espeak_PARAMETER

_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_short),
    ctypes.c_int,
    ctypes.c_void_p,
)


class SpeechError(Exception):
  """The engine refused; the message says what was asked of it."""


class _Engine:
  """The library's one global state; of a copy of its file, another."""

  def __init__(self, path: str):
    self._library = ctypes.CDLL(path)
    data = espeakng_loader.get_data_path().encode()
    self.sample_rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, 0)
    if self.sample_rate <= 0:
      raise SpeechError(f'espeak_Initialize failed with data in {data}.')
    self.blocks: list[np.ndarray] = []
    # Kept, so that it is not collected while the library holds it.
    self._callback = _CALLBACK(self._receive)
    self._library.espeak_SetSynthCallback(self._callback)

  def _receive(self, samples, count, events):
    del events
    if samples and count > 0:
      self.blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
    return 0

  def seed(self, seed: int) -> None:
    """Of noise: eSpeak's own, and the C library's, which Klatt's takes."""
    self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
    ctypes.CDLL(None).srand(seed)

  def close(self) -> None:
    """Unloads the library: of a copy only, which nobody else has."""
    self._library.espeak_Terminate()
    _ctypes.dlclose(self._library._handle)

  def speak(self, text: str, voice: str, rate: int, pitch: int) -> np.ndarray:
    if self._library.espeak_SetVoiceByName(voice.encode()):
      raise SpeechError(f'espeak knows no voice {voice!r}.')
    self._library.espeak_SetParameter(_RATE, rate, 0)
    self._library.espeak_SetParameter(_PITCH, pitch, 0)
    self.blocks.clear()
    encoded = text.encode()
    status = self._library.espeak_Synth(
        encoded, len(encoded) + 1, 0, 1, 0, _UTF8, None, None
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
  with tempfile.TemporaryDirectory() as folder:
    path = shutil.copy(espeakng_loader.get_library_path(), folder)
    engine = _Engine(path)
    try:
      engine.seed(0)
      return engine.speak(text, voice, rate, pitch), engine.sample_rate
    finally:
      engine.close()


@functools.cache
def variants() -> tuple[str, ...]:
  """Names of all variants, that a voice takes after its '+'."""
  folder = pathlib.Path(espeakng_loader.get_data_path()) / 'voices' / '!v'
  return tuple(sorted(path.name for path in folder.iterdir()))
