"""Bottlenecks against transformers' and snac's on the same weights.

Values, codes, and what gradients say to the input and to every weight.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.tokenizers.bottlenecks import factorised
from audiolm_jax.tokenizers.bottlenecks import fsq
from audiolm_jax.tokenizers.bottlenecks import multi_rate
from audiolm_jax.tokenizers.bottlenecks import rvq
from audiolm_jax.tokenizers.bottlenecks import split
from audiolm_jax.tokenizers.bottlenecks import vq

torch = pytest.importorskip('torch')
pytestmark = pytest.mark.parity

BATCH, FRAMES, WIDTH, SMALL, VOCABULARY = 3, 16, 12, 4, 32
MASK = np.ones((BATCH, FRAMES), bool)


@pytest.fixture(name='x')
def _x():
  rng = np.random.default_rng(0)
  return rng.standard_normal((BATCH, FRAMES, WIDTH)).astype(np.float32)


@pytest.fixture(name='weight')
def _weight():
  """Of each output, so that gradients tell positions apart."""
  rng = np.random.default_rng(1)
  return rng.standard_normal((BATCH, FRAMES, WIDTH)).astype(np.float32)


def _torch(x):
  """[B, F, D] -> torch's [B, D, F], with a gradient."""
  return torch.tensor(np.swapaxes(x, 1, 2), requires_grad=True)


def _numpy(x):
  return x.detach().numpy()


def _same_codes(found, expected):
  """Codes are equal, and tell frames apart; no margin here is a near tie."""
  assert np.asarray(found.margins).min() > 1e-5
  np.testing.assert_array_equal(found.codes, expected)
  used = [len(np.unique(expected[..., k])) for k in range(expected.shape[-1])]
  assert min(used) >= min(5, expected.shape[0] * expected.shape[1] // 2), used


def _close(actual, expected):
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def _randomise(module):
  torch.manual_seed(0)
  with torch.no_grad():
    for value in module.parameters():
      value.add_(0.3 * torch.randn_like(value))


def _leaf(convs, ours, theirs):
  """A weight (or its gradient) of torch's 1x1 convolutions, stacked."""

  def one(conv, gradient):
    names = dict(conv.named_parameters())
    value = names[theirs].grad if gradient else names[theirs]
    value = _numpy(value)
    if ours == 'kernel':
      return value[..., 0].T
    return value.reshape(-1)

  return [np.stack([one(c, gradient) for c in convs]) for gradient in (0, 1)]


def _factorised_trees(quantisers, normed):
  """Our params and, after torch's backward, the gradients of the same."""
  names = {'kernel': 'weight', 'bias': 'bias'}
  if normed:
    names['kernel'] = 'parametrizations.weight.original1'
    names['gain'] = 'parametrizations.weight.original0'
  params, gradients = {}, {}
  for side in ('in', 'out'):
    convs = [getattr(q, f'{side}_proj') for q in quantisers]
    leaves = {ours: _leaf(convs, ours, t) for ours, t in names.items()}
    params[side] = {ours: leaf[0] for ours, leaf in leaves.items()}
    gradients[side] = {ours: leaf[1] for ours, leaf in leaves.items()}
  books = [q.codebook.weight for q in quantisers]
  params['codebooks'] = np.stack([_numpy(b) for b in books])
  gradients['codebooks'] = np.stack(
      [np.zeros(b.shape) if b.grad is None else _numpy(b.grad) for b in books]
  )
  return params, gradients


def _total(bottleneck, params, x, weight, losses):
  found = bottleneck.quantise({'params': params, 'state': {}}, x, MASK)
  total = jnp.sum(found.latents * weight)
  return total + sum(found.losses[name].mean() for name in losses)


def _same_gradients(bottleneck, params, x, weight, losses, expected):
  actual = jax.jit(
      jax.grad(
          lambda *given: _total(bottleneck, *given, weight, losses), (0, 1)
      )
  )(params, x)
  jax.tree.map(_close, actual, expected)
  assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(actual[1]))


@pytest.mark.parametrize('normed', [False, True])
def test_factorised_is_dacs(x, weight, normed):
  from transformers import DacConfig  # pylint: disable=g-import-not-at-top
  from transformers.models.dac import modeling_dac  # pylint: disable=g-import-not-at-top

  model = modeling_dac.DacResidualVectorQuantizer(
      DacConfig(
          hidden_size=WIDTH,
          codebook_dim=SMALL,
          codebook_size=VOCABULARY,
          n_codebooks=3,
      )
  ).eval()
  if normed:
    for quantiser in model.quantizers:
      for conv in (quantiser.in_proj, quantiser.out_proj):
        torch.nn.utils.parametrizations.weight_norm(conv)
  _randomise(model)
  theirs = _torch(x)
  latents, codes, _, commitment, codebook = model(theirs)
  scalar = (latents * _torch(weight).detach()).sum()
  (scalar + commitment.mean() + codebook.mean()).backward()
  params, gradients = _factorised_trees(model.quantizers, normed)

  ours = factorised.FactorisedRvq(
      codebooks=3, vocabulary=VOCABULARY, dimension=SMALL, weight_norm=normed
  )
  variables = {'params': params, 'state': {}}
  found = jax.jit(ours.quantise)(variables, x, MASK)
  _same_codes(found, np.moveaxis(_numpy(codes), 1, 2))
  _close(np.swapaxes(found.latents, 1, 2), _numpy(latents))
  _close(found.losses['commitment'].mean(), _numpy(commitment).mean())
  _close(found.losses['codebook'].mean(), _numpy(codebook).mean())
  decoded = model.from_codes(codes[:, :2])[0]
  _close(
      np.swapaxes(ours.dequantise(variables, found.codes[..., :2]), 1, 2),
      _numpy(decoded),
  )
  x_gradient = np.swapaxes(_numpy(theirs.grad), 1, 2)
  losses = ('commitment', 'codebook')
  _same_gradients(ours, params, x, weight, losses, (gradients, x_gradient))


def test_multi_rate_is_snacs(x, weight):
  snac_vq = pytest.importorskip('snac.vq')
  strides = (4, 2, 1)
  model = snac_vq.ResidualVectorQuantize(
      WIDTH, VOCABULARY, SMALL, list(strides)
  ).eval()
  _randomise(model)
  theirs = _torch(x)
  latents, codes = model(theirs)
  (latents * _torch(weight).detach()).sum().backward()
  params, gradients = _factorised_trees(model.quantizers, True)

  ours = multi_rate.MultiRateRvq(
      strides=strides, vocabulary=VOCABULARY, dimension=SMALL
  )
  variables = {'params': params, 'state': {}}
  found = jax.jit(ours.quantise)(variables, x, MASK)
  expected = [_numpy(c).reshape(BATCH, FRAMES // 4, -1) for c in codes]
  _same_codes(found, np.concatenate(expected, axis=-1))
  _close(np.swapaxes(found.latents, 1, 2), _numpy(latents))
  _close(
      np.swapaxes(ours.dequantise(variables, found.codes), 1, 2),
      _numpy(model.from_codes(codes)),
  )
  x_gradient = np.swapaxes(_numpy(theirs.grad), 1, 2)
  _same_gradients(ours, params, x, weight, (), (gradients, x_gradient))


def _averages(layers):
  """The state of transformers' codebooks that keep sums and usage."""
  counts = np.stack([_numpy(layer.codebook.cluster_usage) for layer in layers])
  sums = np.stack([_numpy(layer.codebook.embed_sum) for layer in layers])
  return vq.State(
      codebooks=jnp.asarray(sums / counts[..., None]),
      counts=counts,
      sums=sums,
      updates=np.zeros(len(layers), np.int32),
  )


@pytest.mark.parametrize('semantic', [1, 2])
def test_split_is_mimis(x, semantic):
  from transformers import MimiConfig  # pylint: disable=g-import-not-at-top
  from transformers.models.mimi import modeling_mimi  # pylint: disable=g-import-not-at-top

  model = modeling_mimi.MimiSplitResidualVectorQuantizer(
      MimiConfig(
          hidden_size=WIDTH,
          codebook_dim=SMALL,
          codebook_size=VOCABULARY,
          vector_quantization_hidden_dimension=SMALL,
          num_quantizers=4,
          num_semantic_quantizers=semantic,
      )
  ).eval()
  _randomise(model)
  for name, buffer in model.named_buffers():
    if name.endswith('embed_sum'):
      buffer.normal_()
    elif name.endswith('cluster_usage'):
      buffer.uniform_(0.5, 2)
  parts = {
      'semantic': model.semantic_residual_vector_quantizer,
      'acoustic': model.acoustic_residual_vector_quantizer,
  }
  params = {
      name: {
          'in': {'kernel': _numpy(part.input_proj.weight)[..., 0].T},
          'out': {'kernel': _numpy(part.output_proj.weight)[..., 0].T},
      }
      for name, part in parts.items()
  }
  state = {name: _averages(part.layers) for name, part in parts.items()}
  variables = {'params': params, 'state': state}
  codes = model.encode(_torch(x)).detach()

  ours = split.SplitRvq(
      semantic=semantic,
      acoustic=4 - semantic,
      vocabulary=VOCABULARY,
      dimension=SMALL,
  )
  found = jax.jit(ours.quantise)(variables, x, MASK)
  _same_codes(found, np.moveaxis(codes.numpy(), 0, -1))
  for count in range(semantic, 5):
    decoded = model.decode(codes[:count].transpose(0, 1))
    _close(
        np.swapaxes(ours.dequantise(variables, found.codes[..., :count]), 1, 2),
        _numpy(decoded),
    )
  _close(np.swapaxes(found.latents, 1, 2), _numpy(decoded))


def test_rvq_is_encodecs(x):
  from transformers import EncodecConfig  # pylint: disable=g-import-not-at-top
  from transformers.models.encodec import modeling_encodec  # pylint: disable=g-import-not-at-top

  config = EncodecConfig(
      codebook_size=VOCABULARY, codebook_dim=WIDTH, target_bandwidths=[1.5]
  )
  model = modeling_encodec.EncodecResidualVectorQuantizer(config).eval()
  torch.manual_seed(0)
  for layer in model.layers:
    layer.codebook.embed.normal_()
  books = jnp.stack([_numpy(layer.codebook.embed) for layer in model.layers])
  codes = model.encode(_torch(x).detach())

  ours = rvq.Rvq(codebooks=len(books), vocabulary=VOCABULARY)
  zeros = jnp.zeros(books.shape[:2])
  state = vq.State(books, zeros, books, zeros[:, 0].astype(jnp.int32))
  variables = {'params': {}, 'state': state}
  found = jax.jit(ours.quantise)(variables, x, MASK)
  expected = np.moveaxis(_numpy(codes), 0, -1)
  assert len(books) == 4
  _same_codes(found, expected)
  _close(
      np.swapaxes(ours.dequantise(variables, expected[..., :3]), 1, 2),
      _numpy(model.decode(codes[:3])),
  )


def test_fsq_is_xcodec2s(x, weight):
  from transformers import Xcodec2Config  # pylint: disable=g-import-not-at-top
  from transformers.models.xcodec2 import modeling_xcodec2  # pylint: disable=g-import-not-at-top

  grid = (4, 5, 8, 3)
  config = Xcodec2Config(quantization_levels=list(grid))
  config.quantization_dim = WIDTH
  model = modeling_xcodec2.Xcodec2Quantizer(config).eval()
  _randomise(model)
  theirs = torch.tensor(x, requires_grad=True)
  latents, codes = model(theirs)[:2]
  (latents * torch.tensor(weight)).sum().backward()
  params, gradients = ({}, {})
  for side, linear in (('in', model.project_in), ('out', model.project_out)):
    pairs = {'kernel': linear.weight, 'bias': linear.bias}
    params[side] = {n: _numpy(v).T for n, v in pairs.items()}
    gradients[side] = {n: _numpy(v.grad).T for n, v in pairs.items()}

  ours = fsq.Fsq(grid=grid, bounds=2)
  variables = {'params': params, 'state': {}}
  found = jax.jit(ours.quantise)(variables, x, MASK)
  _same_codes(found, _numpy(codes).reshape(BATCH, FRAMES, 1))
  _close(found.latents, _numpy(latents))
  _close(ours.dequantise(variables, found.codes), _numpy(latents))
  expected = (gradients, _numpy(theirs.grad))
  _same_gradients(ours, params, x, weight, (), expected)
