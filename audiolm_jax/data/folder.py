"""Anyone's own audio: a folder of files, with or without transcripts."""

from collections.abc import Iterable
import contextlib
import dataclasses
import math
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from audiolm_jax.audio import checks
from audiolm_jax.audio import files
from audiolm_jax.data import building
from audiolm_jax.data import folder_listing
from audiolm_jax.data import splits

# Longer files become several clips, of at most so many seconds each.
_LONGEST, _PIECE = 40.0, 20.0


@dataclasses.dataclass(kw_only=True)
class Root(tfds.core.BuilderConfig):
  """A folder; the name tells folders (and changed contents) apart."""

  path: pathlib.Path

  @classmethod
  def of(cls, path: pathlib.Path) -> 'Root':
    """The config of a folder as it is now."""
    path = path.expanduser().resolve()
    safe = ''.join(c if c.isalnum() else '_' for c in path.name)[:40]
    digest = folder_listing.fingerprint(path)
    return cls(name=f'{safe}-{digest[:12]}', path=path)


@dataclasses.dataclass(frozen=True)
class _Source:
  """Samples `start` to `stop` of a file; None for all that are left."""

  path: pathlib.Path
  start: int = 0
  stop: int | None = None


@dataclasses.dataclass(frozen=True)
class _Recording:
  """A file that can be used, as far as it was looked at."""

  path: pathlib.Path
  rate: int
  samples: int

  @property
  def seconds(self) -> float:
    return self.samples / self.rate


class Folder(building.CorpusBuilder, skip_registration=True):
  """All audio files below a folder, at their own rates and channel counts.

  A transcript is FILE.txt beside FILE.wav, or a row of metadata.csv (or .tsv)
  in the root with a heading: `file` and any of text, speaker, language, split.
  All text is UTF-8.

  Without a `split`, the folders train/, validation/ and test/ in the root are
  the splits, and without those a hash of what is said (or of the file's name).
  Of fewer than 100 files the first by that hash are held out, at least a tenth
  of all audio for each split; where that can't be had of whole files, the last
  fifth of each is.

  Files over 40 s become clips of at most 20 s, all in one split; those have no
  transcript, as theirs is of the whole. Of one that is cut off what is there is
  taken, unless the build is strict; shorter files that are cut off are left out.
  """

  name = 'folder'
  # TFDS asks for one; `Root.of` makes the real ones.
  BUILDER_CONFIGS = []
  DESCRIPTION = 'A folder of audio files.'
  LICENSE = "the owner's"
  _reader = None

  def clips(self) -> Iterable[building.Clip]:
    root = self.builder_config.path
    listing = folder_listing.listing(root)
    table = folder_listing.table(root)
    named = [*listing.audio, *listing.refused]
    ignored = [*table.ignored, *table.unmatched(named)]
    for what, reason in [*listing.refused.items(), *ignored]:
      self.reject(what, reason)
    texts, unused = folder_listing.texts(listing, table, root)
    for what, reason in unused:
      self.reject(what, reason)
    recordings = self._recordings({n: listing.audio[n] for n in texts})
    texts = {name: texts[name] for name in recordings}
    chosen = splits.of_files(
        {name: recording.seconds for name, recording in recordings.items()},
        texts,
        {name: table.row(name).get('split', '') for name in recordings},
        divisible=True,
    )
    apart = not chosen
    for name, recording in recordings.items():
      cut = apart or recording.seconds > _LONGEST
      text = texts[name]
      if cut and text:
        text = ''
        self.reject(
            f'the transcript of {folder_listing.shown(name)}',
            'the file is cut into clips, and it is of the whole',
        )
      split = chosen.get(name, 'train')
      row = table.row(name)
      for part, source, suffix in _pieces(recording, split, cut, apart):
        yield building.Clip(
            id=name + suffix,
            split=part,
            prompt_id=splits.normalize(text) or name + suffix,
            text=text,
            speaker=row.get('speaker', ''),
            language=row.get('language', ''),
            source=source,
        )

  def load(self, clip: building.Clip):
    source = clip.source
    if source.stop is None:
      return files.read(source.path, strict=True)
    # The clips of a file come one after the other: it is decoded once.
    if self._reader is None or not self._reader.has(source):
      self._close()
      self._reader = _Reader(source.path, self.strict)
    try:
      return self._reader.take(source), self._reader.rate
    except files.AudioFileError:
      self._close()
      raise

  def _generate_examples(self, clips):
    try:
      yield from super()._generate_examples(clips)
    finally:
      self._close()

  def _close(self):
    if self._reader is not None:
      self._reader.close()
      self._reader = None

  def _recordings(self, paths) -> dict[str, _Recording]:
    """The files that can be used."""
    recordings = {}
    for name, path in paths.items():
      try:
        recording, fault = _look(path, len(paths) < splits.FEW, self.strict)
      except files.AudioFileError as error:
        fault = str(error)
      if fault:
        self.reject(folder_listing.shown(name), fault)
      else:
        recordings[name] = recording
    return recordings


class _Reader:
  """Reads parts of a file in the order in which they are in it."""

  def __init__(self, path: pathlib.Path, strict: bool):
    self._path = path
    with contextlib.ExitStack() as stack:
      decoded = stack.enter_context(files.decoding(path, strict=strict))
      self._stack = stack.pop_all()
    self.rate = decoded.rate
    self._blocks = decoded.blocks
    self._block = np.zeros((0, decoded.channels), np.float32)
    self._position = 0

  def has(self, source: _Source) -> bool:
    return self._path == source.path and self._position <= source.start

  def take(self, source: _Source) -> np.ndarray:
    """[T, C], fewer than asked for where the file ends."""
    self._next(source.start - self._position)
    return np.concatenate(self._next(source.stop - source.start))

  def _next(self, count: int) -> list[np.ndarray]:
    taken = [self._block[:0]]
    while count:
      if not len(self._block):
        block = next(self._blocks, None)
        if block is None:
          break
        self._block = block
      taken.append(self._block[:count])
      self._block = self._block[count:]
      self._position += len(taken[-1])
      count -= len(taken[-1])
    return taken

  def close(self):
    self._stack.close()


def _look(
    path, thorough: bool, strict: bool
) -> tuple[_Recording | None, str | None]:
  """A file's length, and what keeps it out of the corpus.

  Long files are never held in memory; their faults are those of the clips.
  """
  with files.decoding(path) as decoded:
    rate, seconds = decoded.rate, decoded.seconds
  long = bool(seconds) and seconds > _LONGEST
  if seconds and not long and not thorough:
    return _Recording(path, rate, math.ceil(seconds * rate)), None
  with files.decoding(path, strict=strict or not long) as decoded:
    kept, samples = [], 0
    for block in decoded.blocks:
      samples += len(block)
      if samples <= _LONGEST * rate:
        kept.append(block)
      else:
        kept.clear()
  if samples > _LONGEST * rate:
    return _Recording(path, rate, samples), None
  audio = np.concatenate([np.zeros((0, decoded.channels), np.float32), *kept])
  fault = checks.fault(audio, rate, building.MIN_SECONDS)
  return _Recording(path, rate, samples), fault


def _pieces(recording, split, cut, apart):
  """(split, source, what an id gets) of the clips of a recording."""
  if not cut:
    yield split, _Source(recording.path), ''
    return
  parts = {split: recording.seconds}
  if apart:
    # Of little audio too, something to score.
    held = max(recording.seconds / 10, min(1.0, recording.seconds / 4))
    parts = {
        'train': recording.seconds - 2 * held,
        'validation': held,
        'test': held,
    }
  start = 0.0
  for part, seconds in parts.items():
    count = math.ceil(seconds / _PIECE - 1e-6)
    for i in range(count):
      first = start + seconds * i / count
      last = start + seconds * (i + 1) / count
      bounds = [round(t * recording.rate) for t in (first, last)]
      yield (
          part,
          _Source(recording.path, *bounds),
          f'@{first:.1f}-{last:.1f}s',
      )
    start += seconds
