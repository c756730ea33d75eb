"""SpeechTokenizer: the same weights here and in a restatement in torch.

The original needs torchaudio, which lags behind torch, so what it computes is
written down once more, by its names. Checked against speechtokenizer 1.0.1.
"""

import math

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from audiolm_jax import interop  # noqa: E402
from audiolm_jax.interop import base as interop_base  # noqa: E402
from tests import margin_rule  # noqa: E402
from tests.parity import codec_models  # noqa: E402
from tests.parity import compiled  # noqa: E402

pytestmark = pytest.mark.parity

SMALL = {
    'sample_rate': 16000,
    'n_filters': 4,
    'strides': [5, 2],
    'dimension': 8,
    'semantic_dimension': 6,
    'bidirectional': True,
    'dilation_base': 2,
    'residual_kernel_size': 3,
    'n_residual_layers': 1,
    'lstm_layers': 2,
    'activation': 'ELU',
    'n_q': 4,
    'codebook_size': 16,
}
# speechtokenizer_hubert_avg.
PUBLISHED = {
    **SMALL,
    'n_filters': 64,
    'strides': [8, 5, 4, 2],
    'dimension': 1024,
    'semantic_dimension': 768,
    'n_q': 8,
    'codebook_size': 1024,
}


class Reference:
  """What the original computes, from its state dict."""

  def __init__(self, config, seed=0, x=None):
    self.config = config
    self.random = np.random.default_rng(seed)
    self.tensors = {}
    filters, dimension = config['n_filters'], config['dimension']
    strides = config['strides']
    name, width = 'encoder.model', filters
    self.conv(f'{name}.0', 1, width, 7)
    place = 1
    for stride in reversed(strides):
      self.residual(f'{name}.{place}', width)
      self.alpha(f'{name}.{place + 1}', width)
      self.conv(f'{name}.{place + 2}', width, 2 * width, 2 * stride)
      place, width = place + 3, 2 * width
    self.lstm(f'{name}.{place}', width, config['bidirectional'])
    double = width * (1 + config['bidirectional'])
    self.alpha(f'{name}.{place + 1}', double)
    self.conv(f'{name}.{place + 2}', double, dimension, 7)
    self.last = f'{name}.{place + 2}.conv.conv'
    name = 'decoder.model'
    self.conv(f'{name}.0', dimension, width, 7)
    self.lstm(f'{name}.1', width, False)
    place = 2
    for stride in strides:
      self.alpha(f'{name}.{place}', width)
      self.conv(f'{name}.{place + 1}', width, width // 2, 2 * stride, True)
      self.residual(f'{name}.{place + 2}', width // 2)
      place, width = place + 3, width // 2
    self.alpha(f'{name}.{place}', width)
    self.conv(f'{name}.{place + 1}', width, 1, 7)
    self.add('transform.weight', config['semantic_dimension'], dimension)
    self.add('transform.bias', config['semantic_dimension'])
    for k in range(config['n_q']):
      book = f'quantizer.vq.layers.{k}._codebook'
      self.add(f'{book}.embed', config['codebook_size'], dimension)
      self.tensors[f'{book}.inited'] = torch.ones(1)
    self.fill_codebooks(x)

  def add(self, name, *shape):
    bound = np.prod(shape[1:]) ** -0.5
    value = self.random.uniform(-bound, bound, shape).astype(np.float32)
    self.tensors[name] = torch.from_numpy(value)

  def conv(self, name, inputs, outputs, width, transposed=False):
    kind = 'convtr' if transposed else 'conv'
    pair = (inputs, outputs) if transposed else (outputs, inputs)
    inner = f'{name}.{kind}.{kind}'
    self.add(f'{inner}.weight_v', *pair, width)
    v = self.tensors[f'{inner}.weight_v']
    gain = torch.from_numpy(self.random.uniform(0.7, 1.3, (pair[0], 1, 1)))
    norm = v.pow(2).sum((1, 2), keepdim=True).sqrt()
    self.tensors[f'{inner}.weight_g'] = gain.float() * norm
    self.add(f'{inner}.bias', outputs)

  def alpha(self, name, width):
    if self.config['activation'] == 'Snake':
      values = self.random.uniform(0.5, 2, (1, width, 1)).astype(np.float32)
      self.tensors[f'{name}.alpha'] = torch.from_numpy(values)

  def residual(self, name, width):
    self.alpha(f'{name}.block.0', width)
    self.alpha(f'{name}.block.2', width // 2)
    self.conv(f'{name}.block.1', width, width // 2, 3)
    self.conv(f'{name}.block.3', width // 2, width, 1)
    self.conv(f'{name}.shortcut', width, width, 1)

  def lstm(self, name, width, bidirectional):
    module = torch.nn.LSTM(width, width, 2, bidirectional=bidirectional)
    for key, value in module.named_parameters():
      self.add(f'{name}.lstm.{key}', *value.shape)

  def fill_codebooks(self, x):
    if x is None:
      hop = math.prod(self.config['strides'])
      samples = 2 * self.config['codebook_size'] * hop
      x = codec_models.audio(2, 1, min(samples, 60_000), seed=3)
    frames = self.encode(x).reshape(-1, self.config['dimension'])
    # A frame differs little from the next under random weights: each latent
    # dimension is moved to mean 0 and scaled to variance 1.
    mean, std = frames.mean(0), frames.std(0)
    self.tensors[f'{self.last}.weight_g'] /= std[:, None, None]
    bias = self.tensors[f'{self.last}.bias']
    self.tensors[f'{self.last}.bias'] = (bias - mean) / std
    frames = (frames - mean) / std
    books = [
        f'quantizer.vq.layers.{k}._codebook' for k in range(self.config['n_q'])
    ]
    torch.manual_seed(0)
    codec_models.residual_codebooks(
        frames, [self.tensors[f'{b}.embed'] for b in books]
    )
    for book in books:
      size = 1 + torch.rand(self.config['codebook_size'])
      self.tensors[f'{book}.cluster_size'] = size
      embed = self.tensors[f'{book}.embed']
      self.tensors[f'{book}.embed_avg'] = embed * size[:, None]

  # -- what it computes; x is [B, C, T] -----------------------------------------

  def kernel(self, name):
    v = self.tensors[f'{name}.weight_v']
    norm = v.pow(2).sum((1, 2), keepdim=True).sqrt()
    return v * self.tensors[f'{name}.weight_g'] / norm

  def run_conv(self, name, x, stride=1):
    kernel = self.kernel(f'{name}.conv.conv')
    total = kernel.shape[2] - stride
    right = total // 2
    left = total - right
    right += -x.shape[2] % stride
    short = max(0, max(left, right) + 1 - x.shape[2])
    x = torch.nn.functional.pad(x, (0, short))
    x = torch.nn.functional.pad(x, (left, right), 'reflect')
    x = x[..., : x.shape[2] - short]
    bias = self.tensors[f'{name}.conv.conv.bias']
    return torch.nn.functional.conv1d(x, kernel, bias, stride)

  def act(self, name, x):
    if self.config['activation'] == 'ELU':
      return torch.nn.functional.elu(x)
    alpha = self.tensors[f'{name}.alpha']
    return x + torch.sin(alpha * x).pow(2) / (alpha + 1e-9)

  def run_transposed(self, name, x, stride):
    inner = f'{name}.convtr.convtr'
    y = torch.nn.functional.conv_transpose1d(
        x, self.kernel(inner), self.tensors[f'{inner}.bias'], stride
    )
    right = stride // 2
    return y[..., stride - right : y.shape[2] - right]

  def run_residual(self, name, x):
    y = self.run_conv(f'{name}.block.1', self.act(f'{name}.block.0', x))
    y = self.run_conv(f'{name}.block.3', self.act(f'{name}.block.2', y))
    return self.run_conv(f'{name}.shortcut', x) + y

  def run_lstm(self, name, x, bidirectional):
    module = torch.nn.LSTM(
        x.shape[1], x.shape[1], 2, bidirectional=bidirectional
    )
    prefix = f'{name}.lstm.'
    module.load_state_dict(
        {
            key.removeprefix(prefix): value
            for key, value in self.tensors.items()
            if key.startswith(prefix)
        }
    )
    x = x.permute(2, 0, 1)
    y = module(x)[0] + x.repeat(1, 1, 1 + bidirectional)
    return y.permute(1, 2, 0)

  @torch.no_grad()
  def encode(self, audio):
    """[B, T, 1] -> latents [B, F, D]."""
    x = torch.from_numpy(audio.transpose(0, 2, 1))
    name, place = 'encoder.model', 1
    x = self.run_conv(f'{name}.0', x)
    for stride in reversed(self.config['strides']):
      x = self.run_residual(f'{name}.{place}', x)
      x = self.act(f'{name}.{place + 1}', x)
      x = self.run_conv(f'{name}.{place + 2}', x, stride)
      place += 3
    x = self.run_lstm(f'{name}.{place}', x, self.config['bidirectional'])
    x = self.act(f'{name}.{place + 1}', x)
    return self.run_conv(f'{name}.{place + 2}', x).transpose(1, 2)

  @torch.no_grad()
  def quantise(self, latents):
    """Codes [B, F, K]."""
    codes = []
    for k in range(self.config['n_q']):
      book = self.tensors[f'quantizer.vq.layers.{k}._codebook.embed']
      distances = (latents[:, :, None] - book).pow(2).sum(-1)
      codes.append(distances.argmin(-1))
      latents = latents - book[codes[-1]]
    return torch.stack(codes, -1).numpy()

  @torch.no_grad()
  def semantic(self, codes):
    """What the first level says of the teacher's features, [B, F, E]."""
    book = self.tensors['quantizer.vq.layers.0._codebook.embed']
    first = book[torch.from_numpy(codes[..., 0])]
    return torch.nn.functional.linear(
        first, self.tensors['transform.weight'], self.tensors['transform.bias']
    )

  @torch.no_grad()
  def decode(self, codes):
    """[B, F, K] -> audio [B, T, 1]."""
    x = sum(
        self.tensors[f'quantizer.vq.layers.{k}._codebook.embed'][
            torch.from_numpy(codes[..., k])
        ]
        for k in range(codes.shape[-1])
    ).transpose(1, 2)
    name, place = 'decoder.model', 2
    x = self.run_lstm(f'{name}.1', self.run_conv(f'{name}.0', x), False)
    for stride in self.config['strides']:
      x = self.act(f'{name}.{place}', x)
      x = self.run_transposed(f'{name}.{place + 1}', x, stride)
      x = self.run_residual(f'{name}.{place + 2}', x)
      place += 3
    x = self.act(f'{name}.{place}', x)
    return self.run_conv(f'{name}.{place + 1}', x).transpose(1, 2)

  def save(self, directory):
    tensors = {n: t.contiguous().numpy() for n, t in self.tensors.items()}
    interop.files.write(directory, self.config, tensors)
    return directory


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  # As published second, with learned activations.
  reference = Reference({**SMALL, 'activation': 'Snake'})
  return reference, reference.save(tmp_path_factory.mktemp('speechtokenizer'))


def _run(codec, variables, x, codes, num_samples=None):
  num_samples = (
      np.full(len(x), x.shape[1]) if num_samples is None else num_samples
  )
  return compiled.outputs(codec)(variables, x, num_samples, codes)


def _check(reference, directory, samples, weight_norm=False):
  codec, variables = interop.load_pretrained(directory, weight_norm=weight_norm)
  interop_base.check_complete(interop.FAMILIES['speechtokenizer'], codec)
  x = codec_models.audio(2, 1, samples)
  latents = reference.encode(x)
  codes = reference.quantise(latents)
  codec_models.used(codes, reference.config['codebook_size'])
  found = _run(codec, variables, x, codes)
  codec_models.close(found['latents'], latents)
  margin_rule.assert_same_codes(found['codes'], codes, found['margins'])
  same = np.asarray(found['codes'])[..., 0] == codes[..., 0]
  semantic = reference.semantic(codes)
  codec_models.close(np.asarray(found['semantic'])[same], semantic[same])
  np.testing.assert_array_equal(found['num_samples'], samples)
  codec_models.close(
      found['decoded'][:, :samples], reference.decode(codes)[:, :samples]
  )


def test_codes_and_audio_are_those_of_the_original(small):
  _check(*small, 1403)


def test_with_elu_and_weight_norm_too(tmp_path):
  reference = Reference(SMALL)
  _check(reference, reference.save(tmp_path), 1403, weight_norm=True)


def test_a_padded_batch_is_its_rows(small):
  reference, directory = small
  codec, variables = interop.load_pretrained(directory)
  num_samples = np.array([1403, 331, 40, 11, 10, 9, 1])
  x = codec_models.audio(len(num_samples), 1, 1403)
  rows = [x[i : i + 1, :n].copy() for i, n in enumerate(num_samples)]
  x[np.arange(x.shape[1]) >= num_samples[:, None]] = np.nan
  expected = [reference.quantise(reference.encode(row))[0] for row in rows]
  codes = np.zeros((len(rows), *expected[0].shape), np.int32)
  for i, row in enumerate(expected):
    codes[i, : len(row)] = row
  found = _run(codec, variables, x, codes, num_samples)
  mask = np.arange(codes.shape[1]) < codec.spec.frames(num_samples)[:, None]
  assert [len(row) for row in expected] == list(mask.sum(axis=1))
  margin_rule.assert_same_codes(
      np.asarray(found['codes'])[mask],
      codes[mask],
      np.asarray(found['margins'])[mask],
  )
  for i, row in enumerate(expected):
    decoded = reference.decode(row[None])
    codec_models.close(
        found['decoded'][i, : num_samples[i]], decoded[0, : num_samples[i]]
    )


def test_saving_gives_the_same_files(small, tmp_path):
  reference, directory = small
  for weight_norm in (True, False):
    codec, variables = interop.load_pretrained(
        directory, weight_norm=weight_norm
    )
    target = tmp_path / str(weight_norm)
    interop.save_pretrained(target, codec, variables, 'speechtokenizer')
    config, tensors = interop.files.read(target)
    assert config == reference.config
    assert set(tensors) == set(reference.tensors)
    for name, value in tensors.items():
      if not name.endswith(('weight_g', 'weight_v')) or weight_norm:
        np.testing.assert_allclose(value, reference.tensors[name], rtol=1e-6)


def test_exchanging_two_weights_shows(small):
  reference, directory = small
  codec, _ = interop.load_pretrained(directory)
  x = codec_models.audio(1, 1, 200)
  codes = reference.quantise(reference.encode(x))
  codec_models.assert_permutations_show(
      directory,
      compiled.arrays(codec, x, codes),
      additive=[('bias_ih', 'bias_hh'), ('block.3', 'shortcut')],
  )


def test_what_does_not_fit_is_listed(small, tmp_path):
  _, directory = small
  config, tensors = interop.files.read(directory)
  del tensors['transform.bias']
  interop.files.write(tmp_path, config, tensors)
  with pytest.raises(interop.PretrainedError, match='missing: transform.bias'):
    interop.load_pretrained(tmp_path)
  interop.files.write(tmp_path, {**config, 'activation': 'ReLU'}, tensors)
  with pytest.raises(interop.PretrainedError, match="'ReLU': expected one of"):
    interop.load_pretrained(tmp_path)


@pytest.mark.slow
def test_full_size(tmp_path):
  samples = 16_001
  reference = Reference(PUBLISHED, x=codec_models.audio(2, 1, samples))
  _check(reference, reference.save(tmp_path), samples)
