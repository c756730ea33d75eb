"""What questions about language models over cached tokens share."""

from audiolm_jax import evaluation
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.training import optimizers


def schedule(rate: float, steps: int) -> optimizers.Cosine:
  """A cosine after a tenth of the steps of warm-up."""
  return optimizers.Cosine(learning_rate=rate, warmup_steps=steps // 10)


def evaluator(
    cache: str, split: str, clips: int | None, counts: bool = False
) -> evaluation.Bits:
  """Bits a frame of a split.

  Args:
    cache: of tokens.
    split: of it.
    clips: how many, None for all.
    counts: whether to score count-based models beside.
  """
  # Long clips are cut, which keeps the shapes to compile to three.
  return evaluation.Bits(
      clips=evaluation.TokenClips(
          cache=cache, split=split, limit=clips, max_frames=256
      ),
      baselines=counts,
  )


def modelled(
    spec: tokenizers_base.Spec, codebooks: int | None
) -> tokenizers_base.Spec:
  """A tokenizer's spec with its first codebooks only; None for all."""
  return tokenizers_base.Spec(**{**vars(spec), 'slots': spec.slots[:codebooks]})
