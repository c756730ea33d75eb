"""Checksums of shards hold what other shardings, and processes, read."""

from tests.multiprocess import scripts


def test_two_processes_agree_on_damage(tmp_path):
  port = scripts.free_port()
  found = scripts.results(
      [scripts.start('run_checksums', tmp_path, i, port) for i in range(2)]
  )
  damage = ['w is not what was saved']
  for values in found:
    assert values == [[blocks, damage, True] for blocks in (1, 4, 4, 4)]
