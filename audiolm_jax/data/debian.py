"""Debian packages as a source of files: fetched, unpacked, never installed."""

from collections.abc import Sequence
import pathlib
import shutil
import subprocess
import tempfile

from absl import logging

from audiolm_jax.data import paths

# Without a network the fallback should come within seconds, not minutes.
_IMPATIENT = ('-o', 'Acquire::http::Timeout=10', '-o', 'Acquire::Retries=0')


class CorpusUnavailable(Exception):
  """The files of a corpus can't be had; the message says how to get them."""


def unpack(packages: Sequence[str], mirror: str) -> dict[str, pathlib.Path]:
  """The unpacked trees of Debian packages, fetched if need be.

  Looks in the downloads directory, then in the manual one for NAME_*.deb or an
  unpacked folder NAME, then asks apt-get (which needs no root to download).

  Args:
    packages: their names.
    mirror: a web folder that holds them, for the message to a person.

  Returns:
    name -> folder with the package's tree (usr/share/...).

  Raises:
    CorpusUnavailable: naming what is missing and where to put it.
  """
  trees = paths.downloads_dir() / 'debian'
  trees.mkdir(parents=True, exist_ok=True)
  folders = {}
  missing = []
  for name in packages:
    manual = paths.manual_dir() / name
    if (trees / name).is_dir():
      folders[name] = trees / name
    elif manual.is_dir():
      folders[name] = manual
    else:
      missing.append(name)
  if not missing:
    return folders
  with tempfile.TemporaryDirectory(dir=trees) as scratch:
    reason = _download(missing, pathlib.Path(scratch))
    for name in missing:
      files = sorted(pathlib.Path(scratch).glob(f'{name}_*.deb'))
      files += sorted(paths.manual_dir().glob(f'{name}_*.deb'))
      if not files:
        raise CorpusUnavailable(
            f'The Debian packages {", ".join(missing)} could not be fetched'
            f' ({reason}). Download them from {mirror} and put the .deb files'
            f' (or, where there is no dpkg-deb, folders of these names with'
            f' what is in them) into {paths.manual_dir()}.'
        )
      tree = pathlib.Path(scratch) / name
      try:
        subprocess.run(
            ['dpkg-deb', '-x', files[0], tree], check=True, capture_output=True
        )
      except (OSError, subprocess.CalledProcessError) as error:
        raise CorpusUnavailable(
            f'{files[0]} could not be unpacked ({_reason(error)}).'
        ) from error
      if not (trees / name).exists():  # Else another process was faster.
        tree.rename(trees / name)
      folders[name] = trees / name
  return folders


def _download(packages, folder: pathlib.Path) -> str:
  """Tries to fetch .deb files into `folder`; returns why that failed, or ''."""
  if not shutil.which('apt-get'):
    return 'there is no apt-get here'

  def apt(*arguments):
    subprocess.run(
        ['apt-get', *_IMPATIENT, *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
    )

  try:
    apt('download', *packages)
    return ''
  except (OSError, subprocess.CalledProcessError) as error:
    logging.info('apt-get download: %s', _reason(error))
  try:
    # A fresh container knows no packages yet. Without root this fails.
    apt('update')
    apt('download', *packages)
    return ''
  except (OSError, subprocess.CalledProcessError) as error:
    return _reason(error)


def _reason(error: Exception) -> str:
  """The last line that a failed command said."""
  if isinstance(error, subprocess.CalledProcessError):
    lines = error.stderr.decode(errors='replace').strip().splitlines()
    return lines[-1] if lines else f'exit status {error.returncode}'
  return str(error)
