"""What happens to speech on its way: rooms, noises, bands, clipping, codecs.

Every choice is from a short list and every random part from a numbered seed,
so that a channel has an entropy.
"""

from collections.abc import Mapping
import dataclasses
import functools
import io
import math

from jaxtyping import Float
import numpy as np
from scipy import signal
import soundfile

from audiolm_jax.audio import resample
from audiolm_jax.data.speech_world import engine as engine_lib
from audiolm_jax.ops import companding

RATE = engine_lib.RATE
ROOMS = (0.0, 0.2, 0.4, 0.8)  # RT60 in seconds; 0 is none.
NOISES = (
    '',
    *(f'{k}-{snr}' for k in ('white', 'pink', 'hum') for snr in (20, 10, 0)),
)
BANDS = {'wide': (0, 8000), 'narrow': (0, 4000), 'telephone': (300, 3400)}
CLIPPING = (1.0, 0.25)  # Of the peak; 1 is none.
BITS = (0, 8, 5)  # Of mu-law; 0 is none.
# Three that differ in kind. GSM 6.10 (13 kbit/s at 8 kHz) codes how the tract
# is excited, IMA ADPCM (64 kbit/s) each sample's step, Vorbis (30 kbit/s) a
# spectrum. Container and subtype of libsndfile, sample rate in Hz.
_CODECS = {
    'gsm': ('WAV', 'GSM610', 8000),
    'adpcm': ('WAV', 'IMA_ADPCM', RATE),
    'vorbis': ('OGG', 'VORBIS', RATE),
}
CODECS = ('', *_CODECS)  # '' is none.
SEEDS = 4
_REVERBERANT = 0.5  # Share of a room's energy that is not direct.


@dataclasses.dataclass(frozen=True)
class Channel:
  """One way; the default leaves speech as it is.

  Attributes:
    room: RT60 in seconds, 0 for none; in `ROOMS`, or any other to test on.
    room_seed: which of the rooms of that RT60.
    noise: 'KIND-SNR' with a kind of white, pink and hum and dB, '' for none.
    noise_seed: which of the noises.
    band: a name in `BANDS`.
    clipping: the level, as a share of the peak, that is cut; 1 for none.
    bits: of mu-law; 0 for none.
    codec: a name in `CODECS`, '' for none.
  """

  room: float = 0.0
  room_seed: int = 0
  noise: str = ''
  noise_seed: int = 0
  band: str = 'wide'
  clipping: float = 1.0
  bits: int = 0
  codec: str = ''


def draw(rng: np.random.Generator) -> Channel:
  """A channel, every list drawn from uniformly."""

  def one(values):
    return values[int(rng.integers(len(values)))]

  room, noise = one(ROOMS), one(NOISES)
  room_seed, noise_seed = (int(rng.integers(SEEDS)) for _ in range(2))
  return Channel(
      room=room,
      room_seed=room_seed if room else 0,
      noise=noise,
      noise_seed=noise_seed if noise else 0,
      band=one(tuple(BANDS)),
      clipping=one(CLIPPING),
      bits=one(BITS),
      codec=one(CODECS),
  )


def entropies() -> Mapping[str, float]:
  """Bits of each part of a drawn channel."""
  seed = math.log2(SEEDS)
  return {
      'room': math.log2(len(ROOMS)) + seed * (1 - 1 / len(ROOMS)),
      'noise': math.log2(len(NOISES)) + seed * (1 - 1 / len(NOISES)),
      'band': math.log2(len(BANDS)),
      'clipping': math.log2(len(CLIPPING)),
      'mu-law': math.log2(len(BITS)),
      'codec': math.log2(len(CODECS)),
  }


def apply(
    audio: Float[np.ndarray, ' T'], channel: Channel
) -> Float[np.ndarray, ' T']:
  """The audio behind a channel, as long and float32, within [-1, 1].

  In this order: room, noise, band, clipping, codec, mu-law.

  Raises:
    ValueError: for a noise, a band or a codec that is none.
  """
  if channel.room:
    response = room_response(channel.room, channel.room_seed)
    audio = signal.fftconvolve(audio, response)[: len(audio)]
  if channel.noise:
    kind, _, snr = channel.noise.partition('-')
    noise = _noise(kind, len(audio), channel.noise_seed)
    power = np.mean(np.square(audio)) / 10 ** (float(snr) / 10)
    audio = audio + noise * math.sqrt(power / np.mean(np.square(noise)))
  if channel.band not in BANDS:
    raise ValueError(f'no band {channel.band!r}, but {list(BANDS)}')
  if channel.band != 'wide':
    audio = signal.sosfiltfilt(_filter(channel.band), audio)
  if channel.clipping < 1:
    level = channel.clipping * np.abs(audio).max()
    audio = np.clip(audio, -level, level)
  # A louder part than full scale: noise at 0 dB may be.
  audio = audio / max(1.0, np.abs(audio).max())
  if channel.codec:
    audio = coded(audio, channel.codec)
  if channel.bits:
    audio = mu_law(audio, channel.bits)
  return audio.astype(np.float32)


@functools.cache
def room_response(rt60: float, seed: int) -> Float[np.ndarray, ' n']:
  """A room's response: direct sound, then noise that decays by 60 dB in RT60.

  Its energy is 1, half of it direct.

  Args:
    rt60: seconds.
    seed: which room.
  """
  rng = np.random.default_rng((60, round(rt60 * 1000), seed))
  size = int(1.2 * rt60 * RATE)
  t = np.arange(size) / RATE
  tail = rng.standard_normal(size) * np.exp(-3 * math.log(10) * t / rt60)
  tail[: int(0.002 * RATE)] = 0  # Before the first wall.
  tail *= math.sqrt(_REVERBERANT / np.sum(tail**2))
  tail[0] = math.sqrt(1 - _REVERBERANT)
  return tail


def rt60(response: Float[np.ndarray, ' n']) -> float:
  """Seconds to decay by 60 dB, by Schroeder's integral from -5 to -25 dB."""
  energy = np.cumsum(response[::-1] ** 2)[::-1]
  level = 10 * np.log10(energy / energy[0] + 1e-12)
  part = (level < -5) & (level > -25)
  slope = np.polyfit(np.nonzero(part)[0] / RATE, level[part], 1)[0]
  return -60 / slope


def _noise(kind, samples, seed):
  rng = np.random.default_rng((61, seed))
  if kind == 'white':
    return rng.standard_normal(samples)
  if kind == 'pink':
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    spectrum[0] = 0
    return np.fft.irfft(spectrum, samples)
  if kind == 'hum':  # Mains and its harmonics, with phases of their own.
    t = np.arange(samples) / RATE
    phases = rng.uniform(0, 2 * np.pi, 8)
    return sum(
        np.sin(2 * np.pi * 50 * (i + 1) * t + phase) / (i + 1)
        for i, phase in enumerate(phases)
    )
  raise ValueError(f'no noise {kind!r}, but white, pink and hum')


@functools.cache
def _filter(band):
  low, high = BANDS[band]
  if low:
    return signal.butter(6, (low, high), 'bandpass', fs=RATE, output='sos')
  return signal.butter(8, high, 'lowpass', fs=RATE, output='sos')


def mu_law(
    audio: Float[np.ndarray, ' T'], bits: int
) -> Float[np.ndarray, ' T']:
  """Audio in [-1, 1] after mu-law with 2^bits levels, mu = 2^bits - 1."""
  mu = 2**bits - 1
  companded = companding.compress(audio, mu)
  steps = np.round((companded + 1) / 2 * mu) / mu * 2 - 1
  return companding.expand(steps, mu)


def coded(
    audio: Float[np.ndarray, ' T'], codec: str
) -> Float[np.ndarray, ' T']:
  """Audio through a codec and back, in time with it and as long.

  Args:
    audio: at `RATE`, in [-1, 1].
    codec: a name in `CODECS`.

  Raises:
    ValueError: for another one.
  """
  if codec not in _CODECS:
    raise ValueError(f'no codec {codec!r}, but {list(_CODECS)}')
  container, subtype, rate = _CODECS[codec]
  options = {'format': container, 'subtype': subtype}
  if codec == 'vorbis':
    options['compression_level'] = 1.0  # libsndfile's: the least bits.
  stored = io.BytesIO()
  with soundfile.SoundFile(stored, 'w', rate, 1, **options) as file:
    file.write(resample.mono(audio[:, None], RATE, rate))
  stored.seek(0)
  decoded, _ = soundfile.read(stored, dtype='float32', always_2d=True)
  decoded = resample.mono(decoded, rate, RATE)[: len(audio)]
  # Blocks may end short of it by rounding; a transform may exceed full scale.
  decoded = np.pad(decoded, (0, len(audio) - len(decoded)))
  return np.clip(decoded, -1, 1)
