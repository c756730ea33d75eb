"""tools/crash_test.py at small scale, and that it notices what it should."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / 'tools'))

import crash_test  # noqa: E402


def test_three_kills_change_nothing(tmp_path):
  command = [sys.executable, 'tools/crash_test.py', '--kills=3']
  command += ['--config=configs/toy.py:smoke', f'--root={tmp_path}/crash']
  command += ['--config.checkpoint.every=4', '--config.data.delay=0.1']
  done = subprocess.run(
      command, cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert done.stdout.count('Killed') == 3
  whole = tmp_path / 'crash' / 'whole'
  expected = crash_test.fingerprint(whole)
  # Another metric in one record is noticed.
  other = tmp_path / 'other'
  shutil.copytree(whole, other)
  lines = (other / 'metrics.jsonl').read_text().splitlines()
  record = json.loads(lines[3])
  record['ids'][0] += 1
  lines[3] = json.dumps(record)
  (other / 'metrics.jsonl').write_text('\n'.join(lines) + '\n')
  found = crash_test.fingerprint(other)
  assert found['state'] == expected['state']
  assert found['ids'] != expected['ids']
  assert len(expected['ids']) == 20


def test_descendants_are_found():
  process = subprocess.Popen(['sh', '-c', 'sleep 30 & wait'])
  try:
    for _ in range(100):
      below = crash_test.descendants(process.pid)
      if below:
        break
    assert len(below) == 1 and all(map(crash_test.alive, below))
  finally:
    for pid in below:
      subprocess.run(['kill', str(pid)], check=True)
    process.kill()
    process.wait()
  with pytest.raises(ProcessLookupError):
    crash_test.os.kill(process.pid, 0)
