"""DAC's, Oobleck's and SNAC's encoders and decoders in codecs, shrunk."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import streaming
from audiolm_jax.streaming import testing
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers import parts
from audiolm_jax.tokenizers.parts import snac
from audiolm_jax.training import mesh as mesh_lib
from tests.tokenizers import contract

_FACTORISED = {'codebooks': 3, 'vocabulary': 16, 'dimension': 4}


def _codec(encoder, bottleneck, decoder, kind='dac'):
  bottleneck_kind, fields = bottleneck
  return codec_lib.Codec(
      encoder=parts.ENCODERS[kind](**encoder),
      bottleneck=bottlenecks.BOTTLENECKS[bottleneck_kind](**fields),
      decoder=parts.DECODERS[kind](**decoder),
      sample_rate=1600,
      whole_frames=True,
  )


def _dac(strides, causal=False, **options):
  shared = {'dimension': 8, 'dilations': (3,), 'causal': causal}
  widths = (4, 4, 8)[: len(strides) + 1]
  return _codec(
      {'widths': widths, 'strides': strides, **shared},
      ('factorised_rvq', _FACTORISED),
      {'widths': widths[::-1], 'strides': strides[::-1], **shared, **options},
  )


def _oobleck():
  shared = {
      'channels': 2,
      'strides': (2,),
      'dilations': (3,),
      'activation': 'snake_beta',
  }
  return _codec(
      {'dimension': 8, 'widths': (4, 8), **shared},
      ('vae', {'dimension': 4, 'project': False}),
      {
          'dimension': 4,
          'widths': (8, 4),
          'tanh': False,
          'last_bias': False,
          **shared,
      },
  )


def _snac():
  shared = {
      'dimension': 64,
      'strides': (3,),
      'dilations': (1,),
      'attention_window': 6,
  }
  fields = {'strides': (4, 2, 1), 'vocabulary': 16, 'dimension': 4}
  return _codec(
      {'widths': (4, 64), **shared},
      ('multi_rate_rvq', {'multiple': 6, **fields}),
      {'widths': (64, 4), **shared},
      'snac',
  )


CODECS = {
    'dac': lambda: _dac((2, 3)),
    'dac that drops': lambda: _dac((3,), drop_samples=True),
    'causal dac': lambda: _dac((3, 2), causal=True),
    'oobleck': _oobleck,
    'snac': _snac,
}


@functools.cache
def _made(name):
  """A codec and variables, every one moved from where it starts."""
  codec = CODECS[name]()
  rng = np.random.default_rng(0)

  def value(path, leaf):
    noise = rng.normal(size=leaf.shape).astype(np.float32)
    last = mesh_lib.key(path).rpartition('.')[2]
    if last in ('gain', 'scale') or (last == 'alpha' and name != 'oobleck'):
      return 0.7 + 0.2 * np.tanh(noise)
    if last in ('bias', 'alpha', 'beta'):
      # Small, so that codes tell frames apart.
      return 0.02 * noise
    return noise / np.sqrt(np.prod(leaf.shape[-3:-1]))

  # Compiling init would take most of the time.
  abstract = nn.meta.unbox(jax.eval_shape(codec.init, jax.random.key(0)))
  return codec, jax.tree_util.tree_map_with_path(value, abstract)


@pytest.mark.parametrize('name', sorted(CODECS))
def test_the_contract_of_tokenizers_holds(name):
  codec, variables = _made(name)
  assert codec.steppable == ('causal' in name)
  contract.assert_tokenizer_contract(
      codec, variables, drops=name.endswith('drops')
  )
  if codec.spec.slots:
    x = contract.noise(codec.spec, np.array([40 * codec.hop]))
    encode = contract.compiled(codec, 'encode')
    codes = np.asarray(encode(variables, x, np.array([x.shape[1]])).codes)
    for k in range(codes.shape[-1]):
      assert len(np.unique(codes[..., k])) > 4


def _unit(name, causal):
  """(one of the units with an odd stride, its width)."""
  options = {'dilations': (3,), 'kernel': 3, 'causal': causal}
  return {
      'down': lambda: (parts.ENCODERS['dac'](**options).down(2, 3, 3), 2),
      'up': lambda: (parts.DECODERS['dac'](**options).up(2, 3), 3),
      'up that drops': lambda: (
          parts.DECODERS['dac'](**options).up(2, 3, 1),
          3,
      ),
      'window': lambda: (snac.WindowAttention(3), 64),
      'noise': lambda: (snac.Noise(streaming.Conv(2, 1)), 2),
  }[name]()


@pytest.mark.parametrize('name', ['down', 'up', 'window', 'noise'])
def test_causal_units_keep_the_streaming_contract(name):
  layer, width = _unit(name, causal=True)
  spec = jax.ShapeDtypeStruct((width,), jnp.float32)
  testing.assert_streaming_contract(layer, spec)


@pytest.mark.parametrize('name', ['down', 'up', 'up that drops'])
def test_units_that_look_ahead_keep_the_contract_of_layers(name):
  layer, width = _unit(name, causal=False)
  assert not layer.steppable
  spec = jax.ShapeDtypeStruct((width,), jnp.float32)
  testing.assert_layer_contract(layer, spec)


def test_published_sizes_have_their_names():
  """Strides, rates and slots of the models that people load."""
  codec = codec_lib.Codec(
      encoder=parts.ENCODERS['dac'](),
      bottleneck=bottlenecks.BOTTLENECKS['factorised_rvq'](),
      decoder=parts.DECODERS['dac'](),
      sample_rate=44100,
      whole_frames=True,
  )
  assert codec.hop == 512
  assert len(codec.spec.slots) == 9
  assert 7_700 < codec.spec.bits_per_second < 7_800


def test_noise_sounds_with_a_key_only():
  codec, variables = _made('snac')
  latents = np.random.default_rng(0).normal(size=(2, 12, 64)).astype(np.float32)
  mask = np.ones((2, 12), bool)

  @functools.partial(jax.jit, compiler_options=contract.QUICK)
  def sound(context):
    params = {'params': variables['params']['decoder']}
    return codec.decoder.layer.apply(params, latents, mask, context)[0]

  still = sound(None)
  first, second = (sound({'noise': jax.random.key(i)}) for i in range(2))
  assert np.abs(first - still).max() > 1e-3
  assert np.abs(first - second).max() > 1e-3


def test_what_does_not_fit_is_refused():
  encoder, decoder = parts.ENCODERS['dac'], parts.DECODERS['dac']
  with pytest.raises(config.ConfigError, match='one more than the 3 strides'):
    encoder(strides=(2, 2, 2))
  with pytest.raises(config.ConfigError, match='kernel = 4'):
    encoder(kernel=4)
  with pytest.raises(config.ConfigError, match='not causal'):
    decoder(causal=True, drop_samples=True)
  with pytest.raises(config.ConfigError, match='last width, 768'):
    parts.ENCODERS['snac'](dimension=64)
  with pytest.raises(config.ConfigError, match='heads of 64'):
    _ = parts.DECODERS['snac'](
        widths=(96, 8), strides=(2,), attention_window=4
    ).layer
