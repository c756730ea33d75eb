"""Sessions of tokenizers: audio to tokens and back while it comes."""

from jaxtyping import Bool, Float, Shaped
import numpy as np

from audiolm_jax.generation import checks
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers import inputs
from audiolm_jax.tokenizers import long


class TokenizerSession:
  """B rows that are encoded and decoded block by block, each way by itself.

  What has been given out by the end equals `encode` and `decode` of the whole,
  however it is cut: codes where the quantiser's margin is clear, audio within
  rounding.

  Attributes:
    latency: samples that decoded audio lags behind its frames.
    block: frames of a step: what is not a whole step waits for more.
  """

  def __init__(self, coder: long.Coder, rows: int):
    """Before the first sample.

    Args:
      coder: of the tokenizer, with blocks of a step's size.
      rows: B.

    Raises:
      ValueError: for a tokenizer that has no steps.
    """
    tokenizer = coder.tokenizer
    if tokenizer.min_step is None:
      raise ValueError(
          f'{type(tokenizer).__name__}: this tokenizer looks ahead or sees whole'
          ' segments, so that it has no session: encode_long and decode_long go'
          ' through its files'
      )
    self._spec, self.block = tokenizer.spec, coder.block
    self.latency = tokenizer.decoder.layer.output_latency
    self._encode, self._decode = map(coder.stepper, ('encode', 'decode'))
    self._audio = np.zeros((rows, 0, self._spec.channels), np.float32)
    self._rows, self._tokens = rows, None
    self._ended = {'encode': False, 'decode': False}

  def encode(self, audio: Float[np.ndarray, 'B T C']) -> tokenizers_base.Tokens:
    """Tokens of the frames that are whole with this block of any length.

    Raises:
      ValueError: for what is no audio (see `inputs.audio`), another number of
        rows, or after `flush_encode`.
    """
    audio = self._check('encode', audio)
    inputs.audio(self._spec, audio, np.full(self._rows, audio.shape[1]))
    self._audio = np.concatenate([self._audio, audio], axis=1, dtype='f4')
    size = self._audio.shape[1] // self._encode.size * self._encode.size
    now, self._audio = self._audio[:, :size], self._audio[:, size:]
    return self._encoded(now)

  def flush_encode(self) -> tokenizers_base.Tokens:
    """Ends all rows: tokens of the samples that wait, with a last partial frame."""
    self._ended['encode'] = True
    now, self._audio = self._audio, self._audio[:, :0]
    return self._encoded(now)

  def decode(
      self, tokens: Shaped[np.ndarray, 'B F K']
  ) -> Float[np.ndarray, 'B T C']:
    """Audio of the next frames: hop samples for each that is in a whole step.

    It is `latency` samples late: the first ones of each row are 0.

    Args:
      tokens: codes of the first slots, or latents, of any number of frames.

    Raises:
      ValueError: for what are no tokens (see `inputs.values`), another number
        of rows, or after `flush_decode`.
    """
    tokens = self._check('decode', tokens)
    inputs.values(self._spec, tokens, np.ones(tokens.shape[:2], bool))
    if self._tokens is not None:
      tokens = np.concatenate([self._tokens, tokens], axis=1)
    size = tokens.shape[1] // self.block * self.block
    self._tokens = tokens[:, size:]
    return self._decoded(tokens[:, :size])

  def flush_decode(self) -> Float[np.ndarray, 'B T C']:
    """Ends all rows: the audio of what waits, and what lags behind."""
    self._ended['decode'] = True
    if self._tokens is None:
      return np.zeros((self._rows, 0, self._spec.channels), np.float32)
    left = self._tokens.shape[1] * self._spec.hop + self.latency
    now, none = self._tokens, self._tokens[:, :0]
    pieces = [self._step(now)]
    while sum(piece.shape[1] for piece in pieces) < left:
      pieces.append(self._step(none))
    self._tokens = none
    return np.concatenate(pieces, axis=1)[:, :left]

  def reset(self, rows: Bool[np.ndarray, 'B'] | None = None) -> None:
    """Rows begin anew, both ways.

    Args:
      rows: which; None for all, also after a flush.

    Raises:
      ValueError: for some rows only, after a flush or while a part of a step
        waits, which would be theirs and the other rows'.
    """
    rows = checks.rows(rows, self._rows)
    tokens = 0 if self._tokens is None else self._tokens.shape[1]
    waiting = self._audio.shape[1] or tokens or any(self._ended.values())
    if waiting and not rows.all():
      raise ValueError(
          f'{self._audio.shape[1]} samples and {tokens} frames wait, ended:'
          f' {self._ended}: reset all rows, or after whole steps of'
          f' {self.block} frames'
      )
    self._audio, self._tokens = self._audio[:, :0], None
    self._ended = dict.fromkeys(self._ended, False)
    for step in (self._encode, self._decode):
      step.reset(rows)

  def _check(self, way, x):
    x = np.asarray(x)
    if self._ended[way]:
      raise ValueError(f'{way}: the rows have ended: `reset` restarts them')
    if x.ndim != 3 or len(x) != self._rows:
      raise ValueError(
          f'{way}: {x.shape}, expected {self._rows} rows of 3 axes'
      )
    return x

  def _encoded(self, audio):
    """Tokens of whole steps, or of all that is left."""
    size, count = self._encode.size, audio.shape[1]
    pieces = [
        self._encode(audio[:, i : i + size])[0] for i in range(0, count, size)
    ]
    frames = int(self._spec.frames(count))
    name = 'codes' if self._spec.slots else 'latents'
    width = len(self._spec.slots) or self._spec.dimension
    kind = np.int32 if self._spec.slots else np.float32
    none = np.zeros((self._rows, 0, width), kind)
    tokens = np.concatenate([none, *pieces], axis=1)[:, :frames]
    return tokenizers_base.Tokens(
        num_samples=np.full(self._rows, count, np.int32), **{name: tokens}
    )

  def _decoded(self, tokens):
    """Audio of whole steps."""
    pieces = [
        self._step(tokens[:, i : i + self.block])
        for i in range(0, tokens.shape[1], self.block)
    ]
    none = np.zeros((self._rows, 0, self._spec.channels), np.float32)
    return np.concatenate([none, *pieces], axis=1)

  def _step(self, tokens):
    audio, valid = self._decode(tokens)
    return np.where(valid[..., None], audio, 0)
