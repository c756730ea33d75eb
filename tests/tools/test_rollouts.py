"""The page of rollouts, of tiny models of latents."""

import json

import jax
import numpy as np
import pytest

from audiolm_jax import decoders
from audiolm_jax.data import token_cache
from audiolm_jax.decoders import latent_heads
from audiolm_jax.decoders import time_embedding
from audiolm_jax.decoders.latent_heads import network as network_lib
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import latent_lm
from audiolm_jax.models import loading
from audiolm_jax.processes import noise as noise_lib
from audiolm_jax.tokenizers import encoding
from tests import tool_module
from tests.data import made_caches
from tests.decoders import small
from tests.tokenizers import tiny

rollouts = tool_module.load('rollouts')
NETWORK = network_lib.AdalnMlp(
    8, 1, time_embedding.TimeEmbedding(frequencies=4, scale=10.0)
)
HEADS = {
    'mixture': latent_heads.Mixture(components=2),
    'flow': latent_heads.Diffusion(NETWORK),
    'one_step': latent_heads.FlowMap(NETWORK),
}


@pytest.fixture(name='codec', scope='module')
def _codec():
  return audio_tokenizer.AudioTokenizer(*tiny.codec('continuous'))


@pytest.fixture(name='cache', scope='module')
def _cache(codec, tmp_path_factory):
  size = codec.spec.dimension

  def example(split, i):
    rng = np.random.default_rng((len(split), i))
    latents = rng.normal(2, 3, size=(20 + i, size)).astype(np.float32)
    return encoding.Example(
        latents=latents,
        samples=320 * len(latents),
        factors={'id': f'{split}{i}', 'text': f'clip {i}'},
    )

  clips = {'train': 2, 'validation': 1, 'test': 24}
  return made_caches.write(
      tmp_path_factory.mktemp('rollouts') / 'latents',
      made_caches.identity((), clips, spec=made_caches.spec(dimension=size)),
      example,
  )


def _model(name, codec, cache):
  decoder = decoders.LatentDecoder(
      codec.spec.dimension,
      backbone=small.stack(),
      head=HEADS[name],
      moments=token_cache.latent_moments(cache),
      history_noise=0.5 if name == 'flow' else 0.0,
  )
  batch = decoder.example_batch(1, 4)
  keys = noise_lib.row_keys(jax.random.key(0), np.arange(1))
  inputs = batch['latents'], batch['num_frames'], batch['ends'], keys
  params = small.parameters(decoder, *inputs, method='losses')
  return latent_lm.LatentLM(decoder, params, codec.spec.frame_rate)


@pytest.fixture(name='run')
def _run(codec, cache, monkeypatch, tmp_path):
  found = {name: _model(name, codec, cache) for name in HEADS}
  monkeypatch.setattr(loading, 'load', {**found, 'text': object()}.__getitem__)
  monkeypatch.setattr(loading, 'load_tokenizer', lambda *a: codec)

  def fail(message):
    raise SystemExit(message)

  monkeypatch.setattr(rollouts.launch, 'fail', fail)
  rate = codec.spec.frame_rate

  def run(*arguments):
    out = tmp_path / 'page.html'
    rollouts.main(
        [
            *(f'--cache={cache}', f'--out={out}', '--shown=1', '--clips=12'),
            *(f'--prompt={10 / rate}', f'--seconds={1.5}'),
            *('--scored=15', '--likelihood_steps=2'),
            *arguments,
        ]
    )
    return out, found

  return run


def test_models_are_followed_second_by_second(run, cache, codec):
  out, models = run(*(f'--model={name}' for name in HEADS))
  summary = json.loads(out.with_suffix('.json').read_text())
  text = out.read_text()
  names = ['other clips']
  for name in HEADS:
    names += [f'{name}, {way}' for way in rollouts.ways(models[name])]
  assert len(names) == 1 + 2 + (2 * 3 + 1) + 2 * 2
  tables = {
      section['title']: {
          row[0]['text']: [cell['text'] for cell in row[1:]]
          for block in section['blocks']
          if block['kind'] == 'table'
          for row in block['rows']
      }
      for section in summary['sections']
  }
  assert list(tables['Frechet distance of frames']) == names
  rows = tables['Deviation of frames']
  assert set(rows) == set(names[1:])
  for name in names[1:]:
    assert name in text
  # Of the heads that have a likelihood, and of the clips themselves.
  costs = tables['Nats a frame']
  assert list(costs) == ['mixture', 'flow']
  whole = token_cache.TokenCache(cache, 'test')
  nats = []
  for i in range(0, 24, 2):
    clip = whole[i].latents[None, :15]
    nats.append(-models['flow'].log_prob(clip, steps=2).mean())
  np.testing.assert_allclose(float(costs['flow'][0]), np.mean(nats), rtol=2e-3)
  assert costs['mixture'][1] == '–'
  # By hand: all clips of a chosen second, of one way.
  clips = token_cache.TokenCache(cache, 'test')
  chosen = [clips[i] for i in range(24)][::2]
  sampler = latent_heads.LatentSampler(temperature=0.7, ends=False)
  rate = round(codec.spec.frame_rate)
  found = (
      models['mixture']
      .generate(
          np.stack([clip.latents[:10] for clip in chosen]),
          10 + round(1.5 * codec.spec.frame_rate),
          sampler=sampler,
      )
      .latents
  )
  x = clips.header.moments.normalised(found)
  np.testing.assert_allclose(
      list(map(float, rows['mixture, temperature 0.7'])),
      [
          x[:, 10 : 10 + rate].std((0, 1)).mean(),
          x[:, 10 + rate :].std((0, 1)).mean(),
      ],
      rtol=1e-3,
  )


def test_what_does_not_fit_is_refused(run):
  with pytest.raises(SystemExit, match='frame by frame'):
    run('--model=text')
  with pytest.raises(SystemExit, match='expected 20 or more'):
    run('--model=mixture', '--prompt=50')
