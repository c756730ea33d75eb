"""Which of two recordings does a language model prefer? sWUGGY, sBLIMP, SALMon.

  python tools/evaluate_pairs.py --model=runs/quickstart/lm \
      --benchmark=swuggy --folder=zerospeech2021/lexical/dev
  python tools/evaluate_pairs.py --model=runs/quickstart/lm \
      --benchmark=salmon --folder=salmon_benchmark --limit=80

Prints the share of pairs of which the model finds the right half likelier, with
bootstrap intervals over items; chance is 50%. The codec is the one whose tokens
the model speaks (--tokenizer=DIR: where it is now, if it was moved). With --out
the scores of every item are written, a line of JSON each. The formats of the
folders are in docs/evaluation.md.
"""

import argparse
import json
import pathlib
import sys

from audiolm_jax.training import launch

if __name__ == '__main__':
  launch.reexecute()  # Before the heavy imports.

# ruff: noqa: E402

from audiolm_jax import config
from audiolm_jax.comparison import statistics
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import benchmark_pairs
from audiolm_jax.evaluation import benchmarks
from audiolm_jax.evaluation import pair_scores
from audiolm_jax.models import loading
from audiolm_jax.models import token_lm
from audiolm_jax.training import writers

# Of a bootstrap; the items of sWUGGY are many.
_SAMPLES = 500


def main(arguments=None):
  options = _options(arguments)
  settings = benchmark_pairs.BenchmarkPairs(
      benchmark=options.benchmark,
      folder=options.folder,
      reduction=options.reduction,
      limit=options.limit,
      batch_size=options.batch_size,
  )
  try:
    model = _load(options.model, options.tokenizer)
    evaluator = benchmark_pairs.PairsEvaluator(settings, model.tokenizer)
    print(f'{len(evaluator.pairs)} pairs of {options.folder}', flush=True)
    scores = list(evaluator.score(model))
    if options.out is not None:
      lines = [json.dumps(_plain(score)) + '\n' for score in scores]
      writers.write_atomically(pathlib.Path(options.out), ''.join(lines))
  except (config.ConfigError, OSError) as error:
    launch.fail(f'evaluate_pairs.py: {error}')
  for line in table(scores):
    print(line)


def _load(path: str, where: str | None) -> token_lm.TokenLM:
  """The model with the tokenizer of its codes.

  Raises:
    ConfigError: for a model that has no likelihoods of such codes.
  """
  model = loading.load(path)
  if not isinstance(model, token_lm.TokenLM):
    raise config.ConfigError(
        f'--model={path} holds a {type(model).__name__}, which is no language'
        ' model of frames of codes.'
    )
  pair_scores.check(model.decoder)
  if model.tokenizer is not None and where is None:
    return model
  return model.with_tokenizer(loading.load_tokenizer(path, where))


def table(scores: list[evaluation_base.Score]) -> list[str]:
  """A line for each metric: percent, 95% interval over items, items."""
  items: dict[str, dict[str, tuple[float, float]]] = {}
  for score in scores:
    items.setdefault(score.name, {})[score.item] = (score.sum, score.weight)
  lines = []
  for name, of in items.items():
    found = statistics.bootstrap(of, samples=_SAMPLES)
    mean, low, high = (100 * x for x in (found.mean, found.low, found.high))
    lines.append(
        f'{name}: {mean:.1f}% [{low:.1f}, {high:.1f}], {found.n} items'
    )
  return lines


def _plain(score):
  """A score as JSON values; there are no curves here."""
  values = score._asdict()
  del values['along']
  return values


def _options(arguments):
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('--model', required=True, metavar='DIR', help='a language model')
  add('--benchmark', required=True, choices=sorted(benchmarks.PAIRS))
  add('--folder', required=True, metavar='DIR', help='where the benchmark is')
  add('--tokenizer', metavar='DIR', help='where its codec is')
  add(
      '--reduction',
      default='mean',
      choices=['mean', 'sum'],
      help='of log-probabilities: a frame (default), or of all',
  )
  count = launch.number(int, lambda x: x >= 1, '1 or more')
  add('--limit', type=count, help='only so many items, evenly spaced')
  add('--batch_size', type=count, default=16)
  add('--out', metavar='FILE', help='where the scores of every item go')
  return parser.parse_args(arguments)


if __name__ == '__main__':
  sys.exit(main())
