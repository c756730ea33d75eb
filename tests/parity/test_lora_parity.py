"""Our low-rank updates against peft's, on torch: outputs and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import ops
from audiolm_jax import param_transforms

pytestmark = pytest.mark.parity


@pytest.fixture(name='model')
def _model():
  """A torch model with a linear, a convolution and an embedding, in peft."""
  import peft  # pylint: disable=g-import-not-at-top
  import torch  # pylint: disable=g-import-not-at-top

  class Model(torch.nn.Module):

    def __init__(self):
      super().__init__()
      self.embed = torch.nn.Embedding(11, 6)
      self.conv = torch.nn.Conv1d(6, 8, 3, bias=False)
      self.out = torch.nn.Linear(8, 5, bias=False)

    def forward(self, ids):
      x = self.conv(self.embed(ids).transpose(1, 2)).transpose(1, 2)
      return self.out(x)

  torch.manual_seed(0)
  config = peft.LoraConfig(
      r=3, lora_alpha=12, target_modules=['embed', 'conv', 'out']
  )
  model = peft.get_peft_model(Model(), config)
  for name, parameter in model.named_parameters():
    if 'lora' in name:  # b is zero at first, which would hide mistakes
      torch.nn.init.normal_(parameter)
  return model


def _leaves(model):
  """Our leaves with peft's values; layouts differ, the maths must not."""
  layers = model.base_model.model

  def array(x):
    return jnp.asarray(x.detach().numpy())

  embed, conv, out = layers.embed, layers.conv, layers.out
  return {
      'embed': ops.LoraTensor(
          array(embed.base_layer.weight),
          array(embed.lora_embedding_A['default']).T,
          array(embed.lora_embedding_B['default']).T,
          4.0,
      ),
      # torch: [out, in, width]; ours: [width, in, out].
      'conv': ops.LoraTensor(
          array(conv.base_layer.weight).transpose(2, 1, 0),
          array(conv.lora_A['default'].weight).transpose(2, 1, 0),
          array(conv.lora_B['default'].weight)[..., 0].T,
          4.0,
      ),
      'out': ops.LoraTensor(
          array(out.base_layer.weight).T,
          array(out.lora_A['default'].weight).T,
          array(out.lora_B['default'].weight).T,
          4.0,
      ),
  }


def _apply(leaves, ids):
  x = ops.conv(ops.take(leaves['embed'], ids), leaves['conv'])
  return ops.einsum('btd,do->bto', x, leaves['out'])


def test_outputs_and_gradients_equal_those_of_peft(model):
  import torch  # pylint: disable=g-import-not-at-top

  ids = np.array([[1, 4, 10, 0, 2, 2], [3, 3, 9, 8, 7, 6]])
  leaves = _leaves(model)
  theirs = model(torch.tensor(ids))
  np.testing.assert_allclose(
      _apply(leaves, ids), theirs.detach().numpy(), rtol=1e-4, atol=1e-4
  )
  theirs.square().sum().backward()
  transform = param_transforms.Lora(rank=3, alpha=12.0)
  trainable, frozen = transform.split(leaves)
  gradient = jax.grad(
      lambda t: jnp.sum(jnp.square(_apply(transform.merge(t, frozen), ids)))
  )(trainable)
  layers = model.base_model.model
  for got, want in [
      (gradient['out'].a, layers.out.lora_A['default'].weight.grad.T),
      (gradient['out'].b, layers.out.lora_B['default'].weight.grad.T),
      (gradient['embed'].a, layers.embed.lora_embedding_A['default'].grad.T),
      (gradient['embed'].b, layers.embed.lora_embedding_B['default'].grad.T),
      (gradient['conv'].b, layers.conv.lora_B['default'].weight.grad[..., 0].T),
  ]:
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-3, atol=1e-3)
  assert gradient['out'].w is None
