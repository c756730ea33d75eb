"""A training run of configs/toy.py that is over in a few seconds."""

import pathlib

import ml_collections

from audiolm_jax import train
from audiolm_jax.training import launch

PATH = pathlib.Path(__file__).parents[1] / 'configs' / 'toy.py'


def config(*flags: str) -> ml_collections.ConfigDict:
  """Twelve steps, with evaluations and checkpoints between, and overrides."""
  return launch.override(
      train.Config,
      launch.read_config(f'{PATH}:smoke'),
      [
          'config.steps=12',
          'config.log_every=2',
          'config.eval_every=4',
          'config.checkpoint.every=3',
          'config.log_ids=True',
          *flags,
      ],
  )
