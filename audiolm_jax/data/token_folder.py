"""A folder of token files as a token cache: what `encode FOLDER` wrote.

Each file of one signal is a clip. What is known of it stands in its header: its
id (else the file's name below the folder, without the suffix), text, speaker
and language. Its split is that of `splits.of_files`, which takes audio files by
the same rule; where whole files can't be held out, all are in 'train'. The
order of the clips is a fixed shuffle.

All headers are read when a folder is opened; of the tokens, a clip's when it is
asked for.
"""

from collections.abc import Sequence
import dataclasses
import os
import pathlib

from audiolm_jax.config import relocation
from audiolm_jax.data import cache_header
from audiolm_jax.data import splits
from audiolm_jax.tokenizers import encoding
from audiolm_jax.tokenizers import token_files

_AGAIN = (
    'Remove it, and make it again with the `tokenize_audio.py encode` of this'
    ' folder.'
)


def holds(directory: str | os.PathLike) -> bool:
  """Whether a folder has token files, and is no cache of a corpus."""
  if cache_header.is_cache(directory):
    return False
  return next(token_files.below(pathlib.Path(directory)), None) is not None


def read(directory: str | os.PathLike) -> cache_header.Header:
  """The header that a cache of these clips would have.

  Raises:
    TokensError: for a file that can't be read or has several signals, files of
      different tokenizers or formats, and two files of one id.
  """
  root = pathlib.Path(directory)
  first, clips = None, {}
  for path in sorted(token_files.below(root)):
    if not path.is_file():
      raise encoding.TokensError(
          f'{path}: no file (a link to nothing, or a device).'
      )
    with token_files.opened(path) as reader:
      header = reader.header
    totals = token_files.announced(path)
    if totals is None:
      raise encoding.TokensError(f'{path}: truncated: it has no end. {_AGAIN}')
    if header.rows != 1:
      raise encoding.TokensError(
          f'{path}: {header.rows} signals side by side, and a clip has one.'
          ' Encode with --channels=mix.'
      )
    first = first or (path, header)
    if differing := _differing(first[1], header):
      raise encoding.TokensError(
          f'{path} and {first[0]} differ in {", ".join(differing)}: files of two'
          ' tokenizers or settings are no token cache. Encode all anew, or keep'
          ' them in two folders.'
      )
    name = path.relative_to(root).with_suffix('').as_posix()
    name = header.factors.get('id') or name
    # What is no text would have no hash.
    name = name.encode(errors='backslashreplace').decode()
    if name in clips:
      raise encoding.TokensError(
          f'{path} and {clips[name][0]} are both of the clip {name!r}.'
      )
    clips[name] = path, totals, header.factors
  path, header = first
  tokenizer = relocation.located(header.tokenizer, path.parent)
  index = _index(clips, header.spec.sample_rate)
  languages = {x for lists in index.values() for x in lists['language']}
  return cache_header.Header.of(
      header,
      tokenizer=header.tokenizer and tokenizer,
      languages=tuple(sorted(languages - {''})),
      clips={split: len(lists['files']) for split, lists in index.items()},
      splits=index,
  )


def _index(clips, rate: int) -> dict[str, dict[str, list]]:
  """The lists of each split, in an order that depends on the ids alone."""
  chosen = splits.of_files(
      {name: samples / rate for name, (_, (_, samples), _) in clips.items()},
      {name: known.get('text', '') for name, (_, _, known) in clips.items()},
      {name: known.get('split', '') for name, (_, _, known) in clips.items()},
  )
  index = {}
  for name in sorted(clips, key=splits.position):
    path, (frames, samples), known = clips[name]
    values = {
        'frames': frames,
        'samples': samples,
        'language': known.get('language', ''),
        'speaker': known.get('speaker', ''),
        'files': (path, name),
    }
    lists = index.setdefault(chosen.get(name, 'train'), {k: [] for k in values})
    for key, value in values.items():
      lists[key].append(value)
  return index


class Files:
  """The clips of a split: `files[i]` is clip i.

  Args:
    files: (path, id) of each.
    header: of the folder.
  """

  def __init__(
      self,
      files: Sequence[tuple[pathlib.Path, str]],
      header: cache_header.Header,
  ):
    self._files = files
    self._header = header

  def __getitem__(self, index: int) -> encoding.Example:
    path, name = self._files[index]
    with token_files.opened(path) as reader:
      if differing := _differing(reader.header, self._header):
        raise self.error(index, f'its {", ".join(differing)} changed')
      block = reader.header.concatenate(reader)
    return encoding.Example.of(block, {**reader.header.factors, 'id': name})

  def error(self, index: int, fault: str) -> encoding.TokensError:
    """An error about a clip, which names its file."""
    return encoding.TokensError(f'{self._files[index][0]}: {fault}. {_AGAIN}')


def _differing(one: encoding.Format, other: encoding.Format) -> list[str]:
  """The fields of the encoding in which two headers differ."""
  names = [field.name for field in dataclasses.fields(encoding.Format)]
  names.remove('tokenizer')  # Where it was, for people.
  return [name for name in names if getattr(one, name) != getattr(other, name)]
