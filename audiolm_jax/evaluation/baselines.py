"""Count-based baselines of a token LM: unigram and interpolated bigram.

They score exactly the positions that the LM scores (every slot of every frame
of a clip), each slot by itself: a slot's bigram looks at the same slot of the
frame before. The first frame has no past and takes the unigram.
"""

from collections.abc import Sequence
import dataclasses

from jaxtyping import Float, Int
import numpy as np

# Interpolation weights of the bigram that tuning tries.
WEIGHTS = np.linspace(0.02, 0.98, 25)
# Pseudo-counts of the unigram that tuning tries.
ALPHAS = np.array([0.01, 0.1, 0.3, 1.0])


@dataclasses.dataclass(frozen=True)
class SlotModel:
  """The counts of one slot.

  p(b | a) = w c(a, b) / c(a, .) + (1 - w) p(b), with p(b) = (c(b) + alpha) /
  (c(.) + alpha V); where a was never seen, p(b | a) = p(b). (Jelinek-Mercer
  interpolation, with additive smoothing below it.)

  Attributes:
    unigram: [V] counts.
    bigram: [V, V] counts of (before, after).
    alpha: pseudo-count of the unigram.
    weight: w, the bigram's share.
  """

  unigram: Int[np.ndarray, 'V']
  bigram: Int[np.ndarray, 'V V']
  alpha: float
  weight: float

  def unigram_prob(self, codes: Int[np.ndarray, 'F']):
    total = self.unigram.sum() + self.alpha * len(self.unigram)
    return (self.unigram[codes] + self.alpha) / total

  def bigram_prob(self, codes: Int[np.ndarray, 'F']):
    prob = self.unigram_prob(codes)
    before, after = codes[:-1], codes[1:]
    seen = self.bigram.sum(axis=1)[before]
    share = np.where(seen > 0, self.weight, 0.0)
    conditional = self.bigram[before, after] / np.maximum(seen, 1)
    prob[1:] = share * conditional + (1 - share) * prob[1:]
    return prob


@dataclasses.dataclass(frozen=True)
class Baselines:
  """Tuned unigram and bigram models of every slot."""

  slots: tuple[SlotModel, ...]

  def bits(
      self, codes: Int[np.ndarray, 'F K']
  ) -> dict[str, Float[np.ndarray, 'F K']]:
    """Bits of every code, under 'unigram' and 'bigram'."""
    columns = list(zip(self.slots, codes.T, strict=True))
    return {
        'unigram': -np.log2(
            np.stack([m.unigram_prob(c) for m, c in columns], axis=1)
        ),
        'bigram': -np.log2(
            np.stack([m.bigram_prob(c) for m, c in columns], axis=1)
        ),
    }


def fit(
    train: Sequence[Int[np.ndarray, 'F K']],
    validation: Sequence[Int[np.ndarray, 'F K']],
    vocabularies: Sequence[int],
) -> Baselines:
  """Counts on `train`; alpha and the weight are tuned on `validation`.

  Args:
    train: clips.
    validation: other clips.
    vocabularies: of each slot.

  Raises:
    ValueError: if either holds no frame.
  """
  for name, clips in (('train', train), ('validation', validation)):
    if not sum(map(len, clips)):
      raise ValueError(f'baselines: no {name} frames')
  models = []
  for slot, size in enumerate(vocabularies):
    counts = SlotModel(
        np.bincount(
            np.concatenate([c[:, slot] for c in train]), minlength=size
        ),
        np.zeros((size, size), np.int64),
        alpha=1.0,
        weight=0.0,
    )
    for clip in train:
      np.add.at(counts.bigram, (clip[:-1, slot], clip[1:, slot]), 1)
    models.append(_tune(counts, [c[:, slot] for c in validation]))
  return Baselines(tuple(models))


def _tune(counts, clips):
  """The alpha, then the weight, with the fewest bits on clips of one slot."""

  def bits(model, name):
    return -sum(np.log2(getattr(model, name)(clip)).sum() for clip in clips)

  alphas = [dataclasses.replace(counts, alpha=float(a)) for a in ALPHAS]
  best = min(alphas, key=lambda model: bits(model, 'unigram_prob'))
  weights = [dataclasses.replace(best, weight=float(w)) for w in WEIGHTS]
  return min(weights, key=lambda model: bits(model, 'bigram_prob'))
