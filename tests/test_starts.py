"""What a start refuses, what it says, and what it leaves behind."""

import json
import os
import socket
import subprocess
import sys

import pytest

import audiolm_jax
from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import evaluate
from audiolm_jax import train
from audiolm_jax.training import config_files
from tests import toy_run

_HOLDER = """
import pathlib, sys, time
from audiolm_jax.training import locks
with locks.hold(pathlib.Path(sys.argv[1])):
  print('held', flush=True)
  time.sleep(600)
"""


@pytest.mark.parametrize(
    'flags,message',
    [
        (('steps=4000000000',), 'config.steps = 4000000000'),
        (('seed=5000000000',), 'config.seed = 5000000000'),
        (('models.mlp.clip=0.0',), 'config.models.mlp.clip = 0'),
        (('models.mlp.clip=1e999',), 'config.models.mlp.clip = inf'),
        (('models.mlp.init_model=lm',), 'init_from does not give'),
        (('checkpoint.best=None', 'checkpoint.mode=max'), 'checkpoint.mode'),
        (('checkpoint.best=eval/nope/x',), r"evaluators \['toy'\]"),
        (('checkpoint.best=loss',), r"evaluators \['toy'\]"),
        (('profile.steps=2', 'profile.start=12'), 'no such step to trace'),
    ],
)
def test_what_cannot_be_or_would_do_nothing_is_refused(
    tmp_path, flags, message
):
  with pytest.raises(config.ConfigError, match=message):
    train.train(
        toy_run.config(*(f'config.{flag}' for flag in flags)), tmp_path / 'w'
    )
  assert not (tmp_path / 'w').exists()


@pytest.mark.parametrize(
    'flag',
    [
        'backbone.width=7',
        'backbone.mixers=()',
        'backbone.cross={}',
    ],
)
def test_sizes_that_do_not_fit_each_other_are_told(flag):
  path = os.path.join(os.path.dirname(__file__), '../configs/lm/quickstart.py')
  settings = config_files.override(
      config_files.read(f'{path}:smoke'),
      [f'config.objective.decoder.{flag}'],
  )
  with pytest.raises(
      config.ConfigError, match='config.objective cannot be built: '
  ):
    assembly_lib.Assembly(settings)


def test_a_decoder_without_slots_is_refused():
  path = os.path.join(os.path.dirname(__file__), '../configs/lm/quickstart.py')
  with pytest.raises(
      config.ConfigError, match=r'vocabularies = \(\): expected one'
  ):
    config_files.override(
        config_files.read(f'{path}:smoke'),
        ['config.objective.decoder.vocabularies=()'],
    )


@pytest.mark.parametrize(
    'flag,message',
    [
        ('config.objective.width=1000000', 'The train state of .* would take'),
        (
            'config.batch_size=1000000000000',
            'config.batch_size = 1000000000000',
        ),
    ],
)
def test_what_cannot_fit_is_refused_before_it_is_made(tmp_path, flag, message):
  with pytest.raises(config.ConfigError, match=message):
    train.train(toy_run.config(flag), tmp_path)


@pytest.mark.parametrize('content', [b'', b'{"data": ', b'\xff\xfe\x00', b'[]'])
def test_a_damaged_config_is_named(tmp_path, content):
  (tmp_path / 'config.json').write_bytes(content)
  for function in (audiolm_jax.load, evaluate.evaluate):
    with pytest.raises(config.ConfigError, match=f'{tmp_path}/config.json'):
      function(tmp_path)
  # Nothing was trained there.
  (tmp_path / 'metrics.jsonl').write_text('')
  with pytest.raises(config.ConfigError, match=f'{tmp_path}/config.json'):
    train.train(toy_run.config(), tmp_path)


def test_a_wrong_value_in_a_config_names_the_file(tmp_path):
  values = config.to_config(toy_run.config()).to_dict()
  values['steps'] = 'many'
  (tmp_path / 'config.json').write_text(json.dumps(values))
  with pytest.raises(
      config.ConfigError, match="config.json: config.steps = 'many'"
  ):
    evaluate.evaluate(tmp_path)


def test_a_second_trainer_is_told_who_is_the_first(tmp_path):
  other = subprocess.Popen(
      [sys.executable, '-c', _HOLDER, str(tmp_path)],
      stdout=subprocess.PIPE,
      env={**os.environ, 'PYTHONPATH': os.getcwd()},
  )
  try:
    other.stdout.readline()
    with pytest.raises(config.ConfigError) as error:
      train.train(toy_run.config(), tmp_path)
    host = socket.gethostname()
    assert f'process {other.pid} on {host} since ' in str(error.value)
    # What it does not get it leaves alone.
    assert not (tmp_path / 'config.json').exists()
  finally:
    other.kill()
    other.wait()
  # The lock died with its process.
  train.train(toy_run.config('config.steps=1'), tmp_path)


def test_a_failed_start_is_taken_over_and_a_run_is_not(tmp_path):
  with pytest.raises(config.ConfigError, match='does not fit'):
    train.train(toy_run.config('config.data.features=3'), tmp_path)
  train.train(toy_run.config('config.steps=1'), tmp_path)
  with pytest.raises(config.ConfigError, match='another config'):
    train.train(toy_run.config('config.steps=2'), tmp_path)


def test_evaluation_by_nothing_is_told(tmp_path):
  values = config.to_config(toy_run.config()).to_dict()
  values['evaluators'] = {}
  (tmp_path / 'config.json').write_text(json.dumps(values))
  with pytest.raises(config.ConfigError, match='config.evaluators are none'):
    evaluate.evaluate(tmp_path)
