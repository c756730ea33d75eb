"""The tool: files, folders, pipes, bitrates, and what it says of bad files."""

import os
import re
import sys
import threading

import numpy as np
import pytest
import soundfile

from audiolm_jax.models import loading
from audiolm_jax.audio import files
from audiolm_jax.audio import streams
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import caching
from audiolm_jax.tokenizers import encoding
from audiolm_jax.tokenizers import token_files
from tests import tool_module
from tests.fuzz import token_streams
from tests.tokenizers import tiny

# One shape for all tests: 13 frames.
BLOCK = f'--block_seconds={13 * tiny.HOP / tiny.RATE}'


@pytest.fixture(name='tool', scope='module')
def _tool():
  return tool_module.load('tokenize_audio')


@pytest.fixture(name='codec', scope='module')
def _codec():
  return audio_tokenizer.AudioTokenizer(*tiny.codec('state'))


@pytest.fixture(name='run')
def _run(tool, codec, monkeypatch):
  """Runs a command with the tiny codec as every directory's tokenizer."""
  monkeypatch.setattr(loading, 'load_codec', lambda directory: codec)

  def run(command, *arguments):
    given = ['--tokenizer=x', BLOCK, *map(str, arguments)]
    return tool.main([command, *given])

  return run


def _write(path, samples=3000, rate=8000, channels=1, seed=0):
  rng = np.random.default_rng(seed)
  audio = rng.uniform(-0.5, 0.5, (samples, channels)).astype(np.float32)
  files.write(path, audio, rate)
  return path


def _names(folder):
  """The files below a folder, but for the code vectors."""
  files_below = [p for p in folder.rglob('*') if p.suffix != '.npy']
  return sorted(
      p.relative_to(folder).as_posix() for p in files_below if p.is_file()
  )


def test_a_file_there_and_back(run, tmp_path, capsys):
  wav = _write(tmp_path / 'x.flac', channels=2)
  assert run('encode', wav, tmp_path / 'x.tokens') == 0
  assert run('decode', tmp_path / 'x.tokens', tmp_path / 'y.wav') == 0
  sound, rate = files.read(tmp_path / 'y.wav')
  assert rate == tiny.RATE and sound.shape == (600, 1)
  said = capsys.readouterr()
  assert not said.out and '0.38 s of audio, 38 frames' in said.err


def test_bitrates(run, tmp_path):
  wav = _write(tmp_path / 'x.wav')
  out = tmp_path / 'x.tokens'
  for choice, codebooks in (('--kbps=0.65', 2), ('--codebooks=1', 1)):
    assert run('encode', wav, out, choice) == 0
    assert token_files.read(out)[0].codebooks == codebooks
  with pytest.raises(SystemExit, match=r'1 \(0.3 kbps\), 2'):
    run('encode', wav, out, '--kbps=0.1')


def test_one_file_with_nan_leaves_the_others_of_a_folder(run, tmp_path, capsys):
  audio = np.zeros((40000, 1), np.float32)
  audio[::7] = np.inf
  (tmp_path / 'in').mkdir()
  soundfile.write(tmp_path / 'in/a.wav', audio, 16000, subtype='FLOAT')
  _write(tmp_path / 'in/b.wav')
  assert run('encode', tmp_path / 'in', tmp_path / 'out') == 1
  said = capsys.readouterr().err
  assert 'a.wav: after 0.00 s: ' in said and 'finite' in said
  assert '1 done, 0 there' in said
  assert _names(tmp_path / 'out') == ['b.tokens']


def test_bad_input_is_told(run, tmp_path, capsys):
  (tmp_path / 'x.wav').write_text('no audio')
  assert run('encode', tmp_path / 'x.wav', tmp_path / 'x.tokens') == 1
  assert 'x.wav: cannot be decoded' in capsys.readouterr().err
  assert run('decode', tmp_path / 'x.wav', tmp_path / 'y.wav') == 1
  assert 'no token file' in capsys.readouterr().err
  assert os.listdir(tmp_path) == ['x.wav']


def test_a_folder_with_bad_files(run, tmp_path, capsys):
  folder, out = tmp_path / 'in', tmp_path / 'out'
  _write(folder / 'a.wav')
  _write(folder / 'deep/er/b.flac', seed=1)
  (folder / 'deep/bad.mp3').write_bytes(b'not audio')
  (folder / 'notes.txt').write_text('not audio either')
  _write(folder / 'a.flac')  # Would become a.tokens too, and comes first.
  assert run('encode', folder, out) == 1
  assert _names(out) == ['a.tokens', 'deep/er/b.tokens']
  said = capsys.readouterr().err
  assert '2 done, 0 there before, 2 bad' in said
  # Once as they are met, once in the list at the end.
  assert said.count('bad.mp3: ') == said.count('a.wav: ') == 2

  # What is there and whole is kept; what is damaged or other is done again.
  damaged = out / 'deep/er/b.tokens'
  damaged.write_bytes(damaged.read_bytes()[:-1])
  (folder / 'a.wav').unlink()
  (folder / 'deep/bad.mp3').unlink()
  assert run('encode', folder, out) == 0
  assert '1 done, 1 there before, 0 bad' in capsys.readouterr().err
  assert run('encode', folder, out, '--codebooks=2') == 0
  assert '2 done, 0 there before' in capsys.readouterr().err
  assert run('encode', folder, out, '--codebooks=2', '--overwrite') == 0
  assert '2 done, 0 there before' in capsys.readouterr().err

  back = tmp_path / 'back'
  assert run('decode', out, back, '--format=flac') == 0
  assert files.read(back / 'deep/er/b.flac')[0].shape == (600, 1)
  with pytest.raises(SystemExit, match='no file that ends in .tokens'):
    run('decode', folder, back)


_FILE = ('encode', 'x.wav', 'x.tokens')
_FOLDER = ('encode', 'in', 'out')


@pytest.mark.parametrize(
    'arguments, message',
    [
        (('encode', '', 'x.tokens'), 'need names'),
        (('encode', 'x.wav', ''), 'need names'),
        (('decode', 'x.tokens', ''), 'need names'),
        (('encode', 'in', '-'), 'a folder becomes a folder'),
        (('encode', 'x.wav', 'x.wav'), 'both input and output'),
        (('encode', 'x.wav', 'y.flac'), 'tokens in a file .* named as audio'),
        (('encode', 'x', 'y', '--raw_channels=2'), 'give both'),
        ((*_FILE, '--raw_rate=8000'), 'x.wav says its own rate'),
        ((*_FOLDER, '--raw_rate=8000'), 'one file or a pipe'),
        (('decode', 'in', 'out', '--raw'), 'one file or a pipe'),
        (('decode', 'x.tokens', 'y.wav', '--raw'), 'must have'),
        (('decode', 'x.tokens', 'y.wav', '--format=wav'), 'for folders'),
        ((*_FILE, '--block_seconds=0'), 'block_seconds = 0'),
        ((*_FILE, '--block_seconds=-1'), 'block_seconds = -1'),
        ((*_FILE, '--block_seconds=nan'), 'block_seconds = nan'),
        ((*_FILE, '--block_seconds=inf'), 'block_seconds = inf'),
        ((*_FILE, '--block_seconds=1e9'), 'block_seconds = 10000'),
        ((*_FILE, '--overlap_seconds=-1'), 'overlap_seconds = -1'),
        ((*_FILE, '--overlap_seconds=nan'), 'overlap_seconds = nan'),
        ((*_FILE, '--overlap_seconds=.1'), 'overlap_seconds = 0.1.*exactly'),
        ((*_FILE, '--codebooks=9'), '9 codebooks'),
        ((*_FILE, '--kbps=nan'), 'nan kbps'),
    ],
)
def test_arguments_that_mean_nothing_are_refused(
    run, monkeypatch, tmp_path, arguments, message
):
  _write(tmp_path / 'x.wav')
  (tmp_path / 'in').mkdir()
  monkeypatch.chdir(tmp_path)
  with pytest.raises(SystemExit, match=f'^tokenize_audio: .*{message}'):
    run(*arguments)
  assert sorted(os.listdir(tmp_path)) == ['in', 'x.wav']


@pytest.mark.parametrize(
    'option, message',
    [
        ('--raw_rate=0', 'a sample rate of 0 Hz'),
        ('--raw_rate=-5', 'a sample rate of -5 Hz'),
        ('--raw_rate=1', 'a sample rate of 1 Hz'),
        ('--raw_rate=x', 'invalid literal'),
        ('--raw_channels=0', '0 channels; expected 1 to 1024'),
        ('--raw_channels=1000000', '1000000 channels'),
    ],
)
def test_rates_and_channels_have_bounds(run, capsys, option, message):
  with pytest.raises(SystemExit):
    run('encode', '-', '-', option)
  assert message in capsys.readouterr().err.splitlines()[-1]


def test_what_is_no_file_and_what_can_not_be_written_is_named(
    run, tmp_path, capsys
):
  """The rest of the folder is done."""
  folder, out = tmp_path / 'in', tmp_path / 'out'
  for name in 'abc':
    _write(folder / f'{name}.wav')
  (folder / 'dangling.wav').symlink_to('nowhere.wav')
  (folder / 'loop.wav').symlink_to('loop.wav')
  os.mkfifo(folder / 'pipe.wav')
  (out / 'b.tokens').mkdir(parents=True)
  # Shouts a hundred times full scale after half a second.
  loud = np.zeros((8000, 1), np.float32)
  loud[5000] = 100.0
  soundfile.write(folder / 'loud.wav', loud, 8000, subtype='FLOAT')
  assert run('encode', folder, out) == 1
  *_, total, first, second, third, fourth, fifth = (
      capsys.readouterr().err.splitlines()
  )
  assert '2 done, 0 there before, 5 bad' in total
  assert 'Is a directory' in first and 'b.tokens' in first
  for line, name in ((second, 'dangling'), (third, 'loop'), (fifth, 'pipe')):
    assert f'{name}.wav: no file' in line
  assert 'loud.wav: after ' in fourth and 'full scale is 1' in fourth
  assert _names(out) == ['a.tokens', 'c.tokens']


def test_a_forged_header_is_no_way_around_the_fingerprint(
    run, codec, tmp_path, capsys
):
  wav, tokens = _write(tmp_path / 'x.wav'), tmp_path / 'x.tokens'
  assert run('encode', wav, tokens) == 0
  header, found = token_files.read(tmp_path / 'x.tokens')
  fields, frames = header.to_dict(), found.codes.shape[1]
  payload = header.pack(encoding.Block(int(found.num_samples[0]), found.codes))
  block = frames, int(found.num_samples[0]), payload
  for key, value, message in (
      ('sample_rate', 2 * tiny.RATE, 'the header is wrong'),
      ('latency', 3, 'the header is wrong'),
      ('hop', 8, r'another shape .hop'),
      ('channels', 2, r'another shape .channels'),
  ):
    changed = {**fields, 'spec': {**fields['spec'], key: value}}
    tokens.write_bytes(token_streams.forged(changed, [block]))
    assert run('decode', tokens, tmp_path / 'y.wav') == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / 'y.wav').exists()
  tokens.write_bytes(token_streams.forged(fields, [block]))
  assert run('decode', tokens, tmp_path / 'y.wav') == 0


class _Piped:
  """Stands for sys.stdin or sys.stdout with a pipe behind it."""

  def __init__(self, file):
    self.buffer = file

  def fileno(self):
    return self.buffer.fileno()


def test_tokens_come_while_audio_still_comes(run, monkeypatch, tmp_path):
  """A causal codec on pipes: a block out for each block in."""
  audio = files.read(_write(tmp_path / 'x.wav', 1000, tiny.RATE))[0]
  samples = files.to_int16(audio).tobytes()
  source, feed = os.pipe()
  drain, sink = os.pipe()
  monkeypatch.setattr(sys, 'stdin', _Piped(open(source, 'rb')))
  monkeypatch.setattr(sys, 'stdout', _Piped(open(sink, 'wb')))
  status = []

  def work():
    status.append(run('encode', '-', '-', '--codebooks=3'))
    sys.stdout.buffer.close()

  thread = threading.Thread(target=work)
  with open(feed, 'wb', buffering=0) as into, open(drain, 'rb') as out:
    thread.start()
    # Two blocks of 13 frames, 16 bits a sample.
    into.write(streams._wav_header(tiny.RATE, 1))
    into.write(samples[: 2 * 13 * tiny.HOP * 2])
    reader = token_files.Reader(out)
    blocks = iter(reader)
    assert next(blocks).frames == next(blocks).frames == 13
    into.write(samples[2 * 13 * tiny.HOP * 2 :])
    into.close()
    assert sum(block.frames for block in blocks) == 63 - 26
    assert reader.samples == 1000
  thread.join(60)
  assert status == [0]


def test_audio_comes_while_tokens_still_come(run, monkeypatch, tmp_path):
  wav, tokens = _write(tmp_path / 'x.wav', 1000, tiny.RATE), tmp_path / 'x'
  run('encode', wav, tokens)
  run('decode', tokens, tmp_path / 'whole.wav')
  whole, _ = files.read(tmp_path / 'whole.wav')
  data = tokens.read_bytes()
  source, feed = os.pipe()
  drain, sink = os.pipe()
  monkeypatch.setattr(sys, 'stdin', _Piped(open(source, 'rb')))
  monkeypatch.setattr(sys, 'stdout', _Piped(open(sink, 'wb')))

  def work():
    run('decode', '-', '-', '--raw')
    sys.stdout.buffer.close()

  thread = threading.Thread(target=work)
  with open(feed, 'wb', buffering=0) as into, open(drain, 'rb') as out:
    thread.start()
    into.write(data[:-40])
    first = out.read(2 * 12 * tiny.HOP)
    into.write(data[-40:])
    into.close()
    rest = out.read()
  thread.join(60)
  sound = np.frombuffer(first + rest, '<i2')[:, None] / 32768
  np.testing.assert_allclose(sound, whole, atol=1 / 16384)


def test_raw_input(run, monkeypatch, tmp_path):
  audio = files.read(_write(tmp_path / 'x.wav', 500, 8000))[0]
  (tmp_path / 'x.raw').write_bytes(files.to_int16(audio).tobytes())
  assert run('encode', tmp_path / 'x.wav', tmp_path / 'a') == 0
  raw = ('--raw_rate=8000', '--raw_channels=1')
  assert run('encode', tmp_path / 'x.raw', tmp_path / 'b', *raw) == 0
  one, two = (token_files.read(tmp_path / name)[1] for name in 'ab')
  np.testing.assert_array_equal(one.codes, two.codes)


def test_codecs_without_an_exact_way(tool, monkeypatch, tmp_path, capsys):
  codec = audio_tokenizer.AudioTokenizer(*tiny.codec('unbounded'))
  # Its parts are in no table, so they have no config to take it from.
  monkeypatch.setattr(codec, 'fingerprint', lambda: 'abc')
  monkeypatch.setattr(loading, 'load_codec', lambda directory: codec)
  wav, out = _write(tmp_path / 'x.wav', 1600, tiny.RATE), tmp_path / 'x.tokens'
  command = ['encode', str(wav), str(out), '--tokenizer=x']
  with pytest.raises(SystemExit, match='depends on the whole file'):
    tool.main(command)
  assert not out.exists()
  settings = ['--block_seconds=0.2', '--overlap_seconds=0.1']
  assert tool.main(command + settings) == 0
  assert 'windows differ by' in capsys.readouterr().err


def test_corpus(tool, codec, monkeypatch, capsys):
  monkeypatch.setattr(loading, 'load_codec', lambda directory: codec)
  given = {}
  monkeypatch.setattr(
      caching, 'fill', lambda *args, **more: given.update(more) or 60.0
  )
  command = [
      'corpus',
      '--workdir=x',
      '--corpus=c',
      '--out=y',
      '--languages=en,fr',
      '--shard=1/4',
  ]
  assert tool.main(command) == 0
  assert given['languages'] == ('en', 'fr') and given['shard'] == (1, 4)
  assert given['workdir'] == 'x' and given['corpus'] == 'c'
  assert '1.0 min of audio' in capsys.readouterr().out
  for wrong in ('--shard=4/4', '--shard=x', '--limit=0', '--batch_seconds=nan'):
    with pytest.raises(SystemExit):
      tool.main([*command, wrong])
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith('usage') or 'expected' in last
