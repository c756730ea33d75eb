"""VibeVoice's diffusion head: the same weights in transformers and here."""

import json

import jax
import numpy as np
import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from audiolm_jax.interop import fields  # noqa: E402
from audiolm_jax.interop import vibevoice  # noqa: E402
from audiolm_jax.processes import gaussian  # noqa: E402
from audiolm_jax.streaming import testing  # noqa: E402
from tests.parity import codec_models  # noqa: E402
from tests.parity import head_faults  # noqa: E402
from tests.parity import head_models  # noqa: E402

pytestmark = pytest.mark.parity

_STEPS = np.array([0, 3, 250, 499, 720, 999], np.float32)
_Z, _H = head_models.inputs()


@pytest.fixture(scope='module', name='case')
def _case(tmp_path_factory):
  """(theirs, where it lies, ours)."""
  config = transformers.VibeVoiceConfig(**head_models.vibevoice_config())
  theirs = transformers.VibeVoiceForConditionalGeneration(config)
  head_models.sharpen(theirs.model.diffusion_head)
  with torch.no_grad():
    theirs.model.latent_bias_factor.fill_(-0.3)
    theirs.model.latent_scaling_factor.fill_(0.2)
  directory = tmp_path_factory.mktemp('vibevoice')
  theirs.save_pretrained(directory)
  return theirs, directory, vibevoice.load_head(directory)


def _expected(theirs):
  with torch.no_grad():
    given = (torch.from_numpy(x) for x in (_Z, _STEPS, _H))
    return theirs.model.diffusion_head(*given).numpy()


def _found(head, params):
  @jax.jit(compiler_options=testing.quick_options())
  def run(params):
    inputs = _Z, _H, _STEPS / 1000
    return head.apply({'params': params}, *inputs, method='predict')

  return np.asarray(run(params))


def test_predictions_are_the_originals(case):
  theirs, _, ours = case
  assert ours.width == head_models.WIDTH
  assert (ours.head.process, ours.head.target) == (gaussian.Cosine(), 'v')
  found, expected = _found(ours.head, ours.params), _expected(theirs)
  codec_models.close(found, expected)
  # Each time is another answer.
  assert np.abs(np.roll(expected, 1, 0) - expected).max(1).min() > 0.1


def _unmoved(head, params):
  """Factor and offset as theirs stand."""
  for name in ('block_0_modulation', 'last_modulation'):
    parts = np.split(params['network'][name], [8, 16], axis=1)
    parts[:2] = parts[1::-1]
    params['network'][name] = np.concatenate(parts, axis=1)
  return head, params


def _gate(head, params):
  network = params['network']
  names = 'block_0_inner', 'block_0_gate'
  network |= dict(zip(names, [network[n] for n in names[::-1]], strict=True))
  return head, params


def _sines_first(head, params):
  time = params['network']['time_0']
  time['inner'] = np.roll(time['inner'], 5, axis=0)
  return head, params


_FAULTS = {
    'another epsilon': head_faults.network(norm_epsilon=1e-5),
    'layer norms': head_faults.network(norm='layer'),
    'a gate of another kind': head_faults.network(activation='clamped_swiglu'),
    'factor and offset exchanged': _unmoved,
    'gate and value exchanged': _gate,
    'sines first': _sines_first,
    'another span': head_faults.time(span=10_000.0),
    'times up to 1': head_faults.time(scale=1.0),
}


@pytest.mark.parametrize('fault', _FAULTS)
def test_faults_show(fault, case):
  theirs, _, ours = case
  params = jax.tree.map(np.array, ours.params)
  found = _found(*_FAULTS[fault](ours.head, params))
  expected = _expected(theirs)
  assert np.abs(found - expected).max() > 1e-3 * np.abs(expected).max()


def test_any_two_blocks_exchanged_show(case):
  theirs, _, ours = case
  network = dict(ours.params['network'])
  for name in list(network):
    if name.startswith('block_0'):
      other = name.replace('0', '1', 1)
      changed = {**network, name: network[other], other: network[name]}
      found = _found(ours.head, {'network': changed})
      assert np.abs(found - _expected(theirs)).max() > 1e-3, name


def test_latents_are_normalised_as_there(case):
  theirs, _, ours = case
  x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
  expected = (x + theirs.model.latent_bias_factor.item()) * (
      theirs.model.latent_scaling_factor.item()
  )
  np.testing.assert_allclose(ours.moments.normalised(x), expected, rtol=1e-5)


@pytest.mark.parametrize(
    'key, value, message',
    [
        ('frequency_embedding_size', 9, 'an even number'),
        ('num_hidden_layers', 3, 'missing: layers.2'),
        ('intermediate_size', 13, 'wrong shape'),
        ('mlp_bias', True, 'not supported'),
        ('hidden_act', 'gelu', 'not supported'),
        ('rms_norm_eps', -1.0, 'at least 0'),
        (None, 'qwen2', "expected 'vibevoice'"),
    ],
)
def test_what_does_not_fit_is_refused(key, value, message, case, tmp_path):
  config = json.loads((case[1] / 'config.json').read_text())
  if key is None:
    config['model_type'] = value
  else:
    config['diffusion_head_config'][key] = value
  (tmp_path / 'config.json').write_text(json.dumps(config))
  (tmp_path / 'model.safetensors').symlink_to(case[1] / 'model.safetensors')
  with pytest.raises(fields.PretrainedError, match=message):
    vibevoice.load_head(tmp_path)
