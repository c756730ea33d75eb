"""Two checkouts timed in turns: does a change make anything slower?

python tools/bench_versions.py BEFORE AFTER [--calls=encode,train] [--rounds=10]

BEFORE and AFTER are checkouts (`git worktree add BEFORE COMMIT`). A process
each keeps its compiled programs; the calls go to one and the other in turns, so
that a busy machine slows both. How fast a process is depends on the memory it
got, too, so both are started three times.
Prints, for each call, the median of AFTER's time over BEFORE's, round by round,
with the quartiles, and the median of each start. Exit code 1 if a median is
above 1.03 and those of all starts above 1.

Calls: encoding and decoding 10 s with the recommended codec (1 row) and with
EnCodec's (8 rows), generation with the quickstart's language model at 1 and at
8 rows, 1,000 samples of a WaveNet, and a training step of the language model, of
the codec and of a GAN codec, each of the size 'cpu'.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

_MOST = 1.03
_WARM_UP = 2


def _codec(path, rows):
  """Encoding and decoding of a codec with random weights."""
  import jax  # pylint: disable=g-import-not-at-top
  import numpy as np  # pylint: disable=g-import-not-at-top

  objective = _settings(path).objective
  variables = jax.jit(objective.init)(jax.random.key(0))
  model = objective.bind(_unboxed(variables))
  samples = 10 * model.spec.sample_rate
  audio = np.random.default_rng(0).standard_normal(
      (rows, samples, model.spec.channels), np.float32
  )
  lengths = np.full(rows, samples)
  tokens = jax.block_until_ready(model.encode(0.1 * audio, lengths))
  return {
      'encode': lambda: jax.block_until_ready(
          model.encode(0.1 * audio, lengths)
      ),
      'decode': lambda: jax.block_until_ready(model.decode(tokens)),
  }


def _lm(rows):
  """Generation of 100 frames after 28 of a prompt."""
  import jax  # pylint: disable=g-import-not-at-top
  import numpy as np  # pylint: disable=g-import-not-at-top

  objective = _settings('configs/lm/quickstart').objective
  variables = jax.jit(objective.init)(jax.random.key(0))
  model = objective.bind(_unboxed(variables))
  slots = len(model.decoder.vocabularies)
  prompt = np.random.default_rng(0).integers(0, 1024, (rows, 28, slots))
  return lambda: model.generate(prompt, 128)


def _wavenet():
  import jax  # pylint: disable=g-import-not-at-top
  import numpy as np  # pylint: disable=g-import-not-at-top

  from audiolm_jax import assembly as assembly_lib  # pylint: disable=g-import-not-at-top

  settings = _settings('configs/lm/wavenet', 'mu_law')
  objective = assembly_lib.Assembly(settings).objective
  variables = jax.jit(objective.init)(jax.random.key(0))
  model = objective.bind(_unboxed(variables))
  prompt = np.zeros((1, 10, model.decoder.channels), np.float32)
  seconds = 1000 / model.sample_rate
  return lambda: model.generate(prompt, seconds)


def _training(path):
  """A step of training on one batch of noise or random codes."""
  import jax  # pylint: disable=g-import-not-at-top
  import numpy as np  # pylint: disable=g-import-not-at-top

  from audiolm_jax import assembly as assembly_lib  # pylint: disable=g-import-not-at-top
  from audiolm_jax.training import mesh as mesh_lib  # pylint: disable=g-import-not-at-top
  from audiolm_jax.training import step as step_lib  # pylint: disable=g-import-not-at-top

  assembly = assembly_lib.Assembly(_settings(path))
  rng = np.random.default_rng(0)
  batch = assembly.objective.example_batch(assembly.config.batch_size)
  for name, value in batch.items():
    if name == 'codes':
      batch[name] = rng.integers(0, 1024, value.shape).astype(value.dtype)
    elif name in ('lengths', 'num_frames', 'num_samples'):
      longest = next(
          batch[k].shape[1] for k in ('codes', 'audio') if k in batch
      )
      batch[name] = np.full_like(value, longest)
    elif name == 'audio':
      batch[name] = 0.1 * rng.standard_normal(value.shape, np.float32)
  mesh = assembly.mesh
  with jax.set_mesh(mesh):
    state = assembly.create()
    if hasattr(step_lib, 'rates'):  # Since learning rates are inputs.
      optimizers = assembly.model_optimizers
      make, rates = step_lib.Step, (step_lib.rates(optimizers, state.step),)
    else:
      optimizers, make, rates = assembly.learners, step_lib.make, ()
    step = jax.jit(
        make(assembly.objective, optimizers),
        donate_argnums=0,
        out_shardings=(
            assembly.shardings,
            jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()),
        ),
    )
    batch = mesh_lib.put_batch(batch, mesh)
    compiled = step.lower(state, batch, *rates).compile()

  def call():
    nonlocal state
    state, metrics = compiled(state, batch, *rates)
    return jax.block_until_ready(metrics)

  return call


def _settings(family, variant=''):
  """A config of the checkout, in the form that it has them."""
  from audiolm_jax import config  # pylint: disable=g-import-not-at-top

  try:
    from audiolm_jax.training import config_files  # pylint: disable=g-import-not-at-top
  except ImportError:  # A checkout from before configs were objects.
    from audiolm_jax import train  # pylint: disable=g-import-not-at-top
    from audiolm_jax.training import launch  # pylint: disable=g-import-not-at-top

    values = launch.read_config(
        f'{"/".join([family, variant]).strip("/")}.py:cpu'
    )
    if 'codebooks' in values.objective:
      values.objective.codebooks = None
    return config.build(train.Config, values)
  settings = config_files.read(
      f'{family}.py:' + ','.join(filter(None, [variant, 'cpu']))
  )
  # Random vectors will do; older checkouts name a cache of others.
  for name, value in (('init_embeddings', False), ('codebooks', None)):
    if hasattr(settings.objective, name):
      settings = config.replace(settings, {f'objective.{name}': value})
  return config.build(type(settings), settings)


def _unboxed(variables):
  import flax.linen as nn  # pylint: disable=g-import-not-at-top

  return nn.meta.unbox(variables)


def _serve(names):
  """Prepares calls; then makes each that is named on stdin, and says its time."""
  from audiolm_jax.training import launch  # pylint: disable=g-import-not-at-top

  launch.prepare()
  makers = {
      'codec': lambda: _codec('configs/codec/causal_16khz', 1),
      'encodec': lambda: _codec('configs/codec/encodec_24khz', 8),
      'generate_1': lambda: {'': _lm(1)},
      'generate_8': lambda: {'': _lm(8)},
      'wavenet': lambda: {'': _wavenet()},
      'train_lm': lambda: {'': _training('configs/lm/quickstart')},
      'train_codec': lambda: {'': _training('configs/codec/causal_16khz')},
      'train_gan': lambda: {'': _training('configs/codec/encodec_24khz')},
  }
  calls = {}
  for name, make in makers.items():
    if not names or any(n in name for n in names):
      for part, call in make().items():
        calls[f'{name} {part}'.strip()] = call
  print('CALLS ' + ','.join(calls), flush=True)
  for line in sys.stdin:
    call = calls[line.strip()]
    then = time.perf_counter()
    call()
    print(f'TIME {time.perf_counter() - then}', flush=True)


class _Version:
  """A checkout's process."""

  def __init__(self, checkout: pathlib.Path, names: str):
    script = pathlib.Path(__file__).absolute()
    self._process = subprocess.Popen(
        [
            sys.executable,
            str(script),
            'serve',
            str(checkout),
            f'--calls={names}',
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=checkout,
        env={
            **os.environ,
            'PYTHONPATH': str(checkout),
            'JAX_PLATFORMS': 'cpu',
        },
    )
    self.calls = self._answer('CALLS').split(',')

  def _answer(self, word: str) -> str:
    for line in self._process.stdout:
      if line.startswith(word + ' '):
        return line.removeprefix(word + ' ').strip()
    raise RuntimeError(f'{self._process.args} ended: see above')

  def seconds(self, call: str) -> float:
    print(call, file=self._process.stdin, flush=True)
    return float(self._answer('TIME'))

  def close(self):
    self._process.stdin.close()
    self._process.wait()


def _ratios(before, after, call, rounds) -> tuple[list[float], list[float]]:
  """AFTER's times over BEFORE's, and BEFORE's in seconds."""
  ratios, times = [], []
  for i in range(-_WARM_UP, rounds):
    # Each goes first every other time.
    pair = (before, after) if i % 2 else (after, before)
    spent = {version: version.seconds(call) for version in pair}
    if i >= 0:
      ratios.append(spent[after] / spent[before])
      times.append(spent[before])
  return ratios, times


def _report(call, starts) -> bool:
  """Prints a call's ratios; whether it did not become slower."""
  ratios = [ratio for found, _ in starts for ratio in found]
  times = [seconds for _, found in starts for seconds in found]
  low, middle, high = statistics.quantiles(ratios, n=4)
  each = [statistics.median(found) for found, _ in starts]
  slower = middle > _MOST and min(each) > 1
  print(
      f'{call:16} {middle:.3f} [{low:.3f}, {high:.3f}] of'
      f' {1e3 * statistics.median(times):7.1f} ms; by start'
      f' {", ".join(f"{ratio:.3f}" for ratio in each)}'
      f'{"  SLOWER" if slower else ""}; load {os.getloadavg()[0]:.1f}',
      flush=True,
  )
  return not slower


def main() -> int:
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('before')
  parser.add_argument('after', type=pathlib.Path)
  parser.add_argument(
      '--calls', default='', help='those whose names hold these'
  )
  parser.add_argument('--rounds', type=int, default=10)
  parser.add_argument('--starts', type=int, default=3)
  options = parser.parse_args()
  if options.before == 'serve':
    _serve([name for name in options.calls.split(',') if name])
    return 0
  found = {}
  for _ in range(options.starts):
    versions = [
        _Version(pathlib.Path(path).absolute(), options.calls)
        for path in (options.before, options.after)
    ]
    try:
      for call in versions[0].calls:
        ratios = _ratios(*versions, call, options.rounds)
        found.setdefault(call, []).append(ratios)
    finally:
      for version in versions:
        version.close()
  good = [_report(call, starts) for call, starts in found.items()]
  return 0 if all(good) else 1


if __name__ == '__main__':
  sys.exit(main())
