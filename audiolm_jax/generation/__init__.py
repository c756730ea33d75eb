"""Sampling and streaming."""

from audiolm_jax.generation.generate import ENDLESS
from audiolm_jax.generation.generate import generate
from audiolm_jax.generation.generate import restart
from audiolm_jax.generation.generate import start
from audiolm_jax.generation.generate import State
from audiolm_jax.generation.generate import step
from audiolm_jax.generation.sampling import Sampler
