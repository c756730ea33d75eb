"""How well a model fills gaps: a page to look at and to listen to.

  python tools/infill_page.py --model=runs/masked/any_order \
      --cache=runs/quickstart/tokens --out=runs/masked/infill.html

In the middle of each of --clips test clips of a token cache --gap seconds are
hidden and drawn anew: by a masked model in 1, 4 and 16 steps a stage and in two
orders, by one that denoises latents in 1 to 64 steps of Euler's, or by its map in
1, 2 and 4 jumps. A table has the mel distance within the gap to the codec's
reconstruction of the true tokens, beside that of the same frames of another clip
(what a guess would be) and the passes through the model; for the first --shown
clips there are sounds and spectrograms. All other tokens come back as they are: the
tool checks that. A model of texts is told the clips'.
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
from audiolm_jax.models import flow_lm
from audiolm_jax.models import loading
from audiolm_jax.models import masked_lm
from audiolm_jax.processes import times as times_lib
from audiolm_jax.processes import unmasking
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers import encoding

# By the kind of model.
_PLANS = {
    '1 step': unmask.Plan(steps=1),
    '4 steps': unmask.Plan(steps=4),
    '16 steps': unmask.Plan(steps=16),
    '16 steps, random order': unmask.Plan(unmasking.RandomOrder(), 16),
}
GRIDS = {f'{n} step{"s"[:n > 1]}': times_lib.Grid(n) for n in (1, 4, 16, 64)}
JUMPS = {f'{n} jump{"s"[:n > 1]}': times_lib.Grid(n) for n in (1, 2, 4)}
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
    config.ConfigError: for a model that fills no gaps, or whose tokenizer is not
      the cache's, and a cache without clips that are long enough.
  """
  model = loading.load(options.model)
  if not isinstance(model, masked_lm.MaskedLM | flow_lm.FlowLM):
    raise config.ConfigError(
        f'--model={options.model} holds a {type(model).__name__}: expected a'
        ' masked model or one of latents'
    )
  tokenizer = loading.load_tokenizer(options.model, options.tokenizer)
  cache = token_cache.TokenCache(options.cache, 'test')
  rate = tokenizer.spec.frame_rate
  clips = clips_of(cache, model, options, rate)
  gap = max(round(options.gap * rate), 1)
  audio, known = fill(model, tokenizer, clips, gap)
  of_ways = distances(audio, known, tokenizer)
  page = report_lib.Report(
      'Gaps that a model fills',
      f'{options.model}: {gap / rate:.2f} s in the middle of each of'
      f' {len(clips)} test clips.',
  )
  page.add_table(
      'Distance within the gap',
      ['', 'mel distance', 'passes'],
      [
          [name, _interval(values), _passes(model, name)]
          for name, values in of_ways.items()
      ],
      'Mean |log10 mel| difference to the reconstruction of the true tokens, over'
      ' clips with 95% intervals; 0 is identity.',
  )
  for i in range(min(options.shown, len(clips))):
    length = int(tokenizer.spec.samples(clips[i].frames))
    first = int(np.argmin(known[i])) / rate
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


def clips_of(cache, model, options, rate):
  """Clips of three gaps to --longest seconds, spread over the split."""
  if isinstance(model, flow_lm.FlowLM):
    model.decoder.check_spec(cache.header.spec, f'--cache={options.cache}')
  else:
    wanted = model.decoder.vocabularies
    if tuple(cache.vocabularies[: len(wanted)]) != wanted:
      raise config.ConfigError(
          f'--cache={options.cache} has vocabularies {cache.vocabularies}, but'
          f' the model {wanted}'
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
  """({way: audio [B, T]}, frames that are known [B, F]).

  Args:
    model: what fills the gaps.
    tokenizer: of its frames.
    clips: examples of its tokens.
    gap: frames to fill.

  Raises:
    ValueError: if a frame that is known came back as another: never.
  """
  rows = [_tokens(model, clip) for clip in clips]
  lengths = np.array([len(row) for row in rows])
  shape = len(rows), lengths.max()
  tokens = np.zeros((*shape, rows[0].shape[1]), rows[0].dtype)
  known = np.ones(shape, bool)
  # The same frames of the next clip, wrapped where that is shorter.
  other = tokens.copy()
  for i, row in enumerate(rows):
    first = (lengths[i] - gap) // 2
    known[i, first : first + gap] = False
    tokens[i, : lengths[i]] = other[i, : lengths[i]] = row
    beside = rows[(i + 1) % len(rows)]
    at = np.arange(first, first + gap)
    other[i, at] = beside[at % len(beside)]
  ways = {_TRUTH: tokens, _OTHER: other}
  texts = [clip.factors.get('text') for clip in clips]
  told = {'text': texts} if 'text' in model.decoder.conditions else None
  for name, found in _draws(model, tokens, known, lengths, told):
    inside = known & (np.arange(shape[1]) < lengths[:, None])
    if (found != tokens)[inside].any():
      raise ValueError(f'{name}: frames that are known came back as others')
    ways[name] = found
  samples = np.array([tokenizer.spec.samples(n) for n in lengths], np.int32)
  kind = 'latents' if isinstance(model, flow_lm.FlowLM) else 'codes'
  audio = {}
  for name, filled in ways.items():
    filled = tokenizers_base.Tokens(num_samples=samples, **{kind: filled})
    audio[name] = np.asarray(tokenizer.decode(filled)[0])[..., 0]
  return audio, known


def _tokens(model, clip):
  """A clip's frames as the model has them [F, ...]."""
  if isinstance(model, flow_lm.FlowLM):
    return clip.latents
  return clip.codes[:, : len(model.decoder.vocabularies)].astype(np.int32)


def _draws(model, tokens, known, lengths, conditions):
  """(name, tokens) of each way to fill the gaps."""
  if isinstance(model, flow_lm.FlowLM):
    for name, grid in _grids(model).items():
      yield name, model.generate(
          tokens.shape[1],
          lengths,
          grid=grid,
          given=tokens,
          given_mask=known,
          conditions=conditions,
      )
    return
  known = np.broadcast_to(known[..., None], tokens.shape)
  for name, plan in _PLANS.items():
    yield name, model.infill(
        tokens,
        known,
        num_frames=lengths,
        plans=[plan],
        conditions=conditions,
    )


def _grids(model):
  """By name, the times that a model of latents goes through."""
  return GRIDS if model.decoder.jump is None else JUMPS


def distances(audio, known, tokenizer):
  """{way: [B] distances within the gap}."""
  hop = tokenizer.spec.hop
  result = {name: [] for name in audio if name != _TRUTH}
  for row, mask in enumerate(known):
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
  if name == _OTHER:
    return None
  if isinstance(model, flow_lm.FlowLM):
    return _grids(model)[name].steps
  plans = unmask.of_stages(model.decoder, [_PLANS[name]])
  return sum(plan.steps for plan in plans)


def _options(arguments):
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('--model', required=True, metavar='DIR', help='masked, or of latents')
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
