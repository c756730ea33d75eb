"""Writes the trained model of a run as a directory of its own.

  python tools/export_model.py runs/lm
  python tools/export_model.py runs/lm --step=2000 --out=lm_2000
  python tools/export_model.py runs/lora --merge --out=merged --base=runs/lm

Training writes WORKDIR/model itself; this makes it of the checkpoints of a work
directory that has none, or has it of another step. `--merge` makes one whole
model of an adapter (what a run with LoRA, or frozen parts, has added) and its
base: to rounding the same, and loaded without the base.
"""

import argparse
import os
import sys

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

from audiolm_jax import config  # noqa: E402
from audiolm_jax import exporting  # noqa: E402
from audiolm_jax.training import checkpoints  # noqa: E402
from audiolm_jax.training import launch  # noqa: E402


def main(arguments=None):
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('workdir', help='with --merge a model directory, too')
  parser.add_argument('--out', help='default WORKDIR/model')
  parser.add_argument('--step', type=int, help='default the best, or the last')
  parser.add_argument('--merge', action='store_true', help='needs --out')
  parser.add_argument('--base', help='with --merge: where the base is now')
  options = parser.parse_args(arguments)
  if options.merge and options.out is None:
    parser.error('--merge needs --out.')
  if options.merge and options.step is not None:
    parser.error('--merge takes the model directory as it is: no --step.')
  if options.base is not None and not options.merge:
    parser.error('--base is for --merge.')
  try:
    if options.merge:
      place = exporting.merge(options.workdir, options.out, options.base)
    else:
      place = exporting.export(options.workdir, options.out, options.step)
  except (config.ConfigError, checkpoints.CheckpointError) as error:
    launch.fail(f'export_model.py: {error}')
  print(place)


if __name__ == '__main__':
  sys.exit(main())
