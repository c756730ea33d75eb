"""Launches a training run.

python -m audiolm_jax.main --config=configs/X.py[:arg] --workdir=DIR \
    [--config.key=value ...]

The config.json of a work directory lists all keys.
"""

import sys

from absl import app
from absl import flags

from audiolm_jax.training import config_files
from audiolm_jax.training import launch

_WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of the run.')
_CONFIG = flags.DEFINE_string(
    'config', None, 'FILE.py or FILE.py:ARG; override with --config.key=value.'
)
_EVALUATE = flags.DEFINE_bool(
    'evaluate', False, 'Only evaluate the checkpoint of --workdir.'
)
_DISTRIBUTED = flags.DEFINE_bool(
    'distributed', False, 'Join the other processes of a multi-host run.'
)


def _main(argv: list[str]) -> None:
  # Late, so that wrong flags are refused at once.
  import jax  # pylint: disable=g-import-not-at-top

  from audiolm_jax import config  # pylint: disable=g-import-not-at-top
  from audiolm_jax import evaluate  # pylint: disable=g-import-not-at-top
  from audiolm_jax import interop  # pylint: disable=g-import-not-at-top
  from audiolm_jax import train  # pylint: disable=g-import-not-at-top
  from audiolm_jax.training import checkpoints  # pylint: disable=g-import-not-at-top

  try:
    if _DISTRIBUTED.value:
      jax.distributed.initialize()
    if _EVALUATE.value:
      for name, value in evaluate.evaluate(_WORKDIR.value).items():
        print(f'{name} = {value:.6g}')
      return
    settings = config_files.read(_CONFIG.value)
    train.train(config_files.override(settings, argv[1:]), _WORKDIR.value)
  except (
      config.ConfigError,
      checkpoints.CheckpointError,
      interop.PretrainedError,
      train.NotFiniteError,
      OSError,
  ) as error:
    launch.fail(f'error: {error}')


def _parse(argv: list[str]) -> list[str]:
  """Parses flags; returns the program's name and the config's overrides."""
  own, overrides = config_files.split(argv)
  rest = app.parse_flags_with_usage(own)
  if rest[1:]:
    sys.exit(f'error: unexpected arguments {rest[1:]}')
  if not _WORKDIR.value or not (_CONFIG.value or _EVALUATE.value):
    sys.exit('error: give --config=FILE.py[:ARG] and --workdir=DIR.')
  if _EVALUATE.value and (_CONFIG.value or overrides):
    sys.exit(
        'error: --evaluate takes the config of --workdir: give it without'
        ' --config and --config.KEY.'
    )
  return [rest[0], *overrides]


if __name__ == '__main__':
  launch.reexecute()
  app.run(_main, flags_parser=_parse)
