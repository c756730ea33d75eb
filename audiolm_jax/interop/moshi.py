"""Moshi as transformers has it (`kmhf/hf-moshika`): two speakers and a text."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import scores as scores_lib
from audiolm_jax.decoders.heads import depth
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import llama
from audiolm_jax.interop import mimi
from audiolm_jax.interop import stacks
from audiolm_jax.patterns import interleaving
from audiolm_jax.tokenizers import codec as codec_lib

_CODEC = mimi.Mimi()
_DECODER = 'decoder.model'
_DEPTH = 'depth_decoder'
_GIVEN = {'hidden_act': 'silu'}
_DEPTH_DEFAULTS = {
    'hidden_size': 1024,
    'num_hidden_layers': 6,
    'num_attention_heads': 16,
    'num_key_value_heads': None,
    'head_dim': None,
    'ffn_dim': 5632,
    'rms_norm_eps': 1e-8,
}


@dataclasses.dataclass(frozen=True)
class Moshi:
  """Slots: Moshi's text, its own codebooks, and the user's, which are given.

  variables = {params (the decoder's), codec}. `generation` takes `decoder` and
  `variables['params']`.

  Attributes:
    decoder: of frames of those slots, in their delays.
    codec: Mimi; its first codebooks are used.
  """

  decoder: decoder_lib.Decoder
  codec: codec_lib.Codec

  def init(self, rng: Array) -> dict[str, Any]:
    """Random variables."""
    keys = jax.random.split(rng)
    slots = len(self.decoder.vocabularies)
    codes = jnp.zeros((1, 2, slots), jnp.int32)
    variables = self.decoder.init(
        keys[0], codes, jnp.full(1, 2), method='score'
    )
    return {'params': variables['params'], 'codec': self.codec.init(keys[1])}

  def score(
      self,
      variables: Any,
      codes: Int[Array, 'B F K'],
      num_frames: Int[Array, 'B'],
  ) -> scores_lib.Scores:
    """Log-probabilities of all but the user's slots."""
    return self.decoder.apply(
        {'params': variables['params']}, codes, num_frames, method='score'
    )

  def logits(
      self,
      variables: Any,
      codes: Int[Array, 'B F K'],
      num_frames: Int[Array, 'B'],
  ) -> Float[Array, 'B F K V']:
    """Of each code, given those before it: `decoders.Decoder.code_logits`."""
    return self.decoder.apply(
        {'params': variables['params']}, codes, num_frames, method='code_logits'
    )['frames']


class MoshiFamily(interop_base.Family):
  """`MoshiForConditionalGeneration`, its Mimi with it.

  Norms of the depth decoder are one for all places there and each place's own
  here: files hold them where they are still the same. transformers 5.24 sees
  past `sliding_window` where a sequence is longer; here it is a window.
  """

  defaults = {
      'vocab_size': 32000,
      'audio_vocab_size': None,
      'num_codebooks': 8,
      'hidden_size': 4096,
      'num_hidden_layers': 32,
      'num_attention_heads': 32,
      'num_key_value_heads': None,
      'head_dim': None,
      'ffn_dim': 22528,
      'max_position_embeddings': 3000,
      'sliding_window': 3000,
      'rms_norm_eps': 1e-8,
  }

  def recognises(self, config):
    return config.get('model_type') == 'moshi'

  def make(self, config, options):
    given = config.part('depth_decoder_config', _DEPTH_DEFAULTS)
    for part in (config, given):
      part.require(_GIVEN)
    codec = _CODEC.make(
        config.part('audio_encoder_config', _CODEC.defaults, _CODEC.aliases),
        options,
    )
    codebooks = config.count('num_codebooks', least=2)
    size = config.size('audio_vocab_size', null=True)
    outer = {
        'window': config.whole('sliding_window'),
        'positions': stacks.rope(config, 10_000.0),
    }
    decoder = decoder_lib.Decoder(
        vocabularies=(config.size('vocab_size'),)
        + (size or codec.bottleneck.vocabulary,) * (2 * codebooks),
        # Text and semantic codes first, acoustic ones a frame later.
        pattern=interleaving.Delay((0, *(0, *(1,) * (codebooks - 1)) * 2)),
        backbone=_stack(config, outer, options.dtype, final_norm=True),
        head=depth.Depth(
            backbone=_stack(
                given, {'positions': None}, options.dtype, final_norm=False
            ),
            per_place=True,
            condition='every',
            first='backbone',
            predicted=1 + codebooks,
        ),
    )
    return Moshi(decoder, codec)

  def config_of(self, model):
    decoder, inner = model.decoder, model.decoder.head.backbone
    text, size, *_ = decoder.vocabularies
    outer = decoder.backbone
    mixer = outer.mixers[0]
    sizes = {
        'vocab_size': text,
        'audio_vocab_size': size,
        'num_codebooks': (len(decoder.vocabularies) - 1) // 2,
    }
    config = {
        **_GIVEN,
        **sizes,
        **_stack_config(outer),
        'model_type': 'moshi',
        'architectures': ['MoshiForConditionalGeneration'],
        'dtype': outer.dtype,
        'sliding_window': mixer.window,
        'max_position_embeddings': mixer.window,
        'rope_parameters': stacks.rope_config(mixer.positions),
        'depth_decoder_config': {
            **_GIVEN,
            **sizes,
            **_stack_config(inner),
            'model_type': 'moshi_depth',
            'input_size': outer.width,
            'max_position_embeddings': sizes['num_codebooks'] + 1,
            'sliding_window': sizes['num_codebooks'],
        },
        'audio_encoder_config': _CODEC.config_of(model.codec),
    }
    options = interop_base.Options(dtype=outer.dtype)
    again = self.build(config, options)
    if dataclasses.replace(again, codec=model.codec) != model:
      raise interop_base.PretrainedError(f'moshi has no such model: {decoder}')
    return config

  def canonical(self, model, tensors):
    ignored = '.rotary_emb.inv_freq'
    return {k: v for k, v in tensors.items() if not k.endswith(ignored)}

  def entries(self, model):
    decoder = model.decoder
    head, codebooks = decoder.head, decoder.head.predicted - 1
    entries = [
        _table(decoder.vocabularies),
        _depth_table(decoder.vocabularies, codebooks),
        interop_base.Entry(
            ('params.head.first',),
            (
                interop_base.Layout(
                    ('decoder.lm_head.weight',),
                    lambda w: (w.T[None],),
                    lambda w: (w[0].T,),
                ),
            ),
        ),
        interop_base.plain(
            'params.head.project',
            f'{_DEPTH}.input_projections.weight',
            (0, 2, 1),
        ),
        interop_base.plain(
            'params.head.kernel', f'{_DEPTH}.lm_heads.weight', (0, 2, 1)
        ),
        *stacks.norm(f'{stacks.BACKBONE}.norm', f'{_DECODER}.norm'),
    ]
    for i in range(decoder.backbone.layers):
      ours, theirs = f'{stacks.BACKBONE}.layer_{i}', f'{_DECODER}.layers.{i}'
      entries += _matrices([ours], theirs, _alone, _only)
      entries += llama.norms(ours, theirs)
    places = [f'params.head.place_{1 + p}' for p in range(codebooks)]
    for i in range(head.backbone.layers):
      ours = [f'{place}.layer_{i}' for place in places]
      theirs = f'{_DEPTH}.layers.{i}'
      entries += _matrices(ours, theirs, tuple, np.stack)
      for entry in zip(*(llama.norms(o, theirs) for o in ours), strict=True):
        entries.append(_shared(entry))
    return entries + interop_base.prefixed(
        _CODEC.entries(model.codec), 'codec', 'audio_encoder'
    )

  def constants(self, model):
    return {
        f'audio_encoder.{name}': value
        for name, value in _CODEC.constants(model.codec).items()
    }


def _stack(config, attend, dtype, final_norm):
  width = config.size('hidden_size')
  if config.size('ffn_dim', least=2) % 2:
    raise config.error('ffn_dim', 'an even number')
  return stack_lib.Stack(
      width=width,
      layers=config.count('num_hidden_layers'),
      mixers=(attention.Attention(**stacks.heads(config, width), **attend),),
      # Theirs counts gates, too.
      mlp=mlps.Dense(config.size('ffn_dim') // 2, 'swiglu'),
      norm='rms',
      norm_epsilon=config.number('rms_norm_eps', least=0.0),
      final_norm=final_norm,
      scan=False,
      dtype=dtype,
  )


def _stack_config(backbone):
  mixer = backbone.mixers[0]
  return {
      'hidden_size': backbone.width,
      'num_hidden_layers': backbone.layers,
      'num_attention_heads': mixer.heads,
      'num_key_value_heads': mixer.kv_heads,
      'head_dim': mixer.head_width,
      'ffn_dim': 2 * backbone.mlp.hidden,
      'rms_norm_eps': backbone.norm_epsilon,
  }


def _alone(w):
  return (w,)


def _only(stacked):
  return stacked[0]


def _matrices(ours, theirs, split, join):
  """A layer's matrices, which places have side by side or there is one of.

  Args:
    ours: the layer of each place.
    theirs: the layer.
    split: theirs -> one for each place.
    join: the inverse.
  """

  def turned(w):
    return np.asarray(w).swapaxes(-1, -2)

  entries = []
  for name in ('query', 'key', 'value', 'out'):
    layout = interop_base.Layout(
        (f'{theirs}.self_attn.{name[0]}_proj.linear.weight',),
        lambda w: split(turned(w)),
        lambda *w: (turned(join(w)),),
    )
    paths = tuple(f'{o}.mixer.{name}' for o in ours)
    entries.append(interop_base.Entry(paths, (layout,)))

  def gates_and_values(w):
    gates, values = np.split(turned(w), 2, axis=-1)
    return (*split(gates), *split(values))

  def side_by_side(*w):
    gates, values = join(w[: len(ours)]), join(w[len(ours) :])
    return (turned(np.concatenate([gates, values], axis=-1)),)

  layout = interop_base.Layout(
      (f'{theirs}.mlp.fc1.weight',), gates_and_values, side_by_side
  )
  paths = tuple(f'{o}.mlp.{n}' for n in ('gate', 'up') for o in ours)
  entries.append(interop_base.Entry(paths, (layout,)))
  layout = interop_base.Layout(
      (f'{theirs}.mlp.fc2.weight',),
      lambda w: split(turned(w)),
      lambda *w: (turned(join(w)),),
  )
  entries.append(
      interop_base.Entry(tuple(f'{o}.mlp.down' for o in ours), (layout,))
  )
  return entries


def _shared(entries):
  """One tensor for several of our leaves, which must be the same."""
  theirs = entries[0].layouts[0].theirs

  def save(first, *others):
    if not all(np.array_equal(first, other) for other in others):
      raise interop_base.PretrainedError(
          f'{theirs[0]} is one for all places, but theirs differ'
      )
    return (first,)

  def load(w):
    return tuple(w.copy() for _ in entries)

  layout = interop_base.Layout(theirs, load, save)
  return interop_base.Entry(tuple(e.ours[0] for e in entries), (layout,))


def _table(vocabularies):
  """The last row of each of theirs stands for no code."""
  names = (f'{_DECODER}.embed_tokens.weight',) + tuple(
      f'embed_tokens.{k}.weight' for k in range(len(vocabularies) - 1)
  )
  ends = np.cumsum(vocabularies)

  def join(*tables):
    codes = [w[:-1] for w in tables]
    return (np.concatenate(codes + [w[-1:] for w in tables]),)

  def split(table):
    codes = np.split(table, ends)
    fill = codes.pop()[:, None]
    return tuple(np.concatenate(w) for w in zip(codes, fill, strict=True))

  return interop_base.Entry(
      (stacks.TABLE,), (interop_base.Layout(names, join, split),)
  )


def _depth_table(vocabularies, codebooks):
  """Of the slots whose codes are an input to the depth decoder."""
  names = (f'{_DEPTH}.text_embed_tokens.weight',) + tuple(
      f'{_DEPTH}.embed_tokens.{k}.weight' for k in range(codebooks - 1)
  )
  ends = np.cumsum(vocabularies)

  def join(*tables):
    if [len(w) - 1 for w in tables] != list(vocabularies[:codebooks]):
      raise ValueError(f'expected {vocabularies[:codebooks]} codes')
    codes = [w[:-1] for w in tables]
    fill = [w[-1:] for w in tables]
    width, rest = tables[0].shape[1], vocabularies[codebooks:]
    codes.append(np.zeros((sum(rest), width), tables[0].dtype))
    fill.append(np.zeros((len(rest), width), tables[0].dtype))
    return (np.concatenate(codes + fill),)

  def split(table):
    parts = np.split(table, ends)
    fill = parts.pop()[:, None]
    return tuple(np.concatenate([parts[k], fill[k]]) for k in range(codebooks))

  layout = interop_base.Layout(names, join, split)
  return interop_base.Entry(('params.head.embedding.table',), (layout,))
