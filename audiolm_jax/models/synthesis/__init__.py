"""Audio from models of each kind, as the options of a command line say.

A kind says which options it takes beside those of all, how it reads a prompt,
how it makes audio, and what that costs: `base.Synthesis` is the seam. To add
one: a class in a file of this folder, and its place in `KINDS`; options that no
other kind has, in tools/generate.py.
"""

from typing import Any

from audiolm_jax import config
from audiolm_jax.models.synthesis import autoregressive
from audiolm_jax.models.synthesis import base as synthesis_base
from audiolm_jax.models.synthesis import denoised
from audiolm_jax.models.synthesis import latent_frames
from audiolm_jax.models.synthesis import masked_codes

KINDS: tuple[type[synthesis_base.Synthesis], ...] = (
    autoregressive.Autoregressive,
    denoised.Denoised,
    latent_frames.LatentFrames,
    masked_codes.MaskedCodes,
)


def kind_of(lm: Any, where: str) -> type[synthesis_base.Synthesis]:
  """The kind of a model.

  Args:
    lm: what `audiolm_jax.load` returns.
    where: its directory, for the message.

  Raises:
    ConfigError: for a model that makes no audio from tokens of it.
  """
  for kind in KINDS:
    if kind.fits(lm):
      return kind
  raise config.ConfigError(
      f'--model={where} holds a {type(lm).__name__} that does not continue'
      ' audio tokens.'
  )


def check_options(
    kind: type[synthesis_base.Synthesis], lm: Any, options: Any, given: Any
) -> None:
  """Refuses options that only other kinds take.

  Args:
    kind: of the model.
    lm: the model, for the message.
    options: of the command line.
    given: names of the options that are not as they are by default.

  Raises:
    ConfigError: naming the first.
  """
  others = set().union(*(other.takes for other in KINDS)) - kind.takes
  wrong = sorted(others.intersection(given))
  if wrong:
    raise config.ConfigError(
        f'--{wrong[0]} is not of {options.model}, a {type(lm).__name__}.'
    )
