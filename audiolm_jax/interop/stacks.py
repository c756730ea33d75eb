"""What families of language models over a `Stack` share."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

import numpy as np

from audiolm_jax.decoders.mixers import attention as attention_lib
from audiolm_jax.interop import base
from audiolm_jax.interop import language_model
from audiolm_jax.ops import rotary

TABLE = 'params.embedding.table'
BACKBONE = 'params.backbone'


def require(config: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
  """Raises PretrainedError where a config has another value than it must."""
  for key, value in wanted.items():
    if config.get(key, value) != value:
      raise base.PretrainedError(
          f'{key} = {config[key]!r} is not supported: only {value!r}'
      )


def period(mixers: Sequence[Any]) -> tuple[Any, ...]:
  """The shortest beginning of which all the layers are repetitions."""
  count = len(mixers)
  for size in range(1, count):
    if count % size == 0 and tuple(mixers[:size]) * (count // size) == tuple(
        mixers
    ):
      return tuple(mixers[:size])
  return tuple(mixers)


# -- configs ------------------------------------------------------------------


def rope(config: Mapping[str, Any], theta: float) -> rotary.Rope:
  """Rotary positions of a config.json, of transformers 4 or 5.

  Args:
    config: with `rope_parameters`, or `rope_scaling` and `rope_theta`.
    theta: where it says none.

  Raises:
    PretrainedError: for a kind of scaling that is not supported.
  """
  given = config.get('rope_parameters') or config.get('rope_scaling') or {}
  kind = given.get('rope_type', given.get('type', 'default'))
  found = rotary.Rope(
      theta=float(given.get('rope_theta') or config.get('rope_theta') or theta),
      fraction=given.get('partial_rotary_factor') or 1.0,
  )
  if kind == 'default':
    return found
  if kind not in ('yarn', 'llama3'):
    raise base.PretrainedError(
        f'rope_type = {kind!r} is not supported: only default, llama3 and yarn'
    )
  length = given.get('original_max_position_embeddings')
  if length is None:
    length = config['max_position_embeddings']
  if kind == 'llama3':
    llama3 = rotary.Llama3(
        factor=given['factor'],
        original_length=length,
        low=given['low_freq_factor'],
        high=given['high_freq_factor'],
    )
    return dataclasses.replace(found, llama3=llama3)
  scale = given.get('attention_factor')
  parts = [given.get(name) for name in ('mscale', 'mscale_all_dim')]
  if scale is None and all(parts):
    first, second = (1 + 0.1 * p * math.log(given['factor']) for p in parts)
    scale = first / second
  yarn = rotary.Yarn(
      factor=given['factor'],
      original_length=length,
      beta_fast=given.get('beta_fast') or 32.0,
      beta_slow=given.get('beta_slow') or 1.0,
      truncate=given.get('truncate', True),
      attention_factor=scale,
  )
  return dataclasses.replace(found, yarn=yarn)


def rope_config(positions: rotary.Rope) -> dict[str, Any]:
  """`rope_parameters` that `rope` reads back."""
  found = {'rope_type': 'default', 'rope_theta': positions.theta}
  if positions.fraction != 1:
    found['partial_rotary_factor'] = positions.fraction
  scaling = positions.yarn or positions.llama3
  if scaling is None:
    return found
  found |= {
      'factor': scaling.factor,
      'original_max_position_embeddings': scaling.original_length,
  }
  if positions.llama3 is not None:
    return found | {
        'rope_type': 'llama3',
        'low_freq_factor': scaling.low,
        'high_freq_factor': scaling.high,
    }
  return found | {
      'rope_type': 'yarn',
      'beta_fast': scaling.beta_fast,
      'beta_slow': scaling.beta_slow,
      'truncate': scaling.truncate,
      'attention_factor': scaling.attention_factor,
  }


def special_ids(config: Mapping[str, Any]) -> dict[str, Any]:
  """Fields of a LanguageModel: ids that texts begin and end with.

  An id that the vocabulary does not have is none.
  """

  def exists(i):
    return i is not None and 0 <= i < config['vocab_size']

  begin, end = config.get('bos_token_id'), config.get('eos_token_id')
  ends = end if isinstance(end, list) else [end]
  return {
      'begin': begin if exists(begin) else None,
      'end': tuple(i for i in ends if exists(i)),
  }


def common_config(
    model: language_model.LanguageModel, model_type: str, architecture: str
) -> dict[str, Any]:
  """What every config.json says."""
  end = list(model.end)
  return {
      'model_type': model_type,
      'architectures': [architecture],
      'vocab_size': model.decoder.vocabularies[0],
      'tie_word_embeddings': model.decoder.tie,
      'bos_token_id': model.begin,
      'eos_token_id': end[0] if len(end) == 1 else end or None,
      'dtype': model.backbone.dtype,
  }


def checked(
    family: base.Family,
    model: language_model.LanguageModel,
    config: dict[str, Any],
) -> dict[str, Any]:
  """The config, if it gives the model.

  Raises:
    PretrainedError: if the family has no such model.
  """
  options = base.Options(dtype=model.backbone.dtype)
  if family.build(config, options) != model:
    raise base.PretrainedError(
        f'{config["model_type"]} has no such model: {model.decoder}'
    )
  return config


# -- tensors ------------------------------------------------------------------


def canonical(
    model: language_model.LanguageModel,
    tensors: Mapping[str, np.ndarray],
    prefix: str,
    table: str,
    ignored: tuple[str, ...],
) -> dict[str, np.ndarray]:
  """Tensors of a file as a model with its head has them.

  Args:
    model: of the file.
    tensors: those of a model without its head lack the prefix.
    prefix: of all names but the head's.
    table: of the embeddings.
    ignored: what names of buffers end with.

  Raises:
    PretrainedError: if tied weights are not the same.
  """
  if not any(name.startswith(prefix) for name in tensors):
    tensors = {
        name if name.startswith('lm_head') else prefix + name: value
        for name, value in tensors.items()
    }
  found = {k: v for k, v in tensors.items() if not k.endswith(ignored)}
  head = found.get('lm_head.weight')
  if model.decoder.tie and head is not None and table in found:
    if not np.array_equal(head, found[table]):
      raise base.PretrainedError(
          f'lm_head.weight is not {table}, though tie_word_embeddings says so'
      )
    del found['lm_head.weight']
  return found


def ends(model: language_model.LanguageModel, table: str) -> list[base.Entry]:
  """Embeddings and classifier.

  The table's last row, which stands for no id, becomes the embedding of the id
  that texts begin with; it is not saved.

  Args:
    model: of one slot.
    table: of the embeddings [V, D].
  """

  def load(w):
    if model.begin is None:
      return (np.concatenate([w, np.zeros_like(w[:1])]),)
    return (np.concatenate([w, w[model.begin : model.begin + 1]]),)

  layout = base.Layout((table,), load, lambda w: (w[:-1],))
  found = [base.Entry((TABLE,), (layout,))]
  if not model.decoder.tie:
    layout = base.Layout(
        ('lm_head.weight',), lambda w: (w.T[None],), lambda w: (w[0].T,)
    )
    found.append(base.Entry(('params.head.kernel',), (layout,)))
  return found


def projection(
    ours: str, theirs: str, bias: bool, transposed: bool = True
) -> list[base.Entry]:
  """A matrix at `theirs`.weight and a bias, which ours has beside each other.

  Args:
    ours: path of the matrix; the bias is at `ours`_bias.
    theirs: name of the module.
    bias: whether there is one.
    transposed: whether theirs is [out, in], as in torch.nn.Linear.
  """
  axes = (1, 0) if transposed else None
  found = [base.plain(ours, f'{theirs}.weight', axes)]
  if bias:
    found.append(base.plain(f'{ours}_bias', f'{theirs}.bias'))
  return found


def attention(
    mixer: attention_lib.Attention, ours: str, theirs: str
) -> list[base.Entry]:
  """Attention as Llama and most after it name it."""
  found = []
  for name, short in (('query', 'q'), ('key', 'k'), ('value', 'v')):
    found += projection(
        f'{ours}.{name}', f'{theirs}.{short}_proj', mixer.use_bias
    )
    if mixer.qk_norm == 'rms' and name != 'value':
      found.append(
          base.plain(f'{ours}.{name}_norm', f'{theirs}.{short}_norm.weight')
      )
  if mixer.sinks:
    found.append(base.plain(f'{ours}.sinks', f'{theirs}.sinks'))
  return found + projection(f'{ours}.out', f'{theirs}.o_proj', mixer.out_bias)


def norm(ours: str, theirs: str, bias: bool = False) -> list[base.Entry]:
  """A factor and, if it has one, an offset."""
  found = [base.plain(f'{ours}.scale', f'{theirs}.weight')]
  if bias:
    found.append(base.plain(f'{ours}.bias', f'{theirs}.bias'))
  return found
