"""gpt-oss as transformers has it (`openai/gpt-oss-20b`), MXFP4 files too."""

from jaxtyping import Float, UInt8
import numpy as np

from audiolm_jax.backbones import mlps
from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.backbones.mixers import attention
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import llama
from audiolm_jax.interop import stacks

_TABLE = 'model.embed_tokens.weight'
# What the 16 codes of FP4 (E2M1) stand for (OCP Microscaling Formats 1.0,
# table 5): a sign, two bits of exponent and one of mantissa.
_FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
_FP4 = np.concatenate([_FP4, -_FP4])
# The exponent of the scales (E8M0) is stored with this added.
_BIAS = 127


class GptOss(interop_base.Family):
  """`GptOssForCausalLM`.

  Experts are held dense: files with MXFP4 weights are dequantised, and dense
  ones are written.
  """

  defaults = {
      'vocab_size': 201088,
      'hidden_size': 2880,
      'intermediate_size': 2880,
      'num_hidden_layers': 36,
      'num_attention_heads': 64,
      'num_key_value_heads': 8,
      'head_dim': 64,
      'num_local_experts': 128,
      'num_experts_per_tok': 4,
      'sliding_window': 128,
      'layer_types': None,
      'max_position_embeddings': 131072,
      'rms_norm_eps': 1e-5,
      'rope_parameters': {
          'rope_type': 'yarn',
          'factor': 32.0,
          'beta_fast': 32.0,
          'beta_slow': 1.0,
          'truncate': False,
          'original_max_position_embeddings': 4096,
      },
      'swiglu_alpha': 1.702,
      'swiglu_limit': 7.0,
      'attention_bias': True,
      'tie_word_embeddings': False,
      'bos_token_id': None,
      'eos_token_id': None,
  }
  aliases = {'num_experts': 'num_local_experts'}

  def recognises(self, config):
    return config.get('model_type') == 'gpt_oss'

  def make(self, config, options):
    config.part('quantization_config').require({'quant_method': 'mxfp4'})
    config.require({'hidden_act': 'silu'})
    width = config.size('hidden_size')
    layers = config.count('num_hidden_layers')
    bias = config.flag('attention_bias')
    mixer = attention.Attention(
        **stacks.heads(config, width),
        positions=stacks.rope(config, 150_000.0),
        sinks=True,
        use_bias=bias,
        out_bias=bias,
    )
    kinds = llama.layer_types(
        config, [llama.FULL if i % 2 else llama.SLIDING for i in range(layers)]
    )
    window = config.whole('sliding_window', null=True)
    mixers = [
        mixer.clone(window=window if kind == llama.SLIDING else None)
        for kind in kinds
    ]
    experts = config.size('num_local_experts')
    chosen = config.whole('num_experts_per_tok', most=experts)
    backbone = stack_lib.Stack(
        width=width,
        layers=layers,
        mixers=stacks.period(mixers),
        mlp=mlps.Moe(
            experts=experts,
            top_k=chosen,
            hidden=config.size('intermediate_size'),
            activation='clamped_swiglu',
            limit=config.number('swiglu_limit', above=0.0),
            alpha=config.number('swiglu_alpha'),
            use_bias=True,
            router_bias=True,
            normalise='top_k',
        ),
        norm='rms',
        norm_epsilon=config.number('rms_norm_eps', least=0.0),
        scan=False,
        dtype=options.dtype,
    )
    return stacks.built(
        config, backbone, positions=config.whole('max_position_embeddings')
    )

  def config_of(self, model):
    mlp = model.backbone.mlp
    config = {
        **llama.shared_config(model, 'gpt_oss', 'GptOssForCausalLM'),
        **llama.window_config(model.backbone),
        'attention_bias': model.backbone.mixers[0].use_bias,
        'num_local_experts': mlp.experts,
        'num_experts_per_tok': mlp.top_k,
        'swiglu_limit': mlp.limit,
        'swiglu_alpha': mlp.alpha,
    }
    return stacks.checked(self, model, config)

  def canonical(self, model, tensors):
    return stacks.canonical(model, tensors, 'model.', _TABLE, ('.inv_freq',))

  def entries(self, model):
    backbone = model.backbone
    entries = stacks.ends(model, _TABLE)
    for i in range(backbone.layers):
      ours, theirs = f'{stacks.BACKBONE}.layer_{i}', f'model.layers.{i}'
      mixer = backbone.mixers[i % len(backbone.mixers)]
      entries += stacks.attention_names(
          mixer, f'{ours}.mixer', f'{theirs}.self_attn'
      )
      entries += stacks.projection(
          f'{ours}.mlp.router', f'{theirs}.mlp.router', bias=True
      )
      entries += _experts(f'{ours}.mlp', f'{theirs}.mlp.experts')
      entries += llama.norms(ours, theirs)
    return entries + stacks.norm(f'{stacks.BACKBONE}.norm', 'model.norm')


def dequantise(
    blocks: UInt8[np.ndarray, 'E F G 16'], scales: UInt8[np.ndarray, 'E F G']
) -> Float[np.ndarray, 'E D F']:
  """MXFP4 weights as numbers, exactly, inputs before outputs.

  Args:
    blocks: G blocks of 32 codes, two a byte, the low half first; D = 32 G.
    scales: exponents of 2 that the values of each block are multiplied by.
  """
  codes = np.stack([blocks & 0xF, blocks >> 4], axis=-1)
  values = _FP4[codes.reshape(*scales.shape, -1)]
  values = np.ldexp(values, scales[..., None].astype(np.int32) - _BIAS)
  return values.reshape(*scales.shape[:2], -1).swapaxes(1, 2)


def _experts(ours, theirs):
  """Gates and values alternate in their outputs."""

  def split(w):
    return w[..., ::2], w[..., 1::2]

  def join(gate, up):
    return (np.stack([gate, up], axis=-1).reshape(*gate.shape[:-1], -1),)

  def entry(paths, name, load, save):
    dense = interop_base.Layout((f'{theirs}.{name}',), load, save)
    packed = interop_base.Layout(
        (f'{theirs}.{name}_blocks', f'{theirs}.{name}_scales'),
        lambda blocks, scales: load(dequantise(blocks, scales)),
        save,
        packed=True,
    )
    return interop_base.Entry(paths, (dense, packed))

  def same(w):
    return (w,)

  gate_up = (f'{ours}.gate', f'{ours}.up')
  biases = tuple(f'{path}_bias' for path in gate_up)
  bias = interop_base.Layout((f'{theirs}.gate_up_proj_bias',), split, join)
  return [
      entry(gate_up, 'gate_up_proj', split, join),
      interop_base.Entry(biases, (bias,)),
      entry((f'{ours}.down',), 'down_proj', same, same),
      interop_base.plain(f'{ours}.down_bias', f'{theirs}.down_proj_bias'),
  ]
