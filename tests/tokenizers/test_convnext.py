"""ConvNeXt codecs in the time domain: the contract, and what they reach."""

import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers import parts
from tests.tokenizers import contract

HOP = 6


def test_contract():
  sizes = {
      'dimension': 3,
      'filters': 2,
      'kernel': 3,
      'expansion': 2,
      'layer_scale': 0.5,
  }
  codec = codec_lib.Codec(
      encoder=parts.ENCODERS['convnext'](
          strides=(2, 3), depths=(1, 1, 1), **sizes
      ),
      bottleneck=bottlenecks.SigmaVae(dimension=3, project=False),
      decoder=parts.DECODERS['convnext'](
          strides=(3, 2), depths=(1, 1, 1), **sizes
      ),
      sample_rate=600,
      whole_frames=True,
  )
  assert codec.steppable and codec.hop == HOP and codec.spec.causal
  variables = contract.compiled(codec, 'init')(jax.random.key(0))
  num_samples = [0, 1, HOP + 1, 4 * HOP - 3]
  contract.assert_tokenizer_contract(codec, variables, num_samples=num_samples)


def test_the_published_size():
  """7.5 frames a second; 2508.19205 has about 340 million weights a part."""
  encoder, decoder = (
      table['convnext']() for table in (parts.ENCODERS, parts.DECODERS)
  )
  assert encoder.hop == decoder.hop == 3200 == 24000 / 7.5
  codec = codec_lib.Codec(
      encoder=encoder,
      bottleneck=bottlenecks.SigmaVae(project=False),
      decoder=decoder,
      sample_rate=24000,
      whole_frames=True,
  )
  shapes = jax.eval_shape(codec.init, jax.random.key(0))['params']
  for part in ('encoder', 'decoder'):
    count = sum(np.prod(x.shape) for x in jax.tree.leaves(shapes[part]))
    assert 3.2e8 < count < 3.6e8, count


def test_depths_are_one_more_than_strides():
  with pytest.raises(config.ConfigError, match='one more than the 2 strides'):
    parts.ENCODERS['convnext'](strides=(2, 3), depths=(1, 2))
