"""The quickstart's language model with one condition, in one place.

python -m audiolm_jax.main --config=configs/lm/conditioning.py:text_cross,cpu \
    --workdir=runs/conditioning/text_cross

The variants say which condition, and how it acts; all else is the quickstart's,
which is the model without conditions. They train on the tokens of
tools/quickstart.py (runs/quickstart/tokens; for others set
--config.data.cache); the size 'smoke' runs every line of them. One row in ten
has no condition, so that generation may be guided, and follow its condition
more closely than it learned to:

    python tools/generate.py --model=runs/conditioning/text_cross \
        --text='press one' --guidance=2 --out=one.wav
    python tools/generate.py --model=runs/conditioning/audio_prompt \
        --condition=prompt=voice.wav --guidance=2 --out=voice_too.wav

Hardware: `:VARIANT,cpu` 2 CPU cores. All were trained for their smoke budget
only. `:VARIANT,gpu` has the quickstart's budget for accelerators; it was built
and traced here, not run.
"""

from audiolm_jax import config
from audiolm_jax import train
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.data import asterisk_prompts
from audiolm_jax.data import clip_conditions
from audiolm_jax.data import factors
from audiolm_jax.decoders import conditioners
from audiolm_jax.training import config_files
from configs.lm import quickstart

# The condition, and how it acts; see `decoders.conditioners`.
VARIANTS = {
    # What a clip says, by cross-attention to its bytes, as MusicGen has it
    # (2306.05284), with an encoder that is trained along. A clip longer than a
    # row is cropped, and its text still is that of all of it.
    'text_cross': ('text', 'cross'),
    # The same as positions before the first frame: as a decoder-only model of
    # text and speech has it, but that the text is not predicted and has an
    # encoder of its own (compare configs/lm/text_to_speech.py).
    'text_prefix': ('text', 'prefix'),
    # A clip's language, which scales and shifts every branch (FiLM,
    # 1709.07871). At the start it changes nothing. The clips' voices differ
    # between languages, too.
    'language_film': ('language', 'film'),
    # A clip's language, as a vector added to the input of every step: the
    # cheapest way there is.
    'language_add': ('language', 'add'),
    # A clip's speaker, as one position before its first frame. Speakers that
    # are not in the list have the vector of no condition.
    'speaker_prefix': ('speaker', 'prefix'),
    # Three seconds of the same speaker in another clip, before the first frame.
    'audio_prompt': ('prompt', 'prefix'),
}
# What a backbone needs for each place.
NEEDS = {
    'add': {},
    'cross': {'cross': attention.Cross(heads=4)},
    'film': {'adaptive': 'film'},
    'prefix': {},
}


def conditioner(factor: str, how: str, size: str, dropout: float = 0.1):
  """What a decoder makes of a factor of clips.

  Args:
    factor: 'text', 'language', 'speaker', 'prompt', 'seconds_start' or
      'seconds_total'.
    how: see `decoders.conditioners`.
    size: 'smoke', 'cpu' or 'gpu'.
    dropout: share of the rows that are without it, in training.
  """
  small = size == 'smoke'
  if factor == 'text':
    # Of the quickstart's clips, one in a hundred has a longer text: it is cut.
    source = factors.Text(length=24 if small else 192)
    # Two layers over the bytes, which see them all.
    encoder = stack_lib.Stack(
        width=16 if small else 128,
        layers=2,
        mixers=(attention.Attention(mask_kind='bidirectional'),),
    )
    return conditioners.Text(
        source=source, how=how, dropout=dropout, encoder=encoder
    )
  if factor == 'prompt':
    source = factors.Codes(
        vocabularies=(1024,) * quickstart.CODEBOOKS,
        length=8 if small else 150,
    )
    return conditioners.Codes(source=source, how=how, dropout=dropout)
  if factor in clip_conditions.SECONDS:
    # What is longer counts as a minute.
    source = factors.Number(0.0, 60.0)
    return conditioners.Number(source=source, how=how, dropout=dropout)
  names = {
      'language': asterisk_prompts.LANGUAGES,
      'speaker': asterisk_prompts.SPEAKERS,
  }[factor]
  return conditioners.Class(
      source=factors.Name(names=names), how=how, dropout=dropout
  )


def get_config(arg: str = 'text_cross,cpu') -> train.Config:
  """The config; `arg` is one of `VARIANTS` and a size."""
  name, size = config_files.choose(arg, VARIANTS, config_files.SIZES)
  factor, how = VARIANTS[name]
  condition = conditioner(factor, how, size)
  needs = {f'objective.decoder.backbone.{k}': v for k, v in NEEDS[how].items()}
  return config.replace(
      quickstart.get_config(size),
      {
          f'objective.decoder.conditions.{factor}': condition,
          **needs,
      },
  )
