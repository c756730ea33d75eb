"""What a codec computes, in one compiled call; and weights exchanged in pairs."""

import functools

import jax
import numpy as np

from audiolm_jax import interop
from audiolm_jax.interop import base
from audiolm_jax.tokenizers import base as tokens_base

# What training needs and inference does not.
_STATISTICS = ('cluster_size', 'embed_avg')


@functools.lru_cache(32)
def compiled(codec):
  """jit(variables, audio, lengths, codes) -> a dictionary of all outputs."""

  def run(variables, audio, lengths, codes):
    latents, _ = codec.encode_latents(variables['params'], audio, lengths)
    found = codec.quantise(variables, audio, lengths)
    tokens = tokens_base.Tokens(lengths=lengths, codes=codes)
    decoded, back = codec.decode(variables, tokens)
    return {
        'latents': latents,
        'codes': found.codes,
        'margins': found.margins,
        'semantic': found.semantic,
        'quantised': found.latents,
        'decoded': decoded,
        'lengths': back,
    }

  return jax.jit(run, compiler_options={'xla_backend_optimization_level': 0})


def assert_every_exchange_shows(
    directory, audio, codes, monkeypatch, commute=lambda first, second: False
):
  """Any two tensors of one shape, exchanged, change what comes out.

  Args:
    directory: with the weights.
    audio: [1, T, C].
    codes: [1, F, K] to decode.
    monkeypatch: of pytest; shapes are then found once, not for each exchange.
    commute: whether two names only ever add to each other.
  """
  config, tensors = interop.files.read(directory)
  (family,) = [f for f in interop.FAMILIES.values() if f.recognises(config)]
  codec = family.build(config, interop.Options())
  abstract = base._abstract(codec)
  monkeypatch.setattr(base, '_abstract', lambda codec: abstract)
  entries = family.entries(codec)
  monkeypatch.setattr(type(family), 'entries', lambda self, codec: entries)
  lengths = np.array([audio.shape[1]])

  def run(tensors):
    variables = base.load(family, codec, tensors)
    found = compiled(codec)(variables, audio, lengths, codes)
    names = ('latents', 'quantised', 'semantic', 'decoded')
    return [np.asarray(found[n]) for n in names if found[n] is not None]

  reference = run(tensors)
  carrying_nothing = set(family.constants(codec))
  names = [
      name
      for name in tensors
      if name not in carrying_nothing and not name.endswith(_STATISTICS)
  ]
  exchanged, hidden = 0, []
  for i, first in enumerate(names):
    for second in names[i + 1 :]:
      if tensors[first].shape != tensors[second].shape:
        continue
      if commute(first, second):
        continue
      pair = {first: tensors[second], second: tensors[first]}
      found = run({**tensors, **pair})
      exchanged += 1
      if not any(
          np.abs(a - b).max() > 1e-4 * np.abs(b).max()
          for a, b in zip(found, reference, strict=True)
      ):
        hidden.append((first, second))
  print(f'{exchanged} exchanges of {len(names)} tensors')
  assert not hidden, hidden
  assert exchanged > 20, exchanged
