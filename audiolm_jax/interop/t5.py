"""T5's encoder as transformers has it (`T5EncoderModel`), of models with texts."""

from typing import Any

from audiolm_jax.decoders import text_encoder
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import fields
from audiolm_jax.interop import stacks

_GIVEN = {'model_type': 't5', 'feed_forward_proj': 'relu'}
DEFAULTS = {
    'vocab_size': 32128,
    'd_model': 512,
    'num_layers': 6,
    'num_heads': 8,
    'd_kv': 64,
    'd_ff': 2048,
    'relative_attention_num_buckets': 32,
    'relative_attention_max_distance': 128,
    'layer_norm_epsilon': 1e-6,
}
ALIASES = {
    'hidden_size': 'd_model',
    'num_attention_heads': 'num_heads',
    'num_hidden_layers': 'num_layers',
    'head_dim': 'd_kv',
}


def make(
    config: fields.Fields, options: interop_base.Options
) -> text_encoder.T5Encoder:
  """The encoder of a config, which has `DEFAULTS` and `ALIASES`."""
  config.require(_GIVEN)
  buckets = config.size('relative_attention_num_buckets', least=4)
  return text_encoder.T5Encoder(
      vocabulary=config.size('vocab_size'),
      width=config.size('d_model'),
      layers=config.count('num_layers'),
      heads=config.size('num_heads'),
      head_width=config.size('d_kv'),
      hidden=config.size('d_ff'),
      buckets=buckets,
      # Beyond single distances.
      max_distance=config.whole(
          'relative_attention_max_distance', least=buckets // 4 + 1
      ),
      norm_epsilon=config.number('layer_norm_epsilon', least=0.0),
      dtype=options.dtype,
  )


def config_of(text: text_encoder.T5Encoder) -> dict[str, Any]:
  """The config of an encoder."""
  return {
      **_GIVEN,
      'architectures': ['T5EncoderModel'],
      'vocab_size': text.vocabulary,
      'd_model': text.width,
      'num_layers': text.layers,
      'num_heads': text.heads,
      'd_kv': text.head_width,
      'd_ff': text.hidden,
      'relative_attention_num_buckets': text.buckets,
      'relative_attention_max_distance': text.max_distance,
      'layer_norm_epsilon': text.norm_epsilon,
  }


def tie(tensors: dict[str, Any], theirs: str) -> None:
  """Makes one of the embeddings, which a file may have under two names.

  Args:
    tensors: of the file; changed.
    theirs: name of the encoder there.

  Raises:
    PretrainedError: if both are there and differ.
  """
  embedded = f'{theirs}.encoder.embed_tokens.weight'
  interop_base.tie(tensors, f'{theirs}.shared.weight', embedded)


def entries(
    text: text_encoder.T5Encoder, ours: str, theirs: str
) -> list[interop_base.Entry]:
  """All of its leaves.

  Args:
    text: the encoder.
    ours: path of its variables.
    theirs: its name there.
  """
  inner = f'{theirs}.encoder'
  attend, dense = 'layer.0.SelfAttention', 'layer.1.DenseReluDense'
  result = [
      interop_base.plain(f'{ours}.table', f'{theirs}.shared.weight'),
      interop_base.plain(
          f'{ours}.offsets',
          f'{inner}.block.0.{attend}.relative_attention_bias.weight',
      ),
      *stacks.norm(f'{ours}.norm', f'{inner}.final_layer_norm'),
  ]
  for i in range(text.layers):
    layer, block = f'{ours}.layer_{i}', f'{inner}.block.{i}'
    for here, there in (
        ('query', f'{attend}.q'),
        ('key', f'{attend}.k'),
        ('value', f'{attend}.v'),
        ('out', f'{attend}.o'),
        ('mlp.up', f'{dense}.wi'),
        ('mlp.down', f'{dense}.wo'),
    ):
      result += stacks.projection(
          f'{layer}.{here}', f'{block}.{there}', bias=False
      )
    for here, there in (('attention_norm', '0'), ('mlp_norm', '1')):
      result += stacks.norm(
          f'{layer}.{here}', f'{block}.layer.{there}.layer_norm'
      )
  return result
