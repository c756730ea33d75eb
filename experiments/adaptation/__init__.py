"""Full fine-tuning or low-rank adaptation? An LM learns a language.

The base LM and its tokenizer know English, French and Spanish; Italian is new
to both. See README.md beside this file for the question, controls and results.
"""

from collections.abc import Iterator
import pathlib
import shlex

from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import param_transforms
from audiolm_jax import train
from audiolm_jax.tokenizers import encoding
from audiolm_jax.comparison import arms as arms_lib
from audiolm_jax.data import token_cache
from experiments import token_lms

NEW = 'it'
OLD = ('en', 'fr', 'es')

# Steps, clips of Italian to learn from, seeds, clips to evaluate on.
_SIZES = {
    'smoke': {'steps': 3, 'examples': 32, 'seeds': 2, 'clips': 8},
    'cpu': {'steps': 60, 'examples': 128, 'seeds': 3, 'clips': 120},
}
_RATES = {
    'smoke': {'full': (1e-3,), 'lora': (3e-3,)},
    'cpu': {'full': (3e-4, 1e-3, 3e-3), 'lora': (1e-3, 3e-3, 1e-2)},
}
_ALLOWED_MISMATCHES = {
    'trainable_params': 'how few may train is the question',
    'params': 'adapters come on top of the base',
    'training_flops': (
        'examples and steps are matched; adapters need no gradient of the'
        ' base weights, but add their own products'
    ),
    'inference_flops': (
        'adapters are scored unmerged; merged into the weights they cost'
        ' nothing'
    ),
}


def prepare(base: pathlib.Path, workdir: pathlib.Path) -> Iterator[str]:
  """The commands that must have run: Italian as tokens of the base's codec."""
  corpus = token_cache.read_header(base / 'tokens').corpus
  chosen = [f'--corpus={corpus}', f'--languages={NEW}']
  yield shlex.join(['python', 'tools/prepare_data.py', *chosen])
  yield shlex.join(
      [
          'python',
          'tools/tokenize_audio.py',
          'corpus',
          f'--tokenizer={base.absolute()}/tokenizer',
          *chosen,
          f'--out={_tokens(workdir)}',
      ]
  )


def question(
    base: pathlib.Path, workdir: pathlib.Path, budget: str
) -> arms_lib.Question:
  """The experiment at a budget: 'smoke' or 'cpu'.

  Args:
    base: holds `lm` and `tokens` of the known languages.
    workdir: holds the tokens of Italian.
    budget: how much is trained.
  """
  sizes, rates = _SIZES[budget], _RATES[budget]
  old, new = str((base / 'tokens').absolute()), _tokens(workdir)
  header = token_cache.read_header(new)
  if header.fingerprint != token_cache.read_header(old).fingerprint:
    raise encoding.TokensError(f'{new} is not of the tokenizer of {old}')
  known = token_cache.read_header(old).languages
  if not set(known) <= set(OLD) or not known:
    raise encoding.TokensError(
        f'{old} holds {known or "all languages"}, but {NEW} must be new to the'
        f' base: make one with --languages={",".join(OLD)}'
    )

  def configure(transform: param_transforms.ParamTransform):
    def configured(rate: float) -> train.Config:
      return config.replace(
          _base_config(base),
          {
              'data.cache': new,
              'data.languages': (NEW,),
              'data.limit': sizes['examples'],
              'steps': sizes['steps'],
              'log_every': max(1, sizes['steps'] // 20),
              # What differs between the arms:
              'models.lm.param_transform': transform,
              'models.lm.schedule': token_lms.schedule(rate, sizes['steps']),
          },
      )

    return configured

  tried = (
      arms_lib.Arm(
          'full',
          configure(param_transforms.Full()),
          rates['full'],
          'every weight trains',
      ),
      *[
          arms_lib.Arm(
              f'lora_{rank}',
              configure(param_transforms.Lora(rank=rank, alpha=2.0 * rank)),
              rates['lora'],
              f'rank-{rank} updates of every matrix, alpha {2 * rank}',
          )
          for rank in (4, 16)
      ],
  )
  settings = _base_config(base)
  spec = token_lms.modelled(header.spec, settings.data.codebooks)
  return arms_lib.Question(
      title='Full fine-tuning or LoRA?',
      text=(
          'A language model over audio tokens knows English, French and'
          ' Spanish. It is adapted to Italian, which neither it nor its'
          f' tokenizer has heard, from the same {sizes["examples"]} clips in'
          ' the same number of steps, batches and orders (by seed). What'
          ' differs: which parameters train, and in which form; the learning'
          ' rate is chosen for each arm on Italian validation clips. Seeds'
          ' vary data order, crops, dropout and adapters; base model,'
          ' tokenizer and the clips to learn from are one draw, so the'
          ' intervals hold given these.'
          + (' A smoke run: it answers nothing.' if budget == 'smoke' else '')
      ),
      base=str((base / 'lm').absolute()),
      arms=tried,
      seeds=tuple(range(1, 1 + sizes['seeds'])),
      sweep_seed=1000,
      validation={NEW: token_lms.evaluator(new, 'validation', sizes['clips'])},
      select=f'eval/{NEW}/bits_per_frame',
      test={
          NEW: token_lms.evaluator(new, 'test', sizes['clips']),
          'old': token_lms.evaluator(old, 'test', sizes['clips']),
      },
      outcomes=(
          arms_lib.Outcome(
              'gain',
              f'eval/{NEW}/bits_per_frame',
              -1,
              'bits/frame',
              'fewer bits a frame of held-out Italian than the base needs',
          ),
          arms_lib.Outcome(
              'forgetting',
              'eval/old/bits_per_frame',
              1,
              'bits/frame',
              'more bits a frame of held-out en, fr, es than the base needs',
          ),
      ),
      contrasts=(
          ('lora_4', 'full'),
          ('lora_16', 'full'),
          ('lora_16', 'lora_4'),
      ),
      row_seconds=settings.data.frames / spec.frame_rate,
      bits_per_second=spec.bits_per_second,
      allowed_mismatches=_ALLOWED_MISMATCHES,
  )


def _tokens(workdir: pathlib.Path) -> str:
  return str((workdir / f'tokens_{NEW}').absolute())


def _base_config(base: pathlib.Path) -> train.Config:
  """The base LM's own config, starting from its parameters."""
  return config.replace(
      config.build(train.Config, assembly_lib.read(base / 'lm')),
      {
          'models.lm.init_from': str((base / 'lm').absolute()),
          'evaluators': {},
          'checkpoint.best': None,
      },
  )
