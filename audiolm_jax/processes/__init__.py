"""From data to noise and back: what decoders that denoise are made of.

Everything here is a pure function or a small frozen dataclass and knows no
network: a prediction is a function of z and t. Data is at t = 0, noise at t = 1.

    gaussian    z = a x + b e: targets and their conversions, the denoiser
    discrete    codes that are hidden or replaced; bounds of their likelihood
    times       at which times to train, and through which to sample
    weights     how much an error counts at each noise level
    solvers     steps of a Gaussian process, from noise to data
    flow_maps   jumps from any time to any other, and what they are trained by
    hiding      which codes a masked decoder is trained on
    unmasking   steps of hidden codes: random order, confidence, spans
    guidance    a condition's difference, enlarged: plain, rescaled, projected,
                at some times only; several conditions, each by its weight
    likelihood  exact divergence, log-likelihoods of flows
    validation  errors by noise level on fixed draws
    noise       keyed by row and absolute frame

To add a process, a density of times, a weight, a solver, a guidance, a hiding or
an order: a frozen dataclass of the room's base class, a line in its table, and
its name in the tests that go through that table.
"""

from audiolm_jax.processes.discrete import DISCRETE
from audiolm_jax.processes.gaussian import PROCESSES
from audiolm_jax.processes.guidance import GUIDANCE
from audiolm_jax.processes.hiding import HIDINGS
from audiolm_jax.processes.solvers import SOLVERS
from audiolm_jax.processes.times import DENSITIES
from audiolm_jax.processes.unmasking import ORDERS
from audiolm_jax.processes.weights import WEIGHTS
