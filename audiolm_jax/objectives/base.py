"""The Objective seam: what is trained, on what, towards what."""

import abc
from typing import Any

import flax
from jaxtyping import Array, Float

from audiolm_jax import config
from audiolm_jax.models import kinds

Batch = dict[str, Array]
Variables = dict[str, dict[str, Any]]  # {model: {'params': ..., 'state': ...}}


class Output(flax.struct.PyTreeNode):
  """What an objective says of one (micro)batch.

  All three are sums over examples, so that microbatches, devices and hosts add
  exactly; nothing is divided before everything has been added.

  Attributes:
    terms: name -> (sum, weight). The loss is the sum over terms of
      `loss_weights[name] * sum / weight`, formed after accumulation. Weights
      (counts of scored positions, mostly) are constants to the gradient.
    statistics: what `finish` needs (codebook counts and sums); added.
    metrics: name -> (sum, weight), reported as sum / weight, not optimised.
  """

  terms: dict[str, tuple[Float[Array, ''], Float[Array, '']]]
  statistics: Any = flax.struct.field(default_factory=dict)
  metrics: dict[str, tuple[Float[Array, ''], Float[Array, '']]] = (
      flax.struct.field(default_factory=dict)
  )


def row_length(
    stream: str, given: int | None, source: Any, key: str
) -> int | None:
  """How long the rows of a stream are: what is given, or else the data's.

  Args:
    stream: 'frames', 'samples', or the label of a segment.
    given: what the objective says; None for the data's.
    source: config.data.
    key: where the given length stands.

  Raises:
    config.ConfigError: if both say something else.
  """
  length = getattr(source, 'lengths', {}).get(stream, given)
  if given not in (None, length):
    raise config.ConfigError(
        f'{key} = {given}, but rows of config.data have {length} {stream}:'
        ' leave it to the data, or give the same.'
    )
  return length


class Objective(abc.ABC):
  """A training problem over one or several named models.

  Attributes:
    loss_weights: term -> its factor in the loss.
    additive: False if some term does not add over microbatches; the loop then
      refuses gradient accumulation.
  """

  loss_weights: dict[str, float]
  additive: bool = True

  @property
  def conditions(self) -> dict[str, Any]:
    """What batches tell of clips, by name, as `data.factors`.

    They are added to a data config's `conditions`; of the same name it must have
    the same.
    """
    return {}

  def init(self, rng: Array) -> Variables:
    """Fresh variables of every model; params may be boxed with axis names.

    Of `model` alone: an objective with others, or without one, has its own.
    """
    name, description = self.model
    return {name: description.init(rng)}

  def needs(self, source: Any) -> dict[str, tuple[str, Any]]:
    """What the model takes of its data: field of config.data -> (key, value).

    `key` is where the value stands in the objective. See `resolution`.

    Args:
      source: config.data.
    """
    del source
    return {}

  def with_data(self, source: Any, read: bool) -> 'Objective':
    """Itself, with what it leaves to the data filled in.

    Args:
      source: config.data, with `needs` filled in.
      read: whether to read the header of its token cache.

    Raises:
      config.ConfigError: for what is given twice and differs, or, if `read`,
        not at all.
    """
    del source, read
    return self

  def initial_values(self, source: Any) -> dict[str, Any]:
    """Values, {model: {'params': {...}}}, that replace some of `init`'s.

    Nested dicts of host arrays. Asked for once, at step 0, of a run that does
    not start from another run's parameters; files are read here, not in `init`,
    which is also traced where a model is loaded.

    Args:
      source: the run's config.data.
    """
    del source
    return {}

  @abc.abstractmethod
  def example_batch(self, batch_size: int) -> Batch:
    """A batch of zeros with training's shapes and dtypes (costs, compiling)."""

  @abc.abstractmethod
  def __call__(self, variables: Variables, batch: Batch, rng: Array) -> Output:
    """Terms, statistics and metrics of one microbatch."""

  def finish(
      self, states: dict[str, Any], statistics: Any, rng: Array
  ) -> dict[str, Any]:
    """New model states after an optimizer step ({model: state})."""
    del statistics, rng
    return states

  @property
  @abc.abstractmethod
  def model(self) -> tuple[str, kinds.Description]:
    """The model that a run is for: its name in `init`'s result, and what it is."""

  def bind(self, variables: Variables) -> Any:
    """That model for people: what `audiolm_jax.load(workdir)` returns."""
    name, description = self.model
    return description.bind(variables[name])

  def audio_seconds(self, batch: Batch) -> float:
    """Seconds of audio that a host batch stands for, for throughput."""
    del batch
    return 0.0
