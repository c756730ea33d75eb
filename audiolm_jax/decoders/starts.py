"""How rows start: what the first step of a decoder takes in.

Every other step takes in the codes of the step before it. Before the first
there are none, and models differ in what they have learned to see there.
"""

import dataclasses
from typing import Annotated, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped

from audiolm_jax import config

Codes = Annotated[tuple[int, ...], config.Range(min=0)]


class Inputs(NamedTuple):
  """Codes as embeddings take them.

  Attributes:
    codes: anything where not `exists`.
    slots: of each position.
    exists: positions that hold a code.
  """

  codes: Int[Array, 'B n G']
  slots: Int[Array, 'B n G']
  exists: Bool[Array, 'B n G']


@dataclasses.dataclass(frozen=True)
class Own:
  """A row of the table of embeddings that is no code's: the one that fills.

  For models that are trained here, and those whose padding is such a row
  (MusicGen, Moshi).
  """

  # How many leading steps are given and not predicted.
  given = 0

  def check(self, vocabularies: tuple[int, ...]) -> None:
    """Raises ConfigError if it does not fit a decoder of these slots."""

  def first(
      self,
      slots: Int[Array, 'B G'],
      codes: Int[Array, 'B K'] | None,
  ) -> tuple[Int[Array, 'B G'], Bool[Array, 'B G']]:
    """What the first step that is predicted takes in: (codes, exists).

    Args:
      slots: of the positions of the first step.
      codes: of the first frame, where that is given.
    """
    del codes
    none = jnp.zeros(slots.shape, jnp.int32)
    return none, none.astype(bool)

  def fill(
      self, given: Int[Array, 'B F K'], mask: Bool[Array, 'B F K']
  ) -> tuple[Int[Array, 'B F K'], Bool[Array, 'B F K']]:
    """What is given of F >= 1 frames, and what a row begins with otherwise."""
    return given, mask

  def inputs(self, steps: Inputs) -> Inputs:
    """What the backbone takes in of whole rows, position by position."""
    codes, exists = self.first(steps.slots[:, 0], None)
    first = Inputs(codes, steps.slots[:, 0], exists)
    return Inputs(
        *(later(x, y[:, None]) for x, y in zip(steps, first, strict=True))
    )

  def positions(self, x: Shaped[Array, 'B N *d']) -> Shaped[Array, 'B N *d']:
    """From steps to the positions of the backbone that predict them."""
    return x

  def steps(self, y: Shaped[Array, 'B N *d']) -> Shaped[Array, 'B N *d']:
    """The inverse; zero for steps that are given."""
    return y


@dataclasses.dataclass(frozen=True)
class Code(Own):
  """Codes that stand before all rows and are part of none.

  Attributes:
    codes: one for each slot.
  """

  codes: Codes

  def check(self, vocabularies):
    _check_codes(self.codes, vocabularies, 'codes')

  def first(self, slots, codes):
    del codes
    return jnp.array(self.codes)[slots], jnp.ones(slots.shape, bool)


@dataclasses.dataclass(frozen=True)
class Given(Own):
  """Nothing: a row's first step is given and not predicted.

  For language models of other libraries, whose first id is the first input.

  Attributes:
    begin: the codes of the first frame of rows to which none is given, such as
      the id that texts begin with; None if all rows need one.
  """

  given = 1
  begin: Codes | None = None

  def check(self, vocabularies):
    if self.begin is not None:
      _check_codes(self.begin, vocabularies, 'begin')

  def first(self, slots, codes):
    return (
        jnp.take_along_axis(codes, slots, axis=1),
        jnp.ones(slots.shape, bool),
    )

  def fill(self, given, mask):
    given, mask = jnp.asarray(given), jnp.asarray(mask)
    if self.begin is not None:
      first = jnp.where(mask[:, 0], given[:, 0], jnp.array(self.begin))
      given = given.at[:, 0].set(first)
    return given, mask.at[:, 0].set(True)

  def inputs(self, steps):
    return steps

  def positions(self, x):
    return jnp.concatenate([x[:, 1:], jnp.zeros_like(x[:, :1])], axis=1)

  def steps(self, y):
    return later(y, jnp.zeros_like(y[:, :1]))


STARTS = {'code': Code, 'given': Given, 'own': Own}


def _check_codes(codes, vocabularies, name):
  if len(codes) != len(vocabularies) or any(
      code >= size for code, size in zip(codes, vocabularies, strict=True)
  ):
    raise config.ConfigError(
        f'start.{name} = {codes}: expected a code for each slot of'
        f' vocabularies {vocabularies}'
    )


def later(
    x: Shaped[Array, 'B N *d'], first: Shaped[Array, 'B 1 *d']
) -> Shaped[Array, 'B N *d']:
  """One step later, after `first`."""
  return jnp.concatenate([first, x[:, :-1]], axis=1)
