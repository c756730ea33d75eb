"""Every layer keeps the contract, and the contract test catches faults."""

from fractions import Fraction

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax import streaming
from audiolm_jax.ops import stft
from audiolm_jax.streaming import base as streaming_base
from audiolm_jax.streaming import testing

_FRAMES = jax.ShapeDtypeStruct((3,), jnp.float32)
_AUDIO = jax.ShapeDtypeStruct((1,), jnp.float32)
_BINS = jax.ShapeDtypeStruct((5,), jnp.complex64)

LAYERS = {
    'conv': (streaming.Conv(4, 3), _FRAMES),
    'strided': (streaming.Conv(4, 4, stride=2), _FRAMES),
    'dilated': (streaming.Conv(2, 3, dilation=2), _FRAMES),
    'depthwise': (streaming.Conv(3, 3, dilation=2, groups=3), _FRAMES),
    'transpose': (streaming.ConvTranspose(2, 4, 2), _FRAMES),
    'transpose_uneven': (streaming.ConvTranspose(2, 5, 2), _FRAMES),
    'upsample': (streaming.ConvTranspose(2, 3, 3), _FRAMES),
    'replicate': (streaming.Conv(2, 4, stride=2, padding='replicate'), _FRAMES),
    'residual_blocks': (
        streaming.Residual(
            streaming.Serial(
                (streaming.FrameStack(2), streaming.ConvTranspose(3, 2, 2))
            ),
            shortcut=streaming.Conv(3, 5),
        ),
        _FRAMES,
    ),
    'normed': (streaming.Conv(2, 3, weight_norm=True), _FRAMES),
    'transpose_depthwise': (
        streaming.ConvTranspose(3, 4, 2, depthwise=True, use_bias=False),
        _FRAMES,
    ),
    'transpose_normed': (
        streaming.ConvTranspose(2, 4, 2, weight_norm=True),
        _FRAMES,
    ),
    'norm': (streaming.FrameNorm(), _FRAMES),
    'rms_norm': (streaming.RmsNorm(), _FRAMES),
    'scale': (streaming.Scale(0.1), _FRAMES),
    'affine': (streaming.Affine(), _FRAMES),
    'snake': (streaming.Snake(separate=True, log_scale=True), _FRAMES),
    'lstm': (streaming.Lstm(layers=1), _FRAMES),
    'repeat_up': (streaming.Upsample(2), _FRAMES),
    'linear_even': (streaming.Upsample(2, 'linear'), _FRAMES),
    'linear_odd': (streaming.Upsample(3, 'linear'), _FRAMES),
    'average': (streaming.AveragePool(3), _FRAMES),
    'resample_up': (streaming.Resample(3, 2, half_width=2), _FRAMES),
    'resample_down': (streaming.Resample(4, 6, half_width=2), _FRAMES),
    'parallel': (
        streaming.Parallel((streaming.Conv(3, 3), streaming.Dense(3))),
        _FRAMES,
    ),
    'side_by_side': (
        streaming.Parallel(
            (
                streaming.Conv(2, 4, stride=2),
                streaming.Serial(
                    (streaming.AveragePool(2), streaming.Conv(1, 2))
                ),
            ),
            'concat',
        ),
        _FRAMES,
    ),
    'repeat': (
        streaming.Repeat(
            streaming.Residual(streaming.Conv(3, 3, dilation=2)),
            2,
            remat='full',
        ),
        _FRAMES,
    ),
    'stft': (streaming.CausalStft(8, 2), _AUDIO),
    'istft': (streaming.CausalIstft(8, 2, 6), _BINS),
    'istft_quick': (streaming.CausalIstft(8, 2, 3), _BINS),
    'serial': (
        streaming.Serial(
            (
                streaming.Conv(4, 3, stride=2),
                streaming.Residual(
                    streaming.Serial(
                        (
                            streaming.Conv(4, 3, groups=4),
                            streaming.Map(nn.relu),
                            streaming.Dense(4),
                        )
                    )
                ),
                streaming.FrameStack(2),
                streaming.ConvTranspose(10, 4, 4),
                streaming.Map(
                    lambda x: jax.lax.complex(x[..., :5], x[..., 5:])
                ),
                streaming.CausalIstft(8, 2, 4),
            )
        ),
        _FRAMES,
    ),
}


@pytest.mark.parametrize('name', LAYERS)
def test_layer_keeps_the_contract(name):
  layer, spec = LAYERS[name]
  testing.assert_streaming_contract(layer, spec)


WHOLE_ONLY = {
    'lookahead': (streaming.Conv(4, 4, stride=2, lookahead=1), _FRAMES),
    'reflect': (streaming.Conv(2, 5, lookahead=2, padding='reflect'), _FRAMES),
    'replicate': (
        streaming.Conv(2, 4, lookahead=2, padding='replicate'),
        _FRAMES,
    ),
    'bidirectional_lstm': (streaming.Lstm(1, bidirectional=True), _FRAMES),
    'repeat': (
        streaming.Repeat(streaming.Conv(3, 3, lookahead=1), 3),
        _FRAMES,
    ),
    'parallel': (
        streaming.Parallel(
            (streaming.Conv(3, 3, lookahead=1), streaming.Conv(3, 3))
        ),
        _FRAMES,
    ),
    'group_norm': (streaming.TimeGroupNorm(3), _FRAMES),
}


@pytest.mark.parametrize('name', WHOLE_ONLY)
def test_layer_that_needs_the_whole_keeps_its_contract(name):
  layer, spec = WHOLE_ONLY[name]
  assert not layer.steppable
  testing.assert_layer_contract(layer, spec)


class _Late(streaming_base.Steppable):
  """Steps lag by one, as declared or not; the whole does not."""

  declared: int = 0

  @property
  def output_latency(self):
    return self.declared

  @nn.nowrap
  def initial_state(self, batch, spec):
    return (
        jnp.zeros((batch, 1, *spec.shape), spec.dtype),
        jnp.zeros((batch, 1), bool),
    )

  def process(self, x, mask, state, context):
    x = jnp.concatenate([state[0], x], axis=1)
    mask = jnp.concatenate([state[1], mask], axis=1)
    return x[:, :-1], mask[:, :-1], (x[:, -1:], mask[:, -1:])

  def __call__(self, x, mask, context=None):
    return streaming_base.zero_masked(x, mask), mask


class _Delay(_Late):
  """The same with the right field: the delayed input, and then the flush."""

  @property
  def receptive_field(self):
    return 2


class _Leak(streaming_base.Steppable):
  """The whole sees the next position."""

  @nn.compact
  def process(self, x, mask, state, context):
    return x + jnp.roll(x, -1, axis=1), mask, state


class _TimesZero(streaming.Conv):
  """Masks by multiplication, past the select."""

  def step(self, x, mask, state, context=None):
    return self.process(x * mask[..., None], mask, state, context)


class _TimesZeroWhole(streaming.Conv):
  """The same over a whole sequence."""

  def __call__(self, x, mask, context=None):
    return super().__call__(x * mask[..., None], jnp.ones_like(mask))[0], mask


class _LostGradient(streaming.Conv):
  """The overlap is right in value, and cut from the gradient."""

  def process(self, x, mask, state, context):
    y, mask, state = super().process(x, mask, state, context)
    return y, mask, jax.lax.stop_gradient(state)


class _StaleReset(streaming.Conv):
  """The reset forgets the buffer."""

  @nn.nowrap
  def reset(self, state, rows, spec):
    return state


class _Wide(streaming.Conv):
  """Declares a smaller receptive field than it has."""

  @property
  def receptive_field(self):
    return self.width - 1

  @nn.nowrap
  def initial_state(self, batch, spec):
    return jnp.zeros((batch, self.width - 1, *spec.shape), spec.dtype)


class _Grows(streaming.Conv):
  """Keeps everything it has seen."""

  def process(self, x, mask, state, context):
    y, mask, _ = super().process(x, mask, state, context)
    return y, mask, jnp.concatenate([state, x], axis=1)


class _Peeks(streaming.Conv):
  """Sees one more input than it says."""

  @nn.nowrap
  def reach(self, start, stop):
    first, last = super().reach(start, stop)
    return first, last - 1


class _Mixes(streaming_base.Layer):
  """What stands in one row's padding moves its valid outputs."""

  @nn.nowrap
  def reach(self, start, stop):
    return None

  def __call__(self, x, mask, context=None):
    x = streaming_base.zero_masked(x, mask)
    return x - x.mean(axis=1, keepdims=True), mask


FAULTS = {
    'lags undeclared': (_Late(0), 'differs from the whole'),
    'lags without need': (
        streaming.Serial((_Late(1), streaming.Map(lambda x: x))),
        'declared latency 1, measured 0',
    ),
    'latency off by one': (_Late(2), 'differs from the whole'),
    'future': (_Leak(), 'differs from the whole'),
    'zero times nan': (_TimesZero(2, 3), 'NaN'),
    'gradient': (_LostGradient(2, 3), 'gradient'),
    'reset': (_StaleReset(2, 3), 'reset'),
    'field': (_Wide(2, 3), 'receptive field'),
    'reach': (_Peeks(2, 3), 'outside the declared reach'),
    'state': (_Grows(2, 3), 'cannot be scanned'),
    'whole only': (streaming.Conv(2, 3, lookahead=1), 'cannot step'),
}
LAYER_FAULTS = {
    'reach': (_Peeks(2, 3, lookahead=1), 'outside the declared reach'),
    'padding': (_Mixes(), 'differs in a padded batch'),
    'zero times nan': (_TimesZeroWhole(2, 3, lookahead=1), 'NaN'),
}


@pytest.mark.parametrize('name', FAULTS)
def test_contract_catches_planted_fault(name):
  layer, message = FAULTS[name]
  with pytest.raises(AssertionError, match=message):
    testing.assert_streaming_contract(layer, _FRAMES)


@pytest.mark.parametrize('name', LAYER_FAULTS)
def test_layer_contract_catches_planted_fault(name):
  layer, message = LAYER_FAULTS[name]
  with pytest.raises(AssertionError, match=message):
    testing.assert_layer_contract(layer, _FRAMES)


def test_a_delay_on_purpose_is_no_fault():
  testing.assert_streaming_contract(_Delay(1), _FRAMES, exact_latency=False)


def test_istft_inverts_stft_at_full_latency():
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, 40, 1)).astype(np.float32)
  pair = streaming.Serial(
      (streaming.CausalStft(8, 2), streaming.CausalIstft(8, 2, 6))
  )
  mask = np.arange(40) < np.array([[40], [31]])
  y, y_mask = jax.jit(pair.apply)({}, x, mask)
  assert pair.output_latency == 6
  assert pair.output_ratio == Fraction(1)
  # Samples at an end that only the edge of one window reaches are attenuated.
  inside = np.array(y_mask) & (np.arange(40) < np.array([[38], [30]]))
  np.testing.assert_allclose(y[inside], x[inside], atol=1e-5)


def test_conv_is_that_of_numpy():
  rng = np.random.default_rng(0)
  x = rng.standard_normal((1, 12, 1)).astype(np.float32)
  kernel = rng.standard_normal(4).astype(np.float32)
  layer = streaming.Conv(1, 4, use_bias=False)
  y, _ = layer.apply(
      {'params': {'kernel': kernel[:, None, None]}},
      x,
      np.ones((1, 12), bool),
  )
  expected = np.convolve(x[0, :, 0], kernel[::-1])[:12]
  np.testing.assert_allclose(y[0, :, 0], expected, rtol=1e-5, atol=1e-6)


def test_serial_refuses_a_lag_that_splits_blocks():
  layer = streaming.Serial(
      (streaming.CausalIstft(8, 2, 3), streaming.Conv(1, 2, stride=2))
  )
  with pytest.raises(ValueError, match='lags by 3'):
    _ = layer.output_latency


def test_window_shifts_add_to_a_constant():
  window = stft.hann(16, periodic=False)
  assert window.min() > 0
  total = np.square(window).reshape(4, 4).sum(0)
  np.testing.assert_allclose(total, 1.5, rtol=1e-6)


@pytest.mark.parametrize('lookahead', [0, 2])
def test_no_positions_give_none(lookahead):
  layer = streaming.Conv(2, 4, lookahead=lookahead, padding='replicate')
  x, mask = jnp.zeros((3, 0, 1)), jnp.zeros((3, 0), bool)
  (y, y_mask), _ = layer.init_with_output(jax.random.key(0), x, mask)
  assert y.shape == (3, 0, 2) and y_mask.shape == (3, 0)
