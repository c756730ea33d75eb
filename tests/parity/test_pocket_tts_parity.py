"""Pocket-TTS: the same weights in transformers and here."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')
pytest.importorskip('transformers.models.pocket_tts')

from transformers.loss import loss_lsd  # noqa: E402

import audiolm_jax  # noqa: E402
from audiolm_jax import interop  # noqa: E402
from audiolm_jax.decoders import latent_heads  # noqa: E402
from audiolm_jax.interop import base as interop_base  # noqa: E402
from audiolm_jax.processes import flow_maps  # noqa: E402
from audiolm_jax.processes import noise as noise_lib  # noqa: E402
from audiolm_jax.processes import times as times_lib  # noqa: E402
from audiolm_jax.streaming import testing  # noqa: E402
from tests.interop import tiny_weights  # noqa: E402
from tests.parity import codec_models  # noqa: E402
from tests.parity import head_faults  # noqa: E402
from tests.parity import head_models  # noqa: E402

pytestmark = pytest.mark.parity

_quick = functools.partial(jax.jit, compiler_options=testing.quick_options())
_NAME = 'pocket_tts'
_CONFIG = {
    k: v for k, v in tiny_weights.ALL[_NAME].items() if k != 'model_type'
}
Z, H = head_models.inputs()
# Of noise, in our time; both ends are among them.
T = np.array([1.0, 0.8, 0.55, 1.0, 0.31, 0.9], np.float32)
S = np.array([0.0, 0.1, 0.5, 0.6, 0.3, 0.0], np.float32)
# Prompts: ids of texts, frames of voices.
TEXTS = [[4, 1, 7, 2], [3, 3], [8]]
VOICES = [3, 0, 1]
F = 6


@functools.partial(_quick, static_argnames='head')
def _velocity(head, params, *given):
  return head.apply({'params': params}, *given, method='velocity')


class Case:
  """transformers' model, where it lies, and ours with its variables."""

  def __init__(self, directory):
    config = transformers.PocketTTSConfig(**_CONFIG)
    self.theirs = transformers.PocketTTSForConditionalGeneration(config)
    head_models.sharpen(self.theirs)
    rng = np.random.default_rng(5)
    with torch.no_grad():
      self.theirs.model.bos_latent.copy_(torch.tensor([0.7, -1.1, 0.4]))
      self.theirs.latent_mean.copy_(torch.tensor([0.5, -2.0, 1.0]))
      self.theirs.latent_std.copy_(torch.tensor([0.3, 1.7, 4.0]))
      self.theirs.eos_head.weight.mul_(0.2)
    self.theirs.save_pretrained(directory)
    self.directory = directory
    self.model, self.variables = interop.load_pretrained(directory)
    self.head = self.model.decoder.head
    self.voices = [rng.standard_normal((n, 3), np.float32) for n in VOICES]
    self.x = rng.standard_normal((len(TEXTS), F, 3), np.float32)

  def velocity(self, head=None, params=None, z=Z, h=H, t=T, s=S):
    params = params or self.variables['params']['head']
    return np.asarray(_velocity(head or self.head, params, z, h, t, s))

  def expected_velocity(self, z=Z, h=H, t=T, s=S):
    """Theirs, of our times, in our direction."""
    times = [torch.from_numpy(1 - x)[:, None] for x in (t, s)]
    with torch.no_grad():
      given = torch.from_numpy(z), torch.from_numpy(h)
      return -self.theirs.flow_head(*given, times=times).numpy()

  def prompt(self, row):
    """Of one row: what theirs takes, up to the first frame."""
    ids, voice = TEXTS[row], self.voices[row]
    marks = [11] + [9] * len(voice) if len(voice) else []
    given = {'input_ids': torch.tensor([marks + ids + [12]])}
    if len(voice):
      given['audio_prompt_latents'] = torch.from_numpy(voice[None])
    return given

  def outputs(self, row, length=F):
    """Theirs: (hidden states, logits) that tell of each frame of a row."""
    given = self.prompt(row)
    ids = given['input_ids']
    start = ids.shape[1] - 1
    more = torch.full((1, length - 1), 10)
    given['input_ids'] = torch.cat([ids, more], dim=1)
    if length > 1:
      x = self.x[row : row + 1, : length - 1]
      given['audio_latents'] = torch.from_numpy(x)
    with torch.no_grad():
      found = self.theirs(**given)
    hidden = found.last_hidden_state[0, start:].numpy()
    return hidden, found.logits[0, start:, 0].numpy()


@pytest.fixture(scope='module', name='case')
def _case(tmp_path_factory):
  return Case(tmp_path_factory.mktemp(_NAME))


# -- the head -------------------------------------------------------------------


def test_velocities_are_the_originals(case):
  interop_base.check_complete(interop.FAMILIES[_NAME], case.model)
  expected = case.expected_velocity()
  codec_models.close(case.velocity(), expected)
  other = case.expected_velocity(s=0 * S)
  assert np.abs(other - expected)[1:5].max(1).min() > 5e-3


@pytest.mark.parametrize('steps', [1, 3])
def test_jumps_from_the_same_noise_end_at_the_same(steps, case):
  keys = noise_lib.row_keys(jax.random.key(0), jnp.arange(len(H)))
  sampler = latent_heads.LatentSampler(
      temperature=0.6, grid=times_lib.Grid(steps)
  )

  @_quick
  def run(params):
    given = jnp.asarray(H), keys, 3, sampler
    return case.head.apply({'params': params}, *given, method='draw')

  found = run(case.variables['params']['head'])
  noise = noise_lib.normal(noise_lib.fold(keys, 1), (1, 3))[:, 0]
  noise = torch.from_numpy(np.float32(np.sqrt(0.6)) * np.array(noise))
  with torch.no_grad():
    expected = case.theirs.sample_latent(torch.from_numpy(H), noise, steps)
  codec_models.close(found, expected)


@pytest.mark.parametrize('stop', ['full', 'minimal'])
def test_losses_and_their_gradients_are_the_originals(stop, case):
  """By the last layer, and by what the head is given."""
  rng = np.random.default_rng(2)
  x, e = (rng.standard_normal((len(H), 3), np.float32) for _ in range(2))
  theirs = case.theirs.flow_head
  torches = [torch.from_numpy(a) for a in (x, e)]
  t, s = (torch.from_numpy(1 - a)[:, None] for a in (T, S))
  h = torch.from_numpy(H).requires_grad_()

  def velocity(z, start, end):
    return theirs(z, h, times=[start, end])

  theirs.zero_grad()
  expected = [
      loss_lsd.lsd_diagonal_loss(velocity, *torches, t),
      loss_lsd.lsd_distillation_loss(velocity, *torches, t, s, stop),
  ]
  (expected[0].sum() + 2 * expected[1].sum()).backward()

  def losses(params, h):
    def u(params):
      def ask(z, t, s):
        given = z, h, t, s
        return case.head.apply({'params': params}, *given, method='velocity')

      return ask

    z, still = ((1 - T)[:, None] * x + T[:, None] * e for _ in range(2))
    fixed = u(jax.lax.stop_gradient(params))
    more = {}
    if stop == 'minimal':
      more = {'velocity': lambda z, t: fixed(z, t, t), 'stop': 'none'}
    found = (
        flow_maps.diagonal_errors(u(params), still, T, e - x),
        flow_maps.lagrangian_errors(u(params), z, T, S, **more),
    )
    # Theirs are sums over the dimensions.
    found = [3 * loss for loss in found]
    return found[0].sum() + 2 * found[1].sum(), found

  run = _quick(jax.grad(losses, (0, 1), has_aux=True))
  (gradient, of_h), found = run(case.variables['params']['head'], H)
  for ours, wanted in zip(found, expected, strict=True):
    codec_models.close(ours, wanted.detach())
  last = theirs.final_layer.proj.weight.grad
  codec_models.close(gradient['network']['denoised'], -last.T)
  codec_models.close(
      gradient['network']['noisy'], theirs.input_proj.weight.grad.T
  )
  if stop == 'full':
    codec_models.close(of_h, h.grad)


def _summed(head, params):
  """Times as a sum, not their mean."""
  for i in range(2):
    params['network'][f'time_{i}']['closing_scale'] *= 2
  return head, params


def _exchanged(head, params):
  network = params['network']
  network['time_0'], network['time_1'] = network['time_1'], network['time_0']
  return head, params


def _sines_first(head, params):
  time = params['network']['time_0']
  time['inner'] = np.roll(time['inner'], 5, axis=0)
  return head, params


def _unmoved(head, params):
  """Factor and offset as theirs stand."""
  for end in ('', '_bias'):
    name = f'block_0_modulation{end}'
    parts = np.split(params['network'][name], 3, axis=-1)
    parts[:2] = parts[1::-1]
    params['network'][name] = np.concatenate(parts, axis=-1)
  return head, params


_FAULTS = {
    'another epsilon of norms': head_faults.network(norm_epsilon=1e-5),
    'rms norms': head_faults.network(norm='rms'),
    'another epsilon of times': head_faults.time(closing_epsilon=1e-5),
    'another span': head_faults.time(span=10_000.0),
    'times up to 1000': head_faults.time(scale=1000.0),
    'data at 0': head_faults.time(reverse=False),
    'times as they are': head_faults.time(closing='none', closing_epsilon=1e-5),
    'times summed': _summed,
    'times exchanged': _exchanged,
    'sines first': _sines_first,
    'factor and offset exchanged': _unmoved,
}


@pytest.mark.parametrize('fault', _FAULTS)
def test_faults_show(fault, case):
  params = jax.tree.map(np.array, case.variables['params']['head'])
  found = case.velocity(*_FAULTS[fault](case.head, params))
  expected = case.expected_velocity()
  assert np.abs(found - expected).max() > 1e-3 * np.abs(expected).max()


# -- the whole ------------------------------------------------------------------


def _hidden(case, variables, lengths):
  """Ours: (hidden states, logits) that tell of each frame."""
  texts = np.zeros((3, 4), np.int32)
  voices = np.full((3, 3, 3), np.nan, np.float32)
  for i, ids in enumerate(TEXTS):
    texts[i, : len(ids)], voices[i, : VOICES[i]] = ids, case.voices[i]
  sizes = np.array([len(ids) for ids in TEXTS])
  exists = np.arange(F) < lengths[:, None]
  x = np.where(exists[..., None], case.x, 0)

  prompt = texts, sizes, voices, np.array(VOICES)
  found = _run(case.model, variables, prompt, x, exists)
  return jax.tree.map(np.asarray, found)


@functools.partial(_quick, static_argnames='model')
def _run(model, variables, prompt, x, exists):
  def ask(decoder, context):
    h = decoder._hidden(x, exists, context, None)
    return h, decoder._last_logit(h)

  context = model.context(variables, *prompt)
  return model.decoder.apply(
      {'params': variables['params']}, context, method=ask
  )


def test_rows_are_those_of_the_original_alone(case):
  """With a voice of some length, or none, and texts of others."""
  lengths = np.array([F, 4, 1])
  hidden, logits = _hidden(case, case.variables, lengths)
  for row, length in enumerate(lengths):
    expected = case.outputs(row, length)
    codec_models.close(hidden[row, :length], expected[0])
    codec_models.close(logits[row, :length], expected[1])


@pytest.mark.parametrize('key', ['text', 'voice', 'voice mark'])
def test_each_part_of_a_prompt_shows(key, case):
  variables = jax.tree.map(np.array, case.variables)
  lengths = np.full(3, F)
  before, _ = _hidden(case, variables, lengths)
  changed = variables['before']
  if key == 'voice':
    changed['voice'] *= 1.5
  else:
    # No offset, which the norms take away.
    changed['table'][11 if key == 'voice mark' else 8] *= -1
  apart = np.abs(_hidden(case, variables, lengths)[0] - before).max((1, 2))
  rows = {'text': [2], 'voice': [0, 2], 'voice mark': [0, 2]}[key]
  np.testing.assert_array_equal(apart > 1e-3, np.isin(np.arange(3), rows))


def test_what_is_generated_is_the_originals(case):
  """One jump from the same noise, and where the rows end."""
  lm = audiolm_jax.load(case.directory)
  assert lm.frame_rate == 12.5
  sampler = latent_heads.LatentSampler(temperature=0.0, ends=False)
  conditions = {
      'text': TEXTS,
      'voice': [v if len(v) else None for v in case.voices],
  }
  nothing = np.zeros((3, 0, 3), np.float32)
  whole = lm.generate(nothing, F, sampler=sampler, conditions=conditions)
  logits = []
  for row in range(3):
    out = case.theirs.generate(
        **case.prompt(row),
        max_new_tokens=F,
        do_sample=False,
        eos_threshold=1e9,
        frames_after_eos=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    codec_models.close(whole.latents[row], out.audio_latents[0])
    logits.append([float(x[0]) for x in out.logits])
  # A threshold between the largest logits of two rows.
  logits = np.array(logits)
  first, second = np.sort(logits.max(1))[-2:]
  threshold = (first + second) / 2
  ending = latent_heads.LatentSampler(
      temperature=0.0, threshold=float(1 / (1 + np.exp(-threshold)))
  )
  found = lm.generate(nothing, F, sampler=ending, conditions=conditions)
  above = logits > threshold
  expected = np.where(above.any(1), above.argmax(1) + 1, F)
  np.testing.assert_array_equal(found.num_frames, expected)
  assert (expected < F).any() and (expected == F).any()


def test_a_prompt_of_frames_goes_on(case):
  """Given as the tokenizer has them: theirs, normalised."""
  lm = audiolm_jax.load(case.directory)
  sampler = latent_heads.LatentSampler(temperature=0.0, ends=False)
  raw = lm.decoder.moments.restored(case.x[:1, :4])
  conditions = {'text': TEXTS[:1], 'voice': case.voices[:1]}
  found = lm.generate(raw, 5, sampler=sampler, conditions=conditions)
  np.testing.assert_array_equal(found.latents[:, :4], raw)
  hidden, _ = case.outputs(0, 5)
  with torch.no_grad():
    given = torch.from_numpy(hidden[4:5]), torch.zeros(1, 3)
    expected = case.theirs.sample_latent(*given, 1)
    expected = case.theirs.denormalize_latents(expected)
  codec_models.close(found.latents[0, 4:], expected)


def test_any_two_weights_exchanged_show(case):
  lengths = np.full(3, F)

  def run(variables):
    head = variables['params']['head']
    hidden, logits = _hidden(case, variables, lengths)
    moments = variables['latents']
    x = case.velocity(params=head) * moments['std'] + moments['mean']
    return hidden, logits, x

  codec_models.assert_permutations_show(case.directory, run)


def test_what_is_saved_is_loaded_by_both(case, tmp_path):
  interop.save_pretrained(tmp_path, case.model, case.variables, _NAME)
  again = type(case.theirs).from_pretrained(tmp_path)
  wanted = case.theirs.state_dict()
  for name, value in again.state_dict().items():
    if not name.startswith(('loss_weighting', 'latent_stats_num')):
      # What is before the first frame is solved for.
      # Frequencies are computed.
      inexact = name.endswith(('bos_latent', 'freqs'))
      close = {'rtol': 1e-5, 'atol': 1e-6} if inexact else {}
      np.testing.assert_allclose(
          value, wanted[name], **{'rtol': 0, **close}, err_msg=name
      )
  for key, value in _CONFIG.items():
    if key != 'flow_head_config':
      assert getattr(again.config, key) == value, key
  for key, value in _CONFIG['flow_head_config'].items():
    assert getattr(again.config.flow_head_config, key) == value, key
  model, variables = interop.load_pretrained(tmp_path)
  assert model == case.model
  np.testing.assert_allclose(
      variables['params']['before'],
      case.variables['params']['before'],
      rtol=1e-5,
      atol=1e-6,
  )
