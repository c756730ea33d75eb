"""Opus (RFC 6716), the codec that everybody has, at a bitrate of choice."""

import io
from typing import NamedTuple

import av
from jaxtyping import Float
import numpy as np
import soxr

from audiolm_jax.audio import files

# What its encoder takes, in Hz.
_RATES = (8000, 12000, 16000, 24000, 48000)
LEAST, MOST = 6_000, 510_000  # bits a second of one channel


class Coded(NamedTuple):
  """What came out.

  Attributes:
    audio: [T] as long as what went in, and in time with it.
    bits: of its packets, without the container's.
  """

  audio: Float[np.ndarray, 'T']
  bits: int


def encode_decode(
    audio: Float[np.ndarray, 'T'], sample_rate: int, bits_per_second: int
) -> Coded:
  """One mono clip through libopus, as FFmpeg calls it by default.

  That is variable bitrate, 20 ms packets, and the application 'audio', which
  unlike 'voip' filters nothing away, so that SI-SDR means something. The
  encoder's delay is cut by the container's pre-skip.

  Args:
    audio: in [-1, 1]; resampled if Opus does not know its rate.
    sample_rate: in Hz.
    bits_per_second: to aim at, from `LEAST` to `MOST`.
  """
  rate = min((r for r in _RATES if r >= sample_rate), default=_RATES[-1])
  samples = _resampled(audio, sample_rate, rate)
  bits, stored = 0, io.BytesIO()
  with av.open(stored, 'w', format='ogg') as container:
    stream = container.add_stream('libopus', rate=rate, layout='mono')
    stream.bit_rate = bits_per_second
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples[None]), format='flt', layout='mono'
    )
    frame.sample_rate = rate
    for part in (frame, None):
      for packet in stream.encode(part):
        bits += 8 * packet.size
        container.mux(packet)
  stored.seek(0)
  with files.decoding(stored, 'Opus') as decoded:
    blocks = [block[:, 0] for block in decoded.blocks]
    rate = decoded.rate
  samples = _resampled(np.concatenate(blocks), rate, sample_rate)[: len(audio)]
  # Rounding may leave it a few samples short.
  return Coded(np.pad(samples, (0, len(audio) - len(samples))), bits)


def _resampled(x, before, after):
  x = x.astype(np.float32)
  return x if before == after else soxr.resample(x, before, after)
