"""Files that appear when they are whole, and 16-bit audio in them."""

from collections.abc import Callable, Iterator
import contextlib
import errno
import fcntl
import io
import os
import pathlib
import re
import secrets
import signal
import threading

from jaxtyping import Int
import numpy as np
import soundfile

from audiolm_jax.audio import checks

SUFFIXES = ('.wav', '.flac')
_WAV_LIMIT = (1 << 32) - (1 << 16)
_MOST_FLAC_CHANNELS, _HIGHEST_FLAC_RATE = 8, 655_350

_PART = re.compile(r'\.\d+-[0-9a-f]{8}\.part')
# Files that this process writes, and folders where it looked for old ones.
_open: set[pathlib.Path] = set()
_swept: set[pathlib.Path] = set()


@contextlib.contextmanager
def created(path: str | os.PathLike) -> Iterator[io.FileIO]:
  """A binary file to write to, which is given its name when it is whole.

  Until then it is beside `path` under another name. An exception inside or a
  signal that ends the process removes it; what a killed process could not
  remove goes when the next one writes into the same folder.

  Args:
    path: where to; its folder is created. A device or a named pipe is written
      to as it is, not replaced.

  Raises:
    OSError: naming `path` or its folder, if it can't be written.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.is_dir():
    raise IsADirectoryError(errno.EISDIR, 'Is a directory', str(path))
  if path.exists() and not path.is_file():
    with _File(path, path, 'w') as file:
      yield file
    return
  _sweep(path.parent)
  part = path.parent / f'.{os.getpid()}-{secrets.token_hex(4)}.part'
  with _removed_on_signals(part):
    try:
      with _File(part, path) as file:
        yield file
        with naming(path):
          # Network file systems tell of full disks on closing.
          os.close(os.dup(file.fileno()))
          part.replace(path)
    except BaseException:
      # The first error counts, not that this can't be removed either.
      with contextlib.suppress(OSError):
        part.unlink(missing_ok=True)
      raise


@contextlib.contextmanager
def pcm16(
    path: str | os.PathLike,
    rate: int,
    channels: int,
    samples: int | None = None,
) -> Iterator[Callable[[Int[np.ndarray, 'T C']], None]]:
  """What appends 16-bit samples to a wav or flac file, by its suffix.

  Args:
    path: where to, as for `created`.
    rate: samples a second.
    channels: how many.
    samples: how many will come, if known: what a wav file can't hold is then
      written as RF64.

  Raises:
    ValueError: for what such a file can't hold: other suffixes, rates,
      channels, and, on appending, a wav file over 4 GiB.
    OSError: as `created`; no file is left then.
  """
  path = pathlib.Path(path)
  kind = _kind(path, rate, channels, samples)
  with created(path) as file:
    kept, sound = _Kept(file), None

    def append(block):
      if kind == 'WAV' and 2 * channels * sound.frames > _WAV_LIMIT:
        raise ValueError(f'{path}: over 4 GiB; write .flac instead.')
      with kept.raising(path):
        sound.write(block)

    try:
      with kept.raising(path):
        sound = soundfile.SoundFile(
            kept, 'w', rate, channels, subtype='PCM_16', format=kind
        )
      yield append
    except BaseException:
      # What is left to write does not matter, nor whether it can be.
      with contextlib.suppress(soundfile.LibsndfileError):
        if sound is not None:
          sound.close()
      raise
    with kept.raising(path):
      sound.close()


def check(name: str | os.PathLike, rate: int, channels: int) -> None:
  """Refuses rates and channels that no audio has.

  Raises:
    ValueError: naming what is to be written.
  """
  try:
    checks.rate(rate)
    checks.channels(channels)
  except ValueError as error:
    raise ValueError(f'{name}: {error}.') from error


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
  """Errors of the system inside name `path`."""
  try:
    yield
  except OSError as error:
    raise type(error)(error.errno, error.strerror, str(path)) from error


def _kind(path, rate, channels, samples) -> str:
  """libsndfile's name of the container."""
  if path.suffix.lower() not in SUFFIXES:
    raise ValueError(f'{path}: expected {" or ".join(SUFFIXES)}.')
  kind = path.suffix[1:].upper()
  check(path, rate, channels)
  if kind == 'FLAC' and (
      channels > _MOST_FLAC_CHANNELS or rate > _HIGHEST_FLAC_RATE
  ):
    raise ValueError(
        f'{path}: {channels} channels at {rate} Hz; flac holds at most'
        f' {_MOST_FLAC_CHANNELS} at {_HIGHEST_FLAC_RATE} Hz. Write .wav'
        ' instead.'
    )
  if kind == 'WAV' and 2 * channels * (samples or 0) > _WAV_LIMIT:
    kind = 'RF64'
  return kind


class _File(io.FileIO):
  """A new file, locked, whose errors bear the name that it will have."""

  def __init__(self, part: pathlib.Path, path: pathlib.Path, mode: str = 'x'):
    self._path = path
    with naming(path):
      super().__init__(part, mode)
      # Tells other processes that it is being written. Some network file
      # systems know no locks; there, what was left stays.
      with contextlib.suppress(OSError):
        fcntl.flock(self.fileno(), fcntl.LOCK_EX)

  def write(self, data) -> int:
    """All of it, or an error."""
    data = memoryview(data).cast('B')
    done = 0
    with naming(self._path):
      while done < len(data):
        done += super().write(data[done:])
    return done


class _Kept:
  """A file for libsndfile, whose callbacks lose what is raised in them."""

  def __init__(self, file: io.FileIO):
    self._file = file
    self._error = None
    self.seek, self.tell = file.seek, file.tell

  def write(self, data) -> int:
    if self._error is None:
      try:
        return self._file.write(data)
      except BaseException as error:  # An interrupt too.
        self._error = error
    return 0

  @contextlib.contextmanager
  def raising(self, path):
    """Raises what was raised in `write` inside."""
    failed = None
    try:
      yield
    # It asserts that all was written.
    except (soundfile.LibsndfileError, AssertionError) as error:
      failed = error
    if self._error is not None:
      raise self._error
    if failed is not None:
      raise OSError(None, f'libsndfile: {failed}', str(path)) from failed


def _sweep(folder):
  """Removes what killed processes left: who still writes holds a lock."""
  if folder in _swept:
    return
  _swept.add(folder)
  with os.scandir(folder) as entries:
    for entry in entries:
      if not _PART.fullmatch(entry.name) or not entry.is_file():
        continue
      # Locked, gone already, or someone else's: not ours to remove.
      with contextlib.suppress(OSError), open(entry.path, 'rb') as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(entry.path)


@contextlib.contextmanager
def _removed_on_signals(part):
  """Removes a file when the process gets SIGTERM and has no handler of its own."""
  _open.add(part)
  process, changed = os.getpid(), []

  def end(number, frame):
    del frame
    if os.getpid() == process:  # And not a fork of it.
      for path in _open:
        path.unlink(missing_ok=True)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)

  try:
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
          signal.signal(number, end)
          changed.append(number)
    yield
  finally:
    for number in changed:
      if signal.getsignal(number) is end:
        signal.signal(number, signal.SIG_DFL)
    _open.discard(part)
