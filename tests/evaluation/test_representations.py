"""Frames are where they say, and no batch changes them."""

import types

import flax.linen as nn
import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax import tokenizers
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.evaluation import representations
from audiolm_jax.models import loading
from audiolm_jax.models import scoring
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import parts
from tests.data import made_caches

V = 8


def _audio(samples, seed=0):
  rng = np.random.default_rng(seed)
  return 0.1 * rng.standard_normal((samples, 1)).astype(np.float32), 16000


@pytest.fixture(scope='module')
def codec():
  sizes = {'width': 16, 'hidden': 24, 'blocks': 1}
  objective = objectives.Codec(
      tokenizer=tokenizers.Codec(
          encoder=parts.SpectralEncoder(dimension=8, **sizes),
          bottleneck=bottlenecks.Rvq(codebooks=2, vocabulary=V),
          decoder=parts.SpectralDecoder(**sizes),
      )
  )
  init = jax.jit(
      objective.init, compiler_options={'xla_backend_optimization_level': 0}
  )
  variables = nn.meta.unbox(init(jax.random.key(0)))
  # Codebooks of the latents' size, so that many codes are used.
  state = variables['codec']['state']
  rng = np.random.default_rng(0)
  variables['codec']['state'] = jax.tree.map(
      lambda x: rng.standard_normal(x.shape).astype(x.dtype)
      if x.ndim == 3
      else x,
      state,
  )
  return objective, variables


def test_mel_frames_are_where_their_times_say():
  audio = np.zeros((16000, 1), np.float32)
  audio[8000:8320] = _audio(320)[0]  # Frame 25 at 50 Hz.
  (frames,) = representations.Mels().open(None)({}, [(audio, 16000)])
  assert frames.values.shape == (50, 40) and frames.rate == 50
  assert frames.values.mean(axis=1).argmax() == 25
  assert frames.times[25] == pytest.approx(8160 / 16000)
  halves = representations.Mels(sample_rate=8000).open(None)
  (other,) = halves({}, [(audio, 16000)])
  assert other.values.mean(axis=1).argmax() == 25
  (none,) = representations.Mels().open(None)({}, [(audio[:0], 16000)])
  assert none.values.shape == (0, 40)


@pytest.mark.parametrize('of', ['codes', 'vectors', 'latents'])
def test_codec_frames_of_a_batch_are_those_of_each_clip(codec, of):
  objective, variables = codec
  encode = representations.CodecFrames(of=of).open(objective)
  clips = [_audio(n, n) for n in (4000, 16000, 7000, 1)]
  together = encode(variables, clips)
  bound = objective.bind(variables)
  for (audio, _), frames in zip(clips, together, strict=True):
    (alone,) = encode(variables, [(audio, 16000)])
    assert frames.rate == bound.spec.frame_rate
    assert len(frames.values) == bound.spec.frames(len(audio))
    if of == 'codes':
      expected = np.asarray(bound.encode(audio[None]).codes[0])
      np.testing.assert_array_equal(frames.values, expected)
      assert frames.vocabularies == (V, V)
    else:
      np.testing.assert_allclose(frames.values, alone.values, atol=1e-4)
  if of == 'codes':
    assert len(np.unique(together[1].values)) > 3
  if of == 'vectors':
    codes = np.asarray(bound.encode(clips[1][0][None]).codes[0])
    tables = bound.code_vectors()
    expected = np.concatenate([tables[k][codes[:, k]] for k in (0, 1)], axis=1)
    np.testing.assert_allclose(together[1].values, expected, rtol=1e-6)


def _language_model(scan):
  backbone = stack_lib.Stack(
      width=8,
      layers=2,
      mixers=(attention.Attention(heads=1),),
      mlp=mlps.Dense(hidden=8),
      scan=scan,
  )
  return objectives.NLL(
      decoder=decoders.Decoder(vocabularies=(V,), backbone=backbone), rate=50.0
  )


@pytest.mark.parametrize('scan', [True, False])
def test_a_state_has_read_its_frame_and_none_after_it(scan):
  objective = _language_model(scan)
  variables = nn.meta.unbox(objective.init(jax.random.key(0)))
  decoder, params = objective.decoder, variables['lm']['params']
  rng = np.random.default_rng(0)
  codes = rng.integers(V, size=(1, 10, 1)).astype(np.int32)
  other = codes.copy()
  other[0, 5] = (other[0, 5] + 1) % V
  length = np.array([10], np.int32)
  for cut, cut_params in ((decoder, params), decoder.cut(params, 1)):
    a, b = (
        np.asarray(scoring.states(cut, cut_params, (c, length)))
        for c in (codes, other)
    )
    changed = np.abs(a - b)[0, :9].max(axis=-1) > 1e-6
    assert not changed[:5].any() and changed[5]
  # All layers, without the last norm, differ from the output by that norm.
  whole, whole_params = decoder.cut(params, 2)
  bare = np.asarray(scoring.states(whole, whole_params, (codes, length)))
  normed = bare / np.sqrt(np.mean(bare**2, axis=-1, keepdims=True) + 1e-5)
  out = np.asarray(scoring.states(decoder, params, (codes, length)))
  np.testing.assert_allclose(normed[0, :9], out[0, :9], rtol=1e-4, atol=1e-5)
  with pytest.raises(ValueError, match='3 layers'):
    decoder.cut(params, 3)


def test_states_of_audio_are_those_of_its_tokens(codec, monkeypatch):
  trained, codec_variables = codec
  bound = trained.bind(codec_variables)
  monkeypatch.setattr(loading, 'load', lambda _: bound)
  objective = _language_model(False)
  variables = nn.meta.unbox(objective.init(jax.random.key(0)))
  encode = representations.States(tokenizer='codec').open(objective)
  audio, rate = _audio(9000)
  (frames,) = encode(variables, [(audio, rate)])
  codes = np.asarray(bound.encode(audio[None]).codes)[..., :1]
  expected = scoring.states(
      objective.decoder,
      variables['lm']['params'],
      (codes, np.array([codes.shape[1]], np.int32)),
  )
  count = codes.shape[1] - 1
  assert frames.values.shape == (count, 8)
  np.testing.assert_allclose(
      frames.values, np.asarray(expected)[0, :count], atol=1e-5
  )
  with pytest.raises(config.ConfigError, match='the decoder speaks'):
    wide = decoders.Decoder(vocabularies=(V + 1,))
    representations.tokenizer_of(wide.vocabularies, None, 'codec')
  with pytest.raises(config.ConfigError, match='tokenizer = None'):
    representations.States().open(objective)
  with pytest.raises(config.ConfigError, match='no tokenizer'):
    evaluation.Probe(factor='phone', of=representations.CodecFrames()).build(
        objective
    )


def test_states_are_read_by_the_tokenizer_that_made_the_cache(
    codec, monkeypatch, tmp_path
):
  """Codes of one that was trained again mean something else."""
  trained, codec_variables = codec
  bound = trained.bind(codec_variables)
  monkeypatch.setattr(loading, 'load', lambda _: bound)
  for fingerprint in (bound.fingerprint(), 'another'):
    identity = made_caches.identity(
        tuple(bound.spec.vocabularies),
        {'train': 0},
        spec=bound.spec,
        fingerprint=fingerprint,
    )
    cache = made_caches.write(tmp_path / fingerprint[:9], identity, None)
    source = types.SimpleNamespace(cache=cache)
    states = representations.States().with_data(source)
    if fingerprint == 'another':
      with pytest.raises(config.ConfigError, match='is another tokenizer'):
        states.open(_language_model(False))
    else:
      assert states.open(_language_model(False)) is not None
