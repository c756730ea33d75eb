"""Benchmarks: the loop, the input pipeline, and codecs beside transformers'.

python tools/bench.py loop
python tools/bench.py data --config.crop_seconds=1
python tools/bench.py memory --minutes=1,60 [--tokenizer=DIR]
python tools/bench.py codec [--codecs=encodec,dac,mimi] [--batches=1,8]
python tools/bench.py streaming
python tools/bench.py decode [--sizes=25M,100M] [--batches=1,8]
python tools/bench.py train [--size=25M]

`loop`: time a step of the training loop takes beyond the compiled step, with a
trivial model; the two are measured in turns. Goal: under 2 ms.
`data`: how many times real time the input pipeline delivers. Goal: 300.
`memory`: peak memory and speed of encoding a file to a file and back, each
length in a process of its own. Goal: the longest within 1.2x of the shortest.
`codec`: encoding and decoding 10 s, beside transformers with the same weights.
Goal: 2x its speed, or 70% of the machine's matmul peak where that is less.
`streaming`: latency of Mimi's frames of 80 ms. Goal: twice real time.
`decode`: tokens a second of generation, beside transformers with the same
weights. Goal: 3x its speed at 25M, 70% of the memory's bound at 100M.
`train`: tokens a second of training, beside transformers with the same weights.
Goal: 1.3x its speed.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

from absl import logging  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402

from audiolm_jax import assembly as assembly_lib  # noqa: E402
from audiolm_jax import config  # noqa: E402
from audiolm_jax.models import loading  # noqa: E402
from audiolm_jax import train  # noqa: E402
from audiolm_jax.audio import streams  # noqa: E402
from audiolm_jax.data import audio_crops  # noqa: E402
from audiolm_jax.data import synthetic  # noqa: E402
from audiolm_jax.models import audio_tokenizer  # noqa: E402
from audiolm_jax.objectives import toy  # noqa: E402
from audiolm_jax.tokenizers import bottlenecks  # noqa: E402
from audiolm_jax.tokenizers import codec as codec_lib  # noqa: E402
from audiolm_jax.tokenizers import parts  # noqa: E402
from audiolm_jax.training import checkpoints  # noqa: E402
from audiolm_jax.training import config_files  # noqa: E402
from audiolm_jax.training import launch  # noqa: E402
from audiolm_jax.training import mesh as mesh_lib  # noqa: E402
from audiolm_jax.training import optimizers  # noqa: E402
from audiolm_jax.training import step as step_lib  # noqa: E402


def _settings(steps: int) -> train.Config:
  return train.Config(
      objective=toy.Toy(),
      data=synthetic.Synthetic(),
      models={
          'mlp': train.ModelTraining(
              schedule=optimizers.Cosine(), clip=1.0, ema=0.99
          )
      },
      steps=steps,
      log_every=10,
      eval_every=steps,
      checkpoint=checkpoints.Config(every=10 * steps),
  )


def _time_loop(steps: int) -> float:
  """Seconds a step within the loop, start-up and last checkpoint left out."""
  spent = []
  loop, save = train._Run._loop, train._Run._save

  def timed(self, *args):
    then = time.perf_counter()
    try:
      return loop(self, *args)
    finally:
      spent.append(time.perf_counter() - then)

  train._Run._loop = timed
  train._Run._save = lambda self, state, step: self._drain()
  try:
    with tempfile.TemporaryDirectory() as workdir:
      train.train(_settings(steps), workdir)
  finally:
    train._Run._loop, train._Run._save = loop, save
  return spent[0] / steps


def _time_step(steps: int) -> float:
  """Seconds a step of the compiled step alone, back to back on one batch."""
  assembly = assembly_lib.Assembly(_settings(steps))
  source = assembly.config.data.open(batch_size=8, seed=0, shard=(0, 1))
  with jax.set_mesh(assembly.mesh):
    batch = mesh_lib.put_batch(source.next(None), assembly.mesh)
    state = assembly.create()
    step = jax.jit(
        step_lib.Step(assembly.objective, assembly.model_optimizers),
        donate_argnums=0,
        out_shardings=(assembly.shardings, None),
    )
    rates = step_lib.rates(assembly.model_optimizers, state.step)
    compiled = step.lower(state, batch, rates).compile()
    state, metrics = compiled(state, batch, rates)
    jax.block_until_ready((state, metrics))
    then = time.perf_counter()
    for _ in range(steps):
      state, metrics = compiled(state, batch, rates)
    jax.block_until_ready((state, metrics))
    return (time.perf_counter() - then) / steps


def loop(options, overrides) -> int:
  """Prints both times and their difference."""
  del overrides
  _time_loop(20)
  rounds = [
      (_time_loop(options.steps), _time_step(options.steps))
      for _ in range(options.rounds)
  ]
  loops, steps = zip(*rounds, strict=True)
  extra = statistics.median(a - b for a, b in rounds)
  print(f'loop            {1e3 * statistics.median(loops):.3f} ms a step')
  print(f'compiled step   {1e3 * statistics.median(steps):.3f} ms a step')
  print(f'overhead        {1e3 * extra:.3f} ms a step (goal: < 2)')
  return 0 if extra < 2e-3 else 1


def data(options, overrides) -> int:
  """Prints seconds of audio delivered a second."""
  settings = config_files.override(
      audio_crops.AudioCrops(sample_rate=16000, channels=1), overrides
  )
  source = settings.open(batch_size=options.batch_size, seed=0, shard=(0, 1))
  print(
      {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
  )
  rates = []
  try:
    source.next(None)
    for _ in range(options.rounds):
      then = time.perf_counter()
      samples = sum(
          float(source.next(None)['num_samples'].sum())
          for _ in range(options.steps)
      )
      elapsed = time.perf_counter() - then
      rates.append(samples / settings.sample_rate / elapsed)
  finally:
    source.close()
  rate = statistics.median(rates)
  print(f'{rate:.0f} x real time (goal: >= 300); {min(rates):.0f} at least')
  return 0 if rate >= 300 else 1


def memory(options, overrides) -> int:
  """Prints peak memory and speed of long files, for each length."""
  del overrides
  peaks = []
  with tempfile.TemporaryDirectory() as folder:
    for minutes in options.minutes:
      path = pathlib.Path(folder) / 'in.wav'
      _write_noise(path, minutes)
      command = [sys.executable, __file__, 'transcode', str(path)]
      if options.tokenizer:
        command.append(f'--tokenizer={options.tokenizer}')
      found = subprocess.run(command, check=True, stdout=subprocess.PIPE)
      found = json.loads(found.stdout.splitlines()[-1])
      peaks.append(found['peak'])
      print(
          f'{minutes:g} min: peak {found["peak"] / 1e6:.0f} MB; encoded'
          f' {found["encode"]:.0f}, decoded {found["decode"]:.0f} times real'
          f' time; {found["kbps"]:.2f} kbps',
          flush=True,
      )
  ratio = max(peaks) / peaks[0]
  print(f'{ratio:.3f} x the memory of the first (goal: <= 1.2)')
  return 0 if ratio <= 1.2 else 1


def transcode(options, overrides) -> int:
  """Encodes and decodes one file; prints what it took as JSON."""
  del overrides
  if options.tokenizer:
    tokenizer = loading.load_codec(options.tokenizer)
  else:
    codec = _recommended()
    variables = jax.jit(codec.init)(jax.random.key(0))
    tokenizer = audio_tokenizer.AudioTokenizer(codec, variables)
  path = pathlib.Path(options.path)
  tokens, back = path.with_suffix('.tokens'), path.with_name('back.wav')
  seconds = {}
  for name, function, one, other in (
      ('encode', tokenizer.encode_long, path, tokens),
      ('decode', tokenizer.decode_long, tokens, back),
  ):
    then = time.perf_counter()
    report = function(one, other, show=False)
    seconds[name] = time.perf_counter() - then
  duration = report.samples / tokenizer.spec.sample_rate
  # Unlike ru_maxrss it leaves out what the parent had before the exec.
  status = pathlib.Path('/proc/self/status').read_text()
  found = {name: duration / spent for name, spent in seconds.items()}
  found['peak'] = 1024 * int(status.partition('VmHWM:')[2].split()[0])
  found['kbps'] = 8e-3 * tokens.stat().st_size / duration
  print(json.dumps(found))
  return 0


def codec(options, overrides) -> int:
  del overrides
  import bench_codec  # pylint: disable=g-import-not-at-top  # imports torch

  unknown = sorted(set(options.codecs) - set(bench_codec.CODECS))
  if unknown:
    raise config.ConfigError(f'--codecs: {unknown}; of {bench_codec.CODECS}')
  return bench_codec.codec(options)


def streaming(options, overrides) -> int:
  del overrides
  import bench_codec  # pylint: disable=g-import-not-at-top  # imports torch

  return bench_codec.streaming(options)


def decode(options, overrides) -> int:
  del overrides
  import bench_decode  # pylint: disable=g-import-not-at-top  # imports torch

  return bench_decode.decode(options)


def train_lm(options, overrides) -> int:
  del overrides
  import bench_decode  # pylint: disable=g-import-not-at-top  # imports torch

  return bench_decode.train(options)


def _recommended():
  """The quickstart's codec, fresh."""
  return codec_lib.Codec(
      encoder=parts.SpectralEncoder(),
      bottleneck=bottlenecks.Rvq(),
      decoder=parts.SpectralDecoder(),
  )


def _write_noise(path, minutes: float) -> None:
  """Stereo noise at 44.1 kHz, so that resampling and mixing are in it."""
  rng = np.random.default_rng(0)
  second = rng.uniform(-0.3, 0.3, (44100, 2)).astype(np.float32)
  with streams.create(path, 44100, 2) as writer:
    for _ in range(round(60 * minutes)):
      writer.write(second)


def _numbers(text: str) -> list[float]:
  return [float(word) for word in text.split(',')]


def _counts(text: str) -> list[int]:
  return [int(word) for word in text.split(',')]


def _words(text: str) -> list[str]:
  return text.split(',')


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  commands = parser.add_subparsers(required=True)
  for function, steps in ((loop, 500), (data, 200)):
    command = commands.add_parser(function.__name__)
    command.add_argument('--steps', type=int, default=steps)
    command.add_argument('--rounds', type=int, default=5)
    command.add_argument('--batch_size', type=int, default=8)
    command.set_defaults(function=function)
  command = commands.add_parser('memory')
  command.add_argument('--minutes', type=_numbers, default=[1.0, 60.0])
  command.add_argument('--tokenizer', help='directory; default: a fresh codec')
  command.set_defaults(function=memory)
  command = commands.add_parser('transcode')
  command.add_argument('path')
  command.add_argument('--tokenizer')
  command.set_defaults(function=transcode)
  command = commands.add_parser('codec')
  command.add_argument(
      '--codecs', type=_words, default=_words('encodec,dac,mimi')
  )
  command.add_argument('--batches', type=_counts, default=[1, 8])
  command.add_argument('--seconds', type=float, default=10.0)
  command.add_argument('--rounds', type=int, default=5)
  command.set_defaults(function=codec)
  command = commands.add_parser('streaming')
  command.add_argument('--seconds', type=float, default=30.0)
  command.set_defaults(function=streaming)
  command = commands.add_parser('decode')
  command.add_argument('--sizes', type=_words, default=_words('25M,100M'))
  command.add_argument('--batches', type=_counts, default=[1, 8])
  command.add_argument('--tokens', type=int, default=128)
  command.add_argument('--rounds', type=int, default=5)
  command.add_argument(
      '--compile_seconds', type=int, default=240, help='0: no torch.compile'
  )
  command.set_defaults(function=decode)
  command = commands.add_parser('train')
  command.add_argument('--size', default='25M')
  command.add_argument('--batch', type=int, default=4)
  command.add_argument('--length', type=int, default=512)
  command.add_argument('--rounds', type=int, default=5)
  command.add_argument('--scan', action='store_true', help='of our layers')
  command.add_argument(
      '--compile_seconds', type=int, default=240, help='0: no torch.compile'
  )
  command.set_defaults(function=train_lm)
  options, rest = parser.parse_known_args(argv)
  launch.prepare()
  logging.set_verbosity(logging.WARNING)
  try:
    return options.function(options, [a.lstrip('-') for a in rest])
  except config.ConfigError as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  launch.reexecute()
  sys.exit(main(sys.argv[1:]))
