"""Faults of stable-audio, each of which must show against diffusers."""

import dataclasses

import jax
import numpy as np
import pytest

pytest.importorskip('torch')
pytest.importorskip('transformers')
pytest.importorskip('diffusers')

from audiolm_jax.ops import rotary  # noqa: E402
from tests.parity import stable_audio_models  # noqa: E402

pytestmark = pytest.mark.parity


@pytest.fixture(scope='module', name='case')
def _case(tmp_path_factory):
  return stable_audio_models.Case(tmp_path_factory.mktemp('stable_audio'))


def _stack(model, **changes):
  backbone = model.decoder.backbone.clone(parent=None, name=None, **changes)
  return _decoder(model, backbone=backbone)


def _decoder(model, **changes):
  decoder = model.decoder.clone(parent=None, name=None, **changes)
  return dataclasses.replace(model, decoder=decoder)


def _swap(first, second):
  """Two leaves of the first layer exchanged."""

  def fault(model, variables):
    layer = variables['params']['backbone']['layer_0']
    for names in (first, second):
      assert names[-1] in layer[names[0]]
    (a, b), (c, d) = first, second
    layer[a][b], layer[c][d] = layer[c][d], layer[a][b]
    return model, variables

  return fault


def _gates(model, variables):
  """The gate first, as most write it."""
  mlp = variables['params']['backbone']['layer_0']['mlp']
  for end in ('', '_bias'):
    mlp[f'up{end}'], mlp[f'gate{end}'] = mlp[f'gate{end}'], mlp[f'up{end}']
  return model, variables


def _sines_first(model, variables):
  time = variables['params']['time']
  time['inner'] = np.roll(time['inner'], 7, axis=0)
  return model, variables


def _key_heads(model, variables):
  """Heads h of queries read key head h mod J instead of h // (H / J)."""
  cross = variables['params']['backbone']['layer_0']['cross']
  query = cross['query'].reshape(48, 2, 2, 12).swapaxes(1, 2)
  out = cross['out'].reshape(2, 2, 12, 48).swapaxes(0, 1)
  cross['query'], cross['out'] = query.reshape(48, 48), out.reshape(48, 48)
  return model, variables


def _mixes(model, variables):
  params = variables['params']
  params['noisy_mix'] = params['noisy_mix'].T
  return model, variables


def _rope(**changes):
  def fault(model, variables):
    (mixer,) = model.decoder.backbone.mixers
    positions = rotary.Rope(**{'fraction': 0.5, **changes})
    mixer = mixer.clone(parent=None, name=None, positions=positions)
    return _stack(model, mixers=(mixer,)), variables

  return fault


_FAULTS = {
    'none': None,
    'the gate first': _gates,
    'rotary on the whole head': _rope(fraction=1.0),
    'another base': _rope(theta=1000.0),
    'sines first': _sines_first,
    'another epsilon': lambda m, v: (_stack(m, norm_epsilon=1e-6), v),
    'rms norms': lambda m, v: (_stack(m, norm='rms'), v),
    'another gate': lambda m, v: (
        _stack(
            m, mlp=m.decoder.backbone.mlp.clone(activation='clamped_swiglu')
        ),
        v,
    ),
    'keys of other heads': _key_heads,
    'a mix transposed': _mixes,
    'norms exchanged': _swap(('cross_norm', 'scale'), ('mlp_norm', 'scale')),
}


@pytest.mark.parametrize('fault', _FAULTS)
def test_faults_show(fault, case):
  """By ten times what parity allows, or more."""
  model, variables = case.model, jax.tree.map(np.array, case.variables)
  if _FAULTS[fault] is not None:
    model, variables = _FAULTS[fault](model, variables)
  found, _ = stable_audio_models.found(case, model, variables, False)
  expected = stable_audio_models.expected(case, False)
  error = np.abs(found - expected).max() / np.abs(expected).max()
  assert error < 1e-5 if fault == 'none' else error > 1e-3, error


@pytest.mark.parametrize('fault', ['cosines first', 'no fill', 'no range'])
def test_faults_of_conditions_show(fault, case):
  model, lengths = case.model, stable_audio_models.TEXT_LENGTHS
  variables = jax.tree.map(np.array, case.variables)
  seconds = stable_audio_models.SECONDS
  if fault == 'cosines first':
    start = variables['conditions']['start']
    waves = np.roll(start['out'][1:], len(start['turns']), axis=0)
    start['out'] = np.concatenate([start['out'][:1], waves])
  elif fault == 'no range':
    conditions = model.conditions.clone(parent=None, name=None, least=0.0)
    model = dataclasses.replace(model, conditions=conditions)
  cross, row = stable_audio_models.their_conditions(case, lengths, seconds)
  z = stable_audio_models.inputs()[0]
  expected = case.expected(z, stable_audio_models.TIMES, cross, row)
  context = model.context(variables, case.ids, lengths, seconds)
  if fault == 'no fill':
    numbers = np.ones((stable_audio_models.B, 2), bool)
    context['cross_mask'] = np.concatenate([case.text_mask, numbers], axis=1)

  @jax.jit(compiler_options=stable_audio_models.QUICK)
  def run(variables, context):
    return case.predict(
        model,
        variables,
        z,
        stable_audio_models.TIMES,
        np.full(stable_audio_models.B, stable_audio_models.F),
        context,
    )

  error = np.abs(run(variables, context) - expected).max()
  assert error > 1e-3 * np.abs(expected).max(), error
