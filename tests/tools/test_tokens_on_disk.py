"""One encoding on disk: files and caches are trained on, and sound alike."""

import os

import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import train
from audiolm_jax.audio import files
from audiolm_jax.data import cache_header
from audiolm_jax.data import corpora
from audiolm_jax.data import token_cache
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import loading
from audiolm_jax.tokenizers import encoding
from configs.lm import quickstart
from tests import tool_module
from tests.configs import short_runs
from tests.data import made_caches
from tests.tokenizers import tiny

BLOCK = f'--block_seconds={13 * tiny.HOP / tiny.RATE}'


@pytest.fixture(name='tool', scope='module')
def _tool():
  return tool_module.load('tokenize_audio')


@pytest.fixture(name='run')
def _run(tool, monkeypatch, tmp_path):
  """Runs a command with one of the tiny codecs."""
  monkeypatch.setenv('AUDIOLM_JAX_CACHE', str(tmp_path / 'cache'))
  codecs = {}

  def codec_of(path):
    name = os.path.basename(path)
    if name not in codecs:
      codecs[name] = audio_tokenizer.AudioTokenizer(*tiny.codec(name))
      # Its parts are in no table, so they have no config to take it from.
      codecs[name].fingerprint = lambda: name
    return codecs[name]

  monkeypatch.setattr(loading, 'load_codec', codec_of)
  return lambda codec, command, *arguments: tool.main(
      [command, f'--tokenizer={codec}', *map(str, arguments)]
  )


@pytest.fixture(name='folder')
def _folder(tmp_path):
  """Six clips, with texts and a table."""
  root = tmp_path / 'audio'
  for i in range(6):
    rng = np.random.default_rng(i)
    audio = rng.uniform(-0.5, 0.5, (1500 + 100 * i, 1)).astype(np.float32)
    files.write(root / f'c{i}.wav', audio, tiny.RATE)
  (root / 'c1.txt').write_text('what is\nsaid')
  (root / 'metadata.csv').write_text('file,speaker,language\nc1.wav,me,en\n')
  return root


def test_what_encode_wrote_is_trained_on(run, folder, tmp_path):
  out = tmp_path / 'tokens'
  assert run('state', 'encode', folder, out, BLOCK) == 0
  header = token_cache.read_header(out)
  assert os.path.basename(header.tokenizer) == 'state'
  settings = short_runs.shrunk(quickstart.get_config('smoke'), out)
  settings = config.replace(
      settings,
      {
          'objective.init_embeddings': True,
          'objective.decoder.vocabularies': header.vocabularies,
      },
  )
  results = train.train(settings, tmp_path / 'run')
  assert np.isfinite(list(results.values())).all() and results


@pytest.mark.parametrize('codec', ['state', 'segments', 'continuous'])
def test_a_cache_sounds_like_the_files(run, folder, tmp_path, codec):
  """Codes, gains of segments, and latents survive either way."""
  corpora.prepare(str(folder))
  out, cache = tmp_path / 'tokens', tmp_path / 'tokens of a corpus'
  assert run(codec, 'encode', folder, out, BLOCK) == 0
  assert run(codec, 'corpus', f'--corpus={folder}', f'--out={cache}') == 0
  one, other = made_caches.clips_of(out), made_caches.clips_of(cache)
  assert sorted(one) == sorted(other) == [f'c{i}.wav' for i in range(6)]
  for name, (split, clip) in one.items():
    assert (split, clip.samples) == (other[name][0], other[name][1].samples)
    assert clip.arrays.keys() == other[name][1].arrays.keys()
    for key, value in clip.factors.items():
      assert other[name][1].factors[key] == value
  assert one['c1.wav'][1].factors['text'] == 'what is said'
  for source, target in ((out, 'a'), (cache, 'b')):
    assert run(codec, 'decode', source, tmp_path / target, BLOCK) == 0
  for i in range(6):
    sounds = [files.read(tmp_path / x / f'c{i}.wav')[0] for x in 'ab']
    np.testing.assert_allclose(*sounds, atol=1e-4)
  # Some of its clips, by their ids.
  few = ('--clip=c2.wav', '--clip=c9.wav')
  assert run(codec, 'decode', cache, tmp_path / 'c', BLOCK, *few) == 1
  assert os.listdir(tmp_path / 'c') == ['c2.wav']


def test_ids_lead_nowhere_else(run, folder, tmp_path, capsys):
  corpora.prepare(str(folder))
  cache = tmp_path / 'tokens'
  assert run('state', 'corpus', f'--corpus={folder}', f'--out={cache}') == 0
  header = token_cache.read_header(cache)
  bad = tmp_path / 'bad'
  names = ['../x.wav', '/tmp/x.wav', 'good.wav', 'good.flac']
  writer = token_cache.Writer(
      bad,
      cache_header.Identity(
          **{
              name: getattr(header, name)
              for name in ('spec', 'fingerprint', 'codebooks', 'aligned')
          },
          clips={'train': 4},
      ),
  )
  clip = token_cache.TokenCache(cache, 'train')[0]
  writer.write(
      'train',
      0,
      [
          encoding.Example(clip.codes, clip.samples, {'id': name})
          for name in names
      ],
  )
  assert writer.finish()
  assert run('state', 'decode', bad, tmp_path / 'out', BLOCK) == 1
  said = capsys.readouterr().err
  assert "'../x.wav' is no name" in said and "'/tmp/x.wav' is no name" in said
  assert 'already to become good' in said and '1 done' in said
  assert os.listdir(tmp_path / 'out') == ['good.wav']


def test_clip_is_for_caches(run, folder, tmp_path):
  with pytest.raises(SystemExit, match='--clip is for a token cache'):
    run('state', 'decode', folder, tmp_path / 'x', '--clip=c0.wav')


def test_a_new_text_is_encoded_anew(run, folder, tmp_path, capsys):
  for text, count in (('a', 6), ('a', 0), ('b', 1)):
    (folder / 'c3.txt').write_text(text)
    assert run('state', 'encode', folder, tmp_path / 'out', BLOCK) == 0
    assert f'{count} done' in capsys.readouterr().err
  assert (
      made_caches.clips_of(tmp_path / 'out')['c3.wav'][1].factors['text'] == 'b'
  )
