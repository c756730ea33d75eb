"""Rows that go on block by block: of samples, or of frames of latents."""

import abc
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped
import numpy as np

from audiolm_jax.generation import checks
from audiolm_jax.generation import live_rows
from audiolm_jax.generation import plain_tracks
from audiolm_jax.generation import steps


@functools.partial(jax.jit, static_argnames=('cache_length', 'sink_tokens'))
def start(
    track: plain_tracks.Plain,
    prompts: Shaped[Array, 'B P K'],
    rng: Array,
    cache_length: int,
    sink_tokens: int,
) -> steps.State:
  """The state after what all prompts have, taken in at once."""
  batch, length, _ = prompts.shape
  endless = jnp.full(batch, steps.ENDLESS)
  state = steps.start(track, endless, cache_length, rng, sink_tokens)
  shown = jnp.ones((batch, length, 1), bool)
  return steps.take_prompts(track, state, prompts, shown, length)[0]


@jax.jit
def _run(track, state, given, mask, count):
  """`steps.run` for the next `count` steps."""
  first, none = state.step, jnp.zeros_like(given)
  track = track.replace(limit=first + count)
  return steps.run(track, state, given, mask[..., None], none, first)


class BlockSession(abc.ABC):
  """Rows that go on block by block, with what is known given in between.

  With nothing given, all sizes of blocks give the same. Nothing lags behind.

  Attributes:
    entered: [B] steps of each row so far, its prompt's among them.
  """

  # Of what the rows are made.
  dtype = np.int32

  def __init__(
      self,
      track: plain_tracks.Plain,
      prompts: Shaped[np.ndarray, 'B P K'],
      lengths: Int[np.ndarray, 'B'],
      rng: Array,
      cache_length: int = 0,
      sink_tokens: int = 0,
  ):
    """Takes in what all prompts have.

    Args:
      track: what generates.
      prompts: how rows begin, padded to P steps.
      lengths: of each prompt.
      rng: a key.
      cache_length: steps that attention without a window keeps in sight.
      sink_tokens: first steps that stay in sight beside them.
    """
    self._track, self._rng = track, rng
    self._kept = cache_length, sink_tokens
    self._prompts = np.asarray(prompts, self.dtype)
    self._lengths = np.asarray(lengths)
    self._first = int(self._lengths.min()) if len(self._lengths) else 0
    self._state = self._begin()
    self.entered = np.full(len(self._prompts), self._first)

  @property
  def prompts(self) -> Shaped[np.ndarray, 'B P K']:
    """What has been taken in: what all prompts have."""
    return self._prompts[:, : self._first]

  @abc.abstractmethod
  def _check(
      self, given: Shaped[Array, 'B n K'], mask: Bool[Array, 'B n']
  ) -> None:
    """Raises ValueError for what is given and is no such step."""

  def _to_track(self, values: Shaped[Array, 'B n K']) -> Shaped[Array, 'B n K']:
    """What is known, as the track has it."""
    return values

  def _from_track(
      self, values: Shaped[Array, 'B n K']
  ) -> Shaped[Array, 'B n K']:
    """The inverse of `_to_track`."""
    return values

  def _step(self, count, given, mask):
    """What the rows have next [B, n, K], and its log-probabilities.

    What is known comes back as it is.

    Blocks are padded to the next power of two, so that few sizes compile.

    Args:
      count: n.
      given: of the steps that are known; anything elsewhere.
      mask: [B, n] where they are known; None for everywhere.

    Raises:
      ValueError: for other shapes, or see `_check`.
    """
    known, inside = self._known(count, given, mask)
    padding = max(1 << (count - 1).bit_length(), 1) - count
    self._state, found, log_prob = _run(
        self._track,
        self._state,
        np.pad(self._to_track(known), ((0, 0), (0, padding), (0, 0))),
        np.pad(inside, ((0, 0), (0, padding))),
        count,
    )
    self.entered = self.entered + count
    found = self._from_track(np.asarray(found)[:, :count])
    found = np.where(inside[..., None], known, found)
    return found, np.asarray(log_prob)[:, :count]

  def reset(self, rows: Bool[np.ndarray, 'B'] | None = None) -> None:
    """Restarts rows with their prompts, as in a new session; None for all."""
    rows = checks.rows(rows, len(self.entered))
    self._state = live_rows.restart(self._state, self._begin(), rows)
    self.entered = np.where(rows, self._first, self.entered)

  def _begin(self):
    prompts = self._to_track(self.prompts)
    return start(self._track, prompts, self._rng, *self._kept)

  def _known(self, count, given, mask):
    """What is given of the next steps: by prompts, and by who steps."""
    rows, longest, width = self._prompts.shape
    if count < 0:
      raise ValueError(f'count = {count}: expected at least 0')
    shape = rows, count, width
    given, mask = checks.fed(given, mask, shape, shape[:2])
    self._check(given, mask)
    index = self.entered[:, None] + np.arange(count)
    shown = index < self._lengths[:, None]
    if longest:
      at = np.arange(rows)[:, None], np.minimum(index, longest - 1)
      given = np.where(shown[..., None], self._prompts[at], given)
    return given.astype(self.dtype), mask | shown
