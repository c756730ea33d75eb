"""What questions about language models of speech tokens share: their stages.

Stages that are the same are run once, whichever question asks for them.
"""

from collections.abc import Mapping
import pathlib
from typing import Any

import audiolm_jax
from audiolm_jax import config
from audiolm_jax import evaluation
from audiolm_jax import train
from audiolm_jax.comparison import listening
from audiolm_jax.comparison import pipeline
from audiolm_jax.data import token_cache
from audiolm_jax.lab import pages
from audiolm_jax.lab import questions
from audiolm_jax.lab import stages
from audiolm_jax.tokenizers import base as tokenizers_base
from configs.codec import quickstart as codec_config
from configs.lm import quickstart

CORPUS = 'asterisk_prompts'
RATE = 'models.lm.schedule.learning_rate'
# Where a config says how long it trains.
LENGTH = ('steps', 'eval_every', 'checkpoint.every')
# Long clips are cut, which keeps the shapes to compile to three.
_MAX_FRAMES = 256
# What the token cache is called within its stage's directory.
_CACHE = '/tokens'


def languages(budget: str) -> tuple[str, ...]:
  """What tokenizers and base models know."""
  return codec_config.get_config(size(budget)).data.languages


def tokenizer(budget: str) -> stages.Train:
  """The quickstart's codec."""
  settings = codec_config.get_config(size(budget))
  return stages.Train(
      name='tokenizer', inputs=(corpus(budget),), config=_plain(settings)
  )


def corpus(budget: str) -> stages.Command:
  """Builds the clips that tokenizers know, in this machine's data folder."""
  return stages.Command(name='corpus', lines=(_prepare(languages(budget)),))


def _prepare(of: tuple[str, ...]) -> tuple[str, ...]:
  """The command that fetches and builds the clips of some languages."""
  return (
      'tools/prepare_data.py',
      f'--corpus={CORPUS}',
      f'--languages={",".join(of)}',
  )


def tokens(
    budget: str, of: tuple[str, ...] | None = None, name: str = 'tokens'
) -> stages.Command:
  """A cache of the codec's tokens.

  Args:
    budget: of the codec.
    of: languages that the codec does not know; None for those that it does.
    name: of the stage.
  """
  codec = tokenizer(budget)
  chosen = of or languages(budget)
  return stages.Command(
      name=name,
      inputs=(codec,),
      lines=(
          *([_prepare(of)] if of else []),
          (
              'tools/tokenize_audio.py',
              'corpus',
              f'--tokenizer={stages.output(codec.name)}',
              f'--corpus={CORPUS}',
              f'--languages={",".join(chosen)}',
              '--out={out}' + _CACHE,
              *(('--limit=60',) if budget == 'smoke' else ()),
          ),
      ),
  )


def lm(
    budget: str,
    cache: stages.Stage,
    changes: Mapping[str, Any] | None = None,
    name: str = 'lm',
    inputs: tuple[stages.Stage, ...] = (),
    settings: train.Config | None = None,
) -> stages.Train:
  """A language model of a cache's tokens.

  Args:
    budget: of the quickstart's config.
    cache: the stage that made them.
    changes: to the config, as `config.replace` takes them.
    name: of the stage.
    inputs: further ones.
    settings: the config, in place of the quickstart's.
  """
  settings = settings or quickstart.get_config(size(budget))
  settings = config.replace(
      _plain(settings),
      {
          'data.cache': path_of(cache),
          # Budgets are counted before there are tokens, which would say it.
          'objective.rate': spec(budget).frame_rate,
          **(changes or {}),
      },
  )
  return stages.Train(name=name, inputs=(cache, *inputs), config=settings)


def shortened(steps: int) -> dict[str, Any]:
  """Changes to the config that make a training that only trains shorter."""
  return dict.fromkeys(LENGTH, steps)


def path_of(cache: stages.Stage) -> str:
  """The path of a stage's tokens, as other stages' values have it."""
  return stages.output(cache.name) + _CACHE


def bits(
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
          max_frames=_MAX_FRAMES,
      ),
      baselines=counts,
  )


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


def _plain(settings: train.Config) -> train.Config:
  """A run that only trains: what measures it are stages of their own."""
  return config.replace(
      settings,
      {
          **shortened(settings.steps),
          'evaluators': {},
          'checkpoint.best': None,
      },
  )
