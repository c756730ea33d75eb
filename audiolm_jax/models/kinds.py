"""The modules that a model may be of, and what each is with its variables.

A model goes by the kind of its module: of a tokenizer or a decoder, as configs
name it. To add one: a class in this folder, and a line in KINDS.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array
import numpy as np

from audiolm_jax import decoders
from audiolm_jax import tokenizers
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import flow_lm
from audiolm_jax.models import latent_lm
from audiolm_jax.models import masked_lm
from audiolm_jax.models import recogniser as recogniser_lib
from audiolm_jax.models import sample_lm
from audiolm_jax.models import segment_lm
from audiolm_jax.models import token_lm
from audiolm_jax.models import toy

Variables = dict[str, Any]  # {'params': ..., 'state': ...}


@dataclasses.dataclass(frozen=True)
class Kind:
  """What is to be known of the modules of one class.

  Attributes:
    module: the class.
    init: (module, key) -> fresh variables; params may be boxed with axis names.
    bind: (module, variables, rate) -> the model for people.
  """

  module: type
  init: Callable[[Any, Array], Variables]
  bind: Callable[[Any, Variables, float | None], Any]


@dataclasses.dataclass(frozen=True)
class Description:
  """A model but for its variables.

  Attributes:
    module: a tokenizer, a decoder or a recogniser.
    rate: frames a second of a decoder's tokens, or its samples a second; None
      for any other, which says it itself.
  """

  module: Any
  rate: float | None = None

  @property
  def kind(self) -> str:
    """The name in KINDS of the module's class, or of the nearest above it.

    Raises:
      ValueError: if KINDS has none of them.
    """
    # An experiment's own class is what the one that it derives from is.
    for cls in type(self.module).__mro__:
      for name, kind in KINDS.items():
        if kind.module is cls:
          return name
    raise ValueError(
        f'{type(self.module).__name__} is none of the modules of models/kinds.py:'
        f' expected one of {sorted(KINDS)}. Add a line for it there.'
    )

  def init(self, rng: Array) -> Variables:
    """Fresh variables; params may be boxed with logical axis names."""
    return KINDS[self.kind].init(self.module, rng)

  def bind(self, variables: Variables) -> Any:
    """The model with its variables: what `audiolm_jax.load` returns."""
    variables = nn.meta.unbox(variables)
    return KINDS[self.kind].bind(self.module, variables, self.rate)


def _init_decoder(decoder, rng):
  batch = decoder.example_batch(1, dict.fromkeys(decoder.streams, 1))
  variables = decoder.init(rng, *decoder.read(batch), method='score')
  return {'params': variables['params'], 'state': {}}


def _init_denoiser(decoder, rng):
  latents, num_frames, conditions = decoder.read(decoder.example_batch(1, 1))
  variables = decoder.init(
      rng,
      latents,
      np.ones(1, np.float32),
      num_frames,
      conditions=conditions,
      method='predict',
  )
  return {'params': variables['params'], 'state': {}}


def _init_latents(decoder, rng):
  batch = decoder.example_batch(1, 1)
  latents, num_frames, conditions = decoder.read(batch)
  variables = decoder.init(
      rng,
      latents,
      num_frames,
      batch['ends'],
      jax.random.split(rng, 1),
      conditions=conditions,
      method='losses',
  )
  return {'params': variables['params'], 'state': {}}


def _lm(kind, model) -> Kind:
  return Kind(
      decoders.LM_KINDS[kind],
      _init_decoder,
      lambda decoder, variables, rate: model(
          decoder, variables['params'], rate
      ),
  )


KINDS: dict[str, Kind] = {
    'masked': _lm('masked', masked_lm.MaskedLM),
    'tokens': _lm('tokens', token_lm.TokenLM),
    'stages': _lm('stages', token_lm.StageLM),
    'segments': _lm('segments', segment_lm.SegmentLM),
    'wavenet': _lm('wavenet', sample_lm.SampleLM),
    'flow': Kind(
        decoders.DENOISERS['flow'],
        _init_denoiser,
        lambda decoder, variables, rate: flow_lm.FlowLM(
            decoder, variables['params'], rate
        ),
    ),
    'latents': Kind(
        decoders.LATENT_KINDS['latents'],
        _init_latents,
        lambda decoder, variables, rate: latent_lm.LatentLM(
            decoder, variables['params'], rate
        ),
    ),
    'recogniser': Kind(
        recogniser_lib.Recogniser,
        recogniser_lib.Recogniser.fresh,
        lambda module, v, _: recogniser_lib.PhoneRecogniser(
            module, v['params']
        ),
    ),
    'toy': Kind(
        toy.Mlp, toy.Mlp.fresh, lambda mlp, v, _: toy.Predictor(mlp, v)
    ),
    **{
        kind: Kind(
            cls,
            cls.init,
            lambda codec, v, _: audio_tokenizer.AudioTokenizer(codec, v),
        )
        for kind, cls in tokenizers.TOKENIZERS.items()
    },
}
