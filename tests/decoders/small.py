"""Small decoders with sharp weights, and the two ways to score with them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.decoders.heads import depth
from audiolm_jax.decoders.heads import independent
from audiolm_jax.patterns import coarse_first
from audiolm_jax.patterns import interleaving

# Compiling is what costs here, and eager dispatch costs more.
quick_jit = functools.partial(
    jax.jit,
    compiler_options={
        'xla_backend_optimization_level': 0,
        'xla_llvm_disable_expensive_passes': True,
    },
)


def stack(width=8, layers=1, mixer=None, mlp=None, **options):
  """A stack of attention with 2 heads, not scanned unless asked for."""
  mixer = attention.Attention(**{'heads': 2, **(mixer or {})})
  mlp = mlps.Dense(8, **(mlp or {}))
  options = {'scan': False, **options}
  return stack_lib.Stack(width, layers, (mixer,), mlp, **options)


# Patterns of two slots.
PATTERNS = {
    'parallel': interleaving.Parallel(),
    'delay': interleaving.Delay((2, 0)),
    'stereo': interleaving.Stereo(),
    'flatten': interleaving.Flatten(),
    'coarse first': coarse_first.CoarseFirst(),
    'coarse first by blocks': coarse_first.CoarseFirst(block=2),
    'coarse first in parallel': coarse_first.CoarseFirst(parallel=True),
}
HEADS = {
    'independent': independent.Independent(),
    'depth': depth.Depth(stack(4)),
    # As in Moshi.
    'depth of each place': depth.Depth(
        stack(4), per_place=True, first='backbone'
    ),
    # As in CSM.
    'depth from the first': depth.Depth(
        stack(4), condition='first', first='backbone'
    ),
}


def parameters(module, *inputs, seed=0, method='score'):
  """Random parameters, larger than at the start so that every path matters."""
  variables = jax.eval_shape(
      lambda rng: module.init(rng, *inputs, method=method), jax.random.key(0)
  )
  rng = np.random.default_rng(seed)

  def fill(path, leaf):
    value = 0.5 * rng.normal(size=leaf.shape)
    if path[-1].key == 'scale':
      value = 1 + 0.3 * value
    return value.astype(leaf.dtype)

  tree = nn.meta.unbox(variables['params'])
  return jax.tree_util.tree_map_with_path(fill, tree)


def score(decoder):
  """Compiled (params, *inputs) -> `Scores`, teacher-forced."""
  return quick_jit(
      lambda params, *inputs: decoder.apply(
          {'params': params}, *inputs, method='score'
      )
  )


def scorer(decoder):
  """`score` of the only stream of frames, or of segments by their labels."""
  run = score(decoder)

  def streams(params, *inputs):
    streams = run(params, *inputs).streams
    return streams.get('frames', streams)

  return streams


def code_logits(decoder):
  """Compiled (params, codes, num_frames) -> `code_logits`, as `scorer` does."""

  @quick_jit
  def run(params, codes, num_frames):
    streams = decoder.apply(
        {'params': params}, codes, num_frames, method='code_logits'
    )
    return streams.get('frames', streams)

  return run


def picked(logits, codes):
  """The log-probabilities of codes under logits [..., V]."""
  log_probs = np.asarray(jax.nn.log_softmax(logits))
  return np.take_along_axis(log_probs, codes[..., None], axis=-1)[..., 0]


def refuse(logits, rng, slots):
  """A choice that no code can be: for places that are given."""
  del rng, slots
  return jnp.full(logits.shape[:2], -(10**6))


def stepwise(decoder):
  """Compiled (params, codes, num_frames) -> log_prob [B, F, K], step by step."""

  @quick_jit
  def run(params, codes, num_frames):
    batch, frames, slots = codes.shape
    rows = jnp.arange(batch)[:, None]

    def cells(n):
      step = jnp.full(batch, n)
      frame, slot = decoder.pattern.cells(step, slots, num_frames)
      return frame, slot, (frame >= 0) & (frame < num_frames[:, None])

    def step(carry, n):
      state, *before = carry
      frame, slot, exists = cells(n)
      h, state = decoder.apply(
          {'params': params},
          state,
          *(x[:, None] for x in before),
          method='extend',
      )
      # Where there is no frame, any code must do.
      own = codes[rows, jnp.clip(frame, 0, frames - 1), slot]
      own = jnp.where(exists, own, n % 3)
      own, log_prob = decoder.apply(
          {'params': params},
          h,
          slot,
          exists,
          own,
          jnp.ones_like(exists),
          refuse,
          jax.random.key(0),
          method='sample',
      )
      log_prob = jnp.where(exists, log_prob, 0)
      return (state, own, slot, exists), (frame, slot, log_prob)

    count = decoder.pattern.steps(frames, slots)
    _, slot, exists = cells(0)
    state = decoder.initial_state(batch, count)
    start = (state, 0 * slot, slot, jnp.zeros_like(exists))
    _, found = jax.lax.scan(step, start, jnp.arange(count))
    frame, slot, log_prob = [jnp.swapaxes(x, 0, 1) for x in found]
    empty = jnp.zeros(codes.shape, jnp.float32)
    frame = jnp.clip(frame, 0, frames - 1)
    return empty.at[rows[..., None], frame, slot].add(log_prob)

  return run
