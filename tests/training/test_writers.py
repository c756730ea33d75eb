"""The metrics file of a resumed run is that of an uninterrupted one."""

import errno
import json
import subprocess
import sys

import pytest

from audiolm_jax import config
from audiolm_jax.training import writers


def _write(path, start, steps):
  writer = writers.Writer(path, start)
  for step in steps:
    writer.write(step, {'loss': step / 2, 'ids': [step]})
  writer.flush()
  return writer


def test_later_records_and_a_torn_line_are_dropped(tmp_path):
  _write(tmp_path, 0, range(1, 7)).close()
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 7, "lo')
  _write(tmp_path, 4, range(5, 9)).close()
  (tmp_path / 'whole').mkdir()
  _write(tmp_path / 'whole', 0, range(1, 9)).close()
  whole = (tmp_path / 'whole' / 'metrics.jsonl').read_text()
  assert (tmp_path / 'metrics.jsonl').read_text() == whole
  assert [r['step'] for r in writers.read_metrics(tmp_path)] == list(
      range(1, 9)
  )


def test_a_torn_line_is_not_read(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text(json.dumps({'step': 1}) + '\n{"step": 2')
  assert writers.read_metrics(tmp_path) == [{'step': 1}]


def test_tensorboard_files_are_written(tmp_path):
  _write(tmp_path, 0, [1]).close()
  assert list((tmp_path / 'tensorboard').glob('events*'))


def test_rates_are_those_since_the_last_update(monkeypatch):
  now = iter([0.0, 2.0, 3.0])
  monkeypatch.setattr(writers.time, 'perf_counter', lambda: next(now))
  progress = writers.Progress(10, 100, quiet=True)
  progress.add_audio(8.0)
  rates = progress.update(20, 1.0)
  assert rates == {'time/steps_per_second': 5.0, 'time/audio_per_second': 4.0}
  assert progress.update(21, 1.0)['time/audio_per_second'] == 0.0


def test_processes_that_write_one_file_do_not_trip_over_each_other(tmp_path):
  path = tmp_path / 'header.json'
  code = (
      'import pathlib, sys\n'
      'from audiolm_jax.training import writers\n'
      'for _ in range(200):\n'
      '  writers.write_atomically(pathlib.Path(sys.argv[1]), sys.argv[2])\n'
  )
  processes = [
      subprocess.Popen([sys.executable, '-c', code, str(path), text])
      for text in ('a' * 1000, 'b' * 1000)
  ]
  assert [process.wait() for process in processes] == [0, 0]
  assert path.read_text() in ('a' * 1000, 'b' * 1000)
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    'line', [b'{"step": \xff}', b'', b'[1]', b'{"loss": 1}', b'{"step": 1']
)
def test_a_damaged_line_is_named(tmp_path, line):
  (tmp_path / 'metrics.jsonl').write_bytes(b'{"step": 1}\n' + line + b'\n')
  with pytest.raises(
      config.ConfigError, match='metrics.jsonl: line 2 is damaged'
  ):
    writers.read_metrics(tmp_path)


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path, monkeypatch):
  def full(_):
    raise OSError(errno.ENOSPC, 'No space left on device')

  path = tmp_path / 'x.json'
  path.write_text('old')
  monkeypatch.setattr(writers.os, 'fsync', full)
  with pytest.raises(OSError, match=f'No space left on device: .{path}'):
    writers.write_atomically(path, 'new')
  assert [p.name for p in tmp_path.iterdir()] == ['x.json']
  assert path.read_text() == 'old'
