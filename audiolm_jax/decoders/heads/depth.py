"""The depth transformer: the codes of a step one after the other."""

import dataclasses
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from audiolm_jax import backbones
from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.decoders import embedding as embedding_lib
from audiolm_jax.decoders import initial
from audiolm_jax.decoders.heads import base as heads_base
from audiolm_jax.decoders.heads import kernels as kernels_lib


@dataclasses.dataclass(frozen=True)
class _Parts:
  """What a depth transformer consists of, its weights fetched.

  Attributes:
    start: the first place that the transformer has a position for.
    stacks: of each of its positions, or one for all.
    embedding: of the codes before.
    project: [D, d], or [positions, D, d].
    first: classifiers of the first place, of width D; None: like the others.
    rest: classifiers of the other positions, of width d.
  """

  start: int
  stacks: list[nn.Module]
  embedding: nn.Module
  project: ops.Weight | None
  first: kernels_lib.Kernels | None
  rest: kernels_lib.Kernels | None


class Depth(heads_base.Head):
  """A small transformer over the G positions of a step.

  As in the RQ-transformer (2203.01941), Moshi (2410.00037, section 3.4.1) and
  CSM: a position's input is the backbone's output, projected, plus the embedding
  of the code at the position before; its output goes to the classifier of its
  slot. It works within a step, so it combines with any pattern; where a step
  has one place only it is a deeper classifier.

  Attributes:
    backbone: of the transformer, causal over positions; best not scanned.
    per_place: whether each position has its own projection and transformer
      weights, as in Moshi. Classifiers and embeddings are each slot's own.
    condition: which positions the backbone's output is added to: every one (Moshi),
      or (CSM) the first.
    first: what gives the first place's code: the transformer, or a classifier
      right on the backbone's output (Moshi's text, CSM's first codebook).
    fraction: of the steps of a batch, padding included, on which the transformer
      is trained: a random choice at each call that has an rng stream 'frames'
      (1/16 in CSM). Codes that `first` = 'backbone' gives are always scored.
    predicted: how many leading positions are the head's; None for all. The codes of
      the others, such as those of Moshi's user, are never scored, and whoever
      samples gives them.
  """

  backbone: Annotated[Any, config.Kind(lambda: backbones.BACKBONES)] = (
      stack_lib.Stack(width=128, layers=2, scan=False)
  )
  per_place: bool = False
  condition: Literal['every', 'first'] = 'every'
  first: Literal['depth', 'backbone'] = 'depth'
  fraction: config.Share = 1.0
  predicted: config.Positive | None = None

  @nn.compact
  def _parts(self, width, step_layout):
    apart = self.first == 'backbone'
    start = int(apart and self.condition == 'every')
    inner, vocabularies = self.backbone.width, step_layout.vocabularies
    first = rest = project = None
    places = step_layout.groups[: self.predicted]
    rest_slots = sorted({s for place in places[apart:] for s in place})
    if apart:
      first = kernels_lib.create(
          self, 'first', sorted(places[0]), vocabularies, width
      )
    positions = len(places) - start
    if rest_slots:
      rest = kernels_lib.create(self, 'kernel', rest_slots, vocabularies, inner)
      shape, axes = (width, inner), ('embed', None)
      if self.per_place and self.condition == 'every':
        shape, axes = (positions, *shape), ('slots', *axes)
      init = nn.initializers.lecun_normal()
      project = ops.weight(self, 'project', init, shape, axes)
    if self.per_place:
      stacks = [
          self.backbone.clone(parent=self, name=f'place_{start + i}')
          for i in range(positions)
      ]
    else:
      stacks = [self.backbone]
    embedding = embedding_lib.Embedding(
        vocabularies, inner, self.backbone.dtype, name='embedding'
    )
    return _Parts(start, stacks, embedding, project, first, rest)

  @nn.nowrap
  def _inputs(self, parts, h, embedded):
    """Inputs [R, positions, d] of positions up to the last one in `embedded`.

    `embedded` [R, G - 1, d] are the codes of all positions but the last.
    """
    x = jnp.pad(embedded, ((0, 0), (1, 0), (0, 0)))[:, parts.start :]
    h = h.astype(x.dtype)
    if parts.project.ndim == 3:
      # A segment may have fewer positions than the decoder.
      given = ops.einsum('bd,gdf->bgf', h, parts.project)
      return x + given[:, : x.shape[1]]
    given = ops.einsum('bd,df->bf', h, parts.project)
    if self.condition == 'first':
      return x.at[:, 0].add(given)
    return x + given[:, None]

  @nn.nowrap
  def _transform(self, parts, x):
    """Outputs [R, positions, d] for all positions' inputs."""
    mask = jnp.ones(x.shape[:2], bool)
    if not self.per_place:
      return _dense(parts.stacks[0].transform(x, mask)).y
    state, outputs = self._start(parts, *x.shape[:2]), []
    for i, module in enumerate(parts.stacks[: x.shape[1]]):
      output = _dense(
          module.transform(x[:, i : i + 1], mask[:, i : i + 1], state)
      )
      state = output.state
      outputs.append(output.y)
    return jnp.concatenate(outputs, axis=1)

  @nn.nowrap
  def _start(self, parts, rows, positions):
    resized = parts.stacks[0].with_cache_length(positions)
    return resized.initial_state(rows, resized.output_spec(None))

  def log_prob(self, h, codes, exists, slots, step_layout, table=None):
    _refuse(table)
    parts = self._parts(h.shape[-1], step_layout)
    apart = int(parts.first is not None)
    group = codes.shape[-1]
    codes, exists, slots = (
        x[..., : self.predicted] for x in (codes, exists, slots)
    )
    scores, scored = [], [exists[..., :apart]]
    if apart:
      scores.append(parts.first.log_prob(h, codes[..., :1], slots[:, :1]))
    if codes.shape[-1] > apart:
      rest = self._rest(parts, h, codes, exists, slots)
      scores.append(rest[0])
      scored.append(rest[1])
    observed = [(0, 0)] * (codes.ndim - 1) + [(0, group - codes.shape[-1])]
    return tuple(
        jnp.pad(jnp.concatenate(x, -1), observed) for x in (scores, scored)
    )

  def _rest(self, parts, h, codes, exists, slots):
    """Of the positions that the transformer gives, all or some steps' of them."""
    batch, steps, group = codes.shape
    own = int(parts.first is not None)
    flat = [x.reshape(batch * steps, -1) for x in (h, codes, exists)]
    index = None
    if self.fraction < 1 and self.has_rng('frames'):
      index, slots = self._some(exists[..., own:], slots)
      flat = [jnp.take(x, index, axis=0) for x in flat]
    else:
      slots = np.tile(slots, (batch, 1))
    h, codes, exists = flat
    y = self._outputs(parts, h, codes, exists, slots)
    log_prob = parts.rest.log_prob(
        y[None], codes[None, :, own:], slots[:, own:]
    )
    values = log_prob[0], exists[:, own:]
    if index is not None:
      empty = jnp.zeros((batch * steps, group - own))
      values = [empty.astype(x.dtype).at[index].set(x) for x in values]
    return [x.reshape(batch, steps, -1) for x in values]

  @nn.nowrap
  def _outputs(self, parts, h, codes, exists, slots):
    """Of the positions that the transformer gives, [R, positions, d], for R steps."""
    embedded = parts.embedding(codes[:, :-1], slots[:, :-1], exists[:, :-1])
    y = self._transform(parts, self._inputs(parts, h, embedded))
    return y[:, int(parts.first is not None) - parts.start :]

  def _some(self, exists, slots):
    """A random choice of the steps that hold something.

    Returns:
      Which of all B N steps, [R], and their slots [R, G]. Steps of each order
      of slots are chosen apart, so that the slots are known to the host.
    """
    batch, steps, _ = exists.shape
    rank = jax.random.uniform(self.make_rng('frames'), (batch, steps))
    rank = (rank + ~exists.any(axis=-1)).ravel()
    kinds, which = np.unique(slots, axis=0, return_inverse=True)
    index, chosen = [], []
    for i, kind in enumerate(kinds):
      members = np.flatnonzero(np.tile(which.ravel() == i, batch))
      count = max(1, round(self.fraction * len(members)))
      _, first = jax.lax.top_k(-rank[members], count)
      index.append(jnp.asarray(members)[first])
      chosen.append(np.tile(kind, (count, 1)))
    return jnp.concatenate(index), np.concatenate(chosen)

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
    _refuse(table)
    parts = self._parts(h.shape[-1], step_layout)
    places = step_layout.groups[: self.predicted]
    rows, group = slots.shape[0], len(places)
    mask = jnp.ones((rows, 1), bool)
    if parts.rest is not None:
      state = self._start(parts, rows, group - parts.start)
      # What the backbone adds to each position's input.
      none = jnp.zeros(
          (rows, group - 1, self.backbone.width), self.backbone.dtype
      )
      inputs = self._inputs(parts, h, none)
    codes, scores = [], []
    for g, among in enumerate(places):
      y = h
      if parts.rest is not None and g >= parts.start:
        i = g - parts.start
        x = inputs[:, i : i + 1]
        if g:
          before = slice(g - 1, g)
          x += parts.embedding(
              codes[-1][:, None], slots[:, before], exists[:, before]
          )
        module = parts.stacks[i if self.per_place else 0]
        output = module.transform(x, mask, state)
        y, state = output.y[:, 0], output.state
      kernels = parts.rest
      if not g and parts.first is not None:
        y, kernels = h, parts.first
      logits = kernels.at(y, slots[:, g], among)
      drawn = choose(
          logits[:, None], jax.random.fold_in(rng, g), slots[:, g : g + 1]
      )
      codes.append(jnp.where(given_mask[:, g], given[:, g], drawn[:, 0]))
      scores.append(heads_base.select_log_prob(logits, codes[-1]))
    observed = given[:, group:]
    codes = jnp.concatenate([jnp.stack(codes, axis=1), observed], axis=1)
    scores = jnp.stack(scores, axis=1)
    return codes, jnp.pad(scores, ((0, 0), (0, observed.shape[1])))

  def logits(self, h, codes, exists, slots, step_layout, table=None):
    _refuse(table)
    parts = self._parts(h.shape[-1], step_layout)
    apart = int(parts.first is not None)
    batch, steps, group = codes.shape
    most = max(step_layout.vocabularies[slot] for slot in np.unique(slots))
    codes, exists, slots = (
        x[..., : self.predicted] for x in (codes, exists, slots)
    )
    parts_of_logits = []
    if apart:
      parts_of_logits.append(parts.first.logits(h, slots[:, :1]))
    if codes.shape[-1] > apart:
      rows = [x.reshape(batch * steps, -1) for x in (h, codes, exists)]
      tiled = np.tile(slots, (batch, 1))
      y = self._outputs(parts, *rows, tiled)
      rest = parts.rest.logits(y[None], tiled[:, apart:])
      parts_of_logits.append(rest.reshape(batch, steps, *rest.shape[2:]))
    parts_of_logits = [
        heads_base.pad_vocabulary(x, most) for x in parts_of_logits
    ]
    parts_of_logits = jnp.concatenate(parts_of_logits, axis=2)
    observed = [(0, 0), (0, 0), (0, group - parts_of_logits.shape[2]), (0, 0)]
    return jnp.pad(parts_of_logits, observed, constant_values=-jnp.inf)

  def initial(self, codebooks, projection, step_layout, rng):
    inner = self.backbone.width
    apart = self.first == 'backbone'
    places = step_layout.groups[: self.predicted]
    within = initial.orthonormal(codebooks.shape[2], inner, rng)
    values = {'embedding': initial.embeddings(codebooks, within)}
    if apart:
      first = codebooks[sorted(places[0])]
      values['first'] = initial.classifiers(first, projection)
    rest = sorted({s for place in places[apart:] for s in place})
    if rest:
      values['kernel'] = initial.classifiers(codebooks[rest], within)
      # What the backbone says of a codec's vectors goes to the same vectors
      # here, all else at random.
      width = projection.shape[1]
      other = rng.normal(size=(width, inner)) / np.sqrt(width)
      other -= projection.T @ (projection @ other)
      project = (projection.T @ within + other).astype(np.float32)
      if self.per_place and self.condition == 'every':
        project = np.stack([project] * (len(places) - apart))
      values['project'] = project
    return values


def _refuse(table):
  if table is not None:
    raise ValueError('a depth head has classifiers of its own: do not tie it')


def _dense(output):
  if output.losses:
    raise ValueError('a depth head passes on no losses: no experts in it')
  return output
