"""A VAE's latents -> codes: the same codec with residual codebooks in their place.

  python tools/fit_codes.py --tokenizer=runs/flow/vae --cache=runs/flow/tokens \
      --out=runs/flow/codes

fits residual codebooks by k-means to the means of a frozen VAE, until the mean
square of what they leave over is no more than the variance of the VAE's own noise,
which its decoder has learnt not to hear. It writes a tokenizer with the VAE's encoder
and decoder, whose codes stand for those latents: so models of hard and of soft
tokens speak of the same thing. Prints the error after each codebook, on clips that
the codebooks have not seen.
"""

import argparse
import json
import pathlib
import sys

from audiolm_jax.training import launch

if __name__ == '__main__':
  launch.reexecute()  # Before the heavy imports.

# ruff: noqa: E402

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax.data import corpora
from audiolm_jax.data import token_cache
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import representations
from audiolm_jax.models import directory
from audiolm_jax.models import loading
from audiolm_jax.tokenizers import bottlenecks
from audiolm_jax.tokenizers.bottlenecks import projections
from audiolm_jax.tokenizers.bottlenecks import vq
from audiolm_jax.training import checkpoints
from audiolm_jax.training import writers

_ABOUT = 'fit.json'
_ROWS = 4096  # Frames that are quantised at once.


def main(arguments=None):
  options = _options(arguments)
  try:
    found = write(options)
  except (
      config.ConfigError,
      checkpoints.CheckpointError,
      corpora.CorpusError,
      OSError,
  ) as error:
    launch.fail(f'fit_codes.py: {error}')
  print(json.dumps(found, indent=1))
  print(options.out)


def write(options) -> dict:
  """Fits the codebooks and writes the tokenizer; what `fit.json` there says.

  Raises:
    config.ConfigError: for a tokenizer that is no VAE with maps, a cache of other
      tokens, fewer frames than codes, or an error that stays above the noise.
    corpora.CorpusError: if the cache's corpus is not built any more.
  """
  vae = loading.load_codec(options.tokenizer)
  bottleneck = getattr(vae.tokenizer, 'bottleneck', None)
  if not isinstance(bottleneck, bottlenecks.Vae) or not bottleneck.project:
    raise config.ConfigError(
        f'--tokenizer={options.tokenizer} has {bottleneck}: expected a Vae with'
        ' maps'
    )
  train, held_out = (
      _frames(options.cache, split, vae, options.frames)
      for split in ('train', 'validation')
  )
  if len(train) < options.vocabulary:
    raise config.ConfigError(
        f'{len(train)} frames of {options.cache} for {options.vocabulary} codes'
    )
  noise = _noise(vae, options)
  codebooks, errors = fit(
      train,
      held_out,
      noise,
      options.vocabulary,
      options.most,
      options.iterations,
      options.seed,
  )
  if errors[-1] > noise:
    raise config.ConfigError(
        f'{options.most} codebooks of {options.vocabulary} leave a mean square'
        f' of {errors[-1]:.4g}, more than the variance {noise:.4g} of the noise:'
        ' give --most or --vocabulary more'
    )
  _write(options.out, vae, codebooks)
  found = {
      'codebooks': len(codebooks),
      'vocabulary': options.vocabulary,
      'noise': noise,
      'errors': errors,
      'variance': float(np.mean(np.square(held_out - train.mean(axis=0)))),
  }
  writers.write_atomically(
      pathlib.Path(options.out) / _ABOUT, json.dumps(found, indent=1)
  )
  return found


def fit(
    train: np.ndarray,
    held_out: np.ndarray,
    noise: float,
    vocabulary: int,
    most: int,
    iterations: int,
    seed: int = 0,
) -> tuple[np.ndarray, list[float]]:
  """Codebooks [K, V, D], each of what those before it leave; and their errors.

  Args:
    train: latents [M, D] that the codebooks are fitted to.
    held_out: others, on which the mean square of what is left is taken.
    noise: the mean square at which no more codebooks are added.
    vocabulary: V.
    most: K, at most.
    iterations: of k-means.
    seed: of where it starts.
  """
  rng = np.random.default_rng(seed)
  left, beside = train, held_out
  codebooks, errors = [], []
  for _ in range(most):
    start = left[rng.permutation(len(left))[:vocabulary]]
    valid = np.ones(len(left), bool)
    centroids, _ = _k_means(left, valid, start, iterations=iterations)
    centroids = np.asarray(centroids)
    left, beside = (_left_over(centroids, x) for x in (left, beside))
    codebooks.append(centroids)
    errors.append(float(np.mean(np.square(beside))))
    if errors[-1] <= noise:
      break
  return np.stack(codebooks), errors


_k_means = jax.jit(vq.k_means, static_argnames='iterations')
_nearest = jax.jit(vq.nearest)


def _left_over(codebook, x):
  """What a codebook leaves of vectors, some at a time."""
  rows = [x[i : i + _ROWS] for i in range(0, len(x), _ROWS)]
  # All of one shape but for the last, which is filled up.
  codes = [
      np.asarray(_nearest(codebook, np.resize(each, (_ROWS, x.shape[1])))[0])[
          : len(each)
      ]
      for each in rows
  ]
  return x - codebook[np.concatenate(codes)]


def _frames(cache, split, vae, most):
  """Latents [M, D] of clips that are spread over a split."""
  header = token_cache.read_header(cache)
  if header.fingerprint != vae.fingerprint():
    raise config.ConfigError(
        f'the cache {cache} was made by another tokenizer than --tokenizer'
    )
  clips = token_cache.TokenCache(cache, split)
  count = max(1, round(most / max(1.0, float(clips.frames.mean()))))
  chosen = evaluation_base.spaced(len(clips), count)
  return np.concatenate([clips[i].latents for i in chosen]).astype(np.float32)


def _noise(vae, options) -> float:
  """The mean variance of the VAE's noise on clips of the cache's corpus."""
  header = token_cache.read_header(options.cache)
  corpus = data.load_corpus(header.corpus, 'train', header.languages)
  chosen = evaluation_base.spaced(len(corpus), options.clips)
  clips = [corpus[int(i)] for i in chosen]

  def read(bound, tokens, audio, num_samples):
    del tokens
    latents = representations.before_bottleneck(
        bound.tokenizer, bound.variables['params'], audio, num_samples
    )
    return np.asarray(_variances(_maps(bound)['in'], latents)), ()

  found = representations.of_tokens(
      vae, [(clip['audio'], clip['sample_rate']) for clip in clips], read
  )
  return float(np.mean(np.concatenate([each.values for each in found])))


@jax.jit
def _variances(maps, latents):
  """Of the VAE's noise [B, F, D], from what its encoder gives."""
  _, scale = jnp.split(projections.apply(maps, latents), 2, axis=-1)
  return jnp.square(jax.nn.softplus(scale) + 1e-4)


def _maps(vae):
  return vae.variables['params']['bottleneck']


def _write(out, vae, codebooks) -> None:
  """The tokenizer with the VAE's encoder, decoder and maps of means."""
  count, vocabulary, width = codebooks.shape
  rvq = bottlenecks.Rvq(
      codebooks=count,
      vocabulary=vocabulary,
      dimension=width,
      use_bias=True,
      dropout=0.0,
  )
  module = dataclasses.replace(vae.tokenizer, bottleneck=rvq)
  maps = _maps(vae)
  # Means come before deviations.
  means = {name: value[..., :width] for name, value in maps['in'].items()}
  state = rvq.init(jax.random.key(0), maps['out']['kernel'].shape[1])['state']
  variables = {
      'params': {
          **vae.variables['params'],
          'bottleneck': {'in': means, 'out': maps['out']},
      },
      'state': state.replace(
          codebooks=jnp.asarray(codebooks), updates=jnp.ones_like(state.updates)
      ),
  }
  path = pathlib.Path(out)
  directory.write(path, directory.Manifest(module, 'codec'), variables, path)


def _options(arguments):
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  count = launch.number(int, lambda x: x > 0, 'at least 1')
  add('--tokenizer', required=True, help='directory of a VAE codec')
  add('--cache', required=True, help='of its latents')
  add('--vocabulary', type=count, default=1024, help='of each codebook')
  add('--most', type=count, default=32, help='codebooks')
  add('--frames', type=count, default=60_000, help='to fit to')
  add('--clips', type=count, default=100, help='whose noise is taken')
  add('--iterations', type=count, default=20, help='of k-means')
  add('--seed', type=int, default=0)
  add('--out', required=True, help='directory of the tokenizer')
  return parser.parse_args(arguments)


if __name__ == '__main__':
  main(sys.argv[1:])
