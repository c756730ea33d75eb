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

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Slots that collect vectors from the data for dead codes, for each codebook.
CANDIDATES = 512


class State(flax.struct.PyTreeNode):
  """The codebooks and what their averages need.

  Attributes:
    codebooks: [K, V, D].
    counts: [K, V] EMA of the frames a step that chose each code.
    sums: [K, V, D] EMA of the sum of these frames' residuals.
  """

  codebooks: Float[Array, 'K V D']
  counts: Float[Array, 'K V']
  sums: Float[Array, 'K V D']


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


class Quantised(flax.struct.PyTreeNode):
  """What `quantise` returns.

  Attributes:
    codes: [B, F, K] int32, zero at masked frames; every level, also those that
      quantizer dropout leaves out of `latents`.
    latents: [B, F, D] sums of the chosen codes, straight-through to the input.
    commitment: [B, F] mean square of (residual - its code), over the levels in
      use, with a gradient to the input only.
    margins: [B, F, K] (second best - best) / (their sum) of the distances; a
      code may flip under rounding only where it, or one before it, is small.
    residuals: [B, F, K, D] what each level had to quantise, no gradient.
  """

  codes: Int[Array, 'B F K']
  latents: Float[Array, 'B F D']
  commitment: Float[Array, 'B F']
  margins: Float[Array, 'B F K']
  residuals: Float[Array, 'B F K D']


@dataclasses.dataclass(frozen=True)
class Ema:
  """How codebooks follow the data.

  Attributes:
    decay: of the averages, a step.
    dead: a code is dead if it is chosen this often, relative to the mean.
  """

  decay: float = 0.99
  dead: float = 0.1


def init(codebooks: int, vocabulary: int, dimension: int) -> State:
  """Codebooks of zeros that the first update fills from the data."""
  return State(
      codebooks=jnp.zeros((codebooks, vocabulary, dimension)),
      counts=jnp.zeros((codebooks, vocabulary)),
      sums=jnp.zeros((codebooks, vocabulary, dimension)),
  )


def quantise(
    codebooks: Float[Array, 'K V D'],
    x: Float[Array, 'B F D'],
    mask: Bool[Array, 'B F'],
    levels: Int[Array, 'B'] | None = None,
) -> Quantised:
  """Each level quantises what the levels before it left over.

  The gradient of `latents` with respect to x is the identity, whatever the
  number of levels: residuals are constants (EnCodec's original misses that).

  Args:
    codebooks: fp32.
    x: latents.
    mask: valid frames.
    levels: how many codebooks each row uses, 1..K; default all.
  """
  count = codebooks.shape[0]
  x = jnp.where(mask[..., None], x.astype(jnp.float32), 0.0)
  constant = jax.lax.stop_gradient(x)
  norms = jnp.sum(jnp.square(codebooks), axis=-1)
  residual, total = constant, jnp.zeros_like(x)
  commitment = jnp.zeros(mask.shape)
  codes, margins, residuals = [], [], []
  for k in range(count):
    products = jnp.einsum(
        'bfd,vd->bfv',
        residual,
        codebooks[k],
        precision=jax.lax.Precision.HIGHEST,
    )
    # Squared distances less |residual|^2, which is the same for every code.
    scores = norms[k] - 2.0 * products
    best = jnp.argmin(scores, axis=-1).astype(jnp.int32)
    codes.append(jnp.where(mask, best, 0))
    margins.append(_margin(scores, best, residual))
    residuals.append(residual)
    chosen = jnp.take(codebooks[k], best, axis=0)
    if levels is None:
      used = mask
    else:
      used = mask & (k < levels)[:, None]
    error = jnp.mean(jnp.square(x - total - chosen), axis=-1)
    commitment = commitment + jnp.where(used, error, 0.0)
    total = total + jnp.where(used[..., None], chosen, 0.0)
    residual = residual - chosen
  in_use = count if levels is None else levels[:, None]
  return Quantised(
      codes=jnp.stack(codes, axis=-1),
      latents=x + jax.lax.stop_gradient(total - x),
      commitment=commitment / in_use,
      margins=jnp.stack(margins, axis=-1),
      residuals=jnp.stack(residuals, axis=2),
  )


def dequantise(
    codebooks: Float[Array, 'K V D'], codes: Int[Array, 'B F N']
) -> Float[Array, 'B F D']:
  """Sum of the codes' vectors, for the first N <= K codebooks."""
  return sum(
      jnp.take(codebooks[k], codes[..., k], axis=0)
      for k in range(codes.shape[-1])
  )


def dropout_levels(
    rng: Array, rows: int, codebooks: int, rate: float
) -> Int[Array, 'B']:
  """How many levels each row uses: all, or with `rate` uniform in 1..K."""
  chance, number = jax.random.split(rng)
  dropped = jax.random.bernoulli(chance, rate, (rows,))
  levels = jax.random.randint(number, (rows,), 1, codebooks + 1)
  return jnp.where(dropped, levels, codebooks)


def statistics(
    quantised: Quantised,
    mask: Bool[Array, 'B F'],
    vocabulary: int,
    rng: Array,
) -> Statistics:
  """Sums over the valid frames, at every level.

  Args:
    quantised: from `quantise`.
    mask: valid frames; others count for nothing.
    vocabulary: V.
    rng: scatters frames over the candidate slots; another for each microbatch.
  """
  levels = quantised.codes.shape[-1]
  valid = mask.reshape(-1).astype(jnp.float32)
  codes = quantised.codes.reshape(-1, levels)
  residuals = quantised.residuals.reshape(valid.shape[0], levels, -1)
  place, thin = jax.random.split(rng)
  slots = jax.random.randint(place, valid.shape, 0, CANDIDATES)
  # About one frame a slot, however large the batch.
  rate = jnp.minimum(1.0, CANDIDATES / jnp.maximum(valid.sum(), 1.0))
  taken = valid * jax.random.bernoulli(thin, rate, valid.shape)

  def add(index, weight, size):
    one_hot = jax.nn.one_hot(index, size) * weight[:, None]
    return one_hot.sum(axis=0), one_hot

  counts, sums, candidate_counts, candidate_sums = [], [], [], []
  n, placed = add(slots, taken, CANDIDATES)
  for k in range(levels):
    count, chosen = add(codes[:, k], valid, vocabulary)
    counts.append(count)
    sums.append(chosen.T @ residuals[:, k])
    candidate_counts.append(n)
    candidate_sums.append(placed.T @ residuals[:, k])
  return Statistics(
      counts=jnp.stack(counts),
      sums=jnp.stack(sums),
      candidate_counts=jnp.stack(candidate_counts),
      candidate_sums=jnp.stack(candidate_sums),
  )


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
  updated = jax.vmap(lambda *one: _update_one(*one, ema))(state, new, rngs)
  changes = ready & (new.counts.sum() > 0)

  def choose(after, before):
    return jnp.where(
        changes.reshape(-1, *[1] * (after.ndim - 1)), after, before
    )

  return jax.tree.map(choose, updated, state)


def _update_one(state, new, rng, ema):
  """`update` of one codebook (no leading axis)."""
  vocabulary = state.counts.shape[0]
  counts = ema.decay * state.counts + (1 - ema.decay) * new.counts
  sums = ema.decay * state.sums + (1 - ema.decay) * new.sums
  mean = new.counts.sum() / vocabulary
  dead = counts < ema.dead * mean
  # A random order of the slots, those that hold one vector first, empty last.
  order_rng, noise_rng = jax.random.split(rng)
  filled = new.candidate_counts > 0
  several = jnp.where(new.candidate_counts == 1, 0.0, 1.0)
  empty = jnp.where(filled, 0.0, 2.0)
  order = jnp.argsort(
      several + empty + jax.random.uniform(order_rng, filled.shape)
  )
  divisor = jnp.maximum(new.candidate_counts, 1.0)[:, None]
  candidates = (new.candidate_sums / divisor)[order]
  rank = jnp.cumsum(dead) - 1
  index = rank % jnp.maximum(filled.sum(), 1)
  vectors = candidates[index]
  # A vector used twice would give two equal codes, one of them dead again.
  spread = jnp.sqrt(jnp.mean(jnp.square(candidates)) + 1e-12)
  noise = jax.random.normal(noise_rng, vectors.shape)
  vectors = vectors + 0.01 * spread * noise
  counts = jnp.where(dead, mean, counts)
  sums = jnp.where(dead[:, None], vectors * mean, sums)
  codebooks = sums / jnp.maximum(counts, 1e-12)[:, None]
  return State(codebooks=codebooks, counts=counts, sums=sums)


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


def _margin(scores, best, residual):
  """(d2 - d1) / (d2 + d1) of the two smallest distances."""
  if scores.shape[-1] == 1:
    return jnp.ones(best.shape)
  first = jnp.min(scores, axis=-1)
  others = jnp.arange(scores.shape[-1]) == best[..., None]
  second = jnp.min(jnp.where(others, jnp.inf, scores), axis=-1)
  square = jnp.sum(jnp.square(residual), axis=-1)
  near = jnp.sqrt(jnp.maximum(first + square, 0.0))
  far = jnp.sqrt(jnp.maximum(second + square, 0.0))
  return (far - near) / jnp.maximum(far + near, 1e-12)
