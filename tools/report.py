"""Evaluates and lets speak what a work directory holds, and reports on it.

  python tools/report.py --workdir=runs/quickstart

The directory has a codec's run (tokenizer/), its token cache (tokens/) and a
language model's run (lm/), as tools/quickstart.py makes them. Writes report.html
and summary.json. Perceptual judges are added by tools/evaluate_codec.py.
"""

from audiolm_jax.training import launch

if __name__ == '__main__':
  launch.reexecute()  # Before the heavy imports.

# pylint: disable=g-import-not-at-top,g-bad-import-order
# ruff: noqa: E402

import sys

from absl import app
from absl import flags

import audiolm_jax
from audiolm_jax import config
from audiolm_jax.comparison import pipeline
from audiolm_jax.training import checkpoints

_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Directory of the pipeline.', required=True
)
_CLIPS = flags.DEFINE_integer(
    'clips', 60, 'Held-out clips that the codec is scored on.', lower_bound=1
)
_LISTEN = flags.DEFINE_integer(
    'listen', 4, 'Held-out clips to listen to.', lower_bound=1
)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  workdir = _WORKDIR.value
  try:
    summary = pipeline.write(
        workdir,
        audiolm_jax.load(f'{workdir}/tokenizer'),
        audiolm_jax.load(f'{workdir}/lm'),
        clips=_CLIPS.value,
        listen=_LISTEN.value,
    )
  except (config.ConfigError, checkpoints.CheckpointError) as error:
    sys.exit(f'report: {error}')
  for row in summary['codec'][0]['rows']:
    print(
        f'codec, {row["codebooks"]} codebooks:'
        f' {row["bits_per_second"] / 1000:.2f} kbit/s, mel distance'
        f' {row["mel"]:.3f}'
    )
  for model, bits in summary['lm_bits_per_frame'].items():
    print(
        f'{model}: {bits["all"]:.2f} bits a frame,'
        f' {bits["codebook 0"]:.2f} of them in the first codebook'
    )
  print(f'Written: {workdir}/{pipeline.REPORT}, {workdir}/{pipeline.SUMMARY}')


if __name__ == '__main__':
  app.run(main)
