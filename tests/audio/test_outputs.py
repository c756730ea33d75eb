"""Audio that is written: its rounding, and never half a file."""

import gc
import os
import pathlib
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from audiolm_jax.audio import files
from audiolm_jax.audio import outputs
from audiolm_jax.audio import streams

RATE = 16000


def _noise(samples=4000, channels=1, scale=1.1):
  rng = np.random.default_rng(0)
  audio = scale * rng.uniform(-1, 1, (samples, channels))
  return audio.astype(np.float32)


def _stream(path, audio, **options):
  with streams.create(path, RATE, audio.shape[1], **options) as writer:
    for block in np.array_split(audio, 3):
      writer.write(block)


WAYS = {
    'write wav': ('x.wav', lambda path, x: files.write(path, x, RATE)),
    'write flac': ('x.flac', lambda path, x: files.write(path, x, RATE)),
    'create wav': ('x.wav', _stream),
    'create RF64': ('x.wav', lambda path, x: _stream(path, x, samples=1 << 31)),
    'create flac': ('x.flac', _stream),
    'create raw': ('x.raw', lambda path, x: _stream(path, x, raw=True)),
}


def _integers(path):
  """The 16-bit samples of a file."""
  if path.suffix == '.raw':
    return np.fromfile(path, '<i2')[:, None]
  return soundfile.read(path, dtype='int16', always_2d=True)[0]


def test_every_way_rounds_to_the_nearest(tmp_path):
  audio = _noise()
  # Halves go to the even neighbour; beyond full scale is clipped.
  audio[:6, 0] = np.float32([0.5, 1.5, -0.5, -1.5, 40000, -40000]) / 32768
  expected = np.clip(np.round(audio * 32768.0), -32768, 32767)
  assert expected[:6, 0].tolist() == [0, 2, 0, -2, 32767, -32768]
  for way, (name, write) in WAYS.items():
    write(tmp_path / name, audio)
    np.testing.assert_array_equal(
        _integers(tmp_path / name), expected, err_msg=way
    )


def test_saving_again_and_again_does_not_drift(tmp_path):
  audio = first = _noise(scale=0.9)
  for _ in range(10):
    files.write(tmp_path / 'x.wav', audio, RATE)
    audio = files.read(tmp_path / 'x.wav')[0] * np.float32(1 - 1e-7)
  assert abs(32768 * float(np.mean(audio - first))) < 0.05


def test_stdout_gives_the_samples_of_a_file(tmp_path):
  code = (
      'import numpy as np; from audiolm_jax.audio import streams;'
      'x = np.random.default_rng(0).uniform(-1, 1, (4000, 1));'
      'w = streams.create("-", 16000, 1).__enter__(); w.write(x)'
  )
  said = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, check=True
  )
  audio = np.random.default_rng(0).uniform(-1, 1, (4000, 1))
  _stream(tmp_path / 'x.wav', audio)
  np.testing.assert_array_equal(
      np.frombuffer(said.stdout[44:], '<i2')[:, None],
      _integers(tmp_path / 'x.wav'),
  )


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('room', [0, 10, 10000])
def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path, monkeypatch, way, room
):
  name, write = WAYS[way]
  path, late = tmp_path / name, []
  monkeypatch.setattr(sys, 'unraisablehook', late.append)
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  # As a full disk does: some is written, then no more.
  resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
  try:
    with pytest.raises(OSError, match=f'File too large: .{path}'):
      write(path, _noise(100_000))
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
  assert not os.listdir(tmp_path)
  gc.collect()
  assert not late


def test_a_named_pipe_is_written_to_and_stays(tmp_path):
  """As devices are; root could replace /dev/null by a file."""
  path = tmp_path / 'pipe.raw'
  os.mkfifo(path)
  with subprocess.Popen(['cat', path], stdout=subprocess.PIPE) as reader:
    _stream(path, _noise(), raw=True)
    data = reader.stdout.read()
  assert len(data) == 8000 and path.is_fifo()
  assert os.listdir(tmp_path) == ['pipe.raw']


@pytest.mark.parametrize('way', WAYS)
def test_places_that_can_not_be_written_are_told(tmp_path, way):
  name, write = WAYS[way]
  (tmp_path / 'file').touch()
  (tmp_path / f'd{name}').mkdir()
  for path, said in (
      (tmp_path / 'file' / name, tmp_path / 'file'),
      (tmp_path / f'd{name}', tmp_path / f'd{name}'),
      (pathlib.Path('/proc') / name, f'/proc/{name}'),
  ):
    with pytest.raises(OSError, match=f"'{said}'"):
      write(path, _noise())


def test_what_can_not_be_removed_hides_no_error(tmp_path, monkeypatch):
  def fails(self, missing_ok=False):
    raise PermissionError(f'{self}')

  monkeypatch.setattr(pathlib.Path, 'unlink', fails)
  with pytest.raises(KeyError, match='what went wrong'):
    with outputs.created(tmp_path / 'x'):
      raise KeyError('what went wrong')


def test_a_signal_takes_the_temporary_file_along(tmp_path):
  code = (
      'import sys, time; from audiolm_jax.audio import streams\n'
      'with streams.create(sys.argv[1], 16000, 1):\n'
      '  print("open", flush=True); time.sleep(60)'
  )
  process = subprocess.Popen(
      [sys.executable, '-c', code, str(tmp_path / 'x.wav')],
      stdout=subprocess.PIPE,
  )
  assert process.stdout.readline() == b'open\n'
  assert len(os.listdir(tmp_path)) == 1
  process.send_signal(signal.SIGTERM)
  assert process.wait(30) == -signal.SIGTERM
  assert not os.listdir(tmp_path)


def test_what_a_killed_writer_left_is_removed(tmp_path):
  code = (
      'import sys, os, signal; from audiolm_jax.audio import streams\n'
      'with streams.create(sys.argv[1], 16000, 1):\n'
      '  os.kill(os.getpid(), signal.SIGKILL)'
  )
  subprocess.run([sys.executable, '-c', code, str(tmp_path / 'x.wav')])
  assert len(os.listdir(tmp_path)) == 1
  with streams.create(tmp_path / 'x.wav', RATE, 1) as first:
    first.write(_noise())
    # Another writer's, which is alive, stays.
    files.write(tmp_path / 'x.wav', _noise(10), RATE)
  assert os.listdir(tmp_path) == ['x.wav']
  assert len(files.read(tmp_path / 'x.wav')[0]) == 4000


@pytest.mark.parametrize('name', ['x.flac', 'x.wav', 'x.raw', '-'])
@pytest.mark.parametrize(
    'rate, channels, reason',
    [(1, 1, '1 Hz'), (0, 1, '0 Hz'), (RATE, 0, '0 ch'), (RATE, 1025, '1025')],
)
def test_rates_and_channels_that_no_audio_has_are_refused(
    tmp_path, name, rate, channels, reason
):
  path = name if name == '-' else tmp_path / name
  said = 'standard output' if name == '-' else path
  with pytest.raises(files.AudioFileError, match=f'{said}: .*{reason}'):
    with streams.create(path, rate, channels, raw=name == 'x.raw'):
      pass
  assert not os.listdir(tmp_path)


def test_what_flac_can_not_hold_is_refused(tmp_path):
  for rate, channels in ((RATE, 9), (700_000, 1)):
    with pytest.raises(files.AudioFileError, match='x.flac: .*Write .wav'):
      with streams.create(tmp_path / 'x.flac', rate, channels):
        pass
    files.write(tmp_path / 'x.wav', np.zeros((10, channels)), rate)
    assert files.read(tmp_path / 'x.wav')[1] == rate


def test_a_full_standard_output_is_told(monkeypatch):
  with open('/dev/full', 'w') as full:
    monkeypatch.setattr(sys, 'stdout', full)
    with pytest.raises(OSError, match="No space .*'standard output'"):
      with streams.create('-', RATE, 1):
        pass
    monkeypatch.undo()
    os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


@pytest.mark.parametrize(
    'audio', [np.ones((10, 1), np.int16), np.ones((10, 1), int)]
)
def test_integers_are_refused(tmp_path, audio):
  path = tmp_path / 'x.wav'
  with pytest.raises(ValueError, match='x.wav: '):
    with streams.create(path, RATE, 1) as writer:
      writer.write(audio)
  with pytest.raises(ValueError, match='x.wav: '):
    files.write(path, audio, RATE)
  assert not os.listdir(tmp_path)


def test_only_channels_of_samples_are_written(tmp_path):
  with pytest.raises(ValueError, match=r'x.wav: .*\(2, 3, 1\)'):
    files.write(tmp_path / 'x.wav', np.zeros((2, 3, 1)), RATE)
  files.write(tmp_path / 'x.wav', np.zeros(5), RATE)
  files.write(tmp_path / 'y.wav', np.zeros((0, 2)), RATE)
  assert files.read(tmp_path / 'x.wav')[0].shape == (5, 1)
  assert files.read(tmp_path / 'y.wav')[0].shape == (0, 2)
