"""The card says what is so."""

import json

import jax
import numpy as np
import pytest
import soundfile

from audiolm_jax.models import loading
from audiolm_jax.audio import files
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import tokenizer_card
from tests import tool_module
from tests.tokenizers import tiny


@pytest.fixture(scope='module')
def codec():
  return audio_tokenizer.AudioTokenizer(*tiny.codec('state'))


def test_the_card(codec):
  made = tokenizer_card.make(codec, 'tiny', seconds=0.5, repeats=2)
  assert json.loads(json.dumps(made)) == made
  assert (made['architecture'], made['quantiser']) == ('CNN', 'RVQ')
  assert made['streamable'] and made['latency_ms'] == 1000 * 32 / 1600
  assert made['frame_rate'] == 100 and made['bits_per_second'] == 900
  assert list(made['bitrates']) == ['1', '2', '3']
  params = codec.variables['params']
  total = sum(x.size for x in jax.tree.leaves(params))
  assert made['parameters']['total'] == total + 3 * 8 * 2
  assert min(made['real_time_factor'].values()) > 0
  text = tokenizer_card.text(made)
  assert '3 codes of 8 a frame' in text and '0.3, 0.6, 0.9' in text
  assert 'yes, 20 ms' in text and 'entropy' not in text


def test_macs_are_those_of_a_second(codec):
  half, whole = (tokenizer_card.macs(codec, seconds) for seconds in (0.5, 2.0))
  for name in half:
    # Edges and whole windows make a small difference.
    assert half[name] == pytest.approx(whole[name], rel=0.1)
  # The last layer alone: 8 channels to 3 x 17 bins, 100 frames a second.
  assert whole['decode'] > 100 * 8 * 3 * 17


def test_entropy_is_that_of_the_codes(codec):
  clip = np.random.default_rng(0).standard_normal((4000, 1)) / 4
  found = tokenizer_card.measured_entropy(codec, [clip.astype(np.float32)] * 2)
  assert found['frames'] == 500
  codes = codec.encode(clip[None]).codes[0]
  for slot in range(3):
    _, counts = np.unique(codes[:, slot], return_counts=True)
    p = counts / counts.sum()
    assert found['bits'][slot] == pytest.approx(-(p * np.log2(p)).sum())
    assert found['used'][slot] == len(counts) / 8
  assert found['bits_per_second'] == pytest.approx(100 * sum(found['bits']))
  assert found['bits_per_second'] <= 900
  assert tokenizer_card.measured_entropy(codec, []) == {}


def test_the_tool(codec, monkeypatch, tmp_path, capsys):
  tool = tool_module.load('tokenizer_card')
  monkeypatch.setattr(loading, 'load_codec', lambda directory: codec)
  audio = np.random.default_rng(0).uniform(-0.5, 0.5, (4000, 2))
  files.write(tmp_path / 'deep/x.wav', audio, 8000)
  arguments = ['there', '--seconds=0.5', '--repeats=1']
  assert tool.main([*arguments, f'--audio={tmp_path}']) == 0
  assert 'over 50 frames' in capsys.readouterr().out
  assert tool.main([*arguments, '--json']) == 0
  assert json.loads(capsys.readouterr().out)['name'] == 'there'
  with pytest.raises(SystemExit, match='absent.wav'):
    tool.main([*arguments, '--audio=absent.wav'])
  bad = np.zeros((4000, 1), np.float32)
  bad[7] = np.nan
  soundfile.write(tmp_path / 'bad.wav', bad, tiny.RATE, subtype='FLOAT')
  (tmp_path / 'empty').mkdir()
  for wrong, message in (
      (f'--audio={tmp_path}/bad.wav', 'bad.wav: .*finite'),
      (f'--audio={tmp_path}/empty', 'holds no audio'),
  ):
    with pytest.raises(SystemExit, match=f'^tokenizer_card: .*{message}'):
      tool.main([*arguments, wrong])
  for wrong in ('--audio=', '--seconds=nan', '--seconds=0', '--repeats=0'):
    with pytest.raises(SystemExit):
      tool.main([*arguments, wrong])
    assert 'expected' in capsys.readouterr().err.splitlines()[-1]
