"""Synthetic speech: sentences of a small grammar, parallel in six languages.

Spoken by eSpeak NG from its PyPI wheel, so it needs no network and no system
package: the fallback where real speech can't be fetched, and tests' corpus.
"""

from collections.abc import Iterable
import dataclasses
import itertools
import random

import tensorflow_datasets as tfds

from audiolm_jax.audio import files
from audiolm_jax.data import building
from audiolm_jax.data import espeak_engine
from audiolm_jax.data import splits

SENTENCES = 600
_FRACTIONS = {'test': 0.2, 'validation': 0.1}

# Who does what, where and when: any combination is a sentence, and the same
# positions mean the same in every language.
_GRAMMAR = {
    'en': (
        'the doctor,my sister,the old teacher,a young woman,our neighbour,'
        'the tall man',
        'buys,looks for,finds,sells,forgets,brings',
        'a red book,fresh bread,the small key,three apples,a warm coat,'
        'an old clock',
        'at the market,near the station,in the garden,behind the house,'
        'in the city',
        'every morning,on Sunday,today,in winter',
    ),
    'es': (
        'el médico,mi hermana,el viejo profesor,una mujer joven,'
        'nuestro vecino,el hombre alto',
        'compra,busca,encuentra,vende,olvida,trae',
        'un libro rojo,pan fresco,la llave pequeña,tres manzanas,'
        'un abrigo caliente,un reloj viejo',
        'en el mercado,cerca de la estación,en el jardín,detrás de la casa,'
        'en la ciudad',
        'cada mañana,el domingo,hoy,en invierno',
    ),
    'fr': (
        'le médecin,ma sœur,le vieux professeur,une jeune femme,'
        'notre voisin,le grand homme',
        'achète,cherche,trouve,vend,oublie,apporte',
        'un livre rouge,du pain frais,la petite clé,trois pommes,'
        'un manteau chaud,une vieille horloge',
        'au marché,près de la gare,dans le jardin,derrière la maison,en ville',
        "chaque matin,le dimanche,aujourd'hui,en hiver",
    ),
    'it': (
        'il medico,mia sorella,il vecchio maestro,una giovane donna,'
        "il nostro vicino,l'uomo alto",
        'compra,cerca,trova,vende,dimentica,porta',
        'un libro rosso,pane fresco,la piccola chiave,tre mele,'
        'un cappotto caldo,un vecchio orologio',
        'al mercato,vicino alla stazione,nel giardino,dietro la casa,in città',
        'ogni mattina,la domenica,oggi,in inverno',
    ),
    'ru': (
        'врач,моя сестра,старый учитель,молодая женщина,наш сосед,'
        'высокий мужчина',
        'покупает,ищет,находит,продаёт,забывает,приносит',
        'красную книгу,свежий хлеб,маленький ключ,три яблока,'
        'тёплое пальто,старые часы',
        'на рынке,около вокзала,в саду,за домом,в городе',
        'каждое утро,в воскресенье,сегодня,зимой',
    ),
    'de': (
        'der Arzt,meine Schwester,der alte Lehrer,eine junge Frau,'
        'unser Nachbar,der große Mann',
        'kauft,sucht,findet,verkauft,vergisst,bringt',
        'ein rotes Buch,frisches Brot,den kleinen Schlüssel,drei Äpfel,'
        'einen warmen Mantel,eine alte Uhr',
        'auf dem Markt,am Bahnhof,im Garten,hinter dem Haus,in der Stadt',
        'jeden Morgen,am Sonntag,heute,im Winter',
    ),
}
LANGUAGES = tuple(_GRAMMAR)

# Variant -> words a minute and pitch. Only variants (Klatt synthesis) whose
# output does not depend on what was spoken before, so that any clip can be made
# again alone.
_SPEAKERS = {
    'adam': (150, 45),
    'david': (160, 60),
    'edward2': (170, 50),
    'klatt6': (145, 55),
}


@dataclasses.dataclass(kw_only=True)
class Language(tfds.core.BuilderConfig):
  """One language, named by its ISO 639-1 code."""


class EspeakSentences(building.CorpusBuilder, skip_registration=True):
  """eSpeak NG's voices; one config a language, split alike in all."""

  name = 'espeak_sentences'
  BUILDER_CONFIGS = [Language(name=language) for language in LANGUAGES]
  DESCRIPTION = 'Sentences of a small grammar spoken by eSpeak NG, 22.05 kHz.'
  HOMEPAGE = 'https://github.com/espeak-ng/espeak-ng'
  LICENSE = 'Synthetic; the engine (eSpeak NG) is GPL-3.0-or-later.'

  def clips(self) -> Iterable[building.Clip]:
    language = self.builder_config.name
    prompts = sentences(language)
    assigned = splits.assign(
        {prompt: [text] for prompt, text in prompts.items()}, _FRACTIONS
    )
    for i, (prompt, text) in enumerate(prompts.items()):
      speaker = list(_SPEAKERS)[i % len(_SPEAKERS)]
      yield building.Clip(
          id=f'{language}/{prompt}',
          split=assigned[prompt],
          prompt_id=prompt,
          text=text,
          speaker=f'espeak_{speaker.lower()}',
          language=language,
          source=(text, f'{language}+{speaker}', *_SPEAKERS[speaker]),
      )

  def load(self, clip: building.Clip):
    audio, rate = espeak_engine.speak(*clip.source)
    return files.to_float(audio)[:, None], rate


def sentences(language: str, count: int = SENTENCES) -> dict[str, str]:
  """Prompt id -> sentence; an id stands for the same meaning everywhere."""
  parts = [column.split(',') for column in _GRAMMAR[language]]
  choices = list(itertools.product(*(range(len(part)) for part in parts)))
  random.Random(0).shuffle(choices)
  result = {}
  for choice in choices[:count]:
    words = ' '.join(part[i] for part, i in zip(parts, choice, strict=True))
    prompt = '-'.join(map(str, choice))
    result[prompt] = words[0].upper() + words[1:] + '.'
  return result
