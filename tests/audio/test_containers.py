"""Files that do not hold all that they announce."""

import logging
import struct
import time

import numpy as np
import pytest
import soundfile

from audiolm_jax.audio import containers
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


def _chunk(name, body, order='<'):
  return struct.pack(f'{order}4sI', name, len(body)) + body


def _wav(*chunks, kind=b'RIFF'):
  form = struct.pack('<HHIIHH', 1, 1, RATE, 2 * RATE, 2, 16)
  return kind + bytes(4) + b'WAVE' + _chunk(b'fmt ', form) + b''.join(chunks)


def _announced(tmp_path, data):
  (tmp_path / 'x').write_bytes(data)
  return containers.announced(tmp_path / 'x')


def test_sizes_of_wav_that_are_not_known_are_no_fault(tmp_path):
  for size in (0, 0x7FFFFFFF, 0xFFFFFFFF):
    data = _wav(b'data' + struct.pack('<I', size) + bytes(100))
    assert _announced(tmp_path, data).lacking(50 / RATE) is None


def test_rf64_says_its_size_elsewhere(tmp_path):
  large = _chunk(b'ds64', struct.pack('<QQQI', 0, 3200, 1600, 0))
  data = b'data' + struct.pack('<I', 0xFFFFFFFF)
  for there in (3200, 3198):
    found = _announced(tmp_path, _wav(large, data + bytes(there), kind=b'RF64'))
    assert found.seconds == 0.1
    assert (found.fault is None) == (there == 3200)


def test_chunks_of_odd_size_are_padded(tmp_path):
  data = _wav(_chunk(b'LIST', b'odd') + b'\0', _chunk(b'data', bytes(320)))
  found = _announced(tmp_path, data)
  assert found.seconds == 0.01 and found.fault is None
  assert '320 bytes' not in str(found.lacking(0.01))
  assert _announced(tmp_path, data[:-1]).fault == (
      f'{len(data) - 1} of {len(data)} bytes are there'
  )


@pytest.mark.parametrize('kind', [b'NONE', b'sowt', b'ima4'])
def test_aifc_counts_packets_where_it_is_compressed(tmp_path, kind):
  # 16 kHz as an 80-bit float.
  rate = struct.pack('>HQ', 16383 + 13, 16000 << 50)
  form = struct.pack('>hIh', 1, 800, 16) + rate + kind
  data = _chunk(b'COMM', form, '>') + _chunk(b'SSND', bytes(1608), '>')
  data = b'FORM' + struct.pack('>I', 4 + len(data)) + b'AIFC' + data
  found = _announced(tmp_path, data)
  assert found.seconds == (None if kind == b'ima4' else 0.05)
  assert found.fault is None
  assert 'bytes are there' in _announced(tmp_path, data[:-3]).fault


def test_mp3_behind_a_tag_and_before_one(whole, tmp_path):
  data = (whole / 'x.mp3').read_bytes()
  tag = b'ID3\4\0\0' + bytes([0, 0, 1, 2]) + bytes(130)
  # A tag of ID3v1 at the end is no audio, and may be lacking.
  for content in (tag + data, tag + tag + data + b'TAG' + bytes(125)):
    found = _announced(tmp_path, content)
    assert found.seconds == pytest.approx(1.5, abs=0.01)
    assert found.fault is None
  assert _announced(tmp_path, tag + data[:-1]).fault is not None


def test_vbri_counts_frames_too(tmp_path):
  # MPEG-1 layer 3, 128 kbit/s, 44.1 kHz.
  counts = struct.pack('>HHHII', 1, 0, 0, 3000, 10)
  data = b'\xff\xfb\x90\x00' + bytes(32) + b'VBRI' + counts + bytes(400)
  found = _announced(tmp_path, data)
  assert found.seconds == 11520 / 44100 and '3000 bytes' in found.fault


def test_ogg_streams_that_follow_each_other_are_whole(whole, tmp_path):
  first, second = (whole / f'x.{kind}' for kind in ('ogg', 'opus'))
  data = first.read_bytes() + second.read_bytes()
  assert _announced(tmp_path, data) == containers.Announced()
  assert _announced(tmp_path, data + b'TAG' + bytes(125)).fault is None
  assert _announced(tmp_path, data + data[:50]).fault is not None


def test_flac_that_goes_on_is_damaged():
  found = containers.Announced(1.0, 1e-5, exact=True)
  assert 'goes on after 1.00 s' in found.lacking(1.01)
  assert found.lacking(1.0) is None and found.lacking(0.99) is not None
  # Two mp3 files put together are no damage.
  assert containers.Announced(1.0, 1e-5).lacking(2.0) is None


def test_files_made_to_keep_their_reader_busy_are_left(tmp_path):
  for data in (
      _wav(_chunk(b'junk', b'') * 200_000),
      b'ID3\4\0\0\0\0\0\0' * 200_000,
      b'\0\0\0\x10ftypM4A ' + bytes(4) + b'\0\0\0\x08free' * 200_000,
  ):
    start = time.monotonic()
    _announced(tmp_path, data)
    assert time.monotonic() - start < 1


@pytest.mark.parametrize('name', ['x.ogg', 'x.mp3', 'x.aiff', 'x.flac'])
@pytest.mark.parametrize('share', [1, 0.7])
def test_pipes_that_end_early_are_told(whole, tmp_path, name, share):
  data = (whole / name).read_bytes()
  path = tmp_path / name
  path.write_bytes(data[: int(share * len(data))])

  def read():
    with path.open('rb', buffering=0) as file:
      pipe = streams._Pipe(file.fileno())
      with streams._from_pipe(pipe, 'stdin', None, True) as stream:
        return np.concatenate(list(stream.blocks))

  if share == 1:
    # FFmpeg leaves the padding at the end of mp3 that it can't seek in.
    whole = files.read(path)[0]
    np.testing.assert_allclose(read()[: len(whole)], whole, atol=1e-6)
    return
  with pytest.raises(files.AudioFileError, match='stdin: '):
    read()


def test_tags_in_another_encoding_are_no_fault(tmp_path):
  path = tmp_path / 'x.wav'
  info = b'INFO' + _chunk(b'INAM', b'caf\xe9\0\0')
  noise = np.random.default_rng(0).bytes(3200)
  path.write_bytes(_wav(_chunk(b'LIST', info), _chunk(b'data', noise)))
  assert len(files.read(path, strict=True)[0]) == 1600
