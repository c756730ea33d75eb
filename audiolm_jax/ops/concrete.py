"""Values of arrays, where there are some: what is traced has none yet."""

from typing import Any

import jax
import numpy as np


def on_host(x: Any) -> np.ndarray | None:
  """An array on the host; None if it is traced, or lies on other hosts too."""
  if x is None or isinstance(x, jax.core.Tracer):
    return None
  if isinstance(x, jax.Array) and not x.is_fully_addressable:
    return None
  return np.asarray(x)
