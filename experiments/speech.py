"""What questions about language models of speech tokens share: their stages.

Stages that are the same are run once, whichever question asks for them.
"""

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

import audiolm_jax
from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import evaluation
from audiolm_jax import train
from audiolm_jax.comparison import listening
from audiolm_jax.comparison import pipeline
from audiolm_jax.data import token_cache
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import speaking
from audiolm_jax.lab import pages
from audiolm_jax.lab import questions
from audiolm_jax.lab import stages
from audiolm_jax.tokenizers import base as tokenizers_base
from configs.codec import quickstart as codec_config
from configs.judge import recogniser
from configs.lm import quickstart

RATE = 'models.lm.schedule.learning_rate'
# Where a config says how long it trains.
LENGTH = ('steps', 'eval_every', 'checkpoint.every')
# What the token cache is called within its stage's directory.
_CACHE = '/tokens'


@dataclasses.dataclass(frozen=True)
class Corpus:
  """A corpus, the codec that is trained on it, and models of its tokens.

  Attributes:
    name: as `data.load_corpus` knows it.
    max_frames: held-out clips are cut to so many, which keeps the shapes to
      compile few.
  """

  name: str
  max_frames: int

  def languages(self, budget: str) -> tuple[str, ...]:
    """What the codec knows."""
    return codec_config.get_config(size(budget)).data.languages

  def spoken(self, budget: str) -> tuple[str, ...]:
    """What language models learn from."""
    return self.languages(budget)

  def rows(self, budget: str) -> dict[str, Any]:
    """Changes to the configs of language models: the rows that they train on."""
    del budget
    return {}

  def corpus(self, budget: str) -> stages.Command:
    """Builds the clips that the codec knows, in this machine's data folder."""
    return prepared('corpus', self.name, self.languages(budget))

  def heard(self, budget: str) -> stages.Command:
    """Builds the clips that language models learn from, and its test clips."""
    return prepared('heard', self.name, self.spoken(budget))

  def tokenizer(self, budget: str) -> stages.Train:
    """The quickstart's codec."""
    settings = config.replace(
        codec_config.get_config(size(budget)),
        {'data.corpus': self.name, 'data.languages': self.languages(budget)},
    )
    return stages.Train(
        name='tokenizer',
        inputs=(self.corpus(budget),),
        config=unmeasured(settings),
    )

  def tokens(
      self,
      budget: str,
      of: tuple[str, ...] | None = None,
      name: str = 'tokens',
  ) -> stages.Command:
    """A cache of the codec's tokens.

    Args:
      budget: of the codec.
      of: languages; None for those that language models learn from.
      name: of the stage.
    """
    return self.tokens_of(self.tokenizer(budget), budget, of, name)

  def tokens_of(
      self,
      codec: stages.Stage,
      budget: str,
      of: tuple[str, ...] | None = None,
      name: str = 'tokens',
  ) -> stages.Command:
    """As `tokens`, of another codec, which a stage trains."""
    chosen = of or self.spoken(budget)
    built = chosen == self.languages(budget)
    return stages.Command(
        name=name,
        inputs=(codec,),
        lines=(
            *([] if built else [_prepare(self.name, chosen)]),
            (
                'tools/tokenize_audio.py',
                'corpus',
                f'--tokenizer={stages.output(codec.name)}',
                f'--corpus={self.name}',
                f'--languages={",".join(chosen)}',
                '--out={out}' + _CACHE,
                *(('--limit=60',) if budget == 'smoke' else ()),
            ),
        ),
    )

  def lm(
      self,
      budget: str,
      cache: stages.Stage,
      changes: Mapping[str, Any] | None = None,
      name: str = 'lm',
      inputs: tuple[stages.Stage, ...] = (),
      settings: train.Config | None = None,
  ) -> stages.Train:
    """A language model of a cache's tokens.

    Args:
      budget: of the config.
      cache: the stage that made them.
      changes: to the config, as `config.replace` takes them.
      name: of the stage.
      inputs: further ones.
      settings: the config, in place of the quickstart's.
    """
    settings = settings or quickstart.get_config(size(budget))
    settings = config.replace(
        unmeasured(settings),
        {
            'data.cache': path_of(cache),
            # Budgets are counted before there are tokens, which would say it.
            'objective.rate': spec(budget).frame_rate,
            **self.rows(budget),
            **(changes or {}),
        },
    )
    return stages.Train(name=name, inputs=(cache, *inputs), config=settings)

  def bits(
      self,
      split: str,
      clips: int | None,
      cache: stages.Stage | None = None,
      counts: bool = False,
  ) -> evaluation.Bits:
    """Bits a frame of a split.

    Args:
      split: of the cache.
      clips: how many, None for all.
      cache: the stage that made it; None for the model's own.
      counts: whether to score count-based models beside.
    """
    return evaluation.Bits(
        clips=evaluation.TokenClips(
            cache=cache and path_of(cache),
            split=split,
            limit=clips,
            max_frames=self.max_frames,
        ),
        baselines=counts,
    )

  def held_out(self, clips: int | None) -> dict[str, Any]:
    """Evaluators of the test split: bits, beside count-based models."""
    return {'test': self.bits('test', clips, counts=True)}

  def outcomes(self) -> tuple[questions.Outcome, ...]:
    """What may be claimed of `held_out` beside bits."""
    return ()

  def references(self) -> dict[str, str]:
    """Metrics of `held_out` that are the same for all models, by label."""
    return {
        'unigram': 'eval/test/unigram/bits_per_frame',
        'interpolated bigram': 'eval/test/bigram/bits_per_frame',
    }


class World(Corpus):
  """speech_world: its codec and its language models know other speakers."""

  def languages(self, budget: str) -> tuple[str, ...]:
    return (f'sentences-tokenizer-clean-{self._clips(budget)}',)

  def spoken(self, budget: str) -> tuple[str, ...]:
    return (f'sentences-lm-clean-{self._clips(budget)}',)

  def _clips(self, budget):
    return {'smoke': 400, 'cpu': 4000, 'gpu': 40000}[size(budget)]

  def rows(self, budget: str) -> dict[str, Any]:
    # Sentences last longer than prompts: rows that hold most of them, and
    # about as many frames a batch.
    return {'data.frames': 192, 'batch_size': 6} if budget == 'cpu' else {}

  def held_out(self, clips: int | None) -> dict[str, Any]:
    known = evaluation.KnownBits(
        clips=evaluation.TokenClips(split='test', limit=clips)
    )
    pairs = evaluation.GrammarPairs(language='sentences', count=clips or 200)
    return {**super().held_out(clips), 'known': known, 'pairs': pairs}

  def outcomes(self) -> tuple[questions.Outcome, ...]:
    return (
        questions.Outcome(
            'pairs',
            'eval/pairs/pairs',
            'share',
            'of sentences that are likelier than the same with a verb of the'
            ' wrong number, said by the same voice; chance is 1/2',
            better='higher',
        ),
    )

  def references(self) -> dict[str, str]:
    return {
        **super().references(),
        'known: the text': 'eval/known/text_bits_per_frame',
        'known: all that was drawn': 'eval/known/bits_per_frame',
    }


PROMPTS = Corpus('asterisk_prompts', 256)
WORLD = World('speech_world', 192)
# What a question may be asked of, by its variant.
CORPORA = {'': PROMPTS, WORLD.name: WORLD}


def prepared(
    name: str, corpus: str, languages: tuple[str, ...]
) -> stages.Command:
  """Fetches and builds the clips of some languages, in this machine's folder.

  Args:
    name: of the stage.
    corpus: as `data.load_corpus` knows it.
    languages: which.
  """
  return stages.Command(name=name, lines=(_prepare(corpus, languages),))


def _prepare(corpus, languages):
  """The command that fetches and builds clips."""
  return (
      'tools/prepare_data.py',
      f'--corpus={corpus}',
      f'--languages={",".join(languages)}',
  )


def phone_recogniser(budget: str, steps: int) -> stages.Train:
  """Trains a recogniser of phones of the speakers that codecs know.

  It has heard no speaker of language models, nor of their tests, and no words. It
  teaches codecs or judges language models: nothing that it taught.

  Args:
    budget: of its config.
    steps: how long.
  """
  settings = recogniser.get_config(f'teacher,{size(budget)}')
  return stages.Train(
      name='teacher',
      inputs=(prepared('syllables', WORLD.name, settings.data.languages),),
      config=unmeasured(settings, steps),
  )


def lasting(steps: int) -> dict[str, Any]:
  """Changes to the config of a run that only trains: so many steps."""
  return dict.fromkeys(LENGTH, steps)


def path_of(cache: stages.Stage) -> str:
  """The path of a stage's tokens, as other stages' values have it."""
  return stages.output(cache.name) + _CACHE


def measure(
    name: str,
    evaluators: Mapping[str, Any],
    inputs: tuple[stages.Stage, ...] = (),
) -> questions.Measure:
  """What evaluates a model.

  Args:
    name: of the stage.
    evaluators: by name.
    inputs: stages that they read beside the model.
  """
  return lambda model: stages.Evaluate(
      name=name, inputs=(model, *inputs), evaluators=evaluators
  )


def spec(budget: str) -> tokenizers_base.Spec:
  """Of the codec, with the codebooks that language models have of it."""
  whole = codec_config.get_config(size(budget)).objective.tokenizer.spec
  slots = whole.slots[: quickstart.CODEBOOKS]
  return tokenizers_base.Spec(**{**vars(whole), 'slots': slots})


def listen(cache: stages.Stage, prompts: int) -> questions.Measure:
  """What lets a model go on from held-out prompts.

  Args:
    cache: with the prompts.
    prompts: how many.
  """
  codec = cache.chain['tokenizer']
  return lambda model: stages.Function(
      name='samples',
      inputs=(model, cache, codec),
      function=continuations,
      arguments={
          'model': stages.output(model.name),
          'cache': path_of(cache),
          'tokenizer': stages.output(codec.name),
          'prompts': prompts,
      },
  )


def hear_first_codes(
    corpus: Corpus, budget: str, clips: int
) -> questions.Measure:
  """What reconstructs held-out clips from their first codes, and from all.

  Args:
    corpus: with the clips.
    budget: of the corpus.
    clips: how many.
  """
  return lambda codec: stages.Function(
      name='samples',
      inputs=(codec, corpus.heard(budget)),
      function=reconstructions,
      arguments={
          'codec': stages.output(codec.name),
          'corpus': corpus.name,
          'languages': list(corpus.spoken(budget)),
          'clips': clips,
      },
  )


def reconstructions(
    directory: pathlib.Path,
    inputs: stages.Directories,
    codec: str,
    corpus: str,
    languages: list[str],
    clips: int,
) -> dict[str, Any]:
  """Writes clips from their first codes, and from all; see `stages.Function`."""
  del inputs
  tokenizer = audiolm_jax.load(codec)
  held_out = data.load_corpus(corpus, 'test', languages)
  chosen = evaluation_base.spaced(len(held_out), clips)
  items = []
  for clip in speaking.of_corpus(held_out, chosen):
    for codebooks, note in ((None, 'all codes'), (1, 'the first codes alone')):
      heard = speaking.reconstructed(tokenizer, clip, codebooks)
      items.append(
          listening.Item(
              f'{clip.item}: {note}',
              heard.audio[:, 0],
              heard.sample_rate,
              f'{clip.text}, from {note}',
          )
      )
  listening.write(directory / pages.HEARD, items)
  return {}


def continuations(
    directory: pathlib.Path,
    inputs: stages.Directories,
    model: str,
    cache: str,
    tokenizer: str,  # pylint: disable=redefined-outer-name
    prompts: int,
) -> dict[str, Any]:
  """Writes prompts with their continuations; see `stages.Function`."""
  del inputs
  codec = audiolm_jax.load(tokenizer)
  heard = pipeline.continuations(
      token_cache.TokenCache(cache, 'test', codec.fingerprint()),
      codec,
      audiolm_jax.load(model),
      prompts,
  )
  listening.write(directory / pages.HEARD, heard)
  return {}


def size(budget: str) -> str:
  """Of config files, which know no pods."""
  return 'gpu' if budget == 'pod' else budget


def unmeasured(
    settings: train.Config, steps: int | None = None
) -> train.Config:
  """A run that only trains: what measures it are stages of their own.

  Args:
    settings: of a run.
    steps: how many; None for as many as it has.
  """
  return config.replace(
      settings,
      {
          **lasting(steps or settings.steps),
          'evaluators': {},
          'checkpoint.best': None,
      },
  )
