"""Models back from their directories: one call for all of them."""

import os
import pathlib
from typing import Any

from audiolm_jax import interop
from audiolm_jax.interop import fields
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import directory
from audiolm_jax.models import hub
from audiolm_jax.models import pretrained
from audiolm_jax.training import launch

ModelError = directory.ModelError


def load(
    path: str | os.PathLike, *, base: str | os.PathLike | None = None
) -> Any:
  """A trained model with its variables, for people.

  Neither its run nor its data is needed.

  Args:
    path: a work directory, of which its `model/` is read; a model directory; a
      directory with weights that `interop.load_pretrained` reads; or the name
      of one of the last two on the hub, 'hf://organisation/name@revision'.
    base: of an adapter, where its base is; by default where it was. Any other
      model has none.

  Returns:
    Such as an `AudioTokenizer`, a `TokenLM`, a `SegmentLM`, a `SampleLM`, a
    `FlowLM`, `LatentLM` or a `PhoneRecogniser`.

  Raises:
    ModelError: if it holds no model, a damaged one, or the base is another.
  """
  launch.prepare()
  place = locate(path)
  if not _is_ours(place):
    if base is not None:
      raise ModelError(f'{place} is no adapter: base = {base} is of no use.')
    try:
      return pretrained.load(place)
    except interop.PretrainedError as error:
      raise ModelError(str(error)) from error
  entry, variables = read(place, base)
  return entry.manifest.description.bind(variables)


def read(
    path: str | os.PathLike, base: str | os.PathLike | None = None
) -> tuple[directory.Stored, dict[str, Any]]:
  """What a model directory says, and the variables.

  Args:
    path: a model directory, or a work directory.
    base: of an adapter, where its base is; by default where it was. Any other
      model has none.

  Raises:
    ModelError: if it holds no model of ours, a damaged one, or the base is
      another.
  """
  entry = stored(path)
  adapter = entry.manifest.adapter
  if adapter is None:
    if base is not None:
      raise ModelError(
          f'{entry.path} is no adapter: base = {base} is of no use.'
      )
    return entry, directory.variables_of(entry)
  where = adapter.base if base is None else base
  try:
    beneath = stored(where)
    if beneath.manifest.adapter is not None:
      raise ModelError(f'{where} is an adapter itself.')
  except ModelError as error:
    raise ModelError(
        f'{entry.path} is an adapter, whose base is not at {where}: {error}'
        ' Give its directory as `base`.'
    ) from error
  if beneath.manifest.fingerprint != adapter.fingerprint:
    raise ModelError(
        f'{entry.path} is an adapter of {adapter.fingerprint[:12]}, but'
        f' {where} is {beneath.manifest.fingerprint[:12]}: give the directory of'
        ' its own base as `base`.'
    )
  params = directory.variables_of(beneath)
  return entry, directory.variables_of(entry, (beneath, params))


def stored(path: str | os.PathLike) -> directory.Stored:
  """What the model directory at a path says.

  Raises:
    ModelError: if there is none, or it is damaged.
  """
  place = locate(path)
  if not _is_ours(place):
    raise ModelError(f'{place} holds weights from elsewhere.')
  return directory.stored(place)


def locate(path: str | os.PathLike) -> pathlib.Path:
  """The directory of a path with a config.json and weights.

  Raises:
    ModelError: if there is none; it says why, and what to do.
  """
  if isinstance(path, str) and path.startswith(hub.PREFIX):
    path = hub.fetch(path)
  path = pathlib.Path(path)
  if interop.is_pretrained(path):
    return path
  for place in (path / directory.FOLDER, path):
    place = directory.located(place)
    if place is not None and _is_ours(place):
      return place
  if not path.is_dir():
    raise ModelError(f'{path} is no directory.')
  if (path / directory.CONFIG).exists():
    raise ModelError(
        f'{path} has no {directory.FOLDER}/ yet. If it is a work directory with'
        f' a checkpoint, `python tools/export_model.py {path}` writes it.'
    )
  raise ModelError(
      f'{path} holds no model: it is no work directory, and has no'
      f' {directory.CONFIG} with {directory.WEIGHTS}.'
  )


def _is_ours(place: pathlib.Path) -> bool:
  """Whether a directory is a model's of ours, by its config.json."""
  file = place / directory.CONFIG
  if not file.exists():
    return False
  try:
    return directory.is_model(fields.read(file))
  except fields.PretrainedError as error:
    raise ModelError(str(error)) from error


def load_codec(path: str | os.PathLike) -> audio_tokenizer.AudioTokenizer:
  """`load` of a tokenizer.

  Raises:
    ModelError: for what `load` refuses, or a model of another kind.
  """
  model = load(path)
  if not isinstance(model, audio_tokenizer.AudioTokenizer):
    raise ModelError(f'{path} holds a {type(model).__name__}, not a tokenizer.')
  return model


def load_tokenizer(
    path: str | os.PathLike, tokenizer: str | os.PathLike | None = None
) -> audio_tokenizer.AudioTokenizer:
  """The tokenizer whose tokens a model was trained on.

  Args:
    path: of the model, as `load` takes it.
    tokenizer: where the tokenizer is; by default where it was.

  Raises:
    ModelError: if the model is of no tokenizer's tokens, or the tokenizer that
      is there is not the one that made them.
  """
  speaks = stored(path).manifest.tokenizer
  if speaks is None:
    raise ModelError(f'{path} was not trained on tokens of a cache.')
  return tokenizer_of(speaks, path, tokenizer)


def tokenizer_of(
    speaks: directory.Speaks,
    path: str | os.PathLike,
    tokenizer: str | os.PathLike | None = None,
) -> audio_tokenizer.AudioTokenizer:
  """The tokenizer of some tokens.

  Args:
    speaks: which it is, and where it was.
    path: of what has such tokens, for messages.
    tokenizer: where the tokenizer is; None for where it was.

  Raises:
    ModelError: if the tokenizer that is there is not the one that made them.
  """
  where = speaks.directory if tokenizer is None else tokenizer
  model = load_codec(where)
  if model.fingerprint() != speaks.fingerprint:
    raise ModelError(
        f'{where} is another tokenizer ({model.fingerprint()[:12]}) than the one'
        f' that made the tokens that {path} speaks'
        f' ({speaks.fingerprint[:12]}). Give the directory of that one, or'
        ' tokenize again and train on that.'
    )
  return model
