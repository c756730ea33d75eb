"""Text and speech as segments: from a token cache to terms and bits."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax.data import pipeline
from audiolm_jax.data import text_and_tokens
from audiolm_jax.data import token_cache
from tests.decoders import small
from tests.data import made_caches

V, K = 7, 2
FRAMES = {'text': 4, 'speech': 6}
LENGTHS = {'text': [4, 2, 0], 'speech': [6, 0, 3]}
DECODER = {
    'kind': 'segments',
    'vocabularies': (256, V, V),
    'sequence': {
        'segments': (
            {'label': 'text', 'slots': (0,)},
            {
                'label': 'speech',
                'slots': (1, 2),
                'pattern': {'kind': 'delay'},
            },
        )
    },
    'backbone': {
        'kind': 'stack',
        'width': 8,
        'layers': 1,
        'mixers': ({'kind': 'attention', 'heads': 2},),
        'mlp': {'kind': 'dense', 'hidden': 8},
        'scan': False,
    },
}


def _build(**fields):
  fields = {'decoder': DECODER, 'lengths': FRAMES, 'rate': 50.0, **fields}
  return config.build(objectives.NLL, fields)


@pytest.fixture(scope='module', name='objective')
def _objective():
  return _build(weights={'text': 0.5})


@pytest.fixture(scope='module', name='variables')
def _variables(objective):
  batch = objective.example_batch(1)
  params = small.parameters(objective.decoder, *objective.decoder.read(batch))
  return {'lm': {'params': params}}


def _batch():
  rng = np.random.default_rng(0)
  batch = {'id': np.arange(3, dtype=np.int32)}
  for label, slots in (('text', 1), ('speech', 2)):
    shape = (3, FRAMES[label], slots)
    batch[f'codes/{label}'] = rng.integers(0, V, shape).astype(np.int32)
    batch[f'num_frames/{label}'] = np.array(LENGTHS[label], np.int32)
  return batch


def test_terms_and_metrics_are_sums_of_the_scores(objective, variables):
  batch = _batch()
  assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
      k: (v.shape, v.dtype) for k, v in objective.example_batch(3).items()
  }
  run = small.quick_jit(objective.__call__)
  output = run(variables, batch, jax.random.key(0))
  bound = objective.bind(variables)
  codes, num_frames, *_ = objective.decoder.read(batch)
  scores = bound.score(codes, num_frames)
  assert objective.loss_weights == {'nll_text': 0.5, 'nll_speech': 1.0}
  assert set(output.terms) == set(objective.loss_weights)
  rows = bound.bits_per_frame(codes, num_frames)
  for label, slots in (('text', 1), ('speech', 2)):
    nll, count = output.terms[f'nll_{label}']
    assert float(count) == sum(LENGTHS[label]) * slots
    total = -float(scores[label].log_prob.sum())
    assert float(nll) == pytest.approx(total, rel=1e-5)
    name = f'{label}/bits_per_frame'
    bits, frames = output.metrics[name]
    assert float(bits) == pytest.approx(total / math.log(2), rel=1e-5)
    assert float(frames) == sum(LENGTHS[label])
    parts = [
        float(output.metrics[f'{name}_codebook_{k}'][0]) for k in range(slots)
    ]
    assert sum(parts) == pytest.approx(float(bits), rel=1e-5)
    empty = np.array(LENGTHS[label]) == 0
    np.testing.assert_array_equal(np.isnan(rows[label]), empty)
    assert np.nansum(rows[label] * LENGTHS[label]) == pytest.approx(
        float(bits), rel=1e-5
    )
  assert objective.audio_seconds(batch) == 9 / 50
  # Microbatches add.
  parts = [
      run(
          variables,
          jax.tree.map(lambda x, i=i: x[i:], batch)
          if i
          else jax.tree.map(lambda x: x[:1], batch),
          jax.random.key(0),
      ).terms
      for i in (0, 1)
  ]
  for name, pair in output.terms.items():
    added = [sum(float(p[name][i]) for p in parts) for i in (0, 1)]
    np.testing.assert_allclose(added, pair, rtol=1e-5)


def test_generate_keeps_what_is_shown_and_repeats_with_its_seed(
    objective, variables
):
  bound = objective.bind(variables)
  given, num_frames, *_ = objective.decoder.read(_batch())
  shown = {
      'text': num_frames['text'],
      'speech': np.minimum(num_frames['speech'], 1),
  }
  codes = bound.generate(given, num_frames, shown)
  np.testing.assert_array_equal(
      codes['speech'][:, 0][[0, 2]], given['speech'][:, 0][[0, 2]]
  )
  for label in given:
    valid = np.arange(FRAMES[label]) < np.array(LENGTHS[label])[:, None]
    assert (codes[label][~valid] == 0).all()
    if label == 'text':
      np.testing.assert_array_equal(codes[label][valid], given[label][valid])
  again = bound.generate(given, num_frames, shown)
  other = bound.generate(given, num_frames, shown, seed=1)
  np.testing.assert_array_equal(codes['speech'], again['speech'])
  assert (codes['speech'] != other['speech']).any()
  with pytest.raises(ValueError, match='speech: .* 6 in all'):
    bound.generate(
        given, num_frames, {**shown, 'speech': num_frames['speech'] + 1}
    )
  given['speech'] = np.array(given['speech'])
  given['speech'][0, 0, 0] = V
  with pytest.raises(ValueError, match='speech: slot 1 of frame 0 of row 0'):
    bound.generate(given, num_frames, shown)
  with pytest.raises(ValueError, match='speech: slot 1 of frame 0 of row 0'):
    bound.score(given, num_frames)


def test_what_does_not_fit_is_refused():
  for name, value in {
      'lengths': {'music': 4},
      'weights': {'music': 1.0},
      'audio': 'music',
  }.items():
    message = rf"{name} names \['music'\]: .*\['text', 'speech'\]"
    with pytest.raises(config.ConfigError, match=message):
      _build(**{name: value})
  with pytest.raises(config.ConfigError, match='init_embeddings.* no frames'):
    _build(init_embeddings=True)


TEXTS = ('no', 'perché', 'a longer text', '')


@pytest.fixture(scope='module', name='cache')
def _cache(tmp_path_factory):
  directory = tmp_path_factory.mktemp('text') / 'tokens'
  identity = made_caches.identity((V,) * 3, {'train': len(TEXTS)})
  writer = token_cache.Writer(directory, identity)
  for split, part, indices in writer.missing():
    examples = [
        made_caches.example(_codes(i), {'id': str(i), 'text': TEXTS[i]})
        for i in indices
    ]
    writer.write(split, part, examples)
  assert writer.finish()
  return directory


def _codes(index):
  rng = np.random.default_rng(index)
  return rng.integers(0, V, (index + 3, 3)).astype(np.int32)


def test_clips_and_their_texts_come_in_the_shapes_of_training(cache, objective):
  source = data.TextAndTokens(
      cache=str(cache), codebooks=2, frames=5, text_bytes=4
  )
  stream = source.open(batch_size=4, seed=0)
  seen = set()
  for _ in range(4):
    batch = stream.next(None)
    for row, index in enumerate(batch['id']):
      seen.add(int(index))
      text = TEXTS[index].encode()[:4]
      length = batch['num_frames/text'][row]
      assert bytes(batch['codes/text'][row, :length, 0].tolist()) == text
      assert not batch['codes/text'][row, length:].any()
      length = batch['num_frames/speech'][row]
      np.testing.assert_array_equal(
          batch['codes/speech'][row, :length], _codes(index)[:, :2]
      )
      assert not batch['codes/speech'][row, length:].any()
  # The last one has 6 frames: its text would be another's.
  assert seen == {0, 1, 2}
  frames = {'text': 4, 'speech': 5}
  want = _build(lengths=frames).example_batch(4)
  assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
      k: (v.shape, v.dtype) for k, v in want.items()
  }


def test_every_clip_is_scored_whole_and_once(cache, objective, variables):
  clips = evaluation.TextClips(
      cache=str(cache),
      split='train',
      frames=FRAMES['speech'],
      text_bytes=FRAMES['text'],
      limit=3,
      batch_size=2,
  )
  built = evaluation.Bits(clips=clips)
  with pytest.raises(config.ConfigError, match='TextClips has none'):
    dataclasses.replace(built, baselines=True).build(objective)
  scores = built.build(objective).run(variables)
  # Not the points of curves.
  scores = [score for score in scores if score.along is None]
  names = [(s.name, s.item) for s in scores]
  assert len(set(names)) == len(names) == 3 * (2 + 3)
  bound = objective.bind(variables)
  for index in range(3):
    text = text_and_tokens.text_codes(TEXTS[index])[: FRAMES['text']]
    speech = _codes(index)[:, :2]
    clip = {'text': text, 'speech': speech}
    num_frames = {k: np.array([len(c)]) for k, c in clip.items()}
    # Padded as they are there, for one compilation.
    codes = {k: pipeline.pad([c], 1, FRAMES[k]) for k, c in clip.items()}
    wanted = bound.score(codes, num_frames)
    for label, found in wanted.streams.items():
      mine = {s.name: s for s in scores if s.item == str(index)}
      score = mine[f'{label}/bits_per_frame']
      assert score.weight == len(clip[label])
      total = -float(found.log_prob.sum()) / math.log(2)
      assert score.sum == pytest.approx(total, rel=1e-4)
      parts = [
          s.sum
          for name, s in mine.items()
          if name.startswith(f'{label}/bits_per_frame_codebook')
      ]
      assert sum(parts) == pytest.approx(total, rel=1e-4)


def test_text_codes_are_bytes():
  np.testing.assert_array_equal(
      text_and_tokens.text_codes('né'), [[110], [195], [169]]
  )
  assert text_and_tokens.text_codes('').shape == (0, 1)
