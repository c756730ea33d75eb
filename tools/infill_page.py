"""How well a masked model fills gaps: a page to look at and to listen to.

  python tools/infill_page.py --model=runs/masked/any_order \
      --cache=runs/quickstart/tokens --out=runs/masked/infill.html

In the middle of each of --clips test clips of a token cache --gap seconds are
hidden and drawn anew, in 1, 4 and 16 steps a stage and in two orders. A table
has the mel distance within the gap to the codec's reconstruction of the true
codes, beside that of the same frames of another clip (what a guess would be)
and the passes through the model; for the first --shown clips there are sounds
and spectrograms. All other codes come back as they are: the tool checks that.
"""

import argparse
import pathlib
import sys

from audiolm_jax.training import launch

if __name__ == '__main__':
  launch.reexecute()  # Before the heavy imports.

# ruff: noqa: E402

import numpy as np

from audiolm_jax import config
from audiolm_jax.comparison import report as report_lib
from audiolm_jax.comparison import statistics
from audiolm_jax.data import token_cache
from audiolm_jax.evaluation import metrics
from audiolm_jax.generation import unmask
from audiolm_jax.models import loading
from audiolm_jax.models import masked_lm
from audiolm_jax.processes import unmasking
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers import encoding

_PLANS = {
    '1 step': unmask.Plan(steps=1),
    '4 steps': unmask.Plan(steps=4),
    '16 steps': unmask.Plan(steps=16),
    '16 steps, random order': unmask.Plan(unmasking.RandomOrder(), 16),
}
_TRUTH, _OTHER = 'codec', 'another clip'


def main(arguments=None):
  options = _options(arguments)
  try:
    page = write(options)
  except (config.ConfigError, encoding.TokensError, OSError) as error:
    launch.fail(f'infill_page.py: {error}')
  page.write(options.out)
  print(options.out)


def write(options) -> report_lib.Report:
  """The page.

  Raises:
    config.ConfigError: for a model that is not masked, or whose tokenizer is not
      the cache's, and a cache without clips that are long enough.
  """
  model = loading.load(options.model)
  if not isinstance(model, masked_lm.MaskedLM):
    raise config.ConfigError(
        f'--model={options.model} holds a {type(model).__name__}: expected a'
        ' masked model'
    )
  tokenizer = loading.load_tokenizer(options.model, options.tokenizer)
  cache = token_cache.TokenCache(options.cache, 'test')
  rate = tokenizer.spec.frame_rate
  clips = _clips(cache, model, options, rate)
  gap = max(round(options.gap * rate), 1)
  audio, known = fill(model, tokenizer, clips, gap)
  distances = _distances(audio, known, tokenizer)
  page = report_lib.Report(
      'Gaps that a masked model fills',
      f'{options.model}: {gap / rate:.2f} s in the middle of each of'
      f' {len(clips)} test clips.',
  )
  page.add_table(
      'Distance within the gap',
      ['', 'mel distance', 'passes'],
      [
          [name, _interval(values), _passes(model, name)]
          for name, values in distances.items()
      ],
      'Mean |log10 mel| difference to the reconstruction of the true codes, over'
      ' clips with 95% intervals; 0 is identity.',
  )
  for i in range(min(options.shown, len(clips))):
    length = int(tokenizer.spec.samples(len(clips[i].codes)))
    first = int(np.argmin(known[i, :, 0])) / rate
    page.add_audio(
        'Listen',
        clips[i].factors.get('text') or clips[i].factors['id'],
        {
            name: sound[i, :length]
            for name, sound in audio.items()
            if name != _OTHER
        },
        tokenizer.spec.sample_rate,
        f'{clips[i].factors["id"]}: {first:.2f} to {first + gap / rate:.2f} s'
        ' were drawn',
        first,
    )
  return page


def _clips(cache, model, options, rate):
  """Clips of three gaps to --longest seconds, spread over the split."""
  slots = len(model.decoder.vocabularies)
  if tuple(cache.vocabularies[:slots]) != model.decoder.vocabularies:
    raise config.ConfigError(
        f'--cache={options.cache} has vocabularies {cache.vocabularies}, but'
        f' the model {model.decoder.vocabularies}'
    )
  least, most = 3 * options.gap, options.longest
  frames = cache.frames
  fit = np.flatnonzero((frames >= least * rate) & (frames <= most * rate))
  if len(fit) < 2:
    raise config.ConfigError(
        f'--cache={options.cache} has {len(fit)} test clips of {least:g} to'
        f' {most:g} s: expected 2 or more'
    )
  count = min(options.clips, len(fit))
  return [cache[int(fit[i * len(fit) // count])] for i in range(count)]


def fill(model, tokenizer, clips, gap: int):
  """({way: audio [B, T]}, known codes [B, F, K]).

  Args:
    model: a `MaskedLM`.
    tokenizer: of its frames.
    clips: examples of its codes.
    gap: frames to fill.

  Raises:
    ValueError: if a code that is known came back as another: never.
  """
  slots = len(model.decoder.vocabularies)
  lengths = np.array([len(c.codes) for c in clips])
  codes = np.zeros((len(clips), lengths.max(), slots), np.int32)
  known = np.ones(codes.shape, bool)
  for row, clip in enumerate(clips):
    codes[row, : lengths[row]] = clip.codes[:, :slots]
    first = (lengths[row] - gap) // 2
    known[row, first : first + gap] = False
  # The same frames of the next clip, wrapped where that is shorter.
  other = codes.copy()
  for row in range(len(clips)):
    beside = clips[(row + 1) % len(clips)].codes[:, :slots]
    at = np.flatnonzero(~known[row, :, 0])
    other[row, at] = beside[at % len(beside)]
  ways = {_TRUTH: codes, _OTHER: other}
  for name, plan in _PLANS.items():
    ways[name] = model.infill(codes, known, num_frames=lengths, plans=[plan])
    inside = known & (
        np.arange(codes.shape[1])[:, None] < lengths[:, None, None]
    )
    if (ways[name] != codes)[inside].any():
      raise ValueError(f'{name}: codes that are known came back as others')
  samples = np.array([tokenizer.spec.samples(n) for n in lengths], np.int32)
  return {
      name: np.asarray(
          tokenizer.decode(
              tokenizers_base.Tokens(num_samples=samples, codes=filled)
          )[0]
      )[..., 0]
      for name, filled in ways.items()
  }, known


def _distances(audio, known, tokenizer):
  """{way: [B] distances within the gap}."""
  hop = tokenizer.spec.hop
  result = {name: [] for name in audio if name != _TRUTH}
  for row, mask in enumerate(known[:, :, 0]):
    at = np.flatnonzero(~mask)
    span = slice(at[0] * hop, (at[-1] + 1) * hop)
    truth = audio[_TRUTH][row, span]
    for name, values in result.items():
      values.append(
          metrics.mel_distance(
              truth, audio[name][row, span], tokenizer.spec.sample_rate
          )
      )
  return {name: np.array(values) for name, values in result.items()}


def _interval(values):
  items = {str(i): (float(v), 1.0) for i, v in enumerate(values)}
  return statistics.bootstrap(items)


def _passes(model, name):
  if name not in _PLANS:
    return None
  return _PLANS[name].steps * len(model.decoder.order)


def _options(arguments):
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('--model', required=True, metavar='DIR', help='of a masked model')
  add('--cache', required=True, metavar='DIR', help='of its tokens')
  add('--tokenizer', metavar='DIR', help='where its codec is')
  add('--out', required=True, type=pathlib.Path, help='the page')
  add(
      '--clips',
      type=launch.number(int, lambda x: x > 1, 'at least 2'),
      default=40,
  )
  add(
      '--shown',
      type=launch.number(int, lambda x: x >= 0, 'at least 0'),
      default=6,
  )
  add(
      '--gap',
      type=launch.number(float, lambda x: 0 < x < 60, 'seconds, up to 60'),
      default=0.5,
  )
  add(
      '--longest',
      type=launch.number(float, lambda x: 0 < x < 600, 'seconds, up to 600'),
      default=4.0,
      help='seconds of the longest clips',
  )
  return parser.parse_args(arguments)


if __name__ == '__main__':
  main(sys.argv[1:])
