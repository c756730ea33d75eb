"""MusicGen as transformers has it (`facebook/musicgen-small`)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax import ops
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import ranges
from audiolm_jax.decoders import scores as scores_lib
from audiolm_jax.decoders import text_encoder
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import encodec
from audiolm_jax.interop import fields
from audiolm_jax.interop import stacks
from audiolm_jax.interop import t5
from audiolm_jax.patterns import interleaving
from audiolm_jax.streaming import base as streaming_base
from audiolm_jax.tokenizers import codec as codec_lib

_CODEC = encodec.Encodec()
_EPSILON = 1e-5  # Of torch.nn.LayerNorm.
_DECODER = 'decoder.model.decoder'
_TEXT = 'text_encoder'
_GIVEN = {'activation_function': 'gelu', 'cross_attention_hidden_size': None}
_DECODER_DEFAULTS = {
    'vocab_size': 2048,
    'num_codebooks': 4,
    'audio_channels': 1,
    'hidden_size': 1024,
    'num_hidden_layers': 24,
    'num_attention_heads': 16,
    'ffn_dim': 4096,
    'dropout': 0.1,
}


@dataclasses.dataclass(frozen=True)
class MusicGen:
  """A text encoder, a decoder of a codec's tokens, and the codec; static.

  variables = {params (the decoder's), text, projection (of the text's states to
  the decoder's width, empty where they have it), codec}. `generation` takes
  `decoder`, `variables['params']`, and as context and null_context what
  `context` and `null_context` give.

  Attributes:
    decoder: of frames of the codec's slots.
    text: the text encoder.
    codec: the codec.
  """

  decoder: decoder_lib.Decoder
  text: text_encoder.T5Encoder
  codec: codec_lib.Codec

  @property
  def width(self) -> int:
    """Of the decoder."""
    return self.decoder.backbone.width

  def init(self, rng: Array) -> dict[str, Any]:
    """Random variables."""
    keys = jax.random.split(rng, 4)
    one = jnp.ones((1, 1), jnp.int32)
    codes = jnp.zeros((1, 1, len(self.decoder.vocabularies)), jnp.int32)
    context = {
        'cross': jnp.zeros((1, 1, self.width)),
        'cross_mask': one.astype(bool),
    }
    params = self.decoder.init(keys[0], codes, one[0], context, method='score')
    projection = {}
    if self.text.width != self.width:
      init = jax.nn.initializers.lecun_normal()
      projection = {
          'kernel': init(keys[2], (self.text.width, self.width)),
          'bias': jnp.zeros(self.width),
      }
    return {
        'params': params['params'],
        'text': self.text.init(keys[1], one, one.astype(bool))['params'],
        'projection': projection,
        'codec': self.codec.init(keys[3]),
    }

  def encode_text(
      self, variables: Any, ids: Int[Array, 'B S'], num_frames: Int[Array, 'B']
  ) -> Float[Array, 'B S E']:
    """States of texts, unspecified past their lengths."""
    ranges.check_frames(
        ids[..., None], num_frames, (self.text.vocabulary,), 'text'
    )
    mask = streaming_base.length_mask(num_frames, ids.shape[1])
    return self.text.apply({'params': variables['text']}, ids, mask)

  def context(
      self,
      variables: Any,
      states: Float[Array, 'B S E'],
      num_frames: Int[Array, 'B'],
  ) -> dict[str, Array]:
    """What the decoder attends to, from states of texts."""
    if variables['projection']:
      kernel, bias = (variables['projection'][n] for n in ('kernel', 'bias'))
      states = ops.einsum('bse,ed->bsd', states, kernel)
      states += ops.materialize(bias, states.dtype)
    mask = streaming_base.length_mask(num_frames, states.shape[1])
    return {'cross': states, 'cross_mask': mask}

  def null_context(self, context: dict[str, Array]) -> dict[str, Array]:
    """What stands for no text, of the same shape."""
    return jax.tree.map(jnp.zeros_like, context)

  def score(
      self,
      variables: Any,
      codes: Int[Array, 'B F K'],
      num_frames: Int[Array, 'B'],
      context: dict[str, Array],
  ) -> scores_lib.Scores:
    """Log-probabilities of frames; see `decoders.Decoder.score`."""
    return self.decoder.apply(
        {'params': variables['params']},
        codes,
        num_frames,
        context,
        method='score',
    )

  def logits(
      self,
      variables: Any,
      codes: Int[Array, 'B F K'],
      num_frames: Int[Array, 'B'],
      context: dict[str, Array],
  ) -> Float[Array, 'B F K V']:
    """Of each code, given those before it: `decoders.Decoder.code_logits`."""
    return self.decoder.apply(
        {'params': variables['params']},
        codes,
        num_frames,
        context,
        method='code_logits',
    )['frames']


class Musicgen(interop_base.Family):
  """`MusicgenForConditionalGeneration`, its T5 and its EnCodec with it.

  The config's `scale_embedding` does nothing there, so it does nothing here.
  """

  def recognises(self, config):
    return config.get('model_type') == 'musicgen'

  def make(self, config, options):
    given = config.part('decoder', _DECODER_DEFAULTS)
    given.require(_GIVEN)
    return MusicGen(
        decoder=_decoder(given, options.dtype),
        text=t5.make(
            config.part('text_encoder', t5.DEFAULTS, t5.ALIASES), options
        ),
        codec=_CODEC.make(
            config.part('audio_encoder', _CODEC.defaults, _CODEC.aliases),
            options,
        ),
    )

  def config_of(self, model):
    backbone = model.decoder.backbone
    vocabularies = model.decoder.vocabularies
    delays = model.decoder.pattern.delays
    config = {
        'model_type': 'musicgen',
        'architectures': ['MusicgenForConditionalGeneration'],
        'dtype': backbone.dtype,
        'text_encoder': t5.config_of(model.text),
        'audio_encoder': _CODEC.config_of(model.codec),
        'decoder': {
            **_GIVEN,
            'model_type': 'musicgen_decoder',
            'architectures': ['MusicgenForCausalLM'],
            'vocab_size': vocabularies[0],
            'num_codebooks': len(vocabularies),
            'audio_channels': len(delays) // len(set(delays)),
            'hidden_size': backbone.width,
            'num_hidden_layers': backbone.layers,
            'num_attention_heads': backbone.mixers[0].heads,
            'ffn_dim': backbone.mlp.hidden,
            'dropout': backbone.dropout,
            'pad_token_id': vocabularies[0],
            'bos_token_id': vocabularies[0],
        },
    }
    again = self.build(config, interop_base.Options(dtype=backbone.dtype))
    if dataclasses.replace(again, codec=model.codec) != model:
      raise interop_base.PretrainedError(f'musicgen has no such model: {model}')
    return config

  def canonical(self, model, tensors):
    renamed = {
        name: value
        for name, value in tensors.items()
        if not name.endswith('embed_positions.weights')
    }
    t5.tie(renamed, _TEXT)
    return renamed

  def entries(self, model):
    entries = _decoder_entries(model.decoder) + t5.entries(
        model.text, 'text', _TEXT
    )
    if model.text.width != model.width:
      entries += interop_base.linear('projection', 'enc_to_dec_proj')
    codec = _CODEC.entries(model.codec)
    return entries + interop_base.prefixed(codec, 'codec', 'audio_encoder')

  def constants(self, model):
    return {
        f'audio_encoder.{name}': value
        for name, value in _CODEC.constants(model.codec).items()
    }


def _decoder(config: fields.Fields, dtype: str) -> decoder_lib.Decoder:
  width, heads = (
      config.size(k) for k in ('hidden_size', 'num_attention_heads')
  )
  if width % heads:
    raise config.error('num_attention_heads', f'a divisor of {width}')
  slots = config.count('num_codebooks')
  channels = config.whole('audio_channels', most=2)
  if slots % channels:
    raise config.error('num_codebooks', f'as many for each of {channels}')
  backbone = stack_lib.Stack(
      width=width,
      layers=config.count('num_hidden_layers'),
      mixers=(attention.Attention(heads=heads, positions=None),),
      mlp=mlps.Dense(hidden=config.size('ffn_dim'), activation='gelu'),
      norm='layer',
      norm_epsilon=_EPSILON,
      norm_bias=True,
      positions='sinusoidal',
      cross=attention.Cross(heads=heads),
      dropout=config.number('dropout', least=0.0, most=1.0),
      scan=False,
      dtype=dtype,
  )
  return decoder_lib.Decoder(
      vocabularies=(config.size('vocab_size'),) * slots,
      # The channels of a codebook stand beside each other.
      pattern=interleaving.Delay(tuple(k // channels for k in range(slots))),
      backbone=backbone,
  )


def _decoder_entries(decoder):
  slots = range(len(decoder.vocabularies))

  def join(*tables):
    # The last row of each stands for no code.
    codes = [w[:-1] for w in tables]
    return (np.concatenate(codes + [w[-1:] for w in tables]),)

  def split(table):
    codes = np.split(table[: -len(slots)], len(slots))
    fill = table[-len(slots) :, None]
    return tuple(np.concatenate(w) for w in zip(codes, fill, strict=True))

  names = tuple(f'{_DECODER}.embed_tokens.{k}.weight' for k in slots)
  heads = tuple(f'decoder.lm_heads.{k}.weight' for k in slots)
  entries = [
      interop_base.Entry(
          (stacks.TABLE,), (interop_base.Layout(names, join, split),)
      ),
      interop_base.Entry(
          ('params.head.kernel',),
          (
              interop_base.Layout(
                  heads,
                  lambda *w: (np.stack(w).swapaxes(1, 2),),
                  lambda w: tuple(w.swapaxes(1, 2)),
              ),
          ),
      ),
  ]
  for i in range(decoder.backbone.layers):
    ours, theirs = f'{stacks.BACKBONE}.layer_{i}', f'{_DECODER}.layers.{i}'
    for here, there in (('mixer', 'self_attn'), ('cross', 'encoder_attn')):
      for name, place in (
          ('query', 'q_proj'),
          ('key', 'k_proj'),
          ('value', 'v_proj'),
          ('out', 'out_proj'),
      ):
        entries += stacks.projection(
            f'{ours}.{here}.{name}', f'{theirs}.{there}.{place}', bias=False
        )
    for here, there in (('up', 'fc1'), ('down', 'fc2')):
      entries += stacks.projection(
          f'{ours}.mlp.{here}', f'{theirs}.{there}', bias=False
      )
    for here, there in (
        ('mixer', 'self_attn'),
        ('cross', 'encoder_attn'),
        ('mlp', 'final'),
    ):
      entries += stacks.norm(
          f'{ours}.{here}_norm', f'{theirs}.{there}_layer_norm', bias=True
      )
  return entries + stacks.norm(
      f'{stacks.BACKBONE}.norm', f'{_DECODER}.layer_norm', bias=True
  )
