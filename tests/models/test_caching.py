"""Filling a token cache, with a stand-in for the trained tokenizer."""

import dataclasses

import jax
import numpy as np
import pytest

from audiolm_jax.tokenizers import encoding
from audiolm_jax.data import audio_crops
from audiolm_jax.data import cache_parts
from audiolm_jax.data import corpora
from audiolm_jax.data import token_cache
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.models import caching

HOP = 500


class Loudness:
  """Codes that anyone can check: the mean magnitude of a frame, in percent."""

  spec = tokenizers_base.Spec(
      sample_rate=8000,
      hop=HOP,
      slots=(tokenizers_base.Slot(0, 101),),
      causal=True,
      latency=0,
      dates=tokenizers_base.Dates(
          'none', 'time', 'SQ', 'fixed', (), (), ('audio',)
      ),
  )

  def __init__(self):
    self.tokenizer = self
    self.has_scales = False
    self.shapes = []
    self.fail_after = None

  def fingerprint(self):
    return 'loudness'

  def code_vectors(self):
    return np.linspace(0, 1, 101)[None, :, None]

  def encode(self, audio, num_samples):
    self.shapes.append(audio.shape)
    if self.fail_after is not None and len(self.shapes) > self.fail_after:
      raise KeyboardInterrupt
    frames = -(-audio.shape[1] // HOP)
    audio = np.pad(audio, ((0, 0), (0, frames * HOP - audio.shape[1]), (0, 0)))
    codes = np.abs(audio.reshape(len(audio), frames, HOP, 1)).mean(2) * 100
    return tokenizers_base.Tokens(
        num_samples=num_samples,
        codes=jax.numpy.asarray(codes.round().astype(int)),
    )


def test_every_clip_is_cached_and_work_goes_on(cache, tmp_path, monkeypatch):
  tokenizer = Loudness()
  monkeypatch.setattr(cache_parts, 'PART', 10)
  arguments = dict(
      corpus='espeak_sentences', workdir='runs/x', languages=('en', 'fr')
  )
  tokenizer.fail_after = 2  # Interrupted in the second part.
  with pytest.raises(KeyboardInterrupt):
    caching.fill(tokenizer, tmp_path / 't', **arguments)
  with pytest.raises(encoding.TokensError, match='unfinished'):
    token_cache.TokenCache(tmp_path / 't', 'train')
  tokenizer.fail_after = None
  done = sorted(path.name for path in (tmp_path / 't').glob('*.array_record'))
  assert done == ['train-00000.array_record']
  caching.fill(tokenizer, tmp_path / 't', shard=(1, 2), **arguments)
  caching.fill(tokenizer, tmp_path / 't', shard=(0, 2), **arguments)
  assert (
      caching.fill(tokenizer, tmp_path / 't', **arguments) == 0
  )  # Nothing left to do.
  assert len(set(tokenizer.shapes)) <= 3
  for split in ('train', 'validation', 'test'):
    corpus = corpora.load_corpus('espeak_sentences', split, ('en', 'fr'))
    tokens = token_cache.TokenCache(tmp_path / 't', split, 'loudness')
    assert len(tokens) == len(corpus)
    for i in range(len(corpus)):
      audio = audio_crops.read(corpus, i, 8000)
      example = tokens[i]
      assert example.samples == len(audio)
      assert example.factors == corpus.factors(i)
      alone = Loudness().encode(audio[None], np.int32([len(audio)]))
      np.testing.assert_array_equal(example.codes, alone.codes[0])
  np.testing.assert_allclose(
      token_cache.read_codebooks(tmp_path / 't'), Loudness().code_vectors()
  )
  assert tokens.header.spec == Loudness.spec


class Mean(Loudness):
  """A latent that anyone can check, and a gain for each frame."""

  spec = dataclasses.replace(Loudness.spec, slots=(), dimension=1)

  def __init__(self):
    super().__init__()
    self.has_scales = True

  def code_vectors(self):
    return None

  def encode(self, audio, num_samples):
    codes = super().encode(audio, num_samples).codes
    latents = codes.astype(np.float32) / 100
    return tokenizers_base.Tokens(
        num_samples=num_samples, latents=latents, scales=1 + latents[..., 0]
    )


def test_latents_and_scales_are_cached(cache, tmp_path):
  caching.fill(
      Mean(),
      tmp_path / 't',
      corpus='espeak_sentences',
      workdir='x',
      languages=('fr',),
      wanted=('test',),
      limit=2,
  )
  tokens = token_cache.TokenCache(tmp_path / 't', 'test')
  corpus = corpora.load_corpus('espeak_sentences', 'test', ('fr',))
  for i in range(2):
    audio = audio_crops.read(corpus, i, 8000)[None]
    expected = Mean().encode(audio, np.int32([audio.shape[1]]))
    assert tokens[i].arrays.keys() == {'latents', 'scales'}
    np.testing.assert_array_equal(tokens[i].latents, expected.latents[0])
    np.testing.assert_array_equal(tokens[i].scales, expected.scales[0])


def test_limit_takes_the_first_clips(cache, tmp_path):
  arguments = dict(corpus='espeak_sentences', workdir='x', languages=('fr',))
  out = tmp_path / 't'
  caching.fill(Loudness(), out, wanted=('test',), limit=2, **arguments)
  tokens = token_cache.TokenCache(out, 'test')
  corpus = corpora.load_corpus('espeak_sentences', 'test', ('fr',))
  assert len(tokens) == 2 < len(corpus)
  assert tokens[1].factors == corpus.factors(1)
  for wrong in (
      {'limit': 0},
      {'limit': -1},
      {'wanted': ()},
      {'batch_seconds': float('nan')},
      {'batch_seconds': -1.0},
  ):
    name = next(iter(wrong)).replace('wanted', 'splits')
    with pytest.raises(corpora.CorpusError, match=name):
      caching.fill(Loudness(), tmp_path / 'wrong', **arguments, **wrong)
  with pytest.raises(encoding.TokensError, match='clips'):
    caching.fill(Loudness(), out, wanted=('test',), limit=3, **arguments)
