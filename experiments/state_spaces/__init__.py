"""State spaces or attention? One language model, six backbones.

Each arm puts another mixer in the place of attention, from nothing, on the same
tokens. See README.md beside this file for the question, controls and results.
"""

from collections.abc import Iterator
import pathlib

import audiolm_jax
from audiolm_jax import config
from audiolm_jax import train
from audiolm_jax.comparison import arms as arms_lib
from audiolm_jax.comparison import pipeline
from audiolm_jax.comparison import report as report_lib
from audiolm_jax.data import token_cache
from configs.lm import quickstart
from configs.lm import state_spaces
from experiments import token_lms

# Seeds, held-out clips, rates tried, prompts to listen to.
_SIZES = {
    'smoke': {'seeds': 2, 'clips': 8, 'rates': (2e-3,), 'listen': 1},
    'cpu': {
        'seeds': 3,
        'clips': None,
        'rates': (1e-3, 2e-3, 4e-3),
        'listen': 3,
    },
}
_BACKBONES = {
    'transformer': 'causal attention, rotary positions',
    'lstm': 'one LSTM a layer, no perceptrons: the baseline',
    's4d': 'diagonal state spaces, blind to content',
    'mamba2': 'state spaces that choose by content, no perceptrons',
    'rg_lru': 'gated linear recurrences',
    'hybrid': 'two gated linear recurrences, one local attention',
}
_COSTS = 'parameters are matched, and a parameter of each mixer costs another'
_ALLOWED_MISMATCHES = {
    'params': 'matched to within 4%: widths come in steps',
    'trainable_params': 'likewise',
    'training_flops': _COSTS,
    'inference_flops': _COSTS,
}


def prepare(base: pathlib.Path, workdir: pathlib.Path) -> Iterator[str]:
  """The commands that must have run: none beside the quickstart."""
  del base, workdir
  yield from ()


def question(
    base: pathlib.Path, workdir: pathlib.Path, budget: str
) -> arms_lib.Question:
  """The experiment at a budget: 'smoke' or 'cpu'.

  Args:
    base: holds a `tokenizer` and the `tokens` of its corpus.
    workdir: where results go.
    budget: how much is trained.
  """
  del workdir
  sizes = _SIZES[budget]
  tokens = str((base / 'tokens').absolute())
  spec = token_lms.modelled(
      token_cache.read_header(tokens).spec, quickstart.CODEBOOKS
  )

  def configure(name):
    def configured(rate: float) -> train.Config:
      if name == 'transformer':
        result = quickstart.get_config(budget)
      else:
        result = state_spaces.get_config(f'{name},{budget}')
      return config.replace(
          result,
          {
              'data.cache': tokens,
              'models.lm.schedule': token_lms.schedule(rate, result.steps),
          },
      )

    return configured

  def listen(directory: pathlib.Path, report: report_lib.Report) -> None:
    tokenizer = audiolm_jax.load(base / 'tokenizer')
    pipeline.add_continuations(
        report,
        token_cache.TokenCache(tokens, 'test', tokenizer.fingerprint()),
        tokenizer,
        audiolm_jax.load(directory),
        sizes['listen'],
    )

  frames = quickstart.get_config(budget).data.frames
  return arms_lib.Question(
      title='State spaces or attention?',
      text=(
          'A language model over audio tokens, trained from nothing. What'
          ' differs is what mixes time in its layers; widths or layers are'
          ' chosen so that all have the same number of parameters. Data,'
          ' embeddings (which start from the codec), pattern, head, optimizer,'
          ' steps and, by seed, batches are the same; the learning rate is'
          ' chosen for each arm on validation clips. Seeds vary data order,'
          ' crops, dropout and new parameters; tokenizer and corpus are one'
          ' draw, so the intervals hold given these.'
          + (' A smoke run: it answers nothing.' if budget == 'smoke' else '')
      ),
      base=None,
      arms=tuple(
          arms_lib.Arm(name, configure(name), sizes['rates'], text)
          for name, text in _BACKBONES.items()
      ),
      seeds=tuple(range(1, 1 + sizes['seeds'])),
      sweep_seed=1000,
      validation={'held_out': token_lms.evaluator(tokens, 'validation', 100)},
      select='eval/held_out/bits_per_frame',
      test={
          'test': token_lms.evaluator(
              tokens, 'test', sizes['clips'], counts=True
          )
      },
      outcomes=(
          arms_lib.Outcome(
              'bits',
              'eval/test/bits_per_frame',
              1,
              'bits/frame',
              'what a frame of held-out clips costs; lower is better',
          ),
          arms_lib.Outcome(
              'first codebook',
              'eval/test/bits_per_frame_codebook_0',
              1,
              'bits/frame',
              'its share for the first codebook',
          ),
      ),
      contrasts=tuple(
          (name, other)
          for other in ('transformer', 'lstm')
          for name in _BACKBONES
          if name not in ('transformer', other)
      ),
      row_seconds=frames / spec.frame_rate,
      bits_per_second=spec.bits_per_second,
      allowed_mismatches=_ALLOWED_MISMATCHES,
      references={
          'unigram': 'eval/test/unigram/bits_per_frame',
          'interpolated bigram': 'eval/test/bigram/bits_per_frame',
          'interpolated bigram, first codebook': (
              'eval/test/bigram/bits_per_frame_codebook_0'
          ),
      },
      listen=listen,
  )
