"""Calls that are timed in turns, so that a busy machine slows all of them."""

from collections.abc import Callable
import statistics
import time

# Rounds before those that count: calls that take gigabytes in turns find pages of
# their own only then, and new ones can cost more than the call.
_WARM_UP = 2
_LEAST_ROUNDS = 3


def medians(
    rounds: int,
    calls: dict[str, Callable[[], object]],
    most_seconds: float = 60.0,
) -> dict[str, float]:
  """Median seconds of each call.

  Args:
    rounds: how often each is timed.
    calls: by name; each returns when its work is done.
    most_seconds: after these, three rounds will do.
  """
  spent = {name: [] for name in calls}
  start = time.perf_counter()
  for i in range(-_WARM_UP, rounds):
    late = time.perf_counter() - start > most_seconds
    if late and i >= _LEAST_ROUNDS:
      break
    for name, call in calls.items():
      then = time.perf_counter()
      call()
      if i >= 0:
        spent[name].append(time.perf_counter() - then)
  return {name: statistics.median(times) for name, times in spent.items()}
