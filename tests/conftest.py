"""All tests: on the CPU, with the shared compilation cache, absl flags parsed."""

import os

# Before jax is imported anywhere.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

from audiolm_jax.training import launch  # noqa: E402

launch.prepare()
