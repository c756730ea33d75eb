"""The tool, with a tiny model that gives a tiny VAE's latents frame by frame."""

import dataclasses
import os

import jax
import numpy as np
import pytest

from audiolm_jax import decoders
from audiolm_jax.audio import files
from audiolm_jax.data import factors
from audiolm_jax.data import moments as moments_lib
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import latent_heads
from audiolm_jax.decoders import time_embedding
from audiolm_jax.decoders.latent_heads import network as network_lib
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import latent_lm
from audiolm_jax.models import loading
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.processes import solvers
from audiolm_jax.processes import times as times_lib
from audiolm_jax.tokenizers import base as tokenizers_base
from tests import tool_module
from tests.decoders import small
from tests.tokenizers import tiny

RATE, HOP, D = tiny.RATE, tiny.HOP, 3
PROMPT, MORE = 16, 4
SECONDS = f'--seconds={MORE * HOP / RATE}'
# 16 bits, whose last may fall either way.
BIT = 1.1 / 2**15
SAMPLER = latent_heads.LatentSampler


def _model(head, last=-50.0):
  decoder = decoders.LatentDecoder(
      D,
      backbone=small.stack(),
      head=head,
      conditions={
          'text': conditioners.Text(how='prefix', source=factors.Text(length=4))
      },
      moments=moments_lib.Moments((0.5, 0.0, -1.0), (2.0, 1.0, 0.5)),
      history_noise=0.5,
  )
  batch = decoder.example_batch(1, 4)
  latents, num_frames, conditions = decoder.read(batch)
  keys = noise_lib.row_keys(jax.random.key(0), np.arange(1))
  params = small.parameters(
      decoder,
      *(latents, num_frames, batch['ends'], keys, None, conditions),
      method='losses',
  )
  params['last'] = 0 * params['last']
  params['last_bias'] = np.full(1, last, np.float32)
  return latent_lm.LatentLM(decoder, params, RATE / HOP)


@pytest.fixture(name='models', scope='module')
def _models():
  network = network_lib.AdalnMlp(
      8, 1, time_embedding.TimeEmbedding(frequencies=4, scale=10.0)
  )
  flow = _model(latent_heads.Diffusion(network, grid=times_lib.Grid(3)))
  likely = {**flow.params, 'last_bias': np.zeros(1, np.float32)}
  return {
      'flow': flow,
      'mixture': _model(latent_heads.Mixture(components=2)),
      'ending': dataclasses.replace(flow, params=likely),
  }


@pytest.fixture(name='codec', scope='module')
def _codec():
  return audio_tokenizer.AudioTokenizer(*tiny.codec('continuous'))


@pytest.fixture(name='run')
def _run(models, codec, monkeypatch, tmp_path, capsys):
  """run(*arguments): (audio, what was said)."""
  tool = tool_module.load('generate')
  monkeypatch.setattr(loading, 'load', models.__getitem__)
  monkeypatch.setattr(loading, 'load_tokenizer', lambda *_: codec)

  def run(*arguments, model='flow'):
    path = tmp_path / 'x.wav'
    options = [f'--model={model}', f'--out={path}', *map(str, arguments)]
    assert tool.main(options) == 0
    sound = files.read(path)[0]
    path.unlink()
    return sound, capsys.readouterr().err

  return run


def _heard(codec, latents):
  samples = np.array([latents.shape[1] * HOP])
  audio, _ = codec.decode(
      tokenizers_base.Tokens(num_samples=samples, latents=latents)
  )
  return np.clip(audio[0], -1, 1)


def test_a_prompt_is_continued_at_once_and_while_it_is_heard(
    run, models, codec, tmp_path
):
  rng = np.random.default_rng(0)
  audio = rng.uniform(-0.5, 0.5, (PROMPT * HOP + 7, 1)).astype(np.float32)
  path = tmp_path / 'in.wav'
  files.write(path, audio, RATE)
  latents = codec.encode(files.read(path)[0][None, : PROMPT * HOP]).latents
  found = models['flow'].generate(
      latents,
      PROMPT + MORE,
      seed=4,
      sampler=SAMPLER(
          temperature=0.5,
          grid=times_lib.Grid(2),
          solver=solvers.Heun(),
          history_noise=0.2,
      ),
      conditions={'text': ['abc']},
      guidance=3.0,
  )
  arguments = [
      *(SECONDS, f'--prompt={path}', '--seed=4', '--text=abc', '--guidance=3'),
      *('--steps=2', '--sampler=heun', '--temperature=0.5'),
      '--history_noise=0.2',
  ]
  sound, said = run(*arguments)
  np.testing.assert_allclose(sound, _heard(codec, found.latents), atol=BIT)
  assert f'{MORE} steps, the backbone with and without conditions' in said
  assert f'{MORE * 4 * 2} evaluations of the head' in said
  assert 'it ended' not in said
  streamed, _ = run(*arguments, '--stream')
  np.testing.assert_allclose(streamed, sound, atol=3e-4)


def test_rows_end_by_themselves_or_at_a_threshold(run, models, codec):
  none = np.zeros((1, 0, D), np.float32)
  found = models['ending'].generate(none, 12, seed=1)
  (count,) = found.num_frames
  assert 1 <= count < 12
  seconds = f'--seconds={12 * HOP / RATE}'
  sound, said = run(seconds, '--seed=1', model='ending')
  np.testing.assert_allclose(
      sound, _heard(codec, found.latents[:, :count]), atol=BIT
  )
  assert f'it ended {12 - count} frames before --seconds' in said
  streamed, _ = run(seconds, '--seed=1', '--stream', model='ending')
  np.testing.assert_allclose(streamed, sound, atol=3e-4)
  for threshold, frames in ((0.4, 1), (0.6, 12)):
    sound, _ = run(seconds, f'--threshold={threshold}', model='ending')
    assert len(sound) == frames * HOP
  # A row without an end that ends.
  arguments = '--seconds=inf', '--stream', '--seed=1', '--cache_seconds=0.3'
  endless, _ = run(*arguments, model='ending')
  np.testing.assert_allclose(endless, streamed, atol=3e-4)


@pytest.mark.parametrize(
    'model, arguments, what',
    [
        ('mixture', ['--steps=2'], 'grid'),
        ('mixture', ['--sampler=heun'], 'solver'),
        ('flow', ['--sampler=best'], 'none of'),
        ('flow', ['--steps=2,3'], 'no stages'),
        ('flow', ['--history_noise=0.7'], 'history_noise'),
        ('flow', ['--top_k=3'], 'top_k'),
        ('flow', ['--infill=0:1', f'--prompt={os.devnull}'], 'infill'),
        ('flow', ['--guidance=2'], 'condition'),
    ],
)
def test_what_does_not_fit_is_refused(
    models, codec, monkeypatch, tmp_path, model, arguments, what
):
  monkeypatch.setattr(loading, 'load', models.__getitem__)
  monkeypatch.setattr(loading, 'load_tokenizer', lambda *_: codec)
  path = tmp_path / 'x.wav'
  tool = tool_module.load('generate')
  monkeypatch.setattr('pathlib.Path.is_file', lambda _: True)
  with pytest.raises(SystemExit, match=what):
    tool.main([f'--model={model}', f'--out={path}', SECONDS, *arguments])
  assert not path.exists()
