"""A parameter transform reaches every model without touching one.

For each objective: every matrix becomes a LoraTensor. At zero the model is the
base model; with a non-zero update it is the model whose weights were merged
densely, which would fail if some weight were used past the choke points.
"""

import flax.linen as nn
import jax
import numpy as np
import pytest

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax import objectives
from audiolm_jax import ops
from audiolm_jax import param_transforms
from audiolm_jax import patterns
from audiolm_jax import tokenizers
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.backbones.mixers import bidirectional
from audiolm_jax.backbones.mixers import rg_lru
from audiolm_jax.data import factors
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import gaps as gaps_lib
from audiolm_jax.decoders import heads
from audiolm_jax.decoders import latent_heads
from audiolm_jax.decoders import time_embedding
from audiolm_jax.decoders import waveform_heads
from audiolm_jax.decoders import wavenet
from audiolm_jax.decoders.latent_heads import network as network_lib
from audiolm_jax.models import front_ends
from audiolm_jax.models import recogniser as recogniser_lib
from audiolm_jax.objectives import discriminators
from audiolm_jax.objectives import distillation as distillation_lib
from audiolm_jax.objectives import gan as gan_lib
from audiolm_jax.param_transforms import base as param_transforms_base
from audiolm_jax.patterns import sequence as sequence_lib
from audiolm_jax.processes import guidance as guidance_lib
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import parts
from audiolm_jax.training import mesh as mesh_lib


def _codec():
  sizes = {'width': 16, 'hidden': 24, 'blocks': 1}
  tokenizer = tokenizers.Codec(
      encoder=parts.SpectralEncoder(dimension=8, **sizes),
      bottleneck=bottlenecks.Rvq(codebooks=2, vocabulary=16),
      decoder=parts.SpectralDecoder(**sizes),
  )
  # The other discriminators: tests/objectives/discriminators.
  judge = discriminators.FrameRate(sizes=(256,), width=8, hidden=8, blocks=1)
  return objectives.Codec(
      tokenizer=tokenizer,
      samples=3200,
      sizes=(256,),
      mels=(20,),
      complex_size=256,
      gan=gan_lib.Gan(loss='least_squares', discriminators={'frames': judge}),
      distillation=distillation_lib.Distillation(
          teacher=distillation_lib.LogMel()
      ),
  )


def _nll(decoder, **lengths):
  return objectives.NLL(decoder=decoder, lengths=lengths, rate=50.0)


def _lm():
  decoder = decoders.Decoder(
      vocabularies=(11, 13), backbone=stack_lib.Stack(width=16, layers=2)
  )
  return _nll(decoder, frames=9)


def _conditioned():
  """Every kind of condition, and every place where one acts."""
  encoder = stack_lib.Stack(width=8, layers=1, scan=False)
  prompt = factors.Codes(vocabularies=(11, 13), length=4)
  decoder = decoders.Decoder(
      vocabularies=(11, 13),
      backbone=stack_lib.Stack(
          width=16,
          layers=2,
          cross=attention.Cross(heads=2),
          adaptive='adaln_zero',
      ),
      conditions={
          'text': conditioners.Text(
              source=factors.Text(length=5), how='cross', encoder=encoder
          ),
          'voice': conditioners.Vector(
              source=factors.Vector(width=3), how='film'
          ),
          'language': conditioners.Class(
              source=factors.Name(names=('a', 'b')), how='add'
          ),
          'prompt': conditioners.Codes(source=prompt, how='prefix'),
      },
  )
  return _nll(decoder, frames=9)


def _depth():
  """A depth head with weights of each place, and experts in the backbone."""
  decoder = decoders.Decoder(
      vocabularies=(11, 13, 13),
      pattern=patterns.CoarseFirst(parallel=True),
      backbone=stack_lib.Stack(
          width=16, layers=2, mlp=mlps.Moe(experts=3, hidden=8)
      ),
      head=heads.Depth(
          backbone=stack_lib.Stack(width=8, layers=1, scan=False),
          per_place=True,
          first='backbone',
      ),
  )
  return _nll(decoder, frames=5)


def _masked():
  """Stages, and a mixer that looks both ways."""
  decoder = decoders.Masked(
      vocabularies=(11, 13),
      backbone=stack_lib.Stack(
          width=16,
          layers=2,
          mixers=(
              attention.Attention(heads=2, mask_kind='bidirectional'),
              bidirectional.Bidirectional(rg_lru.RgLru(heads=2)),
          ),
      ),
      stages=((0,), (1,)),
  )
  return _nll(decoder, frames=9)


def _segments():
  segments = (
      sequence_lib.Segment('text', (0,)),
      sequence_lib.Segment('speech', (1, 2), patterns.Delay()),
  )
  decoder = decoders.Segmented(
      vocabularies=(11, 13, 7),
      sequence=sequence_lib.Sequence(segments),
      backbone=stack_lib.Stack(width=16, layers=2),
      tie=True,
  )
  return _nll(decoder, text=4, speech=6)


def _samples():
  stack = wavenet.GatedStack(
      width=8, skip=8, dilations=(1, 2), film=3, local=2, local_hop=4
  )
  decoder = decoders.WaveNet(
      inputs='classes', stack=stack, head=waveform_heads.Logistics(mixtures=2)
  )
  return _nll(decoder, samples=12)


def _denoising():
  """What is given, too, and a condition in each place but before the frames."""
  backbone = stack_lib.Stack(
      width=16,
      layers=2,
      mixers=(attention.Attention(mask_kind='bidirectional'),),
      cross=attention.Cross(heads=2),
      adaptive='adaln_zero',
      film_silu=True,
  )
  conditions = {
      how: conditioners.Class(source=factors.Name(names=('a', 'b')), how=how)
      for how in ('add', 'cross', 'film')
  }
  decoder = decoders.Flow(
      dimension=3,
      backbone=backbone,
      conditions=conditions,
      gaps=gaps_lib.Gaps(prefix=0.5, segments=0.5),
  )
  return objectives.Denoising(decoder=decoder, frames=9, rate=50.0)


def _latents(head):
  """A head over single frames, and conditions that come before and beside."""
  conditions = {
      how: conditioners.Class(source=factors.Name(names=('a', 'b')), how=how)
      for how in ('add', 'prefix')
  }
  decoder = decoders.LatentDecoder(
      dimension=3,
      backbone=stack_lib.Stack(width=16, layers=2),
      head=head,
      conditions=conditions,
      history_noise=0.5,
  )
  return objectives.NextLatent(decoder=decoder, frames=9, rate=50.0)


_SMALL_NETWORK = network_lib.AdalnMlp(width=16, layers=2)


def _distillation():
  """Of jumps: a decoder with two times, and its teacher with one."""
  flow = _denoising()
  decoder = flow.decoder.clone(jump=time_embedding.TimeEmbedding(4, 2.0))
  return objectives.FlowMapDistillation(
      decoder=decoder,
      mean_flow=1.0,
      guidance=guidance_lib.Plain(2.0),
      frames=9,
      rate=50.0,
  )


def _ctc():
  module = recogniser_lib.Recogniser(
      symbols=('a', 'b'),
      front_end=front_ends.Gammatone(bands=16),
      width=16,
      blocks=2,
  )
  return objectives.CTC(recogniser=module, samples=4000, labels=3)


_FAST = {'xla_backend_optimization_level': 0}
SMALL = {
    'toy': objectives.Toy,
    'codec': _codec,
    'ctc': _ctc,
    'denoising': _denoising,
    'latents of a diffusion': lambda: _latents(
        latent_heads.Diffusion(_SMALL_NETWORK)
    ),
    'latents of a flow map': lambda: _latents(
        latent_heads.FlowMap(_SMALL_NETWORK)
    ),
    'latents of a mixture': lambda: _latents(latent_heads.Mixture(3)),
    'distillation': _distillation,
    'lm': _lm,
    'lm with conditions': _conditioned,
    'lm with depth': _depth,
    'masked lm': _masked,
    'segments': _segments,
    'samples': _samples,
}


def test_every_objective_is_tested_here():
  classes = {type(make()) for make in SMALL.values()}
  assert classes == set(objectives.OBJECTIVES.values())


def batch_of(objective, rows=2):
  """A batch of an objective whose rows differ in all that they may."""
  rng = np.random.default_rng(0)
  batch = {}
  for name, value in objective.example_batch(rows).items():
    if name.startswith('num_frames/'):
      longest = batch[name.replace('num_frames', 'codes')].shape[1]
      batch[name] = np.resize([longest, longest // 2], rows).astype(np.int32)
    elif name.endswith('/lengths'):
      # Of conditions: one row has less, and still has one.
      longest = batch[name.replace('lengths', 'values')].shape[1]
      batch[name] = np.resize([longest, -(-longest // 2)], rows).astype(
          np.int32
      )
    elif name in ('num_frames', 'num_samples'):
      longest = max(v.shape[1] for v in batch.values())
      batch[name] = np.resize([longest, longest // 2], rows).astype(np.int32)
    elif value.dtype == bool:
      batch[name] = np.resize([True, False], rows)
    elif value.dtype == np.int32:
      batch[name] = rng.integers(0, 2, value.shape).astype(np.int32)
    else:
      batch[name] = rng.normal(size=value.shape).astype(np.float32)
  return batch


@pytest.mark.parametrize('name', sorted(SMALL))
def test_low_rank_updates_reach_every_weight(name):
  made = SMALL[name]()
  objective = config.build(type(made), made)
  boxed = jax.jit(objective.init, compiler_options=_FAST)(jax.random.key(0))
  variables = nn.meta.unbox(boxed)
  base = {model: v['params'] for model, v in variables.items()}
  # Codebooks of zeros would hide everything before them.
  states = {
      model: jax.tree.map(
          lambda x: 1.0 + jax.random.normal(jax.random.key(4), x.shape),
          v.get('state', {}),
      )
      for model, v in variables.items()
  }
  transform = param_transforms.Lora(rank=2, alpha=4.0, targets=('',))
  zero = {}
  for model, params in base.items():
    axes = mesh_lib.logical_axes(boxed[model]['params'])
    zero[model] = transform.init(jax.random.key(1), params, axes)
    wrapped = [w for w in _weights(zero[model]) if _is_low_rank(w)]
    matrices = sum(w.ndim >= 2 for w in jax.tree.leaves(params))
    assert len(wrapped) == matrices - _stacked_vectors(axes)
  rng = jax.random.key(2)
  moved = ops.map_weights(
      lambda w: (
          w.replace(b=0.3 * jax.random.normal(rng, w.b.shape))
          if _is_low_rank(w)
          else w
      ),
      zero,
  )
  batch = batch_of(objective)

  def terms(params):
    given = {m: {'params': params[m], 'state': states[m]} for m in params}
    return objective(given, batch, jax.random.key(3)).terms

  terms = jax.jit(terms, compiler_options=_FAST)
  plain, same = terms(base), terms(zero)
  merged = {m: param_transforms.merge_update(p) for m, p in moved.items()}
  merged, low = terms(merged), terms(moved)
  for term in plain:
    np.testing.assert_allclose(same[term], plain[term], rtol=1e-5)
    moved_by = abs(float(low[term][0] - plain[term][0]))
    off_by = abs(float(low[term][0] - merged[term][0]))
    assert moved_by > 1e-4 * abs(float(plain[term][0])), term
    assert off_by < 0.02 * moved_by, term


@pytest.mark.parametrize('name', sorted(SMALL))
def test_by_default_low_rank_updates_leave_out_what_is_zero(name):
  """FiLM, AdaLN-zero, and the output of what denoises: these, and no others."""
  made = SMALL[name]()
  boxed = jax.eval_shape(config.build(type(made), made).init, jax.random.key(0))
  for model, entry in boxed.items():
    axes = mesh_lib.logical_axes(entry['params'])
    low, whole = (
        param_transforms.Lora(**options).axes(axes)
        for options in ({}, {'targets': ('',)})
    )
    low, whole = (
        {
            param_transforms_base.path_of(path)
            for path, leaf in jax.tree_util.tree_leaves_with_path(
                tree, is_leaf=_is_low_rank
            )
            if _is_low_rank(leaf)
        }
        for tree in (low, whole)
    )
    left = {path.rpartition('/')[2] for path in whole - low}
    expected = {
        'lm with conditions': _MODULATIONS,
        'denoising': {*_MODULATIONS, 'denoised'},
        'latents of a diffusion': _HEADS_ZEROS,
        'latents of a flow map': _HEADS_ZEROS,
        'distillation': {*_MODULATIONS, 'denoised'},
    }
    # A student's second time.
    if (name, model) == ('distillation', 'lm'):
      expected[name] |= {'outer'}
    assert left == expected.get(name, set())


_MODULATIONS = {f'{name}_modulation' for name in ('cross', 'mixer', 'mlp')}


_HEADS_ZEROS = {
    *(f'{name}_modulation' for name in ('block_0', 'block_1', 'last')),
    'denoised',
}


def _is_low_rank(leaf):
  return isinstance(leaf, ops.LoraTensor)


def _weights(tree):
  return jax.tree.leaves(tree, is_leaf=_is_low_rank)


def _stacked_vectors(axes):
  """Vectors of scanned layers: two axes, but no matrix."""
  names = jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, tuple))
  return sum(len(n) == 2 and n[0] == 'layers' for n in names)
