"""The tool, with a tiny language model of a tiny codec's tokens."""

import dataclasses
import os
import sys
import threading

import numpy as np
import pytest
import soundfile

from audiolm_jax import config
from audiolm_jax.models import loading
from audiolm_jax.audio import files
from audiolm_jax.audio import resample
from audiolm_jax.data import factors
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import masked as masked_lib
from audiolm_jax.generation import unmask
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import masked_lm
from audiolm_jax.models import token_lm
from audiolm_jax.patterns import coarse_first
from audiolm_jax.patterns import interleaving
from audiolm_jax.processes import unmasking
from audiolm_jax.tokenizers import base as tokenizers_base
from tests import tool_module
from tests.decoders import small
from tests.tokenizers import tiny

RATE, HOP = tiny.RATE, tiny.HOP
# In frames: of the prompt, and what is added.
PROMPT, MORE = 5, 9
SECONDS = f'--seconds={MORE * HOP / RATE}'


@pytest.fixture(name='tool', scope='module')
def _tool():
  return tool_module.load('generate')


@pytest.fixture(name='model', scope='module')
def _model():
  # Two of the codec's three codebooks.
  decoder = decoder_lib.Decoder(
      (8, 8), pattern=interleaving.Delay(), backbone=small.stack()
  )
  codes = np.zeros((1, 4, 2), np.int32)
  params = small.parameters(decoder, codes, np.array([4]))
  return token_lm.TokenLM(decoder, params, RATE / HOP)


@pytest.fixture(name='told', scope='module')
def _told():
  """A model that is told a text of up to 3 bytes and a mark, and of voices."""
  conditions = {
      'text': conditioners.Text(how='prefix', source=factors.Text(length=4)),
      'voice': conditioners.Codes(
          how='prefix', source=factors.Codes((8, 8), length=3)
      ),
      'speaker': conditioners.Vector(how='prefix', source=factors.Vector(2)),
  }
  decoder = decoder_lib.Decoder(
      (8, 8),
      pattern=interleaving.Delay(),
      backbone=small.stack(),
      conditions=conditions,
  )
  codes = np.zeros((1, 4, 2), np.int32)
  told = {'text': 'abc', 'voice': codes[0, :3], 'speaker': np.ones(2)}
  told = {k: m.source.prepare([told[k]]) for k, m in conditions.items()}
  params = small.parameters(decoder, codes, np.array([4]), None, told)
  return token_lm.TokenLM(decoder, params, RATE / HOP)


@pytest.fixture(name='masked', scope='module')
def _masked():
  """Two stages of a slot each."""
  decoder = masked_lib.Masked(
      (8, 8),
      small.stack(mixer={'mask_kind': 'bidirectional'}),
      stages=((0,), (1,)),
  )
  codes = np.zeros((1, 4, 2), np.int32)
  params = small.parameters(decoder, codes, np.array([4]))
  return masked_lm.MaskedLM(decoder, params, RATE / HOP)


@pytest.fixture(name='codec', scope='module')
def _codec():
  return audio_tokenizer.AudioTokenizer(*tiny.codec('state'))


@pytest.fixture(name='run')
def _run(tool, model, told, masked, codec, monkeypatch):
  found = {'lm': model, 'told': told, 'masked': masked, 'text': object()}
  other = audio_tokenizer.AudioTokenizer(*tiny.codec('continuous'))
  codecs = {'other': other, 'same': codec}

  def load_tokenizer(workdir, directory=None):
    if directory == 'other':
      raise config.ConfigError(f'{workdir} speaks of another.')
    return codec

  monkeypatch.setattr(loading, 'load', found.__getitem__)
  monkeypatch.setattr(loading, 'load_tokenizer', load_tokenizer)
  monkeypatch.setattr(loading, 'load_codec', codecs.__getitem__)

  def run(*arguments):
    return tool.main(['--model=lm', SECONDS, *map(str, arguments)])

  return run


@pytest.fixture(name='prompt', scope='module')
def _prompt(tmp_path_factory):
  """Stereo at another rate, ending within a frame."""
  rng = np.random.default_rng(0)
  samples = (PROMPT * HOP + 7) * 5
  path = tmp_path_factory.mktemp('prompt') / 'x.wav'
  audio = rng.uniform(-0.5, 0.5, (samples, 2)).astype(np.float32)
  files.write(path, audio, 5 * RATE)
  return path


def test_a_prompt_is_continued_and_a_stream_is_the_same(
    run, prompt, model, codec, tmp_path, capsys
):
  whole, stream = tmp_path / 'whole.wav', tmp_path / 'stream.flac'
  assert run(f'--prompt={prompt}', f'--out={whole}') == 0
  assert 'whole.wav: 0.14 s of audio, 0.05 s of it' in capsys.readouterr().err
  assert run(f'--prompt={prompt}', f'--out={stream}', '--stream') == 0
  (sound, rate), (streamed, _) = files.read(whole), files.read(stream)
  assert rate == RATE and sound.shape == ((PROMPT + MORE) * HOP, 1)
  # 16 bits, whose last may fall either way.
  np.testing.assert_allclose(streamed, sound, atol=1.1 / 2**15)
  assert np.abs(sound[PROMPT * HOP :]).max() > 0.01
  # The prompt is what the codec makes of it, mixed and resampled.
  mono = resample.remix(files.read(prompt)[0], 1)
  mono = resample.resample(mono, 5 * RATE, RATE)[: PROMPT * HOP]
  codes = codec.encode(mono[None]).codes[..., :2]
  codes = model.generate(codes, PROMPT + MORE)
  samples = np.array([(PROMPT + MORE) * HOP])
  expected, _ = codec.decode(
      tokenizers_base.Tokens(num_samples=samples, codes=codes)
  )
  expected = np.clip(expected[0], -1, 1)
  np.testing.assert_allclose(sound, expected, atol=1.1 / 2**15)


def test_a_masked_model_continues_and_fills_gaps(
    run, prompt, masked, codec, tmp_path, capsys
):
  mono = resample.remix(files.read(prompt)[0], 1)
  mono = resample.resample(mono, 5 * RATE, RATE)[: PROMPT * HOP]
  codes = codec.encode(mono[None]).codes[..., :2]
  plans = (
      unmask.Plan(unmasking.RandomOrder(), 3, 'linear', temperature_end=0.5),
      unmask.Plan(unmasking.RandomOrder(), 1, 'linear', temperature_end=0.5),
  )

  def same(codes, *arguments):
    path = tmp_path / 'x.wav'
    assert run('--model=masked', f'--out={path}', *arguments) == 0
    samples = np.array([codes.shape[1] * HOP])
    expected, _ = codec.decode(
        tokenizers_base.Tokens(num_samples=samples, codes=codes)
    )
    np.testing.assert_allclose(
        files.read(path)[0], np.clip(expected[0], -1, 1), atol=1.1 / 2**15
    )
    return capsys.readouterr().err

  options = '--steps=3,1', '--order=random', '--schedule=linear'
  options += ('--temperature_end=0.5', f'--prompt={prompt}')
  continued = masked.generate(codes, PROMPT + MORE, plans=plans)
  said = same(continued, *options)
  assert f'4 passes over {PROMPT + MORE} frames; ' in said
  # Parts of the second and third frame, and the last one.
  known = np.ones_like(codes, bool)
  known[:, [1, 2, 4]] = False
  filled = masked.infill(codes, known, plans=plans)
  first, last = 1.5 * HOP / RATE, 2.5 * HOP / RATE
  said = same(
      filled,
      *options,
      '--seconds=0',
      f'--infill={first}:{last}',
      f'--infill={4 * HOP / RATE}:{5 * HOP / RATE}',
  )
  np.testing.assert_array_equal(filled[known], codes[known])
  # Without an order, that of the plan; of one number, for all stages.
  assert '8 passes' in same(
      masked.generate(codes, PROMPT + MORE, plans=[unmask.Plan(steps=4)]),
      '--steps=4',
      f'--prompt={prompt}',
  )


def test_costs_are_told(run, model, prompt, tmp_path, capsys):
  assert run(f'--out={tmp_path / "x.wav"}', f'--prompt={prompt}') == 0
  flops = model.generation_flops((PROMPT + MORE) * HOP / RATE)
  # The delay makes a step more than there are frames.
  expected = f'{MORE} steps; {flops / 1e9:.3g} GFLOPs if all'
  assert expected in capsys.readouterr().err


def test_seeds_and_samplers(run, tmp_path):
  def sound(*arguments):
    path = tmp_path / 'x.wav'
    assert run(f'--out={path}', *arguments) == 0
    return files.read(path)[0]

  first = sound('--seed=1')
  assert first.shape == (MORE * HOP, 1)
  np.testing.assert_array_equal(first, sound('--seed=1'))
  assert (first != sound('--seed=2')).any()
  # One code to choose from: seeds do not matter.
  np.testing.assert_array_equal(
      sound('--seed=1', '--top_k=1'), sound('--seed=2', '--temperature=0')
  )


def test_segments_that_overlap_have_fewer_samples(run, monkeypatch, tmp_path):
  codec = audio_tokenizer.AudioTokenizer(*tiny.codec('segments'))
  monkeypatch.setattr(loading, 'load_tokenizer', lambda directory: codec)
  whole, stream = tmp_path / 'whole.wav', tmp_path / 'stream.wav'
  assert run('--seconds=0.25', f'--out={whole}') == 0
  assert run('--seconds=0.25', f'--out={stream}', '--stream') == 0
  # 30 frames: two segments of 11, and 8.
  sound = files.read(whole)[0]
  assert sound.shape == (2 * codec.spec.segment[1] + 8 * HOP, 1)
  streamed = files.read(stream)[0]
  np.testing.assert_allclose(streamed, sound, atol=1.1 / 2**15)


def test_conditions_are_told(run, tmp_path):
  """By their own names or by --text; a stream is told the same."""

  def sound(*arguments):
    path = tmp_path / 'x.wav'
    assert run('--model=told', f'--out={path}', *arguments) == 0
    return files.read(path)[0]

  first = sound('--text=abc')
  for same in (
      ['--condition=text=abc'],
      ['--text=abc', '--guidance=1'],
      ['--text=abc', '--stream'],
  ):
    np.testing.assert_allclose(sound(*same), first, atol=1.1 / 2**15)
  nothing = sound()
  np.testing.assert_array_equal(sound('--text=abc', '--guidance=0'), nothing)
  assert (nothing != first).any() and (sound('--text=x') != first).any()


def test_voices_are_files(run, told, codec, prompt, tmp_path, monkeypatch):
  """Of audio, of which as much is taken as the model takes; of numbers."""
  vector = tmp_path / 'speaker.npy'
  np.save(vector, np.array([1.0, -2.0]))
  calls = []
  generate = token_lm.TokenLM.generate

  def noting(self, *arguments, conditions=None, **options):
    calls.append(conditions)
    return generate(self, *arguments, conditions=conditions, **options)

  monkeypatch.setattr(token_lm.TokenLM, 'generate', noting)

  def sound(*arguments):
    path = tmp_path / 'x.wav'
    assert run('--model=told', f'--out={path}', *arguments) == 0
    return files.read(path)[0]

  voice = sound(f'--condition=voice={prompt}')
  audio, rate = files.read(prompt)
  mono = resample.remix(resample.resample(audio, rate, RATE), 1)
  expected = codec.encode(mono[None, : PROMPT * HOP]).codes[0, :3, :2]
  assert PROMPT > 3
  np.testing.assert_array_equal(calls[0]['voice'][0], expected)
  speaker = sound(f'--condition=speaker={vector}')
  np.testing.assert_array_equal(calls[1]['speaker'][0], [1, -2])
  nothing = sound()
  assert (nothing != voice).any() and (nothing != speaker).any()


class _Piped:
  """Stands for sys.stdout with a pipe behind it."""

  def __init__(self, file):
    self.buffer = file

  def fileno(self):
    return self.buffer.fileno()


def test_audio_comes_while_it_is_generated(run, monkeypatch):
  """Without an end, until who listens goes away."""
  drain, sink = os.pipe()
  monkeypatch.setattr(sys, 'stdout', _Piped(open(sink, 'wb')))
  status = []
  thread = threading.Thread(
      target=lambda: status.append(
          run('--seconds=inf', '--stream', '--out=-', '--cache_seconds=0.1')
      )
  )
  thread.start()
  with open(drain, 'rb') as out:
    # Longer than the room of 10 frames; raw 16-bit samples.
    samples = np.frombuffer(out.read(2 * 30 * HOP), '<i2')
  thread.join(timeout=60)
  assert status == [1]
  assert np.abs(samples).max() > 100


def test_what_cannot_be_is_told(run, prompt, tmp_path, capsys):
  out = f'--out={tmp_path / "x.wav"}'
  bad = tmp_path / 'bad.wav'
  bad.write_text('no audio')
  strange = {'nan': np.nan, 'loud': 1e4}
  for name, value in strange.items():
    path = tmp_path / f'{name}.wav'
    soundfile.write(path, np.full(99, value), RATE, subtype='FLOAT')
  for message, *arguments in (
      ('--text: lm was trained without', out, '--text=hello'),
      ('--guidance: lm was trained without', out, '--guidance=3'),
      ('--text: .*longest has 4', out, '--model=told', '--text=hello'),
      (
          '--speaker: .*nowhere.npy',
          out,
          '--model=told',
          '--condition=speaker=nowhere.npy',
      ),
      ('--mood: told was', out, '--model=told', '--condition=mood=sad'),
      ('does not continue', out, '--model=text'),
      ('--stream is not of masked', out, '--model=masked', '--stream'),
      (
          '--cache_seconds is not of',
          out,
          '--model=masked',
          '--sink_tokens=1',
          '--cache_seconds=1',
      ),
      ('--steps is not of lm', out, '--steps=4'),
      ('--temperature_end is not of lm', out, '--temperature_end=0'),
      ('3 numbers, but masked has 2', out, '--model=masked', '--steps=1,1,1'),
      ('repetition_window = 2', out, '--model=masked', '--repetition_window=2'),
      (
          '--infill=0:9 is not within',
          out,
          '--model=masked',
          '--infill=0:9',
          f'--prompt={prompt}',
      ),
      ('has continuous ones', out, '--tokenizer=other', '--force'),
      ('speaks of another. --force takes', out, '--tokenizer=other'),
      ('--guidance does nothing', out, '--model=told', '--guidance=3'),
      ('--seconds=0 gives no frame: one is 0.', out, '--seconds=0'),
      ('--seconds=1e-09 gives no frame', out, '--seconds=1e-9'),
      ('gives no frame', out, '--seconds=1e-9', f'--prompt={prompt}'),
      ('--seconds=1e.20 is too long', out, '--seconds=1e20'),
      ('Attention to [0-9]{8,} steps .* would take', out, '--seconds=2e7'),
      ('temperature = inf', out, '--temperature=inf'),
      ('temperature = nan', out, '--temperature=nan'),
      ('repetition_penalty = 2.0 does nothing', out, '--repetition_penalty=2'),
      ('bad.wav: cannot be decoded', out, f'--prompt={bad}'),
      ('nan.wav: .*not finite', out, f'--prompt={tmp_path / "nan.wav"}'),
      ('loud.wav: .*full scale is 1', out, f'--prompt={tmp_path / "loud.wav"}'),
      ('expected .wav or .flac', f'--out={tmp_path / "x.mp3"}'),
      ('top_p', out, '--top_p=2'),
  ):
    with pytest.raises(SystemExit, match=message):
      run(*arguments)
  for message, *arguments in (
      ('no such file', out, '--prompt=nowhere.wav'),
      ('give one', out, '--infill=0:1'),
      ('invalid _span value', out, '--infill=1:1'),
      ('invalid _steps value', out, '--steps=0'),
      ('needs --stream', out, '--seconds=inf'),
      ('--seconds: -1: expected at least 0', out, '--seconds=-1'),
      ('--seconds: nan: expected at least 0', out, '--seconds=nan'),
      ('invalid float value', out, '--seconds=long'),
      ('invalid _pair value', out, '--condition=sad'),
      ('text is given more', out, '--text=a', '--condition=text=b'),
      ('a is given more', out, '--condition=a=1', '--condition=a=2'),
      (
          '--cache_seconds: inf: expected more than 0',
          out,
          '--cache_seconds=inf',
      ),
      ('--cache_seconds: 0: expected more than 0', out, '--cache_seconds=0'),
      (
          '--sink_tokens: -1: expected at least 0',
          out,
          '--sink_tokens=-1',
          '--cache_seconds=1',
      ),
      ('--sink_tokens does nothing without', out, '--sink_tokens=1'),
      ('--force does nothing without', out, '--force'),
      ('--seed: -1: expected at least 0', out, '--seed=-1'),
      (
          '--seed: 99999999999999999999: expected',
          out,
          '--seed=99999999999999999999',
      ),
      ('--guidance: nan: expected a finite number', out, '--guidance=nan'),
  ):
    with pytest.raises(SystemExit, match='2'):
      run(*arguments)
    assert message in capsys.readouterr().err
  assert sorted(os.listdir(tmp_path)) == ['bad.wav', 'loud.wav', 'nan.wav']


def test_a_prompt_shorter_than_a_frame_is_none(run, tmp_path, capsys):
  path, out = tmp_path / 'x.wav', tmp_path / 'y.wav'
  files.write(path, np.zeros((HOP - 1, 1), np.float32), RATE)
  assert run(f'--prompt={path}', f'--out={out}') == 0
  assert 'shorter than a frame' in capsys.readouterr().err
  assert files.read(out)[0].shape == (MORE * HOP, 1)


def test_a_prompt_alone_and_a_tokenizer_elsewhere(run, prompt, tmp_path):
  out = tmp_path / 'x.wav'
  alone = ['--seconds=0', f'--prompt={prompt}', f'--out={out}']
  for more in ([], ['--tokenizer=same'], ['--tokenizer=same', '--force']):
    assert run(*alone, *more) == 0
    assert files.read(out)[0].shape == (PROMPT * HOP, 1)


def test_what_a_decoder_can_not_do_is_told(run, model, monkeypatch, tmp_path):
  """An end that must be known, and one beyond what was learned."""
  out = f'--out={tmp_path / "x.wav"}'

  def sound(message, *arguments, **changes):
    decoder = model.decoder.clone(**changes)
    changed = dataclasses.replace(model, decoder=decoder)
    monkeypatch.setattr(loading, 'load', lambda directory: changed)
    with pytest.raises(SystemExit, match=message):
      run(out, *arguments)

  backbone = small.stack(positions='learned', max_positions=MORE)
  sound('10 positions, but max_positions = 9', backbone=backbone)
  endless = ['--seconds=inf', '--stream']
  sound('no end, but max_positions = 9', *endless, backbone=backbone)
  pattern = coarse_first.CoarseFirst()
  sound('must know the end beforehand', *endless, pattern=pattern)
  assert not os.listdir(tmp_path)
