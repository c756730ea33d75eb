"""Anyone's own audio: a folder of files, with or without transcripts."""

from collections.abc import Iterable
import csv
import dataclasses
import hashlib
import pathlib

import tensorflow_datasets as tfds

from audiolm_jax.audio import files
from audiolm_jax.data import building
from audiolm_jax.data import splits

_FRACTIONS = {'test': 0.1, 'validation': 0.1}
_TABLES = {'metadata.csv': ',', 'metadata.tsv': '\t'}


@dataclasses.dataclass(kw_only=True)
class Root(tfds.core.BuilderConfig):
  """A folder; the name tells folders (and changed contents) apart."""

  path: pathlib.Path

  @classmethod
  def of(cls, path: pathlib.Path) -> 'Root':
    """The config of a folder as it is now."""
    path = path.expanduser().resolve()
    listing = hashlib.sha256(str(path).encode())
    for file in _files(path):
      listing.update(f'{file}:{file.stat().st_size}'.encode())
    for table in _TABLES:
      if (path / table).exists():
        listing.update((path / table).read_bytes())
    safe = ''.join(c if c.isalnum() else '_' for c in path.name)
    return cls(name=f'{safe}-{listing.hexdigest()[:12]}', path=path)


class Folder(building.CorpusBuilder, skip_registration=True):
  """All audio files below a folder, at their own rates and channel counts.

  A transcript is FILE.txt beside FILE.wav, or a row of metadata.csv (or .tsv)
  in the root with a heading: `file` and any of text, speaker, language, split.
  Without a `split`, the folders train/, validation/ and test/ in the root are
  the splits, and without those a hash of what is said (or of the file's name).
  """

  name = 'folder'
  # TFDS asks for one; `Root.of` makes the real ones.
  BUILDER_CONFIGS = []
  DESCRIPTION = 'A folder of audio files.'
  LICENSE = "the owner's"

  def clips(self) -> Iterable[building.Clip]:
    root = self.builder_config.path
    rows = _metadata(root)
    found = {path.relative_to(root).as_posix(): path for path in _files(root)}
    texts = {}
    for name, path in found.items():
      beside = path.with_suffix('.txt')
      text = rows.get(name, {}).get('text', '')
      if not text and beside.exists():
        text = beside.read_text(encoding='utf-8')
      texts[name] = ' '.join(text.split())
    assigned = splits.assign(
        {name: [text] for name, text in texts.items()}, _FRACTIONS
    )
    for name, path in found.items():
      row = rows.get(name, {})
      top = name.split('/')[0]
      split = row.get('split') or (
          top if top in splits.SPLITS else assigned[name]
      )
      if split not in splits.SPLITS:
        raise ValueError(
            f'{root}: {name} has the split {split!r}; known: {splits.SPLITS}.'
        )
      yield building.Clip(
          id=name,
          split=split,
          prompt_id=splits.normalize(texts[name]) or name,
          text=texts[name],
          speaker=row.get('speaker', ''),
          language=row.get('language', ''),
          source=path,
      )

  def load(self, clip: building.Clip):
    return files.read(clip.source)


def _files(root: pathlib.Path) -> list[pathlib.Path]:
  if not root.is_dir():
    raise NotADirectoryError(f'{root} is not a folder of audio files.')
  return sorted(
      path for path in root.rglob('*') if path.suffix.lower() in files.SUFFIXES
  )


def _metadata(root: pathlib.Path) -> dict[str, dict[str, str]]:
  """file -> row of the metadata table, if there is one."""
  for table, delimiter in _TABLES.items():
    if (root / table).exists():
      with (root / table).open(newline='', encoding='utf-8-sig') as lines:
        rows = list(csv.DictReader(lines, delimiter=delimiter))
      if rows and 'file' not in rows[0]:
        raise ValueError(
            f'{root / table}: no column "file" in {list(rows[0])}.'
        )
      return {
          row['file']: {k: v or '' for k, v in row.items() if k} for row in rows
      }
  return {}
