"""Files to files: any rate and channels in, the same length out."""

import os

import jax
import numpy as np
import pytest

from audiolm_jax.tokenizers import encoding
from audiolm_jax.audio import files
from audiolm_jax.audio import resample
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.tokenizers import long
from audiolm_jax.tokenizers import token_files
from audiolm_jax.tokenizers import transcoding
from tests import margin_rule
from tests.tokenizers import contract
from tests.tokenizers import tiny

SETTINGS = long.Settings(block_seconds=13 * tiny.HOP / tiny.RATE)


@pytest.fixture(scope='module')
def codec():
  return audio_tokenizer.AudioTokenizer(*tiny.codec('state'))


@pytest.fixture
def wav(tmp_path):
  """1.31 s of stereo noise at another rate."""
  audio = np.random.default_rng(0).uniform(-0.5, 0.5, (10500, 2))
  files.write(tmp_path / 'x.wav', audio, 8000)
  return tmp_path / 'x.wav'


def test_file_to_file_equals_the_whole(codec, wav, tmp_path):
  out, back = tmp_path / 'x.tokens', tmp_path / 'back.wav'
  report = codec.encode_long(wav, out, SETTINGS, name='runs/x', show=False)
  header, tokens = token_files.read(out)
  audio, rate = files.read(wav)
  audio = resample.resample(resample.remix(audio, 1), rate, tiny.RATE)[None]
  samples = audio.shape[1]
  frames = codec.spec.frames(samples)
  assert report == long.Report(samples, frames)
  assert header == token_files.Header(
      codec.spec, codec.fingerprint(), 'runs/x', codebooks=3
  )
  np.testing.assert_array_equal(tokens.num_samples, [samples])
  expected = codec.encode(audio)
  num_samples = np.array([samples])
  margins = contract.margins_of(
      codec.tokenizer, codec.variables, audio, num_samples
  )
  margin_rule.assert_same_codes(tokens.codes, expected.codes, margins)

  assert codec.decode_long(out, back, SETTINGS, show=False) == report
  sound, rate = files.read(back)
  assert (rate, sound.shape) == (tiny.RATE, (samples, 1))
  whole = codec.decode(tokens)[0][0, :samples]
  np.testing.assert_allclose(sound, np.clip(whole, -1, 1), atol=1e-4)
  assert token_files.announced(out) == (tokens.codes.shape[1], samples)
  assert set(os.listdir(tmp_path)) == {'x.wav', 'x.tokens', 'back.wav'}


def test_channels_apart(codec, wav, tmp_path):
  out, back = tmp_path / 'x.tokens', tmp_path / 'back.flac'
  codec.encode_long(wav, out, SETTINGS, each_channel=True, show=False)
  header, tokens = token_files.read(out)
  assert header.rows == 2 and tokens.codes.shape[0] == 2
  assert (tokens.codes[0] != tokens.codes[1]).any()
  codec.decode_long(out, back, SETTINGS, show=False)
  assert files.read(back)[0].shape[1] == 2


def test_fewer_codebooks(codec, wav, tmp_path):
  out = tmp_path / 'x.tokens'
  settings = long.Settings(SETTINGS.block_seconds, codebooks=1)
  codec.encode_long(wav, out, settings, show=False)
  header, tokens = token_files.read(out)
  assert header.codebooks == 1 and tokens.codes.shape[2] == 1
  codec.decode_long(out, tmp_path / 'x.wav', SETTINGS, show=False)


def test_another_tokenizers_tokens_are_refused(codec, wav, tmp_path):
  out, back = tmp_path / 'x.tokens', tmp_path / 'back.wav'
  codec.encode_long(wav, out, SETTINGS, name='runs/x', show=False)
  moved = jax.tree.map(lambda x: x + 0, codec.variables)
  moved['params']['encoder']['layers_3']['bias'] += 1e-3
  other = audio_tokenizer.AudioTokenizer(codec.tokenizer, moved)
  with pytest.raises(encoding.TokensError, match='runs/x.*another'):
    other.decode_long(out, back, SETTINGS, show=False)
  assert not back.exists()
  other.decode_long(out, back, SETTINGS, force=True, show=False)
  assert back.exists()


def test_damage_on_the_way_leaves_no_file(codec, wav, tmp_path):
  out, back = tmp_path / 'x.tokens', tmp_path / 'back.wav'
  codec.encode_long(wav, out, SETTINGS, show=False)
  out.write_bytes(out.read_bytes()[:-30])
  with pytest.raises(encoding.TokensError, match='truncated'):
    codec.decode_long(out, back, SETTINGS, show=False)
  wav.write_bytes(b'RIFF nonsense')
  with pytest.raises(files.AudioFileError, match='x.wav'):
    codec.encode_long(wav, tmp_path / 'y.tokens', SETTINGS, show=False)
  assert set(os.listdir(tmp_path)) == {'x.wav', 'x.tokens'}


def test_segments_keep_their_gains(wav, tmp_path):
  codec = audio_tokenizer.AudioTokenizer(*tiny.codec('segments'))
  out = tmp_path / 'x.tokens'
  coder = long.Coder(codec.tokenizer, codec.variables, SETTINGS)
  source = transcoding.Source('abc')
  transcoding.encode_file(coder, source, wav, out)
  header, tokens = token_files.read(out)
  assert header.scales and (tokens.scales > 0).all()
  back = tmp_path / 'back.wav'
  transcoding.decode_file(coder, source, out, back)
  sound, _ = files.read(back)
  whole, _ = contract.compiled(codec.tokenizer, 'decode')(
      codec.variables, tokens
  )
  whole = np.asarray(whole)[0, : len(sound)]
  assert len(sound) == tokens.num_samples[0]
  np.testing.assert_allclose(sound, np.clip(whole, -1, 1), atol=1e-4)


def test_choosing_a_bitrate(codec):
  rates = transcoding.bitrates(codec.tokenizer)
  assert rates == {1: 300.0, 2: 600.0, 3: 900.0}
  choose = transcoding.choose_codebooks
  assert choose(codec.tokenizer) is None
  assert choose(codec.tokenizer, kbps=0.6) == 2
  assert choose(codec.tokenizer, kbps=0.89) == 2
  assert choose(codec.tokenizer, kbps=99) == 3
  assert choose(codec.tokenizer, codebooks=1) == 1
  with pytest.raises(transcoding.BitrateError, match=r'3 \(0.9 kbps\)'):
    choose(codec.tokenizer, codebooks=4)
  with pytest.raises(transcoding.BitrateError, match='less than the least'):
    choose(codec.tokenizer, kbps=0.2)
  with pytest.raises(transcoding.BitrateError, match='not both'):
    choose(codec.tokenizer, kbps=1, codebooks=1)
