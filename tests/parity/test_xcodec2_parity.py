"""X-Codec-2: the same weights in transformers and here.

transformers' feature extractor needs torchaudio; SeamlessM4T's, which the
authors used, gives the same features in numpy.
"""

import numpy as np
import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from audiolm_jax import interop  # noqa: E402
from audiolm_jax.interop import base as interop_base  # noqa: E402
from audiolm_jax.tokenizers.parts import conformer  # noqa: E402
from tests import margin_rule  # noqa: E402
from tests.parity import codec_models  # noqa: E402
from tests.parity import compiled  # noqa: E402

pytestmark = pytest.mark.parity

HOP = 320
SMALL = {
    'encoder_hidden_size': 2,
    # An odd stride among them.
    'downsampling_ratios': [64, 5],
    # Two channels in each of the norms' groups: of one, no bias would show.
    'hidden_size': 64,
    'intermediate_size': 24,
    'num_hidden_layers': 1,
    'num_attention_heads': 4,
    'num_key_value_heads': 4,
    'head_dim': 6,
    'quantization_dim': 64 + 12,
    'semantic_model_config': {
        'model_type': 'wav2vec2-bert',
        'num_hidden_layers': 2,
        'hidden_size': 12,
        'num_attention_heads': 2,
        'intermediate_size': 20,
        'conv_depthwise_kernel_size': 5,
        'left_max_position_embeddings': 6,
        'right_max_position_embeddings': 3,
    },
}


@torch.no_grad()
def _model(**options):
  """transformers' model with weights under which every frame has its code."""
  torch.manual_seed(0)
  model = transformers.Xcodec2Model(transformers.Xcodec2Config(**options))
  for name, value in model.named_parameters():
    if name.endswith(('alpha', 'beta')):
      value.normal_(0, 0.3)
    elif value.ndim > 1:
      value.normal_(0, (value.numel() / len(value)) ** -0.5)
    else:
      value.add_(0.1 * torch.randn_like(value))
  model.eval()
  # Each latent dimension is to use its whole grid.
  x = codec_models.audio(1, 1, 200 * HOP, seed=3)
  inputs = []
  hook = model.quantizer.project_in.register_forward_pre_hook(
      lambda module, given: inputs.append(given[0])
  )
  _encode(model, x)
  hook.remove()
  project = model.quantizer.project_in
  latents = project(inputs[0]).reshape(-1, project.out_features)
  scale = 1.2 / latents.std(0)
  project.weight.mul_(scale[:, None])
  project.bias.copy_((project.bias - latents.mean(0)) * scale)
  return model


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  """(transformers' model, the directory it was saved to)."""
  model = _model(**SMALL)
  directory = tmp_path_factory.mktemp('xcodec2')
  model.save_pretrained(directory)
  return model, directory


def _features(x):
  """[1, F, 160] of x [1, T, 1], T whole hops."""
  extractor = transformers.SeamlessM4TFeatureExtractor()
  padded = np.pad(x[0, :, 0], (HOP // 2, HOP // 2))
  found = extractor(padded, sampling_rate=16000, return_tensors='np')
  return found['input_features'].astype(np.float32)


@torch.no_grad()
def _encode(model, x):
  """Codes [1, F, 1] and latents [1, F, D] of x [1, T, 1], zeros appended."""
  x = np.pad(x, ((0, 0), (0, -x.shape[1] % HOP), (0, 0)))
  found = model.encode(
      torch.from_numpy(x.transpose(0, 2, 1)),
      torch.from_numpy(_features(x)),
      output_latents=True,
  )
  return (
      found.audio_codes.numpy().transpose(0, 2, 1),
      found.latents.numpy().transpose(0, 2, 1),
  )


@torch.no_grad()
def _decode(model, codes):
  codes = torch.from_numpy(codes.transpose(0, 2, 1))
  return model.decode(codes).audio_values.numpy().transpose(0, 2, 1)


def _bounded(model):
  """Keeps what the quantiser's first bound gives: what ours calls latents."""
  kept = []
  quantizer = model.quantizer.quantizer
  return kept, quantizer.register_forward_pre_hook(
      lambda module, given: kept.append(given[0].numpy())
  )


def _check(model, directory, num_samples, weight_norm=False):
  """A padded batch against transformers' rows one by one."""
  codec, variables = interop.load_pretrained(directory, weight_norm=weight_norm)
  interop_base.check_complete(interop.FAMILIES['xcodec2'], codec)
  num_samples = np.array(num_samples)
  x = codec_models.audio(len(num_samples), 1, num_samples.max())
  latents, hook = _bounded(model)
  rows = [_encode(model, x[i : i + 1, :n]) for i, n in enumerate(num_samples)]
  hook.remove()
  x[np.arange(x.shape[1]) >= num_samples[:, None]] = np.nan
  codes = np.zeros(
      (len(rows), codec.spec.frames(num_samples.max()), 1), np.int32
  )
  for i, (row, _) in enumerate(rows):
    codes[i, : row.shape[1]] = row[0]
  codec_models.used(rows[0][0], 65536)
  found = compiled.outputs(codec)(variables, x, num_samples, codes)
  np.testing.assert_array_equal(found['num_samples'], num_samples)
  mask = np.arange(codes.shape[1]) < codec.spec.frames(num_samples)[:, None]
  for i, (row, _) in enumerate(rows):
    frames, size = row.shape[1], num_samples[i]
    assert frames == mask[i].sum()
    codec_models.close(found['latents'][i, :frames], latents[i][0])
    decoded = _decode(model, row)[0]
    codec_models.close(found['decoded'][i, :size], decoded[:size])
  margin_rule.assert_same_codes(
      np.asarray(found['codes'])[mask],
      codes[mask],
      np.asarray(found['margins'])[mask],
  )


@pytest.mark.parametrize('weight_norm', [False, True])
def test_codes_and_audio_are_those_of_transformers(small, weight_norm):
  _check(*small, [40 * HOP, 12 * HOP + 1, 3 * HOP - 1, 2 * HOP], weight_norm)


def test_features_are_those_of_seamless():
  num_samples = np.array([23, 7, 2]) * HOP
  x = codec_models.audio(3, 1, num_samples.max())
  expected = [_features(x[i : i + 1, :n]) for i, n in enumerate(num_samples)]
  mask = np.arange(x.shape[1]) < num_samples[:, None]
  x[~mask] = np.nan
  found, _ = conformer.KaldiFeatures().apply({}, x, mask)
  for row, one in zip(found, expected, strict=True):
    codec_models.close(row[: one.shape[1]], one[0])


def test_saved_weights_load_in_transformers(small, tmp_path):
  model, directory = small
  x = codec_models.audio(1, 1, 9 * HOP)
  codes, latents = _encode(model, x)
  for weight_norm in (False, True):
    codec, variables = interop.load_pretrained(
        directory, weight_norm=weight_norm
    )
    interop.save_pretrained(tmp_path, codec, variables, 'xcodec2')
    again, problems = transformers.Xcodec2Model.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(problems.values()), problems
    codec_models.close(_encode(again, x)[1], latents)
    codec_models.close(_decode(again, codes), _decode(model, codes))


def test_exchanging_two_weights_shows(small):
  model, directory = small
  codec, _ = interop.load_pretrained(directory)
  x = codec_models.audio(1, 1, 9 * HOP)
  # A bias of the keys moves all scores of a query alike: it has no effect.
  nothing = [rf'layers\.{i}\.self_attn\.linear_k\.bias' for i in (0, 1)]
  codec_models.assert_permutations_show(
      directory,
      compiled.arrays(codec, x, _encode(model, x)[0]),
      additive=[nothing],
  )


def test_what_is_not_supported_is_named(small, tmp_path):
  config, tensors = interop.files.read(small[1])
  semantic = config['semantic_model_config']
  for wrong in (
      {'num_key_value_heads': 2},
      {'semantic_model_config': {**semantic, 'add_adapter': True}},
  ):
    interop.files.write(tmp_path, {**config, **wrong}, tensors)
    with pytest.raises(interop.PretrainedError, match='not supported'):
      interop.load_pretrained(tmp_path)


@pytest.mark.slow
def test_full_size(tmp_path):
  model = _model()
  model.save_pretrained(tmp_path)
  _check(model, tmp_path, [2 * 16000 + 7, 16000])
