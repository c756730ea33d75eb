"""Codecs beside transformers' (torch), for `tools/bench.py`.

Both read the same weights, which transformers writes and our interop loads, and
the same audio; both use all visible cores and the same allocator settings. What
comes out is compared before anything is timed. Calls are timed in turns, so
that a busy machine slows both; the table holds medians.
"""

import argparse
from collections.abc import Callable
import dataclasses
import os
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from audiolm_jax import interop
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.training import costs
import bench_turns

try:
  import torch
  import transformers
except ImportError as error:
  sys.exit(f'error: {error}; this needs pip install audiolm_jax[parity]')

transformers.utils.logging.disable_progress_bar()

# Of the machine's matmul peak, where twice transformers' speed is beyond it.
_SHARE = 0.7
_RATIO = 2.0


@dataclasses.dataclass(frozen=True)
class _Theirs:
  """transformers' model.

  Attributes:
    model: in eval mode, with codebooks that tell frames apart.
    encode: [B, C, T] -> codes [B, K, F].
    decode: codes -> audio [B, T].
  """

  model: 'transformers.PreTrainedModel'
  encode: Callable
  decode: Callable


def codec(options: argparse.Namespace) -> int:
  """Prints times and shares of the peak for every codec and batch size."""
  cores = len(os.sched_getaffinity(0))
  torch.set_num_threads(cores)
  print(
      f'{cores} cores for both; transformers {transformers.__version__}, torch'
      f' {torch.__version__}, jax {jax.__version__}; {options.seconds:g} s of'
      f' audio; load average {os.getloadavg()[0]:.1f}'
  )
  peak = _peak()
  print(f'matmul peak {peak / 1e9:.0f} GFLOP/s', flush=True)
  print(
      f'{"":26}{"theirs":>9}{"ours":>9}{"ratio":>7}{"GFLOP":>9}{"GFLOP/s":>9}'
      f'{"of peak":>9}  goal'
  )
  missed = 0
  for name in options.codecs:
    with tempfile.TemporaryDirectory() as folder:
      theirs = _THEIRS[name]()
      theirs.model.save_pretrained(folder)
      ours, variables = interop.load_pretrained(folder)
    variables = jax.device_put(variables)
    for batch in options.batches:
      audio = _audio(batch, round(options.seconds * ours.sample_rate))
      for cell in _cells(theirs, ours, variables, audio):
        label, flops, one, other = cell
        times = bench_turns.medians(
            options.rounds, {'theirs': one, 'ours': other}
        )
        first, second = times['theirs'], times['ours']
        ratio, speed = first / second, flops / second
        met = ratio >= _RATIO or speed >= _SHARE * peak
        missed += not met
        print(
            f'{name:8} {label} batch {batch:2} {first:12.3f} s {second:7.3f} s'
            f' {ratio:6.2f} {flops / 1e9:8.1f} {speed / 1e9:8.0f}'
            f' {speed / peak:8.0%}  {"met" if met else "MISSED"}',
            flush=True,
        )
  peak = max(peak, _peak())
  print(
      f'goal: {_RATIO:g} x, or {_SHARE:.0%} of the peak where that is less'
      f' (peak after all: {peak / 1e9:.0f}); {missed} missed'
  )
  return 1 if missed else 0


def streaming(options: argparse.Namespace) -> int:
  """Prints the latency of a Mimi frame: 80 ms encoded and decoded again."""
  with tempfile.TemporaryDirectory() as folder:
    _mimi().model.save_pretrained(folder)
    ours, variables = interop.load_pretrained(folder)
  variables = jax.device_put(variables)
  hop = ours.hop
  frames = round(options.seconds * ours.sample_rate / hop)
  audio = _audio(1, frames * hop)

  def step(state, variables, samples):
    mask = jnp.ones(samples.shape[:2], bool)
    codes, mask, encoder = ours.encode_step(
        variables, samples, mask, state['encode']
    )
    sound, _, decoder = ours.decode_step(
        variables, codes, mask, state['decode']
    )
    return {'encode': encoder, 'decode': decoder}, codes, sound

  step = jax.jit(step, donate_argnums=0)
  state = jax.jit(ours.initial_state, static_argnums=0)(1)
  times = []
  for i in range(frames):
    samples = audio[:, i * hop : (i + 1) * hop]
    then = time.perf_counter()
    state, codes, sound = step(state, variables, samples)
    jax.block_until_ready((codes, sound))
    times.append(time.perf_counter() - then)
  times = np.array(times[5:])  # less compilation and first touches
  frame = hop / ours.sample_rate
  speed = frame / times.mean()
  print(
      f'mimi, {1e3 * frame:.0f} ms frames, batch 1, {len(times)} of them on'
      f' {len(os.sched_getaffinity(0))} cores, load average'
      f' {os.getloadavg()[0]:.1f}: p50 {1e3 * np.median(times):.1f} ms, p99'
      f' {1e3 * np.quantile(times, 0.99):.1f} ms, {speed:.1f} x real time'
      f' (goal: >= {_RATIO:g})'
  )
  return 0 if speed >= _RATIO else 1


def _peak() -> float:
  """FLOP/s of the fastest matrix product."""
  best = 0.0
  for n in (768, 1024, 1536, 2048, 3072):
    a = jnp.ones((n, n))
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, a))
    for _ in range(10):
      then = time.perf_counter()
      jax.block_until_ready(product(a, a))
      best = max(best, 2 * n**3 / (time.perf_counter() - then))
  return best


def _cells(theirs: _Theirs, ours: codec_lib.Codec, variables, audio):
  """('encode' or 'decode', FLOPs, theirs, ours), checked to do the same.

  Raises:
    AssertionError: if they do not.
  """
  batch, size, _ = audio.shape
  num_samples = jnp.full(batch, size)
  x = torch.from_numpy(audio.transpose(0, 2, 1).copy())
  audio = jax.device_put(audio)
  codes = theirs.encode(x)
  encode = jax.jit(ours.encode)
  found = encode(variables, audio, num_samples)
  frames = min(codes.shape[2], found.codes.shape[1])
  equal = np.asarray(found.codes)[:, :frames] == (
      codes.numpy().transpose(0, 2, 1)[:, :frames]
  )
  assert equal.mean() > 0.9, f'only {equal.mean():.1%} of the codes are equal'
  used = len(np.unique(codes[:, 0].numpy()))
  assert used > 10, f'only {used} different codes'

  def encode_again():
    return jax.block_until_ready(encode(variables, audio, num_samples))

  flops = costs.flops(ours.encode, variables, audio, num_samples)
  yield 'encode', flops, lambda: theirs.encode(x), encode_again

  tokens = tokenizers_base.Tokens(
      num_samples=num_samples,
      codes=jnp.asarray(codes.numpy().transpose(0, 2, 1)),
  )
  decode = jax.jit(lambda variables, tokens: ours.decode(variables, tokens)[0])
  sound = np.asarray(decode(variables, tokens))[..., 0]
  reference = theirs.decode(codes).numpy()
  # DAC's odd strides lose samples, ours lose none: the ends differ.
  most = int(0.9 * min(size, reference.shape[1]))
  error = np.abs(sound[:, :most] - reference[:, :most]).max()
  assert error < 1e-3 * np.abs(reference).max(), f'audio differs by {error:.1e}'

  def decode_again():
    return jax.block_until_ready(decode(variables, tokens))

  flops = costs.flops(decode, variables, tokens)
  yield 'decode', flops, lambda: theirs.decode(codes), decode_again


def _audio(rows: int, samples: int) -> np.ndarray:
  """[B, T, 1]: noise under a slow envelope."""
  rng = np.random.default_rng(0)
  x = rng.standard_normal((rows, samples, 1))
  envelope = 0.1 + np.abs(np.sin(np.arange(samples) / samples * 9))
  return (0.3 * x * envelope[:, None]).astype(np.float32)


# -- transformers' models -----------------------------------------------------


def _encodec() -> _Theirs:
  torch.manual_seed(0)
  model = transformers.EncodecModel(transformers.EncodecConfig()).eval()
  books = [layer.codebook.embed for layer in model.quantizer.layers]
  with torch.no_grad():
    _fill(books, model.encoder(_probe(24000)))

  @torch.no_grad
  def encode(x):
    # The highest bandwidth: all codebooks.
    return model.encode(x, bandwidth=24.0).audio_codes[0]

  @torch.no_grad
  def decode(codes):
    return model.decode(codes[None], [None]).audio_values[:, 0]

  return _Theirs(model, encode, decode)


def _dac() -> _Theirs:
  """As published at 16 kHz."""
  torch.manual_seed(0)
  model = transformers.DacModel(
      transformers.DacConfig(
          sampling_rate=16000, downsampling_ratios=[2, 4, 5, 8], n_codebooks=12
      )
  ).eval()

  @torch.no_grad
  def encode(x):
    return model.encode(x).audio_codes

  @torch.no_grad
  def decode(codes):
    return model.decode(audio_codes=codes).audio_values

  return _Theirs(model, encode, decode)


def _mimi() -> _Theirs:
  torch.manual_seed(0)
  model = transformers.MimiModel(transformers.MimiConfig()).eval()
  with torch.no_grad():
    latents = model.encoder(_probe(24000)).latents
    quantizer = model.quantizer
    for part in (
        quantizer.semantic_residual_vector_quantizer,
        quantizer.acoustic_residual_vector_quantizer,
    ):
      books = [layer.codebook for layer in part.layers]
      for book in books:
        book.cluster_usage.fill_(1.0)
        book._embed = None
      _fill([book.embed_sum for book in books], part.input_proj(latents))

  @torch.no_grad
  def encode(x):
    return model.encode(x).audio_codes

  @torch.no_grad
  def decode(codes):
    return model.decode(codes).audio_values[:, 0]

  return _Theirs(model, encode, decode)


_THEIRS = {'encodec': _encodec, 'dac': _dac, 'mimi': _mimi}
CODECS = tuple(_THEIRS)


def _probe(rate: int):
  return torch.from_numpy(_audio(1, 4 * rate).transpose(0, 2, 1).copy())


def _fill(books, latents) -> None:
  """Gives codebooks [V, D] the spread of what is left of latents [1, D, F]."""
  residual = latents.transpose(1, 2).reshape(-1, latents.shape[1])
  for book in books:
    # Farther from each other than rounding errors, at every level.
    book.copy_(residual.mean(0) + residual.std(0) * torch.randn_like(book))
    residual = residual - book[torch.cdist(residual, book).argmin(-1)]
