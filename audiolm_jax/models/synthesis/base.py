"""What makes the audio of a command line's options, whatever the model."""

import abc
from collections.abc import Callable, Iterator, Mapping
import contextlib
import math
from typing import Any, ClassVar

from jaxtyping import Bool, Float, Shaped
import numpy as np

from audiolm_jax import config
from audiolm_jax import generation
from audiolm_jax.processes import solvers
from audiolm_jax.processes import times as times_lib
from audiolm_jax.tokenizers import base as tokenizers_base

# Takes audio [B, T, C].
Write = Callable[[Float[np.ndarray, 'B T C']], None]
# What an endless stream keeps in sight.
CACHE_SECONDS = 30.0
# Options that are the sampler's, under the same names.
SAMPLER = frozenset(
    {
        'temperature',
        'top_k',
        'top_p',
        'min_p',
        'repetition_penalty',
        'repetition_window',
    }
)


class Synthesis(abc.ABC):
  """One piece of audio from one model; see the top of this folder.

  Attributes:
    lm: the model, with its tokenizer.
    options: of the command line.
    prompt: frames that the audio begins with.
    frames: of all the audio; None for no end.
    told: what the model's methods are told by name.

  Args:
    lm: the model, with its tokenizer.
    conditions: a value for each that is given, as its source takes it.
    prompt: what `read` gives, or `nothing`.
    options: of the command line.

  Raises:
    ConfigError: for options that do not fit the model or the prompt.
  """

  # The class of models, and names of options that not all kinds take.
  model: ClassVar[type]
  takes: ClassVar[frozenset[str]]

  def __init__(
      self,
      lm: Any,
      conditions: Mapping[str, Any],
      prompt: Shaped[np.ndarray, 'P ...'],
      options: Any,
  ):
    self.lm, self.prompt, self.options = lm, prompt, options
    self.frames = length(
        options.seconds, lm.tokenizer.spec.frame_rate, self.there
    )
    self.told = {
        'seed': options.seed,
        'conditions': {name: [value] for name, value in conditions.items()},
    }
    if self.guided:
      self.told['guidance'] = options.guidance

  @classmethod
  def fits(cls, lm: Any) -> bool:
    """Whether a model is of this kind."""
    return isinstance(lm, cls.model)

  @staticmethod
  @abc.abstractmethod
  def read(lm: Any, path: str) -> Shaped[np.ndarray, 'P ...']:
    """The whole frames of an audio file; '-' for stdin."""

  @staticmethod
  @abc.abstractmethod
  def nothing(lm: Any) -> Shaped[np.ndarray, '0 ...']:
    """What `read` gives of a file without a whole frame."""

  @property
  def there(self) -> int:
    """Frames that `--seconds` are added to."""
    return len(self.prompt)

  @abc.abstractmethod
  def make(self, write: Write) -> None:
    """Gives audio to `write`, at once or while it comes."""

  @abc.abstractmethod
  def cost(self) -> str:
    """What `make` computes, compilation and codec aside, with an end."""

  @property
  def guided(self) -> bool:
    """Whether the model is asked with and without conditions."""
    return self.options.guidance is not None


class OfCodes(Synthesis):
  """Of models whose frames are codes."""

  @staticmethod
  def read(lm, path):
    return lm.tokenizer.read_codes(path)[:, : len(lm.decoder.vocabularies)]

  @staticmethod
  def nothing(lm):
    return np.zeros((0, len(lm.decoder.vocabularies)), np.int32)


class OfLatents(Synthesis):
  """Of models whose frames are latents."""

  @staticmethod
  def read(lm, path):
    return lm.tokenizer.read_latents(path)

  @staticmethod
  def nothing(lm):
    return np.zeros((0, lm.decoder.dimension), np.float32)


def solver(options: Any) -> solvers.Solver | None:
  """That of `--sampler`; None for none.

  Raises:
    ConfigError: for a name that there is not.
  """
  name = options.sampler
  if name is None:
    return None
  if name not in solvers.SOLVERS:
    raise config.ConfigError(
        f'--sampler={name} is none of {sorted(solvers.SOLVERS)}.'
    )
  return solvers.SOLVERS[name]()


def grid(options: Any) -> times_lib.Grid | None:
  """Times of `--steps`; None for none.

  Raises:
    ConfigError: for several numbers, of a model without stages.
  """
  if options.steps is None:
    return None
  if len(options.steps) > 1:
    raise config.ConfigError(
        f'--steps has {len(options.steps)} numbers, but {options.model} has no'
        ' stages: give one.'
    )
  return times_lib.Grid(*options.steps)


def kept(options: Any, frames: int | None, rate: float) -> int | None:
  """Frames that `--cache_seconds` keep in sight; None for all.

  Args:
    options: of the command line.
    frames: of all the audio; None for no end, where not all can be kept.
    rate: frames a second.
  """
  seconds = options.cache_seconds
  if frames is None:
    seconds = seconds or CACHE_SECONDS
  return math.ceil(seconds * rate) if seconds else None


def sampler(options: Any) -> generation.Sampler:
  """How codes are drawn.

  Raises:
    ConfigError: for values out of range.
  """
  return config.build(
      generation.Sampler, {name: getattr(options, name) for name in SAMPLER}
  )


def length(seconds: float, rate: float, there: int) -> int | None:
  """Frames of the result, or None for no end.

  Args:
    seconds: to add.
    rate: frames a second.
    there: frames that they are added to.

  Raises:
    ConfigError: for none at all, or too many.
  """
  if seconds == math.inf:
    return None
  more = round(seconds * rate)
  if not more and (seconds or not there):
    raise config.ConfigError(
        f'--seconds={seconds:g} gives no frame: one is {1 / rate:.3g} s.'
    )
  # A frame has a step or more.
  if there + more >= generation.ENDLESS:
    raise config.ConfigError(
        f'--seconds={seconds:g} is too long: inf has no end.'
    )
  return there + more


def known_frames(synthesis: Synthesis) -> Bool[np.ndarray, 'F']:
  """Frames that stay as they are: the prompt's but those of `--infill`.

  Raises:
    ConfigError: for a gap that is not within the prompt.
  """
  there = len(synthesis.prompt)
  rate = synthesis.lm.tokenizer.spec.frame_rate
  frames = there if synthesis.frames is None else synthesis.frames
  known = np.arange(frames) < there
  for first, last in synthesis.options.infill:
    # Every frame that has a part in it.
    gap = slice(math.floor(first * rate), math.ceil(last * rate))
    if gap.stop > there:
      raise config.ConfigError(
          f'--infill={first:g}:{last:g} is not within the prompt, which has'
          f' {there / rate:.3g} s.'
      )
    known[gap] = False
  return known


def decode(
    tokenizer: Any, frames: Shaped[np.ndarray, '1 F ...'], write: Write
) -> None:
  """Gives the audio of codes or latents to `write`, all at once."""
  samples = np.array([tokenizer.spec.samples(frames.shape[1])])
  kind = 'latents' if tokenizer.spec.dimension else 'codes'
  audio, _ = tokenizer.decode(
      tokenizers_base.Tokens(num_samples=samples, **{kind: frames})
  )
  write(audio[:, : samples[0]])


@contextlib.contextmanager
def named(message: str) -> Iterator[None]:
  """Says of an error, in place of {}, where it comes from.

  Raises:
    ConfigError: in place of a ValueError or an OSError.
  """
  try:
    yield
  except (OSError, ValueError) as error:
    raise config.ConfigError(message.replace('{}', str(error))) from error
