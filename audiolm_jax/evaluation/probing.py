"""Probes: what can be read from vectors or codes, and at what price.

A probe is linear or has one hidden layer. Classes are fitted by softmax
regression under a Gaussian prior of the weights, numbers by ridge regression,
which is closed where it is linear. Inputs are vectors [N, D], which are
standardised, or codes [N, K], which are embedded: one-hot vectors that are never
formed.
"""

from collections.abc import Hashable, Sequence
import dataclasses
from typing import Any

import jax
from jax import flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np
from scipy import optimize
from scipy import sparse

from audiolm_jax.data import splits

# Of the training examples, ends of the blocks of the online code (2003.12298).
BLOCKS = (
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0,
)  # fmt: skip
_ITERATIONS = 300
_LEAST = 256  # Rows that problems are padded to, or a power of two times it.
PERMUTATIONS = 1000


@dataclasses.dataclass(frozen=True)
class Task:
  """What is to be read.

  Attributes:
    classes: how many; None for a number.
    vocabularies: of the codes, where inputs are codes; () for vectors.
    hidden: width of the hidden layer; 0 for a linear probe.
    seed: of the first weights of a hidden layer.
  """

  classes: int | None
  vocabularies: tuple[int, ...] = ()
  hidden: int = 0
  seed: int = 0


@dataclasses.dataclass(frozen=True)
class Fitted:
  """A probe.

  Attributes:
    task: of it.
    params: weights and biases.
    scales: (mean, spread) of the inputs [D]; None for codes.
    target: (mean, spread) of a number.
  """

  task: Task
  params: Any
  scales: tuple[np.ndarray, np.ndarray] | None
  target: tuple[float, float] = (0.0, 1.0)

  def __call__(self, x: np.ndarray) -> np.ndarray:
    """Of classes log2 probabilities [N, classes], of numbers their estimates [N]."""
    x = _prepare(self.task, x, self.scales)
    padded = np.zeros((_padded(len(x)), *x.shape[1:]), x.dtype)
    padded[: len(x)] = x
    out = np.asarray(_outputs_of(self.params, padded))[: len(x)]
    out = out.astype(np.float64)
    if self.task.classes is None:
      mean, spread = self.target
      return out[:, 0] * spread + mean
    out -= out.max(axis=1, keepdims=True)
    return (out - np.log(np.exp(out).sum(axis=1, keepdims=True))) / np.log(2)


def fit(
    task: Task, x: np.ndarray, y: np.ndarray, precision: float = 1.0
) -> Fitted:
  """The probe whose posterior is the highest.

  Minimises the sum of -ln p(y | x) (of numbers: half the squared error, of
  standardised targets) plus precision / 2 times the squared weights. Biases of
  classes have a prior of precision 1, as a class that training lacks would be
  impossible else; that of a number is free. By L-BFGS, or closed for a number and no hidden layer.

  Args:
    task: what is to be read.
    x: [N, D] vectors or [N, K] codes.
    y: [N] classes from 0 on, or numbers.
    precision: of the weights' Gaussian prior, positive.

  Raises:
    ValueError: if there are no examples, or the numbers of them differ.
  """
  if not len(x) or len(x) != len(y):
    raise ValueError(f'{len(x)} inputs and {len(y)} labels: expected as many')
  scales = None
  if not task.vocabularies:
    spread = x.std(axis=0)
    # What does not vary says nothing, whatever it is divided by.
    spread = np.where(spread > 1e-6, spread, 1.0)
    scales = x.mean(axis=0), spread
  target = (0.0, 1.0)
  if task.classes is None:
    target = float(np.mean(y)), float(np.std(y)) or 1.0
    y = (np.asarray(y, float) - target[0]) / target[1]
    if not task.hidden:
      params = _ridge(task, _prepare(task, x, scales), y, precision)
      return Fitted(task, params, scales, target)
  params = _descend(task, _prepare(task, x, scales), y, precision)
  return Fitted(task, params, scales, target)


def _prepare(task, x, scales):
  """Inputs as the network takes them: standardised, or ids of one table."""
  if task.vocabularies:
    return (x + np.cumsum([0, *task.vocabularies[:-1]])).astype(np.int32)
  return ((x - scales[0]) / scales[1]).astype(np.float32)


def _padded(rows):
  return _LEAST << max(0, (rows - 1).bit_length() - _LEAST.bit_length() + 1)


def _ridge(task, x, y, precision):
  """Weights [D, 1] and the bias in closed form."""
  if task.vocabularies:
    width = sum(task.vocabularies)
    rows = np.repeat(np.arange(len(x)), x.shape[1])
    ones = np.ones(x.size)
    x = sparse.csr_array((ones, (rows, x.ravel())), (len(x), width))
  gram = x.T @ x
  gram = gram.toarray() if sparse.issparse(gram) else gram.astype(np.float64)
  mean = np.asarray(x.mean(axis=0)).ravel().astype(np.float64)
  # Of centred inputs, without forming them.
  gram = gram - len(y) * np.outer(mean, mean)
  product = x.T @ y - len(y) * mean * y.mean()
  weights = np.linalg.solve(gram + precision * np.eye(len(mean)), product)
  bias = np.array([y.mean() - mean @ weights])
  return [(weights[:, None].astype(np.float32), bias.astype(np.float32))]


def _descend(task, x, y, precision):
  """Weights by L-BFGS from zero, of a hidden layer from small random ones."""
  rows, outputs = _padded(len(x)), task.classes or 1
  width = sum(task.vocabularies) or x.shape[1]
  rng = np.random.default_rng(task.seed)
  sizes = [width, *([task.hidden] if task.hidden else []), outputs]
  params = []
  for i, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False)):
    active = x.shape[1] if not i else a  # Of codes, K ones.
    scale = task.hidden and 1 / np.sqrt(active)
    weights = rng.standard_normal((a, b)) * scale
    params.append((weights.astype(np.float32), np.zeros(b, np.float32)))
  weight = np.zeros(rows, np.float32)
  weight[: len(x)] = 1
  inputs = np.zeros((rows, *x.shape[1:]), x.dtype)
  inputs[: len(x)] = x
  kind = np.float32 if task.classes is None else np.int32
  targets = np.zeros(rows, kind)
  targets[: len(x)] = y
  start, unravel = flatten_util.ravel_pytree(params)
  data = jax.device_put((inputs, targets, weight, np.float32(precision)))

  def loss(flat):
    value, gradient = _loss(unravel(flat.astype(np.float32)), *data)
    gradient, _ = flatten_util.ravel_pytree(gradient)
    return float(value), np.asarray(gradient, np.float64)

  found = optimize.minimize(
      loss,
      np.asarray(start, np.float64),
      jac=True,
      method='L-BFGS-B',
      options={'maxiter': _ITERATIONS, 'maxcor': 20, 'ftol': 1e-7},
  )
  return jax.tree.map(np.asarray, unravel(found.x.astype(np.float32)))


def _outputs(params, x):
  """[N, outputs] of vectors, or of ids of the first layer's rows."""
  for i, (weights, bias) in enumerate(params):
    if x.dtype == jnp.int32:
      x = weights[x].sum(axis=1) + bias
    else:
      x = x @ weights + bias
    x = jax.nn.gelu(x) if i + 1 < len(params) else x
  return x


_outputs_of = jax.jit(_outputs)


@jax.jit
@jax.value_and_grad
def _loss(
    params: Any,
    x: Array,
    y: Array,
    weight: Float[Array, 'N'],
    precision: Float[Array, ''],
) -> Float[Array, '']:
  """What `fit` minimises, an example."""
  out = _outputs(params, x)
  if y.dtype == jnp.int32:
    log_p = jax.nn.log_softmax(out)
    nats = -jnp.take_along_axis(log_p, y[:, None], axis=1)[:, 0]
  else:
    nats = 0.5 * jnp.square(out[:, 0] - y)
  penalty = sum(jnp.sum(jnp.square(weights)) for weights, _ in params)
  total = jnp.sum(weight * nats) + precision / 2 * penalty
  if y.dtype == jnp.int32:
    total += jnp.sum(jnp.square(params[-1][1])) / 2
  return total / jnp.sum(weight)


def choose(
    task: Task,
    x: np.ndarray,
    y: np.ndarray,
    groups: Sequence[Hashable],
    precisions: Sequence[float],
    share: float = 0.2,
    seed: int = 0,
) -> float:
  """The precision that predicts held-out groups of the examples best.

  Args:
    task: what is to be read.
    x: inputs [N, ...].
    y: labels [N].
    groups: [N] what is held out as a whole, such as the speakers.
    precisions: to choose from; one is taken as it is.
    share: of the groups that is held out, at least one.
    seed: of which ones.
  """
  held = np.isin(groups, held_out(groups, share, seed))
  if len(precisions) == 1 or held.all() or not held.any():
    return precisions[0]
  losses = []
  for precision in precisions:
    probe = fit(task, x[~held], y[~held], precision)
    losses.append(loss_of(probe, x[held], y[held]).mean())
  return precisions[int(np.argmin(losses))]


def loss_of(
    probe: Fitted, x: np.ndarray, y: np.ndarray
) -> Float[np.ndarray, 'N']:
  """Of classes -log2 p(y | x), of numbers the squared error, by example."""
  out = probe(x)
  if probe.task.classes is None:
    return np.square(out - y)
  return -out[np.arange(len(y)), y]


def held_out(
    groups: Sequence[Hashable], share: float, seed: int = 0
) -> list[Hashable]:
  """Groups to hold out: the first by a hash of their names, never all.

  Args:
    groups: names, each once or more often.
    share: of the groups; at least one is held out.
    seed: of the hash.
  """
  names = sorted(set(groups), key=lambda g: splits.position(f'{seed} {g}'))
  count = min(max(round(share * len(names)), 1), len(names) - 1)
  return names[:count]


def control_labels(
    types: Sequence[str], y: Int[np.ndarray, 'N'], seed: int = 0
) -> Int[np.ndarray, 'N']:
  """A control task: each type has one label, drawn as often as labels are.

  Nothing of what it takes to know them is in the input but the type itself: a
  probe that does well has memorised (Hewitt & Liang 2019).

  Args:
    types: of N examples.
    y: their labels, from 0 on.
    seed: of the draw; it depends on nothing else but the types' names.
  """
  shares = np.cumsum(np.bincount(y)) / len(y)
  draws = {t: splits.position(f'control {seed} {t}') for t in set(types)}
  # Rounding must not let a draw pass the last share.
  ends = shares[:-1]
  return np.array([np.searchsorted(ends, draws[t], 'right') for t in types])


def online_code(
    task: Task,
    x: np.ndarray,
    y: Int[np.ndarray, 'N'],
    items: Sequence[Hashable],
    precision: float = 1.0,
    seed: int = 0,
) -> dict[Hashable, float]:
  """Bits of each item's labels when a probe learns them as they come.

  The online code of Voita & Titov (2020), eq. 4: the first block costs log2 K a
  label, each further one -log2 p under the probe that is fitted to all before
  it. Blocks end with items.

  Args:
    task: with classes.
    x: inputs [N, ...].
    y: labels [N].
    items: [N] the clips that examples are of.
    precision: see `fit`.
    seed: of the order of the items.

  Returns:
    item -> bits of all of its labels; the code length is their sum.
  """
  names = sorted(set(items), key=str)
  order = np.random.default_rng(seed).permutation(len(names))
  names = [names[i] for i in order]
  place = {name: i for i, name in enumerate(names)}
  places = np.array([place[item] for item in items])
  ends = sorted({max(1, round(f * len(names))) for f in BLOCKS})
  bits = np.full(len(y), np.log2(task.classes))
  for start, end in zip(ends, ends[1:], strict=False):
    before = places < start
    block = (places >= start) & (places < end)
    probe = fit(task, x[before], y[before], precision)
    bits[block] = loss_of(probe, x[block], y[block])
  totals = np.bincount(places, bits, minlength=len(names))
  return dict(zip(names, totals.tolist(), strict=True))


def chance(
    predicted: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
  """Accuracy where predictions are those of other clips, and its interval.

  Predictions of whole clips are dealt anew, so that what labels of a clip have
  to do with each other, and how often each is, is kept. Of clips of unlike
  lengths predictions are cut or repeated.

  Args:
    predicted: [n] classes for each clip.
    labels: [n] likewise.
    level: of the interval.
    seed: of the dealing.

  Returns:
    Mean, lower and upper end; an accuracy above the last is not chance.
  """
  rng = np.random.default_rng(seed)
  single = {len(x) for x in [*predicted, *labels]} == {1}
  if single:
    predicted, labels = np.concatenate(predicted), np.concatenate(labels)
  draws = []
  for _ in range(10 * PERMUTATIONS if single else PERMUTATIONS):
    order = rng.permutation(len(labels))
    if single:
      draws.append(np.mean(predicted[order] == labels))
      continue
    right = [
        np.resize(predicted[j], len(y)) == y
        for j, y in zip(order, labels, strict=True)
    ]
    draws.append(np.concatenate(right).mean())
  low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])
  return float(np.mean(draws)), float(low), float(high)
