"""What stands in several places of a config, and must be the same."""

from collections.abc import Iterable
import dataclasses
import math
import operator
from typing import Any

from audiolm_jax import config


@dataclasses.dataclass(frozen=True)
class Fact:
  """A value that may stand elsewhere too, and must be the same there.

  Attributes:
    name: what it is of, such as 'frame rate'.
    key: where it stands.
    value: a number (to a thousandth), a string, or a tuple, of which what two
      places both have must agree.
  """

  name: str
  key: str
  value: Any

  def agrees(self, other: 'Fact') -> bool:
    mine, theirs = self.value, other.value
    if isinstance(mine, tuple):
      return all(map(operator.eq, mine, theirs))
    if isinstance(mine, float):
      return math.isclose(mine, theirs, rel_tol=1e-3)
    return mine == theirs


def check_facts(facts: Iterable[Fact]) -> None:
  """Holds facts of the same name against each other.

  Raises:
    ConfigError: naming two keys and their values.
  """
  known: dict[str, list[Fact]] = {}
  for fact in facts:
    for other in known.setdefault(fact.name, []):
      if not fact.agrees(other):
        raise config.ConfigError(
            f'{other.key} = {other.value!r}, but {fact.key} = {fact.value!r}:'
            f' the {fact.name} must be the same.'
        )
    known[fact.name].append(fact)
