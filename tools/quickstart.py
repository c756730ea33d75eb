"""From real speech to a report you can listen to, in one command.

  python tools/quickstart.py --workdir=runs/quickstart [--budget=cpu|smoke]

Fetches speech, trains a codec, caches its tokens, trains a language model on
them, generates, and writes report.html and summary.json in the work directory.
Each stage is a command of its own, printed before it runs; interrupted and run
again, it goes on where it was. 8 minutes on 2 cores; `smoke` 90 seconds.
"""

import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

from absl import app
from absl import flags
import rich.console

from audiolm_jax.training import writers

_WORKDIR = flags.DEFINE_string(
    'workdir', 'runs/quickstart', 'Directory of the run.'
)
_BUDGET = flags.DEFINE_enum(
    'budget', 'cpu', ['cpu', 'smoke'], 'How much to train.'
)
_CORPUS = flags.DEFINE_string(
    'corpus',
    'asterisk_prompts',
    'What to train on; falls back on espeak_sentences where it is not to be'
    ' had.',
)

_ROOT = pathlib.Path(__file__).absolute().parent.parent
_FALLBACK = 'espeak_sentences'
_STAGES = 'stages.json'
_LANGUAGES = {'cpu': 'en,fr,es', 'smoke': 'en'}


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  console = rich.console.Console(highlight=False, soft_wrap=True)
  # Stages run in the checkout, where the config files are.
  workdir = pathlib.Path(_WORKDIR.value).absolute()
  if workdir.is_relative_to(_ROOT):
    workdir = workdir.relative_to(_ROOT)
  os.chdir(_ROOT)
  workdir.mkdir(parents=True, exist_ok=True)
  start = time.monotonic()
  corpus = _fetch(console, workdir)
  for name, purpose, command in _stages(workdir, corpus):
    _run(console, workdir, name, purpose, command)
  console.print(
      f'\n[bold]Done[/bold] in {time.monotonic() - start:.0f} s. Open'
      f' {workdir}/report.html'
  )


def _stages(workdir, corpus):
  """(name, purpose, command) of each stage after the corpus."""
  budget = _BUDGET.value
  languages = _LANGUAGES[budget]
  python = os.path.basename(sys.executable)
  codec = f'configs/codec/quickstart.py:{budget}'
  lm = f'configs/lm/quickstart.py:{budget}'
  yield (
      'tokenizer',
      'train a neural audio codec: speech <-> tokens',
      f'{python} -m audiolm_jax.main --config={codec}'
      f' --workdir={workdir}/tokenizer --config.data.corpus={corpus}',
  )
  yield (
      'tokens',
      'cache the tokens of the whole corpus',
      f'{python} tools/tokenize_audio.py corpus'
      f' --tokenizer={workdir}/tokenizer'
      f' --corpus={corpus} --languages={languages} --out={workdir}/tokens'
      + (' --limit=60' if budget == 'smoke' else ''),
  )
  yield (
      'lm',
      'train a language model on the tokens',
      f'{python} -m audiolm_jax.main --config={lm} --workdir={workdir}/lm'
      f' --config.data.cache={workdir}/tokens'
      f' --config.objective.codebooks={workdir}/tokens'
      f' --config.evaluators.lm.cache={workdir}/tokens',
  )
  yield (
      'report',
      'generate, and write the report',
      f'{python} tools/report.py --workdir={workdir}'
      + (' --clips=6 --listen=2' if budget == 'smoke' else ''),
  )


def _fetch(console, workdir) -> str:
  """Builds the corpus; returns the name of the one that could be had."""
  corpus = _CORPUS.value
  done = _finished(workdir).get('corpus')
  if done:
    corpus = done['corpus']
  python = os.path.basename(sys.executable)

  def build(name):
    command = (
        f'{python} tools/prepare_data.py --corpus={name}'
        f' --languages={_LANGUAGES[_BUDGET.value]}'
    )
    return _run(
        console,
        workdir,
        'corpus',
        f'fetch speech and build the corpus {name}',
        command,
        required=name == _FALLBACK,
        corpus=name,
    )

  if not build(corpus):
    console.print(
        f'[bold yellow]{corpus} is not to be had here (see above). Going on'
        f' with {_FALLBACK}: synthetic speech, made on this machine. What'
        ' follows is about synthetic speech.[/bold yellow]'
    )
    corpus = _FALLBACK
    build(corpus)
  return corpus


def _finished(workdir) -> dict[str, dict]:
  path = workdir / _STAGES
  return json.loads(path.read_text()) if path.exists() else {}


def _run(
    console, workdir, name, purpose, command, required=True, **facts
) -> bool:
  """Runs a stage unless it has finished; whether it succeeded."""
  console.print(f'\n[bold]{name}[/bold]: {purpose}')
  console.print(f'[cyan]$ {command}[/cyan]')
  finished = _finished(workdir)
  if finished.get(name, {}).get('command') == command:
    console.print('  (done before)')
    return True
  start = time.monotonic()
  # The interpreter that runs this script, whatever `python` is on the PATH.
  arguments = [sys.executable, *shlex.split(command)[1:]]
  status, interrupted = _wait(arguments)
  seconds = time.monotonic() - start
  if status and not interrupted:
    if not required:
      return False
    sys.exit(
        f'quickstart: the stage {name!r} failed (exit status {status}). What it'
        ' printed stands above; run the same command again to go on from here.'
    )
  if interrupted or not _whole(workdir / name):
    sys.exit(
        f'quickstart: interrupted in the stage {name!r}. Run the same command'
        ' again to go on from here.'
    )
  console.print(f'  {seconds:.0f} s')
  finished[name] = {'command': command, 'seconds': seconds, **facts}
  writers.write_atomically(workdir / _STAGES, json.dumps(finished, indent=2))
  return True


def _wait(arguments) -> tuple[int, bool]:
  """Runs a stage: its exit status, and whether Ctrl-C was pressed meanwhile.

  The terminal sends Ctrl-C to the stage too, which saves its work and ends;
  dying here at once would kill it before it has.
  """
  pressed = []
  old = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
  try:
    return subprocess.run(arguments, check=False).returncode, bool(pressed)
  finally:
    signal.signal(signal.SIGINT, old)


def _whole(run) -> bool:
  """False for a training run that a signal ended before its last step."""
  config = run / 'config.json'
  if not config.exists() or not (run / 'checkpoints').exists():
    return True
  steps = json.loads(config.read_text())['steps']
  return (run / 'checkpoints' / str(steps)).exists()


if __name__ == '__main__':
  app.run(main)
