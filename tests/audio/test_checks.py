"""What samples, rates and numbers of channels may be."""

import jax.numpy as jnp
import numpy as np
import pytest

from audiolm_jax.audio import checks


@pytest.mark.parametrize('value', [0, -5, 1, 999, 1_000_001, 16e3, True, None])
def test_rates_out_of_range(value):
  with pytest.raises(ValueError, match=f'{value} Hz.*1000 to 1000000'):
    checks.rate(value)


def test_rates_in_range():
  for value in (1000, 44100, np.int32(16000), 1_000_000):
    assert checks.rate(value) == value


@pytest.mark.parametrize('value', [0, -1, 1025, 1.0, '2'])
def test_channels_out_of_range(value):
  with pytest.raises(ValueError, match=f'{value} channels'):
    checks.channels(value)
  assert checks.channels(6) == 6


@pytest.mark.parametrize(
    'audio, reason',
    [
        (np.zeros(4, np.int16), 'int16 samples.*to_float'),
        (np.zeros((2, 3), np.int64), 'int64 samples'),
        ([1, 2], 'int64 samples'),
        (np.zeros(4, bool), 'bool samples'),
        (np.zeros(4, np.complex64), 'complex64 samples'),
        (np.array(['x']), 'samples; expected floats'),
        ([[0.0, np.nan], [np.inf, 0]], r'2 of 4.*not finite, .*\(0, 1\)'),
        ([0.0, 17], r'17 at \(1,\)'),
        ([0.0, -3e4], r'-30000 at \(1,\)'),
    ],
)
def test_samples_that_are_refused(audio, reason):
  with pytest.raises(ValueError, match=reason):
    checks.samples(audio, loudest=checks.LOUDEST)


def test_samples_that_are_taken():
  for kind in (np.float16, np.float32, jnp.bfloat16):
    found = checks.samples(jnp.asarray([[0.5, -1.5]]).astype(kind))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[0.5, -1.5]])
  assert checks.samples([3e4]) == 3e4
  assert checks.samples(np.zeros((0, 2))).shape == (0, 2)


def test_integers_in_a_float_file_are_a_fault():
  loud = np.sin(np.arange(16000.0))[:, None] * 32767
  assert 'too loud: a peak of 3276' in checks.fault(loud, 16000)
