"""The turns of benchmarks."""

import time

from tools import bench_turns


def test_calls_take_turns_and_the_first_rounds_do_not_count():
  order = []

  def slow_at_first():
    order.append('a')
    if order.count('a') <= 2:
      time.sleep(0.05)

  found = bench_turns.medians(
      4, {'a': slow_at_first, 'b': lambda: order.append('b')}
  )
  assert order == ['a', 'b'] * 6
  assert set(found) == {'a', 'b'}
  assert 0 <= found['a'] < 0.05


def test_three_rounds_do_where_a_call_takes_long():
  calls = []
  bench_turns.medians(9, {'a': lambda: calls.append(0)}, most_seconds=0.0)
  assert len(calls) == 2 + 3
