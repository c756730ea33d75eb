"""Codecs that compile in a second, one for each way of going block by block."""

import dataclasses
import functools

import jax

from audiolm_jax import streaming
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import codec as codec_lib
from audiolm_jax.tokenizers import parts
from audiolm_jax.tokenizers import segments
from audiolm_jax.tokenizers.parts import base as parts_base
from tests.tokenizers import contract

HOP = 16
RATE = 1600


@dataclasses.dataclass(frozen=True)
class Ahead(parts_base.Part):
  """Convolutions that look ahead; over the whole file if `bounded` is not.

  If `causal`, they look back only, but mirror the start.
  """

  decodes: bool = False
  bounded: bool = True
  causal: bool = False
  hop: int = HOP
  channels: int = 1
  dimension: int = 2
  architecture = 'CNN'

  @functools.cached_property
  def layer(self):
    def conv(features, width, stride=1, lookahead=0):
      lookahead = 0 if self.causal else lookahead
      return streaming.Conv(
          features, width, stride, lookahead=lookahead, padding='reflect'
      )

    steps = [conv(8, 7, lookahead=3), streaming.Map(jax.nn.tanh)]
    if not self.decodes:
      steps.append(conv(self.dimension, 2 * HOP, HOP, HOP // 2))
    if not self.bounded:
      lstm = streaming.Lstm(1, bidirectional=True)
      steps += [lstm, streaming.Dense(self.dimension)]
    if self.decodes:
      trim = 0 if self.causal else HOP // 2
      steps.append(streaming.ConvTranspose(8, 2 * HOP, HOP, trim=trim))
      steps.append(conv(1, 5, lookahead=2))
    return streaming.Serial(tuple(steps))


def _ahead(**options):
  return codec_lib.Codec(
      encoder=Ahead(**options),
      bottleneck=bottlenecks.BOTTLENECKS['rvq'](codebooks=3, vocabulary=8),
      decoder=Ahead(decodes=True, **options),
      sample_rate=RATE,
  )


def _causal():
  sizes = {
      'hop': HOP,
      'window': 2 * HOP,
      'window_hop': HOP,
      'width': 8,
      'hidden': 8,
      'kernel': 3,
      'blocks': 1,
  }
  return codec_lib.Codec(
      encoder=parts.ENCODERS['spectral'](dimension=2, **sizes),
      bottleneck=bottlenecks.BOTTLENECKS['rvq'](codebooks=3, vocabulary=8),
      decoder=parts.DECODERS['spectral'](latency=HOP, **sizes),
      sample_rate=RATE,
  )


CODECS = {
    'state': _causal,
    'mirrored': lambda: _ahead(causal=True),
    'reach': _ahead,
    'segments': lambda: dataclasses.replace(
        _ahead(),
        segment=segments.Segments(size=10 * HOP + 4, stride=9 * HOP + 2),
    ),
    'continuous': lambda: dataclasses.replace(
        _ahead(), bottleneck=bottlenecks.BOTTLENECKS['vae'](dimension=3)
    ),
    # Frames of two latents.
    'multi_rate': lambda: dataclasses.replace(
        _ahead(),
        bottleneck=bottlenecks.BOTTLENECKS['multi_rate_rvq'](
            strides=(2, 1), vocabulary=8, dimension=2
        ),
        whole_frames=True,
    ),
    'unbounded': lambda: _ahead(bounded=False),
}


@functools.cache
def codec(name):
  """One of `CODECS`, with variables that give many codes."""
  made = CODECS[name]()
  variables = contract.compiled(made, 'init')(jax.random.key(0))
  return made, contract.with_used_codes(made, variables)
