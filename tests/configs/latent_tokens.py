"""A small cache of latents, with the untrained VAE that they are of."""

import pathlib

import jax

from audiolm_jax.models import audio_tokenizer
from audiolm_jax.models import caching
from configs.codec import quickstart_vae


def make(directory: pathlib.Path) -> audio_tokenizer.AudioTokenizer:
  """Fills a cache by what fills in codes, from a corpus that is synthesised."""
  codec = quickstart_vae.get_config('smoke').objective.tokenizer
  init = jax.jit(
      codec.init, compiler_options={'xla_backend_optimization_level': 0}
  )
  tokenizer = audio_tokenizer.AudioTokenizer(codec, init(jax.random.key(0)))
  caching.fill(
      tokenizer,
      directory,
      corpus='espeak_sentences',
      workdir='nowhere',
      languages=('fr',),
      wanted=('train', 'validation'),
      limit=6,
  )
  return tokenizer
