"""stable-audio's folders: read, written, generated with, and refused."""

import copy
import json
import shutil

import jax
import numpy as np
import pytest

import audiolm_jax
from audiolm_jax import interop
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import files
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import flow_lm
from audiolm_jax.models import loading
from audiolm_jax.processes import guidance as guidance_lib
from audiolm_jax.processes import solvers
from audiolm_jax.processes import times as times_lib
from audiolm_jax.tokenizers import base as tokenizers_base
from tests.decoders import small
from tests.interop import tiny_weights

_CONFIG = tiny_weights.PIPELINES['stable_audio']
_FAMILY = interop.FAMILIES['stable_audio']
_PARTS = ('transformer', 'projection_model', 'text_encoder', 'vae')


@pytest.fixture(name='written', scope='module')
def _written(tmp_path_factory):
  directory = tmp_path_factory.mktemp('pipeline')
  tiny_weights.write(directory, 'stable_audio')
  return directory


@pytest.fixture(name='directory')
def _directory(written, tmp_path):
  return shutil.copytree(written, tmp_path / 'pipeline')


@pytest.fixture(name='lm', scope='module')
def _lm(written):
  return audiolm_jax.load(written)


def _generate(lm, lengths=(8, 5), **options):
  options = {
      'solver': solvers.Dpm2m(random=True),
      'grid': times_lib.SnrGrid(3),
      **options,
  }
  return lm.generate(8, list(lengths), **options)


def test_what_is_saved_is_loaded(directory, tmp_path):
  model, variables = interop.load_pretrained(directory)
  interop_base.check_complete(_FAMILY, model)
  assert model.frames == 8 and model.decoder.backbone.cross.kv_heads == 2
  interop.save_pretrained(tmp_path / 'again', model, variables, 'stable_audio')
  again, found = interop.load_pretrained(tmp_path / 'again')
  assert again == model
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7),
      found,
      variables,
  )
  index = json.loads((tmp_path / 'again' / files.PIPELINE).read_text())
  assert index.pop('_class_name') == 'StableAudioPipeline'
  assert index == {
      'transformer': ['diffusers', 'StableAudioDiTModel'],
      'projection_model': ['diffusers', 'StableAudioProjectionModel'],
      'text_encoder': ['transformers', 'T5EncoderModel'],
      'vae': ['diffusers', 'AutoencoderOobleck'],
  }
  assert (tmp_path / 'again' / 'vae' / files.DIFFUSERS).exists()
  assert (tmp_path / 'again' / 'text_encoder' / files.WEIGHTS).exists()


def test_it_generates_what_its_codec_speaks(lm):
  assert isinstance(lm, flow_lm.FlowLM)
  assert isinstance(lm.tokenizer, audio_tokenizer.AudioTokenizer)
  assert lm.frame_rate == 44100 / 3 and lm.seconds == 8 / lm.frame_rate
  latents = _generate(lm)
  assert latents.shape == (2, 8, 2) and np.isfinite(latents).all()
  np.testing.assert_array_equal(latents[1, 5:], 0)
  tokens = tokenizers_base.Tokens(
      num_samples=np.array([24, 15]), latents=latents
  )
  audio, num_samples = lm.tokenizer.decode(tokens)
  assert audio.shape == (2, 24, 2) and np.isfinite(audio).all()
  np.testing.assert_array_equal(num_samples, [24, 15])
  np.testing.assert_array_equal(_generate(lm), latents)
  assert (_generate(lm, seed=1) != latents)[0].all()


def test_texts_and_seconds_count_in_their_row(lm):
  plain = _generate(lm)
  for name, value, default in (
      ('text', np.array([3, 10, 1]), None),
      ('seconds', (2.0, 30.0), (0.0, lm.seconds)),
  ):
    found = _generate(lm, conditions={name: [value, None]})
    assert np.abs(found - plain)[0].max() > 1e-3, name
    np.testing.assert_allclose(found[1], plain[1], rtol=1e-4, atol=1e-4)
    same = _generate(lm, conditions={name: [default, None]})
    np.testing.assert_array_equal(same, plain)
  text = {'text': [np.array([3, 10, 1]), np.array([5])]}
  once = _generate(lm, conditions=text, guidance=guidance_lib.Plain(1.0))
  found = _generate(lm, conditions=text)
  np.testing.assert_allclose(once, found, rtol=1e-3, atol=1e-3)
  more = _generate(lm, conditions=text, guidance=guidance_lib.Plain(4.0))
  assert np.abs(more - once).max() > 1e-2
  # Away from its own text, it stays where it is.
  away = _generate(
      lm,
      conditions=text,
      negative=text,
      guidance=guidance_lib.Plain(4.0),
  )
  np.testing.assert_allclose(away, found, rtol=1e-3, atol=1e-3)
  with pytest.raises(ValueError, match='without guidance'):
    _generate(lm, conditions=text, negative=text)
  mixture = guidance_lib.Mixture(((2.0, ('text',)),))
  with pytest.raises(ValueError, match='act together'):
    _generate(lm, conditions=text, guidance=mixture)


def test_flops_count_each_evaluation(lm):
  grids = times_lib.SnrGrid(3), times_lib.SnrGrid(6)
  few, many = (
      lm.generation_flops(lm.seconds, grid=grid, solver=solvers.Ddim())
      for grid in grids
  )
  guided = lm.generation_flops(
      lm.seconds,
      grid=grids[0],
      solver=solvers.Ddim(),
      guidance=guidance_lib.Plain(2.0),
  )
  assert 1.5 < many / few <= 2 and 1.5 < guided / few <= 2


@pytest.mark.parametrize(
    'conditions, message',
    [
        ({'style': ['x', 'y']}, r"\['style'\].*'text' and 'seconds'"),
        ({'text': [None]}, 'text: 1 values for 2 rows'),
        ({'text': ['a', 'b']}, 'text 0 is .*ids'),
        ({'text': [np.zeros(129, int), None]}, 'text 0 .*at most 128'),
        ({'text': [np.array([11]), None]}, 'text 0 .*0 to 10'),
        ({'text': [np.array([1.0]), None]}, 'text 0 is float64'),
        ({'seconds': [(1.0, np.inf), None]}, 'expected pairs'),
        ({'seconds': [(1.0,), (2.0,)]}, 'expected pairs'),
    ],
)
def test_other_conditions_are_refused(lm, conditions, message):
  with pytest.raises(ValueError, match=message):
    _generate(lm, conditions=conditions)


@pytest.mark.parametrize(
    'part, changes, message',
    [
        (
            'transformer',
            {'use_rope': True},
            'transformer.use_rope = True is not',
        ),
        ('transformer', {'gate': 0.5}, 'transformer.gate = 0.5 is not'),
        ('transformer', {'attention_head_dim': 6}, 'head_dim = 6.*of 4'),
        ('transformer', {'num_key_value_attention_heads': 3}, 'divisor of 4'),
        ('transformer', {'out_channels': 3}, 'out_channels = 3.*= 2'),
        ('transformer', {'in_channels': 3, 'out_channels': 3}, '2, as of the'),
        ('transformer', {'time_proj_dim': 7}, 'time_proj_dim = 7.*even'),
        ('transformer', {'sample_size': 7.5}, 'sample_size = 7.5.*whole'),
        ('transformer', {'cross_attention_input_dim': 5}, 'input_dim = 5.*6'),
        ('transformer', {'global_states_input_dim': 6}, 'input_dim = 6.*12'),
        ('transformer', {'num_layers': 'x'}, "transformer.num_layers = 'x'"),
        ('projection_model', {'internal_dim': 8}, 'model.internal_dim = 8 is'),
        ('projection_model', {'text_encoder_dim': 9}, 'd_model = 8'),
        ('projection_model', {'max_value': 0}, 'max_value = 0.*above 0'),
        ('text_encoder', {'feed_forward_proj': 'gated-gelu'}, 'gated-gelu'),
        ('vae', {'decoder_input_channels': 3}, '3'),
    ],
)
def test_other_configs_are_refused(part, changes, message):
  config = copy.deepcopy(_CONFIG)
  config[part].update(changes)
  with pytest.raises(interop.PretrainedError, match=message):
    _FAMILY.build(config, interop.Options())


def test_what_says_nothing_is_no_matter():
  config = copy.deepcopy(_CONFIG)
  config['transformer'] |= {'_name_or_path': 'x', 'more': None, 'extra': False}
  model = _FAMILY.build(config, interop.Options())
  assert model == _FAMILY.build(_CONFIG, interop.Options())


@pytest.mark.parametrize('part', _PARTS)
def test_a_missing_component_is_named(part, directory):
  (directory / part / files.CONFIG).unlink()
  with pytest.raises(loading.ModelError, match=f'no {part}/config.json'):
    audiolm_jax.load(directory)


def test_missing_and_damaged_weights_are_named(directory):
  name = directory / 'transformer' / files.DIFFUSERS
  data = name.read_bytes()
  name.write_bytes(data[: len(data) // 2])
  with pytest.raises(loading.ModelError, match='transformer'):
    audiolm_jax.load(directory)
  name.unlink()
  with pytest.raises(loading.ModelError, match='transformer.* is missing'):
    audiolm_jax.load(directory)


def test_what_lies_beside_the_components_is_no_matter(directory):
  """The hub has stable-audio-tools' own file there."""
  (directory / files.WEIGHTS).write_bytes(b'of another format')
  (directory / 'scheduler').mkdir()
  index = json.loads((directory / files.PIPELINE).read_text())
  index |= {'scheduler': ['diffusers', 'X'], 'tokenizer': ['transformers', 'Y']}
  (directory / files.PIPELINE).write_text(json.dumps(index))
  interop.load_pretrained(directory)


def test_every_tensor_is_accounted_for(directory):
  config, tensors = files.read(directory)
  del tensors['transformer.proj_in.weight']
  name = 'transformer.preprocess_conv.weight'
  tensors[name] = np.repeat(tensors[name], 3, axis=2)
  tensors['projection_model.more'] = np.zeros(1, np.float32)
  files.write(directory, config, tensors)
  with pytest.raises(interop.PretrainedError) as error:
    interop.load_pretrained(directory)
  for part in ('3 tensors', f'{name} [2, 2, 3]', 'proj_in', 'model.more'):
    assert part in str(error.value)


@pytest.mark.parametrize('name', ['../pipeline/vae', 'a.b', '.', ''])
def test_components_are_folders_here(name, directory):
  path = directory / files.PIPELINE
  index = json.loads(path.read_text())
  path.write_text(json.dumps({**index, name: ['diffusers', 'X']}))
  with pytest.raises(loading.ModelError, match='name of a folder'):
    audiolm_jax.load(directory)


@pytest.mark.parametrize('content', ['[]', '{', '{"_class_name": "Other"}'])
def test_other_pipelines_are_refused(content, directory):
  (directory / files.PIPELINE).write_text(content)
  with pytest.raises(loading.ModelError, match='pipeline'):
    audiolm_jax.load(directory)


def test_half_the_memory(directory):
  model, variables = interop.load_pretrained(directory, dtype='bfloat16')
  kinds = {str(w.dtype) for w in jax.tree.leaves(variables['params'])}
  assert kinds == {'bfloat16'} and model.conditions.dtype == 'bfloat16'
  ids, lengths = np.array([[3, 1]]), np.array([2])

  @small.quick_jit
  def run(variables):
    context = model.context(variables, ids, lengths, np.ones((1, 2)))
    assert context['cross'].dtype == 'bfloat16'
    return model.decoder.apply(
        {'params': variables['params']},
        np.ones((1, 4, 2), np.float32),
        np.array([0.5]),
        np.array([4]),
        context=context,
        method='predict',
    )

  found = run(variables)
  assert found.dtype == np.float32 and np.isfinite(found).all()
