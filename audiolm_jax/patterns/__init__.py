"""Slots of a frame <-> decoder steps."""

from audiolm_jax.patterns import interleaving

PATTERNS = {
    'delay': interleaving.Delay,
    'flatten': interleaving.Flatten,
    'parallel': interleaving.Parallel,
}
