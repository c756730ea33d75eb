"""The tool, with a tiny model of a tiny VAE's latents."""

import os

import numpy as np
import pytest

from audiolm_jax import decoders
from audiolm_jax.audio import files
from audiolm_jax.data import factors
from audiolm_jax.data import moments as moments_lib
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import time_embedding
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import flow_lm
from audiolm_jax.models import loading
from audiolm_jax.processes import guidance as guidance_lib
from audiolm_jax.processes import solvers
from audiolm_jax.processes import times as times_lib
from audiolm_jax.tokenizers import base as tokenizers_base
from tests import tool_module
from tests.decoders import small
from tests.tokenizers import tiny

RATE, HOP, D = tiny.RATE, tiny.HOP, 3
# In frames: of the prompt, and what is added.
PROMPT, MORE = 16, 4
SECONDS = f'--seconds={MORE * HOP / RATE}'
BLOCKS = ('--model=blocks',)
# 16 bits, whose last may fall either way.
BIT = 1.1 / 2**15


def _model(mixer=None, how='prefix', **options):
  conditions = {
      'text': conditioners.Text(how=how, source=factors.Text(length=4)),
      'seconds_total': conditioners.Number(
          how='film', source=factors.Number(0.0, 8.0)
      ),
  }
  decoder = decoders.Flow(
      D,
      backbone=small.stack(
          mixer=mixer or {'mask_kind': 'bidirectional'},
          cross=small.attention.Cross(heads=2) if how == 'cross' else None,
          adaptive='adaln_zero',
      ),
      conditions=conditions,
      moments=moments_lib.Moments((0.5, 0.0, -1.0), (2.0, 1.0, 0.5)),
      **options,
  )
  batch = decoder.example_batch(1, 4)
  latents, num_frames, conditions = decoder.read(batch)
  params = small.parameters(
      decoder,
      *(latents, np.ones(1, np.float32), num_frames),
      *(None, None, None, conditions),
      method='predict',
  )
  return flow_lm.FlowLM(decoder, params, RATE / HOP)


@pytest.fixture(name='tool', scope='module')
def _tool():
  return tool_module.load('generate')


@pytest.fixture(name='blocks', scope='module')
def _blocks():
  return _model({'mask_kind': 'block_causal', 'block': 3}, 'cross')


@pytest.fixture(name='model', scope='module')
def _flow():
  return _model()


@pytest.fixture(name='codec', scope='module')
def _codec():
  return audio_tokenizer.AudioTokenizer(*tiny.codec('continuous'))


@pytest.fixture(name='sound', scope='module')
def _sound(tmp_path_factory):
  """(a file of audio, which ends within a frame; its whole frames)."""
  rng = np.random.default_rng(0)
  audio = rng.uniform(-0.5, 0.5, (PROMPT * HOP + 7, 1)).astype(np.float32)
  path = tmp_path_factory.mktemp('sound') / 'x.wav'
  files.write(path, audio, RATE)
  return path, files.read(path)[0][None, : PROMPT * HOP]


@pytest.fixture(name='run')
def _run(tool, model, blocks, codec, monkeypatch, tmp_path, capsys):
  """run(*arguments): (audio, what was said)."""
  jump = time_embedding.TimeEmbedding(frequencies=4, scale=3.0)
  found = {
      'flow': model,
      'blocks': blocks,
      'blind': _model(gaps=None),
      'e': _model(target='e'),
      'map': _model(jump=jump),
  }
  monkeypatch.setattr(loading, 'load', found.__getitem__)
  monkeypatch.setattr(loading, 'load_tokenizer', lambda *_: codec)

  def run(*arguments):
    run.models = found
    path = tmp_path / 'x.wav'
    options = ['--model=flow', f'--out={path}', *map(str, arguments)]
    assert tool.main(options) == 0
    sound = files.read(path)[0]
    path.unlink()
    return sound, capsys.readouterr().err

  return run


@pytest.fixture(name='same')
def _same(run, codec):
  """Whether the tool's audio is that of latents; gives what was said."""

  def same(latents, *arguments):
    sound, said = run(*arguments)
    samples = np.array([latents.shape[1] * HOP])
    expected, _ = codec.decode(
        tokenizers_base.Tokens(num_samples=samples, latents=latents)
    )
    expected = np.clip(expected[0], -1, 1)
    np.testing.assert_allclose(sound, expected, atol=BIT)
    return said

  return same


def test_steps_samplers_and_guidance(same, model):
  grid = times_lib.Grid(3)

  def made(**options):
    return model.generate(MORE, [MORE], **options)

  plain = made()
  said = same(plain, SECONDS)
  flops = model.generation_flops(MORE * HOP / RATE) / 1e9
  assert f'32 evaluations of the network over 4 frames; {flops:.3g} GF' in said
  assert 'x.wav: 0.04 s of audio, 0.00 s of it the prompt' in said
  assert 'real-time factor' in said
  heun = made(grid=grid, solver=solvers.Heun(), seed=5)
  said = same(heun, SECONDS, '--steps=3', '--sampler=heun', '--seed=5')
  assert '6 evaluations of the network over 4 frames; ' in said
  assert np.abs(heun - plain).max() > 0.1
  told = {'conditions': {'text': ['abc']}, 'grid': grid}
  few = SECONDS, '--steps=3', '--text=abc', '--guidance=4'
  results = [made(**told)]
  for kind, guidance in (
      ('plain', guidance_lib.Plain(4.0)),
      ('rescaled', guidance_lib.Rescaled(4.0)),
      ('projected', guidance_lib.Projected(4.0)),
      ('interval', guidance_lib.Interval(guidance_lib.Plain(4.0))),
  ):
    results.append(made(**told, guidance=guidance))
    said = same(results[-1], *few, f'--guidance_kind={kind}')
    assert '6 evaluations of the network over 4 frames, half of' in said
  flops = model.generation_flops(
      MORE * HOP / RATE, grid=grid, guidance=guidance
  )
  assert f'half of them without conditions; {flops / 1e9:.3g} GF' in said
  # All are others.
  for i, one in enumerate(results):
    for other in results[:i]:
      assert np.abs(one - other).max() > 1e-4
  same(results[1], *few)
  # Away from another text, with a text or without one.
  for condition in ({'conditions': {'text': ['abc']}}, {}):
    negative = made(
        grid=grid,
        guidance=guidance_lib.Plain(4.0),
        negative={'text': ['b']},
        **condition,
    )
    arguments = few if condition else (SECONDS, '--steps=3', '--guidance=4')
    said = same(negative, *arguments, '--negative=b')
    assert 'half of them with the negative text' in said
    assert np.abs(negative - results[1]).max() > 1e-4


def test_a_map_jumps_unless_another_sampler_is_asked_for(run, same):
  run(SECONDS)
  model = run.models['map']
  for steps, given in ((4, ()), (2, ('--steps=2',))):
    expected = model.generate(MORE, [MORE], grid=times_lib.Grid(steps))
    said = same(expected, SECONDS, '--model=map', *given)
    assert f'{steps} evaluations of the network' in said
  euler = model.generate(
      MORE, [MORE], grid=times_lib.Grid(2), solver=solvers.Euler()
  )
  same(euler, SECONDS, '--model=map', '--steps=2', '--sampler=euler')
  assert np.abs(euler - expected).max() > 1e-3
  with pytest.raises(SystemExit, match='distilled'):
    run(SECONDS, '--model=map', '--text=a', '--guidance=2')


def test_blocks_are_heard_while_they_are_made(run, same, blocks, codec, sound):
  grid = times_lib.Grid(2)
  options = {
      'grid': grid,
      'guidance': guidance_lib.Plain(3.0),
      'conditions': {'text': ['abc']},
  }
  arguments = '--steps=2', '--text=abc', '--guidance=3', *BLOCKS
  whole = blocks.generate(MORE, [MORE], **options)
  same(whole, SECONDS, *arguments)
  heard, said = run(SECONDS, *arguments, '--stream')
  plain = run(SECONDS, *arguments)[0]
  np.testing.assert_allclose(heard, plain, atol=3e-4)
  assert '4 evaluations of the network over 4 frames' in said
  # A prompt, whose end is within a block, and a row without an end.
  path, audio = sound
  latents = codec.encode(audio).latents
  total = PROMPT + MORE
  given = np.pad(latents, ((0, 0), (0, MORE), (0, 0)))
  mask = np.arange(total)[None] < PROMPT
  more = blocks.generate(
      total, [total], given=given, given_mask=mask, **options
  )
  continued = [SECONDS, f'--prompt={path}', *arguments]
  same(more, *continued)
  heard, _ = run(*continued, '--stream')
  np.testing.assert_allclose(heard, run(*continued)[0], atol=3e-4)


def test_a_prompt_is_continued_and_gaps_are_filled(
    run, same, model, codec, sound
):
  path, audio = sound
  latents = codec.encode(audio).latents
  given = np.pad(latents, ((0, 0), (0, MORE), (0, 0)))
  mask = np.arange(PROMPT + MORE)[None] < PROMPT
  grid, total = times_lib.Grid(2), PROMPT + MORE
  options = {'grid': grid, 'given': given}
  more = model.generate(total, [total], given_mask=mask, **options)
  said = same(more, SECONDS, f'--prompt={path}', '--steps=2')
  assert '0.20 s of audio, 0.16 s of it the prompt' in said
  assert '2 evaluations of the network over 20 frames' in said
  # Parts of two frames.
  first, last = 7.5 * HOP / RATE, 8.5 * HOP / RATE
  known = np.ones((1, PROMPT), bool)
  known[:, [7, 8]] = False
  options['given'] = latents
  filled = model.generate(PROMPT, [PROMPT], given_mask=known, **options)
  gap = '--steps=2', f'--prompt={path}', f'--infill={first}:{last}'
  same(filled, *gap)
  # What is given is heard as the codec makes it, but where the gap reaches: the
  # decoder sees 4 frames to either side.
  heard = run(*gap)[0]
  plain, _ = codec.decode(
      tokenizers_base.Tokens(
          num_samples=np.array([PROMPT * HOP]), latents=latents
      )
  )
  apart = np.abs(heard - np.clip(plain[0], -1, 1)).max(axis=1)
  assert apart[: 3 * HOP].max() < BIT and apart[13 * HOP :].max() < BIT
  assert apart[7 * HOP : 9 * HOP].max() > 0.01


def test_seconds_are_a_condition(same, model):
  def made(**conditions):
    told = {k: [v] for k, v in conditions.items()}
    return model.generate(MORE, [MORE], grid=times_lib.Grid(2), conditions=told)

  few = SECONDS, '--steps=2'
  told = made(seconds_total=4.5)
  same(told, *few, '--condition=seconds_total=4.5')
  both = made(seconds_total=4.5, text='a')
  same(both, *few, '--condition=seconds_total=4.5', '--text=a')
  for other in (made(), made(seconds_total=4.0), both):
    assert np.abs(other - told).max() > 1e-3


def test_long_audio_is_made_in_windows(same, model, sound, codec):
  path, audio = sound
  latents = codec.encode(audio).latents
  total, grid = PROMPT + MORE, times_lib.Grid(2)
  given = np.pad(latents, ((0, 0), (0, MORE), (0, 0)))
  few = SECONDS, f'--prompt={path}', '--steps=2'
  for window, overlap, count in ((8, 3, 4), (8, 2, 3), (total, 5, 1)):
    made = model.generate_long(
        *(total, [total]),
        window=window,
        overlap=overlap,
        grid=grid,
        given=given,
        given_mask=np.arange(total)[None] < PROMPT,
    )
    arguments = [f'--window={window * HOP / RATE}']
    # A quarter is what is left out.
    if overlap != 2 and overlap != 5:
      arguments.append(f'--overlap={overlap * HOP / RATE}')
    said = same(made, *few, *arguments)
    wanted = f'{2 * count} evaluations of the network over {window} frames; '
    assert wanted in said
    flops = model.generation_flops(
        total * HOP / RATE, grid=grid, window=window, overlap=overlap
    )
    assert f'frames; {flops / 1e9:.3g} GFLOPs' in said


def test_audio_is_varied_by_strength(same, model, codec, sound):
  path, audio = sound
  latents = codec.encode(audio).latents
  grid = times_lib.Grid(2)
  for strength in (0.1, 0.6):
    varied = model.generate(
        PROMPT, [PROMPT], grid=grid, init=latents, strength=strength
    )
    same(varied, '--steps=2', f'--init={path}', f'--strength={strength}')
  # Noise alone says nothing of them.
  plain = model.generate(PROMPT, [PROMPT], grid=grid)
  same(plain, '--steps=2', f'--init={path}', '--strength=1')


def test_what_cannot_be_is_told(run, sound, tmp_path, capsys):
  short = tmp_path / 'short.wav'
  files.write(short, np.zeros((HOP - 1, 1), np.float32), RATE)
  prompt, init = f'--prompt={sound[0]}', f'--init={sound[0]}'
  for message, *arguments in (
      ('block_causal', '--stream'),
      ('--cache_seconds does nothing', '--cache_seconds=1'),
      ('--window is of whole rows', '--stream', '--window=0.1', *BLOCKS),
      ('--temperature is not of flow', '--temperature=.5'),
      ('--order is not of flow', '--order=span'),
      ('--weights is not of flow', '--weights=int8'),
      ('--sampler=best is none of .*heun', '--sampler=best'),
      ('--guidance_kind=best is none', '--guidance=2', '--guidance_kind=best')
      + ('--text=a',),
      ('scale = -1', '--guidance=-1', '--text=a'),
      ('--guidance does nothing', '--guidance=2'),
      ('--negative: .*longest has 4', '--guidance=2', '--negative=abcdef'),
      ('--seconds_total: 9.5 is not within 0 and 8', '--condition')
      + ('seconds_total=9.5',),
      ('--seconds_total: nan is not finite', '--condition=seconds_total=nan'),
      ("--seconds_total: 'a' is no number", '--condition=seconds_total=a'),
      ('--overlap=0.2: windows of 10 .* share 20', '--window=.1')
      + ('--overlap=.2',),
      ('windows of 1 frames that share 0', '--window=.01'),
      ('--window: blind was .* no given', '--model=blind', '--window=.1'),
      ('2 numbers, but flow has no', '--steps=1,2'),
      ('--infill=0:9 is not within', prompt, '--infill=0:9'),
      ('short.wav: shorter than', f'--init={short}', '--strength=.5'),
      ('--prompt: blind was .* no given', prompt, '--model=blind'),
      ('--sampler=euler: .*t = 1', '--model=e', '--sampler=euler'),
  ):
    with pytest.raises(SystemExit, match=message):
      run(*arguments)
  for message, *arguments in (
      ('--init=nowhere.wav: no such', '--init=nowhere.wav', '--strength=.5'),
      ('--init needs a --strength', init),
      ('--strength does nothing', '--strength=.5'),
      ('0: expected more than 0', init, '--strength=0'),
      ('give one of them', init, prompt, '--strength=.5'),
      ('--init says how long', init, '--strength=.5', '--seconds=1'),
      ('--overlap does nothing without --window', '--overlap=1'),
      ('--window: 0: expected more than 0', '--window=0'),
      ('--negative does nothing without', '--negative=a'),
      ('--guidance_kind does nothing', '--guidance_kind=plain'),
  ):
    with pytest.raises(SystemExit, match='2'):
      run(*arguments)
    assert message in capsys.readouterr().err
  assert os.listdir(tmp_path) == ['short.wav']
  # A model of noise may start where some of the data is left.
  run('--model=e', init, '--strength=.5', '--steps=1')
