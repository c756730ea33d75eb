"""What parts of a run's config leave to each other.

A fact stands in one place of a config. How long rows are and at which rate their
frames or samples come is the data's to say, by its own fields and by the header
of its token cache; what a model is made for (a codec's sample rate, channels,
the number of codebooks, conditions) is the model's. The other part's field is None for that,
and is filled in here. A fact that is given twice must be the same.
"""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

from audiolm_jax import config
from audiolm_jax.data import token_cache


def resolve(settings: Any, read: bool = False) -> Any:
  """A config whose parts have what they leave to each other.

  Args:
    settings: an `assembly.Config`.
    read: whether to read the headers of token caches, for what only they say:
      the rate, which a model needs to be trained or saved, but not to be traced.

  Raises:
    config.ConfigError: for what is given twice and differs, naming both keys;
      if `read`, for what is given nowhere, too.
    encoding.TokensError: for a token cache that can't be read.
  """
  source, objective = settings.data, settings.objective
  for name, (key, value) in objective.needs(source).items():
    if not hasattr(source, name):
      continue
    given = getattr(source, name)
    if given is None:
      source = dataclasses.replace(source, **{name: value})
    elif not _agree(given, value):
      raise config.ConfigError(
          f'config.data.{name} = {given!r}, but config.objective.{key} ='
          f' {value!r}: leave config.data.{name} to the model, or give the same.'
      )
  source = _with_conditions(source, objective.conditions)
  evaluators = evaluators_of(settings.evaluators, source)
  if read:
    _check_tokenizers(source, evaluators)
  objective = objective.with_data(source, read)
  return dataclasses.replace(
      settings, data=source, objective=objective, evaluators=evaluators
  )


def evaluators_of(evaluators: Mapping[str, Any], source: Any) -> dict[str, Any]:
  """Evaluators with what they leave to `source`, config.data, filled in."""
  return {
      name: e.with_data(source) if hasattr(e, 'with_data') else e
      for name, e in evaluators.items()
  }


def _with_conditions(source, expected):
  """config.data, of which batches hold the conditions that the model reads."""
  if not hasattr(source, 'conditions'):
    return source
  conditions = {**expected, **source.conditions}
  for name, factor in expected.items():
    if conditions[name] != factor:
      raise config.ConfigError(
          f'config.data.conditions.{name} is {conditions[name]}, but the model'
          f' reads {factor}: the same arrays would mean something else.'
      )
  # In one order, whichever part they are of: draws follow it.
  return dataclasses.replace(
      source, conditions=dict(sorted(conditions.items()))
  )


def _agree(given, value) -> bool:
  """Whether two values are the same; rates of frames to a thousandth."""
  if isinstance(value, tuple):
    return tuple(given) == value
  rel_tol = 1e-3 if isinstance(value, float) else 0.0
  return math.isclose(given, value, rel_tol=rel_tol)


def _check_tokenizers(source, evaluators) -> None:
  """Refuses a run over the tokens of several tokenizers."""
  parts = {'config.data': source}
  for name, evaluator in evaluators.items():
    clips = getattr(evaluator, 'clips', None)
    parts[f'config.evaluators.{name}.clips'] = clips
  caches = {
      f'{key}.cache': part.cache
      for key, part in parts.items()
      if getattr(part, 'cache', None) is not None
  }
  known = {
      key: token_cache.read_header(cache).fingerprint
      for key, cache in caches.items()
  }
  for key, fingerprint in known.items():
    first = next(iter(known))
    if fingerprint != known[first]:
      raise config.ConfigError(
          f'{key} ({caches[key]}) is of the tokenizer {fingerprint!r}, but'
          f' {first} ({caches[first]}) of {known[first]!r}.'
      )
