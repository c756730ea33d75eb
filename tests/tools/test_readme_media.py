"""tools/readme_media.py: which sounds it takes, and how it says what is missing."""

import io
import json

import numpy as np
import pytest
import soundfile

from audiolm_jax.comparison import drawing
from tests import tool_module


def _block(*frequencies):
  times = np.arange(16_000) / 16_000
  clips = [
      {'audio': drawing.audio_uri(np.sin(2 * np.pi * f * times) / 2, 16_000)}
      for f in frequencies
  ]
  return {'kind': 'audio', 'clips': clips}


def _report(*titles):
  return {
      'sections': [
          {'title': title, 'blocks': [{'kind': 'table'}, _block(*pitches)]}
          for title, pitches in zip(titles, [(250, 500), (1000,)], strict=True)
      ]
  }


def test_the_sounds_are_the_first_of_the_codec_and_of_the_model():
  tool = tool_module.load('readme_media')
  found = tool.sounds(
      _report('Listen: the codec', 'Listen: the language model')
  )
  pitches = {}
  for name, data in found.items():
    samples, rate = soundfile.read(io.BytesIO(data))
    spectrum = np.abs(np.fft.rfft(samples[: rate // 2]))
    pitches[name] = 2 * int(spectrum.argmax())
  assert pitches == {
      'original.ogg': 250,
      'codec.ogg': 500,
      'continuation.ogg': 1000,
  }


def test_what_is_missing_is_named(tmp_path):
  tool = tool_module.load('readme_media')
  options = [f'--workdir={tmp_path}', f'--out={tmp_path / "media"}']
  with pytest.raises(SystemExit, match='no .*report.html'):
    tool.main(options)
  (tmp_path / 'report.html').write_text('')
  data = _report('Listen: the codec', 'something else')
  (tmp_path / 'report.json').write_text(json.dumps(data))
  with pytest.raises(SystemExit, match='no sounds of a codec and a model'):
    tool.main(options)
