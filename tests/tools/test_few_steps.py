"""The table of what few jumps cost, of a tiny flow, its map and their codec."""

import json

import jax
import numpy as np
import pytest

from audiolm_jax.decoders import flow
from audiolm_jax.decoders import time_embedding
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import flow_lm
from audiolm_jax.models import loading
from audiolm_jax.processes import times as times_lib
from audiolm_jax.tokenizers import encoding
from tests.data import made_caches
from tests.decoders import small
from tests.tokenizers import tiny
from tools import few_steps

CLIPS = 8


def _models(codec):
  """A flow, and a map of it that has learned nothing yet."""
  backbone = small.stack(
      mixer={'mask_kind': 'bidirectional'}, adaptive='adaln_zero'
  )
  plain = flow.Flow(codec.spec.dimension, backbone=backbone)
  jump = time_embedding.TimeEmbedding(frequencies=2)
  latents, num_frames, _ = plain.read(plain.example_batch(1, 4))
  inputs = latents, np.ones(1, np.float32), num_frames
  params = small.parameters(plain, *inputs, method='predict')
  moved = small.parameters(plain.clone(jump=jump), *inputs, method='predict')
  still = jax.tree.map(np.zeros_like, moved['jump'])
  rate = codec.spec.frame_rate
  return (
      flow_lm.FlowLM(plain, params, rate),
      flow_lm.FlowLM(plain.clone(jump=jump), {**params, 'jump': still}, rate),
  )


@pytest.fixture(name='run')
def _run(monkeypatch, tmp_path):
  codec = audio_tokenizer.AudioTokenizer(*tiny.codec('continuous'))
  size = codec.spec.dimension

  def example(split, i):
    rng = np.random.default_rng((len(split), i))
    latents = rng.normal(size=(20 + i, size)).astype(np.float32)
    return encoding.Example(
        latents=latents,
        samples=320 * len(latents),
        factors={'id': f'{split}{i}', 'text': f'clip {i}'},
    )

  identity = made_caches.identity(
      (), {'train': 2, 'test': CLIPS}, spec=made_caches.spec(dimension=size)
  )
  cache = made_caches.write(tmp_path / 'latents', identity, example)
  models = dict(zip(('flow', 'map'), _models(codec), strict=True))
  models['text'] = object()
  for kind, name in (('step', 'GRIDS'), ('jump', 'JUMPS')):
    grids = {f'{n} {kind}s': times_lib.Grid(n) for n in (1, 3)}
    monkeypatch.setattr(few_steps.infill_page, name, grids)
  monkeypatch.setattr(loading, 'load', models.__getitem__)
  monkeypatch.setattr(loading, 'load_tokenizer', lambda *a: codec)

  def fail(message):
    raise SystemExit(message)

  monkeypatch.setattr(few_steps.launch, 'fail', fail)

  def run(*arguments, teacher='flow', model='map'):
    out = tmp_path / 'page.html'
    few_steps.main(
        [
            f'--teacher={teacher}',
            f'--model={model}',
            f'--cache={cache}',
            f'--out={out}',
            f'--gap={4 / codec.spec.frame_rate}',
            '--groups=2',
            '--batch=5',
            *arguments,
        ]
    )
    sections = json.loads(out.with_suffix('.json').read_text())['sections']
    (table,) = [
        block
        for section in sections
        for block in section['blocks']
        if block['kind'] == 'table'
    ]
    return {
        row[0]['text']: [
            f'{cell["text"]} {cell["interval"]}'.strip() for cell in row[1:]
        ]
        for row in table['rows']
    }

  return run


def test_the_table_has_both_models_and_what_they_cost(run):
  rows = run()
  names = ['1 of Euler', '3 of Euler', '1 of jumps', '3 of jumps']
  assert list(rows) == ['other clips', *names]
  # A map that learned nothing jumps as its teacher steps; given frames, which go
  # straight to where they are, part the two in gaps from the second step on.
  for n in ('1', '3'):
    steps, jumps = rows[f'{n} of Euler'], rows[f'{n} of jumps']
    assert steps[0] == jumps[0] == n
    assert steps[2] == jumps[2]
    assert float(jumps[1]) == pytest.approx(float(steps[1]), rel=0.1)
  assert rows['1 of Euler'][4] == rows['1 of jumps'][4]
  assert rows['1 of Euler'][2:4] != rows['3 of Euler'][2:4]
  once, thrice = (float(rows[name][1]) for name in names[:2])
  assert thrice == pytest.approx(3 * once, rel=0.02)
  # Differences are to the most steps of the teacher.
  assert '0.000 [' in rows['3 of jumps'][3] and '[' not in rows['3 of Euler'][3]
  for row in rows.values():
    assert '[' in row[2] and '[' in row[4]


def test_what_does_not_fit_is_refused(run):
  for options, message in (
      ({'model': 'text'}, 'expected a model that denoises'),
      ({'model': 'flow'}, 'a flow, and then its map'),
      ({'teacher': 'map'}, 'a flow, and then its map'),
  ):
    with pytest.raises(SystemExit, match=message):
      run(**options)
  with pytest.raises(SystemExit, match='expected twice --groups=5'):
    run('--groups=5')
