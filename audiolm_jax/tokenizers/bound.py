"""A tokenizer bound to its variables, for people and for scripts."""

import hashlib
import json

import flax
import jax
from jaxtyping import Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax.tokenizers import base


class BoundTokenizer:
  """`encode` and `decode`, compiled, on host arrays.

  Time is padded to one of few sizes (two in each octave), so that clips of all
  lengths share a few compilations; results are cut back and equal the unpadded.

  Attributes:
    tokenizer: the pure tokenizer.
    variables: its variables, unboxed.
  """

  def __init__(self, tokenizer: base.Tokenizer, variables: base.Variables):
    self.tokenizer = tokenizer
    self.variables = flax.core.meta.unbox(variables)
    self._encode = jax.jit(tokenizer.encode)
    self._decode = jax.jit(tokenizer.decode)

  @property
  def spec(self) -> base.Spec:
    return self.tokenizer.spec

  def code_vectors(self) -> Float[np.ndarray, 'K V D'] | None:
    """The vectors that the codes of each slot stand for, if there are such."""
    found = self.tokenizer.code_vectors(self.variables)
    return None if found is None else np.asarray(found)

  def encode(
      self,
      audio: Float[np.ndarray, 'B T C'] | Float[np.ndarray, 'T'],
      lengths: Int[np.ndarray, 'B'] | None = None,
  ) -> base.Tokens:
    """Tokens of audio at `spec.sample_rate`, as numpy arrays.

    Args:
      audio: [B, T, C], or one mono clip [T].
      lengths: samples of each row; default all of T.

    Raises:
      ValueError: for another shape or a wrong number of channels.
    """
    audio = np.asarray(audio, np.float32)
    if audio.ndim == 1:
      audio = audio[None, :, None]
    if audio.ndim != 3 or audio.shape[2] != self.spec.channels:
      raise ValueError(
          f'audio has shape {audio.shape}; expected [B, T,'
          f' {self.spec.channels}] or, for one mono clip, [T]'
      )
    if lengths is None:
      lengths = np.full(audio.shape[0], audio.shape[1])
    frames = int(self.spec.frames(audio.shape[1]))
    missing = padded_frames(frames) * self.spec.hop - audio.shape[1]
    audio = np.pad(audio, ((0, 0), (0, missing), (0, 0)))
    tokens = self._encode(self.variables, audio, np.asarray(lengths, np.int32))
    tokens = base.numpy_tokens(tokens)
    return jax.tree.map(lambda x: x if x.ndim == 1 else x[:, :frames], tokens)

  def decode(
      self, tokens: base.Tokens
  ) -> tuple[Float[np.ndarray, 'B T C'], Int[np.ndarray, 'B']]:
    """Audio [B, F hop, C], zero past each row's length, and the lengths."""
    (frames,) = {
        x.shape[1] for x in (tokens.codes, tokens.latents) if x is not None
    }
    missing = padded_frames(frames) - frames
    padded = jax.tree.map(
        lambda x: x
        if x.ndim == 1
        else np.pad(
            np.asarray(x), ((0, 0), (0, missing), *[(0, 0)] * (x.ndim - 2))
        ),
        tokens,
    )
    audio, lengths = self._decode(self.variables, padded)
    audio = np.asarray(audio)[:, : frames * self.spec.hop]
    return audio, np.asarray(lengths)

  def fingerprint(self) -> str:
    """`fingerprint` of this tokenizer and its variables."""
    return fingerprint(self.tokenizer, self.variables)


def fingerprint(tokenizer: base.Tokenizer, variables: base.Variables) -> str:
  """sha256 over spec, config and all variables: which tokens these are."""
  digest = hashlib.sha256()
  described = {
      'class': type(tokenizer).__name__,
      'spec': tokenizer.spec.to_dict(),
      'config': config.to_config(tokenizer).to_dict(),
  }
  digest.update(json.dumps(described, sort_keys=True).encode())
  variables = flax.core.meta.unbox(variables)
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    leaf = np.asarray(leaf)
    name = f'{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}'
    digest.update(name.encode())
    digest.update(leaf.tobytes())
  return digest.hexdigest()


def padded_frames(frames: int) -> int:
  """The next of 0, 32, 48, 64, 96, 128, 192, ... frames."""
  if not frames:
    return 0
  octave = 32
  while octave < frames:
    if octave * 3 // 2 >= frames:
      return octave * 3 // 2
    octave *= 2
  return octave
