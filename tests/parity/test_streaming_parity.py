"""Streaming layers against torch's modules of the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import streaming

pytestmark = pytest.mark.parity


def _random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _close(actual, expected, tolerance=1e-5):
  expected = np.asarray(expected)
  scale = np.abs(expected).max()
  np.testing.assert_allclose(
      np.asarray(actual) / scale, expected / scale, rtol=0, atol=tolerance
  )


_LSTM = {
    'input': 'weight_ih',
    'recurrent': 'weight_hh',
    'input_bias': 'bias_ih',
    'recurrent_bias': 'bias_hh',
}


def _lstm_tree(module, layers, bidirectional, read):
  """Our tree of `read(parameter)` for each of torch's parameters."""
  directions = ('', '_reverse') if bidirectional else ('',)
  return {
      f'layer_{i}{direction}': {
          ours: read(getattr(module, f'{theirs}_l{i}{direction}')).T
          for ours, theirs in _LSTM.items()
      }
      for i in range(layers)
      for direction in directions
  }


@pytest.mark.parametrize('bidirectional', [False, True])
def test_lstm(bidirectional):
  import torch  # pylint: disable=g-import-not-at-top

  torch.manual_seed(0)
  theirs = torch.nn.LSTM(6, 6, 2, batch_first=True, bidirectional=bidirectional)
  ours = streaming.Lstm(layers=2, bidirectional=bidirectional)
  params = _lstm_tree(theirs, 2, bidirectional, lambda p: p.detach().numpy())
  x, lengths = _random(3, 9, 6), [9, 5, 1]
  mask = streaming.length_mask(jnp.array(lengths), 9)
  weight = _random(3, 9, 12 if bidirectional else 6, seed=1)

  def loss(params):
    y, y_mask = ours.apply({'params': params}, x, mask)
    return jnp.sum(jnp.where(y_mask[..., None], y * weight, 0)), y

  gradient, y = jax.jit(jax.grad(loss, has_aux=True))(params)
  for row, length in enumerate(lengths):
    one = torch.tensor(x[row : row + 1, :length])
    # SpeechTokenizer's skip: the input beside itself for both directions.
    expected = theirs(one)[0] + torch.cat([one] * (1 + bidirectional), -1)
    _close(y[row, :length], expected[0].detach())
    factor = torch.tensor(weight[row, :length])
    (expected[0] * factor).sum().backward()
  expected = _lstm_tree(theirs, 2, bidirectional, lambda p: p.grad.numpy())
  jax.tree.map(_close, gradient, expected)
