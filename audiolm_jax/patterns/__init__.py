"""Slots of a frame <-> decoder steps; segments of a sequence.

A pattern is one way to order the codes of frames: `base.Pattern` says what it
must be (an exact bijection, so that bits a frame mean the same under all), and
`Layout` moves values between frames and steps by its table. To add one: a
frozen dataclass with `group`, `steps` and `cells`, a line here, and its name in
tests/patterns/test_patterns.py, which checks the rest.

    parallel      all slots of a frame in one step
    delay         slot k of frame f in step f + delays[k]
    stereo        delay, the channels' codebooks in turn
    flatten       one slot a step, frame by frame
    coarse_first  the first slots of a block of frames, then their others

`sequence.Sequence` puts segments, each of some slots in a pattern of its own,
one after the other (text then speech, semantic then coarse then fine) or in
turns of some steps (interleaved text and speech).
"""

from audiolm_jax.patterns.coarse_first import CoarseFirst
from audiolm_jax.patterns.interleaving import Delay
from audiolm_jax.patterns.interleaving import Flatten
from audiolm_jax.patterns.interleaving import Parallel
from audiolm_jax.patterns.interleaving import Stereo

PATTERNS = {
    'coarse_first': CoarseFirst,
    'delay': Delay,
    'flatten': Flatten,
    'parallel': Parallel,
    'stereo': Stereo,
}
