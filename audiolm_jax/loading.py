"""Trained models back from their work directories."""

import os
from typing import Any

from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import interop
from audiolm_jax.data import token_cache
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.training import launch


def load(workdir: str | os.PathLike, step: int | None = None) -> Any:
  """The trained model of a work directory, bound to its variables.

  Averaged parameters are taken where they were kept.

  Args:
    workdir: of a run that has saved a checkpoint.
    step: which checkpoint; by default the best by the config's
      `checkpoint.best`, or else the last.

  Returns:
    What the run's objective binds: a tokenizer, or a decoder.

  Raises:
    config.ConfigError: if it is no work directory.
    checkpoints.CheckpointError: if it has no readable checkpoint.
  """
  launch.prepare()
  assembly, state = assembly_lib.restore(workdir, step)
  return assembly.objective.bind(assembly.variables(state))


def load_codec(directory: str | os.PathLike) -> audio_tokenizer.AudioTokenizer:
  """A tokenizer, from a work directory or from one with pretrained weights.

  Args:
    directory: of a run that has saved a checkpoint, or with a config.json and
      weights that `interop.load_pretrained` reads.

  Raises:
    config.ConfigError: if it is neither, or holds another kind of model.
    checkpoints.CheckpointError: if it has no readable checkpoint.
  """
  if interop.is_pretrained(directory):
    launch.prepare()
    try:
      model, variables = interop.load_pretrained(directory)
    except interop.PretrainedError as error:
      raise config.ConfigError(str(error)) from error
    if isinstance(model, codec_lib.Codec):
      return audio_tokenizer.AudioTokenizer(model, variables)
    raise config.ConfigError(
        f'{directory} holds a {type(model).__name__}, not a tokenizer.'
    )
  model = load(directory)
  if not isinstance(model, audio_tokenizer.AudioTokenizer):
    raise config.ConfigError(
        f'{directory} holds a {type(model).__name__}, not a tokenizer.'
    )
  return model


def load_tokenizer(
    workdir: str | os.PathLike, directory: str | os.PathLike | None = None
) -> Any:
  """The tokenizer whose tokens the model of `workdir` was trained on.

  Args:
    workdir: of a run on a token cache; the cache's header says where its
      tokenizer is.
    directory: where it is instead.

  Raises:
    config.ConfigError: if that run read no token cache, or the tokenizer that
      is there now is not the one that made it.
  """
  data = assembly_lib.read(workdir).data
  if 'cache' not in data:
    raise config.ConfigError(
        f'{workdir} was trained on config.data.kind = {data.kind!r}: expected'
        ' tokens of a cache.'
    )
  header = token_cache.read_header(data.cache)
  tokenizer = load_codec(directory or header['tokenizer_workdir'])
  fingerprint, wanted = tokenizer.fingerprint(), header['tokenizer_hash']
  if fingerprint != wanted and directory is not None:
    raise config.ConfigError(
        f'{directory} is another tokenizer ({fingerprint[:12]}) than the one that made'
        f' {data.cache} ({wanted[:12]}), whose tokens {workdir} speaks.'
    )
  if fingerprint != wanted:
    raise config.ConfigError(
        f'The tokenizer of {header["tokenizer_workdir"]} is no longer the one'
        f' that made {data.cache}. Tokenize again, and train on that.'
    )
  return tokenizer
