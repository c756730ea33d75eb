"""What a codec computes, in one compiled call for all tests of a file."""

import functools

import jax
import numpy as np

from audiolm_jax.tokenizers import base as tokenizers_base


@functools.lru_cache(32)
def outputs(codec):
  """jit(variables, audio, num_samples, codes) -> a dictionary of all outputs."""

  def run(variables, audio, num_samples, codes):
    params, state = variables['params'], variables['state']
    latents, mask = codec.encode_latents(params, audio, num_samples)
    given = {'params': params['bottleneck'], 'state': state}
    found = codec.bottleneck.quantise(given, latents, mask)
    tokens = tokenizers_base.Tokens(num_samples=num_samples, codes=codes)
    decoded, back = codec.decode(variables, tokens)
    return {
        'latents': latents,
        'codes': found.codes,
        'margins': found.margins,
        'semantic': found.semantic,
        'decoded': decoded,
        'num_samples': back,
    }

  return jax.jit(run, compiler_options={'xla_backend_optimization_level': 0})


def arrays(codec, audio, codes):
  """Of variables alone: what exchanged weights must change."""
  run = outputs(codec)

  def of(variables):
    found = run(variables, audio, np.array([audio.shape[1]]), codes)
    return found['latents'], found['semantic'], found['decoded']

  return of
