"""The quickstart's language model with one condition, all else equal."""

from typing import Any

from audiolm_jax import config
from audiolm_jax.data import asterisk_prompts
from audiolm_jax.data import factors
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import stack as stack_lib
from audiolm_jax.decoders.mixers import attention
from configs.lm import quickstart

# Of the quickstart's clips, one in a hundred has a longer text: it is cut.
TEXT_BYTES = {'cpu': 192, 'smoke': 24}
NAMES = {
    'language': asterisk_prompts.LANGUAGES,
    'speaker': asterisk_prompts.SPEAKERS,
}
# Of a factor: what the decoder makes of it, and its kind.
KINDS = {
    'language': ('class', 'name'),
    'prompt': ('codes', 'codes'),
    'speaker': ('class', 'name'),
    'text': ('text', 'text'),
}
# Frames of a prompt: three seconds.
PROMPT_FRAMES = {'cpu': 150, 'smoke': 8}
# What a backbone needs for each place.
NEEDS = {
    'add': {},
    'cross': {'cross': config.to_config(attention.Cross(heads=4))},
    'film': {'adaptive': 'film'},
    'prefix': {},
}


def build(arg: str, factor: str, how: str, dropout: float = 0.1):
  """The quickstart's config with a condition.

  Args:
    arg: 'cpu' or 'smoke'.
    factor: of a clip: 'text', 'language', 'speaker' or 'prompt'.
    how: see `decoders.conditioners`.
    dropout: rows without it, in training.
  """
  values = quickstart.get_config(arg)
  objective = values.objective
  kind, taken = KINDS[factor]
  source = _source(arg, factor, objective.decoder.vocabularies)
  options: dict[str, Any] = {'source': source, 'how': how, 'dropout': dropout}
  if kind == 'text':
    options['encoder'] = _encoder(arg)
  with values.unlocked():
    # The same here and there: a class is a place in the list of names.
    objective.decoder.conditions[factor] = config.kind(
        conditioners.CONDITIONERS, kind, **options
    )
    values.data.conditions[factor] = config.kind(
        factors.FACTORS, taken, **source
    )
    objective.decoder.backbone.update(NEEDS[how])
  return values


def _source(arg, factor, vocabularies):
  if factor == 'text':
    return {'length': TEXT_BYTES[arg]}
  if factor == 'prompt':
    return {'vocabularies': vocabularies, 'length': PROMPT_FRAMES[arg]}
  return {'names': NAMES[factor]}


def _encoder(arg):
  """Two layers over the bytes, which see them all."""
  width = {'cpu': 128, 'smoke': 16}[arg]
  encoder = stack_lib.Stack(
      width=width,
      layers=2,
      mixers=(attention.Attention(kind='bidirectional'),),
  )
  values = config.to_config(encoder)
  values.kind = 'stack'
  return values
