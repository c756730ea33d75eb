"""What is in a person's folder: audio, transcripts, a table; and what is amiss.

Nothing here trusts a folder: names may not be text, links may lead nowhere, and
what looks like a file may be a pipe that never ends.
"""

from collections.abc import Iterable, Iterator
import csv
import dataclasses
import difflib
import hashlib
import io
import os
import pathlib
import stat
import unicodedata

from audiolm_jax.audio import files
from audiolm_jax.data import building
from audiolm_jax.data import splits

TABLES = {'metadata.csv': ',', 'metadata.tsv': '\t'}
COLUMNS = ('file', 'text', 'speaker', 'language', 'split')
# An hour's transcript has 60 kB.
_MOST_TEXT = 2**20


class _UnreadableError(Exception):
  """A text that can't be read; the message says which and why."""


@dataclasses.dataclass(frozen=True)
class Listing:
  """The files below a folder, by their names relative to it ('a/b.wav').

  Attributes:
    audio: name -> path of what can be opened.
    texts: name without suffix -> path of a transcript.
    refused: name, as `shown`, -> why it can't be used.
  """

  audio: dict[str, pathlib.Path]
  texts: dict[str, pathlib.Path]
  refused: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Table:
  """A metadata table.

  Attributes:
    rows: file, composed as `_composed`, -> {column: cell}.
    lines: file, composed as `_composed`, -> 'TABLE line N'.
    ignored: (what, why) of columns and rows that do nothing.
  """

  rows: dict[str, dict[str, str]]
  lines: dict[str, str]
  ignored: list[tuple[str, str]]

  def row(self, name: str) -> dict[str, str]:
    """The row of a file, {} if it has none."""
    return self.rows.get(_composed(name), {})

  def unmatched(self, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(what, why) of the rows that are about none of some files."""
    known = {_composed(name): name for name in names}
    for name, line in self.lines.items():
      if name not in known:
        plain = name.replace('\\', '/').rpartition('/')[2]
        near = difflib.get_close_matches(plain, known, n=1)
        hint = f'; did you mean {near[0]!r}?' if near else ''
        yield line, f'there is no file {name!r}{hint}'


def shown(name: str) -> str:
  """A file's name in one line of text, whatever is in it."""
  return ''.join(
      c if c.isprintable() else c.encode('unicode_escape').decode()
      for c in name
  )


def listing(root: pathlib.Path) -> Listing:
  """Looks through a folder and all below it, in an order of its own."""
  audio, texts, refused = {}, {}, {}

  def failed(error):
    name = shown(os.path.relpath(error.filename, root))
    refused[name] = f'can not be entered ({error.strerror})'

  for folder, folders, names in os.walk(root, onerror=failed):
    folders.sort()
    inside = pathlib.Path(folder).relative_to(root)
    for name in folders:
      path = inside / name
      if (root / path).is_symlink():
        refused[shown(path.as_posix())] = 'a link to a folder: not entered'
      elif path.suffix.lower() in files.SUFFIXES:
        refused[shown(path.as_posix())] = 'a folder, whatever its name'
    for name in sorted(names):
      path = inside / name
      suffix, name = path.suffix.lower(), path.as_posix()
      if suffix == '.txt':
        texts[path.with_suffix('').as_posix()] = root / path
      elif suffix in files.SUFFIXES:
        fault = _fault(root / path, path)
        if fault:
          refused[shown(name)] = fault
        else:
          audio[name] = root / path
    for name in folders:
      if name.lower().endswith('.txt'):
        path = inside / name
        texts[path.with_suffix('').as_posix()] = root / path
  return Listing(audio, texts, refused)


def fingerprint(root: pathlib.Path) -> str:
  """A hash of all that a corpus is made of, cheap enough for every opening.

  Of audio it takes sizes and times, of transcripts and tables the contents.
  """
  listed = listing(root)
  digest = hashlib.sha256(os.fsencode(root))

  def add(*facts):
    digest.update(repr(facts).encode(errors='surrogateescape') + b'\0')

  for name, reason in listed.refused.items():
    add('refused', name, reason)
  for name, path in listed.audio.items():
    info = path.stat()
    add('audio', name, info.st_size, info.st_mtime_ns)
    beside = listed.texts.get(_stem(name))
    if beside is not None:
      add('text', _contents_or_fault(beside, _MOST_TEXT))
  for table in TABLES:
    if os.path.lexists(root / table):
      add(table, _contents_or_fault(root / table, None))
  return digest.hexdigest()


def texts(
    files: Listing, rows: Table, root: pathlib.Path
) -> tuple[dict[str, str], list[tuple[str, str]]]:
  """What is said in the files of a folder.

  Returns:
    file -> text, '' where that is not known, without those whose text can't be
    read; and (what, why) of all that is not used.
  """
  said, unused = {}, []
  for name in files.audio:
    listed = rows.row(name).get('text', '')
    beside, fault = _transcript(files, name)
    if fault and not listed:
      unused.append((shown(name), fault))
      continue
    if listed and (beside or fault) and listed.split() != beside.split():
      path = files.texts[_stem(name)].relative_to(root)
      unused.append(
          (
              shown(path.as_posix()),
              'not used, as the table has a text of this file',
          )
      )
    said[name] = ' '.join((listed or beside).split())
  return said, unused


def factors(
    root: pathlib.Path,
) -> tuple[dict[str, dict[str, str]], list[tuple[str, str]]]:
  """What a folder says of its audio files.

  Returns:
    file -> its id (its name below the folder) and, where known, text, speaker,
    language and split; and (what, why) of all that is not used.

  Raises:
    CorpusError: for a table that can't be read.
  """
  listed, rows = listing(root), table(root)
  said, unused = texts(listed, rows, root)
  unused += [*rows.ignored, *rows.unmatched(listed.audio)]
  known = {}
  for name in listed.audio:
    row = {**rows.row(name), 'id': name, 'text': said.get(name, '')}
    keys = ('id', 'text', 'speaker', 'language', 'split')
    known[name] = {key: row[key] for key in keys if row.get(key)}
  return known, unused


def _transcript(files: Listing, name: str) -> tuple[str, str | None]:
  """The text beside a file, '' if there is none, and what is wrong with it."""
  path = files.texts.get(_stem(name))
  if path is None:
    return '', None
  try:
    return _text(path, _MOST_TEXT), None
  except _UnreadableError as error:
    return '', f'its transcript {error}'


def table(root: pathlib.Path) -> Table:
  """The folder's metadata table.

  Raises:
    CorpusError: for one that can't be read as a whole, naming the line.
  """
  present = [t for t in TABLES if os.path.lexists(root / t)]
  if not present:
    return Table({}, {}, [])
  rows, lines = {}, {}
  ignored = [(t, f'not read, as there is {present[0]}') for t in present[1:]]
  name = present[0]
  read = _rows(root / name, TABLES[name])
  _, heading = next(read, (0, []))
  heading = [column.strip() for column in heading]
  if 'file' not in heading:
    raise building.CorpusError(
        f"{root / name} has no column 'file' in its heading {heading}."
    )
  for column in sorted(set(heading)):
    if heading.count(column) > 1:
      raise building.CorpusError(
          f'{root / name} has the column {column!r} twice.'
      )
    if column not in COLUMNS:
      ignored.append(
          (
              f'{name} column {column!r}',
              f'not used; known are {", ".join(COLUMNS)}',
          )
      )
  for line, cells in read:
    where = f'{name} line {line}'
    if len(cells) > len(heading):
      raise building.CorpusError(
          f'{root / name} line {line} has {len(cells)} cells, its heading'
          f' {len(heading)}: put cells with {TABLES[name]!r} in them in quotes.'
      )
    row = dict(zip(heading, (cell.strip() for cell in cells), strict=False))
    if row.get('split') and row['split'] not in splits.SPLITS:
      raise building.CorpusError(
          f'{root / name} line {line} has the split {row["split"]!r}; known are'
          f' {", ".join(splits.SPLITS)}.'
      )
    file = _composed(row['file']) if row.get('file') else ''
    if not file:
      ignored.append((where, 'it names no file'))
    elif file in rows:
      ignored.append((where, f'{file!r} has {lines[file]} already'))
    else:
      rows[file], lines[file] = row, where
  return Table(rows, lines, ignored)


def _rows(
    path: pathlib.Path, delimiter: str
) -> Iterator[tuple[int, list[str]]]:
  """(line, cells) of the rows of a table that are not empty."""
  try:
    text = _text(path, None)
  except _UnreadableError as error:
    raise building.CorpusError(f'The table {error}.') from error
  # Strict: else a quote that is never closed swallows rows.
  reader = csv.reader(
      io.StringIO(text, newline=''), delimiter=delimiter, strict=True
  )
  start = 1
  try:
    for cells in reader:
      if any(cells):
        yield start, cells
      start = reader.line_num + 1
  except csv.Error as error:
    raise building.CorpusError(
        f'{path} line {start}: {error}. Is a quote (") not closed, or not'
        ' doubled inside of a cell?'
    ) from error


def _composed(name: str) -> str:
  """Equal for names that look alike: macOS decomposes letters."""
  return unicodedata.normalize('NFC', name.removeprefix('./'))


def _stem(name: str) -> str:
  return pathlib.PurePosixPath(name).with_suffix('').as_posix()


def _fault(path: pathlib.Path, name: pathlib.PurePath) -> str | None:
  """Why a file can't be used, without opening it."""
  if any(part.startswith('.') for part in name.parts):
    return 'hidden'
  try:
    str(name).encode()
  except UnicodeEncodeError:
    return 'its name is not UTF-8'
  try:
    if not stat.S_ISREG(path.stat().st_mode):
      return 'not a file but a pipe or a device'
  except OSError as error:
    return f'can not be opened ({error.strerror})'
  if not os.access(path, os.R_OK):
    return 'can not be opened (Permission denied)'
  return None


def _contents(path: pathlib.Path, most: int | None) -> bytes:
  name = shown(path.name)
  try:
    info = path.stat()
    if not stat.S_ISREG(info.st_mode):
      raise _UnreadableError(f'{name} is not a file')
    if most is not None and info.st_size > most:
      raise _UnreadableError(
          f'{name} has {info.st_size} bytes, more than {most}'
      )
    return path.read_bytes()
  except OSError as error:
    raise _UnreadableError(
        f'{name} can not be read ({error.strerror})'
    ) from error


def _contents_or_fault(path, most) -> bytes | str:
  try:
    return _contents(path, most)
  except _UnreadableError as error:
    return str(error)


def _text(path: pathlib.Path, most: int | None) -> str:
  content, name = _contents(path, most), shown(path.name)
  try:
    text = content.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    line = content[: error.start].count(b'\n') + 1
    raise _UnreadableError(
        f'{name} line {line} is not UTF-8 (byte'
        f' 0x{content[error.start]:02x}): save it as UTF-8'
    ) from error
  if '\0' in text:
    line = text[: text.index('\0')].count('\n') + 1
    raise _UnreadableError(f'{name} line {line} has a zero byte')
  return text
