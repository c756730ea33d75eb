"""The map of the open questions: `python -m experiments.run --list`."""

import pathlib

from audiolm_jax.lab import pages

_HERE = pathlib.Path(__file__).absolute().parent
QUESTIONS = {
    'soft_vs_hard_tokens': 'continuous latents or discrete tokens?',
    'codebook_patterns': 'how to factorise the codebooks of a frame?',
    'speaker_side_channel': 'should identity be side-channelled?',
    'cross_modal': (
        'generalise across speech, sounds and music, or specialise?'
    ),
    'ar_vs_diffusion': 'autoregression or diffusion?',
    'adaptation': 'full fine-tuning, LoRA, or history in the context?',
    'few_shot': 'how data-efficient is adaptation?',
    'multichannel_tokens': 'sources one by one, or jointly with space?',
    'asymmetric_tokens': 'rich tokens in, only speech tokens out?',
    'channel_separated_data': 'does training on separated channels help?',
    'non_reconstructive': 'tokens of content and prosody only?',
    'synthetic_data': 'how far do synthetic data and augmentation carry?',
    'gpt2_to_gpt_oss': 'which modern LM ingredients matter for audio?',
    'sft_vs_rl': 'what does preference learning buy over imitation?',
    'cross_modal_reasoning': (
        'does text-only reasoning tuning transfer to audio?'
    ),
    'chain_of_thought': 'does thinking before or while speaking help?',
    'full_duplex': 'two always-on streams, or turns?',
    'state_spaces': 'state spaces or attention?',
    'semantic_distillation': 'what does distilling semantics buy?',
    'text_to_music': 'hierarchical text -> semantic -> acoustic, or one stage?',
    'text_to_sound': (
        'text to sound effects with duration, loop and prompt influence'
    ),
    'separation': 'separate by tokens or by masks?',
}
_PAGE = """# The open questions

Each is a folder here once it has been asked; [template](template/__init__.py) is
the least one, and [docs/experiments.md](../docs/experiments.md) says how to ask.
This page is written by `python -m experiments.run --question=... --publish`.

{table}
"""


def text() -> str:
  """The map, in Markdown."""
  return pages.overview(QUESTIONS, _HERE)


def page() -> str:
  """What experiments/README.md holds."""
  return _PAGE.format(table=text())
