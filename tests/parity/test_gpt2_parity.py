"""GPT-2: the same weights in transformers and here."""

import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from tests.parity import language_models  # noqa: E402

pytestmark = pytest.mark.parity


def _pair(directory, **sizes):
  config = transformers.GPT2Config(
      # What is not the default must be read.
      **{'layer_norm_epsilon': 0.03, 'bos_token_id': 3, **sizes}
  )
  model = transformers.GPT2LMHeadModel(config)
  return language_models.Pair(language_models.randomise(model), directory)


@pytest.fixture(scope='module', name='pair')
def _small(tmp_path_factory):
  return _pair(
      tmp_path_factory.mktemp('gpt2'),
      vocab_size=32,
      n_embd=16,
      n_layer=2,
      n_head=2,
      n_inner=24,
      n_positions=80,
  )


def test_whole_and_padded_rows(pair):
  language_models.check_whole(pair)


def test_steps_and_chunks_with_a_cache(pair):
  language_models.check_steps(pair)


def test_scores_of_what_follows_the_first_id(pair):
  language_models.check_scores(pair)


def test_greedy_ids(pair):
  language_models.check_greedy(pair)


def test_ends(pair):
  language_models.check_ends(pair)


def test_saved_weights_load_in_transformers(pair, tmp_path):
  language_models.check_saved(pair, tmp_path, 'gpt2')


def test_any_two_weights_exchanged_show(pair):
  # Without rotation a key's bias is the same for all keys of a query.
  language_models.check_exchanges(pair, free='key_bias')


@pytest.mark.slow
def test_mid_size(tmp_path):
  pair = _pair(
      tmp_path,
      vocab_size=5000,
      n_embd=256,
      n_layer=6,
      n_head=8,
      n_positions=256,
  )
  language_models.check_mid_size(pair, tmp_path / 'again', 'gpt2')
