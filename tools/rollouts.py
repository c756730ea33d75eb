"""How far models of latents drift when they go on from their own frames.

  python tools/rollouts.py --model=runs/latents/mixture \
      --model=runs/latents/flow --model=runs/latents/one_step \
      --cache=runs/flow/tokens --out=runs/latents/rollouts.html

Each model continues the first --prompt seconds of --clips test clips for --seconds
more, whatever it thinks of where they end, told the clips' texts if it takes them:
by its head in few and many steps, at a temperature, with noise on the history. Two
tables follow the rollouts second by second: the deviation of the latents, as
normalised (1 in the cache), and the Frechet distance of their frames to those of
the same clips, without its bias of first order, with 95% intervals over ten groups
of clips (the jackknife). The first row is the distance of other test clips: what
there is without any drift. A third has what each head with a likelihood costs on
the clips themselves, in nats a frame of normalised latents, on their first
--scored frames (of heads that take steps, in --likelihood_steps of the way from
data to noise), and by how much more than the first of them. For the first --shown clips there are sounds and
spectrograms.
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
from audiolm_jax.decoders import latent_heads
from audiolm_jax.evaluation import distributions
from audiolm_jax.models import latent_lm
from audiolm_jax.models import loading
from audiolm_jax.processes import times as times_lib
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers import encoding

_OTHERS = 'other clips'
# Of rollouts, which go on whatever the model says of the end.
_GROUPS = 10


def main(arguments=None):
  options = _options(arguments)
  try:
    page = write(options)
  except (config.ConfigError, encoding.TokensError, OSError) as error:
    launch.fail(f'rollouts.py: {error}')
  page.write(options.out)
  print(options.out)


def write(options) -> report_lib.Report:
  """The page.

  Raises:
    config.ConfigError: for a model that is not of single frames of latents, or
      not of the cache's, and a cache with too few clips that are long enough.
  """
  models = {path: _load(path) for path in options.model}
  tokenizer = loading.load_tokenizer(options.model[0], options.tokenizer)
  cache = token_cache.TokenCache(options.cache, 'test')
  for model in models.values():
    model.decoder.check_spec(cache.header.spec, f'--cache={options.cache}')
  rate = tokenizer.spec.frame_rate
  prompt = max(round(options.prompt * rate), 1)
  total = prompt + max(round(options.seconds * rate), 1)
  clips, others = _clips(cache, models.values(), options, prompt)
  moments = cache.header.moments
  truth, beside = (
      [moments.normalised(clip.latents) for clip in some]
      for some in (clips, others)
  )
  rollouts = {}
  for path, model in models.items():
    for name, sampler in ways(model).items():
      label = f'{pathlib.Path(path).name}, {name}'
      rollouts[label] = _roll(model, sampler, clips, prompt, total, options)
  page = report_lib.Report(
      'Rollouts of latents',
      f'{len(clips)} test clips, {prompt / rate:.2f} s of each continued for'
      f' {(total - prompt) / rate:.2f} s.',
  )
  seconds = list(_seconds(prompt, total, rate))
  headings = ['', *(f'{i + 1} s' for i in range(len(seconds)))]
  normalised = {k: moments.normalised(x) for k, x in rollouts.items()}
  page.add_table(
      'Frechet distance of frames',
      headings,
      [
          [_OTHERS, _distance(truth, beside), *[None] * (len(seconds) - 1)],
          *(
              [name, *(_distance(truth, list(x[:, at])) for at in seconds)]
              for name, x in normalised.items()
          ),
      ],
      'To the frames of the clips that are continued, of normalised latents, in'
      ' each second after the prompt; less is better.',
  )
  page.add_table(
      'Deviation of frames',
      headings,
      [
          [name, *(float(x[:, at].std((0, 1)).mean()) for at in seconds)]
          for name, x in normalised.items()
      ],
      'Of normalised latents, a mean over dimensions; that of the cache is 1.',
  )
  costs = _costs(models, clips, options)
  if costs:
    first = next(iter(costs.values()))
    page.add_table(
        'Nats a frame',
        ['', 'nats a frame', 'more than the first'],
        [
            [
                name,
                statistics.t_interval(nats),
                None if nats is first else statistics.t_interval(nats - first),
            ]
            for name, nats in costs.items()
        ],
        'Of the clips as they are, a mean over clips with 95% intervals.',
    )
  _listen(page, tokenizer, clips, rollouts, prompt, options)
  return page


def _costs(models, clips, options):
  """{model: nats a frame of each clip}, of heads that have a likelihood."""
  lengths = np.array([min(c.frames, options.scored) for c in clips], np.int32)
  size = clips[0].latents.shape[1]
  latents = np.zeros((len(clips), lengths.max(), size), np.float32)
  for row, clip, length in zip(latents, clips, lengths, strict=True):
    row[:length] = clip.latents[:length]
  found = {}
  for path, model in models.items():
    head = model.decoder.head
    if head.tag == 'exact':
      steps = options.likelihood_steps if head.takes_steps else None
      scores = model.log_prob(latents, lengths, _told(model, clips), steps)
      found[pathlib.Path(path).name] = -scores.sum(axis=1) / lengths
  return found


def _told(model, clips):
  """The texts of clips, for a model that takes them."""
  if 'text' not in model.decoder.conditions:
    return None
  return {'text': [clip.factors.get('text') for clip in clips]}


def ways(model: latent_lm.LatentLM) -> dict[str, latent_heads.LatentSampler]:
  """How rollouts are drawn, by what it is called on the page."""
  head, noise = model.decoder.head, model.decoder.history_noise
  grids = {'': {}}
  if head.takes_steps:
    counts = (1, 4, 16) if head.takes_solver else (1, 4)
    grids = {
        f'{n} step{"s"[: n > 1]}, ': {'grid': times_lib.Grid(n)} for n in counts
    }
  settings = {
      f'{name}temperature {t:g}': {'temperature': t, **grid}
      for name, grid in grids.items()
      for t in (1.0, 0.7)
  }
  last = list(settings)[-2]
  if noise:
    share = noise / 10
    settings[f'{last}, {share:g} of noise shown'] = {
        **settings[last],
        'history_noise': share,
    }
  return {
      name: latent_heads.LatentSampler(ends=False, **values)
      for name, values in settings.items()
  }


def _load(path):
  model = loading.load(path)
  if not isinstance(model, latent_lm.LatentLM):
    raise config.ConfigError(
        f'--model={path} holds a {type(model).__name__}: expected one that gives'
        ' latents frame by frame'
    )
  return model


def _clips(cache, models, options, prompt):
  """Clips longer than the prompt, and as many others, spread over the split.

  Clips whose texts are longer than some model takes are left out.
  """
  fit = [
      i
      for i in np.flatnonzero(cache.frames > prompt)
      if all(_takes(model, cache[int(i)]) for model in models)
  ]
  count = min(options.clips, len(fit) // 2)
  if count < _GROUPS:
    raise config.ConfigError(
        f'--cache={options.cache} has {len(fit)} test clips of more than'
        f' {options.prompt:g} s, with texts that fit: expected {2 * _GROUPS} or more'
    )
  chosen = [
      cache[int(fit[i * len(fit) // (2 * count)])] for i in range(2 * count)
  ]
  return chosen[::2], chosen[1::2]


def _takes(model, clip):
  conditions = model.decoder.conditions
  try:
    if 'text' in conditions:
      conditions['text'].source.prepare([clip.factors.get('text')])
  except ValueError:
    return False
  return True


def _roll(model, sampler, clips, prompt, total, options):
  """Latents [B, F, L] of clips that go on."""
  return model.generate(
      np.stack([clip.latents[:prompt] for clip in clips]),
      total,
      sampler=sampler,
      conditions=_told(model, clips),
      seed=options.seed,
  ).latents


def _seconds(prompt, total, rate):
  """Frames of each second after the prompt, the last one perhaps shorter."""
  size = max(round(rate), 1)
  for first in range(prompt, total, size):
    yield slice(first, min(first + size, total))


def _distance(truth, found):
  return statistics.t_interval(
      distributions.frechet_without(truth, found, _GROUPS)
  )


def _listen(page, tokenizer, clips, rollouts, prompt, options):
  spec = tokenizer.spec
  for i in range(min(options.shown, len(clips))):
    sounds = {}
    latents = {'codec': clips[i].latents}
    latents |= {name: x[i] for name, x in rollouts.items()}
    for name, x in latents.items():
      samples = np.array([spec.samples(len(x))])
      tokens = tokenizers_base.Tokens(num_samples=samples, latents=x[None])
      sounds[name] = np.asarray(tokenizer.decode(tokens)[0])[0, : samples[0], 0]
    page.add_audio(
        'Listen',
        clips[i].factors.get('text') or clips[i].factors['id'],
        sounds,
        spec.sample_rate,
        f'{clips[i].factors["id"]}, continued after'
        f' {prompt / spec.frame_rate:.2f} s',
        prompt / spec.frame_rate,
    )


def _options(arguments):
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add(
      '--model',
      required=True,
      action='append',
      metavar='DIR',
      help='of latents, frame by frame; several times for several',
  )
  add('--cache', required=True, metavar='DIR', help='of its latents')
  add('--tokenizer', metavar='DIR', help='where its codec is')
  add('--out', required=True, type=pathlib.Path, help='the page')
  add(
      '--clips',
      type=launch.number(int, lambda x: x >= _GROUPS, f'at least {_GROUPS}'),
      default=40,
  )
  add(
      '--shown',
      type=launch.number(int, lambda x: x >= 0, 'at least 0'),
      default=4,
  )
  seconds = launch.number(float, lambda x: 0 < x < 600, 'seconds, up to 600')
  add('--prompt', type=seconds, default=1.0, help='seconds that are given')
  add('--seconds', type=seconds, default=6.0, help='that are drawn')
  count = launch.number(int, lambda x: x > 0, 'at least 1')
  add('--scored', type=count, default=100, help='frames, at most')
  add('--likelihood_steps', type=count, default=32)
  add('--seed', type=launch.number(int, lambda x: x >= 0, 'from 0'), default=0)
  return parser.parse_args(arguments)


if __name__ == '__main__':
  main(sys.argv[1:])
