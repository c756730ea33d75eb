"""One holder at a time, named, and none after it has let go."""

import os

import pytest

from audiolm_jax.training import locks


def test_one_at_a_time(tmp_path):
  with locks.hold(tmp_path):
    with pytest.raises(locks.LockedError, match=f'process {os.getpid()} on'):
      with locks.hold(tmp_path):
        pass
  with locks.hold(tmp_path):
    pass


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch):
  def refuse(*_):
    raise OSError('No locks available')

  warnings = []
  monkeypatch.setattr(locks.fcntl, 'flock', refuse)
  monkeypatch.setattr(
      locks.logging, 'warning', lambda *words: warnings.append(words)
  )
  with locks.hold(tmp_path), locks.hold(tmp_path):
    pass
  assert len(warnings) == 2 and warnings[0][1] == tmp_path
