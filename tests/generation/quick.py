"""`generation.generate`, compiled as fast as can be."""

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
