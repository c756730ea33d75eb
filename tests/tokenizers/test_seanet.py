"""SEANet codecs: EnCodec's, stereo in segments, Mimi's; lengths and steps."""

import jax
import jax.numpy as jnp
import pytest

from audiolm_jax import config
from audiolm_jax.tokenizers.parts import transformer as transformer_lib
from audiolm_jax.streaming import testing
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers import parts
from audiolm_jax.tokenizers import segments
from tests.tokenizers import contract

_SIZES = {'filters': 2, 'dimension': 6, 'ratios': (3, 2)}
_MIMI = {
    **_SIZES,
    'dimension': 8,
    'lstm_layers': 0,
    'last_kernel': 3,
    'resample': 2,
    'transformer': transformer_lib.Transformer(
        layers=1, heads=2, mlp_width=8, window=4, layer_scale=0.3
    ),
}
_STEREO = {
    **_SIZES,
    'channels': 2,
    'causal': False,
    'padding': 'reflect',
    'norm': 'time_group',
    'lstm_layers': 1,
    'conv_shortcut': True,
}


def _codec(sizes, quantiser, **options):
  return codec_lib.Codec(
      encoder=parts.ENCODERS['seanet'](**sizes),
      bottleneck=quantiser,
      decoder=parts.DECODERS['seanet'](**sizes),
      **options,
  )


def _rvq(vocabulary=12):
  return bottlenecks.BOTTLENECKS['rvq'](codebooks=2, vocabulary=vocabulary)


CODECS = {
    'encodec': _codec(
        {**_SIZES, 'padding': 'reflect', 'conv_shortcut': True}, _rvq()
    ),
    'audiocraft': _codec({**_SIZES, 'norm': 'weight'}, _rvq()),
    'speechtokenizer': codec_lib.Codec(
        encoder=parts.ENCODERS['seanet'](**_SIZES, bidirectional=True),
        bottleneck=_rvq(),
        decoder=parts.DECODERS['seanet'](**_SIZES),
    ),
    # Few codes: frames of short segments are alike, and would be near ties.
    'stereo': _codec(_STEREO, _rvq(6), segment=segments.Segments(60, 54)),
    'mimi': _codec(
        _MIMI,
        bottlenecks.BOTTLENECKS['split_rvq'](
            acoustic=2, vocabulary=12, dimension=4
        ),
    ),
}


@pytest.mark.parametrize('name', CODECS)
def test_codecs_hold_the_contract(name):
  codec = CODECS[name]
  fresh = contract.compiled(codec, 'init')(jax.random.key(0))
  variables = contract.with_used_codes(codec, fresh)
  contract.assert_tokenizer_contract(codec, variables)


def test_which_ones_stream():
  streaming = {name for name, codec in CODECS.items() if codec.steppable}
  assert streaming == {'audiocraft', 'mimi'}
  # It mirrors the start of the audio, and steps once there is enough of it.
  assert CODECS['encodec'].min_step == 7
  for name in ('stereo', 'speechtokenizer'):
    with pytest.raises(ValueError, match='no steps'):
      CODECS[name].initial_state(1)


@pytest.mark.parametrize('part', ['encoder', 'decoder'])
def test_mimis_networks_keep_the_streaming_contract(part):
  codec = CODECS['mimi']
  width = {'encoder': 1, 'decoder': codec.encoder.dimension}[part]
  testing.assert_streaming_contract(
      getattr(codec, part).layer,
      jax.ShapeDtypeStruct((width,), jnp.float32),
      blocks=4,
      step_blocks=(2,),
      tolerance=3e-5,
  )


def test_hops_and_rates():
  assert CODECS['mimi'].spec.hop == 12
  assert CODECS['encodec'].spec.hop == 6
  stereo = CODECS['stereo'].spec
  # 10 frames every 54 samples.
  assert stereo.frame_rate == pytest.approx(16000 / 54 * 10)
  assert [stereo.frames(n) for n in (0, 1, 54, 55, 61)] == [0, 1, 9, 11, 12]


def test_parts_must_fit():
  with pytest.raises(config.ConfigError, match='width 8'):
    codec_lib.Codec(
        encoder=parts.ENCODERS['seanet'](**_SIZES),
        bottleneck=_rvq(),
        decoder=parts.DECODERS['seanet'](**{**_SIZES, 'dimension': 8}),
    )
