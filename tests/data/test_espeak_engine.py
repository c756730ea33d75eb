"""All of eSpeak's variants speak alike whatever was spoken before."""

import numpy as np
import pytest

from audiolm_jax.data import espeak_engine


def test_every_variant_is_reproducible_alone():
  variants = espeak_engine.variants()
  assert len(variants) == 104
  text = 'three plus four is seven'
  first = {
      name: espeak_engine.speak_alone(text, f'en+{name}') for name in variants
  }
  assert len({audio.tobytes() for audio, _ in first.values()}) == 104
  for name in np.random.default_rng(0).permutation(variants):
    espeak_engine.speak('something else', f'en+{name}')
    audio, rate = espeak_engine.speak_alone(text, f'en+{name}')
    np.testing.assert_array_equal(audio, first[name][0])
    assert rate == first[name][1] == 22050


def test_an_engine_of_its_own_says_the_same_and_takes_its_arguments():
  """`adam` does not remember, so that both ways agree."""
  text, voice = 'one two', 'en+adam'
  alone, _ = espeak_engine.speak_alone(text, voice, 150, 45)
  shared, _ = espeak_engine.speak(text, voice, 150, 45)
  np.testing.assert_array_equal(alone, shared)
  slower, _ = espeak_engine.speak_alone(text, voice, 100, 45)
  assert len(slower) > 1.2 * len(alone)
  with pytest.raises(espeak_engine.SpeechError, match="no voice 'xx"):
    espeak_engine.speak_alone(text, 'xx-none')
