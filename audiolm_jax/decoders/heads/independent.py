"""One linear classifier a slot."""

import flax.linen as nn
import jax.numpy as jnp

from audiolm_jax import ops
from audiolm_jax.decoders import initial
from audiolm_jax.decoders.heads import base as heads_base
from audiolm_jax.decoders.heads import kernels as kernels_lib


class Independent(heads_base.Head):
  """The codes of a step are independent, given the steps before it."""

  @nn.compact
  def _kernels(self, width, step_layout, table):
    if table is not None:
      return kernels_lib.tie(table, step_layout.vocabularies)
    return kernels_lib.create(
        self, 'kernel', step_layout.slots, step_layout.vocabularies, width
    )

  def log_prob(self, h, codes, exists, slots, step_layout, table=None):
    kernels = self._kernels(h.shape[-1], step_layout, table)
    return kernels.log_prob(h, codes, slots), exists

  def sample(
      self,
      h,
      slots,
      exists,
      given,
      given_mask,
      choose,
      rng,
      step_layout,
      table=None,
  ):
    del exists
    kernels = self._kernels(h.shape[-1], step_layout, table)
    in_order = tuple((k,) for k in range(len(step_layout.vocabularies)))
    if kernels.stacked is not None and step_layout.groups == in_order:
      logits = ops.einsum('bd,gdv->bgv', h, kernels.stacked)
      logits = logits.astype(jnp.float32)
    else:
      logits = jnp.stack(
          [
              kernels.at(h, slots[:, g], among)
              for g, among in enumerate(step_layout.groups)
          ],
          axis=1,
      )
    codes = jnp.where(given_mask, given, choose(logits, rng, slots))
    return codes, heads_base.select_log_prob(logits, codes)

  def logits(self, h, codes, exists, slots, step_layout, table=None):
    del codes, exists
    return self._kernels(h.shape[-1], step_layout, table).logits(h, slots)

  def initial(self, codebooks, projection, step_layout, rng):
    del rng
    slots = list(step_layout.slots)
    return {'kernel': initial.classifiers(codebooks[slots], projection)}
