"""Every module that can be trained has a kind, and becomes its model."""

import jax
import numpy as np
import pytest

from audiolm_jax import decoders
from audiolm_jax import tokenizers
from audiolm_jax.models import kinds
from audiolm_jax.models import toy


def test_every_tokenizer_and_decoder_has_a_kind():
  tables = tokenizers.TOKENIZERS | decoders.LM_KINDS | decoders.DENOISERS
  for name, module in tables.items():
    assert kinds.KINDS[name].module is module


def test_a_description_makes_variables_and_the_model():
  description = kinds.Description(toy.Mlp(features=3))
  assert description.kind == 'toy'
  variables = description.init(jax.random.key(0))
  model = description.bind(variables)
  assert isinstance(model.variables['params']['input'], jax.Array)
  assert model(np.zeros((2, 5, 3), np.float32)).shape == (2, 5)


def test_a_module_of_no_kind():
  with pytest.raises(ValueError, match='object is none of the modules'):
    _ = kinds.Description(object()).kind
