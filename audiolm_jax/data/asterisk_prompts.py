"""Telephone prompts in five languages: 2 h of 16 kHz speech with transcripts.

Asterisk's core sounds, from Debian's packages: English and Mexican Spanish (one
voice), Canadian French, Italian, Russian; the same prompts in each.
"""

from collections.abc import Iterable
import dataclasses
import gzip
import pathlib
import re

import tensorflow_datasets as tfds

from audiolm_jax.audio import files
from audiolm_jax.data import building
from audiolm_jax.data import debian
from audiolm_jax.data import splits

_MIRROR = 'http://deb.debian.org/debian/pool/main/a/asterisk-core-sounds/'

# Language -> (folder of its sounds, voice).
_VOICES = {
    'en': ('en_US_f_Allison', 'allison_smith'),
    'es': ('es_MX_f_Allison', 'allison_smith'),
    'fr': ('fr_CA_f_June', 'june_wallack'),
    'it': ('it_IT_m_Carlo', 'carlo_flora'),
    'ru': ('ru_RU_f_IvrvoiceRU', 'maxim_topal'),
}
LANGUAGES = tuple(_VOICES)
SPEAKERS = tuple(sorted({voice for _, voice in _VOICES.values()}))

# Prompts that hold no speech in any language, besides the folder silence/.
_TONES = frozenset(
    {
        'ascending-2tone',
        'beep',
        'beeperr',
        'confbridge-join',
        'confbridge-leave',
        'descending-2tone',
        'tt-monkeys',
    }
)
# Of the prompts. English has 60 test sentences of a second or more only if a
# bit over a fifth is held out.
_FRACTIONS = {'test': 0.22, 'validation': 0.1}


@dataclasses.dataclass(kw_only=True)
class Language(tfds.core.BuilderConfig):
  """One language, named by its ISO 639-1 code."""


class AsteriskPrompts(building.CorpusBuilder, skip_registration=True):
  """Asterisk's core sounds; one config a language, split alike in all."""

  name = 'asterisk_prompts'
  BUILDER_CONFIGS = [Language(name=language) for language in LANGUAGES]
  DESCRIPTION = 'Telephone prompts of Asterisk, 16 kHz, with transcripts.'
  HOMEPAGE = 'https://packages.debian.org/source/sid/asterisk-core-sounds'
  LICENSE = (
      'en, es: (c) Allison Smith, CC-BY-SA-3.0; fr: (c) June Wallack,'
      ' CC-BY-SA-3.0; it: (c) Carlo Flora, CC-BY-3.0; ru: (c) Maxim Topal,'
      ' CC-BY-3.0'
  )

  def clips(self) -> Iterable[building.Clip]:
    language = self.builder_config.name
    # The transcripts of all languages (24 kB each) decide on the splits, so
    # that a prompt is in the same one everywhere.
    trees = debian.unpack(
        [
            *(f'asterisk-core-sounds-{other}' for other in LANGUAGES),
            f'asterisk-core-sounds-{language}-g722',
        ],
        _MIRROR,
    )
    texts = {
        other: transcripts(trees[f'asterisk-core-sounds-{other}'], other)
        for other in LANGUAGES
    }
    folder, speaker = _VOICES[language]
    root = (
        trees[f'asterisk-core-sounds-{language}-g722']
        / 'usr/share/asterisk/sounds'
        / folder
    )
    sounds = {
        path.relative_to(root).with_suffix('').as_posix(): path
        for path in sorted(root.rglob('*.g722'))
    }
    prompts: dict[str, list[str]] = {}
    for other in LANGUAGES:
      for prompt, text in texts[other].items():
        prompts.setdefault(prompt, []).append(text)
    for name in sounds:
      prompts.setdefault(name.lower(), [])
    assigned = splits.assign(prompts, _FRACTIONS)
    for name, path in sounds.items():
      prompt = name.lower()
      if prompt in _TONES or prompt.startswith('silence/'):
        continue
      yield building.Clip(
          id=f'{language}/{name}',
          split=assigned[prompt],
          prompt_id=prompt,
          text=texts[language].get(prompt, ''),
          speaker=speaker,
          language=language,
          source=path,
      )

  def load(self, clip: building.Clip):
    return files.read(clip.source, strict=True)


def transcripts(tree: pathlib.Path, language: str) -> dict[str, str]:
  """Prompt id -> what is said, from a package's list; notes are taken out."""
  path = (
      tree
      / f'usr/share/doc/asterisk-core-sounds-{language}'
      / f'core-sounds-{language}.txt.gz'
  )
  result = {}
  with gzip.open(path, 'rt', encoding='utf-8-sig') as lines:
    for line in lines:
      prompt, colon, text = line.partition(':')
      if colon and not line.startswith(';'):
        # '(...)', '[...]' and '<...>' hold notes, such as <beep ascending>.
        text = re.sub(r'\([^)]*\)|\[[^]]*\]|<[^>]*>', ' ', text)
        result[prompt.strip().lower()] = ' '.join(text.replace('"', '').split())
  return result
