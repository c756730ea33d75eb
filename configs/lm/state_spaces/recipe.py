"""The quickstart's language model with another backbone, all else equal.

Each layer's perceptron, or the number of layers, is chosen so that backbones
have the parameters of the quickstart's transformer (3.1M), to within 4%.
"""

from typing import Any

from configs.lm import quickstart


def build(arg: str, backbone: dict[str, Any]):
  """The quickstart's config with these fields of the backbone replaced.

  Args:
    arg: 'cpu' or 'smoke'.
    backbone: fields of `decoders.stack.Stack`.
  """
  values = quickstart.get_config(arg)
  for name, value in backbone.items():
    values.objective.decoder.backbone[name] = value
  return values


def dense(hidden: int) -> dict[str, Any]:
  """The quickstart's perceptron, with another hidden width."""
  return {'kind': 'dense', 'hidden': hidden, 'activation': 'relu'}
