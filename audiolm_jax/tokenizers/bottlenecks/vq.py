"""Residual vector quantisation with EMA codebooks, as pure functions.

A codebook is trained by statistics, not gradients (van den Oord et al. 2017,
appendix A.1; residual: Zeghidour et al. 2021). They are sums over frames, so
they add over microbatches, devices and hosts; `update` turns them into the next
state once an optimizer step. Everything here is fp32.

Codebooks start unused, all zeros: every code is dead, and the rule that replaces
dead codes by vectors from the data initialises them, one level at each update,
since a level's residuals mean nothing before the level above is in use.
"""

import dataclasses
import functools
import math

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from audiolm_jax.streaming import base as streaming_base
from audiolm_jax.tokenizers.bottlenecks import base as bottlenecks_base

# Slots that collect vectors from the data for dead codes, for each codebook.
CANDIDATES = 512


class State(flax.struct.PyTreeNode):
  """The codebooks and what their averages need.

  Attributes:
    codebooks: [K, V, D].
    counts: [K, V] EMA of the frames a step that chose each code.
    sums: [K, V, D] EMA of the sum of these frames' residuals.
    updates: [K] that each codebook had so far.
  """

  codebooks: Float[Array, 'K V D']
  counts: Float[Array, 'K V']
  sums: Float[Array, 'K V D']
  updates: Int[Array, 'K']


class Statistics(flax.struct.PyTreeNode):
  """Sums over the frames of a batch; they add.

  Attributes:
    counts: [K, V] frames that chose each code.
    sums: [K, V, D] the sums of their residuals.
    candidate_counts: [K, M] frames that fell into each candidate slot.
    candidate_sums: [K, M, D] sums of their residuals. Most used slots hold one
      frame, whose residual is then there exactly.
  """

  counts: Float[Array, 'K V']
  sums: Float[Array, 'K V D']
  candidate_counts: Float[Array, 'K M']
  candidate_sums: Float[Array, 'K M D']


@dataclasses.dataclass(frozen=True)
class Ema:
  """How codebooks follow the data.

  Attributes:
    decay: of the averages, a step.
    dead: a code is dead if it is chosen this often, relative to the mean.
    check_every: updates of a codebook between replacements of its dead codes.
    iterations: of k-means over the candidates when a codebook comes into use;
      zero fills it with vectors from the data instead.
    normalize: whether k-means compares directions only.
  """

  decay: float = 0.99
  dead: float = 0.1
  check_every: int = 1
  iterations: int = 0
  normalize: bool = False


def init(codebooks: int, vocabulary: int, dimension: int) -> State:
  """Codebooks of zeros that the first update fills from the data."""
  return State(
      codebooks=jnp.zeros((codebooks, vocabulary, dimension)),
      counts=jnp.zeros((codebooks, vocabulary)),
      sums=jnp.zeros((codebooks, vocabulary, dimension)),
      updates=jnp.zeros(codebooks, jnp.int32),
  )


def nearest(
    codebook: Float[Array, 'V D'],
    x: Float[Array, '*n D'],
    normalize: bool = False,
) -> tuple[Int[Array, '*n'], Float[Array, '*n']]:
  """The code nearest to each vector, and the margin of the choice.

  Args:
    codebook: vectors to choose from; without a gradient.
    x: what to quantise.
    normalize: compare directions (Yu et al. 2021, 2110.04627, section 3.2).

  Returns:
    codes, and (second best - best) / (their sum) of the two least distances.
  """
  codebook, x = jax.lax.stop_gradient((codebook, x))
  if normalize:
    codebook, x = _unit(codebook), _unit(x)
  products = jnp.einsum(
      '...d,vd->...v', x, codebook, precision=jax.lax.Precision.HIGHEST
  )
  # Squared distances less |x|^2, which is the same for every code.
  scores = jnp.sum(jnp.square(codebook), axis=-1) - 2.0 * products
  # CPUs read all scores once, for the least of each group, then few of them.
  count = codebook.shape[0]
  size = math.gcd(count, 32)
  groups = scores.reshape(*scores.shape[:-1], count // size, size)
  least = jnp.min(groups, axis=-1)
  group = _first_least(least)
  inside = jnp.take_along_axis(groups, group[..., None, None], axis=-2)
  inside = inside[..., 0, :]
  place = _first_least(inside)
  best = group * size + place
  if count == 1:
    return best, jnp.ones(best.shape)
  first = jnp.min(inside, axis=-1)
  second = jnp.minimum(_least_but(inside, place), _least_but(least, group))
  square = jnp.sum(jnp.square(x), axis=-1)
  near = jnp.sqrt(jnp.maximum(first + square, 0.0))
  far = jnp.sqrt(jnp.maximum(second + square, 0.0))
  return best, margin(near, far)


def _first_least(x):
  """What argmin over the last axis gives, a fifth of its time on CPUs."""
  index = jnp.arange(x.shape[-1], dtype=jnp.int32)
  least = x == jnp.min(x, axis=-1, keepdims=True)
  return jnp.min(jnp.where(least, index, x.shape[-1] - 1), axis=-1)


def _least_but(x, index):
  """The least along the last axis but for one."""
  others = jnp.arange(x.shape[-1]) != index[..., None]
  return jnp.min(jnp.where(others, x, jnp.inf), axis=-1)


def margin(near: Float[Array, '*n'], far: Float[Array, '*n']):
  """(far - near) / (far + near) of the two least distances."""
  return (far - near) / jnp.maximum(far + near, 1e-12)


def quantise(
    codebooks: Float[Array, 'K V D'],
    x: Float[Array, 'B F D'],
    mask: Bool[Array, 'B F'],
    levels: Int[Array, 'B'] | None = None,
    normalize: bool = False,
) -> bottlenecks_base.Quantised:
  """Each level quantises what the levels before it left over.

  The gradient of `latents` with respect to x is the identity, whatever the
  number of levels: residuals are constants (EnCodec's original misses that).

  Args:
    codebooks: fp32.
    x: latents.
    mask: valid frames.
    levels: how many codebooks each row uses, 0..K; default all.
    normalize: look codes up by direction.

  Returns:
    `losses` are means over the levels in use: 'commitment', the mean square of
    (residual - its code) with a gradient to x only, and 'codebook', the same
    with a gradient to the codebooks only (for those that gradients train).
    `residuals` [K, B, F, D] are what each level had to quantise.
  """
  count = codebooks.shape[0]
  x = jnp.where(mask[..., None], x.astype(jnp.float32), 0.0)
  constant = jax.lax.stop_gradient(x)

  total, out = _levels(codebooks, constant, mask, levels, normalize)
  # x - constant is zero, with x's gradient. Outside of the loop, which then
  # needs no backward pass.
  commitment = jnp.square(x - constant + out['errors']).mean(axis=-1)
  losses = {
      'commitment': jnp.where(out['used'], commitment, 0.0).sum(axis=0),
      'codebook': out['codebook'].sum(axis=0),
  }
  in_use = count if levels is None else jnp.maximum(levels, 1)[:, None]
  first = jnp.take(codebooks[0], out['codes'][0], axis=0)
  first = jnp.where(mask[..., None], first, 0.0)
  return bottlenecks_base.Quantised(
      latents=x + jax.lax.stop_gradient(total - x),
      losses={name: loss / in_use for name, loss in losses.items()},
      codes=jnp.moveaxis(out['codes'], 0, -1),
      margins=jnp.moveaxis(out['margins'], 0, -1),
      semantic=x + jax.lax.stop_gradient(first - x),
      residuals=out['residuals'],
  )


def _levels(codebooks, x, mask, levels, normalize):
  """The sum of the levels' vectors [B, F, D], and of each what `quantise` needs."""

  def level(carry, inputs):
    residual, total = carry
    k, codebook = inputs
    code, closeness = nearest(codebook, residual, normalize)
    vector = jnp.take(codebook, code, axis=0)
    chosen = jax.lax.stop_gradient(vector)
    used = mask if levels is None else mask & (k < levels)[:, None]
    attraction = jnp.square(vector - residual).mean(axis=-1)
    outputs = {
        'codes': jnp.where(mask, code, 0),
        'margins': jnp.where(mask, closeness, 1.0),
        'residuals': residual,
        'used': used,
        'errors': residual - chosen,
        'codebook': jnp.where(used, attraction, 0.0),
    }
    total = total + jnp.where(used[..., None], chosen, 0.0)
    return (residual - chosen, total), outputs

  start = (x, jnp.zeros_like(x))
  ks = jnp.arange(len(codebooks))
  (_, total), out = jax.lax.scan(level, start, (ks, codebooks))
  return total, out


def dequantise(
    codebooks: Float[Array, 'K V D'], codes: Int[Array, 'B F N']
) -> Float[Array, 'B F D']:
  """Sum of the codes' vectors, for the first N <= K codebooks.

  A loop: as one expression XLA's CPU backend looks every vector up again for
  each use that it fuses it with, 7 times as slow before a decoder's padding.
  """
  codebooks = jnp.asarray(codebooks)

  def add(total, level):
    k, code = level
    return total + codebooks.at[k, code].get(mode='fill'), None

  levels = jnp.arange(codes.shape[-1]), jnp.moveaxis(codes, -1, 0)
  zeros = jnp.zeros((*codes.shape[:-1], codebooks.shape[-1]), codebooks.dtype)
  return jax.lax.scan(add, zeros, levels)[0]


def dropout_levels(
    rng: Array, rows: int, codebooks: int, rate: float
) -> Int[Array, 'B']:
  """How many levels each row uses: all, or with `rate` uniform in 1..K."""
  chance, number = jax.random.split(rng)
  dropped = jax.random.bernoulli(chance, rate, (rows,))
  levels = jax.random.randint(number, (rows,), 1, codebooks + 1)
  return jnp.where(dropped, levels, codebooks)


def statistics(
    quantised: bottlenecks_base.Quantised,
    mask: Bool[Array, 'B F'],
    vocabulary: int,
    rng: Array,
    candidates: int = CANDIDATES,
) -> Statistics:
  """Sums over the valid frames, at every level.

  Args:
    quantised: its codes [B, F, K] and the residuals [K, B, F, D] that chose them.
    mask: valid frames; others count for nothing.
    vocabulary: V.
    rng: scatters frames over the candidate slots; another for each microbatch.
    candidates: M.
  """
  levels = quantised.codes.shape[-1]
  valid = mask.reshape(-1).astype(jnp.float32)
  codes = quantised.codes.reshape(-1, levels).T
  residuals = quantised.residuals.reshape(levels, valid.shape[0], -1)
  place, thin = jax.random.split(rng)
  slots = jax.random.randint(place, valid.shape, 0, candidates)
  # About one frame a slot, however large the batch.
  rate = jnp.minimum(1.0, candidates / jnp.maximum(valid.sum(), 1.0))
  taken = valid * jax.random.bernoulli(thin, rate, valid.shape)

  def level(inputs):
    code, residual = inputs
    counts, sums = _sums_by(code, valid, residual, vocabulary)
    placed, placed_sums = _sums_by(slots, taken, residual, candidates)
    return Statistics(counts, sums, placed, placed_sums)

  return jax.lax.map(level, (codes, residuals))


def update(state: State, new: Statistics, rng: Array, ema: Ema) -> State:
  """The state after an optimizer step.

  Averages move by `ema.decay`; then each dead code is replaced by a vector from
  the data, and *both* its average count and sum are set to match, so that the
  next update does not undo it (EnCodec's expiry does not, which is why it has
  no effect). A batch without valid frames changes nothing.
  """
  rngs = jax.random.split(rng, state.counts.shape[0])
  in_use = state.counts.sum(axis=-1) > 0
  ready = jnp.concatenate([jnp.ones(1, bool), in_use[:-1]])
  updated = jax.lax.map(lambda one: _update_one(*one, ema), (state, new, rngs))
  changes = ready & (new.counts.sum() > 0)
  if ema.iterations:
    fresh = changes & ~in_use
    # The cost of k-means is paid at the updates that bring a level into use.
    updated = jax.lax.cond(
        fresh.any(),
        lambda: _start(updated, new, jnp.argmax(fresh), rng, ema),
        lambda: updated,
    )
  return streaming_base.pick_rows(changes, updated, state)


def k_means(
    points: Float[Array, 'M D'],
    valid: Bool[Array, 'M'],
    centroids: Float[Array, 'V D'],
    iterations: int,
    normalize: bool = False,
) -> tuple[Float[Array, 'V D'], Float[Array, 'V']]:
  """Lloyd's algorithm: centroids, and the share of the points at each.

  A centroid without points stays where it is.

  Args:
    points: to cover.
    valid: points that count.
    centroids: to start from.
    iterations: at least one.
    normalize: assign points by direction.
  """

  def step(_, carry):
    centroids, _ = carry
    codes, _ = nearest(centroids, points, normalize)
    weight = valid.astype(points.dtype)
    counts, sums = _sums_by(codes, weight, points, centroids.shape[0])
    means = sums / jnp.maximum(counts, 1.0)[:, None]
    centroids = jnp.where(counts[:, None] > 0, means, centroids)
    return centroids, counts / jnp.maximum(valid.sum(), 1)

  start = (centroids, jnp.zeros(centroids.shape[0]))
  return jax.lax.fori_loop(0, iterations, step, start)


def usage_metrics(
    counts: Float[Array, 'K V'],
) -> dict[str, Float[Array, 'K']]:
  """Of one batch or of averages: share of codes used, entropy in bits."""
  p = counts / jnp.maximum(counts.sum(axis=-1, keepdims=True), 1e-12)
  log = jnp.log2(jnp.where(p > 0, p, 1.0))
  return {
      'usage': jnp.mean(counts > 0, axis=-1),
      'entropy': -jnp.sum(p * log, axis=-1),
  }


def average_metrics(
    counts: Float[Array, 'K V'],
) -> dict[str, Float[Array, '']]:
  """Usage and entropy of average counts: mean, first and last codebook."""
  # An average below a thousandth of the mean is not in use.
  counts = jnp.where(counts > 1e-3 * jnp.mean(counts), counts, 0.0)
  metrics = {}
  for name, values in usage_metrics(counts).items():
    metrics[f'codebook_{name}'] = jnp.mean(values)
    metrics[f'codebook_{name}_first'] = values[0]
    metrics[f'codebook_{name}_last'] = values[-1]
  return metrics


def _sums_by(index, weight, x, size):
  """Of each index: the sum of the weights [n] and of the weighted x [n, D]."""

  def scattered(index, weight, x):
    counts = jnp.zeros(size).at[index].add(weight)
    return counts, jnp.zeros((size, x.shape[-1])).at[index].add(x)

  def multiplied(index, weight, x):
    # Accelerators would round x to fewer bits than it has.
    dot = functools.partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)
    chosen = jax.nn.one_hot(index, size)
    return dot(weight, chosen), dot(chosen.T, x)

  # CPUs add one by one in a tenth of a product's time, which others excel at.
  return jax.lax.platform_dependent(
      index, weight, x * weight[:, None], cpu=scattered, default=multiplied
  )


def _unit(x):
  return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _update_one(state, new, rng, ema):
  """`update` of one codebook (no leading axis)."""
  vocabulary = state.counts.shape[0]
  counts = ema.decay * state.counts + (1 - ema.decay) * new.counts
  sums = ema.decay * state.sums + (1 - ema.decay) * new.sums
  mean = new.counts.sum() / vocabulary
  # A codebook that is not in use is filled at its first update.
  checked = state.updates % ema.check_every == 0
  dead = checked & (counts < ema.dead * mean)
  counts, sums = jax.lax.cond(
      dead.any(),
      lambda: _replaced(counts, sums, dead, mean, new, rng),
      lambda: (counts, sums),
  )
  codebooks = sums / jnp.maximum(counts, 1e-12)[:, None]
  return State(codebooks, counts, sums, state.updates + 1)


def _replaced(counts, sums, dead, mean, new, rng):
  """(counts, sums) in which vectors from the data stand for dead codes."""
  order_rng, noise_rng = jax.random.split(rng)
  candidates, filled = _shuffled_candidates(new, order_rng)
  rank = jnp.cumsum(dead) - 1
  index = rank % jnp.maximum(filled.sum(), 1)
  vectors = candidates[index]
  # A vector used twice would give two equal codes, one of them dead again.
  spread = jnp.sqrt(jnp.mean(jnp.square(candidates)) + 1e-12)
  noise = jax.random.normal(noise_rng, vectors.shape)
  vectors = vectors + 0.01 * spread * noise
  counts = jnp.where(dead, mean, counts)
  return counts, jnp.where(dead[:, None], vectors * mean, sums)


def _shuffled_candidates(new, rng):
  """The slots' vectors in a random order, those of one frame first, empty last."""
  filled = new.candidate_counts > 0
  several = jnp.where(new.candidate_counts == 1, 0.0, 1.0)
  empty = jnp.where(filled, 0.0, 2.0)
  order = jnp.argsort(several + empty + jax.random.uniform(rng, filled.shape))
  divisor = jnp.maximum(new.candidate_counts, 1.0)[:, None]
  return (new.candidate_sums / divisor)[order], filled[order]


def _start(state, new, level, rng, ema):
  """`state` with codebook `level`, just filled from the data, by k-means.

  Codes that no candidate chose keep what they were filled with, and their share.
  """
  one = jax.tree.map(lambda x: x[level], new)
  points, filled = _shuffled_candidates(one, rng)
  centroids, share = k_means(
      points, filled, state.codebooks[level], ema.iterations, ema.normalize
  )
  total = one.counts.sum()
  counts = jnp.where(share > 0, share * total, total / share.shape[0])
  return state.replace(
      codebooks=state.codebooks.at[level].set(centroids),
      counts=state.counts.at[level].set(counts),
      sums=state.sums.at[level].set(centroids * counts[:, None]),
  )
