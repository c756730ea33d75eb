"""From real speech to a report you can listen to, in one command.

  python tools/quickstart.py --workdir=runs/quickstart [--budget=cpu|smoke]
  python tools/quickstart.py --corpus=FOLDER --workdir=runs/mine

Fetches speech (or takes a folder of your own audio), trains a codec, caches its
tokens, trains a language model on them, generates, and writes report.html and
summary.json in the work directory. Each stage is a command of its own, printed
before it runs; interrupted and run again, it goes on where it was. 8 minutes on 2 cores; `smoke` 90 seconds.
"""

import json
import os
import pathlib
import shlex
import sys
import time

from absl import app
from absl import flags
import rich.console
import rich.markup

from audiolm_jax.training import launch
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
    'What to train on: a corpus, or a folder of audio files. Where a corpus is'
    ' not to be had, it is espeak_sentences.',
)

_ROOT = pathlib.Path(__file__).absolute().parent.parent
_FALLBACK = 'espeak_sentences'
_STAGES, _CARDS = 'stages.json', 'corpus.json'
# Corpora that are built a language at a time, and what each budget takes.
_OF_LANGUAGES = ('asterisk_prompts', _FALLBACK)
_LANGUAGES = {'cpu': 'en,fr,es', 'smoke': 'en'}


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  console = rich.console.Console(highlight=False, soft_wrap=True)
  # Stages run in the checkout, where the config files are.
  workdir = pathlib.Path(_WORKDIR.value).absolute()
  if workdir.is_relative_to(_ROOT):
    workdir = workdir.relative_to(_ROOT)
  asked = _CORPUS.value
  if asked not in _OF_LANGUAGES and os.path.exists(asked):
    asked = os.path.abspath(asked)
  os.chdir(_ROOT)
  workdir.mkdir(parents=True, exist_ok=True)
  start = time.monotonic()
  corpus = _fetch(console, workdir, asked)
  for name, purpose, arguments in _stages(workdir, corpus):
    _run(console, workdir, name, purpose, arguments)
  page = rich.markup.escape(f'{workdir}/report.html')
  console.print(
      f'\n[bold]Done[/bold] in {time.monotonic() - start:.0f} s. Open {page}'
  )


def _stages(workdir, corpus):
  """(name, purpose, arguments of python) of each stage after the corpus."""
  budget = _BUDGET.value
  smoke = budget == 'smoke'
  codec = [f'--config.data.corpus={corpus}']
  if corpus not in _OF_LANGUAGES:
    # All clips of a person's own count, however short.
    codec += ['--config.data.languages=()', '--config.data.min_seconds=0']
  tokens = f'{workdir}/tokens'
  yield (
      'tokenizer',
      'train a neural audio codec: speech <-> tokens',
      [
          '-m',
          'audiolm_jax.main',
          f'--config=configs/codec/quickstart.py:{budget}',
          f'--workdir={workdir}/tokenizer',
          *codec,
      ],
  )
  yield (
      'tokens',
      'cache the tokens of the whole corpus',
      [
          'tools/tokenize_audio.py',
          'corpus',
          f'--tokenizer={workdir}/tokenizer',
          f'--corpus={corpus}',
          *_languages(corpus),
          f'--out={tokens}',
          *(['--limit=60'] if smoke else []),
      ],
  )
  yield (
      'lm',
      'train a language model on the tokens',
      [
          '-m',
          'audiolm_jax.main',
          f'--config=configs/lm/quickstart.py:{budget}',
          f'--workdir={workdir}/lm',
          f'--config.data.cache={tokens}',
      ],
  )
  yield (
      'report',
      'generate, and write the report',
      [
          'tools/report.py',
          f'--workdir={workdir}',
          *(['--clips=6', '--listen=2'] if smoke else []),
      ],
  )


def _languages(corpus) -> list[str]:
  if corpus not in _OF_LANGUAGES:
    return []
  return [f'--languages={_LANGUAGES[_BUDGET.value]}']


def _fetch(console, workdir, asked) -> str:
  """Builds the corpus; returns the name of the one that could be had."""
  done = _finished(workdir).get('corpus', {})
  if done and done['asked'] != asked:
    sys.exit(
        f'quickstart: {workdir} was begun with --corpus={done["asked"]}, not'
        f' {asked}. Give another --workdir.'
    )
  corpus = done.get('corpus', asked)
  status = _build(console, workdir, corpus, asked)
  if status:
    console.print(
        f'[bold yellow]{corpus} is not to be had here (see above). Going on'
        f' with {_FALLBACK}: synthetic speech, made on this machine. What'
        ' follows is about synthetic speech.[/bold yellow]'
    )
    corpus = _FALLBACK
    _build(console, workdir, corpus, asked)
  if corpus not in _OF_LANGUAGES:
    _check(workdir, corpus, done)
  return corpus


def _build(console, workdir, corpus, asked) -> int:
  """0, or EX_UNAVAILABLE where the files can't be had."""
  own = corpus not in _OF_LANGUAGES
  arguments = [
      'tools/prepare_data.py',
      f'--corpus={corpus}',
      *_languages(corpus),
      *([f'--cards={workdir}/{_CARDS}'] if own else []),
  ]
  return _run(
      console,
      workdir,
      'corpus',
      f'fetch speech and build the corpus {corpus}',
      arguments,
      expected=None if corpus == _FALLBACK else os.EX_UNAVAILABLE,
      # A folder may have changed.
      again=own,
      asked=asked,
      corpus=corpus,
  )


def _check(workdir, corpus, done):
  """Ends where a corpus lacks a split, or has changed since the first stage."""
  cards = json.loads((workdir / _CARDS).read_text())
  for split in ('train', 'validation', 'test'):
    if not any(split in card['totals'] for card in cards):
      sys.exit(
          f'quickstart: {corpus} has no clip for {split!r}: what is in its'
          ' folders or table decides that (see tools/prepare_data.py).'
      )
  built = [card['name'] for card in cards]
  if done.get('built', built) != built:
    sys.exit(
        f'quickstart: {corpus} has changed since {workdir} was begun. Give'
        ' another --workdir, or remove it.'
    )
  finished = _finished(workdir)
  finished['corpus']['built'] = built
  _note(workdir, finished)


def _finished(workdir) -> dict[str, dict]:
  path = workdir / _STAGES
  return json.loads(path.read_text()) if path.exists() else {}


def _note(workdir, finished):
  writers.write_atomically(workdir / _STAGES, json.dumps(finished, indent=2))


def _run(
    console,
    workdir,
    name,
    purpose,
    arguments,
    *,
    expected=None,
    again=False,
    **facts,
) -> int:
  """Runs a stage unless it has finished.

  Args:
    console: to print to.
    workdir: of the pipeline.
    name: of the stage.
    purpose: for people.
    arguments: of python.
    expected: a status other than 0 to return; any other ends this program.
    again: whether to run it though it has finished.
    **facts: what to keep of it.

  Returns:
    Its exit status.
  """
  command = shlex.join([os.path.basename(sys.executable), *arguments])
  console.print(f'\n[bold]{name}[/bold]: {rich.markup.escape(purpose)}')
  console.print(f'[cyan]$ {rich.markup.escape(command)}[/cyan]')
  finished = _finished(workdir)
  if finished.get(name, {}).get('command') == command and not again:
    console.print('  (done before)')
    return 0
  start = time.monotonic()
  # The interpreter that runs this script, whatever `python` is on the PATH.
  status, interrupted = launch.wait([sys.executable, *arguments])
  seconds = time.monotonic() - start
  if status and not interrupted:
    if status == expected:
      return status
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
  _note(workdir, finished)
  return 0


def _whole(run) -> bool:
  """False for a training run that a signal ended before its last step."""
  config = run / 'config.json'
  if not config.exists() or not (run / 'checkpoints').exists():
    return True
  steps = json.loads(config.read_text())['steps']
  return (run / 'checkpoints' / str(steps)).exists()


if __name__ == '__main__':
  app.run(main)
