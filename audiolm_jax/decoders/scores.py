"""What decoders say of given codes: log-probabilities, stream by stream.

A decoder of frames has one stream, 'frames'; one of segments has a stream for
each segment, by its label; one of samples has 'samples'.
"""

import math
from typing import Any, NamedTuple

import flax
from jaxtyping import Array, Bool, Float, Int


class StreamScores(flax.struct.PyTreeNode):
  """Log-probabilities of one stream, code by code; callers reduce them.

  Attributes:
    log_prob: [B, N, K] float32, nats; 0 where not scored.
    mask: [B, N, K] True where scored.
  """

  log_prob: Float[Array, 'B N K']
  mask: Bool[Array, 'B N K']


class Scores(flax.struct.PyTreeNode):
  """What a decoder says of a batch.

  Attributes:
    streams: the scores of each stream that has predicted codes, by label.
    losses: what the backbone adds to the loss, by name: for each row a sum over
      its steps.
    steps: [B] how many steps those sums run over; None without a backbone that
      has such losses.
    tag: what the log-probabilities are: 'exact', 'bound' (of which `score`
      draws an estimate with the rng stream 'bound') or 'none'.
  """

  streams: dict[str, StreamScores]
  losses: dict[str, Float[Array, 'B']] = flax.struct.field(default_factory=dict)
  steps: Int[Array, 'B'] | None = None
  tag: str = flax.struct.field(pytree_node=False, default='exact')

  def __getitem__(self, label: str) -> StreamScores:
    return self.streams[label]


class Stream(NamedTuple):
  """How batches hold a stream of a decoder, and how its bits are reported.

  Attributes:
    lengths: the entry of a batch that has the rows' lengths.
    metric: name of its bits for each frame (or sample).
    slots: the columns of its scores that are predicted; none if the stream is
      only observed.
    term: name of its negative log-likelihood among the terms of a loss.
    by_slot: whether each slot is reported beside their sum, for each frame;
      else the mean over all codes is.
  """

  lengths: str
  metric: str
  slots: tuple[int, ...]
  term: str = 'nll'
  by_slot: bool = True


def bits(nats: Any) -> Any:
  """Nats as bits."""
  return nats / math.log(2)
