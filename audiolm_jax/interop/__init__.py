"""Weights from and to other libraries, without torch.

`model, variables = interop.load_pretrained('path/to/encodec_24khz')`, where the
directory holds config.json and model.safetensors as the hub has them, in one
file or in shards. A codec has `encode` and `decode`, a language model `logits`.
"""

import os
from typing import Any, Literal

from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import csm
from audiolm_jax.interop import dac as dac_names
from audiolm_jax.interop import encodec
from audiolm_jax.interop import fields
from audiolm_jax.interop import files
from audiolm_jax.interop import gpt2
from audiolm_jax.interop import gpt_oss
from audiolm_jax.interop import llama
from audiolm_jax.interop import mamba2
from audiolm_jax.interop import mimi
from audiolm_jax.interop import moshi
from audiolm_jax.interop import musicgen
from audiolm_jax.interop import oobleck
from audiolm_jax.interop import pocket_tts
from audiolm_jax.interop import snac
from audiolm_jax.interop import speechtokenizer
from audiolm_jax.interop import stable_audio
from audiolm_jax.interop import vibevoice
from audiolm_jax.interop import wavtokenizer
from audiolm_jax.interop import xcodec2
from audiolm_jax.interop.base import Model
from audiolm_jax.interop.base import Options
from audiolm_jax.interop.base import PretrainedError
from audiolm_jax.interop.files import is_pretrained
from audiolm_jax.interop.language_model import LanguageModel

# Name -> family; the name is transformers' `model_type` where it has one.
FAMILIES: dict[str, interop_base.Family] = {
    'encodec': encodec.Encodec(),
    'mimi': mimi.Mimi(),
    'speechtokenizer': speechtokenizer.SpeechTokenizer(),
    'wavtokenizer': wavtokenizer.WavTokenizer(),
    'xcodec2': xcodec2.Xcodec2(),
    'dac': dac_names.Dac(),
    'oobleck': oobleck.Oobleck(),
    'vibevoice_acoustic_tokenizer': vibevoice.VibeVoiceTokenizer(),
    'snac': snac.Snac(),
    'gpt2': gpt2.Gpt2(),
    'llama': llama.Llama('llama', 'LlamaForCausalLM'),
    'mistral': llama.Llama(
        'mistral', 'MistralForCausalLM', biased='none', windows='all'
    ),
    'qwen2': llama.Llama(
        'qwen2', 'Qwen2ForCausalLM', biased='inputs', windows='config'
    ),
    'qwen3': llama.Llama(
        'qwen3', 'Qwen3ForCausalLM', qk_norm='rms', windows='config'
    ),
    'gpt_oss': gpt_oss.GptOss(),
    'mamba2': mamba2.Mamba2(),
    'musicgen': musicgen.Musicgen(),
    'csm': csm.CsmFamily(),
    'moshi': moshi.MoshiFamily(),
    'pocket_tts': pocket_tts.PocketTtsFamily(),
    'stable_audio': stable_audio.StableAudioFamily(),
}


def load_pretrained(
    directory: str | os.PathLike,
    *,
    weight_norm: bool = False,
    streamable: bool = False,
    drop_samples: bool = False,
    scan: bool = False,
    dtype: Literal['float32', 'bfloat16'] = 'float32',
) -> tuple[Any, dict[str, Any]]:
  """A model and its variables from config.json and model.safetensors.

  Of a codec, `model.encode(variables, audio [B T C], num_samples)`, `model.decode(
  variables, tokens)`; `models.audio_tokenizer.AudioTokenizer` for
  people. Of a language model, `model.logits(variables, ids [B N], num_frames)`; of
  one of a codec's frames, `logits` and `score` as its class has them. `generation`
  takes `model.decoder` and `variables['params']`.

  Args:
    directory: as `huggingface-cli download` leaves it, or `save_pretrained`.
    weight_norm: keep weight norm (to train on), instead of folding it.
    streamable: replace reflection by zeros, so that EnCodec 24 kHz streams; the
      first samples then differ from the original's.
    drop_samples: drop samples where the original does (DAC's odd strides).
    scan: a language model's layers stacked and compiled as a loop, to train on;
      steps are faster without.
    dtype: of a language model's weights and activations.

  Raises:
    PretrainedError: naming the file that is missing or damaged, the key and
      value of a config.json that cannot be, or listing every tensor that is
      missing, left over, of the wrong shape or type, or not finite.
  """
  config, tensors = files.scan(directory)
  families = [f for f in FAMILIES.values() if f.recognises(config)]
  if len(families) != 1:
    raise PretrainedError(
        f'{directory}: model_type ='
        f' {fields.shown(config.get("model_type"))} is none of'
        f' {sorted(FAMILIES)}'
    )
  options = Options(weight_norm, streamable, drop_samples, dtype)
  try:
    model = families[0].build(config, options, files.limits(tensors))
    if isinstance(model, LanguageModel):
      model = model.with_generation_config(files.generation(directory))
    variables = interop_base.load(families[0], model, tensors, dtype)
    if scan and isinstance(model, LanguageModel):
      return model.roll(variables)
    return model, variables
  except PretrainedError as error:
    raise PretrainedError(f'{directory}: {error}') from error


def save_pretrained(
    directory: str | os.PathLike,
    model: interop_base.Model,
    variables: dict[str, Any],
    family: str,
) -> None:
  """Writes what `load_pretrained`, and where it has it transformers, reads.

  Args:
    directory: is made.
    model: such as `load_pretrained` gives for this family.
    variables: its variables; weight norm kept or folded, layers stacked or not.
    family: of `FAMILIES`.

  Raises:
    PretrainedError: if model and variables do not fit the family.
  """
  if family not in FAMILIES:
    raise PretrainedError(f'family {family!r}: one of {sorted(FAMILIES)}')
  chosen = FAMILIES[family]
  if isinstance(model, LanguageModel) and model.backbone.scan:
    model, variables = model.unroll(variables)
  try:
    config = chosen.config_of(model)
  except PretrainedError as error:
    raise PretrainedError(f'this is no {family}: {error}') from error
  except AttributeError as error:  # Made of other parts.
    raise PretrainedError(f'{family} has no such model: {model}') from error
  tensors = interop_base.save(chosen, model, variables)
  files.write(directory, config, tensors)
