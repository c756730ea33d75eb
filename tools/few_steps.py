"""What few jumps cost: a map beside the flow that it was distilled from.

  python tools/few_steps.py --teacher=runs/flow/lm --model=runs/flow/few \
      --cache=runs/flow/tokens --out=runs/flow/few_steps.html

Test clips of a token cache are generated anew, as long as they are and told
their texts, by the teacher in 1, 4, 16 and 64 steps of Euler's and by its map in
1, 2 and 4 jumps, from the same noise; and the middle of clips is filled in, as
tools/infill_page.py does. A table has, with 95% intervals,

    the Frechet distance of the latents to the clips' own, dimensions in units of
    the data's deviation, without its bias (a jackknife over clips), beside that
    of other real clips;
    its difference to the teacher's in 64 steps;
    the mel distance in the gap to the codec's sound of the true latents, beside
    that of another clip's frames: it likes means better than samples, which one
    step of Euler's gives.

Intervals are over clips: of these two models, and no others of their kind.
"""

import argparse
import pathlib
import sys

from audiolm_jax.training import launch

if __name__ == '__main__':
  launch.reexecute()  # Before the heavy imports.
  sys.path.insert(0, str(pathlib.Path(__file__).absolute().parent.parent))

# ruff: noqa: E402

import numpy as np

from audiolm_jax import config
from audiolm_jax.comparison import report as report_lib
from audiolm_jax.comparison import statistics
from audiolm_jax.data import token_cache
from audiolm_jax.evaluation import distributions
from audiolm_jax.models import flow_lm
from audiolm_jax.models import loading
from audiolm_jax.tokenizers import encoding
from tools import infill_page

_OTHER = 'other clips'
_HEADER = [
    '',
    'evaluations',
    'GFLOPs a second',
    'Frechet distance',
    'to most steps',
    'gap, mel distance',
]


def main(arguments=None):
  options = _options(arguments)
  try:
    page = write(options)
  except (config.ConfigError, encoding.TokensError, OSError) as error:
    launch.fail(f'few_steps.py: {error}')
  page.write(options.out)
  print(options.out)


def write(options) -> report_lib.Report:
  """The page.

  Raises:
    config.ConfigError: for models that are no flow and its map, or a cache that
      is not of their latents or has too few clips.
  """
  models = [_flow(options, name) for name in ('teacher', 'model')]
  teacher, student = models
  if teacher.decoder.jump is not None or student.decoder.jump is None:
    raise config.ConfigError(
        '--teacher and --model: expected a flow, and then its map'
    )
  tokenizer = loading.load_tokenizer(options.teacher, options.tokenizer)
  cache = token_cache.TokenCache(options.cache, 'test')
  rate = tokenizer.spec.frame_rate
  clips = infill_page.clips_of(cache, teacher, options, rate)
  if len(clips) < 2 * options.groups:
    raise config.ConfigError(
        f'--cache={options.cache} has {len(clips)} test clips of these lengths:'
        f' expected twice --groups={options.groups}'
    )
  # As many as the gaps are filled in.
  grids = infill_page.GRIDS.values(), infill_page.JUMPS.values()
  ways = {
      **{f'{grid.steps} of Euler': (teacher, grid) for grid in grids[0]},
      **{f'{grid.steps} of jumps': (student, grid) for grid in grids[1]},
  }
  pseudo = _frechet(clips, ways, options)
  gaps = _gaps(models, tokenizer, clips, max(round(options.gap * rate), 1))
  last = pseudo[f'{max(grid.steps for grid in grids[0])} of Euler']
  rows = []
  for name, values in pseudo.items():
    steps = flops = change = None
    if name in ways:
      model, grid = ways[name]
      steps = grid.steps
      flops = f'{model.generation_flops(1.0, grid=grid) / 1e9:.3g}'
      if values is not last:
        change = statistics.t_interval(values - last)
    row = [name, steps, flops, statistics.t_interval(values), change]
    rows.append([*row, _interval(gaps[name])])
  page = report_lib.Report(
      'What few jumps cost',
      f'{options.model}, distilled from {options.teacher}: {len(clips)} test'
      f' clips of {options.cache}.',
  )
  page.add_table(
      'Steps and jumps',
      _HEADER,
      rows,
      f'Over clips, in {options.groups} groups where distributions are compared.',
  )
  return page


def _flow(options, name):
  path = getattr(options, name)
  model = loading.load(path)
  if not isinstance(model, flow_lm.FlowLM):
    raise config.ConfigError(
        f'--{name}={path} holds a {type(model).__name__}: expected a model that'
        ' denoises latents'
    )
  return model


def _frechet(clips, ways, options):
  """{way: pseudo-values [G]} of the distance to the clips' own latents."""
  deviation = np.concatenate([clip.latents for clip in clips]).std(axis=0)
  real = [clip.latents / deviation for clip in clips]
  half = len(real) // 2
  found = {
      _OTHER: distributions.frechet_without(
          real[:half], real[half : 2 * half], options.groups
      )
  }
  for name, (model, grid) in ways.items():
    drawn = [x / deviation for x in _drawn(model, clips, grid, options.batch)]
    found[name] = distributions.frechet_without(real, drawn, options.groups)
  return found


def _drawn(model, clips, grid, batch):
  """Latents of each clip's length and text."""
  longest, drawn = max(clip.frames for clip in clips), []
  for first in range(0, len(clips), batch):
    part = clips[first : first + batch]
    told = None
    if 'text' in model.decoder.conditions:
      told = {'text': [clip.factors.get('text') for clip in part]}
    found = model.generate(
        longest,
        np.array([clip.frames for clip in part]),
        seed=first,
        grid=grid,
        conditions=told,
    )
    drawn += [x[: clip.frames] for x, clip in zip(found, part, strict=True)]
  return drawn


def _gaps(models, tokenizer, clips, gap):
  """{way: [B] mel distances within the gap}."""
  found = {}
  for model, kind in zip(models, ('Euler', 'jumps'), strict=True):
    filled = infill_page.fill(model, tokenizer, clips, gap)
    for name, values in infill_page.distances(*filled, tokenizer).items():
      steps = name.split()[0]
      found[f'{steps} of {kind}' if steps.isdigit() else _OTHER] = values
  return found


def _interval(values):
  items = {str(i): (float(v), 1.0) for i, v in enumerate(values)}
  return statistics.bootstrap(items)


def _options(arguments):
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  count = launch.number(int, lambda x: x > 1, 'at least 2')
  seconds = launch.number(float, lambda x: 0 < x < 600, 'seconds, up to 600')
  add('--teacher', required=True, metavar='DIR', help='a flow')
  add('--model', required=True, metavar='DIR', help='its map')
  add('--cache', required=True, metavar='DIR', help='of its latents')
  add('--tokenizer', metavar='DIR', help='where its codec is')
  add('--out', required=True, type=pathlib.Path, help='the page')
  add('--clips', type=count, default=100)
  add('--groups', type=count, default=10, help='of clips that are left out')
  add('--batch', type=count, default=32, help='clips that are drawn at once')
  add('--gap', type=seconds, default=0.5)
  add('--longest', type=seconds, default=4.0, help='clip, in seconds')
  return parser.parse_args(arguments)


if __name__ == '__main__':
  main(sys.argv[1:])
