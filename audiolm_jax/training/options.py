"""Options of a run that each are right, and together are not."""

from collections.abc import Iterator
import contextlib
from typing import Any

from absl import logging
import flax

from audiolm_jax import config

# What libraries raise for sizes that do not fit each other.
_UNFIT = (
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    MemoryError,
    flax.errors.FlaxError,
)


@contextlib.contextmanager
def building(what: str) -> Iterator[None]:
  """Turns what is raised for unfit sizes while something is built or traced.

  Raises:
    config.ConfigError: with the reason; the cause keeps its traceback.
  """
  try:
    yield
  except config.ConfigError:
    raise
  except _UNFIT as error:
    raise config.ConfigError(
        f'{what} cannot be built: {type(error).__name__}: {error}'
    ) from error


def check(settings: Any) -> None:
  """Refuses options that would do nothing, most for want of another one.

  Args:
    settings: an `assembly.Config`.

  Raises:
    config.ConfigError: naming them.
  """
  problems = []
  checkpoint, profile = settings.checkpoint, settings.profile
  best = checkpoint.best
  if best is None and checkpoint.mode != 'min':
    problems.append(
        f'config.checkpoint.mode = {checkpoint.mode!r} says how'
        ' config.checkpoint.best is chosen, and that is not given.'
    )
  parts = best.split('/') if best is not None else []
  if best is not None and not (
      len(parts) >= 3 and parts[0] == 'eval' and parts[1] in settings.evaluators
  ):
    problems.append(
        f'config.checkpoint.best = {best!r}: expected eval/EVALUATOR/METRIC with'
        f' one of the evaluators {sorted(settings.evaluators)}.'
    )
  if settings.steps >= 2**31:
    problems.append(
        f'config.steps = {settings.steps}: expected less than 2^31, as steps are'
        ' counted in 32 bits.'
    )
  if profile.steps and profile.start >= settings.steps:
    problems.append(
        f'config.profile.start = {profile.start}: a run of config.steps ='
        f' {settings.steps} has no such step to trace.'
    )
  for name, model in settings.models.items():
    where = f'config.models.{name}'
    for option in ('init_model', 'init_fresh'):
      value = getattr(model, option)
      if value and model.init_from is None:
        problems.append(
            f'{where}.{option} = {value!r} is of a run that {where}.init_from'
            ' does not give.'
        )
    if model.clip == 0:
      problems.append(
          f'{where}.clip = 0: the gradient would be cut to nothing. Give None'
          ' for no clipping.'
      )
    warmup = model.schedule.warmup_steps
    if warmup >= settings.steps:
      logging.warning(
          '%s.schedule.warmup_steps = %d: in %d steps the learning rate does'
          ' not get to its peak.',
          where,
          warmup,
          settings.steps,
      )
  if problems:
    raise config.ConfigError('\n'.join(problems))
