"""A token cache of codes -> one of the vectors that the codes stand for.

  python tools/code_vectors.py --cache=runs/quickstart/tokens --codebooks=4 \
      --out=runs/quickstart/vectors

writes the same clips as continuous tokens: of each frame the sum of the vectors of
its first codes, in the space of the tokenizer's residual codebooks. So a model of
latents (`configs/lm/flow.py`, `latents.py`) learns what a model of codes learns,
and what it draws becomes codes again (`AudioTokenizer.vectors_to_codes`) before it
is decoded: `evaluation.Resynthesis` does so. Run again, it goes on where it was.
"""

import argparse
import sys

from audiolm_jax.training import launch

if __name__ == '__main__':
  launch.reexecute()  # Before the heavy imports.

# ruff: noqa: E402

import dataclasses

import numpy as np

from audiolm_jax import config
from audiolm_jax.data import cache_header
from audiolm_jax.data import token_cache
from audiolm_jax.models import directory
from audiolm_jax.models import loading
from audiolm_jax.tokenizers import encoding
from audiolm_jax.training import checkpoints


def main(arguments=None):
  options = _options(arguments)
  try:
    clips = write(options)
  except (config.ConfigError, checkpoints.CheckpointError, OSError) as error:
    launch.fail(f'code_vectors.py: {error}')
  print(f'{options.out}: {clips} clips written now.')


def write(options) -> int:
  """Writes what is missing; how many clips that was.

  Raises:
    config.ConfigError: for a cache that is not of codes, or is not whole, a
      tokenizer without residual codebooks or another than the cache's, and a
      folder that holds something else.
  """
  header = token_cache.read_header(options.cache)
  if header.codebooks is None:
    raise encoding.TokensError(
        f'{options.cache} holds latents already, and no codes.'
    )
  if 'files' in next(iter(header.splits.values()), {}):
    raise encoding.TokensError(
        f'{options.cache} is a folder of token files: expected a cache that'
        ' `tokenize_audio.py corpus` has filled.'
    )
  speaks = directory.Speaks(header.tokenizer, header.fingerprint)
  tokenizer = loading.tokenizer_of(speaks, options.cache, options.tokenizer)
  count = options.codebooks or header.codebooks
  if count > header.codebooks:
    raise encoding.TokensError(
        f'--codebooks={count}, but {options.cache} has {header.codebooks}.'
    )
  none = np.zeros((0, count), int)
  width = tokenizer.codes_to_vectors(none).shape[-1]
  writer = token_cache.Writer(
      options.out,
      cache_header.Identity(
          spec=dataclasses.replace(header.spec, slots=(), dimension=width),
          fingerprint=f'{header.fingerprint}-vectors-{count}',
          tokenizer=header.tokenizer,
          scales=header.scales,
          durations=header.durations,
          corpus=header.corpus,
          languages=header.languages,
          clips=header.clips,
          build=header.build,
      ),
  )
  clips, caches = 0, {}
  for split, part, members in writer.missing():
    if split not in caches:
      caches[split] = token_cache.TokenCache(options.cache, split)
    writer.write(
        split, part, [_of(caches[split][i], tokenizer, count) for i in members]
    )
    clips += len(members)
  writer.finish()
  return clips


def _of(example, tokenizer, count) -> encoding.Example:
  """A clip's vectors in the place of its codes."""
  vectors = tokenizer.codes_to_vectors(example.codes[:, :count])
  return dataclasses.replace(example, codes=None, latents=vectors)


def _options(arguments):
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--cache', required=True, help='of codes')
  count = launch.number(int, lambda x: x > 0, 'at least 1')
  add('--codebooks', type=count, help='of a frame, the first; all if not given')
  add('--tokenizer', help='its directory; where it was if not given')
  add('--out', required=True, help='directory of the new cache')
  return parser.parse_args(arguments)


if __name__ == '__main__':
  main(sys.argv[1:])
