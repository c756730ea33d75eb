"""WaveNet: a causal dilated gated stack over samples (1609.03499).

Whole sequences are scored at once. Steps of one sample cost O(layers): each
convolution keeps a ring of its past (`streaming.ring`).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
import numpy as np

from audiolm_jax import config
from audiolm_jax import ops
from audiolm_jax import streaming
from audiolm_jax.decoders import scores as scores_lib
from audiolm_jax.decoders import waveform_heads
from audiolm_jax.ops import companding
from audiolm_jax.ops import sharding
from audiolm_jax.streaming import base as streaming_base
from audiolm_jax.streaming import ring

# Classes of the inputs; those of a head may be others.
_CLASSES = 256


class GatedStack(streaming_base.Steppable):
  """[B N width] -> [B N skip], by layers of dilated causal convolutions.

  Layer k, with * the convolution and the V terms where there is a context:

    z = tanh(W_f * x + V_f c) sigmoid(W_g * x + V_g c)       (eq. 2 and 3)
    x <- x + R z,  y <- y + S z,

  and the output is y / sqrt(layers). The last layer has no R.

  Attributes:
    width: channels of x and z.
    skip: channels of y.
    taps: of the convolutions.
    dilations: of the layers of a cycle.
    cycles: how often they are repeated.
    film: width of a global condition, context['film'] [B film]; 0 for none.
    local: width of features over time, context['local'] [B S local]; 0 for
      none. Feature s belongs to outputs s local_hop to (s + 1) local_hop - 1 of
      a row, counted from its start; the last one also to what comes after.
    local_hop: positions that a feature stands for.
    remat: whether the backward pass computes layers again, to save memory.
  """

  width: config.Positive = 64
  skip: config.Positive = 128
  taps: Annotated[int, config.Range(min=2)] = 2
  dilations: config.Sizes = tuple(2**i for i in range(10))
  cycles: config.Positive = 2
  film: config.Count = 0
  local: config.Count = 0
  local_hop: config.Positive = 1
  remat: bool = False

  @property
  def layers(self) -> list['_Layer']:
    """The layers, without parameters."""
    return [
        self._layer(i, parent=None)
        for i in range(len(self.dilations) * self.cycles)
    ]

  @nn.nowrap
  def _layer(self, index, **options):
    cls = nn.remat(_Layer) if self.remat else _Layer
    last = index == len(self.dilations) * self.cycles - 1
    return cls(
        width=self.width,
        skip=self.skip,
        taps=self.taps,
        dilation=self.dilations[index % len(self.dilations)],
        last=last,
        name=f'layer_{index}',
        **options,
    )

  @property
  def receptive_field(self) -> int:
    return 1 + (self.taps - 1) * sum(self.dilations) * self.cycles

  @nn.nowrap
  def output_spec(self, spec):
    return jax.ShapeDtypeStruct((self.skip,), spec.dtype)

  @nn.nowrap
  def initial_state(self, batch, spec):
    """The convolutions' states, and how many positions there have been."""
    return {
        'layers': tuple(
            layer.conv.initial_state(batch, spec) for layer in self.layers
        ),
        'position': jnp.zeros(batch, jnp.int32),
    }

  def process(self, x, mask, state, context):
    y, layers = self._run(
        x, mask, state['layers'], context, state['position'][:, None]
    )
    position = state['position'] + x.shape[1]
    return y, mask, {'layers': layers, 'position': position}

  def __call__(self, x, mask, context=None):
    x = streaming_base.zero_masked(x, mask)
    states = (None,) * len(self.dilations) * self.cycles
    return self._run(x, mask, states, context, 0)[0], mask

  @nn.compact
  def _run(self, x, mask, states, context, position):
    film = self._condition(context, 'film', 2)
    local = self._condition(context, 'local', 3)
    if local is not None:
      positions = position + jnp.arange(x.shape[1])
      index = jnp.broadcast_to(positions // self.local_hop, x.shape[:2])
      local = jnp.take_along_axis(local, index[..., None], axis=1, mode='clip')
    total, after = 0.0, []
    for index, state in enumerate(states):
      x, y, state = self._layer(index)(x, mask, state, film, local)
      total = total + y
      after.append(state)
    return total * len(states) ** -0.5, tuple(after)

  @nn.nowrap
  def _condition(self, context, name, ndim):
    """An entry of the context as it is declared, or None.

    Raises:
      ValueError: if it is missing, or has another width.
    """
    width = getattr(self, name)
    if not width:
      return None
    condition = (context or {}).get(name)
    if (
        condition is None
        or condition.ndim != ndim
        or condition.shape[-1] != width
    ):
      shape = None if condition is None else condition.shape
      raise ValueError(
          f'context[{name!r}] has shape {shape}: expected {ndim} axes, the last'
          f' of {width}'
      )
    return condition


class _Layer(nn.Module):
  """(x, its part of y, next state); a state of None is a whole sequence."""

  width: int
  skip: int
  taps: int
  dilation: int
  last: bool

  @property
  def conv(self) -> ring.RingConv:
    """The convolution of x to both halves of the gate, without parameters."""
    return ring.RingConv(2 * self.width, self.taps, self.dilation, parent=None)

  @nn.compact
  def __call__(self, x, mask, state, film, local):
    conv = self.conv.clone(parent=self, name='conv')
    if state is None:
      z, _ = conv(x, mask)
    else:
      z, _, state = conv.step(x, mask, state)
    if film is not None:
      z = (
          z
          + _linear(self, 'film', film.astype(x.dtype), 2 * self.width)[:, None]
      )
    if local is not None:
      z = z + _linear(self, 'local', local.astype(x.dtype), 2 * self.width)
    values, gates = jnp.split(z, 2, axis=-1)
    z = jnp.tanh(values) * nn.sigmoid(gates)
    rest = 0 if self.last else self.width
    y = _linear(self, 'mix', z, rest + self.skip, use_bias=True)
    return x + y[..., :rest] if rest else x, y[..., rest:], state


class WaveNet(nn.Module):
  """An autoregressive model of samples on a grid of 2^bits levels.

  Its input at sample n is sample n - 1 (nothing at the first).

  Attributes:
    bits: of the grid.
    channels: of a sample; they are independent given the past.
    inputs: how a sample comes in: as its amplitude and mu-law companded
      amplitude, or by an embedding of its mu-law class of 256, as in the paper.
    stack: what sees the past.
    head: probabilities of a sample.
    dtype: of the activations; probabilities are float32.
  """

  bits: Annotated[int, config.Range(min=2, max=16)] = 16
  channels: config.Positive = 1
  inputs: Literal['amplitude', 'classes'] = 'amplitude'
  stack: GatedStack = GatedStack()
  head: Annotated[Any, config.Kind(lambda: waveform_heads.HEADS)] = (
      waveform_heads.MuLaw()
  )
  dtype: str = 'float32'

  def setup(self):
    self.embedding = _Embedding(
        self.bits, self.inputs, self.stack.width, self.dtype
    )
    self.outputs = _Outputs()

  @property
  def tag(self) -> str:
    """What `score` gives."""
    return 'exact'

  @property
  def streams(self) -> dict[str, scores_lib.Stream]:
    """The samples, whose channels are reported together."""
    channels = tuple(range(self.channels))
    return {
        'samples': scores_lib.Stream(
            'num_samples', 'bits_per_sample', channels, by_slot=False
        )
    }

  @nn.nowrap
  def example_batch(
      self, batch_size: int, lengths: Mapping[str, int]
  ) -> dict[str, np.ndarray]:
    """A batch of zeros, of rows of `lengths['samples']` samples.

    The stack's local condition is `teacher` [B, S, E], as `data.AudioCrops`
    gives features; its global one is `film` [B, E].
    """
    stack, samples = self.stack, lengths['samples']
    shapes = {'audio': (samples, self.channels)}
    if stack.local:
      shapes['teacher'] = (-(-samples // stack.local_hop), stack.local)
    if stack.film:
      shapes['film'] = (stack.film,)
    batch = {k: np.zeros((batch_size, *v), 'f4') for k, v in shapes.items()}
    return batch | {'num_samples': np.zeros(batch_size, np.int32)}

  @nn.nowrap
  def read(self, batch: Mapping[str, Array]) -> tuple[Any, ...]:
    """What `score` takes of a batch, in the order of its arguments."""
    names = {'teacher': 'local', 'film': 'film'}
    context = {new: batch[old] for old, new in names.items() if old in batch}
    samples = waveform_heads.to_grid(batch['audio'], self.bits)
    return samples, batch['num_samples'], context

  def score(
      self,
      samples: Int[Array, 'B T C'],
      num_samples: Int[Array, 'B'],
      context: streaming_base.Context = None,
  ) -> scores_lib.Scores:
    """Log-probability of each row's first `num_samples` samples.

    Args:
      samples: levels of the grid; past a row's length they change nothing.
      num_samples: samples of each row.
      context: what `stack` is conditioned on.
    """
    mask = streaming.length_mask(num_samples, samples.shape[1])
    samples = jnp.where(mask[..., None], samples, 0)
    x = streaming.pad_time(self.embedding(samples[:, :-1]), 1, 0)
    y, _ = self.stack(x[:, : samples.shape[1]], mask, context)
    log_prob = self.log_prob(self.outputs(y), samples)
    scored = jnp.broadcast_to(mask[..., None], samples.shape)
    log_prob = jnp.where(scored, log_prob, 0)
    return scores_lib.Scores(
        {'samples': scores_lib.StreamScores(log_prob, scored)}
    )

  def initial_state(self, batch: int) -> streaming_base.State:
    """The state before the first sample."""
    spec = jax.ShapeDtypeStruct((self.stack.width,), jnp.dtype(self.dtype))
    return self.stack.initial_state(batch, spec)

  def extend(
      self,
      state: streaming_base.State,
      samples: Int[Array, 'B n C'],
      exists: Bool[Array, 'B n'],
      context: streaming_base.Context = None,
  ) -> tuple[Float[Array, 'B n D'], streaming_base.State]:
    """Takes in the next n inputs; what predicts the sample after each.

    Args:
      state: of `initial_state`, or of the call before.
      samples: levels of the grid.
      exists: False for the first input of a row, before its first sample.
      context: the same at each call.
    """
    x = self.embedding(samples)
    # Not masked: an input of nothing counts as a position.
    x = jnp.where(exists[..., None], x, 0)
    y, _, state = self.stack.step(x, jnp.ones_like(exists), state, context)
    return self.outputs(y), state

  def log_prob(
      self, h: Float[Array, '*b D'], samples: Int[Array, '*b C']
  ) -> Float[Array, '*b C']:
    """Log-probabilities of samples given what `extend` returned."""
    return self.head.log_prob(h, samples, self.bits)

  def sample(
      self,
      h: Float[Array, 'B D'],
      keys: Key[Array, 'B'],
      temperature: Float[Array, ''] | float = 1.0,
  ) -> Int[Array, 'B C']:
    """Samples given what `extend` returned; see `waveform_heads`."""
    return self.head.sample(h, keys, temperature, self.channels, self.bits)


class _Embedding(nn.Module):
  """Samples [B N C] to inputs [B N D] of the stack."""

  bits: int
  inputs: str
  width: int
  dtype: str

  @nn.compact
  def __call__(self, samples):
    dtype, channels = jnp.dtype(self.dtype), samples.shape[-1]
    if self.inputs == 'classes':
      shape = (channels * _CLASSES, self.width)
      table = ops.weight(
          self, 'table', nn.initializers.normal(1.0), shape, ('vocab', 'embed')
      )
      classes = jnp.asarray(waveform_heads.mu_law_classes(self.bits, _CLASSES))
      ids = classes[samples + 2 ** (self.bits - 1)]
      ids = ids + jnp.arange(channels) * _CLASSES
      x = ops.take(table, ids, dtype).sum(axis=2)
      return sharding.constrain(x, ('batch',))
    x = waveform_heads.from_grid(samples, self.bits)
    companded = companding.compress(x, _CLASSES - 1)
    x = jnp.concatenate([x, companded], axis=-1).astype(dtype)
    return _linear(self, 'linear', x, self.width, use_bias=True)


class _Outputs(nn.Module):
  """The sum of the skips to what the head takes: relu, 1 x 1, relu."""

  @nn.compact
  def __call__(self, y):
    y = nn.relu(y)
    return nn.relu(_linear(self, 'linear', y, y.shape[-1], use_bias=True))


def _linear(module, name, x, features, use_bias=False):
  """A linear map of x [B, ...], each device's of its own rows."""
  axes = ('channels_in', 'channels_out')
  y = ops.linear(module, f'{name}_kernel', x, features, axes, use_bias)
  return sharding.constrain(y, ('batch',))
