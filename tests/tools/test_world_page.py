"""The page of speech_world is one file with everything in it."""

import base64
import io
import re

import numpy as np
import soundfile

from audiolm_jax.data.speech_world import clips as clips_lib
from tests import tool_module


def test_it_holds_what_is_heard_and_seen():
  tool = tool_module.load('world_page')
  text = tool.page(('sums',), 'lm', 1, True)
  sounds = re.findall(r'src="data:audio/[a-z]+;base64,([^"]+)"', text)
  assert len(sounds) == 3 == len(re.findall('data:image/png', text))
  assert not re.findall(r'(src|href)="(?!data:)', text)
  clip = clips_lib.clip(clips_lib.World('sums'), 0)
  behind = clips_lib.clip(clips_lib.World('sums', channels=True), 0)
  for sound, each in zip(sounds, (clip, clip.twin(), behind), strict=True):
    audio, rate = soundfile.read(io.BytesIO(base64.b64decode(sound)))
    assert rate == 16000
    np.testing.assert_allclose(audio, each.audio(), atol=1 / 32767)
  assert text.count(f'<b>{clip.text}</b>') == 2
  assert f'<b>{clip.twin().text}</b>' in text
  assert 'channel room' in text
  plain = tool.page(('digits',), 'held_out', 2, False)
  # Digits can't be wrong.
  assert plain.count('data:audio/') == 2 and 'channel room' not in plain
  other = tool.page(('sums',), 'espeak_lm', 1, False)
  assert other.count('data:audio/') == 2 == other.count('data:image/png')
  assert 'pitch_range' in other and 'of pool espeak_lm' in other
