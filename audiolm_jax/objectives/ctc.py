"""Connectionist temporal classification (Graves et al. 2006)."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np
import optax

from audiolm_jax import config
from audiolm_jax.models import kinds
from audiolm_jax.models import recogniser as recogniser_lib
from audiolm_jax.objectives import base as objectives_base
from audiolm_jax.streaming import base as streaming_base


@dataclasses.dataclass(frozen=True)
class CTC(objectives_base.Objective):
  """Minus the log-probability of a clip's symbols, over all alignments.

  One model, 'recogniser'; the loss is in nats a symbol. Batches are those of
  `data.PhoneClips`. A row with fewer frames than its symbols need has no
  alignment: it counts for nothing, and `impossible` is the share of such rows.

  Attributes:
    recogniser: the model.
    samples: length of training's rows; None for the data's.
    labels: most symbols of a row; None for the data's.
  """

  recogniser: recogniser_lib.Recogniser = recogniser_lib.Recogniser()
  samples: config.Positive | None = None
  labels: config.Positive | None = None

  @property
  def loss_weights(self) -> dict[str, float]:
    return {'ctc': 1.0}

  @property
  def model(self) -> tuple[str, kinds.Description]:
    return 'recogniser', kinds.Description(self.recogniser)

  def needs(self, source: Any) -> dict[str, tuple[str, Any]]:
    del source
    model = self.recogniser
    return {
        'sample_rate': ('recogniser.sample_rate', model.sample_rate),
        'symbols': ('recogniser.symbols', model.symbols),
    }

  def with_data(self, source: Any, read: bool) -> 'CTC':
    del read
    lengths = {
        name: objectives_base.row_length(
            stream, getattr(self, name), source, f'config.objective.{name}'
        )
        for name, stream in (('samples', 'samples'), ('labels', 'phones'))
    }
    return dataclasses.replace(self, **lengths)

  def example_batch(self, batch_size: int) -> objectives_base.Batch:
    needed = {'samples': self.samples, 'labels': self.labels}
    config.check_given('config.objective', needed, 'config.data')
    count = np.zeros(batch_size, np.int32)
    return {
        'audio': np.zeros((batch_size, self.samples, 1), np.float32),
        'num_samples': count,
        'labels': np.zeros((batch_size, self.labels), np.int32),
        'num_labels': count,
        'id': count,
    }

  def __call__(
      self,
      variables: objectives_base.Variables,
      batch: objectives_base.Batch,
      rng: Array,
  ) -> objectives_base.Output:
    logits, num_frames = self.recogniser.apply(
        {'params': variables['recogniser']['params']},
        batch['audio'],
        batch['num_samples'],
        rngs={'dropout': rng},
    )
    labels, num_labels = batch['labels'], batch['num_labels']
    nats, possible = nats_of_rows(logits, num_frames, labels, num_labels)
    scored = jnp.where(possible, num_labels, 0)
    rows = jnp.float32(len(labels))
    return objectives_base.Output(
        terms={'ctc': (jnp.sum(nats), jnp.sum(scored).astype(jnp.float32))},
        metrics={'impossible': (rows - jnp.sum(possible), rows)},
    )

  def audio_seconds(self, batch: objectives_base.Batch) -> float:
    return float(np.sum(batch['num_samples'])) / self.recogniser.sample_rate


def nats_of_rows(
    logits: Float[Array, 'B F V'],
    num_frames: Int[Array, 'B'],
    labels: Int[Array, 'B L'],
    num_labels: Int[Array, 'B'],
) -> tuple[Float[Array, 'B'], Any]:
  """-log p of each row's labels, and whether they have an alignment at all.

  Rows that have none are 0. What stands past a row's frames or labels may be
  anything.

  Args:
    logits: output 0 is the blank.
    num_frames: of each row.
    labels: from 1 on.
    num_labels: of each row.
  """
  valid = streaming_base.length_mask(num_frames, logits.shape[1])
  given = streaming_base.length_mask(num_labels, labels.shape[1])
  labels = jnp.where(given, labels, recogniser_lib.BLANK)
  # A blank must stand between two that are alike.
  alike = (labels[:, 1:] == labels[:, :-1]) & given[:, 1:]
  possible = num_labels + jnp.sum(alike, axis=1) <= num_frames
  nats = optax.ctc_loss(
      streaming_base.zero_masked(logits.astype(jnp.float32), valid),
      1.0 - valid,
      labels,
      1.0 - given,
      blank_id=recogniser_lib.BLANK,
  )
  return jnp.where(possible, nats, 0.0), possible
