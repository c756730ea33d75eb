"""What there is to hear: the same held-out clips, made anew by each arm."""

import pathlib
from typing import Any

import audiolm_jax
from audiolm_jax import evaluation
from audiolm_jax.comparison import listening
from audiolm_jax.evaluation import resynthesis
from audiolm_jax.evaluation import ways
from audiolm_jax.lab import pages
from audiolm_jax.lab import stages


def write(
    directory: pathlib.Path,
    inputs: stages.Directories,
    model: str,
    cache: str,
    clips: int,
    max_frames: int,
    codebooks: int | None,
    steps: list[int],
) -> dict[str, Any]:
  """Writes clips in each number of steps; see `stages.Function`."""
  del inputs
  bound = audiolm_jax.load(model)
  settings = evaluation.Resynthesis(
      clips=evaluation.TokenClips(
          cache=cache, split='test', limit=clips, max_frames=max_frames
      ),
      codebooks=codebooks,
      steps=tuple(steps),
  )
  opened = resynthesis.open_clips(settings, bound.decoder)
  items = []
  for count, way in ways.of_model(bound, steps, settings.sampler).items():
    made = resynthesis.drawn(way, bound.decoder, opened.rows(), settings)
    for item, tokens in zip(opened.items, made, strict=True):
      note = 'frame by frame' if count is None else f'{count} steps'
      items.append(
          listening.Item(
              f'{item}: {note}',
              resynthesis.decoded(opened, tokens, codebooks),
              opened.tokenizer.spec.sample_rate,
              note,
          )
      )
  for item, tokens in zip(opened.items, opened.tokens, strict=True):
    items.append(
        listening.Item(
            f'{item}: its own tokens',
            resynthesis.decoded(opened, tokens, codebooks),
            opened.tokenizer.spec.sample_rate,
            'decoded from the tokens of the recording',
        )
    )
  listening.write(directory / pages.HEARD, items)
  return {}
