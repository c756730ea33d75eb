"""gpt-oss: the same weights in transformers and here, dense and MXFP4."""

import json

import jax
import numpy as np
import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from transformers.integrations import mxfp4  # noqa: E402

from audiolm_jax import interop  # noqa: E402
from audiolm_jax.interop import files  # noqa: E402
from audiolm_jax.interop import gpt_oss  # noqa: E402
from audiolm_jax.streaming import testing  # noqa: E402
from tests.parity import codec_models  # noqa: E402
from tests.parity import language_models  # noqa: E402

pytestmark = pytest.mark.parity

_SIZES = {
    'vocab_size': 32,
    'hidden_size': 16,
    'intermediate_size': 24,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'head_dim': 8,
    'num_local_experts': 4,
    'num_experts_per_tok': 2,
    'sliding_window': 4,
    'max_position_embeddings': 96,
    'rms_norm_eps': 0.03,
    # Low enough to be met.
    'swiglu_limit': 1.5,
    'bos_token_id': 3,
    'rope_parameters': {
        'rope_type': 'yarn',
        'rope_theta': 200.0,
        'factor': 4.0,
        'beta_fast': 4.0,
        'beta_slow': 1.0,
        'truncate': False,
        'original_max_position_embeddings': 24,
    },
}


def _pair(directory, **sizes):
  config = transformers.GptOssConfig(**{**_SIZES, **sizes})
  # It takes no SDPA: sinks.
  config._attn_implementation = 'eager'
  model = transformers.GptOssForCausalLM(config)
  return language_models.Pair(language_models.randomise(model), directory)


@pytest.fixture(scope='module', name='pair')
def _small(tmp_path_factory):
  return _pair(tmp_path_factory.mktemp('gpt_oss'))


def test_whole_and_padded_rows(pair):
  language_models.check_whole(pair)


def test_steps_and_chunks_with_a_cache(pair):
  language_models.check_steps(pair)


def test_scores_of_what_follows_the_first_id(pair):
  language_models.check_scores(pair)


def test_greedy_ids(pair):
  language_models.check_greedy(pair)


def test_saved_weights_load_in_transformers(pair, tmp_path):
  language_models.check_saved(pair, tmp_path, 'gpt_oss')


def test_any_two_weights_exchanged_show(pair):
  language_models.check_exchanges(pair)


def test_layers_stacked_give_the_same_logits(pair):
  model, variables = interop.load_pretrained(pair.directory, scan=True)
  ids = pair.ids(1)
  logits = jax.jit(model.logits, compiler_options=testing.quick_options())
  codec_models.close(logits(variables, ids), pair.expected(ids))


def _random_mxfp4(shape, seed=0):
  rng = np.random.default_rng(seed)
  blocks = rng.integers(0, 256, (*shape, 16), np.uint8)
  return blocks, rng.integers(118, 132, shape, np.uint8)


def test_mxfp4_is_dequantised_as_in_transformers():
  blocks, scales = _random_mxfp4((3, 10, 2))
  # All 256 bytes.
  blocks.reshape(-1)[:256] = np.arange(256)
  found = gpt_oss.dequantise(blocks, scales)
  for dtype in (torch.float32, torch.bfloat16):
    expected = mxfp4.convert_moe_packed_tensors(
        torch.from_numpy(blocks), torch.from_numpy(scales), dtype=dtype
    )
    # Four bits and an exponent: bfloat16 holds them exactly.
    np.testing.assert_array_equal(found, expected.float().numpy())


def test_a_file_with_mxfp4_experts(tmp_path):
  """Logits are those of transformers with what it makes of the experts."""
  sizes = {'hidden_size': 32, 'intermediate_size': 32, 'num_hidden_layers': 2}
  pair = _pair(tmp_path, **sizes)
  config, tensors = files.read(tmp_path)
  state = pair.theirs.state_dict()
  for seed, name in enumerate(sorted(tensors)):
    if not name.endswith(('gate_up_proj', 'down_proj')):
      continue
    experts, inputs, outputs = tensors.pop(name).shape
    blocks, scales = _random_mxfp4((experts, outputs, inputs // 32), seed)
    scales -= 4
    tensors |= {f'{name}_blocks': blocks, f'{name}_scales': scales}
    state[name].copy_(
        mxfp4.convert_moe_packed_tensors(
            torch.from_numpy(blocks),
            torch.from_numpy(scales),
            dtype=torch.float32,
        )
    )
  config = {**config, 'quantization_config': {'quant_method': 'mxfp4'}}
  files.write(tmp_path, config, tensors)
  assert json.loads((tmp_path / files.CONFIG).read_text()) == config
  model, variables = interop.load_pretrained(tmp_path)
  assert model == pair.model
  ids = pair.ids()
  found = pair.logits(variables, ids, np.full(3, ids.shape[1]))
  codec_models.close(found, pair.expected(ids))


@pytest.mark.slow
def test_mid_size(tmp_path):
  pair = _pair(
      tmp_path,
      vocab_size=2000,
      hidden_size=256,
      intermediate_size=128,
      num_hidden_layers=4,
      num_attention_heads=8,
      num_key_value_heads=2,
      head_dim=32,
      num_local_experts=8,
      num_experts_per_tok=4,
  )
  language_models.check_mid_size(pair, tmp_path / 'again', 'gpt_oss')
