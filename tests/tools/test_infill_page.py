"""The page of gaps that a masked model fills, of a tiny model and codec."""

import json

import numpy as np
import pytest

from audiolm_jax.data import token_cache
from audiolm_jax.decoders import flow
from audiolm_jax.decoders import masked as masked_lib
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import flow_lm
from audiolm_jax.models import loading
from audiolm_jax.models import masked_lm
from audiolm_jax.tokenizers import encoding
from tests import tool_module
from tests.data import made_caches
from tests.decoders import small
from tests.tokenizers import tiny

infill_page = tool_module.load('infill_page')
GAP = 4


@pytest.fixture(name='codec', scope='module')
def _codec():
  return audio_tokenizer.AudioTokenizer(*tiny.codec('state'))


@pytest.fixture(name='cache', scope='module')
def _cache(tmp_path_factory):
  directory = tmp_path_factory.mktemp('infill') / 'tokens'
  clips = {'train': 2, 'validation': 1, 'test': 5}
  writer = token_cache.Writer(directory, made_caches.identity((8, 8), clips))
  rng = np.random.default_rng(0)
  for split, part, indices in writer.missing():
    lengths = [40 + 3 * i for i in indices]
    if split == 'test':
      lengths[0] = 2 * GAP
    writer.write(
        split,
        part,
        [
            made_caches.example(
                rng.integers(0, 8, (n, 2)).astype(np.int32),
                factors={'id': f'{split}{i}', 'text': f'clip {i}'},
            )
            for i, n in zip(indices, lengths, strict=True)
        ],
    )
  assert writer.finish()
  return directory


@pytest.fixture(name='run')
def _run(codec, cache, monkeypatch, tmp_path):
  decoder = masked_lib.Masked(
      (8, 8),
      small.stack(mixer={'mask_kind': 'bidirectional'}),
      stages=((0,), (1,)),
  )
  codes = np.zeros((1, 4, 2), np.int32)
  params = small.parameters(decoder, codes, np.array([4]))
  rate = codec.spec.frame_rate
  model = masked_lm.MaskedLM(decoder, params, rate)

  def fail(message):
    raise SystemExit(message)

  monkeypatch.setattr(infill_page.launch, 'fail', fail)
  found = {'lm': model, 'text': object()}
  monkeypatch.setattr(loading, 'load', found.__getitem__)
  monkeypatch.setattr(loading, 'load_tokenizer', lambda *a: codec)

  def run(*arguments):
    out = tmp_path / 'page.html'
    infill_page.main(
        [
            '--model=lm',
            f'--cache={cache}',
            f'--gap={GAP / rate}',
            '--longest=500',
            f'--out={out}',
            *arguments,
        ]
    )
    return out

  return run


def test_the_page_has_distances_and_sounds(run):
  out = run('--shown=2')
  assert out.read_text().count('<audio') >= 2
  blocks = [
      block
      for section in json.loads(out.with_suffix('.json').read_text())[
          'sections'
      ]
      for block in section['blocks']
  ]
  (table,) = [b for b in blocks if b['kind'] == 'table']
  names = [row[0]['text'] for row in table['rows']]
  assert len(names) == 5 and names[0] == 'another clip'
  # Passes of two stages.
  assert [row[2]['text'] for row in table['rows']][1:] == ['2', '8', '32', '32']
  sounds = [b for b in blocks if b['kind'] == 'audio']
  # The clip that is too short is not among them.
  assert [b['title'] for b in sounds] == ['clip 1', 'clip 2']


def test_distances_are_of_the_gap_alone(run, codec):
  """0 where nothing was drawn: of the truth in place of what is drawn."""
  rng = np.random.default_rng(0)
  known = np.ones((1, 20), bool)
  known[:, 8:12] = False
  hop = codec.spec.hop
  truth = rng.normal(size=(1, 20 * hop)).astype(np.float32)
  other = truth.copy()
  other[:, : 8 * hop] = 0
  other[:, 12 * hop :] = 0
  near = truth.copy()
  near[:, 9 * hop] += 1
  found = infill_page.distances(
      {'codec': truth, 'same': other, 'near': near}, known, codec
  )
  assert found['same'] == [0.0]
  assert found['near'] > 0


def test_a_model_of_latents_fills_them(run, monkeypatch, tmp_path):
  codec = audio_tokenizer.AudioTokenizer(*tiny.codec('continuous'))
  size = codec.spec.dimension

  def example(split, i):
    rng = np.random.default_rng((len(split), i))
    latents = rng.normal(size=(30 + 3 * i, size)).astype(np.float32)
    factors = {'id': f'{split}{i}', 'text': f'clip {i}'}
    return encoding.Example(
        latents=latents, samples=320 * len(latents), factors=factors
    )

  spec = made_caches.spec(dimension=size)
  clips = {'train': 2, 'validation': 1, 'test': 3}
  made_caches.write(
      tmp_path / 'latents', made_caches.identity((), clips, spec=spec), example
  )
  decoder = flow.Flow(
      size,
      backbone=small.stack(
          mixer={'mask_kind': 'bidirectional'}, adaptive='adaln_zero'
      ),
  )
  latents, num_frames, _ = decoder.read(decoder.example_batch(1, 4))
  params = small.parameters(
      decoder, latents, np.ones(1, np.float32), num_frames, method='predict'
  )
  model = flow_lm.FlowLM(decoder, params, codec.spec.frame_rate)
  monkeypatch.setattr(loading, 'load', lambda path: model)
  monkeypatch.setattr(loading, 'load_tokenizer', lambda *a: codec)
  out = run(f'--cache={tmp_path / "latents"}', '--shown=1')
  text = out.read_text()
  assert '64 steps' in text and 'clip 0' in text
  # Codes are not what it fills.
  with pytest.raises(SystemExit, match='has codes'):
    run()


def test_what_does_not_fit_is_refused(run):
  with pytest.raises(SystemExit, match='expected a masked model'):
    run('--model=text')
  with pytest.raises(SystemExit, match='expected 2 or more'):
    run('--gap=50')
  with pytest.raises(SystemExit, match='of 0.* to 0.01 s'):
    run('--longest=0.01')
