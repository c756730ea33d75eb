"""What models that give latents frame by frame lose on held-out clips."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import jax

from audiolm_jax import config
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import clips as clips_lib
from audiolm_jax.models import latent_lm
from audiolm_jax.objectives import next_latent
from audiolm_jax.processes import noise as noise_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentLosses:
  """The losses of a head on whole clips, each frame given the clean ones before.

  Each of the decoder's losses by its name ('denoising', 'stop'), a mean over
  frames, on draws that go by the clip's id: the same at every evaluation, in
  every run and beside any others. Losses of two heads compare where the heads are
  of one kind, process and target. Heads with a likelihood have
  `nats_per_frame` too, of normalised latents, which compares between all heads
  of one cache; those that take steps only where `likelihood_steps` says how many.

  Attributes:
    clips: which clips.
    likelihood_steps: from data to noise, for `nats_per_frame`; None for none.
      At 32 dimensions each is 64 times a training step's work on the head.
  """

  clips: clips_lib.TokenClips = clips_lib.TokenClips()
  likelihood_steps: config.Positive | None = None

  def with_data(self, source: Any) -> 'LatentLosses':
    """Itself, with the cache of `source` (config.data) if its clips name none."""
    return dataclasses.replace(self, clips=self.clips.with_data(source))

  def build(
      self, objective: next_latent.NextLatent
  ) -> evaluation_base.Evaluator:
    """The evaluator.

    Raises:
      config.ConfigError: for another objective, clips that do not fit its
        decoder, or steps of a head that takes none or has no likelihood.
      encoding.TokensError: for a cache that doesn't fit.
    """
    if not isinstance(objective, next_latent.NextLatent):
      raise config.ConfigError(
          'an evaluator of the losses of latents, but config.objective is a'
          f' {type(objective).__name__}'
      )
    head = objective.decoder.head
    if self.likelihood_steps and not (head.takes_steps and head.tag == 'exact'):
      raise config.ConfigError(
          f'likelihood_steps = {self.likelihood_steps} does nothing for a'
          f' {type(head).__name__} head.'
      )
    clips = self.clips.open(objective.decoder, objective.rate)
    return _Evaluator(objective.decoder, clips, self.likelihood_steps)


class _Evaluator(evaluation_base.Evaluator):

  def __init__(self, decoder, clips, steps):
    self._decoder = decoder
    self._clips = clips
    self._steps = steps

  def run(self, variables) -> Iterator[evaluation_base.Score]:
    decoder, params = self._decoder, variables['lm']['params']
    for batch in self._clips.batches():
      items, rows = clips_lib.numbers(self._clips, batch)
      keys = noise_lib.row_keys(jax.random.key(0), rows)
      inputs = decoder.read(batch)
      losses = latent_lm.losses(decoder, params, inputs, batch['ends'], keys)
      if 'nll' in losses:
        losses['nats_per_frame'] = losses['nll']
      elif self._steps:
        losses['nats_per_frame'] = -latent_lm.log_prob(
            decoder, params, inputs, self._steps
        )
      losses = {k: loss.sum(1) for k, loss in jax.device_get(losses).items()}
      for row, (item, length) in enumerate(
          zip(items, batch['num_frames'], strict=True)
      ):
        if length:
          for name, loss in losses.items():
            yield evaluation_base.Score(
                name, item, float(loss[row]), float(length)
            )
