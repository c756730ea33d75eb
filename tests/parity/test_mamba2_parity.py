"""Mamba-2: the same weights in transformers and here."""

import numpy as np
import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from tests.parity import codec_models  # noqa: E402
from tests.parity import language_models  # noqa: E402

pytestmark = pytest.mark.parity


def _pair(directory, **sizes):
  config = transformers.Mamba2Config(
      # What is not the default must be read.
      **{
          'layer_norm_epsilon': 0.03,
          'bos_token_id': 3,
          'conv_kernel': 3,
          'chunk_size': 6,
          **sizes,
      }
  )
  model = transformers.Mamba2ForCausalLM(config)
  return language_models.Pair(language_models.randomise(model), directory)


_SMALL = {
    'vocab_size': 32,
    'hidden_size': 16,
    'num_hidden_layers': 2,
    'num_heads': 8,
    'head_dim': 4,
    'state_size': 6,
    'n_groups': 2,
}


@pytest.fixture(scope='module', name='pair')
def _small(tmp_path_factory):
  return _pair(tmp_path_factory.mktemp('mamba2'), **_SMALL)


def test_whole_and_padded_rows(pair):
  language_models.check_whole(pair)


def test_steps_and_chunks_with_a_cache(pair):
  language_models.check_steps(pair)


def test_scores_of_what_follows_the_first_id(pair):
  language_models.check_scores(pair)


def test_greedy_ids(pair):
  language_models.check_greedy(pair)


def test_saved_weights_load_in_transformers(pair, tmp_path):
  language_models.check_saved(pair, tmp_path, 'mamba2')


def test_any_two_weights_exchanged_show(pair):
  language_models.check_exchanges(pair)


def test_other_options(tmp_path):
  """Biases, tied embeddings, bounded steps, one group."""
  options = {
      'n_groups': 1,
      'use_bias': True,
      'use_conv_bias': False,
      'tie_word_embeddings': True,
      'time_step_limit': (0.3, 0.8),
  }
  pair = _pair(tmp_path, **{**_SMALL, **options})
  mixer = pair.model.backbone.mixers[0]
  assert (mixer.dt_floor, mixer.dt_ceiling) == (0.3, 0.8)
  ids = pair.ids()
  found = pair.logits(pair.variables, ids, np.full(len(ids), ids.shape[1]))
  codec_models.close(found, pair.expected(ids))
  language_models.check_saved(pair, tmp_path / 'again', 'mamba2')


@pytest.mark.slow
def test_mid_size(tmp_path):
  pair = _pair(
      tmp_path,
      vocab_size=5000,
      hidden_size=256,
      num_hidden_layers=6,
      num_heads=8,
      head_dim=64,
      state_size=64,
      n_groups=1,
      chunk_size=64,
  )
  language_models.check_mid_size(pair, tmp_path / 'again', 'mamba2')
