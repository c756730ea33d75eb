"""WavTokenizer: the same weights in transformers and here."""

import numpy as np
import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from audiolm_jax import interop  # noqa: E402
from audiolm_jax.interop import base as interop_base  # noqa: E402
from tests import margin_rule  # noqa: E402
from tests.parity import codec_models  # noqa: E402
from tests.parity import compiled  # noqa: E402

pytestmark = pytest.mark.parity

SMALL = {
    'num_filters': 4,
    'upsampling_ratios': [5, 2],
    'hidden_size': 8,
    'codebook_dim': 8,
    'codebook_size': 64,
    'decoder_hidden_size': 12,
    'decoder_intermediate_size': 20,
    'decoder_num_layers': 2,
    'decoder_attention_num_groups': 4,
}


def _model(x=None, **options):
  """transformers' model with moving weights and codebooks of its latents."""
  model = codec_models.randomise(
      transformers.WavTokenizerModel(transformers.WavTokenizerConfig(**options))
  )
  with torch.no_grad():
    for name, value in model.named_parameters():
      # Tables of the norms start as ones and zeros.
      if '.norm.' in name and value.ndim == 2 and len(value) == 4:
        value.add_(0.3 * torch.randn_like(value))
  size = 2 * model.config.codebook_size * model.hop_length
  if x is None:
    x = codec_models.audio(2, 1, min(size, 200_000), seed=3)
  x = x.transpose(0, 2, 1)
  encoder = model.encoder_model
  with torch.no_grad():
    latents = encoder.encoder(torch.from_numpy(x)).transpose(1, 2)
    frames = latents.reshape(-1, latents.shape[-1])
    frames = codec_models.spread_out(encoder.encoder.layers[-1].conv, frames)
    book = encoder.quantizer.codebook
    codec_models.residual_codebooks(frames, [book.embed])
    book.cluster_size.copy_(1 + torch.rand_like(book.cluster_size))
    book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
  return model


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  """(transformers' model, the directory it was saved to)."""
  model = _model(**SMALL)
  directory = tmp_path_factory.mktemp('wavtokenizer')
  model.save_pretrained(directory)
  return model, directory


@torch.no_grad()
def _encode(model, x):
  """transformers' latents [B, F, D] and codes [B, F, 1] of x [B, T, C]."""
  x = torch.from_numpy(x.transpose(0, 2, 1))
  latents = model.encoder_model.encoder(x).transpose(1, 2).numpy()
  return latents, model.encode(x).audio_codes.numpy().transpose(0, 2, 1)


@torch.no_grad()
def _decode(model, codes):
  codes = torch.from_numpy(codes.transpose(0, 2, 1))
  return model.decode(codes).audio_values.numpy().transpose(0, 2, 1)


def _check(model, directory, num_samples, weight_norm=False):
  """A padded batch against transformers' rows one by one."""
  codec, variables = interop.load_pretrained(directory, weight_norm=weight_norm)
  interop_base.check_complete(interop.FAMILIES['wavtokenizer'], codec)
  num_samples = np.array(num_samples)
  x = codec_models.audio(len(num_samples), 1, num_samples.max())
  rows = [_encode(model, x[i : i + 1, :n]) for i, n in enumerate(num_samples)]
  x[np.arange(x.shape[1]) >= num_samples[:, None]] = np.nan
  codes = np.zeros(
      (len(rows), codec.spec.frames(num_samples.max()), 1), np.int32
  )
  for i, (_, row) in enumerate(rows):
    codes[i, : row.shape[1]] = row[0]
  codec_models.used(rows[0][1], model.config.codebook_size)
  found = compiled.outputs(codec)(variables, x, num_samples, codes)
  np.testing.assert_array_equal(found['num_samples'], num_samples)
  for i, (latents, row) in enumerate(rows):
    frames, size = row.shape[1], num_samples[i]
    codec_models.close(found['latents'][i, :frames], latents[0])
    decoded = _decode(model, row)[0]
    codec_models.close(found['decoded'][i, :size], decoded[:size])
  mask = np.arange(codes.shape[1]) < codec.spec.frames(num_samples)[:, None]
  margin_rule.assert_same_codes(
      np.asarray(found['codes'])[mask],
      codes[mask],
      np.asarray(found['margins'])[mask],
  )


@pytest.mark.parametrize('weight_norm', [False, True])
def test_codes_and_audio_are_those_of_transformers(small, weight_norm):
  _check(*small, [2603, 331, 40, 11, 10, 9, 1], weight_norm)


def test_saved_weights_load_in_transformers(small, tmp_path):
  model, directory = small
  for weight_norm in (False, True):
    codec, variables = interop.load_pretrained(
        directory, weight_norm=weight_norm
    )
    interop.save_pretrained(tmp_path, codec, variables, 'wavtokenizer')
    again = transformers.WavTokenizerModel.from_pretrained(tmp_path)
    x = codec_models.audio(1, 1, 400)
    latents, codes = _encode(model, x)
    codec_models.close(_encode(again, x)[0], latents)
    codec_models.close(_decode(again, codes), _decode(model, codes))
    for name, value in model.state_dict().items():
      if 'quantizer' in name or '.norm.' in name:
        np.testing.assert_array_equal(again.state_dict()[name], value, name)


def test_exchanging_two_weights_shows(small):
  model, directory = small
  codec, _ = interop.load_pretrained(directory)
  x = codec_models.audio(1, 1, 200)
  codec_models.assert_permutations_show(
      directory,
      compiled.arrays(codec, x, _encode(model, x)[1]),
      additive=[('bias_ih', 'bias_hh'), ('block.3', 'shortcut')],
  )


@pytest.mark.slow
def test_full_size(tmp_path):
  num_samples = [48_001, 24_000]
  model = _model(codec_models.audio(2, 1, max(num_samples)))
  model.save_pretrained(tmp_path)
  _check(model, tmp_path, num_samples)
