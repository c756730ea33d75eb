"""Block-wise audio: blocks equal the whole, pipes give what is there."""

import contextlib
import os
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import soundfile

from audiolm_jax.audio import files
from audiolm_jax.audio import resample
from audiolm_jax.audio import streams


def _noise(samples=5000, channels=1):
  rng = np.random.default_rng(0)
  return rng.uniform(-0.9, 0.9, (samples, channels)).astype(np.float32)


def _all(path, **options):
  with streams.opened(path, **options) as stream:
    return stream, np.concatenate(list(stream.blocks))


@pytest.fixture(name='stdin')
def _stdin(monkeypatch):
  """Feeds bytes, some at a time, to what stands for stdin."""
  source, sink = os.pipe()
  reader = open(source, 'rb')
  monkeypatch.setattr(sys, 'stdin', reader)
  threads = []

  def feed(parts):
    def run():
      with open(sink, 'wb', buffering=0) as file:
        for part in parts:
          file.write(part() if callable(part) else part)

    threads.append(threading.Thread(target=run))
    threads[0].start()

  yield feed
  for thread in threads:
    thread.join(10)
  reader.close()


@pytest.mark.parametrize('rate', [8000, 16000, 22050, 24000])
@pytest.mark.parametrize('size', [1, 999])
def test_resampled_in_blocks_equals_at_once(rate, size):
  for samples in (0, 1, 3001):
    audio = _noise(samples, 2)
    blocks = np.split(audio, range(size, samples, size))
    found = np.concatenate(list(streams.resampled(blocks, 16000, rate, 2)))
    expected = resample.resample(audio, 16000, rate)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize('suffix', ['.wav', '.flac'])
@pytest.mark.parametrize('rate, channels', [(16000, 2), (24000, 1)])
def test_a_file_at_another_rate_equals_read(tmp_path, suffix, rate, channels):
  path = tmp_path / f'x{suffix}'
  files.write(path, _noise(30000, 2), 16000)
  whole, own_rate = files.read(path)
  stream, audio = _all(path, rate=rate, channels=channels)
  assert (stream.rate, stream.channels) == (rate, channels)
  assert stream.seconds == pytest.approx(30000 / 16000)
  expected = resample.resample(resample.remix(whole, channels), own_rate, rate)
  np.testing.assert_allclose(audio, expected, atol=1e-5)


def test_bad_files_are_told(tmp_path):
  path = tmp_path / 'x.wav'
  path.write_text('no audio')
  with pytest.raises(files.AudioFileError, match='x.wav'):
    _all(path)
  with pytest.raises(files.AudioFileError, match='absent'):
    _all(tmp_path / 'absent.wav')
  files.write(path, _noise(10, 6), 16000)
  with pytest.raises(files.AudioFileError, match='2 of 6 channels'):
    _all(path, channels=2)


@pytest.mark.parametrize('samples', [0, 1, 10, 11, 25])
def test_fixed_blocks(samples):
  audio = _noise(samples)
  for size in (1, 3, 10):
    parts = np.split(audio, [0, 2, 4, 4, 9])
    blocks = list(streams.fixed(parts, size))
    assert all(len(block) == size for block in blocks[:-1])
    assert all(0 < len(block) <= size for block in blocks[-1:])
    np.testing.assert_array_equal(
        np.concatenate([np.zeros((0, 1)), *blocks]), audio
    )


def test_ahead_keeps_order_and_errors():
  def items():
    yield from range(5)
    raise ValueError('over')

  found = []
  with pytest.raises(ValueError, match='over'):
    with streams.ahead(items()) as made:
      for item in made:
        found.append(item)
  assert found == list(range(5))


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt, None])
def test_the_thread_of_ahead_ends_with_its_context(error):
  running, ended = threading.Event(), []

  def items():
    yield 0
    running.set()
    time.sleep(0.1)
    ended.append(True)
    yield 1

  with contextlib.suppress(ValueError, KeyboardInterrupt):
    with streams.ahead(items()) as made:
      next(made)
      assert running.wait(10)
      if error is not None:
        raise error
  assert ended


@pytest.mark.parametrize('suffix', ['.wav', '.flac', '.raw'])
def test_written_in_blocks_equals_at_once(tmp_path, suffix):
  audio = 1.2 * _noise(1000, 2)
  path = tmp_path / f'deep/x{suffix}'
  raw = suffix == '.raw'
  with streams.create(path, 16000, 2, raw=raw) as writer:
    for block in np.split(audio, [1, 500]):
      writer.write(block)
    assert not path.exists() and writer.samples == 1000
  stream, found = _all(path, raw=streams.Raw(16000, 2) if raw else None)
  assert stream.rate == 16000
  np.testing.assert_allclose(found, np.clip(audio, -1, 1), atol=1 / 32768)
  assert os.listdir(path.parent) == [path.name]


def test_no_half_written_file_stays(tmp_path):
  path = tmp_path / 'x.wav'
  with pytest.raises(ValueError, match='not finite'):
    with streams.create(path, 16000, 1) as writer:
      writer.write(_noise())
      writer.write(np.full((1, 1), np.nan))
  with pytest.raises(ValueError, match='1 channels'):
    with streams.create(path, 16000, 1) as writer:
      writer.write(_noise(channels=2))
  with pytest.raises(files.AudioFileError, match='.wav or .flac'):
    with streams.create(tmp_path / 'x.mp3', 16000, 1):
      pass
  assert not os.listdir(tmp_path)


def test_large_wav_files_are_rf64(tmp_path):
  path = tmp_path / 'x.wav'
  with streams.create(path, 16000, 1, samples=1 << 31) as writer:
    writer.write(_noise())
  assert path.read_bytes()[:4] == b'RF64'
  np.testing.assert_allclose(_all(path)[1], _noise(), atol=1 / 32768)


@pytest.mark.parametrize(
    'subtype', ['PCM_U8', 'PCM_16', 'PCM_32', 'FLOAT', 'DOUBLE', 'PCM_24']
)
def test_wav_on_stdin(tmp_path, stdin, subtype):
  audio = _noise(3000, 2)
  soundfile.write(tmp_path / 'x.wav', audio, 22050, subtype=subtype)
  data = (tmp_path / 'x.wav').read_bytes()
  stdin([data[:7], data[7:50], data[50:101], data[101:]])
  stream, found = _all('-')
  assert (stream.rate, stream.channels) == (22050, 2)
  tolerance = 1 / 64 if subtype == 'PCM_U8' else 1 / 32768
  np.testing.assert_allclose(found, audio, atol=tolerance)


def test_flac_on_stdin(tmp_path, stdin):
  files.write(tmp_path / 'x.flac', _noise(3000), 16000)
  stdin([(tmp_path / 'x.flac').read_bytes()])
  np.testing.assert_allclose(_all('-')[1], _noise(3000), atol=1 / 32768)


@pytest.mark.parametrize('header', [True, False])
def test_stdin_gives_samples_as_they_come(stdin, header):
  rest = threading.Event()
  samples = files.to_int16(_noise(40)).tobytes()

  def later():
    assert rest.wait(10)
    return samples[20:]

  head = streams._wav_header(16000, 1) if header else b''
  stdin([head + samples[:20], later])
  raw = None if header else streams.Raw(16000)
  with streams.opened('-', raw=raw) as stream:
    blocks = stream.blocks
    assert len(next(blocks)) == 10
    rest.set()
    assert sum(map(len, blocks)) == 30


def test_stdin_stops_at_the_end_of_the_samples(stdin):
  data = bytearray(streams._wav_header(16000, 1))
  data[-4:] = struct.pack('<I', 10)
  stdin([bytes(data) + bytes(10) + b'LIST' + bytes(20)])
  assert len(_all('-')[1]) == 5


def test_empty_stdin_is_told(stdin):
  stdin([])
  with pytest.raises(files.AudioFileError, match='standard input.*empty'):
    _all('-')


def test_a_consumer_that_fails_ends_the_reader_before_the_file(tmp_path):
  files.write(tmp_path / 'x.flac', _noise(2_000_000), 16000)
  code = (
      'import sys, types\n'
      'from audiolm_jax.tokenizers import base, transcoding\n'
      'class Full(Exception): pass\n'
      'def encode(rows, write):\n'
      '  next(rows)\n'
      '  raise Full\n'
      'dates = base.Dates("CNN", "time", "RVQ", "fixed", (), (), ())\n'
      'spec = base.Spec(16000, 160, (base.Slot(0, 64),), True, 0, dates)\n'
      'coder = types.SimpleNamespace(encode=encode,'
      ' settings=types.SimpleNamespace(codebooks=None),'
      ' tokenizer=types.SimpleNamespace(spec=spec, segment=None,'
      ' has_scales=False))\n'
      'for _ in range(100):\n'
      '  try:\n'
      '    transcoding.encode_file(coder, transcoding.Source("x"),'
      ' sys.argv[1], sys.argv[1] + ".tokens")\n'
      '  except Full:\n'
      '    pass\n'
  )
  run = subprocess.run(
      [sys.executable, '-c', code, str(tmp_path / 'x.flac')],
      capture_output=True,
      text=True,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )
  assert run.returncode == 0, run.stderr[-500:]
  assert os.listdir(tmp_path) == ['x.flac']
