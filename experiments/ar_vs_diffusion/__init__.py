"""Autoregression or diffusion? Quality against what generation costs.

Each arm draws the same tokens with the same blocks: frame by frame, by revealing
hidden codes, or by a flow over the vectors of the codes. See README.md beside this
file for the question, controls and results.
"""

from typing import Any

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax import train
from audiolm_jax.data import factors
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import gaps as gaps_lib
from audiolm_jax.lab import curves as curves_lib
from audiolm_jax.lab import questions
from audiolm_jax.lab import stages
from audiolm_jax.processes import times as times_lib
from configs.codec import quickstart as codec_config
from configs.lm import flow
from configs.lm import quickstart
from experiments import speech
from experiments.ar_vs_diffusion import heard

VARIANTS = tuple(speech.CORPORA)
# Steps of training; clips of 1/32 of the corpus, and how long arms may learn from
# these; T; clips in a test, of its bits, and to listen to.
_SMOKE: dict[str, Any] = {
    'seeds': 2,
    'steps': 20,
    'few': 10,
    'lengths': (10, 20),
    'sampled': (1, 4),
    'clips': 8,
    'bits': 8,
    'draws': 2,
    'listen': 1,
    'recogniser': 10,
    'width': 8,
}
_CPU: dict[str, Any] = {
    'seeds': 3,
    'steps': 500,
    'few': 100,
    'lengths': (125, 250, 500),
    'sampled': (1, 4, 16, 64),
    'clips': 32,
    'bits': 200,
    'draws': 4,
    'listen': 3,
    'recogniser': 1600,
    'width': 32,
}
_GPU: dict[str, Any] = {
    **_CPU,
    'steps': 100_000,
    'few': 1000,
    'lengths': (25_000, 50_000, 100_000),
    'clips': 500,
    'bits': 1000,
    'recogniser': 20_000,
}
_SIZES = {'smoke': _SMOKE, 'cpu': _CPU, 'gpu': _GPU, 'pod': _GPU}
_KIND = 'what draws the tokens is the question'
_RECIPE = 'each kind is trained as its config in configs/lm trains it'
_FEW = 'so is how much there is to learn from'
_MAPS = 'a flow has maps for its time and no tables of codes'
_AT_BEST = 'from few clips, each learns for as long as is best on validation'

_TEXT = (
    'One codec, four codebooks of it, one stack of blocks; what differs is how the'
    ' tokens of a clip are drawn: frame by frame (a delay pattern), by revealing'
    ' hidden codes in T steps in the order of confidence (masked diffusion, any'
    " order in training), or by a flow over the sums of the codes' vectors in T"
    ' steps of Euler, whose vectors become codes before they are decoded. {}'
    ' Two kinds learn from 1/32 of the clips, too, for as many steps as is best on'
    ' validation clips. Quality is the Frechet distance of spectral patches of'
    ' drawn clips to the same clips decoded from their own tokens{}, against'
    ' how often the network runs and against FLOPs. Bits of the masked model are a'
    ' bound, so its contrasts with exact bits are one-sided. A gap of half a second'
    ' in the middle of each clip is filled: by autoregression given what is before'
    ' it, by the others given both sides. Hypotheses: with all data'
    ' autoregression is better in bits and at equal FLOPs; with 1/32 the masked'
    ' model, which sees each clip in another way each time, overfits later'
    ' (2507.15857); the others fill gaps better; few steps cost masked codes more'
    ' than a flow, whose steps are not independent draws. Seeds vary batches, noise'
    ' and parameters; codec, corpus and judge are one draw, so the intervals hold'
    ' given these.'
)
_TOLD = (
    'All are told the phone and the semitone of f0 of each frame, which speech_world'
    ' knows; the voice is theirs to choose.'
)
_UNTOLD = 'Nothing tells them what to say.'


def question(budget: str, variant: str = '') -> questions.Question:
  """The experiment at a budget: 'smoke', 'cpu', 'gpu' or 'pod'."""
  spoken, sizes = speech.CORPORA[variant], _SIZES[budget]
  world = spoken is speech.WORLD
  codec = _codec(budget, spoken, sizes)
  tokens = spoken.tokens_of(codec, budget)
  vectors = _vectors(tokens, codec)
  judge = (
      speech.phone_recogniser(budget, sizes['recogniser']) if world else None
  )
  rows = _rows(budget, spoken)
  kinds = {
      'ar': _autoregression,
      'masked': _masked,
      'flow': _flow,
  }

  def arm(name, kind, text, few=False):
    settings = kinds[kind](budget, sizes, world)
    cache = vectors if kind == 'flow' else tokens
    stage = stages.Train(
        name='lm',
        # All have both, whichever they learn from.
        inputs=(tokens, vectors),
        config=config.replace(
            settings,
            {
                **speech.lasting(sizes['steps']),
                'models.lm.schedule.warmup_steps': min(sizes['lengths']) // 5,
                **rows,
                'data.cache': speech.path_of(cache),
                'data.limit': sizes['few'] if few else None,
            },
        ),
    )
    # Evaluation and checkpoints come at the end, whichever that is.
    grid = {'steps': sizes['lengths']} if few else {}
    return questions.Arm(name, stage, grid, description=text)

  arms = (
      arm('ar', 'ar', 'frame by frame, all clips'),
      arm('masked', 'masked', 'masked diffusion, all clips'),
      arm('flow', 'flow', 'flow over vectors of codes, all clips'),
      arm('ar_few', 'ar', 'frame by frame, 1/32 of the clips', few=True),
      arm(
          'masked_few',
          'masked',
          'masked diffusion, 1/32 of the clips',
          few=True,
      ),
  )
  likely = ('ar', 'masked', 'ar_few', 'masked_few')
  quality = (
      (
          questions.Outcome(
              'phone error',
              'eval/drawn/phone_error',
              'of phones',
              'what a recogniser mishears in clips that are drawn in the most'
              ' steps',
              margin=0.02,
          ),
      )
      if world
      else ()
  )
  more = (
      (
          questions.Outcome(
              'phone error in 4 steps',
              'eval/drawn/phone_error_in_4_steps',
              'of phones',
              'the same in 4 steps',
              margin=0.02,
              of=('masked', 'flow', 'masked_few'),
          ),
          questions.Outcome(
              'phone error of two clips',
              'eval/drawn/joined/phone_error',
              'of phones',
              'of two clips in one row, longer than rows of training',
              margin=0.02,
          ),
      )
      if world
      else ()
  )
  drawn = ('phone_error', 'frechet') if world else ('frechet',)
  return questions.Question(
      name='ar_vs_diffusion',
      variant=variant,
      title='Autoregression or diffusion?',
      text=_TEXT.format(
          _TOLD if world else _UNTOLD,
          ' and the phones that a recogniser, which has heard neither voices nor'
          ' words of them, gets wrong'
          if world
          else '',
      ),
      arms=arms,
      baseline='ar',
      contrasts=(
          ('masked', 'ar'),
          ('flow', 'ar'),
          ('flow', 'masked'),
          ('ar_few', 'ar'),
          ('masked_few', 'masked'),
          ('masked_few', 'ar_few'),
      ),
      validate=lambda model: stages.Evaluate(
          name='validation',
          inputs=(model, tokens),
          evaluators={
              'held_out': _bits(model, spoken, tokens, 'validation', sizes)
          },
      ),
      select='eval/held_out/bits_per_frame',
      test=lambda model: _test(model, spoken, tokens, judge, sizes),
      outcomes=(
          *quality,
          questions.Outcome(
              'frechet',
              'eval/drawn/frechet',
              'squared, of unit variance',
              'distance of drawn clips, in the most steps, to the clips from their'
              ' own tokens',
          ),
          questions.Outcome(
              'bits',
              'eval/test/bits_per_frame',
              'bits/frame',
              'what a frame of held-out clips costs; of masked codes a bound',
              margin=0.1,
              likelihood=True,
              of=likely,
          ),
          *more,
          questions.Outcome(
              'gap',
              'eval/drawn/gap_mel',
              'log10',
              'mel distance in half a second that is filled',
              margin=0.02,
          ),
          questions.Outcome(
              'first frame',
              'eval/drawn/first_gflops',
              'GFLOPs',
              'of work before the first frame of a clip can be heard',
          ),
      ),
      differences={
          'objective': _KIND,
          'data.cache': _KIND,
          'models': _RECIPE,
          'data.limit': _FEW,
      },
      mismatches={
          **dict.fromkeys(
              ('params', 'active_params', 'trainable_params'), _MAPS
          ),
          'training_flops': _AT_BEST,
          'scoring_flops': 'a delay pattern has more steps than frames',
          'generation_flops': 'what generation costs is the question',
          'examples': _AT_BEST,
          'audio_seconds': _AT_BEST,
      },
      seeds=sizes['seeds'],
      row_seconds=arms[0].stage.config.data.frames
      / speech.spec(budget).frame_rate,
      bits_per_second=speech.spec(budget).bits_per_second,
      controls=(
          questions.Control(
              'ar_few',
              'ar',
              'bits',
              'higher',
              'fewer clips cannot tell as much of others',
          ),
      ),
      null=(
          'at a few hundred steps, blocks and data matter more than how tokens'
          ' are drawn'
      ),
      references=(
          {
              'phone error, from own tokens': (
                  'eval/drawn/reconstruction/phone_error'
              )
          }
          if world
          else {}
      ),
      curves=tuple(
          curves_lib.Curve(
              f'{name.replace("_", " ")} by {x}',
              f'eval/drawn/{name} by {x}',
              x,
              'of phones' if name == 'phone_error' else 'squared distance',
              log_x=True,
          )
          for name in drawn
          for x in ('GFLOPs a second', 'passes')
      ),
      listen=lambda model: stages.Function(
          name='samples',
          inputs=(model, tokens, codec),
          function=heard.write,
          arguments={
              'model': stages.output(model.name),
              'cache': speech.path_of(tokens),
              'clips': sizes['listen'],
              'max_frames': spoken.max_frames,
              **_drawing(model.config.objective.decoder, sizes),
          },
      ),
  )


def _codec(budget, spoken, sizes) -> stages.Train:
  """The quickstart's codec; its codes stand for vectors that a flow can draw."""
  settings = codec_config.get_config(speech.size(budget))
  return stages.Train(
      name='tokenizer',
      inputs=(spoken.corpus(budget),),
      config=config.replace(
          speech.unmeasured(settings),
          {
              'data.corpus': spoken.name,
              'data.languages': spoken.languages(budget),
              'objective.tokenizer.bottleneck.dimension': sizes['width'],
          },
      ),
  )


def _vectors(tokens, codec) -> stages.Command:
  """The cache of what the codes stand for."""
  return stages.Command(
      name='vectors',
      inputs=(tokens, codec),
      lines=(
          (
              'tools/code_vectors.py',
              f'--cache={speech.path_of(tokens)}',
              f'--codebooks={quickstart.CODEBOOKS}',
              f'--tokenizer={stages.output(codec.name)}',
              '--out={out}/tokens',
          ),
      ),
  )


def _rows(budget, spoken) -> dict[str, Any]:
  """What all kinds train on."""
  source = quickstart.get_config(speech.size(budget))
  return {
      'batch_size': source.batch_size,
      'data.frames': source.data.frames,
      'objective.rate': speech.spec(budget).frame_rate,
      **spoken.rows(budget),
  }


def _conditions(budget, world) -> dict[str, Any]:
  """What tells of each frame: of two clips in one row, too."""
  if not world:
    return {}
  row = _rows(budget, speech.WORLD)['data.frames']
  known = factors.Aligned(length=max(row, 2 * speech.WORLD.max_frames))
  return {'known': conditioners.Aligned(source=known)}


def _autoregression(budget, sizes, world) -> train.Config:
  del sizes
  settings = quickstart.get_config(speech.size(budget))
  return config.replace(
      speech.unmeasured(settings),
      {'objective.decoder.conditions': _conditions(budget, world)},
  )


def _bidirectional(budget):
  """The quickstart's blocks, each of whose frames sees all others."""
  backbone = quickstart.get_config(
      speech.size(budget)
  ).objective.decoder.backbone
  return config.replace(backbone, {'mixers[0].mask_kind': 'bidirectional'})


def _masked(budget, sizes, world) -> train.Config:
  settings = _autoregression(budget, sizes, world)
  return config.replace(
      settings,
      {
          'objective.decoder': decoders.Masked(
              vocabularies=settings.objective.decoder.vocabularies,
              backbone=_bidirectional(budget),
              conditions=_conditions(budget, world),
          )
      },
  )


def _flow(budget, sizes, world) -> train.Config:
  settings = flow.get_config(speech.size(budget))
  backbone = config.replace(
      _bidirectional(budget), {'adaptive': 'adaln_zero', 'film_silu': True}
  )
  return config.replace(
      speech.unmeasured(settings),
      {
          'objective': objectives.Denoising(
              decoder=decoders.Flow(
                  dimension=sizes['width'],
                  backbone=backbone,
                  conditions=_conditions(budget, world),
                  gaps=gaps_lib.Gaps(prefix=0.1, segments=0.1),
              ),
              density=times_lib.LogitNormal(),
          )
      },
  )


def _drawing(decoder, sizes) -> dict[str, Any]:
  """Of what a decoder is sampled with."""
  if isinstance(decoder, decoders.Decoder):
    return {'steps': [], 'codebooks': None}
  steps = list(sizes['sampled'])
  if isinstance(decoder, decoders.Masked):
    return {'steps': steps, 'codebooks': None}
  return {'steps': steps, 'codebooks': quickstart.CODEBOOKS}


def _bits(model, spoken, tokens, split, sizes):
  """Bits a frame, or a bound of them."""
  clips = sizes['bits'] if split == 'test' else min(100, sizes['bits'])
  bits = spoken.bits(split, clips, tokens)
  if isinstance(model.config.objective.decoder, decoders.Masked):
    steps = sizes['sampled'] if split == 'test' else ()
    return evaluation.Bounds(
        clips=bits.clips, draws=sizes['draws'], steps=steps
    )
  return bits


def _test(model, spoken, tokens, judge, sizes) -> stages.Evaluate:
  """What is drawn, and bits where there are any."""
  decoder = model.config.objective.decoder
  drawing = _drawing(decoder, sizes)
  drawn = evaluation.Resynthesis(
      judge=judge and stages.output(judge.name),
      clips=evaluation.TokenClips(
          cache=speech.path_of(tokens),
          split='test',
          limit=sizes['clips'],
          max_frames=spoken.max_frames,
      ),
      codebooks=drawing['codebooks'],
      steps=tuple(drawing['steps']),
      gap=0.5,
      joined=judge is not None,
      batch_size=sizes['clips'],
  )
  evaluators = {'drawn': drawn}
  if not isinstance(decoder, decoders.Flow):
    evaluators['test'] = _bits(model, spoken, tokens, 'test', sizes)
  return stages.Evaluate(
      name='test',
      inputs=(model, tokens, *([judge] if judge else [])),
      evaluators=evaluators,
  )
