"""A model stays the one it was when its classes get new options."""

import pytest

from audiolm_jax import decoders
from audiolm_jax import tokenizers
from audiolm_jax.models import fingerprints
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers import parts

# The modules with the frame rate and with the beginning of the digest that they
# had in November 2026.
MODULES = {
    'flow': (decoders.Flow(dimension=4), 75.0, '1d6c1c726f6f18bb'),
    'masked': (decoders.Masked(vocabularies=(8, 8)), 75.0, '34665afeeb4422c4'),
    'decoder': (
        decoders.Decoder(vocabularies=(8, 8)),
        75.0,
        '236b0f77f643d0d9',
    ),
    'codec': (
        tokenizers.TOKENIZERS['codec'](
            encoder=parts.ENCODERS['seanet'](),
            bottleneck=bottlenecks.BOTTLENECKS['rvq'](),
            decoder=parts.DECODERS['seanet'](),
        ),
        None,
        '72a1e6251662b953',
    ),
}


@pytest.mark.parametrize('name', MODULES)
def test_a_new_option_at_its_default_changes_no_fingerprint(name):
  module, rate, digest = MODULES[name]
  now = fingerprints.Fingerprint(module, rate).hexdigest()
  assert now.startswith(digest), (
      'models that were exported would not be known any more: mark the field'
      ' that came to a class with config.Added()'
  )
