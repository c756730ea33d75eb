"""A masked decoder learns a Markov chain: its bounds reach the chain's own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.decoders import masked as masked_lib
from audiolm_jax.models import kinds
from audiolm_jax.models import masked_lm
from audiolm_jax.processes import hiding
from tests.processes import enumeration

LENGTH = 4
CHAIN = enumeration.markov(np.array([[0.9, 0.1], [0.2, 0.8]]), LENGTH)
# Bits of the sequence, from section 10 of the reference; in T steps.
ENTROPY = 0.9183 + (LENGTH - 1) * 0.5533
IN_STEPS = {1: 3.6732, 2: 3.0828, 4: 2.8198, 16: 2.6366, 64: 2.5927}


def train(rule, steps=500, rows=256):
  """A model of the chain."""
  mixer = attention.Attention(2, mask_kind='bidirectional')
  backbone = stack_lib.Stack(16, 2, (mixer,), mlps.Dense(32), scan=False)
  decoder = masked_lib.Masked((2,), backbone, hiding=rule)
  params = kinds.Description(decoder, 1.0).init(jax.random.key(0))['params']
  params = jax.tree.map(
      lambda w: getattr(w, 'value', w),
      params,
      is_leaf=lambda w: hasattr(w, 'value'),
  )
  schedule = optax.cosine_decay_schedule(1e-2, steps)
  optimizer = optax.adam(schedule)
  sequences = jnp.asarray(CHAIN.codes)[..., None]
  log_prob = jnp.log(jnp.asarray(CHAIN.prob))

  def loss(params, key):
    data, bound, frames = jax.random.split(key, 3)
    codes = sequences[jax.random.categorical(data, log_prob, shape=(rows,))]
    scores = decoder.apply(
        {'params': params},
        codes,
        jnp.full(rows, LENGTH),
        rngs={'bound': bound, 'frames': frames},
        method='score',
    )['frames']
    return -scores.log_prob.sum() / scores.mask.sum()

  @jax.jit
  def run(params):
    def step(carry, key):
      params, state = carry
      updates, state = optimizer.update(jax.grad(loss)(params, key), state)
      return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(1), steps)
    return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]

  return masked_lm.MaskedLM(decoder, run(params), 1.0)


@pytest.mark.parametrize('rule', [hiding.Subset(), hiding.Rate()], ids=str)
def test_bounds_are_within_2_percent_of_the_chains(rule):
  """Trained by the bound itself, and by MaskGIT's loss, which is none."""
  model = train(rule)

  def bits(steps=None):
    found = model.bits_per_frame(CHAIN.codes[..., None], steps=steps, draws=960)
    return float(CHAIN.prob @ found.bits) * LENGTH

  assert bits() == pytest.approx(ENTROPY, rel=0.02)
  for steps, expected in IN_STEPS.items():
    assert bits(steps) == pytest.approx(expected, rel=0.02), steps
