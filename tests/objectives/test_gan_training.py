"""A GAN through the loop: resume, both models saved, fine-tuning."""

import jax
import numpy as np
import pytest

import audiolm_jax
from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax import objectives
from audiolm_jax import param_transforms
from audiolm_jax import tokenizers
from audiolm_jax import train
from audiolm_jax.data import pipeline
from audiolm_jax.objectives import balancer as balancer_lib
from audiolm_jax.objectives import discriminators
from audiolm_jax.objectives import distances as distances_lib
from audiolm_jax.objectives import distillation as distillation_lib
from audiolm_jax.objectives import gan as gan_lib
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import parts
from audiolm_jax.training import checkpoints


class Killed(Exception):
  """Stands for a kill at some batch."""


def _tokenizer():
  windows = {'hop': 64, 'window': 64, 'window_hop': 32}
  sizes = {'width': 8, 'hidden': 8, 'blocks': 1, **windows}
  return tokenizers.Codec(
      encoder=parts.SpectralEncoder(dimension=4, **sizes),
      bottleneck=bottlenecks.Rvq(codebooks=2, vocabulary=8),
      decoder=parts.SpectralDecoder(latency=32, window_blocks=0, **sizes),
  )


def _config(**models):
  judge = discriminators.FrameRate(sizes=(128,), width=8, hidden=8, blocks=1)
  distillation = None
  if 'teacher' in models:
    teacher = distillation_lib.Codec(tokenizer=_tokenizer())
    distillation = distillation_lib.Distillation(teacher=teacher)
  return train.Config(
      objective=objectives.Codec(
          tokenizer=_tokenizer(),
          samples=1600,
          mel_weight=0.0,
          stft_weight=0.0,
          complex_weight=0.0,
          distances={'wave': distances_lib.Waveform()},
          unquantised_rate=0.5,
          gan=gan_lib.Gan(
              discriminators={'frames': judge}, balancer=balancer_lib.Balancer()
          ),
          distillation=distillation,
      ),
      data=data.AudioCrops(
          corpus='espeak_sentences', languages=('en',), crop_seconds=0.1
      ),
      models={
          'codec': train.ModelTraining(clip=1.0, ema=0.9),
          'discriminator': train.ModelTraining(clip=1.0),
          **models,
      },
      steps=4,
      batch_size=2,
      log_every=2,
      eval_every=4,
      checkpoint=checkpoints.Config(every=2),
  )


@pytest.fixture(scope='module')
def whole(cache, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('whole')
  return workdir, train.train(_config(), workdir)


def test_a_gan_killed_and_started_again_equals_one_that_was_not(
    whole, tmp_path, monkeypatch
):
  calls = []
  opened = pipeline.CropSource.next

  def dying(self, state):
    calls.append(1)
    if len(calls) == 4:
      raise Killed
    return opened(self, state)

  with monkeypatch.context() as patch:
    patch.setattr(pipeline.CropSource, 'next', dying)
    with pytest.raises(Killed):
      train.train(_config(), tmp_path)
  results = train.train(_config(), tmp_path)
  assert results['loss'] == whole[1]['loss']
  _, state = assembly_lib.restore(tmp_path)
  _, want = assembly_lib.restore(whole[0])
  jax.tree.map(np.testing.assert_array_equal, state, want)
  # Both models moved, and so did what balances them.
  found = state.model_state['discriminator']
  assert int(found['steps']) == 4
  assert all(total > 0 for total in found['balancer'].totals.values())
  assert set(state.optimizer_state) == {'codec', 'discriminator'}


def test_load_gives_the_codec(whole):
  codec = audiolm_jax.load(whole[0])
  audio = np.zeros((1, 640, 1), np.float32)
  assert codec.encode(audio, np.array([640])).codes.shape == (1, 10, 2)


def test_either_model_starts_another_run(whole):
  """A discriminator, and the codec as another one's frozen teacher."""
  workdir = str(whole[0])
  settings = _config(
      discriminator=train.ModelTraining(clip=1.0, init_from=workdir),
      distillation=train.ModelTraining(),
      teacher=train.ModelTraining(
          param_transform=param_transforms.Frozen(),
          init_from=workdir,
          init_model='codec',
      ),
  )
  assembly = assembly_lib.Assembly(config.build(train.Config, settings))
  state = assembly.create()
  _, old = assembly_lib.restore(whole[0])
  same = jax.tree.map(
      lambda a, b: bool((a == b).all()),
      state.trainable['discriminator'],
      old.trainable['discriminator'],
  )
  assert all(jax.tree.leaves(same))
  assert int(state.model_state['discriminator']['steps']) == 4
  variables = old.variables(assembly_lib.restore(whole[0])[0].transforms)
  jax.tree.map(
      np.testing.assert_array_equal,
      state.frozen['teacher'],
      variables['codec']['params'],
  )
  assert not jax.tree.leaves(state.trainable['teacher'])
  settings = config.replace(settings, {'models.teacher.init_model': 'lm'})
  assembly = assembly_lib.Assembly(config.build(train.Config, settings))
  with pytest.raises(config.ConfigError, match="not 'lm'"):
    assembly.create()


def test_the_balancer_refuses_microbatches():
  with pytest.raises(config.ConfigError, match='accumulation = 2'):
    assembly_lib.Assembly(config.replace(_config(), {'accumulation': 2}))
