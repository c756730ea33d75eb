"""What AudioLM's three stages have in common: the quickstart's everything else.

AudioLM (2209.03143) models semantic tokens of w2v-BERT, then coarse and then
fine tokens of SoundStream, each stage given what the one before it made. Here
there are no tokens of w2v-BERT: **the codec's first codebook stands in for the
semantic tokens**. It is acoustic, too, so what these three stages show is the
hierarchy, not what semantic tokens add to it. With a codec whose first codebook
is distilled from a speech model (configs/codec/speechtokenizer_16khz.py), its
token cache makes them semantic without another change.

All three read one token cache. Slots are its codebooks, so that each stage's
bits a frame, and the baselines', are of the same codes as anywhere else.
"""

from typing import Any

from configs.lm import quickstart


def build(arg: str, decoder: dict[str, Any], codebooks: int, frames: int):
  """The quickstart's config with another decoder.

  Args:
    arg: 'cpu' or 'smoke'.
    decoder: its `kind`, and its fields but for vocabularies and backbone.
    codebooks: how many of the cache's codebooks the stage reads.
    frames: length of a row.
  """
  values = quickstart.get_config(arg)
  backbone = values.objective.decoder.backbone
  with values.unlocked():
    values.objective.decoder = {
        'vocabularies': (1024,) * codebooks,
        'backbone': backbone,
        **decoder,
    }
  values.objective.frames = values.data.frames = frames
  values.evaluators.lm.max_frames = frames
  values.data.codebooks = codebooks
  return values


def segment(label: str, slots: range, role: str) -> dict[str, Any]:
  """Some codebooks, one after the other in each frame."""
  return {
      'label': label,
      'slots': tuple(slots),
      'pattern': {'kind': 'flatten'},
      'role': role,
  }
