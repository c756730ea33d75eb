"""Files that do not hold all that they announce."""

import logging
import struct

import numpy as np
import pytest
import soundfile

from audiolm_jax.audio import files
from audiolm_jax.audio import streams
from tests.audio import encoding

RATE = 16000
# name -> what `encoding.encode` needs; None for soundfile.
KINDS = {
    'x.wav': None,
    'x.aiff': None,
    'x.flac': ('flac', None),
    'x.ogg': ('vorbis', None),
    'x.opus': ('libopus', None),
    'x.mp3': ('libmp3lame', None),
    'x.m4a': ('aac', None),
}


@pytest.fixture(name='whole', scope='module')
def _whole(tmp_path_factory):
  """name -> path of 1.5 s of a tone in noise."""
  folder = tmp_path_factory.mktemp('whole')
  rng = np.random.default_rng(0)
  for name, how in KINDS.items():
    rate = 48000 if name == 'x.opus' else RATE
    audio = rng.uniform(-0.3, 0.3, (3 * rate // 2, 1)).astype(np.float32)
    if how is None:
      soundfile.write(folder / name, audio, rate, subtype='PCM_16')
    else:
      encoding.encode(folder / name, how[0], audio, rate, how[1])
  return folder


@pytest.mark.parametrize('name', KINDS)
def test_whole_files_are_read_without_a_word(whole, name, caplog):
  with caplog.at_level(logging.WARNING):
    audio, rate = files.read(whole / name)
  assert not caplog.records
  assert abs(len(audio) / rate - 1.5) < 0.11  # AAC's padding is kept.


@pytest.mark.parametrize('share', [0.3, 0.62, 0.95])
@pytest.mark.parametrize('name', KINDS)
def test_truncated_files_are_refused(whole, tmp_path, name, share):
  data = (whole / name).read_bytes()
  path = tmp_path / name
  path.write_bytes(data[: int(share * len(data))])
  with pytest.raises(files.AudioFileError, match=f'{path}: '):
    files.read(path, strict=True)


@pytest.mark.parametrize('name', ['x.wav', 'x.aiff', 'x.mp3'])
def test_truncated_files_warn_of_what_they_lack(whole, tmp_path, name, caplog):
  data = (whole / name).read_bytes()
  path = tmp_path / name
  path.write_bytes(data[: int(0.62 * len(data))])
  with caplog.at_level(logging.WARNING):
    audio, rate = files.read(path)
  assert f'{path}: it ends after {len(audio) / rate:.2f} of 1.50 s' in (
      caplog.text
  )


@pytest.mark.parametrize('name', ['x.flac', 'x.ogg', 'x.opus'])
@pytest.mark.parametrize('damage', ['flip', 'zeros', 'cut out'])
def test_checksums_that_fail_are_refused(whole, tmp_path, name, damage):
  data = bytearray((whole / name).read_bytes())
  middle = len(data) // 2
  if damage == 'flip':
    data[middle] ^= 4
  elif damage == 'zeros':
    data[middle : middle + 500] = bytes(500)
  else:
    del data[middle : middle + 500]
  path = tmp_path / name
  path.write_bytes(data)
  with pytest.raises(files.AudioFileError, match=f'{path}: '):
    files.read(path, strict=True)


def test_rates_that_no_audio_has(tmp_path):
  path = tmp_path / 'x.wav'
  for rate in (1, 999, 1_000_001):
    soundfile.write(path, np.zeros(100), RATE)
    data = bytearray(path.read_bytes())
    data[24:32] = struct.pack('<II', rate, (2 * rate) % (1 << 32))
    path.write_bytes(data)
    with pytest.raises(files.AudioFileError, match=f'x.wav: .*{rate} Hz'):
      files.read(path)


def test_wav_on_a_pipe_is_held_against_its_header(tmp_path, caplog):
  soundfile.write(tmp_path / 'x.wav', np.zeros(1000), RATE)
  data = (tmp_path / 'x.wav').read_bytes()

  def read(**options):
    path = tmp_path / 'cut.wav'
    path.write_bytes(data[:1001])
    with path.open('rb') as file:
      pipe = streams._Pipe(file.fileno())
      with streams._from_pipe(pipe, 'stdin', None, **options) as stream:
        return sum(map(len, stream.blocks))

  with caplog.at_level(logging.WARNING):
    assert read(strict=False) == 478
  assert 'stdin: it ends after 0.03 of 0.06 s (957 of 2000' in caplog.text
  with pytest.raises(files.AudioFileError, match='stdin: it ends'):
    read(strict=True)


@pytest.mark.parametrize('data', [b'this is text\n' * 50, bytes(1000), b'x'])
def test_flac_that_is_none(tmp_path, data):
  path = tmp_path / 'x.flac'
  path.write_bytes(data)
  with pytest.raises(files.AudioFileError, match='x.flac: '):
    files.read(path)


def test_what_is_no_g722_is_not_decoded_as_such(whole, tmp_path):
  path = tmp_path / 'x.g722'
  path.write_text('this is text, however it is called\n' * 50)
  with pytest.raises(files.AudioFileError, match='x.g722: .*text'):
    files.read(path)
  path.write_bytes((whole / 'x.wav').read_bytes())
  np.testing.assert_array_equal(
      files.read(path)[0], files.read(whole / 'x.wav')[0]
  )


@pytest.mark.parametrize(
    'raw', [streams.Raw(1), streams.Raw(-5), streams.Raw(RATE, 1_000_000)]
)
def test_raw_numbers_out_of_range(tmp_path, raw):
  path = tmp_path / 'x.raw'
  path.write_bytes(bytes(1000))
  with pytest.raises(files.AudioFileError, match='x.raw: .*(Hz|channels)'):
    with streams.opened(path, raw=raw):
      pass


def test_a_part_of_a_raw_frame_is_told(tmp_path, caplog):
  path = tmp_path / 'x.raw'
  path.write_bytes(bytes(1003))
  with caplog.at_level(logging.WARNING):
    with streams.opened(path, raw=streams.Raw(RATE, 2)) as stream:
      assert sum(map(len, stream.blocks)) == 250
  assert f'{path}: it ends within a frame, 3 of 4 bytes' in caplog.text
