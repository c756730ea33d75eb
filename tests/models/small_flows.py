"""Small models that denoise latents, and what they may be given."""

import numpy as np

from audiolm_jax import decoders
from audiolm_jax.data import factors
from audiolm_jax.data import moments as moments_lib
from audiolm_jax.decoders import conditioners
from audiolm_jax.models import flow_lm
from audiolm_jax.processes import times as times_lib
from tests.decoders import small
from tests.processes import known

F, D = 6, 2
LENGTHS = np.array([F, 4], np.int32)
MOMENTS = moments_lib.Moments((3.0, -7.0), (0.5, 20.0))
GRID = times_lib.Grid(3)


def decoder(conditioned=False, tone=False, **options):
  conditions = {}
  if conditioned:
    source = factors.Name(('a', 'b'))
    conditions['voice'] = conditioners.Class(how='film', source=source)
  if tone:
    conditions['tone'] = conditions['voice'].clone()
  backbone = small.stack(
      mixer={'mask_kind': 'bidirectional'},
      adaptive='adaln_zero',
  )
  return decoders.Flow(D, backbone=backbone, conditions=conditions, **options)


def model(seed=0, **options):
  made = decoder(**options)
  batch = made.example_batch(1, F)
  latents, num_frames, conditions = made.read(batch)
  params = small.parameters(
      made,
      *(latents, np.ones(1, np.float32), num_frames),
      *(None, None, None, conditions),
      seed=seed,
      method='predict',
  )
  return flow_lm.FlowLM(made, params, 2.0)


def given(seed=0):
  rng = np.random.default_rng(seed)
  values = rng.normal([3, -7], [0.5, 20], size=(2, F, D)).astype(np.float32)
  return values, rng.random((2, F)) < 0.5


class Normal(decoders.Flow):
  """Knows that data is N(0, 1)."""

  def predict(self, z, t, num_frames, *rest):
    del num_frames, rest
    return known.normal(self.process, self.target).predict(z, t)
