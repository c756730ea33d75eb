"""Phones can be recognised across pools: a linear reader of log-mel frames."""

import numpy as np

from audiolm_jax.data.speech_world import clips as clips_lib
from audiolm_jax.data.speech_world import phones as phones_lib

_BANDS = 32


def _mel() -> np.ndarray:
  """[257, 32] triangles on the mel scale."""
  edges = 2595 * np.log10(1 + np.array([60.0, 8000.0]) / 700)
  f = 700 * (10 ** (np.linspace(*edges, _BANDS + 2) / 2595) - 1)
  bins = np.arange(257)[:, None] * 16000 / 512
  rise = (bins - f[:-2]) / (f[1:-1] - f[:-2])
  fall = (f[2:] - bins) / (f[2:] - f[1:-1])
  return np.maximum(0, np.minimum(rise, fall))


def _frames(world, indices):
  """Features [F, D] and phones [F] of the steps of 10 ms of some clips."""
  features, labels = [], []
  for i in indices:
    clip = clips_lib.clip(world, i)
    u = clip.utterance
    audio = np.pad(clip.audio(), (160, 512))
    starts = np.arange(u.ends[-1]) * 160
    x = np.stack([audio[s : s + 400] for s in starts]) * np.hanning(400)
    mel = np.log(np.abs(np.fft.rfft(x, 512)) ** 2 @ _mel() + 1e-6)
    mel -= mel.mean()
    wide = np.pad(mel, ((4, 4), (0, 0)), 'edge')
    n = len(mel)
    features.append(
        np.concatenate([wide[k : k + n] for k in range(0, 9, 2)], axis=1)
    )
    steps = np.diff((0, *u.ends))
    labels.append(
        np.repeat([phones_lib.PHONES.index(p) for p in u.phones], steps)
    )
  return np.concatenate(features), np.concatenate(labels)


def test_a_reader_of_pool_one_reads_pool_three():
  x, y = _frames(clips_lib.World('sentences', 'tokenizer'), range(120))
  other, truth = _frames(clips_lib.World('sentences', 'held_out'), range(30))
  mean, spread = x.mean(0), x.std(0)
  rng = np.random.default_rng(0)
  projection = rng.standard_normal((x.shape[1], 600)) / np.sqrt(x.shape[1])
  offset = rng.uniform(0, 2 * np.pi, 600)

  def lifted(features):
    z = (features - mean) / spread
    return np.concatenate(
        [np.cos(z @ projection + offset), z, np.ones((len(z), 1))], axis=1
    )

  a = lifted(x)
  targets = np.eye(len(phones_lib.PHONES))[y]
  weights = np.linalg.solve(a.T @ a + 3 * np.eye(a.shape[1]), a.T @ targets)
  read = (lifted(other) @ weights).argmax(1)
  speech = truth != phones_lib.PHONES.index(phones_lib.SILENCE)
  accuracy = (read == truth)[speech].mean()
  chance = np.bincount(truth[speech]).max() / speech.sum()
  print(f'frames: {accuracy:.3f}, the commonest phone {chance:.3f}')
  assert accuracy > 0.6 > 4 * chance
