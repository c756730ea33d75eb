"""Reading and writing audio files, good ones and bad ones."""

import numpy as np
import pytest

from audiolm_jax.audio import checks
from audiolm_jax.audio import files
from tests.audio import encoding

RATE = 16000


def _tone(seconds=1.0, rate=RATE, channels=1):
  t = np.arange(int(seconds * rate)) / rate
  tones = [np.sin(2 * np.pi * 440 * (c + 1) * t) for c in range(channels)]
  return (0.5 * np.stack(tones, -1)).astype(np.float32)


@pytest.mark.parametrize('channels', [1, 2])
@pytest.mark.parametrize('suffix', ['.wav', '.flac'])
def test_lossless_round_trip(tmp_path, suffix, channels):
  audio = _tone(channels=channels)
  files.write(tmp_path / f'deep/x{suffix}', audio, RATE)
  read, rate = files.read(tmp_path / f'deep/x{suffix}')
  assert rate == RATE and read.dtype == np.float32
  assert read.shape == audio.shape
  np.testing.assert_allclose(read, audio, atol=1 / 32768)
  # No temporary file stays.
  assert len(list((tmp_path / 'deep').iterdir())) == 1


@pytest.mark.parametrize(
    'name, codec, format',
    [
        ('x.g722', 'g722', 'g722'),
        ('x.mp3', 'libmp3lame', None),
        ('x.ogg', 'vorbis', None),
        ('x.opus', 'libopus', None),
    ],
)
def test_lossy_formats(tmp_path, name, codec, format):
  rate = 48000 if codec == 'libopus' else RATE
  audio = _tone(rate=rate)
  encoding.encode(tmp_path / name, codec, audio, rate, format)
  read, found = files.read(tmp_path / name)
  assert found == rate and read.shape[1] == 1
  assert abs(len(read) - len(audio)) < 0.1 * rate
  spectrum = np.abs(np.fft.rfft(read[: rate // 2, 0]))
  assert abs(np.argmax(spectrum) * 2 - 440) <= 4


def test_bad_files_are_named_with_the_reason(tmp_path):
  empty = tmp_path / 'empty.wav'
  empty.touch()
  text = tmp_path / 'text.wav'
  text.write_text('this is not audio, however it is called\n' * 20)
  missing = tmp_path / 'missing.flac'
  for path, reason in [
      (empty, 'empty'),
      (text, 'decoded'),
      (missing, 'No such file'),
  ]:
    with pytest.raises(files.AudioFileError, match=reason) as error:
      files.read(path)
    assert str(path) in str(error.value)


def test_truncated_file_gives_what_is_there(tmp_path):
  files.write(tmp_path / 'x.wav', _tone(), RATE)
  whole = (tmp_path / 'x.wav').read_bytes()
  (tmp_path / 'half.wav').write_bytes(whole[: len(whole) // 2])
  audio, _ = files.read(tmp_path / 'half.wav')
  np.testing.assert_allclose(audio, _tone()[: len(audio)], atol=1 / 32768)
  assert 0.49 * RATE < len(audio) < 0.51 * RATE
  # Cut within the header there is nothing to find.
  (tmp_path / 'head.wav').write_bytes(whole[:20])
  with pytest.raises(files.AudioFileError, match='head.wav'):
    files.read(tmp_path / 'head.wav')


def test_write_refuses_what_it_would_spoil(tmp_path):
  with pytest.raises(ValueError, match='finite'):
    files.write(tmp_path / 'x.wav', np.full((10, 1), np.nan), RATE)
  with pytest.raises(ValueError, match='.wav'):
    files.write(tmp_path / 'x.mp3', _tone(), RATE)
  assert not list(tmp_path.iterdir())


def test_int16_conversion_inverts():
  values = np.arange(-32768, 32768, dtype=np.int16)
  np.testing.assert_array_equal(files.to_int16(files.to_float(values)), values)
  assert files.to_int16(np.float32([-2, 2])).tolist() == [-32768, 32767]


@pytest.mark.parametrize(
    'audio, reason',
    [
        (np.zeros((0, 1)), 'empty'),
        (np.zeros((RATE, 1)), 'silent'),
        (_tone(0.1), 'too short'),
        (np.where(np.arange(RATE) == 5, np.nan, 0.1)[:, None], 'finite: 1 of'),
        (_tone(), None),
    ],
)
def test_faults(audio, reason):
  found = checks.fault(audio, RATE, min_seconds=0.2)
  assert found is None if reason is None else reason in found
