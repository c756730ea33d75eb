"""What a tokenizer is and what it costs, measured on this machine."""

from collections.abc import Iterable
import os
import pathlib
import statistics
import time
from typing import Any

import jax
from jaxtyping import Float
import numpy as np

from audiolm_jax.models import audio_tokenizer
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers import transcoding
from audiolm_jax.training import costs

Card = dict[str, Any]


def make(
    tokenizer: audio_tokenizer.AudioTokenizer,
    name: str = '',
    audio: Iterable[Float[np.ndarray, 'T C']] = (),
    *,
    seconds: float = 10.0,
    repeats: int = 5,
) -> Card:
  """The card, as plain values.

  Args:
    tokenizer: any.
    name: of it.
    audio: clips at its rate and channels; of their codes the entropy is
      measured.
    seconds: of audio in each run of the measured speed, at batch 1.
    repeats: runs, of which the median counts.
  """
  spec = tokenizer.spec
  rates = transcoding.bitrates(tokenizer.tokenizer)
  card = {
      'name': name,
      'fingerprint': tokenizer.fingerprint(),
      **{key: _plain(v) for key, v in spec.to_dict()['dates'].items()},
      'sample_rate': spec.sample_rate,
      'channels': spec.channels,
      'hop': spec.hop,
      'frame_rate': spec.frame_rate,
      'codebooks': len(spec.slots),
      'vocabularies': list(spec.vocabularies),
      'latent_dimension': spec.dimension,
      'bits_per_second': spec.bits_per_second if spec.slots else None,
      'bitrates': {str(n): rate for n, rate in rates.items()},
      # A frame must be there before it can be coded.
      'latency_ms': (
          1000 * (spec.hop + spec.latency) / spec.sample_rate
          if spec.dates.streamable
          else None
      ),
      'parameters': parameters(tokenizer.variables),
      'macs_per_second': macs(tokenizer, seconds),
      'real_time_factor': speed(tokenizer, seconds, repeats),
      'device': device(),
  }
  entropy = measured_entropy(tokenizer, audio)
  return {**card, 'entropy': entropy} if entropy else card


def parameters(variables: tokenizers_base.Variables) -> dict[str, int]:
  """Numbers in the parts of the params, and in the codebooks of the state."""
  counts = {
      part: sum(x.size for x in jax.tree.leaves(tree))
      for part, tree in variables['params'].items()
  }
  state = variables.get('state')
  books = getattr(state, 'codebooks', None)
  leaves = jax.tree.leaves(state) if books is None else [books]
  counts['state'] = sum(int(np.size(x)) for x in leaves)
  return {**counts, 'total': sum(counts.values())}


def macs(
    tokenizer: audio_tokenizer.AudioTokenizer, seconds: float = 10.0
) -> dict[str, float]:
  """Multiply-accumulates a second of audio: half the FLOPs of its jaxpr."""
  audio, num_samples = _silence(tokenizer.spec, seconds)
  pure, variables = tokenizer.tokenizer, tokenizer.variables
  tokens = jax.eval_shape(pure.encode, variables, audio, num_samples)
  duration = audio.shape[1] / tokenizer.spec.sample_rate
  return {
      'encode': costs.flops(pure.encode, variables, audio, num_samples)
      / (2 * duration),
      'decode': costs.flops(pure.decode, variables, tokens) / (2 * duration),
  }


def speed(
    tokenizer: audio_tokenizer.AudioTokenizer,
    seconds: float = 10.0,
    repeats: int = 5,
) -> dict[str, float]:
  """Seconds of audio a second, at batch 1, compilation left out."""
  audio, num_samples = _silence(tokenizer.spec, seconds)
  duration = audio.shape[1] / tokenizer.spec.sample_rate
  variables = tokenizer.variables
  encode = jax.jit(tokenizer.tokenizer.encode)
  decode = jax.jit(tokenizer.tokenizer.decode)
  tokens = encode(variables, audio, num_samples)
  return {
      'encode': duration
      / _median(encode, repeats, variables, audio, num_samples),
      'decode': duration / _median(decode, repeats, variables, tokens),
  }


def measured_entropy(
    tokenizer: audio_tokenizer.AudioTokenizer,
    audio: Iterable[Float[np.ndarray, 'T C']],
) -> Card:
  """Bits a second of codes drawn independently from their own frequencies.

  What an ideal entropy coder without context would need; too low where there
  are few frames for the size of the codebooks.
  """
  sizes = tokenizer.spec.vocabularies
  counts = [np.zeros(size, np.int64) for size in sizes]
  for clip in audio if sizes else ():
    codes = tokenizer.encode(clip[None]).codes[0]
    for slot, count in enumerate(counts):
      count += np.bincount(codes[:, slot], minlength=len(count))
  frames = int(counts[0].sum()) if counts else 0
  if not frames:
    return {}
  shares = [count / frames for count in counts]
  bits = [float(-np.sum(p * np.log2(np.where(p, p, 1)))) for p in shares]
  return {
      'frames': frames,
      'bits_per_second': sum(bits) * tokenizer.spec.frame_rate,
      'bits': bits,
      'used': [float(np.mean(count > 0)) for count in counts],
  }


def device() -> str:
  """What the measured speed is of."""
  first = jax.devices()[0]
  if first.platform != 'cpu':
    return f'{first.device_kind}, 1 of {jax.device_count()}'
  model = 'CPU'
  info = pathlib.Path('/proc/cpuinfo')
  if info.exists():
    names = [n for n in info.read_text().splitlines() if 'model name' in n]
    model = names[0].partition(':')[2].strip() if names else model
  return f'{model}, {len(os.sched_getaffinity(0))} cores'


def text(card: Card) -> str:
  """The card for people."""
  readable = costs.readable
  parts = card['parameters']
  sizes = ', '.join(
      f'{name} {readable(count)}'
      for name, count in parts.items()
      if name != 'total' and count
  )
  rows = [
      ('tokenizer', card['name'] or card['fingerprint'][:12]),
      ('architecture', card['architecture']),
      ('representation', card['representation']),
      ('quantiser', f'{card["quantiser"]}, {card["bitrate"]} bitrate'),
      ('objective', ', '.join(card['objective'])),
      ('auxiliary', ', '.join(card['auxiliary']) or 'none'),
      ('domain', ', '.join(card['domain'])),
      ('streamable', _streams(card)),
      ('audio', f'{card["sample_rate"]} Hz, {card["channels"]} channel(s)'),
      ('frame rate', f'{card["frame_rate"]:.4g} Hz, hop {card["hop"]} samples'),
      ('tokens', _tokens(card)),
      *_rates(card),
      ('parameters', f'{readable(parts["total"])} ({sizes})'),
      ('MACs/s', _both(card['macs_per_second'], lambda x: readable(x))),
      ('real time', _both(card['real_time_factor'], lambda x: f'{x:.3g}x')),
      ('', f'batch 1, on {card["device"]}'),
  ]
  return '\n'.join(f'{label:<15}{value}' for label, value in rows)


def _streams(card):
  if not card['streamable']:
    return 'no'
  return f'yes, {card["latency_ms"]:.4g} ms from sound to sound'


def _tokens(card):
  if card['latent_dimension'] is not None:
    return f'continuous, {card["latent_dimension"]} numbers a frame'
  sizes = card['vocabularies']
  if len(set(sizes)) == 1:
    return f'{len(sizes)} codes of {sizes[0]} a frame'
  return f'{len(sizes)} codes a frame, of {", ".join(map(str, sizes))}'


def _rates(card):
  """Rows about bits, for discrete tokens."""
  if card['bits_per_second'] is None:
    return
  rates = [f'{rate / 1000:.4g}' for rate in card['bitrates'].values()]
  yield 'kbit/s', ', '.join(rates)
  if 'entropy' in card:
    entropies = card['entropy']
    used = 100 * min(entropies['used'])
    yield 'entropy', (
        f'{entropies["bits_per_second"] / 1000:.4g} kbit/s over'
        f' {entropies["frames"]} frames; at least {used:.0f}% of each codebook used'
    )


def _both(values, show):
  return f'encode {show(values["encode"])}, decode {show(values["decode"])}'


def _plain(value):
  return list(value) if isinstance(value, tuple) else value


def _silence(spec, seconds):
  """[1, T, C] of whole frames, and its length."""
  size = max(round(seconds * spec.sample_rate / spec.hop), 1) * spec.hop
  audio = np.zeros((1, size, spec.channels), np.float32)
  return audio, np.array([size], np.int32)


def _median(function, repeats, *arguments) -> float:
  """Seconds that a call takes."""
  jax.block_until_ready(function(*arguments))
  spent = []
  for _ in range(repeats):
    then = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    spent.append(time.perf_counter() - then)
  return statistics.median(spent)
