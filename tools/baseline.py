"""Records what every config family computes, to the bit, and compares later.

  python tools/baseline.py record tests/baseline.json
  python tools/baseline.py check tests/baseline.json [--only=ladder]

Each config of configs/ (the size 'smoke') trains for 20 steps on the English
prompts, from which one codec and one token cache are made first; or on its own
clips of speech_world, if it names any. Of each run
the file keeps the last loss, and digests of all metrics, of the final
parameters, of the evaluation, and of what the trained model gives: codes (or
latents) and audio of a fixed input, or greedy continuations of fixed prompts.

Sums depend on the machine and the versions, which are in the file, too: where
they differ, `check` says so and compares nothing. About 15 minutes on 2 cores.
Exit code 0 if all is equal. A change that means to move numbers records again,
and says why.
"""

import argparse
import gc
import hashlib
import importlib
import json
import os
import pathlib
import platform
import re
import sys
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import flax  # noqa: E402
import jax  # noqa: E402
import jaxlib  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

import audiolm_jax  # noqa: E402
from audiolm_jax import assembly as assembly_lib  # noqa: E402
from audiolm_jax import config  # noqa: E402
from audiolm_jax import generation  # noqa: E402
from audiolm_jax import objectives  # noqa: E402
from audiolm_jax import train  # noqa: E402
from audiolm_jax.data import corpora  # noqa: E402
from audiolm_jax.data import token_cache  # noqa: E402
from audiolm_jax.decoders import latent_heads  # noqa: E402
from audiolm_jax.generation import unmask  # noqa: E402
from audiolm_jax.models import audio_tokenizer  # noqa: E402
from audiolm_jax.models import caching  # noqa: E402
from audiolm_jax.models import frames_lm  # noqa: E402
from audiolm_jax.models import flow_lm  # noqa: E402
from audiolm_jax.models import latent_lm  # noqa: E402
from audiolm_jax.models import masked_lm  # noqa: E402
from audiolm_jax.models import recogniser as recogniser_lib  # noqa: E402
from audiolm_jax.models import sample_lm  # noqa: E402
from audiolm_jax.models import segment_lm  # noqa: E402
from audiolm_jax.models import token_lm  # noqa: E402
from audiolm_jax.processes import times as times_lib  # noqa: E402
from audiolm_jax.processes import unmasking  # noqa: E402
from audiolm_jax.training import config_files  # noqa: E402
from audiolm_jax.training import launch  # noqa: E402
from audiolm_jax.training import writers  # noqa: E402

ROOT = pathlib.Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))  # configs/ are modules, too.
STEPS = 20
# Of the token cache, a split.
CLIPS = 24
CORPUS = 'asterisk_prompts'
# What knows of its clips what no other corpus does, and is made in a minute.
WORLD = 'speech_world'
CODEC = 'configs/codec/quickstart.py'
# Of the latents, for models of these.
VAE = 'configs/codec/quickstart_vae.py'
# What their tokens are called.
CACHES = {CODEC: 'tokens', VAE: 'latents'}
# Runs that others start from, by the config of each.
BASES = {'runs/flow/lm': 'configs/lm/flow.py'}

_OF_FRAMES = (
    frames_lm.FramesLM,
    flow_lm.FlowLM,
    latent_lm.LatentLM,
    segment_lm.SegmentLM,
)


def configs() -> list[str]:
  """Every config but for its size, such as 'configs/lm/ladder.py:gqa'.

  Files are relative to the checkout. The codecs of the tokens are first.
  """
  names = []
  for path in sorted(ROOT.glob('configs/**/*.py')):
    if 'def get_config(' in path.read_text():
      name = path.relative_to(ROOT).as_posix()
      module = importlib.import_module(name[: -len('.py')].replace('/', '.'))
      variants = getattr(module, 'VARIANTS', None)
      names += [f'{name}:{v}' for v in variants] if variants else [name]
  return [*CACHES, *(name for name in names if name not in CACHES)]


def machine() -> dict[str, str]:
  """What the sums depend on."""
  lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  facts = {}
  for line in lines:
    name, _, value = line.partition(':')
    facts.setdefault(name.strip(), value.strip())
  flags = ' '.join(sorted(facts.get('flags', '').split()))
  return {
      'processor': facts.get('model name', platform.processor()),
      # XLA compiles for them.
      'flags': hashlib.sha256(flags.encode()).hexdigest()[:16],
      'cores': str(len(os.sched_getaffinity(0))),
      'python': platform.python_version(),
      **{
          module.__name__: module.__version__
          for module in (jax, jaxlib, flax, optax, np)
      },
  }


def digest(tree) -> str:
  """Of all arrays and numbers of a tree, whatever their names are."""
  hashes = []
  for leaf in jax.tree.leaves(tree):
    array = np.ascontiguousarray(leaf)
    kind = f'{array.dtype}{array.shape}'.encode()
    hashes.append(hashlib.sha256(kind + array.tobytes()).hexdigest())
  # Sorted: a leaf that only changes its name is the same.
  return hashlib.sha256(''.join(sorted(hashes)).encode()).hexdigest()[:16]


def run(path: str, work: pathlib.Path) -> dict[str, str]:
  """Trains a config at the size 'smoke'; what is compared of it."""
  settings = config_files.read(
      f'{ROOT / path},smoke' if ':' in path else f'{ROOT / path}:smoke'
  )
  latents = isinstance(settings.objective, objectives.Denoising)
  tokens = str(work / CACHES[VAE if latents else CODEC])
  changes = {
      'steps': STEPS,
      'log_every': 1,
      'eval_every': STEPS,
      'checkpoint.every': STEPS,
  }
  groups = {'data': settings.data}
  for name, evaluator in settings.evaluators.items():
    key = f'evaluators.{name}'
    groups[key] = evaluator
    for inner in ('clips', 'source'):
      if hasattr(groups[key], inner):
        groups[f'{key}.{inner}'] = getattr(groups[key], inner)
        key = f'{key}.{inner}'
  for name, group in groups.items():
    if hasattr(group, 'cache'):
      changes[f'{name}.cache'] = tokens
    if getattr(group, 'corpus', None) == WORLD:
      corpora.prepare(WORLD, group.languages)
    elif hasattr(group, 'corpus'):
      changes |= {f'{name}.corpus': CORPUS, f'{name}.languages': ('en',)}
  for name, model in settings.models.items():
    if model.init_from is not None:
      base = BASES[model.init_from]
      if not _workdir(work, base).exists():
        run(base, work)
      changes[f'models.{name}.init_from'] = str(_workdir(work, base))
  workdir = _workdir(work, path)
  results = train.train(config.replace(settings, changes), workdir)
  records = [
      {k: v for k, v in r.items() if not k.startswith(('time/', 'cost/'))}
      for r in writers.read_metrics(workdir)
  ]
  scores = {k: v for k, v in results.items() if k.startswith('eval/')}
  _, state = assembly_lib.restore(workdir)
  return {
      'loss': repr(records[-1].get('loss', results.get('loss'))),
      'metrics': digest(records),
      'parameters': digest((state.trainable, state.model_state)),
      'evaluation': digest(scores),
      'output': digest(output(audiolm_jax.load(workdir), tokens)),
      'workdir': str(workdir),
  }


def _workdir(work, path):
  return work / re.sub('[/:]', '-', path)


def output(model, tokens: str):
  """What a trained model makes of fixed inputs."""
  if isinstance(model, audio_tokenizer.AudioTokenizer):
    spec = model.spec
    count = int(0.4 * spec.sample_rate)
    audio = np.random.default_rng(0).standard_normal(
        (2, count, spec.channels), np.float32
    )
    lengths = np.array([count, count // 3])
    encoded = model.encode(0.1 * audio, lengths)
    return encoded, model.decode(encoded)
  if isinstance(model, sample_lm.SampleLM):
    prompt = np.sin(np.arange(60, dtype=np.float32))[None, :, None] / 4
    return model.generate(
        prompt, seconds=100 / model.sample_rate, temperature=0.0
    )
  if isinstance(model, recogniser_lib.PhoneRecogniser):
    audio = np.random.default_rng(0).standard_normal((2, 9000, 1), np.float32)
    return model.logits(0.1 * audio, np.array([9000, 3000]))
  if not isinstance(model, _OF_FRAMES):
    return model.variables
  cache = token_cache.TokenCache(tokens, 'train')
  if isinstance(model, flow_lm.FlowLM):
    given = np.stack([cache[i].latents[:24] for i in range(2)])
    mask = np.broadcast_to(np.arange(24) < 9, (2, 24))
    return model.generate(
        24,
        np.array([24, 20]),
        given=given,
        given_mask=mask,
        grid=times_lib.Grid(4),
    )
  lengths = np.array([9, 5])
  if isinstance(model, latent_lm.LatentLM):
    prompt = np.stack([cache[i].latents[:9] for i in range(2)])
    sampler = latent_heads.LatentSampler(ends=False)
    return model.generate(prompt, 24, num_frames=lengths, sampler=sampler)
  slots = len(model.decoder.vocabularies)
  greedy = generation.Sampler(temperature=0.0)
  if isinstance(model, segment_lm.SegmentLM):
    codes = np.stack([cache[i].codes[:12, : slots - 1] for i in range(2)])
    given = {'text': np.full((2, 4, 1), 97), 'speech': codes}
    return model.generate(
        given,
        {'text': np.array([4, 4]), 'speech': np.array([12, 12])},
        {'text': np.array([4, 4]), 'speech': lengths},
        sampler=greedy,
    )
  codes = np.stack([cache[i].codes[:24, :slots] for i in range(2)])
  # A model of words has fewer of them.
  codes = np.minimum(codes, np.array(model.decoder.vocabularies) - 1)
  if isinstance(model, token_lm.StageLM):
    return model.score(codes[:, :9], lengths)['frames'].log_prob
  how = {'sampler': greedy}
  if isinstance(model, masked_lm.MaskedLM):
    order = unmasking.ConfidenceOrder(noise=0.0)
    how = {'plans': [unmask.Plan(order, 4, sampler=greedy)]}
  return model.generate(codes[:, :9], 24, num_frames=lengths, **how)


def record(only: str, work: pathlib.Path) -> dict:
  """What each config gives, by its name."""
  launch.prepare()
  corpora.prepare(CORPUS, ('en',))
  runs = {}
  for path in configs():
    if only not in path and path not in CACHES:
      continue
    runs[path] = run(path, work)
    workdir = runs[path].pop('workdir')
    print(path, runs[path], flush=True)
    if path in CACHES:
      caching.fill(
          audiolm_jax.load(workdir),
          work / CACHES[path],
          corpus=CORPUS,
          workdir=workdir,
          languages=('en',),
          limit=CLIPS,
      )
    # A hundred programs would not fit.
    jax.clear_caches()
    gc.collect()
  return {'machine': machine(), 'runs': runs}


def differences(old: dict, new: dict) -> list[str]:
  """Lines that name each run and entry that differ."""
  lines = [f'{path}: new' for path in new.keys() - old.keys()]
  for path in sorted(old.keys() & new.keys()):
    lines += [
        f'{path}: {name} was {old[path].get(name)}, is {value}'
        for name, value in new[path].items()
        if old[path].get(name) != value
    ]
  return lines


def main():
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('command', choices=['record', 'check'])
  parser.add_argument('file', type=pathlib.Path)
  parser.add_argument(
      '--only', default='', help='of the config files, those that hold this'
  )
  options = parser.parse_args()
  stored = None
  if options.command == 'check':
    stored = json.loads(options.file.read_text())
    if stored['machine'] != machine():
      print(
          f'{options.file} was recorded on {stored["machine"]}, this is'
          f' {machine()}: nothing was compared.'
      )
      return 0
  with tempfile.TemporaryDirectory() as work:
    result = record(options.only, pathlib.Path(work))
  if stored is None:
    text = json.dumps(result, indent=2) + '\n'
    writers.write_atomically(options.file, text)
    return 0
  lines = differences(stored['runs'], result['runs'])
  print('\n'.join(lines) or f'{len(result["runs"])} runs are equal.')
  return bool(lines)


if __name__ == '__main__':
  sys.exit(main())
