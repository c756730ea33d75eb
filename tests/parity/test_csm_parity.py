"""CSM: the same weights in transformers and here."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from audiolm_jax import generation  # noqa: E402
from audiolm_jax import interop  # noqa: E402
from audiolm_jax.interop import base as interop_base  # noqa: E402
from audiolm_jax.streaming import testing  # noqa: E402
from tests.parity import codec_models  # noqa: E402
from tests.parity import language_models  # noqa: E402

pytestmark = pytest.mark.parity

_ROPE = {
    'rope_type': 'llama3',
    'rope_theta': 200.0,
    'factor': 8.0,
    'low_freq_factor': 1.0,
    'high_freq_factor': 4.0,
    'original_max_position_embeddings': 24,
}
_DEPTH = {
    'num_codebooks': 4,
    'backbone_hidden_size': 16,
    'vocab_size': 11,
    'hidden_size': 12,
    'intermediate_size': 20,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'num_key_value_heads': 1,
    'rms_norm_eps': 0.05,
    'max_position_embeddings': 5,
    'rope_parameters': {'rope_type': 'default', 'rope_theta': 20.0},
}
_SIZES = {
    'num_codebooks': 4,
    'vocab_size': 11,
    'text_vocab_size': 30,
    'hidden_size': 16,
    'intermediate_size': 24,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'head_dim': 8,
    'rms_norm_eps': 0.03,
    'max_position_embeddings': 64,
    'rope_parameters': _ROPE,
    'bos_token_id': 3,
    'pad_token_id': 0,
    'audio_token_id': 28,
    'audio_eos_token_id': 29,
    'codebook_pad_token_id': 9,
}
# Texts with the id that all begin with, and frames.
_TEXT_LENGTHS, _LENGTHS = np.array([6, 3]), np.array([4, 5])


@pytest.fixture(scope='module', name='small')
def _small(tmp_path_factory):
  """(transformers' model, where it lies, ours, its variables)."""
  config = transformers.CsmConfig(
      **_SIZES,
      depth_decoder_config=transformers.CsmDepthDecoderConfig(**_DEPTH),
      codec_config=transformers.MimiConfig(**codec_models.TINY_MIMI),
  )
  theirs = transformers.CsmForConditionalGeneration(config)
  codec_models.randomise(theirs.codec_model)
  codec = {k: v.clone() for k, v in theirs.codec_model.state_dict().items()}
  language_models.randomise(theirs)
  theirs.codec_model.load_state_dict(codec)
  directory = tmp_path_factory.mktemp('csm')
  theirs.save_pretrained(directory)
  return theirs, directory, *interop.load_pretrained(directory)


@pytest.fixture(scope='module', name='score')
def _score(small):
  text, codes = _inputs()

  def run(variables):
    inputs = text, _TEXT_LENGTHS, codes, _LENGTHS
    return small[2].score(variables, *inputs)['audio'].log_prob

  return jax.jit(run, compiler_options=testing.quick_options())


def _inputs():
  rng = np.random.default_rng(0)
  text = rng.integers(0, 28, (2, _TEXT_LENGTHS.max()), np.int32)
  text[:, 0] = 3
  return text, rng.integers(0, 11, (2, _LENGTHS.max(), 4), np.int32)


def _logits(theirs, text, codes):
  """[F, K, V] of one row."""
  text, codes = (torch.from_numpy(x).long() for x in (text, codes))
  with torch.no_grad():
    frames = theirs.backbone_model.embed_tokens(codes[None])
    inputs = torch.cat([theirs.embed_text_tokens(text[None]), frames], dim=1)
    states = theirs.backbone_model(inputs_embeds=inputs).last_hidden_state[0]
    states = states[len(text) - 1 : -1]
    first = theirs.lm_head(states)
    # The state stands in the place of the first.
    ids = torch.nn.functional.pad(codes[:, :-1], (1, 0))
    rest = theirs.depth_decoder(
        input_ids=ids, backbone_last_hidden_state=states
    ).logits
    return torch.cat([first[:, None], rest], dim=1).numpy()


def _expected(theirs, text, codes):
  """Log-probabilities [F, K] of one row."""
  logits = torch.from_numpy(_logits(theirs, text, codes)).log_softmax(-1)
  codes = torch.from_numpy(codes).long()
  return logits.gather(-1, codes[..., None])[..., 0].numpy()


def test_logits_of_frames_after_a_text(small):
  text, codes = _inputs()
  run = jax.jit(small[2].logits, compiler_options=testing.quick_options())
  found = run(small[3], text, _TEXT_LENGTHS, codes, _LENGTHS)
  for row, (words, frames) in enumerate(
      zip(_TEXT_LENGTHS, _LENGTHS, strict=True)
  ):
    wanted = _logits(small[0], text[row, :words], codes[row, :frames])
    assert found.shape[2:] == wanted.shape[1:]
    codec_models.close(found[row, :frames], wanted)


def test_scores_of_frames_after_a_text(small, score):
  text, codes = _inputs()
  found = np.asarray(score(small[3]))
  for row, (words, frames) in enumerate(
      zip(_TEXT_LENGTHS, _LENGTHS, strict=True)
  ):
    expected = _expected(small[0], text[row, :words], codes[row, :frames])
    codec_models.close(found[row, :frames], expected)
    assert not found[row, frames:].any()


def test_greedy_frames(small):
  """Texts whole, as transformers' generation takes them."""
  theirs, _, model, variables = small
  text, frames = _inputs()[0], 5
  expected = np.zeros((2, frames, 4), np.int32)
  for row, words in enumerate(_TEXT_LENGTHS):
    ids = torch.from_numpy(text[row : row + 1, :words]).long()
    with torch.no_grad():
      expected[row] = theirs.generate(
          input_ids=ids,
          attention_mask=torch.ones_like(ids),
          do_sample=False,
          depth_decoder_do_sample=False,
          max_new_tokens=frames,
      )[0]
    top = np.sort(_logits(theirs, text[row, :words], expected[row]), axis=-1)
    assert (top[..., -1] - top[..., -2]).min() > 1e-3
  given = {'text': text[..., None], 'audio': np.zeros_like(expected)}
  known = {'text': given['text'] >= 0, 'audio': given['audio'] > 0}
  num_frames = {'text': _TEXT_LENGTHS, 'audio': np.full(2, frames)}

  @jax.jit(compiler_options=testing.quick_options())
  def run(params):
    sampler = generation.Sampler(temperature=0.0)
    rng = jax.random.key(0)
    return generation.generate(
        model.decoder, params, given, known, num_frames, rng, sampler
    )

  found = run(variables['params']).codes
  np.testing.assert_array_equal(found['audio'], expected)
  assert len(np.unique(expected)) > 4


def test_every_leaf_has_one_name(small):
  interop_base.check_complete(interop.FAMILIES['csm'], small[2])


def test_saved_weights_load_in_transformers(small, tmp_path):
  theirs, _, model, variables = small
  interop.save_pretrained(tmp_path, model, variables, 'csm')
  again = transformers.CsmForConditionalGeneration.from_pretrained(tmp_path)
  wanted = theirs.state_dict()
  assert set(again.state_dict()) == set(wanted)
  for name, value in again.state_dict().items():
    np.testing.assert_allclose(
        value, wanted[name], rtol=1e-6, atol=1e-7, err_msg=name
    )
  params = dict(variables['params'])
  head = dict(params['head'])
  head['embedding'] = {'table': head['embedding']['table'] + 1}
  other = {**variables, 'params': {**params, 'head': head}}
  with pytest.raises(interop.PretrainedError, match='of its own'):
    interop.save_pretrained(tmp_path, model, other, 'csm')


def test_any_two_weights_exchanged_show(small, score):
  variables = {'params': small[3]['params']}
  codec = {'codec': small[3]['codec']}
  language_models.check_exchanged(lambda v: score({**v, **codec}), variables)
