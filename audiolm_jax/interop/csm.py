"""CSM as transformers has it (`sesame/csm-1b`): speech after a text."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.decoders import scores as scores_lib
from audiolm_jax.decoders import segmented
from audiolm_jax.decoders import starts
from audiolm_jax.decoders.heads import depth
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import fields
from audiolm_jax.interop import llama
from audiolm_jax.interop import mimi
from audiolm_jax.interop import stacks
from audiolm_jax.patterns import sequence as sequence_lib
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
_DEPTH_DEFAULTS = {
    'hidden_size': 1024,
    'intermediate_size': 8192,
    'num_hidden_layers': 4,
    'num_attention_heads': 8,
    'num_key_value_heads': 2,
    'head_dim': None,
    'max_position_embeddings': 33,
    'rms_norm_eps': 1e-5,
}


@dataclasses.dataclass(frozen=True)
class Csm:
  """Text, then frames of a codec whose later codebooks a depth decoder gives.

  variables = {params (the decoder's), codec}. A text is given whole, as
  transformers' processor makes it: its first id, the one that all begin with,
  is the decoder's first input.

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
    num_frames = dict.fromkeys(codes, jnp.ones(1, jnp.int32))
    variables = self.decoder.init(keys[0], codes, num_frames, method='score')
    return {'params': variables['params'], 'codec': self.codec.init(keys[1])}

  def score(
      self,
      variables: Any,
      text: Int[Array, 'B S'],
      text_lengths: Int[Array, 'B'],
      codes: Int[Array, 'B F K'],
      num_frames: Int[Array, 'B'],
  ) -> scores_lib.Scores:
    """Log-probabilities of the frames, 'audio', of each row given its text."""
    inputs = text, text_lengths, codes, num_frames
    return self._apply('score', variables, *inputs)

  def logits(
      self,
      variables: Any,
      text: Int[Array, 'B S'],
      text_lengths: Int[Array, 'B'],
      codes: Int[Array, 'B F K'],
      num_frames: Int[Array, 'B'],
  ) -> Float[Array, 'B F K V']:
    """Of each code, given those before it: `decoders.Decoder.code_logits`."""
    inputs = text, text_lengths, codes, num_frames
    return self._apply('code_logits', variables, *inputs)['audio']

  def _apply(self, method, variables, text, text_lengths, codes, num_frames):
    """A method of the decoder, on a text and the frames after it."""
    return self.decoder.apply(
        {'params': variables['params']},
        {'text': text[..., None], 'audio': codes},
        {'text': text_lengths, 'audio': num_frames},
        method=method,
    )


class CsmFamily(interop_base.Family):
  """`CsmForConditionalGeneration`, its Mimi with it.

  Its codes have one table of embeddings, for the backbone and, projected, for
  the depth decoder. Here the depth decoder's are stored as projected.
  """

  defaults = {
      'num_codebooks': 32,
      'vocab_size': 2051,
      'text_vocab_size': 128256,
      'hidden_size': 2048,
      'intermediate_size': 8192,
      'num_hidden_layers': 16,
      'num_attention_heads': 32,
      'num_key_value_heads': 8,
      'head_dim': None,
      'max_position_embeddings': 2048,
      'rms_norm_eps': 1e-5,
      'bos_token_id': 128000,
  }
  aliases = {'codebook_size': 'vocab_size'}

  def recognises(self, config):
    return config.get('model_type') == 'csm'

  def make(self, config, options):
    given = config.part('depth_decoder_config', _DEPTH_DEFAULTS)
    for part in (config, given):
      part.require(_GIVEN)
    config.require({'tie_codebooks_embeddings': True})
    codebooks = config.count('num_codebooks', least=2)
    size, text = config.size('vocab_size'), config.size('text_vocab_size')
    decoder = segmented.Segmented(
        vocabularies=(text,) + (size,) * codebooks,
        sequence=sequence_lib.Sequence(
            (
                sequence_lib.Segment('text', (0,), role='observe'),
                sequence_lib.Segment('audio', tuple(range(1, codebooks + 1))),
            )
        ),
        backbone=_stack(config, options.dtype),
        head=depth.Depth(
            backbone=_stack(given, options.dtype),
            condition='first',
            first='backbone',
        ),
        start=starts.Given(),
    )
    codec = config.part('codec_config', _CODEC.defaults, _CODEC.aliases)
    return Csm(
        decoder=decoder,
        codec=_CODEC.make(codec, options),
        positions=config.whole('max_position_embeddings'),
        begin=config.whole('bos_token_id', least=0, most=text - 1),
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
    options = interop_base.Options(dtype=decoder.backbone.dtype)
    again = self.build(config, options)
    if dataclasses.replace(again, codec=model.codec) != model:
      raise interop_base.PretrainedError(f'csm has no such model: {decoder}')
    return config

  def canonical(self, model, tensors):
    tensors_of_ours = {
        name: value
        for name, value in tensors.items()
        if not name.endswith('audio_tokens_offsets')
    }
    interop_base.tie(tensors_of_ours, _CODES, f'{_DEPTH}.embed_tokens.weight')
    return tensors_of_ours

  def entries(self, model):
    decoder = model.decoder
    heads = (
        interop_base.plain('params.head.first_1', 'lm_head.weight', (1, 0)),
        interop_base.plain(
            'params.head.kernel', 'depth_decoder.codebooks_head.weight'
        ),
    )
    return [
        _tables(model),
        *heads,
        # Nothing predicts text, and nothing tells segments apart.
        interop_base.Entry(('params.head.first_0',)),
        interop_base.Entry(('params.segment',)),
        *_layers(decoder.backbone, stacks.BACKBONE, 'backbone_model'),
        *_layers(decoder.head.backbone, 'params.head.backbone', _DEPTH),
        *interop_base.prefixed(
            _CODEC.entries(model.codec), 'codec', 'codec_model'
        ),
    ]

  def constants(self, model):
    return {
        f'codec_model.{name}': value
        for name, value in _CODEC.constants(model.codec).items()
    }


def _stack(config: fields.Fields, dtype: str) -> stack_lib.Stack:
  width = config.size('hidden_size')
  mixer = attention.Attention(
      **stacks.heads(config, width), positions=stacks.rope(config, 500_000.0)
  )
  return stack_lib.Stack(
      width=width,
      layers=config.count('num_hidden_layers'),
      mixers=(mixer,),
      mlp=mlps.Dense(config.size('intermediate_size'), 'swiglu'),
      norm='rms',
      norm_epsilon=config.number('rms_norm_eps', least=0.0),
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
  entries = stacks.norm(f'{ours}.norm', f'{theirs}.norm')
  for i in range(backbone.layers):
    here, there = f'{ours}.layer_{i}', f'{theirs}.layers.{i}'
    entries += stacks.attention_names(
        backbone.mixers[0], f'{here}.mixer', f'{there}.self_attn'
    )
    for name in ('gate', 'up', 'down'):
      entries += stacks.projection(
          f'{here}.mlp.{name}', f'{there}.mlp.{name}_proj', bias=False
      )
    entries += llama.norms(here, there)
  return entries


def _tables(model):
  """Embeddings of text and codes, and the depth decoder's of codes."""
  text = model.decoder.vocabularies[0]
  # A place that holds nothing adds nothing.
  fill = len(model.decoder.vocabularies)

  def load(words, codes, projector):
    if len(words) != text:
      raise ValueError(f'expected {text} texts')
    none = np.zeros((fill, codes.shape[1]), codes.dtype)
    outer = np.concatenate([words, codes, none])
    projected = codes @ projector.T
    blank = np.zeros((text + fill, projector.shape[0]), codes.dtype)
    inner = np.concatenate([blank[:text], projected, blank[text:]])
    return outer, inner, projector.T

  def save(outer, inner, projector):
    words, codes = outer[:text], outer[text:-fill]
    rows = inner[text:-fill]
    if not np.allclose(rows, codes @ projector, rtol=1e-3, atol=1e-5):
      raise interop_base.PretrainedError(
          'the depth head has embeddings of its own, which csm has not'
      )
    return words, codes, projector.T

  layout = interop_base.Layout((_TEXT, _CODES, _PROJECTOR), load, save)
  paths = (stacks.TABLE, 'params.head.embedding.table', 'params.head.project')
  return interop_base.Entry(paths, (layout,))
