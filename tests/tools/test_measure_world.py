"""The tool says what each engine and codec does, and what is left out."""

import re

import pytest

from audiolm_jax import config
from audiolm_jax.data.speech_world import channels
from audiolm_jax.data.speech_world import clips as clips_lib
from tests import tool_module

measure_world = tool_module.load('measure_world')


def test_every_engine_and_codec_has_a_line(capsys):
  measure_world.main(['--clips=3'])
  lines = capsys.readouterr().out.splitlines()
  engines, codecs = lines[: len(clips_lib.ENGINES)], lines[-3:]
  for engine, line in zip(clips_lib.ENGINES, engines, strict=True):
    left_out = rf'left out: the pool {engine.pools[0]} needs'
    assert re.match(
        rf'{engine.pools[-1]}: (\d+ times real time|{left_out})', line
    )
  for codec, line in zip(channels.CODECS[1:], codecs, strict=True):
    found = re.fullmatch(rf'{codec}: SNR ([\d.]+) \((\d+) to (\d+)\) dB', line)
    mean, low, high = map(float, found.groups())
    assert low - 0.5 <= mean <= high + 0.5 and 2 < mean < 45


def test_a_directory_without_a_judge_is_refused(tmp_path):
  with pytest.raises(config.ConfigError, match='is no directory'):
    next(measure_world.measured(2, str(tmp_path / 'none')))
