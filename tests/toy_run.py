"""A training run of configs/toy.py that is over in a few seconds."""

import pathlib

from audiolm_jax import train
from audiolm_jax.training import config_files

PATH = pathlib.Path(__file__).parents[1] / 'configs' / 'toy.py'


def config(*flags: str) -> train.Config:
  """Twelve steps, with evaluations and checkpoints between, and overrides."""
  return config_files.override(
      config_files.read(f'{PATH}:smoke'),
      [
          'config.steps=12',
          'config.log_every=2',
          'config.eval_every=4',
          'config.checkpoint.every=3',
          'config.log_ids=True',
          *flags,
      ],
  )
