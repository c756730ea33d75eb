"""Llama, Mistral, Qwen: the same weights in transformers and here."""

import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

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
    'max_position_embeddings': 96,
    'rms_norm_eps': 0.03,
    'bos_token_id': 3,
}
# Each with what its kin lack, and nothing at its default.
_KINDS = {
    'llama': (
        transformers.LlamaConfig,
        transformers.LlamaForCausalLM,
        {
            'attention_bias': True,
            'mlp_bias': True,
            'rope_parameters': {
                'rope_type': 'llama3',
                'rope_theta': 200.0,
                'factor': 8.0,
                'low_freq_factor': 1.0,
                'high_freq_factor': 4.0,
                'original_max_position_embeddings': 24,
            },
        },
    ),
    'mistral': (
        transformers.MistralConfig,
        transformers.MistralForCausalLM,
        {
            'sliding_window': 4,
            'tie_word_embeddings': True,
            'rope_parameters': {'rope_type': 'default', 'rope_theta': 50.0},
        },
    ),
    'qwen2': (
        transformers.Qwen2Config,
        transformers.Qwen2ForCausalLM,
        # Its heads fill the width.
        {'head_dim': 4, 'rope_parameters': {'rope_theta': 50.0}},
    ),
    'qwen3': (
        transformers.Qwen3Config,
        transformers.Qwen3ForCausalLM,
        {
            'use_sliding_window': True,
            'sliding_window': 4,
            'max_window_layers': 1,
            'attention_bias': True,
            'rope_parameters': {
                'rope_type': 'yarn',
                'rope_theta': 200.0,
                'factor': 4.0,
                'original_max_position_embeddings': 24,
            },
        },
    ),
}


def _pair(kind, directory, **sizes):
  config, architecture, options = _KINDS[kind]
  model = architecture(config(**{**_SIZES, **options, **sizes}))
  return language_models.Pair(language_models.randomise(model), directory)


@pytest.fixture(scope='module', name='pair', params=sorted(_KINDS))
def _small(request, tmp_path_factory):
  return _pair(request.param, tmp_path_factory.mktemp(request.param))


def test_whole_and_padded_rows(pair):
  language_models.check_whole(pair)


def test_steps_and_chunks_with_a_cache(pair):
  language_models.check_steps(pair)


def test_scores_of_what_follows_the_first_id(pair):
  language_models.check_scores(pair)


def test_greedy_ids(pair):
  language_models.check_greedy(pair)


def test_saved_weights_load_in_transformers(pair, tmp_path):
  family = pair.theirs.config.model_type
  language_models.check_saved(pair, tmp_path, family)


def test_any_two_weights_exchanged_show(pair):
  language_models.check_exchanges(pair)


@pytest.mark.slow
@pytest.mark.parametrize('kind', sorted(_KINDS))
def test_mid_size(kind, tmp_path):
  pair = _pair(
      kind,
      tmp_path,
      vocab_size=2000,
      hidden_size=256,
      intermediate_size=512,
      num_hidden_layers=4,
      num_attention_heads=8,
      num_key_value_heads=4,
      head_dim=32,
  )
  language_models.check_mid_size(pair, tmp_path / 'again', kind)
