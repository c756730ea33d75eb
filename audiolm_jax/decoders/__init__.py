"""Decoders: patterns, embeddings, backbones and heads put together.

A decoder of tokens lays the slots of frames out in steps (`patterns`), embeds
each step's codes, transforms them with a backbone and gives the next step's by
a head. Each is a field of its config:

    backbone   what carries the past to the next step, of `backbones`.
    HEADS      what gives the G codes of a step: `heads/base.py` is the seam.
    CONDITIONERS  what a decoder is given beside the codes.
    STARTS     what the first step of a row takes in: a learned row, a code
               before all rows, or a first frame that is given, not scored.
    LM_KINDS   what is modelled. Of steps (`steps`), whatever their segments:
               `tokens`: frames, a single segment in one pattern; `stages`: the
               slots of frames, some observed and some predicted; `segments`:
               several streams, one after the other or in turns. `masked`:
               frames, any of whose codes may be hidden. And `wavenet`: samples
               of audio, with heads of its own (`waveform_heads`).
    DENOISERS  what denoises frames of latents, by a process of `processes`:
               `flow`, all frames of a row at once. Which frames are given in
               training is said by `gaps`.
    LATENT_KINDS  what gives frames of latents one after the other: `latents`, a
               causal backbone with one of LATENT_HEADS (`latent_heads`).

To add one: a Linen module beside its kin, a line in its table, and its place in
tests/decoders, where every pattern meets every head.
"""

from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import heads
from audiolm_jax.decoders import latent_heads
from audiolm_jax.decoders import starts
from audiolm_jax.decoders.decoder import Decoder
from audiolm_jax.decoders.flow import Flow
from audiolm_jax.decoders.latent_decoder import LatentDecoder
from audiolm_jax.decoders.masked import Masked
from audiolm_jax.decoders.segmented import Segmented
from audiolm_jax.decoders.segmented import Staged
from audiolm_jax.decoders.wavenet import WaveNet

CONDITIONERS = conditioners.CONDITIONERS
HEADS = heads.HEADS
STARTS = starts.STARTS
DENOISERS = {'flow': Flow}
LATENT_HEADS = latent_heads.LATENT_HEADS
LATENT_KINDS = {'latents': LatentDecoder}
LM_KINDS = {
    'masked': Masked,
    'segments': Segmented,
    'stages': Staged,
    'tokens': Decoder,
    'wavenet': WaveNet,
}
