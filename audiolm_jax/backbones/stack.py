"""The backbone of decoders: residual layers of a mixer and a perceptron."""

import math
from typing import Annotated, Any, Literal

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
import numpy as np

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax.backbones import block as block_lib
from audiolm_jax.backbones import mixers as mixers_lib
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import norms
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.ops import rotary
from audiolm_jax.ops import sharding
from audiolm_jax.streaming import base as streaming_base

_POLICIES = {
    'full': None,
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Output(flax.struct.PyTreeNode):
  """What a stack makes of its input.

  Attributes:
    y: outputs, unspecified where masked.
    state: the next one; None of a whole sequence.
    losses: for each row, sums over its positions of what the perceptrons add
      to the loss, averaged over layers.
  """

  y: Float[Array, 'B N D']
  state: Any
  losses: mlps.Losses


class Period(nn.Module):
  """The layers that a scanned stack repeats."""

  block: tuple[nn.Module, ...]

  def __call__(self, x, states, mask, context):
    after, losses_of_layers = [], []
    for i, block in enumerate(self.block):
      state = None if states is None else states[i]
      x, (state, losses) = block(x, mask, state, context)
      after.append(state)
      losses_of_layers.append(losses)
    return x, (
        None if states is None else tuple(after),
        _total(losses_of_layers),
    )


class Stack(streaming_base.Steppable):
  """Residual layers: mixer, perhaps attention to a context, perceptron.

  Attributes:
    width: of the residual stream, and of inputs and outputs.
    layers: how many.
    mixers: the period that is repeated: one for layers all alike, several for
      hybrids, or for windows that alternate with full attention.
    mlp: the perceptron; None for layers that are mixers only.
    norm: of inputs to each branch.
    norm_epsilon: what `norms.Norm` adds to the mean square.
    norm_bias: whether norms have a learned offset.
    norm_position: pre norms a branch's input (1910.05895), post the residual
      stream after it (1706.03762).
    final_norm: whether outputs are normed.
    positions: added to the inputs: vectors that are learned, or cosines and
      sines (as in MusicGen: all cosines first, frequencies from 1 to 1e-4).
    max_positions: how many learned ones there are.
    cross: attention to context['cross'] [B, S, E], where
      context['cross_mask'] [B, S], between mixer and perceptron.
    adaptive: how context['film'] acts, [B, C] or one vector for each position of
      x [B, N, C]: not at all; film scales and shifts the input of each branch
      (1709.07871); adaln_zero gates its output, too (2212.09748). All three
      linear in it and zero at the start, so film starts as the plain stack and
      adaln_zero as the identity.
    film_silu: whether it passes through SiLU first, as in 2212.09748.
    shared_modulation: whether all layers share the matrices of `adaptive`, and
      each has only offsets of its own (adaLN-single, 2310.00426).
    dropout: of what each branch adds, where there is an rng stream 'dropout'.
    remat: what the backward pass recomputes: nothing, everything, or everything
      but the results of matrix products.
    scan: whether layers are compiled as one loop over stacked parameters.
      Steps are faster without: see `unroll`.
    dtype: of activations; parameters, norms and softmax are fp32.
  """

  width: config.Positive = 256
  layers: config.Positive = 4
  mixers: tuple[Annotated[Any, config.Kind(lambda: mixers_lib.MIXERS)], ...] = (
      attention.Attention(),
  )
  mlp: Annotated[Any, config.Kind(lambda: mlps.MLPS)] | None = mlps.Dense()
  norm: norms.Kind = 'rms'
  norm_epsilon: config.NonNegative = 1e-5
  norm_bias: bool = False
  norm_position: Literal['pre', 'post'] = 'pre'
  final_norm: bool = True
  positions: Literal['none', 'learned', 'sinusoidal'] = 'none'
  max_positions: config.Positive = 1024
  cross: attention.Cross | None = None
  adaptive: Literal['none', 'film', 'adaln_zero'] = 'none'
  film_silu: bool = False
  shared_modulation: bool = False
  dropout: Annotated[float, config.Range(min=0, max=0.95)] = 0.0
  remat: Literal['none', 'full', 'dots'] = 'none'
  scan: bool = True
  dtype: Literal['float32', 'bfloat16'] = 'float32'

  @property
  def block_size(self) -> int:
    return math.lcm(*(m.block_size for m in self.mixers))

  @property
  def causal(self) -> bool:
    return all(m.causal for m in self.mixers)

  @property
  def steppable(self) -> bool:
    return all(m.steppable for m in self.mixers)

  @property
  def receptive_field(self) -> int | None:
    fields = [m.receptive_field for m in self.mixers]
    if None in fields:
      return None
    # Each reaches back from the end of its own block.
    reach = sum(f - 1 for f in fields) * (self.layers // len(fields))
    return reach + 1

  @nn.nowrap
  def reach(self, start, stop):
    for mixer in self.mixers * (self.layers // len(self.mixers)):
      span = mixer.reach(start, stop)
      if span is None:
        return None
      start, stop = span
    return start, stop

  @nn.nowrap
  def output_spec(self, spec):
    return jax.ShapeDtypeStruct((self.width,), jnp.dtype(self.dtype))

  @nn.nowrap
  def initial_state(self, batch, spec):
    """The layers' states, and how many positions there have been."""
    del spec
    spec = self.output_spec(None)
    # No two layers share memory: states may be donated.
    mixers = self.mixers * (self.layers // len(self.mixers))
    return {
        'layers': tuple(m.initial_state(batch, spec) for m in mixers),
        'position': jnp.zeros(batch, jnp.int32),
    }

  def process(self, x, mask, state, context):
    output = self.transform(x, mask, state, context)
    return output.y, mask, output.state

  def __call__(self, x, mask, context=None):
    return self.transform(x, mask, None, context).y, mask

  @nn.compact
  def transform(
      self,
      x: Float[Array, 'B N D'],
      mask: Bool[Array, 'B N'],
      state: Any = None,
      context: streaming_base.Context = None,
  ) -> Output:
    """A whole sequence, or with a state the next N positions of one.

    Args:
      x: inputs. Where masked they may hold NaN.
      mask: prefixes of the rows.
      state: of `initial_state`, of this stack or of `with_cache_length`'s.
      context: see `cross` and `adaptive`.

    Raises:
      ValueError: if the period does not divide the layers, the input has
        another width, there are too few learned positions, `context` lacks what
        `cross` or `adaptive` need, or context['film'] is neither for rows nor
        for the positions of x.
    """
    if self.layers % len(self.mixers) or x.shape[-1] != self.width:
      raise ValueError(
          f'{self.layers} layers of width {self.width} do not fit a period of'
          f' {len(self.mixers)} and inputs of width {x.shape[-1]}'
      )
    x = streaming_base.zero_masked(x.astype(self.dtype), mask)
    x = sharding.constrain(x, block_lib.RESIDUAL)
    start = 0 if state is None else state['position'][:, None]
    x = self._positioned(x, start)
    states = None if state is None else state['layers']
    context = self._modulated(context, x)
    x, states, losses = self._run(x, mask, states, context)
    if self.final_norm:
      x = self._norm(name='norm')(x)
    if state is not None:
      count = jnp.sum(mask, axis=1, dtype=jnp.int32)
      state = {'layers': states, 'position': state['position'] + count}
    losses = {name: loss / self.layers for name, loss in losses.items()}
    return Output(x, state, losses)

  def _positioned(self, x, start):
    length = x.shape[1]
    at = start + np.arange(length, dtype=np.int32)[None]
    if self.positions == 'learned':
      self.check_length(length)
      shape = (self.max_positions, self.width)
      init = nn.initializers.normal(0.02)
      table = ops.weight(self, 'position', init, shape, (None, 'embed'))
      return x + ops.take(table, at, x.dtype)
    if self.positions == 'sinusoidal':
      half = self.width // 2
      radians = 10_000.0 ** (-np.arange(half) / max(half - 1, 1))
      waves = [w[:, :, 0] for w in rotary.angles(at, radians)]
      waves = jnp.concatenate(waves, axis=-1).astype(x.dtype)
      return x + jnp.pad(waves, ((0, 0), (0, 0), (0, self.width % 2)))
    return x

  def _modulated(self, context, x):
    """The context, its film [B, 1 or N, C] as the layers take it."""
    if self.adaptive == 'none':
      if self.film_silu or self.shared_modulation:
        raise config.ConfigError(
            "film_silu and shared_modulation are of a stack whose 'adaptive' is"
            " not 'none'"
        )
      return context
    film = block_lib.given(context, 'film', 'adaptive').astype(x.dtype)
    if film.ndim == 2:
      film = film[:, None]
    if film.ndim != 3 or film.shape[1] not in (1, x.shape[1]):
      raise ValueError(
          f"context['film'] has shape {context['film'].shape}, expected [B, C]"
          f' or [B, N, C] for the N = {x.shape[1]} positions that the stack is'
          ' given'
      )
    if self.film_silu:
      film = jax.nn.silu(film)
    if not self.shared_modulation:
      return {**context, 'film': film}
    branches = {'mixer': True, 'cross': self.cross, 'mlp': self.mlp}
    modulation = {
        name: block_lib.modulation(self, name, film, self.width, self.adaptive)
        for name, branch in branches.items()
        if branch is not None
    }
    return {**context, 'modulation': modulation}

  def _run(self, x, mask, states, context):
    """(x, states, losses summed over layers) after all layers."""
    period = len(self.mixers)
    if not self.scan:
      after, losses_of_layers = [], []
      for i in range(self.layers):
        block = self._block(i % period, name=f'layer_{i}')
        state = None if states is None else states[i]
        own = context
        if context is not None and 'cross_keys' in context:
          own = {**context, 'cross_keys': context['cross_keys'][i]}
        x, (state, losses) = block(x, mask, state, own)
        after.append(state)
        losses_of_layers.append(losses)
      return x, tuple(after), _total(losses_of_layers)
    if states is not None:
      # For each place in the period, states stacked over periods.
      states = tuple(
          jax.tree.map(lambda *s: jnp.stack(s), *states[i::period])
          for i in range(period)
      )
    loop = nn.scan(
        Period,
        variable_axes={'params': 0},
        split_rngs={'params': True, 'dropout': True},
        in_axes=(0, nn.broadcast, nn.broadcast),
        length=self.layers // period,
        metadata_params={nn.PARTITION_NAME: 'layers'},
    )
    blocks = tuple(self._block(i, parent=None) for i in range(period))
    x, (states, losses) = loop(blocks, name='layers')(x, states, mask, context)
    if states is not None:
      states = tuple(
          jax.tree.map(lambda s, n=n: s[n], states[i])
          for n in range(self.layers // period)
          for i in range(period)
      )
    return x, states, {k: jnp.sum(loss, axis=0) for k, loss in losses.items()}

  @nn.nowrap
  def _block(self, place, **options):
    """The layer at a place of the period."""
    kind = block_lib.Block
    if self.remat != 'none':
      policy = _POLICIES[self.remat]
      kind = nn.remat(kind, policy=policy, prevent_cse=not self.scan)

    def fresh(module):
      return module and module.clone(parent=None, name=None)

    return kind(
        mixer=fresh(self.mixers[place]),
        mlp=fresh(self.mlp),
        cross=fresh(self.cross),
        norm=self._norm(parent=None),
        norm_position=self.norm_position,
        adaptive=self.adaptive,
        shared_modulation=self.shared_modulation,
        dropout=self.dropout,
        **options,
    )

  @nn.nowrap
  def _norm(self, **options):
    return norms.Norm(self.norm, self.norm_epsilon, self.norm_bias, **options)

  @nn.nowrap
  def check_length(self, count: int | None) -> None:
    """Refuses sequences that are longer than learned positions reach.

    Args:
      count: of positions; None for no end.

    Raises:
      ValueError: if there are more than `max_positions` learned ones.
    """
    if self.positions != 'learned':
      return
    if count is None or count > self.max_positions:
      raise ValueError(
          f'{"no end" if count is None else f"{count} positions"}, but'
          f' max_positions = {self.max_positions} are learned'
      )

  @nn.nowrap
  def with_cache_length(
      self, cache_length: int, sink_tokens: int = 0
  ) -> 'Stack':
    """The same stack, whose attention without a window keeps `cache_length` positions.

    Args:
      cache_length: positions that steps keep.
      sink_tokens: the first positions, kept in sight beside them. See `attention.Attention`.
    """

    def resized(mixer):
      mixer = mixer.clone(parent=None, name=None)
      if isinstance(mixer, attention.Attention) and mixer.window is None:
        return mixer.clone(cache_length=cache_length, sink_tokens=sink_tokens)
      return mixer

    return self.clone(
        parent=None, name=None, mixers=tuple(map(resized, self.mixers))
    )

  @nn.nowrap
  def with_keys(
      self, params: Any, context: streaming_base.Context
  ) -> streaming_base.Context:
    """A context with each layer's keys and values of context['cross'].

    Steps that are given it do not compute them again. Of a scanned stack, or
    one without cross-attention, it is the context itself.

    Args:
      params: the stack's.
      context: see `cross`.
    """
    if self.cross is None or self.scan:
      return context
    cross = self.cross.clone(parent=None, name=None)
    values, mask = context['cross'], context['cross_mask']
    nothing = jnp.zeros((len(values), 0, self.width), self.dtype)
    keys = tuple(
        cross.apply(
            {'params': params[f'layer_{i}']['cross']},
            nothing,
            values,
            mask,
            project_only=True,
        )
        for i in range(self.layers)
    )
    return {**context, 'cross_keys': keys}

  @nn.nowrap
  def unroll(self, params: Any) -> tuple['Stack', Any]:
    """A scanned stack and its parameters as one that is not scanned.

    A step, bound by reading the weights, then takes half the time on CPUs.
    """
    period = len(self.mixers)
    rest = {k: v for k, v in params.items() if k != 'layers'}
    layers = {
        f'layer_{i}': jax.tree.map(
            lambda w, n=i // period: w[n],
            params['layers'][f'block_{i % period}'],
        )
        for i in range(self.layers)
    }
    return self.clone(parent=None, name=None, scan=False), {**rest, **layers}

  @nn.nowrap
  def cut(self, params: Any, layers: int) -> tuple['Stack', Any]:
    """The first layers alone, without the norm that follows the last.

    Args:
      params: the stack's.
      layers: how many, a multiple of the period of `mixers`.

    Raises:
      ValueError: for more layers than there are, or a part of a period.
    """
    period = len(self.mixers)
    if not 0 < layers <= self.layers or layers % period:
      raise ValueError(
          f'{layers} layers: the stack has {self.layers}, in periods of {period}'
      )
    stack = self.clone(parent=None, name=None, layers=layers, final_norm=False)
    params = {k: v for k, v in params.items() if k != 'norm'}
    if self.scan:
      first = jax.tree.map(lambda w: w[: layers // period], params['layers'])
      return stack, {**params, 'layers': first}
    dropped = {f'layer_{i}' for i in range(layers, self.layers)}
    return stack, {k: v for k, v in params.items() if k not in dropped}

  @nn.nowrap
  def roll(self, params: Any) -> tuple['Stack', Any]:
    """The inverse of `unroll`."""
    period = len(self.mixers)
    names = [f'layer_{i}' for i in range(self.layers)]
    rest = {k: v for k, v in params.items() if k not in names}
    layers = {
        f'block_{i}': jax.tree.map(
            lambda *w: jnp.stack(w), *(params[n] for n in names[i::period])
        )
        for i in range(period)
    }
    stack = self.clone(parent=None, name=None, scan=True)
    return stack, {**rest, 'layers': layers}


def _total(losses):
  """The sum of dicts of losses."""
  return jax.tree.map(lambda *each: sum(each), *losses)
