"""stable-audio as diffusers has it (`stabilityai/stable-audio-open-1.0`)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.decoders import flow
from audiolm_jax.decoders import ranges
from audiolm_jax.decoders import text_encoder
from audiolm_jax.decoders import time_embedding
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import fields
from audiolm_jax.interop import oobleck
from audiolm_jax.interop import stable_audio_conditions
from audiolm_jax.interop import stacks
from audiolm_jax.interop import t5
from audiolm_jax.ops import rotary
from audiolm_jax.processes import gaussian
from audiolm_jax.streaming import base as streaming_base
from audiolm_jax.tokenizers import codec as codec_lib

_CODEC = oobleck.Oobleck()
_EPSILON = 1e-5  # Of torch.nn.LayerNorm.
# Ours -> theirs.
_NUMBERS = {
    'start': 'start_number_conditioner',
    'total': 'end_number_conditioner',
}
_TRANSFORMER = {
    '_class_name': 'StableAudioDiTModel',
    'sample_size': 1024,
    'in_channels': 64,
    'num_layers': 24,
    'attention_head_dim': 64,
    'num_attention_heads': 24,
    'num_key_value_attention_heads': 12,
    'out_channels': 64,
    'cross_attention_dim': 768,
    'time_proj_dim': 256,
    'global_states_input_dim': 1536,
    'cross_attention_input_dim': 768,
}
_PROJECTION = (
    '_class_name',
    'text_encoder_dim',
    'conditioning_dim',
    'min_value',
    'max_value',
)


@dataclasses.dataclass(frozen=True)
class StableAudio:
  """A text encoder, a decoder that denoises, and a codec; static.

  variables = {params (the decoder's), conditions, text, codec}.

  Attributes:
    decoder: of the codec's latents; it predicts v of the cosine process.
    conditions: what acts on it.
    text: the text encoder.
    codec: the codec.
    frames: of a row in its training.
    text_length: ids that texts are filled up to (stable-audio-tools' length of
      its published models; no config.json of the pipeline says it).
  """

  decoder: flow.Flow
  conditions: stable_audio_conditions.Conditions
  text: text_encoder.T5Encoder
  codec: codec_lib.Codec
  frames: int = 1024
  text_length: int = 128

  def init(self, rng: Array) -> dict[str, Any]:
    """Random variables."""
    keys = jax.random.split(rng, 4)
    ids, lengths = jnp.ones((1, 1), jnp.int32), jnp.ones(1, jnp.int32)
    states = jnp.zeros((1, 1, self.text.width))
    context, conditions = self.conditions.init_with_output(
        keys[1], states, lengths, jnp.zeros((1, 2))
    )
    z = jnp.zeros((1, 1, self.decoder.dimension))
    params = self.decoder.init(
        keys[0], z, jnp.ones(1), lengths, context=context, method='predict'
    )
    return {
        'params': params['params'],
        'conditions': conditions['params'],
        'text': self.text.init(keys[2], ids, ids.astype(bool))['params'],
        'codec': self.codec.init(keys[3]),
    }

  def context(
      self,
      variables: Any,
      ids: Int[Array, 'B S'],
      lengths: Int[Array, 'B'],
      seconds: Float[Array, 'B 2'],
  ) -> dict[str, Array]:
    """What the decoder takes as its context.

    Args:
      variables: as `init` gives them.
      ids: of texts, anything past their lengths; see `text_length`.
      lengths: 0 for no text.
      seconds: at which a clip starts, and how many its recording has.
    """
    ranges.check_frames(
        ids[..., None], lengths, (self.text.vocabulary,), 'text'
    )
    mask = streaming_base.length_mask(lengths, ids.shape[1])
    states = self.text.apply({'params': variables['text']}, ids, mask)
    inputs = states, lengths, seconds
    return self.conditions.apply({'params': variables['conditions']}, *inputs)

  def null_context(self, context: dict[str, Array]) -> dict[str, Array]:
    """The context of no text, with which diffusers guides: the token stays."""
    return {**context, 'cross': jnp.zeros_like(context['cross'])}


class StableAudioFamily(interop_base.Family):
  """`StableAudioPipeline`: transformer, projection_model, text_encoder, vae.

  Its scheduler and its tokenizer are not read.
  """

  def recognises(self, config):
    return config.get('_class_name') == 'StableAudioPipeline'

  def make(self, config, options):
    for name in ('transformer', 'projection_model', 'text_encoder', 'vae'):
      if name not in config:
        raise interop_base.PretrainedError(
            f'the pipeline has no {name}/{fields.CONFIG}'
        )
    given = config.part('transformer', _TRANSFORMER)
    given.refuse_unknown(_TRANSFORMER)
    text = t5.make(
        config.part('text_encoder', t5.DEFAULTS, t5.ALIASES), options
    )
    codec = _CODEC.make(config.part('vae', _CODEC.defaults), options)
    decoder = _decoder(given, options.dtype)
    if decoder.dimension != codec.spec.dimension:
      raise given.error('in_channels', f'{codec.spec.dimension}, as of the vae')
    frames = given.number('sample_size', least=1)
    if frames != int(frames):
      raise given.error('sample_size', 'a whole number')
    return StableAudio(
        decoder=decoder,
        conditions=_conditions(config, text.width, options.dtype),
        text=text,
        codec=codec,
        frames=int(frames),
    )

  def config_of(self, model):
    backbone, conditions = model.decoder.backbone, model.conditions
    (mixer,), cross = backbone.mixers, backbone.cross
    size = backbone.width // mixer.heads
    config = {
        '_class_name': 'StableAudioPipeline',
        'transformer': {
            '_class_name': _TRANSFORMER['_class_name'],
            'sample_size': model.frames,
            'in_channels': model.decoder.dimension,
            'out_channels': model.decoder.dimension,
            'num_layers': backbone.layers,
            'attention_head_dim': size,
            'num_attention_heads': mixer.heads,
            'num_key_value_attention_heads': cross.kv_heads,
            'cross_attention_dim': conditions.acting.cross,
            'time_proj_dim': 2 * model.decoder.time.frequencies,
            'global_states_input_dim': 2 * conditions.width,
            'cross_attention_input_dim': conditions.width,
        },
        'projection_model': {
            '_class_name': 'StableAudioProjectionModel',
            'text_encoder_dim': conditions.text_width,
            'conditioning_dim': conditions.width,
            'min_value': conditions.least,
            'max_value': conditions.most,
        },
        'text_encoder': t5.config_of(model.text),
        'vae': _CODEC.config_of(model.codec),
    }
    again = self.build(config, interop_base.Options(dtype=backbone.dtype))
    if dataclasses.replace(again, codec=model.codec) != model:
      raise interop_base.PretrainedError(
          f'stable_audio has no such model: {model}'
      )
    return config

  def canonical(self, model, tensors):
    renamed = dict(tensors)
    t5.tie(renamed, 'text_encoder')
    return renamed

  def entries(self, model):
    codec = _CODEC.entries(model.codec)
    return [
        *_decoder_entries(model.decoder),
        *_condition_entries(model.conditions),
        *t5.entries(model.text, 'text', 'text_encoder'),
        *interop_base.prefixed(codec, 'codec', 'vae'),
    ]

  def constants(self, model):
    return {f'vae.{k}': v for k, v in _CODEC.constants(model.codec).items()}


def _decoder(config: fields.Fields, dtype: str) -> flow.Flow:
  heads = config.size('num_attention_heads')
  size = config.size('attention_head_dim', least=4)
  if size % 4:
    raise config.error('attention_head_dim', 'a multiple of 4: half is rotated')
  kv_heads = config.size('num_key_value_attention_heads')
  if heads % kv_heads:
    raise config.error(
        'num_key_value_attention_heads', f'a divisor of {heads} heads'
    )
  channels = config.size('in_channels')
  if config.size('out_channels') != channels:
    raise config.error('out_channels', f'in_channels = {channels}')
  time = config.size('time_proj_dim', least=2)
  if time % 2:
    raise config.error('time_proj_dim', 'an even number')
  width = heads * size
  config.check_size('attention_head_dim', width * width)
  return flow.Flow(
      dimension=channels,
      process=gaussian.Cosine(),
      target='v',
      backbone=stack_lib.Stack(
          width=width,
          layers=config.count('num_layers'),
          mixers=(
              attention.Attention(
                  heads=heads,
                  mask_kind='bidirectional',
                  positions=rotary.Rope(fraction=0.5),
              ),
          ),
          mlp=mlps.Dense(hidden=4 * width, use_bias=True),
          norm='layer',
          norm_epsilon=_EPSILON,
          norm_bias=True,
          final_norm=False,
          cross=attention.Cross(heads=heads, kv_heads=kv_heads),
          scan=False,
          dtype=dtype,
      ),
      time=time_embedding.TimeEmbedding(
          frequencies=time // 2, spacing='gaussian'
      ),
      gaps=None,
      time_token=True,
      mixed_ends=True,
      use_bias=False,
  )


def _conditions(config, text_width, dtype):
  given = config.part('projection_model')
  given.refuse_unknown(_PROJECTION)
  transformer = config.part('transformer', _TRANSFORMER)
  width = given.size('conditioning_dim')
  for key, wanted in (
      ('cross_attention_input_dim', width),
      ('global_states_input_dim', 2 * width),
  ):
    if transformer.size(key) != wanted:
      raise transformer.error(key, f'{wanted}, by conditioning_dim = {width}')
  if given.size('text_encoder_dim') != text_width:
    raise given.error('text_encoder_dim', f'd_model = {text_width}')
  least = given.number('min_value')
  size = transformer.size('attention_head_dim')
  return stable_audio_conditions.Conditions(
      text_width=text_width,
      width=width,
      acting=stable_audio_conditions.Acting(
          cross=transformer.size('cross_attention_dim'),
          token=size * transformer.size('num_attention_heads'),
      ),
      least=least,
      most=given.number('max_value', above=least),
      dtype=dtype,
  )


def _decoder_entries(decoder):
  backbone = decoder.backbone
  entries = [
      interop_base.plain('params.time.turns', 'transformer.time_proj.weight')
  ]
  for ours, theirs in (
      ('noisy_mix', 'preprocess_conv'),
      ('denoised_mix', 'postprocess_conv'),
  ):
    # [out, in, 1].
    layout = interop_base.Layout(
        (f'transformer.{theirs}.weight',),
        lambda w: (w.squeeze(2).T,),
        lambda w: (w.T[..., None],),
    )
    entries.append(interop_base.Entry((f'params.{ours}',), (layout,)))
  for ours, theirs, bias in (
      ('noisy', 'proj_in', False),
      ('denoised', 'proj_out', False),
      ('time.inner', 'timestep_proj.0', True),
      ('time.outer', 'timestep_proj.2', True),
  ):
    entries += stacks.projection(
        f'params.{ours}', f'transformer.{theirs}', bias
    )
  for i in range(backbone.layers):
    ours = f'{stacks.BACKBONE}.layer_{i}'
    theirs = f'transformer.transformer_blocks.{i}'
    for here, there in (('mixer', 'attn1'), ('cross', 'attn2')):
      for name, place in (
          ('query', 'to_q'),
          ('key', 'to_k'),
          ('value', 'to_v'),
          ('out', 'to_out.0'),
      ):
        entries += stacks.projection(
            f'{ours}.{here}.{name}', f'{theirs}.{there}.{place}', bias=False
        )
    for here, there in (('mixer', 1), ('cross', 2), ('mlp', 3)):
      entries += stacks.norm(
          f'{ours}.{here}_norm', f'{theirs}.norm{there}', bias=True
      )
    entries += _gated_entries(f'{ours}.mlp', f'{theirs}.ff.net.0.proj')
    entries += stacks.projection(
        f'{ours}.mlp.down', f'{theirs}.ff.net.2', bias=True
    )
  return entries


def _gated_entries(ours, theirs):
  """Of a gated perceptron: theirs has the gate behind the values."""
  weight = interop_base.Layout(
      (f'{theirs}.weight',),
      lambda w: tuple(part.T for part in np.split(w, 2)),
      lambda up, gate: (np.concatenate([up.T, gate.T]),),
  )
  bias = interop_base.Layout(
      (f'{theirs}.bias',),
      lambda b: tuple(np.split(b, 2)),
      lambda up, gate: (np.concatenate([up, gate]),),
  )
  return [
      interop_base.Entry((f'{ours}.up', f'{ours}.gate'), (weight,)),
      interop_base.Entry((f'{ours}.up_bias', f'{ours}.gate_bias'), (bias,)),
  ]


def _condition_entries(conditions):
  entries = []
  for ours, theirs in (
      ('cross', 'cross_attention_proj'),
      ('token', 'global_proj'),
  ):
    for here, there in (('inner', '0'), ('outer', '2')):
      entries += stacks.projection(
          f'conditions.acting.{ours}_{here}',
          f'transformer.{theirs}.{there}',
          bias=False,
      )
  for ours, name in _NUMBERS.items():
    theirs = f'projection_model.{name}.time_positional_embedding'
    entries.append(
        interop_base.plain(f'conditions.{ours}.turns', f'{theirs}.0.weights')
    )
    entries += stacks.projection(
        f'conditions.{ours}.out', f'{theirs}.1', bias=True
    )
  if conditions.text_width != conditions.width:
    entries += stacks.projection(
        'conditions.text', 'projection_model.text_projection', bias=True
    )
  return entries
