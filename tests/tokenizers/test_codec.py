"""The codec: contract, lengths, steps, low-rank leaves, fingerprint."""

import dataclasses

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax import streaming
from audiolm_jax import tokenizers
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import fingerprints
from audiolm_jax.streaming import testing
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import parts
from tests import margin_rule

HOP = 32
# Enough for a near tie not to be 1% of their codes.
FRAMES = 60
# As the real one, small: two windows a frame, a block on either side.
_SIZES = {
    'hop': HOP,
    'window': 64,
    'window_hop': 16,
    'width': 16,
    'hidden': 24,
    'kernel': 3,
    'blocks': 1,
}
CODEC = tokenizers.TOKENIZERS['codec'](
    encoder=parts.ENCODERS['spectral'](dimension=8, **_SIZES),
    bottleneck=bottlenecks.BOTTLENECKS['rvq'](codebooks=3, vocabulary=32),
    decoder=parts.DECODERS['spectral'](latency=HOP, **_SIZES),
)


@pytest.fixture(scope='module')
def variables():
  """Random weights, and codebooks taken from what the encoder says of noise."""
  init = jax.jit(
      CODEC.init, compiler_options={'xla_backend_optimization_level': 0}
  )
  fresh = flax.core.meta.unbox(init(jax.random.key(0)))
  rng = np.random.default_rng(0)
  audio = rng.standard_normal((4, 40 * HOP, 1)).astype(np.float32)
  num_samples = np.full(4, 40 * HOP)
  mask = np.ones((4, 40), bool)
  state = fresh['state']
  encode = jax.jit(CODEC.quantise)
  for step in range(CODEC.bottleneck.codebooks):
    key = jax.random.fold_in(jax.random.key(1), step)
    quantised = encode({**fresh, 'state': state}, audio, num_samples)
    statistics = CODEC.bottleneck.statistics(quantised, mask, key)
    state = CODEC.bottleneck.update(state, statistics, key)
  return {'params': fresh['params'], 'state': state}


@pytest.fixture(scope='module')
def codec(variables):
  return audio_tokenizer.AudioTokenizer(CODEC, variables)


@pytest.fixture(scope='module')
def batch():
  """Rows of awkward lengths; NaN past their ends."""
  rng = np.random.default_rng(1)
  num_samples = np.array(
      [0, 1, HOP - 1, HOP, HOP + 1, 37 * HOP + 7, FRAMES * HOP]
  )
  shape = (len(num_samples), FRAMES * HOP, 1)
  audio = rng.standard_normal(shape).astype(np.float32)
  audio[np.arange(FRAMES * HOP) >= num_samples[:, None]] = np.nan
  return audio, num_samples


def test_codes_are_not_trivial(codec, batch):
  audio, num_samples = batch
  codes = codec.encode(audio, num_samples).codes
  used = [len(np.unique(codes[..., k])) for k in range(3)]
  assert min(used) >= 6, used


def test_spec(codec):
  assert codec.spec.frame_rate == 500
  assert codec.spec.bits_per_second == 500 * 3 * 5
  assert tokenizers_base.Spec.from_dict(codec.spec.to_dict()) == codec.spec
  assert CODEC.decoder.layer.output_latency == codec.spec.latency
  assert CODEC.encoder.layer.output_latency == 0
  assert CODEC.encoder.layer.block_size == HOP


def test_padded_batch_equals_rows_one_by_one(codec, batch):
  audio, num_samples = batch
  tokens = codec.encode(audio, num_samples)
  margins = jax.jit(CODEC.quantise)(codec.variables, audio, num_samples).margins
  np.testing.assert_array_equal(tokens.num_samples, num_samples)
  assert tokens.codes.shape == (len(num_samples), FRAMES, 3)
  decoded, decoded_lengths = codec.decode(tokens)
  np.testing.assert_array_equal(decoded_lengths, num_samples)
  assert np.isfinite(decoded).all()
  for row, length in enumerate(num_samples):
    frames = -(-length // HOP)
    assert codec.spec.frames(length) == frames
    one = codec.encode(audio[row : row + 1, :length])
    assert one.codes.shape == (1, frames, 3)
    margin_rule.assert_same_codes(
        tokens.codes[row, :frames], one.codes[0], margins[row, :frames]
    )
    assert not tokens.codes[row, frames:].any()
    given = tokenizers_base.Tokens(
        num_samples=num_samples[row : row + 1],
        codes=tokens.codes[row : row + 1, :frames],
    )
    alone, (alone_length,) = codec.decode(given)
    assert alone.shape == (1, frames * HOP, 1)
    assert alone_length == length
    np.testing.assert_allclose(
        alone[0, :length], decoded[row, :length], atol=1e-5
    )
    assert not decoded[row, length:].any()


@pytest.mark.parametrize('frames_a_step', [1, 2])
def test_steps_equal_the_whole(codec, frames_a_step):
  rng = np.random.default_rng(2)
  frames, size = FRAMES, frames_a_step * HOP
  audio = rng.standard_normal((2, frames * HOP, 1)).astype(np.float32)
  num_samples = np.array([frames * HOP, 35 * HOP + 3])
  mask = np.arange(frames * HOP) < num_samples[:, None]
  tokens = codec.encode(audio, num_samples)
  whole, _ = codec.decode(tokens)
  state = CODEC.initial_state(2)
  encode, decode = jax.jit(CODEC.encode_step), jax.jit(CODEC.decode_step)
  codes = []
  for start in range(0, frames * HOP, size):
    here = slice(start, start + size)
    step, _, state['encode'] = encode(
        codec.variables, audio[:, here], mask[:, here], state['encode']
    )
    codes.append(step)
  margins = jax.jit(CODEC.quantise)(codec.variables, audio, num_samples).margins
  valid = np.array(streaming.length_mask(-(-num_samples // HOP), frames))
  margin_rule.assert_same_codes(
      np.concatenate(codes, axis=1)[valid],
      tokens.codes[valid],
      np.asarray(margins)[valid],
  )
  # Two more blocks flush the lag of one frame.
  given = np.pad(tokens.codes, ((0, 0), (0, 2), (0, 0)))
  valid = np.pad(valid, ((0, 0), (0, 2)))
  sounds = []
  for start in range(0, frames + 2, frames_a_step):
    here = slice(start, start + frames_a_step)
    sound, _, state['decode'] = decode(
        codec.variables, given[:, here], valid[:, here], state['decode']
    )
    sounds.append(sound)
  latency = codec.spec.latency
  sound = np.concatenate(sounds, axis=1)[:, latency : latency + frames * HOP]
  sound = np.where(mask[..., None], sound, 0.0)
  np.testing.assert_allclose(sound, whole, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize('part', ['encoder', 'decoder'])
def test_networks_keep_the_streaming_contract(part, variables):
  width = {'encoder': 1, 'decoder': CODEC.encoder.dimension}[part]
  testing.assert_streaming_contract(
      getattr(CODEC, part).layer,
      jax.ShapeDtypeStruct((width,), jnp.float32),
      variables={'params': variables['params'][part]},
      step_blocks=(2,),
      # Phases far from zero amplify rounding.
      tolerance=1e-4,
  )


def test_low_rank_leaves_change_nothing_until_they_move(variables, batch):
  audio, num_samples = batch
  audio = np.nan_to_num(audio)

  def lora(w):
    if w.ndim < 2:
      return w
    a = jax.random.normal(jax.random.key(3), (*w.shape[:-1], 2))
    return ops.LoraTensor(w=w, a=a, b=jnp.zeros((2, w.shape[-1])))

  adapted = {**variables, 'params': jax.tree.map(lora, variables['params'])}
  run = jax.jit(lambda v: CODEC.quantise(v, audio, num_samples).latents)
  sound = jax.jit(
      lambda v: CODEC.decode_latents(v['params'], run(variables), num_samples)
  )
  np.testing.assert_allclose(run(adapted), run(variables), atol=1e-5)
  expected = sound(variables)
  np.testing.assert_allclose(sound(adapted), expected, atol=1e-5)
  moved = ops.map_weights(
      lambda w: w.replace(b=w.b + 0.1) if ops.weights.is_weight(w) else w,
      adapted['params'],
  )
  other = sound({**adapted, 'params': moved})
  assert np.abs(other - expected).max() > 1e-3


def test_prefixes_of_the_codes_decode(codec, batch):
  audio, num_samples = batch
  tokens = codec.encode(audio, num_samples)
  first = tokens.replace(codes=tokens.codes[..., :1])
  latents = jnp.take(
      codec.variables['state'].codebooks[0], first.codes[..., 0], 0
  )
  decode = jax.jit(CODEC.decode_latents)
  expected = decode(codec.variables['params'], latents, num_samples)
  np.testing.assert_allclose(codec.decode(first)[0], expected, atol=1e-5)


def test_bound_tokenizer_takes_one_clip_and_refuses_other_shapes(codec):
  rng = np.random.default_rng(0)
  clip = rng.standard_normal(100).astype(np.float32)
  tokens = codec.encode(clip)
  assert tokens.codes.shape == (1, 4, 3)
  assert codec.decode(tokens)[0].shape == (1, 128, 1)
  with pytest.raises(ValueError, match=r'\[B, T, 1\]'):
    codec.encode(np.zeros((1, 100, 2), np.float32))


def test_fingerprint_changes_with_variables_and_config(codec, variables):
  before = codec.fingerprint()
  assert before == fingerprints.of(CODEC, variables) and len(before) == 64
  moved = jax.tree.map(lambda x: x, variables)
  moved['params']['encoder']['layers_3']['bias'] += 1e-3
  assert fingerprints.of(CODEC, moved) != before
  decoder = dataclasses.replace(CODEC.decoder, latency=0)
  other = dataclasses.replace(CODEC, decoder=decoder)
  assert fingerprints.of(other, variables) != before


def test_padded_frames_grow_by_half_octaves():
  sizes = [audio_tokenizer.padded_frames(n) for n in range(2000)]
  assert all(size >= n for n, size in enumerate(sizes))
  assert all(size <= 1.5 * n for n, size in enumerate(sizes) if n > 32)
  assert len(set(sizes)) < 16


def test_parts_that_do_not_fit_are_refused():
  decoder = parts.DECODERS['spectral']
  with pytest.raises(config.ConfigError, match='must divide'):
    decoder(hop=300)
  with pytest.raises(config.ConfigError, match='latency = 500'):
    decoder(latency=500)
  with pytest.raises(config.ConfigError, match='hop 32 and 1 channels'):
    dataclasses.replace(CODEC, decoder=decoder())
  encoder = parts.ENCODERS['vocos'](hop=HOP, size=64, dimension=8)
  with pytest.raises(config.ConfigError, match='24000, .*encoder 16000'):
    dataclasses.replace(CODEC, encoder=encoder, sample_rate=24000)


@pytest.mark.parametrize('kind', ['spectral', 'vocos'])
def test_depthwise_kernels_start_as_convnexts_do(kind):
  layer = parts.DECODERS[kind](width=256, hidden=4, blocks=1, kernel=7).layer
  x, mask = jnp.zeros((1, 2, 128)), jnp.ones((1, 2), bool)
  found = jax.tree.leaves(jax.jit(layer.init)(jax.random.key(0), x, mask))
  kernels = [leaf for leaf in found if leaf.shape == (7, 1, 256)]
  assert kernels
  for kernel in kernels:
    assert np.std(kernel) == pytest.approx(0.02, rel=0.1)
