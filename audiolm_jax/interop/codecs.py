"""What families of codecs share."""

import dataclasses
from typing import Any

from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import fields
from audiolm_jax.tokenizers import codec as codec_lib

# Of bottlenecks: what only training needs, which a config.json may leave out.
_TRAINING = frozenset(
    {
        'decay',
        'dead_threshold',
        'check_every',
        'dropout',
        'initial',
        'iterations',
        'candidates',
        'commitment_weight',
        'codebook_weight',
        'kl_weight',
    }
)


def sample_rate(config: fields.Fields, key: str = 'sampling_rate') -> int:
  """In Hz, as audio has it."""
  return config.whole(key, least=1_000, most=1_000_000)


def checked(
    family: interop_base.Family,
    codec: codec_lib.Codec,
    config: dict[str, Any],
    weight_norm: bool,
) -> dict[str, Any]:
  """The config, if it gives the codec.

  Args:
    family: of the codec.
    codec: with any values of what only training needs.
    config: a config.json.
    weight_norm: whether the codec keeps it.

  Raises:
    PretrainedError: if the family has no such codec.
  """
  drop_samples = getattr(codec.decoder, 'drop_samples', False)
  options = interop_base.Options(
      weight_norm=weight_norm, drop_samples=drop_samples
  )
  again = family.build(config, options)
  for name in ('encoder', 'bottleneck', 'decoder', *_OWN):
    have, want = getattr(codec, name), getattr(again, name)
    same = _inference(have) == _inference(want)
    if not same or type(have) is not type(want):
      raise interop_base.PretrainedError(
          f'{type(family).__name__} has no such {name}: {have}; it would be'
          f' {want}'
      )
  return config


_OWN = ('sample_rate', 'whole_frames', 'segment')


def _inference(part):
  """What a part computes with."""
  if not dataclasses.is_dataclass(part):
    return part
  names = [f.name for f in dataclasses.fields(part)]
  return {n: getattr(part, n) for n in names if n not in _TRAINING}
