"""The first engine: our own synthesiser, of which everything is known."""

import dataclasses
import math

from audiolm_jax.data.speech_world import engine as engine_lib
from audiolm_jax.data.speech_world import phones as phones_lib
from audiolm_jax.data.speech_world import speakers
from audiolm_jax.data.speech_world import synthesiser
from audiolm_jax.data.speech_world import utterance as utterance_lib

RATES = (0.9, 1.0, 1.12, 1.25)
F0_RANGES = (0.7, 1.0, 1.4)
NOISE_SEEDS = 16
LONGER = 0.1  # Probability that a phone lasts a step more.


class SourceFilter(engine_lib.Engine):
  """Pulses of the LF model through formants: utterances are `Utterance`s."""

  pools = speakers.POOLS
  held_out = 'held_out'

  def speakers(self, pool):
    return speakers.pool(pool)

  def draw(self, rng, pool, words):
    speaker = engine_lib.pick(rng, self.speakers(pool))
    rate, energy, f0_range = (
        engine_lib.pick(rng, values)
        for values in (RATES, engine_lib.ENERGIES, F0_RANGES)
    )
    noise_seed = int(rng.integers(NOISE_SEEDS))
    accents = rng.integers(len(utterance_lib.ACCENTS), size=len(words))
    longer = rng.random(sum(map(len, words))) < LONGER
    return utterance_lib.plan(
        speaker,
        words,
        rate=rate,
        longer=longer.astype(int).tolist(),
        accents=accents.tolist(),
        f0_range=f0_range,
        energy=energy,
        noise_seed=noise_seed,
    )

  def again(self, utterance, words):
    count = sum(map(len, words))
    return utterance_lib.plan(
        utterance.speaker,
        words,
        rate=utterance.rate,
        longer=(*utterance.longer, *([0] * count))[:count],
        accents=[k for _, _, k in utterance.accents],
        f0_range=utterance.f0_range,
        energy=utterance.energy,
        noise_seed=utterance.noise_seed,
    )

  def render(self, utterance):
    return synthesiser.render(utterance)

  def seconds(self, utterance):
    return utterance.seconds

  def factors(self, utterance):
    u, step = utterance, phones_lib.STEP
    return {
        'phones': [
            [phone, round(a * step, 3), round(b * step, 3)]
            for phone, a, b in zip(u.phones, u.starts, u.ends, strict=True)
        ],
        'word_times': [
            [round(a * step, 3), round(b * step, 3)] for a, b, _ in u.accents
        ],
        'accents': [k for _, _, k in u.accents],
        'longer': list(u.longer),
        'rate': u.rate,
        'energy': u.energy,
        'f0_range': u.f0_range,
        'noise_seed': u.noise_seed,
        'speaker': dataclasses.asdict(u.speaker),
    }

  def entropies(self, pool, phones, words):
    longer = -sum(p * math.log2(p) for p in (LONGER, 1 - LONGER))
    return self._bits(pool, longer * phones, words)

  def costs(self, pool, factors):
    longer = [
        -math.log2(LONGER if n else 1 - LONGER) for n in factors['longer']
    ]
    return self._bits(pool, sum(longer), len(factors['words']))

  def _bits(self, pool, durations, words):
    accents = math.log2(len(utterance_lib.ACCENTS)) * words
    return {
        'durations': durations,
        **engine_lib.bits(rate=RATES),
        'accents': accents,
        **engine_lib.bits(
            f0_range=F0_RANGES,
            energy=engine_lib.ENERGIES,
            speaker=self.speakers(pool),
            noise_seed=range(NOISE_SEEDS),
        ),
    }

  def ranges(self, pool):
    return {
        'durations': f"Klatt's, each a step of 10 ms longer with p {LONGER}",
        'rate': f'{RATES}',
        'accents': f'amplitudes {utterance_lib.ACCENTS} a word',
        'f0_range': f'{F0_RANGES}',
        'energy': f'{engine_lib.ENERGIES} dB',
        'noise_seed': f'{NOISE_SEEDS} frozen seeds',
    }
