"""VibeVoice's acoustic tokenizer: the same weights in transformers and here."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from audiolm_jax import interop  # noqa: E402
from audiolm_jax.interop import base as interop_base  # noqa: E402
from audiolm_jax.streaming import testing  # noqa: E402
from audiolm_jax.tokenizers import base as tokenizers_base  # noqa: E402
from audiolm_jax.tokenizers import bottlenecks  # noqa: E402
from tests.interop import tiny_weights  # noqa: E402
from tests.parity import codec_models  # noqa: E402

pytestmark = pytest.mark.parity

_NAME = 'vibevoice_acoustic_tokenizer'
_CONFIG = {
    k: v for k, v in tiny_weights.ALL[_NAME].items() if k != 'model_type'
}
_LENGTHS = np.array([37, 18, 6, 1])
_HOP = 6


class _Case:
  """transformers' model, where it lies, and ours with its variables."""

  def __init__(self, directory):
    config = transformers.VibeVoiceAcousticTokenizerConfig(**_CONFIG)
    self.theirs = transformers.VibeVoiceAcousticTokenizerModel(config)
    generator = torch.Generator().manual_seed(0)
    for name, value in self.theirs.named_parameters():
      noise = torch.randn(value.shape, generator=generator)
      with torch.no_grad():
        if value.ndim > 1:
          # Of outputs about as large as inputs, so that norms' epsilon shows.
          value.copy_(noise * value[0].numel() ** -0.5)
        else:
          value.copy_(0.4 * noise + (0 if name.endswith('bias') else 0.8))
    self.theirs.eval().save_pretrained(directory)
    self.directory = directory
    self.codec, self.variables = interop.load_pretrained(directory)
    interop_base.check_complete(interop.FAMILIES[_NAME], self.codec)
    self.x = codec_models.audio(len(_LENGTHS), 1, 42)
    rng = np.random.default_rng(1)
    self.latents = rng.standard_normal((len(_LENGTHS), 7, 3), np.float32)

  @functools.cached_property
  def run(self):
    """jit(variables) -> (latents, audio of other latents)."""

    @functools.partial(jax.jit, compiler_options=testing.quick_options())
    def run(variables):
      x = jnp.where(
          np.arange(42)[:, None] < _LENGTHS[:, None, None], self.x, np.nan
      )
      found = self.codec.encode(variables, x, _LENGTHS).latents
      tokens = tokenizers_base.Tokens(
          num_samples=_LENGTHS, latents=self.latents
      )
      return found, self.codec.decode(variables, tokens)[0]

    return run

  def encoded(self, row):
    length = _LENGTHS[row]
    x = np.zeros((1, 1, -(-length // _HOP) * _HOP), np.float32)
    x[0, 0, :length] = self.x[row, :length, 0]
    with torch.no_grad():
      return self.theirs.encode(torch.from_numpy(x), sample=False).latents[0]

  def decoded(self, row):
    length = _LENGTHS[row]
    latents = self.latents[row : row + 1, : -(-length // _HOP)]
    with torch.no_grad():
      audio = self.theirs.decode(torch.from_numpy(latents)).audio
    return audio[0, 0, :length, None]


@pytest.fixture(scope='module', name='case')
def _case(tmp_path_factory):
  return _Case(tmp_path_factory.mktemp('vibevoice'))


def test_rows_are_those_of_the_original_alone(case):
  latents, audio = case.run(case.variables)
  for row, length in enumerate(_LENGTHS):
    expected = case.encoded(row)
    codec_models.close(latents[row, : len(expected)], expected)
    codec_models.close(audio[row, :length], case.decoded(row))


def test_steps_are_the_whole(case):
  """A frame at a time, against the original's whole row."""
  codec, variables = case.codec, case.variables
  quick = testing.quick_options()
  encode = jax.jit(codec.encode_step, compiler_options=quick)
  decode = jax.jit(codec.decode_step, compiler_options=quick)
  states = codec.initial_state(1)
  frames, audio = [], []
  exists, sounds = np.ones((1, _HOP), bool), np.ones((1, 1), bool)
  for i in range(6):
    x = case.x[:1, i * _HOP : (i + 1) * _HOP]
    z, _, states['encode'] = encode(variables, x, exists, states['encode'])
    latents = case.latents[:1, i : i + 1]
    y, _, states['decode'] = decode(
        variables, latents, sounds, states['decode']
    )
    frames.append(z)
    audio.append(y)
  codec_models.close(np.concatenate(frames, axis=1)[0], case.encoded(0)[:6])
  codec_models.close(np.concatenate(audio, axis=1)[0], case.decoded(0)[:36])


def test_any_two_weights_exchanged_show(case):
  codec_models.assert_permutations_show(case.directory, case.run)


def test_what_is_saved_is_loaded_by_both(case, tmp_path):
  interop.save_pretrained(tmp_path, case.codec, case.variables, _NAME)
  again = type(case.theirs).from_pretrained(tmp_path)
  wanted = case.theirs.state_dict()
  assert set(again.state_dict()) == set(wanted)
  for name, value in again.state_dict().items():
    np.testing.assert_array_equal(value, wanted[name], err_msg=name)
  for key, value in _CONFIG.items():
    found = getattr(again.config, key)
    assert (list(found) if isinstance(value, list) else found) == value, key
  assert interop.load_pretrained(tmp_path)[0] == case.codec


def test_noise_is_of_the_config(case):
  bottleneck = case.codec.bottleneck
  assert bottleneck == bottlenecks.SigmaVae(
      dimension=3, project=False, std=0.25
  )
  assert bottleneck.random_scale
