"""Parity tests: the weights of each file are the same in every order of tests."""

import pytest


@pytest.fixture(scope='module', autouse=True)
def seeded():
  """transformers draws a model's weights from torch's global generator."""
  pytest.importorskip('torch').manual_seed(0)
