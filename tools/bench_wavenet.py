"""Samples a second of WaveNet, beside recomputing its receptive field.

python tools/bench_wavenet.py [--width=64] [--layers=20] [--batches=1,8]

Random parameters, a mu-law head, 16 bits. `ring` is `generation.SampleSession`:
a compiled loop of steps whose convolutions keep rings of their past. `naive`
is a compiled loop that scores the receptive field anew for each sample. The two
take turns, and the best of each counts; that they give the same
log-probabilities of the same samples is checked first.
"""

import argparse
import functools
import os
import time

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import flax.linen as nn  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from audiolm_jax.decoders import wavenet  # noqa: E402
from audiolm_jax import generation  # noqa: E402
from audiolm_jax.training import launch  # noqa: E402


def build(width: int, layers: int) -> tuple[wavenet.WaveNet, dict]:
  """A model with dilations 1, 2, ..., 512, 1, ..., and random parameters."""
  dilations = tuple(2 ** (i % 10) for i in range(layers))
  model = wavenet.WaveNet(
      inputs='classes',
      stack=wavenet.GatedStack(
          width=width, skip=2 * width, dilations=dilations, cycles=1
      ),
  )
  init = jax.jit(
      functools.partial(model.init, method='score'),
      compiler_options={'xla_backend_optimization_level': 0},
  )
  one = jnp.zeros((1, 2, 1), jnp.int32)
  params = init(jax.random.key(0), one, jnp.array([2]))['params']
  return model, nn.meta.unbox(params)


@functools.partial(jax.jit, static_argnames=('model', 'count'))
def naive(
    model: wavenet.WaveNet, params: dict, history: jax.Array, count: int
) -> tuple[jax.Array, jax.Array]:
  """`count` samples after a history as long as the receptive field.

  Returns:
    The samples [B, count], drawn, and their log-probabilities.
  """

  def body(carry, key):
    history = carry
    rows, size = history.shape[:2]
    h, _ = model.apply(
        {'params': params},
        model.initial_state(rows),
        history,
        jnp.ones((rows, size), bool),
        method='extend',
    )
    drawn = model.apply(
        {'params': params},
        h[:, -1],
        jax.random.split(key, rows),
        method='sample',
    )
    log_prob = model.apply(
        {'params': params}, h[:, -1], drawn, method='log_prob'
    )
    history = jnp.concatenate([history[:, 1:], drawn[:, None]], axis=1)
    return history, (drawn[..., 0], log_prob[..., 0])

  keys = jax.random.split(jax.random.key(0), count)
  _, outputs = jax.lax.scan(body, history, keys)
  return tuple(x.T for x in outputs)


def compare(
    width: int, layers: int, batch: int, steps: int, naive_steps: int
) -> dict[str, float]:
  """Steps a second of each form, at one batch size.

  Raises:
    AssertionError: if their log-probabilities differ.
  """
  model, params = build(width, layers)
  size = model.stack.receptive_field
  rng = np.random.default_rng(0)
  history = rng.integers(-3000, 3000, (batch, size, 1)).astype(np.int32)
  lengths = np.full(batch, size)
  session = generation.SampleSession(
      model, params, history, lengths, jax.random.key(0)
  )

  drawn, expected = naive(model, params, history, naive_steps)
  session.step(naive_steps, np.asarray(drawn)[..., None])
  actual = session.log_prob[..., 0]
  np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-3)

  forms = {
      'ring': (lambda: session.step(steps), steps),
      'naive': (
          lambda: naive(model, params, history, naive_steps),
          naive_steps,
      ),
  }
  best = dict.fromkeys(forms, 0.0)
  for turn in range(4):
    for name, (form, count) in forms.items():
      then = time.perf_counter()
      jax.block_until_ready(form())
      rate = count / (time.perf_counter() - then)
      if turn:  # The first compiles.
        best[name] = max(best[name], rate)
  return best


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--width', type=int, default=64)
  parser.add_argument('--layers', type=int, default=20)
  parser.add_argument('--batches', default='1,8')
  parser.add_argument('--steps', type=int, default=8000)
  parser.add_argument('--naive_steps', type=int, default=20)
  flags = parser.parse_args()
  launch.prepare()
  for batch in map(int, flags.batches.split(',')):
    best = compare(
        flags.width, flags.layers, batch, flags.steps, flags.naive_steps
    )
    print(
        f'width {flags.width}, {flags.layers} layers, batch {batch}:'
        f' ring {best["ring"] * batch:,.0f} samples/s, naive'
        f' {best["naive"] * batch:,.1f} samples/s,'
        f' {best["ring"] / best["naive"]:,.0f}x'
    )


if __name__ == '__main__':
  main()
