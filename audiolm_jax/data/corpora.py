"""Corpora by name: build them, describe them, read them."""

from collections.abc import Sequence
import contextlib
import dataclasses
import difflib
import json
import os
import pathlib
import shlex
from typing import Annotated, Any

import numpy as np
import tensorflow_datasets as tfds

from audiolm_jax import config
from audiolm_jax.audio import files
from audiolm_jax.data import asterisk_prompts
from audiolm_jax.data import building
from audiolm_jax.data import catalogue
from audiolm_jax.data import espeak_sentences
from audiolm_jax.data import folder
from audiolm_jax.data import folder_listing
from audiolm_jax.data import paths
from audiolm_jax.data import splits
from audiolm_jax.data.speech_world import corpus as speech_world
from audiolm_jax.training import writers

BUILDERS: dict[str, type[building.CorpusBuilder]] = {
    'asterisk_prompts': asterisk_prompts.AsteriskPrompts,
    'espeak_sentences': espeak_sentences.EspeakSentences,
    'speech_world': speech_world.SpeechWorld,
}


CorpusError = building.CorpusError
# Clips that were left out; a folder may have any number of them.
_MOST_SHOWN = 200


@dataclasses.dataclass(frozen=True)
class Card:
  """What a built corpus (or one language of it) holds.

  Attributes:
    name: 'corpus/config'.
    licence: of the recordings.
    totals: split -> clips, transcribed, seconds, and seconds by speaker and by
      language.
    rejected: id and reason of every clip that was left out.
    text: what is to say of this corpus alone, in lines; '' for nothing.
  """

  name: str
  licence: str
  totals: dict[str, dict[str, Any]]
  rejected: list[dict[str, str]]
  text: str = ''

  def __str__(self) -> str:
    lines = [self.name, f'  licence: {self.licence}']
    lines += [f'  {line}' for line in self.text.splitlines()]
    for split, total in self.totals.items():
      lines.append(
          f"  {split:10s} {total['clips']:6d} clips"
          f" ({total['transcribed']} transcribed),"
          f" {total['seconds'] / 3600:.3f} h"
      )
    for field in ('speakers', 'languages'):
      seconds: dict[str, float] = {}
      for total in self.totals.values():
        for key, value in total[field].items():
          seconds[key] = seconds.get(key, 0.0) + value
      listed = sorted(seconds.items(), key=lambda item: -item[1])
      shown = ', '.join(
          f'{folder_listing.shown(key) or "(unknown)"} {value / 3600:.3f} h'
          for key, value in listed[:20]
      )
      more = f', and {len(listed) - 20} more' if len(listed) > 20 else ''
      lines.append(f'  {field} ({len(listed)}): {shown}{more}')
    lines.append(f'  left out: {len(self.rejected)}')
    lines += [
        folder_listing.shown(f"    {r['id']}: {r['reason']}")
        for r in self.rejected[:_MOST_SHOWN]
    ]
    if len(self.rejected) > _MOST_SHOWN:
      lines.append(f'    and {len(self.rejected) - _MOST_SHOWN} more')
    return '\n'.join(lines)


def prepare(
    name: str,
    languages: Sequence[str] | None = None,
    strict: bool = False,
    limit: int | None = None,
) -> list[Card]:
  """Builds a corpus into the cache, unless it is there already.

  Args:
    name: a name in `BUILDERS`, a folder of audio files, or a data set of the
      TFDS catalogue ('name/config'; needs the extra [tfds]).
    languages: which to build (only these are fetched), of a corpus that has
      configs of another kind their names; None for its default ones, or all.
    strict: whether a clip that can't be used ends the build.
    limit: at most so many clips of each split and language (for tests).

  Returns:
    The card of each language.

  Raises:
    CorpusError: for an unknown name or language.
    debian.CorpusUnavailable: if the files can't be had.
    building.RejectedClipError: see `strict`.
  """
  cards = []
  for builder in _builders(name, languages):
    if isinstance(builder, building.CorpusBuilder):
      builder.strict, builder.limit = strict, limit
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
    cards.append(_card(builder))
  return cards


def card(name: str, languages: Sequence[str] | None = None) -> list[Card]:
  """The cards of a corpus that has been built, one a language."""
  return [
      _card(_built(builder, name)) for builder in _builders(name, languages)
  ]


class Corpus:
  """Random access to the clips of one split.

  `corpus[i]` is a dict of id, prompt_id, text, speaker, language, the builder's
  further `FACTORS` (str), sample_rate (int) and audio (float32 [T, C] in
  [-1, 1]). It pickles as a
  description of itself, so worker processes open their own files.

  Attributes:
    build: what was built; of a folder that has changed, another.
  """

  def __init__(self, name: str, split: str, languages: tuple[str, ...] | None):
    self.name = name
    self.split = split
    self.languages = languages
    builders = [_built(b, name) for b in _builders(name, languages)]
    self._parts, self._builders = [], []
    for builder in builders:
      if split not in builder.info.splits:
        continue
      with _reading(builder):
        if isinstance(builder, building.CorpusBuilder):
          self._parts.append(builder.as_data_source(split))
        else:
          self._parts.append(catalogue.Part(builder, split))
      self._builders.append(builder)
    if not self._parts:
      known = sorted({s for b in builders for s in b.info.splits})
      raise CorpusError(f'{name} has no split {split!r}, but {known}.')
    self._starts = np.cumsum([0, *map(len, self._parts)])
    self.build = '+'.join(builder.info.full_name for builder in builders)
    self._index = (
        paths.cache_dir()
        / 'index'
        / self.build.replace('/', '-')
        / f'{split}-{len(self)}.json'
    )

  def __len__(self) -> int:
    return int(self._starts[-1])

  def __getitem__(self, index: int) -> dict[str, Any]:
    raw = self._raw(index)
    audio = files.to_float(raw['audio']).reshape(-1, int(raw['channels']))
    rate = int(raw['sample_rate'])
    return {**_factors(raw), 'audio': audio, 'sample_rate': rate}

  def factors(self, index: int) -> dict[str, str]:
    """What is known of a clip: `corpus[index]` without its audio."""
    return _factors(self._raw(index))

  def __reduce__(self):
    return Corpus, (self.name, self.split, self.languages)

  def seconds(self) -> np.ndarray:
    """[len] float64 durations; read once and kept in the cache directory."""
    try:
      seconds = np.asarray(json.loads(self._index.read_bytes()), np.float64)
      if seconds.shape == (len(self),):
        return seconds
    except (FileNotFoundError, ValueError, TypeError):
      pass  # Not made yet, or damaged.
    durations = []
    for i in range(len(self)):
      raw = self._raw(i)
      samples = raw['audio'].size // int(raw['channels'])
      durations.append(samples / int(raw['sample_rate']))
    self._index.parent.mkdir(parents=True, exist_ok=True)
    writers.write_atomically(self._index, json.dumps(durations))
    return np.asarray(durations)

  def _raw(self, index: int) -> dict[str, Any]:
    if not 0 <= index < len(self):
      raise IndexError(f'{index} is not in a corpus of {len(self)} clips.')
    part = int(np.searchsorted(self._starts, index, side='right')) - 1
    with _reading(self._builders[part]):
      return self._parts[part][index - int(self._starts[part])]


def place(name: str) -> str:
  """The name of a corpus, or the absolute path of a folder."""
  path = os.path.expanduser(name)
  if name in BUILDERS or not name or not os.path.isdir(path):
    return name
  return os.path.abspath(path)


# A field of a config.
Name = Annotated[str, config.Path(kept=place)]


def load_corpus(
    name: str, split: str, languages: Sequence[str] | None = None
) -> Corpus:
  """Opens one split of a corpus that has been built.

  Args:
    name: a name in `BUILDERS`, a folder of audio files, or a data set of the
      TFDS catalogue.
    split: 'train', 'validation' or 'test'.
    languages: which ones; None for all that the corpus has.

  Raises:
    CorpusError: for what is unknown or not built, with the command to build it.
  """
  return Corpus(name, split, tuple(languages) if languages else None)


@contextlib.contextmanager
def _reading(builder):
  """What the files of a built corpus do where they are damaged."""
  try:
    yield
  except (RuntimeError, OSError) as error:
    raise CorpusError(
        f'{builder.info.full_name} is damaged ({error}). Remove'
        f' {builder.data_path} and build it again with tools/prepare_data.py.'
    ) from error


def _factors(raw: dict[str, Any]) -> dict[str, str]:
  return {
      key: value.decode()
      for key, value in raw.items()
      if key not in ('audio', 'channels', 'sample_rate')
  }


def _builders(name, languages) -> list[building.CorpusBuilder]:
  """The builders of a corpus, one for each language."""
  paths.data_dir().mkdir(parents=True, exist_ok=True)
  options = dict(data_dir=paths.data_dir(), file_format='array_record')
  if name not in BUILDERS:
    builders = _elsewhere(name, options)
    if languages:
      raise CorpusError(
          f'{name} can not be filtered by languages ({", ".join(languages)}):'
          ' only corpora of one build a language can. Give none: no'
          ' --languages, or languages = () in a config.'
      )
    return [builders]
  cls = BUILDERS[name]
  known = [config.name for config in cls.BUILDER_CONFIGS]
  for language in languages or ():
    if language not in known:
      raise CorpusError(f'{name} has no language {language!r}, but {known}.')
  chosen = languages or cls.DEFAULT_CONFIGS or known
  return [cls(config=language, **options) for language in chosen]


def _elsewhere(name: str, options) -> tfds.core.DatasetBuilder:
  """The builder of a folder or of the catalogue."""
  path = os.path.expanduser(name)
  if name and os.path.isdir(path):
    root = folder.Root.of(pathlib.Path(path))
    return folder.Folder(config=root, **options)
  if builder := catalogue.builder(name):
    return builder
  near = difflib.get_close_matches(name, BUILDERS, n=1)
  raise CorpusError(
      f'There is no corpus, folder or TFDS data set {name[:200]!r}'
      + (' (a file, not a folder)' if os.path.isfile(path) else '')
      + '.'
      + (f' Did you mean {near[0]!r}?' if near else '')
      + f' There are {", ".join(sorted(BUILDERS))}, and folders of audio files.'
  )


def _built(builder, name: str):
  """The builder, if its data are there."""
  if not builder.is_prepared():
    which = ''
    if name in BUILDERS:
      which = f' --languages={builder.builder_config.name}'
    raise CorpusError(
        f'{builder.info.full_name} is not built in {paths.data_dir()}. Build it'
        f' with: python tools/prepare_data.py --corpus={shlex.quote(name)}'
        f'{which}'
    )
  return builder


def _card(builder) -> Card:
  metadata, text = builder.info.metadata, ''
  if not isinstance(builder, building.CorpusBuilder):
    metadata = {'rejected': [], 'totals': _totals(builder)}
  else:
    text = builder.card_text()
  names = [s for s in splits.SPLITS if s in metadata['totals']]
  names += [s for s in metadata['totals'] if s not in names]
  return Card(
      name=builder.info.full_name,
      licence=builder.info.redistribution_info.license or '(none given)',
      totals={split: metadata['totals'][split] for split in names},
      rejected=list(metadata['rejected']),
      text=text,
  )


def _totals(builder) -> dict[str, dict[str, Any]]:
  """What our own builders count as they build, by reading everything."""
  totals: dict[str, dict[str, Any]] = {}
  for split in builder.info.splits:
    part = catalogue.Part(builder, split)
    for i in range(len(part)):
      raw = part[i]
      seconds = raw['audio'].size / raw['channels'] / raw['sample_rate']
      building.count(totals, split, _factors(raw), seconds)
  return totals
