"""`generation.generate`, compiled as fast as can be, and streams of a row."""

import numpy as np

from audiolm_jax import generation
from tests.decoders import small

generate = small.quick_jit(
    generation.generate,
    static_argnames=(
        'decoder',
        'sampler',
        'prompt_frames',
        'stop',
        'cache_length',
        'sink_tokens',
    ),
)


def stream(decoder, params, prompt, frames, rng, sampler, **options):
  """The frames of a session of one row."""
  session = generation.Session(
      decoder,
      params,
      np.asarray(prompt)[None],
      np.array([len(prompt)]),
      frames,
      rng,
      sampler,
      **options,
  )
  yield from (frame[0] for frame in session)
