"""Pocket-TTS as transformers has it, without its audio tokenizer."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax import ops
from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import latent_decoder
from audiolm_jax.decoders import latent_heads
from audiolm_jax.decoders import time_embedding
from audiolm_jax.decoders.latent_heads import network as network_lib
from audiolm_jax.interop import adaln
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import stacks
from audiolm_jax.processes import times as times_lib

_ACTIVATIONS = {
    'gelu_pytorch_tanh': 'gelu_tanh',
    'gelu': 'gelu',
    'relu': 'relu',
    'silu': 'silu',
}
# What only its training has, and what is a function of the config.
_TRAINING = 'loss_weighting.', 'latent_stats_num_updates'
_HEAD_DEFAULTS = {
    'hidden_size': 512,
    'num_hidden_layers': 6,
    'latent_dim': 32,
    'condition_dim': 1024,
    'frequency_embedding_size': 256,
    'layer_norm_eps': 1e-6,
    'rms_norm_eps': 1e-5,
    'max_period': 10_000.0,
}


class Before(nn.Module):
  """What stands before a row's first frame: a voice, and a text.

  Attributes:
    vocabulary: ids of texts, and of marks.
    width: of the backbone.
    voice_mark: the id before a voice.
    dtype: of what it gives.
  """

  vocabulary: int
  width: int
  voice_mark: int
  dtype: str = 'float32'

  @nn.compact
  def __call__(
      self,
      ids: Int[Array, 'B S'],
      lengths: Int[Array, 'B'],
      voice: Float[Array, 'B V L'],
      voice_lengths: Int[Array, 'B'],
  ) -> dict[str, Array]:
    """A context of the decoder.

    Args:
      ids: of texts, anything past their lengths.
      lengths: of the texts.
      voice: latents as the tokenizer gives them, anything past their lengths.
      voice_lengths: 0 for no voice.
    """
    dtype, init = jnp.dtype(self.dtype), nn.initializers.normal(0.02)
    shape = self.vocabulary, self.width
    table = ops.weight(self, 'table', init, shape, ('vocab', 'embed'))
    text = ops.take(table, jnp.clip(ids, 0, self.vocabulary - 1), dtype)
    axes = None, 'embed'
    x = ops.linear(self, 'voice', voice.astype(dtype), self.width, axes)
    mark = ops.take(table, jnp.full((len(ids), 1), self.voice_mark), dtype)
    x = jnp.concatenate([mark, x], axis=1)
    count = jnp.where(voice_lengths > 0, 1 + voice_lengths, 0)
    return {
        'prefix': conditioners.join(x, count, text),
        'prefix_lengths': count + lengths,
    }


@dataclasses.dataclass(frozen=True)
class PocketTts:
  """A decoder of latents, and what makes contexts of voices and texts; static.

  variables = {params (the decoder's), before, latents {mean, std}}. The decoder
  sees latents less their mean, over their deviation: its field `moments` is None
  here, since it would be of the weights.

  Attributes:
    decoder: of the tokenizer's latents.
    before: makes the decoder's contexts.
    frame_rate: frames a second.
    marks: ids of a frame of a voice, of a frame, of the mark before a voice and
      of the one after a text, which are in no text.
    padding: the id that texts are filled up with there.
  """

  decoder: latent_decoder.LatentDecoder
  before: Before
  frame_rate: float
  marks: tuple[int, int, int, int]
  padding: int

  def init(self, rng: Array) -> dict[str, Any]:
    """Random variables."""
    keys, one = jax.random.split(rng, 3), jnp.ones(1, jnp.int32)
    latents = jnp.zeros((1, 1, self.decoder.dimension))
    rows = latents, one, one > 0, keys[:1]
    params = self.decoder.init(keys[1], *rows, method='losses')
    before = self.before.init(keys[2], one[None], one, latents, one)
    numbers = jnp.ones(self.decoder.dimension)
    return {
        'params': params['params'],
        'before': before['params'],
        'latents': {'mean': 0 * numbers, 'std': numbers},
    }

  def context(
      self,
      variables: Any,
      ids: Int[Array, 'B S'],
      lengths: Int[Array, 'B'],
      voice: Float[Array, 'B V L'],
      voice_lengths: Int[Array, 'B'],
  ) -> dict[str, Array]:
    """What the decoder takes as its context; see `Before`.

    Args:
      variables: as `init` gives them.
      ids: of texts, without marks.
      lengths: of the texts.
      voice: latents as the tokenizer gives them.
      voice_lengths: 0 for no voice.
    """
    inputs = ids, lengths, voice, voice_lengths
    return self.before.apply({'params': variables['before']}, *inputs)


class PocketTtsFamily(interop_base.Family):
  """`PocketTTSForConditionalGeneration` with the head of jumps ('lsd').

  Their times are 1 - t and their velocities -u. What only training needs (the
  learned weights of its losses, running moments) is neither read nor written.
  """

  defaults = {
      'vocab_size': 4004,
      'hidden_size': 1024,
      'num_hidden_layers': 6,
      'num_attention_heads': 16,
      'num_key_value_heads': None,
      'head_dim': None,
      'intermediate_size': 4096,
      'hidden_act': 'gelu_pytorch_tanh',
      'layer_norm_eps': 1e-5,
      'attention_bias': False,
      'max_position_embeddings': 8192,
      'latent_dim': 32,
      'pad_token_id': 3,
      'audio_prompt_token_id': 4000,
      'audio_latent_token_id': 4001,
      'audio_prompt_bos_token_id': 4002,
      'audio_bos_token_id': 4003,
      'frame_rate': 12.5,
      'flow_loss_num_samples': 4,
      'lsd_diagonal_weight': 0.75,
      'lsd_time_logit_mean': 0.4,
      'lsd_time_logit_std': 1.0,
  }

  def recognises(self, config):
    return config.get('model_type') == 'pocket_tts'

  def make(self, config, options):
    width, dimension = config.size('hidden_size'), config.size('latent_dim')
    biased = config.flag('attention_bias')
    mixer = attention.Attention(
        **stacks.heads(config, width),
        positions=stacks.rope(config, 10_000.0),
        use_bias=biased,
        out_bias=biased,
    )
    backbone = stack_lib.Stack(
        width=width,
        layers=config.count('num_hidden_layers'),
        mixers=(mixer,),
        mlp=mlps.Dense(
            hidden=config.size('intermediate_size'),
            activation=config.choice('hidden_act', _ACTIVATIONS),
        ),
        norm='layer',
        norm_epsilon=config.number('layer_norm_eps', least=0.0),
        norm_bias=True,
        scan=False,
        dtype=options.dtype,
    )
    vocabulary = config.size('vocab_size')
    marks = tuple(
        config.whole(key, least=0, most=vocabulary - 1) for key in _MARKS
    )
    return PocketTts(
        decoder=latent_decoder.LatentDecoder(
            dimension=dimension,
            backbone=backbone,
            head=_head(config, width, dimension),
        ),
        before=Before(vocabulary, width, marks[2], options.dtype),
        frame_rate=config.number('frame_rate', above=0.0),
        marks=marks,
        padding=config.whole('pad_token_id', least=0),
    )

  def config_of(self, model):
    decoder = model.decoder
    backbone, head = decoder.backbone, decoder.head
    (mixer,), network = backbone.mixers, head.network
    names = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    config = {
        'model_type': 'pocket_tts',
        'architectures': ['PocketTTSForConditionalGeneration'],
        'vocab_size': model.before.vocabulary,
        'hidden_size': backbone.width,
        'num_hidden_layers': backbone.layers,
        'num_attention_heads': mixer.heads,
        'num_key_value_heads': mixer.kv_heads,
        'head_dim': mixer.head_width,
        'intermediate_size': backbone.mlp.hidden,
        'hidden_act': names.get(backbone.mlp.activation),
        'layer_norm_eps': backbone.norm_epsilon,
        'attention_bias': mixer.use_bias,
        'rope_parameters': stacks.rope_config(mixer.positions),
        'latent_dim': decoder.dimension,
        'pad_token_id': model.padding,
        **dict(zip(_MARKS, model.marks, strict=True)),
        'frame_rate': model.frame_rate,
        'flow_loss_num_samples': head.draws,
        'lsd_diagonal_weight': 1 - head.distillation,
        'lsd_time_logit_mean': -head.density.mean,
        'lsd_time_logit_std': head.density.std,
        'flow_head_config': {
            'hidden_size': network.width,
            'num_hidden_layers': network.layers,
            'latent_dim': decoder.dimension,
            'condition_dim': backbone.width,
            'frequency_embedding_size': 2 * network.time.frequencies,
            'hidden_act': 'silu',
            'layer_norm_eps': network.norm_epsilon,
            'rms_norm_eps': network.time.closing_epsilon,
            'max_period': network.time.span,
            'flow_type': 'lsd',
        },
    }
    options = interop_base.Options(dtype=backbone.dtype)
    if self.build(config, options) != model:
      raise interop_base.PretrainedError(
          f'pocket_tts has no such model: {decoder}'
      )
    return config

  def canonical(self, model, tensors):
    kept = {k: v for k, v in tensors.items() if not k.startswith(_TRAINING)}
    for name, expected in self.constants(model).items():
      if name not in kept:
        raise interop_base.PretrainedError(f'missing: {name}')
      found = np.asarray(kept[name])
      same = found.shape == expected.shape
      if not same or not np.allclose(found, expected, rtol=1e-5):
        raise interop_base.PretrainedError(
            f'{name} = {found}: expected {expected}, by'
            ' flow_head_config.max_period'
        )
    return kept

  def constants(self, model):
    time = model.decoder.head.network.time
    place = np.arange(time.frequencies) / time.frequencies
    waves = (time.span**-place).astype(np.float32)
    return {f'{_time(i)}.freqs': waves for i in range(2)}

  def entries(self, model):
    backbone = model.decoder.backbone
    (mixer,) = backbone.mixers
    entries = [
        _inputs(),
        interop_base.plain('before.table', 'model.embed_tokens.weight'),
        *stacks.projection(
            'before.voice', 'model.audio_prompt_proj', bias=False
        ),
        *stacks.projection('params.last', 'eos_head', bias=True),
        interop_base.plain('latents.mean', 'latent_mean'),
        interop_base.plain('latents.std', 'latent_std'),
        *_head_entries(model.decoder.head.network),
    ]
    for i in range(backbone.layers):
      ours, theirs = f'{stacks.BACKBONE}.layer_{i}', f'model.layers.{i}'
      entries += stacks.attention_names(
          mixer, f'{ours}.mixer', f'{theirs}.self_attn'
      )
      for here, there in (
          ('mixer_norm', 'input_layernorm'),
          ('mlp_norm', 'post_attention_layernorm'),
      ):
        entries += stacks.norm(f'{ours}.{here}', f'{theirs}.{there}', bias=True)
      for here, there in (('up', 'fc1'), ('down', 'fc2')):
        entries += stacks.projection(
            f'{ours}.mlp.{here}', f'{theirs}.mlp.{there}', bias=False
        )
    return entries + stacks.norm(
        f'{stacks.BACKBONE}.norm', 'model.norm', bias=True
    )


# In the order of `PocketTts.marks`.
_MARKS = (
    'audio_prompt_token_id',
    'audio_latent_token_id',
    'audio_prompt_bos_token_id',
    'audio_bos_token_id',
)


def _head(config, width, dimension):
  """The head of `flow_head_config`, beside a backbone of that width."""
  given = config.part('flow_head_config', _HEAD_DEFAULTS)
  given.require({'hidden_act': 'silu', 'flow_type': 'lsd'})
  for key, wanted in (('latent_dim', dimension), ('condition_dim', width)):
    if given.size(key) != wanted:
      raise given.error(key, f'{wanted}, as of the backbone')
  waves = given.size('frequency_embedding_size', least=2)
  if waves % 2:
    raise given.error('frequency_embedding_size', 'an even number')
  network = network_lib.AdalnMlp(
      width=given.size('hidden_size'),
      layers=given.count('num_hidden_layers'),
      time=time_embedding.TimeEmbedding(
          frequencies=waves // 2,
          scale=1.0,
          span=given.number('max_period', least=1.0),
          reverse=True,
          closing='deviation',
          closing_epsilon=given.number('rms_norm_eps', least=0.0),
      ),
      norm_epsilon=given.number('layer_norm_eps', least=0.0),
      norm_bias=True,
      last_scale=False,
  )
  diagonal = config.number('lsd_diagonal_weight', least=0.0, most=1.0)
  return latent_heads.FlowMap(
      network=network,
      density=times_lib.LogitNormal(
          mean=-config.number('lsd_time_logit_mean'),
          std=config.number('lsd_time_logit_std', least=1e-3),
      ),
      draws=config.whole('flow_loss_num_samples'),
      distillation=1 - diagonal,
  )


def _time(number):
  return f'flow_head.timestep_embeddings.{number}'


def _head_entries(network):
  ours, entries = 'params.head.network', []
  for here, there in (('noisy', 'input_proj'), ('condition', 'cond_proj')):
    entries += stacks.projection(
        f'{ours}.{here}', f'flow_head.{there}', bias=True
    )
  for i in range(2):
    for here, there in (('inner', 'fc1'), ('outer', 'fc2')):
      entries += stacks.projection(
          f'{ours}.time_{i}.{here}', f'{_time(i)}.{there}', bias=True
      )
    # Theirs is the mean of the two, ours their sum: both are exact.
    layout = interop_base.Layout(
        (f'{_time(i)}.norm.weight',),
        lambda w: (w / 2,),
        lambda scale: (scale * 2,),
    )
    path = f'{ours}.time_{i}.closing_scale'
    entries.append(interop_base.Entry((path,), (layout,)))
  for i in range(network.layers):
    block, theirs = f'{ours}.block_{i}', f'flow_head.layers.{i}'
    entries += stacks.norm(f'{block}_norm', f'{theirs}.norm', bias=True)
    entries += adaln.modulation(
        f'{block}_modulation', f'{theirs}.adaln_proj', 3, bias=True
    )
    for here, there in (('inner', 'fc1'), ('outer', 'fc2')):
      entries += stacks.projection(
          f'{block}_{here}', f'{theirs}.{there}', bias=True
      )
  last = 'flow_head.final_layer'
  entries += adaln.modulation(
      f'{ours}.last_modulation', f'{last}.adaln_proj', 2, bias=True
  )
  # Velocities of the other direction.
  for end, name in (('', 'weight'), ('_bias', 'bias')):
    layout = interop_base.Layout(
        (f'{last}.proj.{name}',), lambda w: (-w.T,), lambda w: (-w.T,)
    )
    entries.append(interop_base.Entry((f'{ours}.denoised{end}',), (layout,)))
  return entries


def _inputs():
  """Theirs has a latent before the first frame, ours what becomes of it."""

  def load(weight, first):
    return weight.T, weight @ first

  def save(latent, before):
    first = np.linalg.lstsq(latent.T.astype(np.float64), before)[0]
    apart = np.abs(first @ latent - before).max()
    if apart > 1e-5 * np.abs(before).max():
      raise interop_base.PretrainedError(
          'what is before the first frame is no frame here, as pocket_tts has it'
      )
    return latent.T, first.astype(np.float32)

  names = 'model.audio_latent_proj.weight', 'model.bos_latent'
  layout = interop_base.Layout(names, load, save)
  return interop_base.Entry(('params.latent', 'params.before'), (layout,))
