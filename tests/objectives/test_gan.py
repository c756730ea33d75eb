"""A codec's GAN: who moves whom, when, and by how much."""

import dataclasses
import types

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import objectives
from audiolm_jax import streaming
from audiolm_jax import tokenizers
from audiolm_jax.objectives import balancer as balancer_lib
from audiolm_jax.objectives import discriminators
from audiolm_jax.objectives import distances as distances_lib
from audiolm_jax.objectives import distillation as distillation_lib
from audiolm_jax.objectives import gan as gan_lib
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import parts

_FAST = {'xla_backend_optimization_level': 0}
GAN = gan_lib.Gan(
    discriminators={
        'frames': discriminators.FrameRate(
            sizes=(64,), width=8, hidden=8, blocks=1
        )
    },
    weight=2.0,
)


@dataclasses.dataclass(frozen=True)
class Linear:
  """As a tokenizer: every 32 samples through a matrix, and back. Fast."""

  hop: int = 32
  dimension: int = 4
  sample_rate: int = 16000
  bottleneck: bottlenecks.Bottleneck = bottlenecks.BOTTLENECKS['rvq'](
      codebooks=2, vocabulary=8, dropout=0.0
  )

  encoder = property(lambda self: self)
  spec = property(lambda self: types.SimpleNamespace(channels=1, **vars(self)))

  def init(self, rng):
    kernel = jax.random.normal(rng, (self.hop, self.dimension)) / 4
    state = self.bottleneck.init(rng, self.dimension)['state']
    codebooks = jax.random.normal(rng, state.codebooks.shape)
    return {
        'params': {'encoder': kernel, 'bottleneck': {}, 'decoder': kernel.T},
        'state': state.replace(codebooks=codebooks),
    }

  def encode_latents(self, params, audio, num_samples):
    frames = audio.reshape(audio.shape[0], -1, self.hop)
    mask = streaming.length_mask(-(-num_samples // self.hop), frames.shape[1])
    return frames @ params['encoder'], mask

  def decode_latents(self, params, latents, num_samples):
    audio = (latents @ params['decoder']).reshape(latents.shape[0], -1, 1)
    mask = streaming.length_mask(num_samples, audio.shape[1])
    return streaming.zero_masked(audio, mask)


def _objective(**options):
  return objectives.OBJECTIVES['codec'](
      **{
          'tokenizer': Linear(),
          'samples': 512,
          'mel_weight': 0.0,
          'stft_weight': 0.0,
          'complex_weight': 0.0,
          'distances': {'wave': distances_lib.Waveform(weight=3.0)},
          'gan': GAN,
          **options,
      }
  )


def _start(objective):
  """Variables, and a batch."""
  init = jax.jit(objective.init, compiler_options=_FAST)
  variables = flax.core.meta.unbox(init(jax.random.key(0)))
  rng = np.random.default_rng(0)
  batch = objective.example_batch(4)
  audio = rng.standard_normal((4, 512, 1)).astype(np.float32)
  batch['num_samples'] = np.array([512, 300, 33, 0], np.int32)
  valid = np.arange(512) < batch['num_samples'][:, None]
  batch['audio'] = np.where(valid[..., None], audio, np.nan)
  return variables, batch


def _params(variables):
  return {model: v['params'] for model, v in variables.items()}


def _gradients(objective, names):
  """Compiled: the output, and each term's gradient for each model."""

  def run(params, states, batch):
    def terms(params):
      variables = {m: {'params': params[m], 'state': states[m]} for m in states}
      out = objective(variables, batch, jax.random.key(2))
      return {n: s / w for n, (s, w) in out.terms.items()}, out

    values, pull, out = jax.vjp(terms, params, has_aux=True)
    one_hots = {
        name: {n: jnp.float32(n == name) for n in values} for name in names
    }
    return out, {name: pull(one_hots[name])[0] for name in names}

  return jax.jit(run, compiler_options=_FAST)


def _largest(tree):
  return max(float(np.abs(x).max()) for x in jax.tree.leaves(tree))


def _states(variables):
  return {model: v['state'] for model, v in variables.items()}


@pytest.fixture(scope='module')
def plain():
  objective = _objective()
  variables, batch = _start(objective)
  names = ('discriminator', 'adversarial', 'feature', 'wave')
  run = _gradients(objective, names)
  output, gradients = run(_params(variables), _states(variables), batch)
  return objective, variables, batch, output, gradients


def test_terms(plain):
  objective, variables, _, output, _ = plain
  assert set(variables) == {'codec', 'discriminator'}
  assert objective.loss_weights == {
      'commitment': 0.5,
      'wave': 3.0,
      'adversarial': 2.0,
      'feature': 1.0,
      'discriminator': 1.0,
  }
  assert set(output.terms) == set(objective.loss_weights)
  assert all(np.isfinite(x) for pair in output.terms.values() for x in pair)
  assert output.terms['adversarial'][1] == output.terms['wave'][1] == 845
  assert objective.additive


def test_the_discriminators_loss_moves_only_them(plain):
  gradients = plain[-1]['discriminator']
  assert _largest(gradients['codec']) == 0
  for leaf in jax.tree.leaves(gradients['discriminator']):
    assert np.abs(leaf).max() > 0


@pytest.mark.parametrize('name', ['adversarial', 'feature', 'wave'])
def test_the_codecs_losses_move_only_it(plain, name):
  gradients = plain[-1][name]
  assert _largest(gradients['discriminator']) == 0
  for leaf in jax.tree.leaves(gradients['codec']['decoder']):
    assert np.abs(leaf).max() > 0
  assert _largest(gradients['codec']['encoder']) > 0


def test_each_side_gains_by_its_own_step(plain):
  """Downhill steps of either model, the other one held."""
  objective, variables, batch, output, gradients = plain
  call = jax.jit(objective, compiler_options=_FAST)

  def after(model, name, rate):
    moved = jax.tree.map(
        lambda p, g: p - rate * g,
        variables[model]['params'],
        gradients[name][model],
    )
    new = {**variables, model: {**variables[model], 'params': moved}}
    out = call(new, batch, jax.random.key(2))
    return {k: float(s / w) for k, (s, w) in out.terms.items()}

  before = {k: float(s / w) for k, (s, w) in output.terms.items()}
  own = after('discriminator', 'discriminator', 3e-3)
  assert own['discriminator'] < before['discriminator']
  assert own['wave'] == pytest.approx(before['wave'], rel=1e-5)
  # The codebooks' choices jump, so the step is small.
  codec = after('codec', 'adversarial', 1e-4)
  assert codec['adversarial'] < before['adversarial']


def _decoded(variables, batch):
  """What the codec makes of the audio, without its objective."""
  codec, num_samples = Linear(), batch['num_samples']
  v = variables['codec']
  audio = np.nan_to_num(batch['audio'])
  latents, frames = codec.encode_latents(v['params'], audio, num_samples)
  latents = codec.bottleneck.quantise(
      {'params': {}, 'state': v['state']}, latents, frames
  ).latents
  return codec.decode_latents(v['params'], latents, num_samples)


def test_the_target_is_the_audio_unless_there_is_another(plain):
  objective, variables, batch, output, gradients = plain
  run = _gradients(objective, tuple(gradients))
  given = {**batch, 'target': batch['audio']}
  same = run(_params(variables), _states(variables), given)
  jax.tree.map(np.testing.assert_array_equal, same, (output, gradients))
  given['target'] = 0.5 * batch['audio']
  other = run(_params(variables), _states(variables), given)[0].terms
  for name in ('discriminator', 'feature', 'wave'):
    assert abs(other[name][0] / output.terms[name][0] - 1) > 1e-3, name
  for name in ('adversarial', 'commitment'):
    np.testing.assert_allclose(other[name], output.terms[name], rtol=1e-5)


def test_the_output_is_drawn_to_the_target_only(plain):
  objective, variables, batch, _, _ = plain
  decoded = _decoded(variables, batch)
  target = np.random.default_rng(1).standard_normal(decoded.shape)
  target = target.astype(np.float32)
  call = jax.jit(objective, compiler_options=_FAST)
  out = call(variables, {**batch, 'target': target}, jax.random.key(2))
  valid = np.arange(512) < batch['num_samples'][:, None]
  want = np.abs(decoded - target)[..., 0][valid].sum()
  np.testing.assert_allclose(out.terms['wave'], (want, 845), rtol=1e-5)
  # The output as the target: nothing is left to learn.
  out = call(variables, {**batch, 'target': decoded}, jax.random.key(2))
  assert out.terms['wave'][0] < 1e-2 and out.terms['feature'][0] < 1e-2


def test_discriminators_take_the_target_for_real(plain):
  objective, variables, batch, _, _ = plain
  clean = {**batch, 'audio': np.nan_to_num(batch['audio'])}

  def loss(audio, target):
    given = {**clean, 'audio': audio, 'target': target}
    terms = objective(variables, given, jax.random.key(2)).terms
    return terms['discriminator'][0]

  gradient = jax.jit(jax.grad(loss, (0, 1)), compiler_options=_FAST)
  of_audio, of_target = gradient(clean['audio'], clean['audio'])
  assert not np.asarray(of_audio).any() and np.asarray(of_target).any()


def test_a_target_of_another_shape_is_refused(plain):
  objective, variables, batch, _, _ = plain
  for shape in ((4, 511, 1), (4, 512, 2)):
    given = {**batch, 'target': np.zeros(shape, np.float32)}
    with pytest.raises(ValueError, match=r"batch\['target'\] is \[4, 51"):
      jax.eval_shape(objective, variables, given, jax.random.key(0))


def test_start_and_ramp():
  late = dataclasses.replace(GAN, start=10, ramp=4)
  factors = [
      float(late.factor({'steps': jnp.int32(n)})) for n in (0, 10, 11, 14, 99)
  ]
  assert factors == [0, 0, 0.25, 1, 1]
  sudden = dataclasses.replace(GAN, start=3)
  assert [float(sudden.factor({'steps': jnp.int32(n)})) for n in (2, 3)] == [
      0,
      1,
  ]
  assert float(GAN.factor({'steps': jnp.int32(0)})) == 1


def test_before_its_start_the_codec_does_not_hear_them(plain):
  objective = _objective(gan=dataclasses.replace(GAN, start=5))
  _, variables, batch, output, _ = plain
  call = jax.jit(objective, compiler_options=_FAST)
  early = call(variables, batch, jax.random.key(2))
  assert early.terms['adversarial'][0] == early.terms['feature'][0] == 0
  np.testing.assert_allclose(
      early.terms['discriminator'], output.terms['discriminator'], rtol=1e-5
  )
  states = _states(variables)
  for _ in range(5):
    states = objective.finish(states, early.statistics, jax.random.key(0))
  late = {m: {**variables[m], 'state': states[m]} for m in states}
  late['codec'] = variables['codec']
  now = call(late, batch, jax.random.key(2))
  np.testing.assert_allclose(
      now.terms['adversarial'], output.terms['adversarial'], rtol=1e-5
  )


def test_balanced(plain):
  """One term for all losses of the audio; its means move in `finish`."""
  balanced = dataclasses.replace(GAN, balancer=balancer_lib.Balancer())
  objective = _objective(gan=balanced)
  assert not objective.additive
  assert set(objective.loss_weights) == {
      'commitment', 'balanced', 'discriminator'
  }  # fmt: skip
  _, variables, batch, _, gradients = plain
  names = ('adversarial', 'feature', 'wave')
  state = {
      'steps': jnp.int32(0),
      'balancer': balanced.balancer.init(names),
  }
  states = {**_states(variables), 'discriminator': state}
  run = _gradients(objective, ('balanced',))
  output, got = run(_params(variables), states, batch)
  got = got['balanced']
  assert _largest(got['discriminator']) == 0
  # At the first step the means are this batch's norms.
  norms = output.statistics['norms']
  weights = {'wave': 3.0, 'adversarial': 2.0, 'feature': 1.0}
  want = jax.tree.map(
      lambda *g: sum(
          weights[n] / 6 / norms[n] * x for n, x in zip(names, g, strict=True)
      )
      / 3,  # rows that hold audio
      *[gradients[n]['codec']['decoder'] for n in names],
  )
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(
          a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max()
      ),
      got['codec']['decoder'],
      want,
  )
  new = objective.finish(states, output.statistics, jax.random.key(0))
  found = new['discriminator']
  assert int(found['steps']) == 1
  assert float(found['balancer'].weight) == 1
  for name in names:
    assert float(found['balancer'].totals[name]) == pytest.approx(
        float(norms[name])
    )
    assert f'loss/{name}' in output.metrics


def test_the_unquantised_rate_bypasses_whole_rows():
  """At rate one the codebooks matter to no term but the commitment."""
  objective = _objective(gan=None, unquantised_rate=1.0)
  variables, batch = _start(objective)
  call = jax.jit(objective, compiler_options=_FAST)
  first = call(variables, batch, jax.random.key(2)).terms
  codec = variables['codec']
  state = codec['state']
  state = state.replace(codebooks=2 * state.codebooks)
  moved = {'codec': {**codec, 'state': state}}
  second = call(moved, batch, jax.random.key(2)).terms
  np.testing.assert_array_equal(first['wave'], second['wave'])
  assert first['commitment'][0] != second['commitment'][0]
  half = dataclasses.replace(objective, unquantised_rate=0.5)
  latents, quantised = jnp.ones((64, 2, 4)), jnp.zeros((64, 2, 4))
  mixed = half._bypassed(
      quantised, latents, jnp.ones((64, 2), bool), jax.random.key(0)
  )
  rows = mixed[:, 0, 0]
  assert (mixed == rows[:, None, None]).all()
  assert 20 < float(rows.sum()) < 44


def test_distillation_moves_encoder_and_map():
  term = distillation_lib.Distillation(
      distillation_lib.LogMel(size=64, step=20, mels=5), weight=7.0
  )
  objective = _objective(gan=None, distillation=term)
  assert objective.loss_weights['distillation'] == 7
  variables, batch = _start(objective)
  assert set(variables) == {'codec', 'distillation'}
  run = _gradients(objective, ('distillation',))
  output, gradients = run(_params(variables), _states(variables), batch)
  gradients = gradients['distillation']
  # Frames of 32 samples; the teacher has all of them.
  assert float(output.terms['distillation'][1]) == 16 + 10 + 2
  assert _largest(gradients['codec']['encoder']) > 0
  assert _largest(gradients['codec']['decoder']) == 0
  assert _largest(gradients['distillation']) > 0
  new = objective.finish(
      _states(variables), output.statistics, jax.random.key(0)
  )
  assert set(new) == {'codec', 'distillation'}
  # The teacher hears what is to come out.
  silence = {**batch, 'target': np.zeros_like(batch['audio'])}
  deaf, _ = run(_params(variables), _states(variables), silence)
  value, weight = deaf.terms['distillation']
  assert weight == 28
  assert abs(value / output.terms['distillation'][0] - 1) > 1e-3


def test_wrong_configs_are_refused():
  with pytest.raises(config.ConfigError, match='at least one'):
    gan_lib.Gan({})
  with pytest.raises(config.ConfigError, match="'mel'"):
    _objective(distances={'mel': distances_lib.Waveform()})


def test_configs_survive_the_round_trip():
  tokenizer = tokenizers.TOKENIZERS['codec'](
      encoder=parts.ENCODERS['spectral'](),
      bottleneck=bottlenecks.BOTTLENECKS['rvq'](),
      decoder=parts.DECODERS['spectral'](),
  )
  objective = _objective(
      tokenizer=tokenizer,
      gan=dataclasses.replace(GAN, balancer=balancer_lib.Balancer()),
      distillation=distillation_lib.Distillation(),
  )
  values = config.to_config(objective)
  assert values.gan.discriminators.frames.kind == 'frame_rate'
  again = config.build(type(objective), values)
  assert again == objective and hash(again) == hash(objective)
