"""What every tokenizer must hold: `assert_tokenizer_contract(codec, variables)`.

Lengths in are lengths out, a padded batch equals its rows one by one, nothing
past a row's end reaches anything, steps equal the whole. Codes are compared by
`margin_rule`.
"""

import functools

import flax
import jax
import numpy as np

from audiolm_jax.streaming import testing
from audiolm_jax.tokenizers import base as tokenizers_base
from tests import margin_rule

# Compiling takes longer than running here.
QUICK = testing.quick_options()


@functools.lru_cache(64)
def compiled(tokenizer, name):
  """A method of a tokenizer, compiled once for all its users."""
  return jax.jit(getattr(tokenizer, name), compiler_options=QUICK)


def assert_tokenizer_contract(
    tokenizer,
    variables,
    *,
    num_samples=None,
    frames_a_step=2,
    tolerance=1e-5,
    seed=0,
    drops=False,
):
  """Checks a tokenizer, shrunk to where compilation takes seconds.

  Args:
    tokenizer: a `codec.Codec` or another `base.Tokenizer`.
    variables: whose codebooks give many different codes (`with_used_codes`).
    num_samples: samples of the rows; default: 0, 1, hop - 1, hop, hop + 1 and two
      odd ones; for segments also what is about their ends.
    frames_a_step: size of the steps to try, if it steps.
    tolerance: of audio and latents, relative to the largest value.
    seed: of the audio.
    drops: whether it may give fewer samples than it was given (compatibility
      flags of codecs that do).
  """
  spec = tokenizer.spec
  variables = flax.core.meta.unbox(variables)
  num_samples = np.array(
      awkward_lengths(spec) if num_samples is None else num_samples
  )
  # Whole steps; what is past a row's length is NaN.
  steps = -(-max(num_samples) // (frames_a_step * spec.hop))
  audio = noise(spec, num_samples, seed, steps * frames_a_step * spec.hop)
  encode, decode = (compiled(tokenizer, n) for n in ('encode', 'decode'))

  tokens = tokenizers_base.numpy_tokens(encode(variables, audio, num_samples))
  margins = margins_of(tokenizer, variables, audio, num_samples)
  _check_tokens(spec, tokens, num_samples, audio.shape[1])
  sound, out_lengths = map(np.asarray, decode(variables, tokens))
  if drops:
    assert (out_lengths <= num_samples).all()
    assert (out_lengths > num_samples - 2 * spec.hop).all()
  else:
    np.testing.assert_array_equal(out_lengths, num_samples)
  assert sound.shape[1] >= num_samples.max() - 2 * spec.hop * drops
  assert np.isfinite(sound).all(), 'NaN past an end reached the audio'
  for row, length in enumerate(out_lengths):
    assert not sound[row, length:].any(), 'audio past an end is not zero'

  excluded = margin_rule.Comparison()
  for row, length in enumerate(num_samples):
    # Alone and padded, with silence where the batch has NaN; and unpadded.
    clean = np.nan_to_num(audio[row : row + 1])
    alone = [clean]
    if length in (0, spec.hop + 1):
      alone.append(clean[:, :length])
    for one in alone:
      found = encode(variables, one, num_samples[row : row + 1])
      _check_row(spec, tokens, found, row, length, margins, excluded, tolerance)
    given = jax.tree.map(lambda x, row=row: x[row : row + 1], tokens)
    again, _ = decode(variables, given)
    assert_close(again[0], sound[row], tolerance, 'a row decoded alone')
  excluded.check('rows one by one')

  if getattr(tokenizer, 'steppable', False):
    assert_steps_equal_the_whole(
        tokenizer,
        variables,
        num_samples,
        audio,
        tokens,
        sound,
        frames_a_step,
        tolerance,
    )


def assert_steps_equal_the_whole(
    tokenizer,
    variables,
    num_samples,
    audio,
    tokens,
    sound,
    frames_a_step,
    tolerance,
):
  """Encodes and decodes step by step, and compares with the whole.

  Args:
    tokenizer: with `encode_step` and `decode_step`.
    variables: unboxed.
    num_samples: of the rows.
    audio: of whole steps.
    tokens: that `encode` gives of it.
    sound: that `decode` gives of these.
    frames_a_step: how many.
    tolerance: of audio and latents, relative to the largest value.
  """
  spec = tokenizer.spec
  size = frames_a_step * spec.hop
  values = tokens.latents if tokens.codes is None else tokens.codes
  state = tokenizer.initial_state(len(num_samples))
  step = compiled(tokenizer, 'encode_step')
  mask = np.arange(audio.shape[1]) < num_samples[:, None]
  steps = []
  for start in range(0, audio.shape[1], size):
    here = slice(start, start + size)
    found, found_mask, state['encode'] = step(
        variables, audio[:, here], mask[:, here], state['encode']
    )
    steps.append((np.asarray(found), np.asarray(found_mask)))
  found, valid = (np.concatenate(x, axis=1) for x in zip(*steps, strict=True))
  frames = np.asarray(spec.frames(num_samples))
  np.testing.assert_array_equal(
      valid, np.arange(valid.shape[1]) < frames[:, None]
  )
  if tokens.codes is None:
    assert_close(found[valid], values[valid], tolerance, 'latents of steps')
  else:
    margins = margins_of(tokenizer, variables, audio, num_samples)
    margin_rule.assert_same_codes(
        found[valid], values[valid], margins[valid], 'steps'
    )

  step = compiled(tokenizer, 'decode_step')
  flush = -(-spec.latency // size) * frames_a_step
  values = np.pad(values, ((0, 0), (0, flush), (0, 0)))
  valid = np.pad(valid, ((0, 0), (0, flush)))
  sounds = []
  for start in range(0, values.shape[1], frames_a_step):
    here = slice(start, start + frames_a_step)
    block, _, state['decode'] = step(
        variables, values[:, here], valid[:, here], state['decode']
    )
    sounds.append(np.asarray(block))
  steps = np.concatenate(sounds, axis=1)[:, spec.latency :]
  steps = steps[:, : audio.shape[1]]
  steps = np.where(mask[..., None], steps, 0)
  assert_close(steps, sound, tolerance, 'audio of steps')


def awkward_lengths(spec) -> list[int]:
  """Those that go wrong."""
  hop = spec.hop
  num_samples = [
      0,
      1,
      hop - 1,
      hop,
      hop + 1,
      3 * hop + hop // 2 + 1,
      7 * hop - 3,
  ]
  if spec.segment is not None:
    size, stride = spec.segment
    num_samples += [
        stride - 1,
        stride,
        stride + 1,
        size,
        size + 1,
        stride + size,
    ]
  return num_samples


def noise(spec, num_samples, seed=0, size=None) -> np.ndarray:
  """Noise whose loudness wanders; NaN past each row's end."""
  rng = np.random.default_rng(seed)
  size = int(np.max(num_samples)) if size is None else size
  audio = rng.standard_normal((len(num_samples), size, spec.channels))
  slow = np.sin(
      np.arange(size) / (3 * spec.hop) + np.arange(len(num_samples))[:, None]
  )
  audio = 0.3 * audio * np.exp(slow)[..., None]
  audio[np.arange(size) >= np.asarray(num_samples)[:, None]] = np.nan
  return audio.astype(np.float32)


def margins_of(tokenizer, variables, audio, num_samples) -> np.ndarray | None:
  """[B, F, K] margins of what `encode` gives; None for continuous tokens."""
  if not tokenizer.spec.slots:
    return None
  if tokenizer.spec.segment is None:
    found = compiled(tokenizer, 'quantise')(
        variables, audio, num_samples
    ).margins
  else:
    found = _segment_margins(tokenizer)(variables, audio, num_samples)
  return np.asarray(found)


def assert_close(actual, expected, tolerance, name) -> None:
  """Equal but for `tolerance` of the largest value."""
  actual, expected = np.asarray(actual), np.asarray(expected)
  assert actual.shape == expected.shape, (name, actual.shape, expected.shape)
  scale = max(float(np.abs(expected).max(initial=0)), 1e-3)
  error = float(np.abs(actual - expected).max(initial=0)) / scale
  assert error <= tolerance, f'{name}: off by {error:.2g} of the largest value'


def with_used_codes(tokenizer, variables, seed=7, rounds=None, frames=64):
  """Variables whose codebooks are taken from what the encoder says of noise.

  Random codebooks are seldom near anything: one code would be used throughout.
  """
  variables = flax.core.meta.unbox(variables)
  spec = tokenizer.spec
  size = spec.hop * frames if spec.segment is None else spec.segment[0]
  num_samples = np.full(4, size)
  audio = noise(spec, num_samples, seed)
  mask = np.ones((4, -(-size // spec.hop) * tokenizer.bottleneck.frames), bool)

  @functools.partial(jax.jit, compiler_options=QUICK)
  def update(variables, key):
    found = tokenizer.quantise(variables, audio, num_samples)
    sums = tokenizer.bottleneck.statistics(found, mask, key)
    return tokenizer.bottleneck.update(variables['state'], sums, key)

  for step in range(len(spec.slots) if rounds is None else rounds):
    key = jax.random.fold_in(jax.random.key(seed), step)
    variables = {**variables, 'state': update(variables, key)}
  return variables


def _check_tokens(spec, tokens, num_samples, size):
  np.testing.assert_array_equal(tokens.num_samples, num_samples)
  values = tokens.latents if tokens.codes is None else tokens.codes
  width = spec.dimension if tokens.codes is None else len(spec.slots)
  assert values.shape[0] == len(num_samples) and values.shape[2] == width
  assert values.shape[1] >= spec.frames(size)
  assert np.isfinite(values).all(), 'NaN past an end reached the tokens'
  if tokens.codes is not None:
    assert values.dtype == np.int32
    assert (values >= 0).all() and (values < np.array(spec.vocabularies)).all()
  for row, length in enumerate(num_samples):
    frames = int(spec.frames(length))
    assert not values[row, frames:].any(), 'tokens past an end are not zero'


def _check_row(spec, batch, one, row, length, margins, excluded, tolerance):
  """One row of a batch against the same row by itself."""
  frames = int(spec.frames(length))
  if batch.codes is None:
    actual, expected = one.latents[0, :frames], batch.latents[row, :frames]
    assert_close(actual, expected, tolerance, 'latents of a row alone')
  else:
    actual, expected = one.codes[0, :frames], batch.codes[row, :frames]
    excluded.add(actual, expected, margins[row, :frames], f'row {row}')
  if batch.scales is not None:
    assert_close(
        one.scales[0, :frames], batch.scales[row, :frames], 1e-5, 'scales'
    )


@functools.lru_cache(16)
def _segment_margins(tokenizer):
  given = _MarginsForCodes(tokenizer)
  return jax.jit(
      lambda *rest: tokenizer.segment.encode(given, *rest).codes,
      compiler_options=QUICK,
  )


class _MarginsForCodes:
  """A codec that gives its margins as codes, to `Segments.encode`."""

  def __init__(self, codec):
    self._codec = codec
    self.hop, self.spec = codec.hop, codec.spec

  def quantise(self, *arguments, **options):
    found = self._codec.quantise(*arguments, **options)
    return found.replace(codes=found.margins)
