"""Clips made anew: whatever draws them is judged alike, and nothing else counts."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax import evaluation
from audiolm_jax import generation
from audiolm_jax import objectives
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.data import factors
from audiolm_jax.data import moments as moments_lib
from audiolm_jax.data.speech_world import phones as phones_lib
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import latent_heads
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import resynthesis
from audiolm_jax.processes import times as times_lib
from tests.data import made_caches

_SIZES = (5, 6)
_HOP = 320
_FRAMES = (16, 12, 14)
_SILENCE = phones_lib.PHONES[0]
_SYMBOLS = (_SILENCE, 'b', 'd', 'i', 'u')


class _Tokenizer:
  """Frame f of a clip sounds at the level of its codes; vectors are one-hot."""

  spec = made_caches.spec(_SIZES, _HOP)

  def decode(self, tokens):
    levels = np.asarray(tokens.codes).sum(axis=2) / 16 - 0.25
    # No silence: patches of it do not vary.
    wave = np.sin(np.arange(_HOP) * (1 + np.arange(3)[:, None])).sum(0) / 3
    audio = levels[..., None] * wave
    return audio.reshape(len(audio), -1, 1).astype(np.float32), None

  def codes_to_vectors(self, codes):
    return np.concatenate(
        [
            np.eye(n, dtype=np.float32)[codes[..., k]]
            for k, n in enumerate(_SIZES)
        ],
        axis=-1,
    )

  def vectors_to_codes(self, vectors, codebooks):
    assert codebooks == 2
    return np.stack(
        [vectors[..., :5].argmax(-1), vectors[..., 5:].argmax(-1)], axis=-1
    )


def _stored(i):
  """What speech_world would store: a phone of four frames each."""
  names = [_SYMBOLS[(i + k) % 5] for k in range(_FRAMES[i] // 4)]
  spans = [
      (name, round(0.08 * k, 2), round(0.08 * (k + 1), 2))
      for k, name in enumerate(names)
  ]
  return {'phones': spans}


def _codes(i):
  rng = np.random.default_rng(i)
  return rng.integers(0, _SIZES, (_FRAMES[i], 2)).astype(np.int32)


@pytest.fixture(name='cache')
def _cache(tmp_path, monkeypatch):
  identity = made_caches.identity(_SIZES, {'test': 3})

  def example(_, i):
    known = {'id': f'c{i}', 'factors': json.dumps(_stored(i))}
    return made_caches.example(_codes(i), known)

  monkeypatch.setattr(
      resynthesis.representations, 'tokenizer_of', lambda *_: _Tokenizer()
  )
  monkeypatch.setattr(resynthesis.speaking, 'load_judge', lambda _: _Judge())
  return made_caches.write(tmp_path / 'cache', identity, example)


class _Judge:
  """Hears one phone, 'b', in each clip that lasts .3 s or more."""

  sample_rate = 16000

  def phones(self, clips):
    return [['b'] * (len(clip) >= 4800) for clip in clips]


def _told():
  source = factors.Aligned(('phone',), length=40)
  return {'known': conditioners.Aligned(source=source)}


def _stack(kind='bidirectional', **options):
  return stack_lib.Stack(
      width=8,
      layers=1,
      mixers=(attention.Attention(heads=2, mask_kind=kind),),
      scan=False,
      **options,
  )


def _decoder(kind):
  if kind == 'ar':
    return decoders.Decoder(
        _SIZES, backbone=_stack('causal'), conditions=_told()
    )
  if kind == 'masked':
    return decoders.Masked(_SIZES, backbone=_stack(), conditions=_told())
  moments = moments_lib.Moments((0.2,) * 11, (0.4,) * 11)
  if kind == 'flow':
    return decoders.Flow(
        11,
        backbone=_stack(adaptive='adaln_zero', film_silu=True),
        conditions=_told(),
        moments=moments,
    )
  return decoders.LatentDecoder(
      11,
      backbone=_stack('causal'),
      conditions=_told(),
      head=latent_heads.Diffusion(density=times_lib.LogitNormal()),
      moments=moments,
  )


def _objective(kind):
  name = {'flow': 'Denoising', 'latents': 'NextLatent'}.get(kind, 'NLL')
  return getattr(objectives, name)(decoder=_decoder(kind), rate=50.0)


def _settings(kind, cache, **changes):
  return evaluation.Resynthesis(
      clips=evaluation.TokenClips(cache=cache, split='test'),
      codebooks=2 if kind in ('flow', 'latents') else None,
      **{'batch_size': 2, **changes},
  )


def _scores(objective, settings):
  objective = _with_lengths(objective)
  variables = objective.init(jax.random.key(0))
  return list(settings.build(objective).run(variables))


def _with_lengths(objective):
  """As data would have it."""
  name = 'frames' if hasattr(objective, 'frames') else 'lengths'
  value = 16 if name == 'frames' else {'frames': 16}
  return dataclasses.replace(objective, **{name: value})


_STEPS = {'ar': (), 'masked': (1, 3), 'flow': (1, 3), 'latents': (1, 3)}


@pytest.mark.parametrize('kind', list(_STEPS))
def test_all_kinds_are_judged_alike(cache, kind):
  steps, fills = _STEPS[kind], kind != 'latents'
  settings = _settings(
      kind,
      cache,
      judge='judge',
      steps=steps,
      gap=0.08 * fills,
      joined=True,
  )
  scores = _scores(_objective(kind), settings)
  found = evaluation_base.summarize(scores)
  wanted = {'phone_error', 'frechet', 'first_gflops', 'joined/phone_error'}
  assert wanted <= found.keys()
  assert ('gap_mel' in found) == fills
  # Clip 0 of 16 frames is heard as 'b', and the others, too short, as nothing.
  said = [
      resynthesis.said(_stored(i)['phones'], _FRAMES[i] / 50) for i in range(3)
  ]
  assert said == [['b', 'd', 'i'], ['b', 'd', 'i'], ['d', 'i', 'u']]
  error = (2 + 3 + 3) / 9
  assert found['phone_error'] == pytest.approx(error)
  assert found['reconstruction/phone_error'] == pytest.approx(error)
  # Of clips 0 and 1 in one row, which is long enough to be heard, one of six.
  assert found['joined/phone_error'] == pytest.approx(5 / 6)
  for n in steps:
    assert found[f'phone_error_in_{n}_steps'] == pytest.approx(error)
  if steps:
    assert found['frechet'] == found['frechet_in_3_steps']
  curves = evaluation_base.curves(scores)
  passes = [x for x, _ in curves['frechet by passes']]
  assert passes == {'ar': [17], 'latents': [16]}.get(kind, list(steps))
  flops = [x for x, _ in curves['phone_error by GFLOPs a second']]
  assert flops == sorted(flops) and len(set(flops)) == len(steps or (0,))
  # A row of 16 frames is heard when it is whole, or when one frame is.
  whole = flops[-1] * 16 / 50
  early = kind in ('ar', 'latents')
  assert found['first_gflops'] < 0.4 * whole if early else True
  if not early:
    assert found['first_gflops'] == pytest.approx(whole)


def test_phones_are_those_that_have_ended_without_silence():
  phones = [(_SILENCE, 0.0, 0.1), ('b', 0.1, 0.2), ('i', 0.2, 0.3)]
  assert resynthesis.said(phones, 0.3) == ['b', 'i']
  assert resynthesis.said(phones, 0.29) == ['b']
  assert not resynthesis.said([], 1.0)


class _Oracle:
  """A model of codes that knows them."""

  def __init__(self, decoder, wrong=False):
    self.decoder, self._wrong = decoder, wrong
    self.asked = []

  def infill(self, codes, known, *, num_frames, seed, conditions, **options):
    self.asked.append((codes, known, num_frames, seed, conditions))
    return (codes + self._wrong * ~known) % np.array(_SIZES)

  def generation_flops(self, seconds):
    return 1e9 * seconds


def _of_oracle(cache, wrong, **changes):
  decoder = _decoder('ar')
  oracle = _Oracle(decoder, wrong)
  objective = types.SimpleNamespace(
      model=('lm', types.SimpleNamespace(module=decoder)),
      bind=lambda _: oracle,
  )
  settings = _settings('ar', cache, gap=0.08, joined=True, judge='j', **changes)
  return oracle, evaluation_base.summarize(settings.build(objective).run(None))


def test_who_draws_the_clips_themselves_is_at_no_distance(cache):
  _, right = _of_oracle(cache, wrong=False)
  assert right['frechet'] == pytest.approx(0, abs=1e-6)
  assert right['gap_mel'] == 0
  _, wrong = _of_oracle(cache, wrong=True)
  assert wrong['frechet'] > 0.01 and wrong['gap_mel'] > 0.01


def test_rows_are_given_what_they_should_be(cache):
  oracle, _ = _of_oracle(cache, wrong=False)
  whole, rest, gaps, gap, joined = oracle.asked
  # Of two clips, then of the third and a row that fills up.
  codes, known, lengths, seed, conditions = whole
  np.testing.assert_array_equal(codes[1, :12], _codes(1))
  assert not known.any() and lengths.tolist() == [16, 12]
  # The phone of each frame, from 1 on; four frames of each.
  told = conditions['known'][1]
  assert told.shape == (12, 1) and len(set(told[:4, 0])) == 1
  assert len({told[0, 0], told[4, 0], told[8, 0]}) == 3
  assert rest[2].tolist() == [14, 0] and rest[4]['known'][1] is None
  assert rest[3] != seed
  # .08 s are 4 frames: the middle ones.
  assert np.flatnonzero(~gaps[1][0, :, 0]).tolist() == [6, 7, 8, 9]
  assert np.flatnonzero(~gaps[1][1, :12, 0]).tolist() == [4, 5, 6, 7]
  assert gap[2].tolist() == [14, 0]
  # Two clips in one row: codes and what tells of them one after the other.
  assert joined[2].tolist() == [28]
  np.testing.assert_array_equal(
      joined[0][0], np.concatenate([_codes(0), _codes(1)])
  )
  np.testing.assert_array_equal(joined[4]['known'][0][16:], told)


def test_what_does_nothing_or_does_not_fit_is_refused(cache, tmp_path):
  def refused(match, kind='ar', objective=None, **changes):
    settings = _settings(kind, cache)
    settings = dataclasses.replace(settings, **changes)
    with pytest.raises(config.ConfigError, match=match):
      settings.build(objective or _objective(kind))

  refused('not sampled in steps', steps=(4,))
  refused('codebooks = 2: the model is of codes', codebooks=2)
  refused('the model is of latents', 'flow', sampler=generation.Sampler(0.5))
  refused('fills none', 'latents', gap=0.1)
  refused('longest clip has 0.32 s', gap=0.16)
  window = generation.Sampler(repetition_window=4, repetition_penalty=1.5)
  refused('repetition_window = 4', 'masked', sampler=window)
  refused('without a judge', joined=True)
  untold = objectives.NLL(decoder=decoders.Decoder(_SIZES), rate=50.0)
  refused('nothing tells', objective=untold, judge='judge')
  refused('cache = None', clips=evaluation.TokenClips())
  refused('vectors', clips=evaluation.TokenClips(cache=cache, vectors='x'))
  one = evaluation.TokenClips(cache=cache, split='test', limit=1)
  refused('one clip', clips=one)
  refused('expected the first 3', 'flow', codebooks=3)
  other = objectives.NLL(decoder=decoders.Decoder((5, 7)), rate=50.0)
  refused(r'expected the first 2 to be \(5, 7\)', objective=other)
  short = factors.Aligned(('phone',), length=8)
  told = {'known': conditioners.Aligned(source=short)}
  brief = objectives.NLL(
      decoder=decoders.Decoder(_SIZES, conditions=told), rate=50.0
  )
  refused('8 frames', objective=brief)
  identity = made_caches.identity(_SIZES, {'test': 2})
  silent = made_caches.write(
      tmp_path / 'silent',
      identity,
      lambda _, i: made_caches.example(_codes(i), {'id': str(i)}),
  )
  refused(
      'do not say their phones',
      clips=evaluation.TokenClips(cache=silent, split='test'),
      judge='judge',
  )
  codec = types.SimpleNamespace(
      model=('codec', types.SimpleNamespace(module=_Tokenizer()))
  )
  refused('draws no frames', objective=codec)
