"""Model directories by their names on the Hugging Face hub."""

import pathlib
import re

from audiolm_jax.models import directory

PREFIX = 'hf://'
_PART = r'[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?'
_NAME = re.compile(rf'({_PART}/{_PART})(?:@([\w./-]+))?', re.ASCII)
# Neither code nor pickles.
_FILES = ['*.safetensors', '*.json']


def fetch(name: str) -> pathlib.Path:
  """The directory of a model on the hub, downloaded unless it was already.

  Only tensors and JSON are taken. Where there is no network, what was downloaded
  before is.

  Args:
    name: 'hf://organisation/name', or 'hf://organisation/name@revision', which
      is a branch, a tag or a commit; 'main' if not given. HF_ENDPOINT is
      another hub, HF_HOME where downloads go.

  Raises:
    directory.ModelError: for another form of name, without huggingface_hub, or
      if it cannot be had.
  """
  match = _NAME.fullmatch(name.removeprefix(PREFIX))
  if not match or '..' in name:
    raise directory.ModelError(
        f'{name!r} is no name of a model: expected {PREFIX}organisation/name or'
        f' {PREFIX}organisation/name@revision.'
    )
  try:
    import huggingface_hub  # An extra: only who asks for the hub needs it.
  except ImportError as error:
    raise directory.ModelError(
        f"{name} needs huggingface_hub: pip install 'audiolm_jax[hub]'."
    ) from error
  try:
    path = huggingface_hub.snapshot_download(
        match[1], revision=match[2], allow_patterns=_FILES
    )
  except Exception as error:  # Of several libraries, and versions of them.
    raise directory.ModelError(
        f'{name} could not be had: {type(error).__name__}: {error}'
    ) from error
  return pathlib.Path(path)
