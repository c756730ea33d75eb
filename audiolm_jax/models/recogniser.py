"""A recogniser of phones: fixed spectra, convolutions, CTC.

Small enough to train in minutes on two cores. It looks a third of a second to
either side and has no model of words, so what it writes is what it heard.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax.audio import checks
from audiolm_jax.data import pipeline
from audiolm_jax.data.speech_world import phones as phones_lib
from audiolm_jax.models import front_ends
from audiolm_jax.ops import sharding
from audiolm_jax.streaming import base as streaming_base
from audiolm_jax.streaming import layers as streaming_layers
from audiolm_jax.streaming import norms

BLANK = 0  # The output that stands for no symbol.
# Rows are padded to one of few lengths, two in each octave, from here on.
_SHORTEST = 16000


class Recogniser(nn.Module):
  """Audio to logits of symbols, and of none of them, frame by frame.

  A frame is two of the front end's. Padding changes nothing.

  Attributes:
    symbols: what the outputs 1, 2, ... stand for; 0 is the blank of CTC.
    front_end: the features that it reads.
    sample_rate: of the audio, in Hz.
    width: of all layers.
    blocks: residual convolutions.
    kernel: taps of each; of every other block they lie two frames apart.
    dropout: of what each block adds, where there is an rng stream 'dropout'.
  """

  symbols: tuple[str, ...] = phones_lib.PHONES[1:]  # All but silence.
  front_end: Annotated[Any, config.Kind(lambda: front_ends.FRONT_ENDS)] = (
      front_ends.LogMel()
  )
  sample_rate: config.Positive = 16000
  width: config.Positive = 160
  blocks: config.Positive = 6
  kernel: Annotated[int, config.Range(min=3)] = 5
  dropout: Annotated[float, config.Range(min=0, max=0.95)] = 0.1

  @nn.nowrap
  def num_frames(self, num_samples: Int[Array, '*s']) -> Int[Array, '*s']:
    """Frames of so many samples."""
    return -(-self.front_end.num_frames(num_samples) // 2)

  @nn.compact
  def __call__(
      self, audio: Float[Array, 'B T 1'], num_samples: Int[Array, 'B']
  ) -> tuple[Float[Array, 'B F V'], Int[Array, 'B']]:
    """Logits, unspecified past a row's end, and the frames of each row.

    Args:
      audio: in [-1, 1]; anything past a row's end.
      num_samples: lengths of the rows.
    """
    x, lengths = self.front_end(audio, num_samples, self.sample_rate)
    x = sharding.constrain(x, ('batch',))
    mask = streaming_base.length_mask(lengths, x.shape[1])
    first = streaming_layers.Conv(
        self.width, 5, stride=2, lookahead=2, name='first'
    )
    x, mask = first(x, mask)
    for i in range(self.blocks):
      x = self._block(i, x, mask)
    x, _ = norms.RmsNorm(name='norm')(x, mask)
    outputs = streaming_layers.Dense(len(self.symbols) + 1, name='output')
    return outputs(x, mask)[0], self.num_frames(num_samples)

  def _block(self, i, x, mask):
    spacing = 1 + i % 2
    y, _ = norms.RmsNorm(name=f'norm_{i}')(x, mask)
    conv = streaming_layers.Conv(
        self.width,
        self.kernel,
        dilation=spacing,
        lookahead=self.kernel // 2 * spacing,
        name=f'conv_{i}',
    )
    y = jax.nn.relu(conv(y, mask)[0])
    y, _ = streaming_layers.Dense(self.width, name=f'dense_{i}')(y, mask)
    if self.dropout:
      still = not self.has_rng('dropout')
      y = nn.Dropout(self.dropout, deterministic=still)(y)
    return x + y

  def fresh(self, rng: Array) -> dict[str, Any]:
    """Variables {'params', 'state'} at the start of training."""
    audio = jnp.zeros((1, 4 * self.front_end.size, 1))
    length = jnp.full(1, audio.shape[1], jnp.int32)
    return {'params': self.init(rng, audio, length)['params'], 'state': {}}


def greedy(
    logits: Float[np.ndarray, 'B F V'], num_frames: Int[np.ndarray, 'B']
) -> list[list[int]]:
  """The best output of each frame, repeats merged, blanks left out.

  Returns:
    For each row, outputs from 1 on.
  """
  best = np.argmax(logits, axis=-1)
  rows = []
  for row, length in zip(best, num_frames, strict=True):
    row = row[:length]
    changes = np.diff(row, prepend=BLANK) != 0
    rows.append([int(k) for k in row[changes] if k != BLANK])
  return rows


@functools.partial(jax.jit, static_argnames='module')
def _logits(module, params, audio, num_samples):
  """`module` without dropout; each process gets all rows."""
  return sharding.whole(module.apply({'params': params}, audio, num_samples))


@functools.partial(jax.jit, static_argnames='module')
def _states(module, params, audio, num_samples):
  """What the outputs of `module` read; each process gets all rows."""
  _, captured = module.apply(
      {'params': params},
      audio,
      num_samples,
      capture_intermediates=lambda layer, _: layer.name == 'norm',
      mutable='intermediates',
  )
  ((states, _),) = captured['intermediates']['norm']['__call__']
  return sharding.whole((states, module.num_frames(num_samples)))


@dataclasses.dataclass(frozen=True)
class PhoneRecogniser:
  """A recogniser with its parameters: what `audiolm_jax.load` returns.

  Attributes:
    module: the recogniser.
    params: its parameters.
  """

  module: Recogniser
  params: Any

  @property
  def sample_rate(self) -> int:
    return self.module.sample_rate

  def logits(
      self,
      audio: Float[np.ndarray, 'B T 1'],
      num_samples: Int[np.ndarray, 'B'] | None = None,
  ) -> tuple[Float[np.ndarray, 'B F V'], Int[np.ndarray, 'B']]:
    """Logits of each frame, and how many frames each row has.

    Time is padded to one of few lengths, so that few programs are compiled.

    Args:
      audio: at `sample_rate`, floats in [-1, 1].
      num_samples: of each row; all of T if not given.

    Raises:
      ValueError: for audio of another shape or type, or that is not finite, and
        for lengths beyond it.
    """
    return self._run(_logits, audio, num_samples)

  def _run(self, function, audio, num_samples):
    """What a function gives for each frame of audio, and their numbers."""
    audio = np.asarray(audio)
    if audio.ndim != 3 or audio.shape[2] != 1:
      raise ValueError(f'audio has shape {audio.shape}: expected [B, T, 1]')
    rows, size, _ = audio.shape
    if num_samples is None:
      num_samples = np.full(rows, size)
    num_samples = np.asarray(num_samples, np.int32)
    if (
        num_samples.shape != (rows,)
        or not ((0 <= num_samples) & (num_samples <= size)).all()
    ):
      raise ValueError(
          f'num_samples = {num_samples}: expected {rows} lengths of at most'
          f' {size}'
      )
    for row, length in zip(audio, num_samples, strict=True):
      checks.samples(row[:length], checks.LOUDEST)
    most = max(size, _SHORTEST)
    padded = np.zeros((rows, pipeline.padded(most, _SHORTEST), 1), np.float32)
    padded[:, :size] = audio
    values, lengths = function(self.module, self.params, padded, num_samples)
    frames = int(self.module.num_frames(np.int64(size)))
    return np.asarray(values)[:, :frames], np.asarray(lengths)

  def phones(
      self, clips: Sequence[Float[np.ndarray, ' T']], batch_size: int = 16
  ) -> list[list[str]]:
    """What is heard in each of some clips.

    Args:
      clips: mono, at `sample_rate` (`audio.resample.mono` makes them so); floats
        in [-1, 1]. Where there are no samples, nothing is heard.
      batch_size: rows that are read at once; clips of like length go together.

    Raises:
      ValueError: see `logits`.
    """
    symbols = self.module.symbols
    heard: list[list[str]] = [[] for _ in clips]
    for members, logits, lengths in self._batches(_logits, clips, batch_size):
      decoded = greedy(logits, lengths)
      for i, row in zip(members, decoded, strict=False):
        heard[i] = [symbols[k - 1] for k in row]
    return heard

  def features(
      self, clips: Sequence[Float[np.ndarray, ' T']], batch_size: int = 16
  ) -> list[Float[np.ndarray, 'F D']]:
    """What the outputs read of each of some clips: see `phones`."""
    none = np.zeros((0, self.module.width), np.float32)
    found = [none] * len(clips)
    for members, states, lengths in self._batches(_states, clips, batch_size):
      for row, i in enumerate(members):
        found[i] = states[row, : lengths[row]]
    return found

  def _batches(self, function, clips, batch_size):
    """(indices of clips, values of their rows, frames of rows) of like lengths."""
    lengths = np.array([len(clip) for clip in clips], int)
    bounds = sorted({pipeline.padded(n, _SHORTEST) for n in lengths if n})
    if not bounds:
      return
    filled = np.flatnonzero(lengths)
    sizes = [batch_size] * len(bounds)
    for bound, size, members in pipeline.buckets(
        lengths[filled], bounds, sizes
    ):
      members = filled[members]
      rows = [np.asarray(clips[i], np.float32)[:, None] for i in members]
      count = np.zeros(size, np.int32)
      count[: len(members)] = lengths[members]
      rows = pipeline.pad(rows, size, bound)
      yield members, *self._run(function, rows, count)
