"""The quickstart's driver: its stages, what is finished, and signals."""

import json
import os
import shlex
import signal
import sys
import threading
import types

from absl import flags
import pytest
from tests import tool_module

from audiolm_jax.audio import files
from audiolm_jax.training import config_files
from tests.data import test_folder


@pytest.fixture(name='quickstart', scope='module')
def _quickstart() -> types.ModuleType:
  # Other scripts that tests import define flags of the same names.
  with pytest.MonkeyPatch.context() as patch:
    for name in ('DEFINE_string', 'DEFINE_enum'):
      patch.setattr(flags, name, lambda *arguments: None)
    return tool_module.load('quickstart')


@pytest.fixture(name='console')
def _console(quickstart):
  return quickstart.rich.console.Console(quiet=True)


def _run(quickstart, console, workdir, code, **options):
  arguments = ['-c', code]
  return quickstart._run(console, workdir, 'lm', 'test', arguments, **options)


def test_a_finished_stage_does_not_run_again(quickstart, console, tmp_path):
  mark = tmp_path / 'mark'
  code = f"open('{mark}', 'a').write('x')"
  assert not _run(quickstart, console, tmp_path, code)
  assert not _run(quickstart, console, tmp_path, code)
  assert mark.read_text() == 'x'
  # Another command is another stage.
  assert not _run(quickstart, console, tmp_path, code + ';')
  assert mark.read_text() == 'xx'
  assert not _run(quickstart, console, tmp_path, code + ';', again=True)
  assert mark.read_text() == 'xxx'


def test_a_failed_stage_ends_it_or_is_told(quickstart, console, tmp_path):
  code = 'raise SystemExit(3)'
  with pytest.raises(SystemExit, match="'lm' failed .exit status 3"):
    _run(quickstart, console, tmp_path, code)
  with pytest.raises(SystemExit, match="'lm' failed .exit status 3"):
    _run(quickstart, console, tmp_path, code, expected=4)
  assert _run(quickstart, console, tmp_path, code, expected=3) == 3
  assert not (tmp_path / 'stages.json').exists()


def test_a_run_that_a_signal_ended_is_not_taken_for_whole(
    quickstart, console, tmp_path
):
  run = tmp_path / 'lm'
  (run / 'checkpoints' / '7').mkdir(parents=True)
  (run / 'config.json').write_text(json.dumps({'steps': 9}))
  with pytest.raises(SystemExit, match='interrupted'):
    _run(quickstart, console, tmp_path, 'pass')
  (run / 'checkpoints' / '9').mkdir()
  assert not _run(quickstart, console, tmp_path, 'pass')


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
def test_signals_let_the_stage_end_by_itself(quickstart, name):
  """Ctrl-C comes to the stage from the terminal, SIGTERM from here."""
  number = getattr(signal, name)
  before = signal.getsignal(number)
  timer = threading.Timer(0.5, os.kill, (os.getpid(), number))
  timer.start()
  code = (
      'import signal, sys, time\n'
      'got = []\n'
      'signal.signal(signal.SIGTERM, lambda *_: got.append(4))\n'
      'start = time.monotonic()\n'
      'while time.monotonic() < start + 1: time.sleep(.01)\n'
      'sys.exit(5 + sum(got))\n'
  )
  status = 5 + 4 * (name == 'SIGTERM')
  assert quickstart.launch.wait([sys.executable, '-c', code]) == (status, True)
  assert signal.getsignal(number) is before


class _Stages:
  """Stands for the processes: what is run, and how it ends."""

  def __init__(self, workdir, quickstart):
    self.workdir, self.quickstart = workdir, quickstart
    self.ran, self.status = [], {}
    self.cards = [
        {
            'name': 'folder/mine-1/1.0.0',
            'totals': {'train': {}, 'validation': {}, 'test': {}},
        }
    ]

  def __call__(self, arguments):
    self.ran.append(arguments[1:])
    tool = ' '.join(arguments[1:3])
    for option in arguments:
      if option.startswith('--cards='):
        with open(option.partition('=')[2], 'w') as file:
          json.dump(self.cards, file)
    for text, status in self.status.items():
      if text in tool + ' '.join(arguments):
        return status, False
    return 0, False

  def start(self, monkeypatch, corpus, budget='smoke'):
    self.ran = []
    values = {'_CORPUS': corpus, '_WORKDIR': self.workdir, '_BUDGET': budget}
    for name, value in values.items():
      monkeypatch.setattr(
          self.quickstart, name, types.SimpleNamespace(value=str(value))
      )
    monkeypatch.setattr(self.quickstart.launch, 'wait', self)
    here = os.getcwd()
    try:
      self.quickstart.main(['quickstart'])
    finally:
      os.chdir(here)


@pytest.fixture(name='stages')
def _stages(quickstart, tmp_path):
  return _Stages(tmp_path / "it's a 'run'", quickstart)


@pytest.mark.parametrize('relative', [False, True])
def test_a_folder_is_what_is_trained_on(
    stages, tmp_path, monkeypatch, relative
):
  folder = tmp_path / "my [bold] 'wavs'"
  folder.mkdir()
  monkeypatch.chdir(tmp_path)
  stages.start(monkeypatch, folder.name if relative else folder)
  prepare, codec, tokens, lm, report = stages.ran
  assert f'--corpus={folder}' in prepare and f'--corpus={folder}' in tokens
  assert not any('languages' in a for a in [*prepare, *tokens])
  assert f'--workdir={stages.workdir}/lm' in lm
  assert f'--workdir={stages.workdir}' in report
  # The config takes what it is given.
  configs = tool_module.TOOLS.parent / 'configs'
  settings = config_files.override(
      config_files.read(f'{configs}/codec/quickstart.py:smoke'),
      [a.lstrip('-') for a in codec if a.startswith('--config.')],
  )
  assert settings.data.corpus == str(folder)
  assert settings.data.languages == () and settings.data.min_seconds == 0
  # What is printed and kept can be pasted into a shell.
  kept = json.loads((stages.workdir / 'stages.json').read_text())
  assert shlex.split(kept['lm']['command'])[1:] == lm


def test_only_what_cannot_be_had_is_replaced(stages, tmp_path, monkeypatch):
  prepare = 'tools/prepare_data.py --corpus='
  stages.status = {prepare + 'asterisk_prompts': os.EX_UNAVAILABLE}
  stages.start(monkeypatch, 'asterisk_prompts')
  assert '--corpus=espeak_sentences' in stages.ran[2 + 1]
  stages.workdir = tmp_path / 'again'
  for corpus in ('asterisk_prompts', 'typo', tmp_path):
    stages.status = {prepare: 1}
    with pytest.raises(SystemExit, match="'corpus' failed"):
      stages.start(monkeypatch, corpus)
    assert len(stages.ran) == 1


def test_another_or_a_changed_corpus_needs_another_directory(
    stages, tmp_path, monkeypatch
):
  folder = tmp_path / 'mine'
  folder.mkdir()
  stages.start(monkeypatch, folder)
  with pytest.raises(SystemExit, match='asterisk_prompts.*another --workdir'):
    stages.start(monkeypatch, 'asterisk_prompts')
  stages.start(monkeypatch, folder)
  assert len(stages.ran) == 1  # Looks whether the folder has changed.
  stages.cards[0]['name'] = 'folder/mine-2/1.0.0'
  with pytest.raises(SystemExit, match='has changed.*another --workdir'):
    stages.start(monkeypatch, folder)


def test_a_folder_without_a_split_is_told_at_once(
    stages, tmp_path, monkeypatch
):
  folder = tmp_path / 'mine'
  folder.mkdir()
  del stages.cards[0]['totals']['validation']
  with pytest.raises(SystemExit, match="no clip for 'validation'"):
    stages.start(monkeypatch, folder)
  assert len(stages.ran) == 1


def test_what_prepare_data_says(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('AUDIOLM_JAX_CACHE', str(tmp_path / 'cache'))
  for kind in ('string', 'list', 'bool'):
    monkeypatch.setattr(flags, f'DEFINE_{kind}', lambda *arguments: None)
  tool = tool_module.load('prepare_data')
  cards = tmp_path / 'cards.json'

  def prepare(corpus, languages=()):
    values = {
        '_CORPUS': str(corpus),
        '_LANGUAGES': languages,
        '_STRICT': False,
        '_CARDS': str(cards),
    }
    for name, value in values.items():
      setattr(tool, name, types.SimpleNamespace(value=value))
    tool.main(['prepare_data'])

  root = tmp_path / 'mine'
  for i in range(3):
    files.write(root / f'{i}.wav', test_folder.noise(seed=i), 8000)
  prepare(root)
  (card,) = json.loads(cards.read_text())
  assert card['totals'].keys() == {'train', 'validation', 'test'}
  with pytest.raises(SystemExit, match='prepare_data: There is no corpus'):
    prepare('typo', ['en'])
  monkeypatch.setenv('PATH', '')  # No apt-get.
  with pytest.raises(SystemExit) as error:
    prepare('asterisk_prompts', ['en'])
  assert error.value.code == os.EX_UNAVAILABLE
  assert 'could not be fetched' in capsys.readouterr().err
  monkeypatch.setenv('AUDIOLM_JAX_CACHE', '/proc/nothing')
  with pytest.raises(SystemExit, match='prepare_data: .*/proc/nothing'):
    prepare(root)
