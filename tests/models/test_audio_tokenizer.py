"""Tokenizers bound to variables share what is compiled, and nothing else."""

import dataclasses

import jax
import numpy as np

from audiolm_jax.models import audio_tokenizer
from audiolm_jax.tokenizers import codec as codec_lib
from tests.tokenizers import tiny

_TRACED = []


@dataclasses.dataclass(frozen=True)
class _Counted(codec_lib.Codec):
  """Notes each time that it is traced."""

  def encode(self, *inputs):
    _TRACED.append('encode')
    return super().encode(*inputs)

  def decode(self, *inputs):
    _TRACED.append('decode')
    return super().decode(*inputs)


def _made():
  module, variables = tiny.codec('state')
  fields = {f.name: getattr(module, f.name) for f in dataclasses.fields(module)}
  return _Counted(**fields), variables


def test_the_next_variables_are_bound_without_compiling():
  _TRACED.clear()
  (module, variables), (again, _) = _made(), _made()
  moved = jax.tree.map(lambda x: (1.5 * x).astype(x.dtype), variables)
  audio = np.sin(np.arange(800, dtype=np.float32))
  first = audio_tokenizer.AudioTokenizer(module, variables)
  second = audio_tokenizer.AudioTokenizer(again, moved)
  tokens = [bound.encode(audio) for bound in (first, second, first)]
  sounds = [first.decode(tokens[0])[0], second.decode(tokens[0])[0]]
  assert _TRACED == ['encode', 'decode']
  np.testing.assert_array_equal(tokens[0].codes, tokens[2].codes)
  expected = module.encode(
      moved, audio[None, :, None], np.array([800], np.int32)
  )
  np.testing.assert_array_equal(tokens[1].codes, expected.codes)
  assert np.abs(sounds[0] - sounds[1]).max() > 1e-3


def test_another_tokenizer_is_compiled_for_itself():
  module, variables = _made()
  short = dataclasses.replace(module, sample_rate=2 * tiny.RATE)
  audio = np.zeros(320, np.float32)
  for each in (module, short):
    _TRACED.clear()
    audio_tokenizer.AudioTokenizer(each, variables).encode(audio)
    assert _TRACED == ['encode']
