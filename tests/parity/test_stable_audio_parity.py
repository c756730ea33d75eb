"""stable-audio: the same weights in diffusers and here, condition and all."""

import dataclasses
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')
diffusers = pytest.importorskip('diffusers')

import audiolm_jax  # noqa: E402
from audiolm_jax import interop  # noqa: E402
from audiolm_jax.interop import base as interop_base  # noqa: E402
from audiolm_jax.ops import rotary  # noqa: E402
from audiolm_jax.processes import guidance as guidance_lib  # noqa: E402
from audiolm_jax.processes import noise as noise_lib  # noqa: E402
from audiolm_jax.processes import solvers  # noqa: E402
from audiolm_jax.processes import times as times_lib  # noqa: E402
from audiolm_jax.streaming import testing  # noqa: E402
from tests.parity import codec_models  # noqa: E402
from tests.parity import language_models  # noqa: E402
from tests.parity import stable_audio_models as models  # noqa: E402

pytestmark = pytest.mark.parity

_FAMILY = interop.FAMILIES['stable_audio']
_QUICK = testing.quick_options()
_B, _F, _S = models.B, models.F, models.S
_TIMES = np.array([0.02, 0.4, 0.97, 1.0], np.float32)
_LENGTHS = np.array([9, 5, 1, 7])
_TEXT_LENGTHS = models.TEXT_LENGTHS
_SECONDS = np.array([[0, 9], [3, 3.5], [1.5, 60], [40, 2]], np.float32)


@pytest.fixture(scope='module', name='case')
def _case(tmp_path_factory):
  return models.Case(tmp_path_factory.mktemp('stable_audio'))


@pytest.fixture(scope='module', name='other')
def _other(tmp_path_factory):
  """One head of keys, no projection of the text, head width of 8."""
  return models.Case(
      tmp_path_factory.mktemp('other'),
      text_width=10,
      attention_head_dim=8,
      num_attention_heads=3,
      num_key_value_attention_heads=1,
      num_layers=1,
      time_proj_dim=6,
  )


def _inputs(seed=0):
  z, cross, row = (
      models.normal(seed, _B, _F, 6),
      models.normal(seed + 1, _B, _S, 10),
      models.normal(seed + 2, _B, 20),
  )
  return z, cross, row


def _found(case, model, variables, masked):
  """Predictions of `_inputs`, and where they count."""
  z, cross, row = _inputs()
  lengths = _LENGTHS if masked else np.full(_B, _F)

  @jax.jit(compiler_options=_QUICK)
  def run(variables):
    context = case.acted(model, variables, cross, row)
    if masked:
      context['cross_mask'] = case.text_mask
    return case.predict(model, variables, z, _TIMES, lengths, context)

  return np.asarray(run(variables)), np.arange(_F) < lengths[:, None]


def _expected(case, masked):
  z, cross, row = _inputs()
  mask = np.arange(_F) < _LENGTHS[:, None]
  masks = (mask, case.text_mask) if masked else ()
  return case.expected(z, _TIMES, cross, row, *masks)


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('which', ['case', 'other'])
def test_predictions(which, masked, request):
  case = request.getfixturevalue(which)
  interop_base.check_complete(_FAMILY, case.model)
  found, exists = _found(case, case.model, case.variables, masked)
  expected = _expected(case, masked)
  codec_models.close(found[exists], expected[exists])
  assert not found[~exists].any()


def test_attention_is_not_uniform(case):
  """Else its positions and heads would not show."""
  block = case.transformer.transformer_blocks[0]
  caught, hooks = {}, []
  for name in ('attn1', 'attn2'):

    def catch(_, given, kept, out, name=name):
      del out
      caught[name] = given[0], kept.get('encoder_hidden_states')

    part = getattr(block, name)
    hooks.append(part.register_forward_hook(catch, with_kwargs=True))
  _expected(case, False)
  for hook in hooks:
    hook.remove()
  for name, (x, context) in caught.items():
    part = getattr(block, name)
    context = x if context is None else context
    with torch.no_grad():
      q, k = part.to_q(x)[..., :12], part.to_k(context)[..., :12]
      weights = (q @ k.mT / 12**0.5).softmax(-1)
    largest = weights.amax(-1).median() * weights.shape[-1]
    assert largest > 2, (name, largest)


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
  found, _ = _found(case, model, variables, False)
  expected = _expected(case, False)
  error = np.abs(found - expected).max() / np.abs(expected).max()
  assert error < 1e-5 if fault == 'none' else error > 1e-3, error


def _theirs_conditions(case, lengths, seconds):
  """(states to attend to, token) as the pipeline makes them."""
  mask = torch.from_numpy(np.arange(_S) < lengths[:, None])
  with torch.no_grad():
    states = case.text(torch.from_numpy(case.ids), mask.long())[0]
    out = case.projection(states, *torch.from_numpy(seconds.T))
  text = out.text_hidden_states * mask[..., None]
  numbers = out.seconds_start_hidden_states, out.seconds_end_hidden_states
  cross = torch.cat([text, *numbers], dim=1)
  return states * mask[..., None], cross, torch.cat(numbers, dim=2)[:, 0]


@pytest.mark.parametrize('which', ['case', 'other'])
def test_conditions(which, request):
  """Numbers within the range of 1 to 50, and outside."""
  case = request.getfixturevalue(which)
  _, cross, row = _theirs_conditions(case, _TEXT_LENGTHS, _SECONDS)
  with torch.no_grad():
    expected = {
        'cross': case.transformer.cross_attention_proj(cross),
        'token': case.transformer.global_proj(row),
    }
  found = case.model.context(case.variables, case.ids, _TEXT_LENGTHS, _SECONDS)
  assert found['cross_mask'].all()
  for name, value in expected.items():
    codec_models.close(found[name], value)


@pytest.mark.parametrize('fault', ['cosines first', 'no fill', 'no range'])
def test_faults_of_conditions_show(fault, case):
  model, lengths = case.model, _TEXT_LENGTHS
  variables = jax.tree.map(np.array, case.variables)
  seconds = _SECONDS
  if fault == 'cosines first':
    start = variables['conditions']['start']
    waves = np.roll(start['out'][1:], len(start['turns']), axis=0)
    start['out'] = np.concatenate([start['out'][:1], waves])
  elif fault == 'no range':
    conditions = model.conditions.clone(parent=None, name=None, least=0.0)
    model = dataclasses.replace(model, conditions=conditions)
  _, cross, row = _theirs_conditions(case, lengths, seconds)
  z = _inputs()[0]
  expected = case.expected(z, _TIMES, cross, row)
  context = model.context(variables, case.ids, lengths, seconds)
  if fault == 'no fill':
    numbers = np.ones((_B, 2), bool)
    context['cross_mask'] = np.concatenate([case.text_mask, numbers], axis=1)

  @jax.jit(compiler_options=_QUICK)
  def run(variables, context):
    return case.predict(model, variables, z, _TIMES, np.full(_B, _F), context)

  error = np.abs(run(variables, context) - expected).max()
  assert error > 1e-3 * np.abs(expected).max(), error


def test_any_two_weights_exchanged_show(case):
  z, lengths = _inputs()[0], np.full(_B, _F)

  @jax.jit(compiler_options=_QUICK)
  def run(variables):
    variables = {**variables, 'codec': None}
    context = case.model.context(
        variables, jnp.asarray(case.ids), _TEXT_LENGTHS, _SECONDS
    )
    return case.predict(case.model, variables, z, _TIMES, lengths, context)

  variables = {k: v for k, v in case.variables.items() if k != 'codec'}
  language_models.check_exchanged(run, variables)


def _cosine_scheduler(monkeypatch, noises):
  """diffusers' scheduler of stable-audio, with given noise."""
  if 'torchsde' not in sys.modules:
    # Its own noise, which is not drawn here, needs it.
    monkeypatch.setitem(sys.modules, 'torchsde', types.ModuleType('torchsde'))
  from diffusers.schedulers import scheduling_cosine_dpmsolver_multistep as lib

  class Given(lib.CosineDPMSolverMultistepScheduler):

    def set_timesteps(self, *args, **options):
      super().set_timesteps(*args, **options)
      left = iter(noises)
      self.noise_sampler = lambda *_: next(left)

  return Given()


def test_the_pipeline_samples_the_same(case, monkeypatch):
  """Rows of training's length, guided, from the same noise."""
  steps, rows, frames, start = 4, 2, 16, 1.25
  end = start + 0.9 * frames * 6 / 6000
  keys = noise_lib.row_keys(jax.random.key(0), jnp.arange(rows))

  def normal(keys):
    return torch.from_numpy(np.array(noise_lib.normal(keys, (frames, 6)))).mT

  each = noise_lib.fold(keys, 1)
  noises = [normal(noise_lib.fold(each, i)) for i in range(steps)]
  scheduler = _cosine_scheduler(monkeypatch, noises)
  pipeline = diffusers.StableAudioPipeline(
      **case.parts, tokenizer=None, scheduler=scheduler
  )
  pipeline.set_progress_bar_config(disable=True)
  ids, lengths = case.ids[:rows], _TEXT_LENGTHS[:rows]
  mask = torch.from_numpy(np.arange(_S) < lengths[:, None]).long()
  with torch.no_grad():
    states = case.text(torch.from_numpy(ids), mask)[0]
    expected = pipeline(
        prompt_embeds=states,
        attention_mask=mask,
        audio_start_in_s=start,
        audio_end_in_s=end,
        num_inference_steps=steps,
        guidance_scale=2.0,
        latents=normal(noise_lib.fold(keys, 0)),
        output_type='latent',
        return_dict=False,
    )
  lm = audiolm_jax.load(case.directory)
  # As long as the texts there.
  whole = dataclasses.replace(lm.whole, text_length=_S)
  found = dataclasses.replace(lm, whole=whole).generate(
      frames,
      [frames] * rows,
      solver=solvers.Dpm2m(random=True),
      grid=times_lib.SnrGrid(steps),
      guidance=guidance_lib.Plain(2.0),
      conditions={
          'text': [x[:n] for x, n in zip(ids, lengths, strict=True)],
          'seconds': [(start, end)] * rows,
      },
  )
  codec_models.close(found, expected.audios.mT)


def test_what_is_saved_is_loaded_by_both(case, tmp_path):
  interop.save_pretrained(tmp_path, case.model, case.variables, 'stable_audio')
  model, variables = interop.load_pretrained(tmp_path)
  assert model == case.model
  jax.tree.map(
      # Folded weight norm is multiplied out in fp32.
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7),
      variables,
      case.variables,
  )
  for name, part in case.parts.items():
    again = type(part).from_pretrained(tmp_path / name)
    wanted = part.state_dict()
    assert set(again.state_dict()) == set(wanted)
    for key, value in again.state_dict().items():
      np.testing.assert_allclose(
          value, wanted[key], rtol=0 if name != 'vae' else 1, err_msg=key
      )
    if name != 'text_encoder':
      for key, value in part.config.items():
        assert key.startswith('_') or again.config[key] == value, key
