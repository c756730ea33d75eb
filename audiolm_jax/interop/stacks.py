"""What families of language models over a `Stack` share."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

import numpy as np

from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import fields
from audiolm_jax.interop import language_model
from audiolm_jax.ops import rotary

TABLE = 'params.embedding.table'
BACKBONE = 'params.backbone'


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


def heads(config: fields.Fields, width: int) -> dict[str, int]:
  """Fields of attention: how many heads there are, and how wide.

  Args:
    config: with `num_attention_heads`; where `num_key_value_heads` is null
      there are as many, where `head_dim` is, they share the width.
    width: of the layers.
  """
  count = config.size('num_attention_heads')
  values = {
      'heads': count,
      'kv_heads': config.size('num_key_value_heads', null=True) or count,
  }
  if count % values['kv_heads']:
    raise config.error('num_key_value_heads', f'a divisor of {count} heads')
  head_width = config.size('head_dim', null=True)
  if head_width is None and width % count:
    raise config.error('num_attention_heads', f'a divisor of {width}')
  values['head_width'] = head_width or width // count
  # The matrix of the queries.
  config.check_size('head_dim', width * count * values['head_width'])
  return values


def rope(config: fields.Fields, theta: float) -> rotary.Rope:
  """Rotary positions of a config.json, of transformers 4 or 5.

  Keys may stand in the object of scaling or beside it: a base in the object
  comes first, as there, and an original length beside it.

  Args:
    config: with `rope_scaling` or `rope_parameters`, and `rope_theta`.
    theta: where it says none.

  Raises:
    PretrainedError: for a kind of scaling that is not supported.
  """
  given = config.part('rope_scaling')
  if not given:
    given = config.part('rope_parameters')
  for key in given.parts():
    raise given.error(key, 'one kind of positions for all layers')
  for place in (given, config):
    # transformers' models ignore it, or can not be run with it.
    if place.get('partial_rotary_factor') is not None:
      place.require({'partial_rotary_factor': 1.0})
  base_of = given if given.get('rope_theta') is not None else config
  if base_of.get('rope_theta') is not None:
    theta = base_of.number('rope_theta', above=1.0)
  result = rotary.Rope(theta=float(theta))
  key = 'rope_type' if 'rope_type' in given else 'type'
  if key not in given:
    return result
  kind = given.choice(key, _ROPES)
  if kind == 'default':
    return result
  length = longest = config.whole('max_position_embeddings')
  name = 'original_max_position_embeddings'
  for place in (given, config):
    if place.get(name) is not None:
      length = place.whole(name)
  if kind == 'llama3':
    low = given.number('low_freq_factor', above=0.0)
    llama3 = rotary.Llama3(
        factor=given.number('factor', above=0.0),
        original_length=length,
        low=low,
        high=given.number('high_freq_factor', above=low),
    )
    return dataclasses.replace(result, llama3=llama3)
  return dataclasses.replace(result, yarn=_yarn(given, length, longest))


_ROPES = ('default', 'llama3', 'yarn')


def _yarn(given, length, longest):
  """From how many positions to how many, where `factor` does not say."""
  factor = given.number('factor', above=0.0, null=True) or longest / length

  def option(key, **bounds):
    if given.get(key) is None:
      return None
    return given.number(key, **bounds)

  def growth(by=1.0):
    return 1 + 0.1 * by * math.log(max(factor, 1.0))

  scale = option('attention_factor', least=0.0)
  parts = [option(name, least=0.0) for name in ('mscale', 'mscale_all_dim')]
  if scale is None and all(parts):
    first, second = map(growth, parts)
    scale = first / second
  elif scale is None and factor < 1:
    scale = growth()
  return rotary.Yarn(
      factor=factor,
      original_length=length,
      beta_fast=option('beta_fast', least=0.0) or 32.0,
      beta_slow=option('beta_slow', least=0.0) or 1.0,
      truncate='truncate' not in given or given.flag('truncate'),
      attention_factor=scale,
  )


def rope_theta(config: fields.Fields, theta: float) -> float:
  """The base of rotary positions that are not scaled.

  Raises:
    PretrainedError: if they are.
  """
  result = rope(config, theta)
  if result != rotary.Rope(result.theta):
    given = 'rope_scaling' if config.part('rope_scaling') else 'rope_parameters'
    raise config.error(given, "rope_type 'default'")
  return result.theta


def rope_config(positions: rotary.Rope) -> dict[str, Any]:
  """`rope_parameters` that `rope` reads back."""
  values = {'rope_type': 'default', 'rope_theta': positions.theta}
  scaling = positions.yarn or positions.llama3
  if scaling is None:
    return values
  values |= {
      'factor': scaling.factor,
      'original_max_position_embeddings': scaling.original_length,
  }
  if positions.llama3 is not None:
    return values | {
        'rope_type': 'llama3',
        'low_freq_factor': scaling.low,
        'high_freq_factor': scaling.high,
    }
  return values | {
      'rope_type': 'yarn',
      'beta_fast': scaling.beta_fast,
      'beta_slow': scaling.beta_slow,
      'truncate': scaling.truncate,
      'attention_factor': scaling.attention_factor,
  }


def special_ids(config: fields.Fields) -> dict[str, Any]:
  """Fields of a LanguageModel: ids that texts begin and end with.

  An id that the vocabulary does not have is none.
  """
  vocabulary = config.size('vocab_size')

  def existing(key, ids):
    if not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
      raise config.error(key, 'an id, or null')
    return tuple(i for i in ids if 0 <= i < vocabulary)

  begin, end = config.raw('bos_token_id'), config.raw('eos_token_id')
  begins = existing('bos_token_id', [] if begin is None else [begin])
  ends = end if isinstance(end, list) else [] if end is None else [end]
  return {
      'begin': begins[0] if begins else None,
      'end': existing('eos_token_id', ends),
  }


def built(
    config: fields.Fields, backbone: stack_lib.Stack, **options: int
) -> language_model.LanguageModel:
  """A model of ids, by what every config.json says of them.

  Args:
    config: of the model.
    backbone: of the model.
    **options: `positions`, where the model has a number of them.
  """
  return language_model.LanguageModel(
      decoder=language_model.decoder(
          config.size('vocab_size'),
          backbone,
          config.flag('tie_word_embeddings'),
      ),
      **special_ids(config),
      **options,
  )


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
    family: interop_base.Family,
    model: language_model.LanguageModel,
    config: dict[str, Any],
) -> dict[str, Any]:
  """The config, if it gives the model.

  Raises:
    PretrainedError: if the family has no such model.
  """
  options = interop_base.Options(dtype=model.backbone.dtype)
  if family.build(config, options) != model:
    raise interop_base.PretrainedError(
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
  kept = {k: v for k, v in tensors.items() if not k.endswith(ignored)}
  if model.decoder.tie:
    interop_base.tie(kept, table, 'lm_head.weight')
  return kept


def ends(
    model: language_model.LanguageModel, table: str
) -> list[interop_base.Entry]:
  """Embeddings and classifier.

  The table's last row, which stands for no id, is 0 and not saved: nothing
  comes before a row's first id.

  Args:
    model: of one slot.
    table: of the embeddings [V, D].
  """

  def load(w):
    return (np.concatenate([w, np.zeros_like(w[:1])]),)

  layout = interop_base.Layout((table,), load, lambda w: (w[:-1],))
  entries = [interop_base.Entry((TABLE,), (layout,))]
  if not model.decoder.tie:
    layout = interop_base.Layout(
        ('lm_head.weight',), lambda w: (w.T[None],), lambda w: (w[0].T,)
    )
    entries.append(interop_base.Entry(('params.head.kernel',), (layout,)))
  return entries


def projection(
    ours: str, theirs: str, bias: bool, transposed: bool = True
) -> list[interop_base.Entry]:
  """A matrix at `theirs`.weight and a bias, which ours has beside each other.

  Args:
    ours: path of the matrix; the bias is at `ours`_bias.
    theirs: name of the module.
    bias: whether there is one.
    transposed: whether theirs is [out, in], as in torch.nn.Linear.
  """
  axes = (1, 0) if transposed else None
  entries = [interop_base.plain(ours, f'{theirs}.weight', axes)]
  if bias:
    entries.append(interop_base.plain(f'{ours}_bias', f'{theirs}.bias'))
  return entries


def attention_names(
    mixer: attention.Attention, ours: str, theirs: str
) -> list[interop_base.Entry]:
  """Attention as Llama and most after it name it."""
  entries = []
  for name, short in (('query', 'q'), ('key', 'k'), ('value', 'v')):
    entries += projection(
        f'{ours}.{name}', f'{theirs}.{short}_proj', mixer.use_bias
    )
    if mixer.qk_norm == 'rms' and name != 'value':
      entries.append(
          interop_base.plain(
              f'{ours}.{name}_norm', f'{theirs}.{short}_norm.weight'
          )
      )
  if mixer.sinks:
    entries.append(interop_base.plain(f'{ours}.sinks', f'{theirs}.sinks'))
  return entries + projection(f'{ours}.out', f'{theirs}.o_proj', mixer.out_bias)


def norm(
    ours: str, theirs: str, bias: bool = False
) -> list[interop_base.Entry]:
  """A factor and, if it has one, an offset."""
  entries = [interop_base.plain(f'{ours}.scale', f'{theirs}.weight')]
  if bias:
    entries.append(interop_base.plain(f'{ours}.bias', f'{theirs}.bias'))
  return entries
