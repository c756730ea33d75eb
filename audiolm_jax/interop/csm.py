"""CSM as transformers has it (`sesame/csm-1b`): speech after a text."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import mlps
from audiolm_jax.decoders import segmented
from audiolm_jax.decoders import stack
from audiolm_jax.decoders.heads import depth
from audiolm_jax.decoders.mixers import attention
from audiolm_jax.interop import base
from audiolm_jax.interop import llama
from audiolm_jax.interop import mimi
from audiolm_jax.interop import stacks
from audiolm_jax.patterns import sequence
from audiolm_jax.tokenizers import codec as codec_lib

_CODEC = mimi.Mimi()
_TEXT = 'embed_text_tokens.weight'
_CODES = 'backbone_model.embed_tokens.embed_audio_tokens.weight'
_DEPTH = 'depth_decoder.model'
_PROJECTOR = f'{_DEPTH}.inputs_embeds_projector.weight'
_GIVEN = {
    'hidden_act': 'silu',
    'attention_bias': False,
    'mlp_bias': False,
}


@dataclasses.dataclass(frozen=True)
class Csm:
  """Text, then frames of a codec whose later codebooks a depth decoder gives.

  variables = {params (the decoder's), codec}. A text stands without the id that
  all begin with: that is the decoder's first input.

  Attributes:
    decoder: of segments 'text' and 'audio'.
    codec: Mimi.
    positions: of the longest sequence.
    begin: the id that texts begin with.
  """

  decoder: segmented.Segmented
  codec: codec_lib.Codec
  positions: int
  begin: int

  def init(self, rng: Array) -> dict[str, Any]:
    """Random variables."""
    keys = jax.random.split(rng)
    slots = len(self.decoder.vocabularies) - 1
    codes = {
        'text': jnp.zeros((1, 1, 1), jnp.int32),
        'audio': jnp.zeros((1, 1, slots), jnp.int32),
    }
    lengths = dict.fromkeys(codes, jnp.ones(1, jnp.int32))
    found = self.decoder.init(keys[0], codes, lengths, method='score')
    return {'params': found['params'], 'codec': self.codec.init(keys[1])}

  def score(
      self,
      variables: Any,
      text: Int[Array, 'B S'],
      text_lengths: Int[Array, 'B'],
      codes: Int[Array, 'B F K'],
      lengths: Int[Array, 'B'],
  ) -> decoder_lib.Scores:
    """Log-probabilities of the frames of each row, given its text."""
    inputs = text, text_lengths, codes, lengths
    return self._apply('score', variables, *inputs).segments['audio']

  def logits(
      self,
      variables: Any,
      text: Int[Array, 'B S'],
      text_lengths: Int[Array, 'B'],
      codes: Int[Array, 'B F K'],
      lengths: Int[Array, 'B'],
  ) -> Float[Array, 'B F K V']:
    """Of each code, given those before it: `decoders.Decoder.code_logits`."""
    inputs = text, text_lengths, codes, lengths
    return self._apply('code_logits', variables, *inputs)['audio']

  def _apply(self, method, variables, text, text_lengths, codes, lengths):
    """A method of the decoder, on a text and the frames after it."""
    return self.decoder.apply(
        {'params': variables['params']},
        {'text': text[..., None], 'audio': codes},
        {'text': text_lengths, 'audio': lengths},
        method=method,
    )


class CsmFamily(base.Family):
  """`CsmForConditionalGeneration`, its Mimi with it.

  Its codes have one table of embeddings, for the backbone and, projected, for
  the depth decoder. Here the depth decoder's are stored as projected.
  """

  def recognises(self, config):
    return config.get('model_type') == 'csm'

  def build(self, config, options):
    given = config['depth_decoder_config']
    for part in (config, given):
      stacks.require(part, _GIVEN)
    stacks.require(config, {'tie_codebooks_embeddings': True})
    codebooks, size = config['num_codebooks'], config['vocab_size']
    decoder = segmented.Segmented(
        vocabularies=(config['text_vocab_size'],) + (size,) * codebooks,
        sequence=sequence.Sequence(
            (
                sequence.Segment('text', (0,), role='observe'),
                sequence.Segment('audio', tuple(range(1, codebooks + 1))),
            )
        ),
        backbone=_stack(config, options.dtype),
        head=depth.Depth(
            backbone=_stack(given, options.dtype),
            condition='first',
            first='backbone',
        ),
    )
    return Csm(
        decoder=decoder,
        codec=_CODEC.build(config['codec_config'], options),
        positions=config['max_position_embeddings'],
        begin=config['bos_token_id'],
    )

  def config_of(self, model):
    decoder, inner = model.decoder, model.decoder.head.backbone
    text, *codebooks = decoder.vocabularies
    sizes = {'num_codebooks': len(codebooks), 'vocab_size': codebooks[0]}
    config = {
        **_GIVEN,
        **sizes,
        **_stack_config(decoder.backbone),
        'model_type': 'csm',
        'architectures': ['CsmForConditionalGeneration'],
        'dtype': decoder.backbone.dtype,
        'text_vocab_size': text,
        'max_position_embeddings': model.positions,
        'bos_token_id': model.begin,
        'tie_codebooks_embeddings': True,
        'depth_decoder_config': {
            **_GIVEN,
            **sizes,
            **_stack_config(inner),
            'model_type': 'csm_depth_decoder_model',
            'backbone_hidden_size': decoder.backbone.width,
            'max_position_embeddings': len(codebooks) + 1,
        },
        'codec_config': _CODEC.config_of(model.codec),
    }
    options = base.Options(dtype=decoder.backbone.dtype)
    if self.build(config, options).decoder != decoder:
      raise base.PretrainedError(f'csm has no such model: {decoder}')
    return config

  def canonical(self, model, tensors):
    found = {
        name: value
        for name, value in tensors.items()
        if not name.endswith('audio_tokens_offsets')
    }
    # The same table under two names.
    again = found.pop(f'{_DEPTH}.embed_tokens.weight', None)
    if again is not None:
      same = found.setdefault(_CODES, again)
      if not np.array_equal(same, again):
        raise base.PretrainedError(
            'the depth decoder has embeddings of its own'
        )
    return found

  def entries(self, model):
    decoder = model.decoder
    heads = (
        base.plain('params.head.first_1', 'lm_head.weight', (1, 0)),
        base.plain('params.head.kernel', 'depth_decoder.codebooks_head.weight'),
    )
    return [
        _tables(model),
        *heads,
        # Nothing predicts text, and nothing tells segments apart.
        base.Entry(('params.head.first_0',)),
        base.Entry(('params.segment',)),
        *_layers(decoder.backbone, stacks.BACKBONE, 'backbone_model'),
        *_layers(decoder.head.backbone, 'params.head.backbone', _DEPTH),
        *base.prefixed(_CODEC.entries(model.codec), 'codec', 'codec_model'),
    ]

  def constants(self, model):
    return {
        f'codec_model.{name}': value
        for name, value in _CODEC.constants(model.codec).items()
    }


def _stack(config: Mapping[str, Any], dtype: str) -> stack.Stack:
  heads, width = config['num_attention_heads'], config['hidden_size']
  mixer = attention.Attention(
      heads=heads,
      kv_heads=config.get('num_key_value_heads') or heads,
      head_width=config.get('head_dim') or width // heads,
      positions=stacks.rope(config, 500_000.0),
  )
  return stack.Stack(
      width=width,
      layers=config['num_hidden_layers'],
      mixers=(mixer,),
      mlp=mlps.Dense(config['intermediate_size'], 'swiglu'),
      norm='rms',
      norm_epsilon=config['rms_norm_eps'],
      scan=False,
      dtype=dtype,
  )


def _stack_config(backbone):
  mixer = backbone.mixers[0]
  return {
      'hidden_size': backbone.width,
      'intermediate_size': backbone.mlp.hidden,
      'num_hidden_layers': backbone.layers,
      'num_attention_heads': mixer.heads,
      'num_key_value_heads': mixer.kv_heads,
      'head_dim': mixer.head_width,
      'rms_norm_eps': backbone.norm_epsilon,
      'rope_parameters': stacks.rope_config(mixer.positions),
  }


def _layers(backbone, ours, theirs):
  found = stacks.norm(f'{ours}.norm', f'{theirs}.norm')
  for i in range(backbone.layers):
    here, there = f'{ours}.layer_{i}', f'{theirs}.layers.{i}'
    found += stacks.attention(
        backbone.mixers[0], f'{here}.mixer', f'{there}.self_attn'
    )
    for name in ('gate', 'up', 'down'):
      found += stacks.projection(
          f'{here}.mlp.{name}', f'{there}.mlp.{name}_proj', bias=False
      )
    found += llama.norms(here, there)
  return found


def _tables(model):
  """Embeddings of text and codes, and the depth decoder's of codes."""
  text = model.decoder.vocabularies[0]
  # A place that holds nothing adds nothing, but before the first step stands
  # the id that texts begin with.
  fill = len(model.decoder.vocabularies)

  def load(words, codes, projector):
    begin = words[model.begin : model.begin + 1]
    none = np.zeros((fill - 1, codes.shape[1]), codes.dtype)
    outer = np.concatenate([words, codes, begin, none])
    projected = codes @ projector.T
    blank = np.zeros((text + fill, projector.shape[0]), codes.dtype)
    inner = np.concatenate([blank[:text], projected, blank[text:]])
    return outer, inner, projector.T

  def save(outer, inner, projector):
    words, codes = outer[:text], outer[text:-fill]
    found = inner[text:-fill]
    if not np.allclose(found, codes @ projector, rtol=1e-3, atol=1e-5):
      raise base.PretrainedError(
          'the depth head has embeddings of its own, which csm has not'
      )
    return words, codes, projector.T

  layout = base.Layout((_TEXT, _CODES, _PROJECTOR), load, save)
  paths = (stacks.TABLE, 'params.head.embedding.table', 'params.head.project')
  return base.Entry(paths, (layout,))
