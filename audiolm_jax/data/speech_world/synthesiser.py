"""Utterances to audio: each pulse's spectrum is formed, then all are overlaid.

Spectrum of a pulse = LF source x formants x a delay of less than a sample; the
inverse transforms are added where the pulses are. Noise is made of frames of
random phase and the shape that a consonant asks for.
"""

import functools

from jaxtyping import Complex
from jaxtyping import Float
import numpy as np
from scipy import fft

from audiolm_jax.data.speech_world import engine as engine_lib
from audiolm_jax.data.speech_world import source as source_lib
from audiolm_jax.data.speech_world import utterance as utterance_lib

RATE = engine_lib.RATE
_SIZE = 512  # Samples of a pulse and its ringing.
_BEFORE = 160  # Of them before the moment of closure.
_DELAYS = 256  # Steps of a sample.
_CHUNK = 48  # Pulses at once: what fits a core's cache.
_NOISE_SIZE, _NOISE_HOP = 128, 32
_PHASES = 4096
_BANDWIDTHS = (60.0, 90.0, 150.0)
_HIGHER = (3500.0, 4500.0, 5500.0, 6500.0, 7500.0)
_LEVEL = 0.08  # Of a vowel's pulses: an rms near .1.


def render(utterance: utterance_lib.Utterance) -> Float[np.ndarray, ' T']:
  """The audio at 16 kHz, float32; a function of the utterance alone."""
  tracks = utterance_lib.articulate(utterance)
  rng = np.random.default_rng((16, utterance.noise_seed))
  times = pulse_times(utterance, rng)
  samples = round(utterance.seconds * RATE)
  out = np.zeros(samples + 2 * _SIZE, np.float32)
  _voice(out, utterance, tracks, times, rng)
  _noises(out, utterance, tracks, rng)
  gain = 10 ** (utterance.energy / 20)
  return out[_SIZE : _SIZE + samples] * np.float32(gain)


def pulse_times(
    utterance: utterance_lib.Utterance, rng: np.random.Generator
) -> Float[np.ndarray, ' p']:
  """Seconds of all moments of closure, of silent pulses too."""
  t = np.arange(0, utterance.seconds + 2e-3, 2e-3)
  return source_lib.pulse_times(
      t, utterance.f0(t), utterance.speaker.jitter, rng
  )


@functools.cache
def _circle(size: int):
  """cos and sin of all bins' angles, float32."""
  w = 2 * np.pi * np.arange(size // 2 + 1) / size
  return np.cos(w).astype(np.float32), np.sin(w).astype(np.float32)


def resonance(
    frequency: Float[np.ndarray, ' n'],
    bandwidth: Float[np.ndarray, ' n'] | float,
    size: int,
) -> tuple[Complex[np.ndarray, 'n bins'], Float[np.ndarray, ' n']]:
  """Klatt's resonator as a denominator and a gain, at the bins of a transform.

  Args:
    frequency: Hz.
    bandwidth: Hz.
    size: of the transform at 16 kHz.

  Returns:
    Denominators times e^(i w), a delay of a sample, and the gain that makes the whole 1 at
    0 Hz. The inverse is an antiresonance.
  """
  decay = np.exp(-np.pi * bandwidth / RATE)
  b = (2 * decay * np.cos(2 * np.pi * frequency / RATE)).astype(np.float32)
  c = np.broadcast_to(-(decay**2), b.shape).astype(np.float32)
  cos, sin = _circle(size)
  result = np.empty((len(b), len(cos)), np.complex64)
  np.multiply.outer(1 - c, cos, out=result.real)
  result.real -= b[:, None]
  np.multiply.outer(1 + c, sin, out=result.imag)
  return result, 1 - b - c


@functools.cache
def _higher(scale: float, size: int) -> Complex[np.ndarray, ' bins']:
  """The formants that do not move; those above the band are left out."""
  kept = [f for f in _HIGHER if f * scale < RATE / 2]
  cos, sin = _circle(size)
  # `resonance` is a sample late each, that of the moving formants too.
  result = (cos + 1j * sin) ** (len(kept) + len(_BANDWIDTHS))
  for f in kept:
    below, gain = resonance(np.array([f * scale]), 0.06 * f, size)
    result *= gain[0] / below[0]
  return result.astype(np.complex64)


def _tract(formants: Float[np.ndarray, 'n 3'], scale, size):
  """[n, bins] the tract's response."""
  total, gains = None, 1.0
  for i, bandwidth in enumerate(_BANDWIDTHS):
    below, gain = resonance(formants[:, i], bandwidth, size)
    total = below if total is None else np.multiply(total, below, out=total)
    gains = gains * gain
  return np.divide(
      _higher(scale, size) * gains[:, None].astype(np.float32), total, out=total
  )


def _formants_at(tracks, t):
  points = np.array(tracks.formants)
  return np.stack(
      [np.interp(t, points[:, 0], points[:, i]) for i in (1, 2, 3)], axis=-1
  )


@functools.cache
def _fractions() -> Complex[np.ndarray, 'delays bins']:
  """Delays of i / 256 samples."""
  bins = np.arange(_SIZE // 2 + 1) * 2 * np.pi / _SIZE
  steps = np.arange(_DELAYS)[:, None] / _DELAYS
  return np.exp(-1j * bins * steps).astype(np.complex64)


@functools.cache
def _phases() -> Complex[np.ndarray, ' n']:
  return np.exp(2j * np.pi * np.arange(_PHASES) / _PHASES).astype(np.complex64)


def _random_phases(rng, *shape):
  return _phases()[rng.integers(0, _PHASES, shape, dtype=np.uint16)]


def _source(rd, periods):
  """[p, bins] a pulse's spectrum, for samples at `RATE`."""
  table = source_lib.lf_spectrum(rd)
  bins = np.arange(_SIZE // 2 + 1, dtype=np.float32)
  scale = (periods * RATE / _SIZE * source_lib.PER_HARMONIC).astype(np.float32)
  at = np.minimum(np.multiply.outer(scale, bins), len(table) - 2)
  low = at.astype(np.int32)
  left = table[low]
  left += (at - low) * (table[low + 1] - left)
  left *= (periods * RATE).astype(np.float32)[:, None]
  return left


def _voice(out, utterance, tracks, times, rng):
  """Adds all pulses that are heard."""
  if len(times) < 2:
    return
  voicing = np.array(tracks.voicing)
  heard = np.interp(times, voicing[:, 0], voicing[:, 1])
  periods = np.diff(times, append=2 * times[-1] - times[-2])
  keep = (heard > 1e-3) & (times < utterance.seconds)
  times, periods, heard = times[keep], periods[keep], heard[keep]
  for i in range(0, len(times), _CHUNK):
    part = slice(i, i + _CHUNK)
    _pulses(
        out, utterance.speaker, tracks, times[part], periods[part],
        _LEVEL * heard[part], rng,
    )  # fmt: skip


def _pulses(out, speaker, tracks, times, periods, levels, rng):
  """Adds some pulses."""
  formants = _formants_at(tracks, times)
  spectra = _source(speaker.rd, periods)
  # Noise while the folds are open, as strong as the twentieth harmonic.
  table = source_lib.lf_spectrum(speaker.rd)
  floor = np.abs(table[20 * source_lib.PER_HARMONIC]) * speaker.breath
  noise = _random_phases(rng, *spectra.shape)
  noise *= (floor * periods * RATE).astype(np.float32)[:, None]
  spectra += noise
  spectra *= _tract(formants, speaker.tract, _SIZE)
  for start, end, zero in tracks.nasals:
    rows = (times >= start) & (times < end)
    if rows.any():
      spectra[rows] *= _antiformant(zero)
  for start, end in tracks.closed:
    spectra[(times >= start) & (times < end)] *= _muffle()
  whole = np.floor(times * RATE)
  fraction = ((times * RATE - whole) * _DELAYS).astype(np.int32)
  spectra *= _fractions()[fraction]
  spectra *= levels.astype(np.float32)[:, None]
  waves = fft.irfft(spectra * _shift(), _SIZE, axis=-1)
  for start, wave in zip(
      whole.astype(int) + _SIZE - _BEFORE, waves, strict=True
  ):
    out[start : start + _SIZE] += wave


@functools.cache
def _shift() -> Complex[np.ndarray, ' bins']:
  """Sets the moment of closure `_BEFORE` samples after the frame's start."""
  bins = np.arange(_SIZE // 2 + 1) * 2 * np.pi / _SIZE
  return np.exp(-1j * bins * _BEFORE).astype(np.complex64)


@functools.cache
def _muffle() -> Float[np.ndarray, ' bins']:
  """Low-pass of walls around a closed mouth."""
  bins = np.arange(_SIZE // 2 + 1) * RATE / _SIZE
  return (1 / (1 + (bins / 400) ** 2)).astype(np.float32)


@functools.cache
def _antiformant(zero: float) -> Complex[np.ndarray, ' bins']:
  """A nasal's zero, and the pole above it that restores what lies higher."""
  top, gain = resonance(np.array([zero]), 100.0, _SIZE)
  below, back = resonance(np.array([1.3 * zero]), 200.0, _SIZE)
  return (top[0] / gain[0]) * (back[0] / below[0])


@functools.cache
def _band(low: float, high: float) -> Float[np.ndarray, ' bins']:
  """A band with soft edges, of power 1 in a noise frame."""
  bins = np.arange(_NOISE_SIZE // 2 + 1) * RATE / _NOISE_SIZE
  high = min(high, RATE / 2)
  rise = 1 / (1 + np.exp(-(bins - low) / 150))
  fall = 1 / (1 + np.exp((bins - high) / 150))
  return _unit((rise * fall)[None])[0]


def _unit(shapes):
  """Shapes whose noise has an rms of 1 after windows are overlaid."""
  power = np.sqrt(2 * (shapes**2).sum(-1, keepdims=True)) / _NOISE_SIZE
  return (shapes / power / np.sqrt(1.5)).astype(np.float32)


@functools.cache
def _window() -> Float[np.ndarray, ' n']:
  t = (np.arange(_NOISE_SIZE) + 0.5) / _NOISE_SIZE
  return (np.sin(np.pi * t) ** 2).astype(np.float32)


def _noises(out, utterance, tracks, rng):
  """Adds bursts, frication and aspiration."""
  shapes, starts = [], []
  scale = utterance.speaker.tract
  for noise in tracks.noises:
    first = int(np.ceil(noise.start * RATE / _NOISE_HOP))
    last = max(first + 1, int(noise.end * RATE / _NOISE_HOP))
    t = np.arange(first, last) * _NOISE_HOP / RATE
    if noise.burst:
      envelope = np.exp(-(t - noise.start) / 0.005)
    else:
      edges = np.minimum(t - noise.start, noise.end - t) / 0.015
      envelope = np.clip(edges, 0, 1)
    if noise.band[1]:
      shape = _band(*noise.band)[None]
    else:
      shape = np.abs(_tract(_formants_at(tracks, t), scale, _NOISE_SIZE))
      # The folds are open: the first formant is damped.
      shape = _unit(shape * _damped())
    level = (envelope * noise.amplitude).astype(np.float32)
    shapes.append(shape * level[:, None])
    starts.append(np.arange(first, last) * _NOISE_HOP)
  if not shapes:
    return
  shapes = np.concatenate(shapes)
  spectra = shapes * _random_phases(rng, *shapes.shape)
  waves = fft.irfft(spectra, _NOISE_SIZE, axis=-1) * _window()
  begin = np.concatenate(starts) + _SIZE - _NOISE_SIZE // 2
  for start, wave in zip(begin, waves, strict=True):
    out[start : start + _NOISE_SIZE] += wave


@functools.cache
def _damped() -> Float[np.ndarray, ' bins']:
  bins = np.arange(_NOISE_SIZE // 2 + 1) * RATE / _NOISE_SIZE
  return (1 / (1 + (700 / np.maximum(bins, 1)) ** 2)).astype(np.float32)
