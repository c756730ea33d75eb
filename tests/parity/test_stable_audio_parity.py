"""stable-audio: the same weights in diffusers and here, conditions and all."""

import dataclasses
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('transformers')
diffusers = pytest.importorskip('diffusers')

import audiolm_jax  # noqa: E402
from audiolm_jax import interop  # noqa: E402
from audiolm_jax.interop import base as interop_base  # noqa: E402
from audiolm_jax.processes import guidance as guidance_lib  # noqa: E402
from audiolm_jax.processes import noise as noise_lib  # noqa: E402
from audiolm_jax.processes import solvers  # noqa: E402
from audiolm_jax.processes import times as times_lib  # noqa: E402
from tests.parity import codec_models  # noqa: E402
from tests.parity import language_models  # noqa: E402
from tests.parity import stable_audio_models  # noqa: E402

pytestmark = pytest.mark.parity

_FAMILY = interop.FAMILIES['stable_audio']


@pytest.fixture(scope='module', name='case')
def _case(tmp_path_factory):
  return stable_audio_models.Case(tmp_path_factory.mktemp('stable_audio'))


@pytest.fixture(scope='module', name='other')
def _other(tmp_path_factory):
  """One head of keys, no projection of the text, head width of 8."""
  return stable_audio_models.Case(
      tmp_path_factory.mktemp('other'),
      text_width=10,
      attention_head_dim=8,
      num_attention_heads=3,
      num_key_value_attention_heads=1,
      num_layers=1,
      time_proj_dim=6,
  )


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('which', ['case', 'other'])
def test_predictions(which, masked, request):
  case = request.getfixturevalue(which)
  interop_base.check_complete(_FAMILY, case.model)
  found, exists = stable_audio_models.found(
      case, case.model, case.variables, masked
  )
  expected = stable_audio_models.expected(case, masked)
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
  stable_audio_models.expected(case, False)
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


@pytest.mark.parametrize('which', ['case', 'other'])
def test_conditions(which, request):
  """Numbers within the range of 1 to 50, and outside."""
  case = request.getfixturevalue(which)
  cross, row = stable_audio_models.their_conditions(
      case, stable_audio_models.TEXT_LENGTHS, stable_audio_models.SECONDS
  )
  with torch.no_grad():
    expected = {
        'cross': case.transformer.cross_attention_proj(cross),
        'token': case.transformer.global_proj(row),
    }
  found = case.model.context(
      case.variables,
      case.ids,
      stable_audio_models.TEXT_LENGTHS,
      stable_audio_models.SECONDS,
  )
  assert found['cross_mask'].all()
  for name, value in expected.items():
    codec_models.close(found[name], value)


def test_any_two_weights_exchanged_show(case):
  z, lengths = stable_audio_models.inputs()[0], np.full(
      stable_audio_models.B, stable_audio_models.F
  )

  @jax.jit(compiler_options=stable_audio_models.QUICK)
  def run(variables):
    variables = {**variables, 'codec': None}
    context = case.model.context(
        variables,
        jnp.asarray(case.ids),
        stable_audio_models.TEXT_LENGTHS,
        stable_audio_models.SECONDS,
    )
    return case.predict(
        case.model, variables, z, stable_audio_models.TIMES, lengths, context
    )

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
  ids, lengths = case.ids[:rows], stable_audio_models.TEXT_LENGTHS[:rows]
  mask = torch.from_numpy(
      np.arange(stable_audio_models.S) < lengths[:, None]
  ).long()
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
  whole = dataclasses.replace(lm.whole, text_length=stable_audio_models.S)
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
