"""What does distilling semantics into the first codebook buy?

Each arm trains the quickstart's codec for a while, its first codes drawn to what a
recogniser of phones makes of the same audio, more or less. See README.md beside
this file for the question, controls and results.
"""

from typing import Any

from audiolm_jax import config
from audiolm_jax import evaluation
from audiolm_jax.evaluation import representations
from audiolm_jax.lab import questions
from audiolm_jax.lab import stages
from audiolm_jax.objectives import distillation as distillation_lib
from audiolm_jax.tokenizers import bottlenecks
from configs.codec import quickstart as codec_config
from configs.lm import quickstart
from experiments import speech

VARIANTS = tuple(speech.CORPORA)
# Seeds; steps of the teacher, of a codec and of a language model; clips of the
# probes, of a test of reconstruction and of one of a language model; pairs of
# sentences; what is read as the voice; clips to listen to.
_SIZES: dict[str, dict[str, Any]] = {
    'smoke': {
        'seeds': 2,
        'teacher': 10,
        'codec': 10,
        'lm': 10,
        'width': 32,
        'layers': 1,
        'phone_clips': 60,
        'voice_clips': 60,
        # Of so few clips, some speakers would only be in the test.
        'voice': 'group',
        'codec_clips': 8,
        'clips': 8,
        'pairs': 10,
        'listen': 1,
    },
    'cpu': {
        'seeds': 3,
        'teacher': 1600,
        'codec': 500,
        'lm': 400,
        'width': 128,
        'layers': 2,
        'phone_clips': 300,
        'voice_clips': 800,
        'voice': 'speaker',
        'codec_clips': 60,
        'clips': 200,
        'pairs': 200,
        'listen': 3,
    },
}
_SIZES['gpu'] = _SIZES['pod'] = {
    **_SIZES['cpu'],
    'teacher': 20_000,
    'codec': 20_000,
    'lm': 20_000,
    'width': 512,
    'layers': 8,
    'phone_clips': 1000,
    'voice_clips': 3000,
    'pairs': 1000,
}
_WEIGHT = 'how much the teacher counts is the question'
_SPLIT = 'so is whether the others correct the first codebook'
_OTHERS = 'a control whose teacher has heard other clips'


_TEXT = (
    'A codec of eight codebooks whose first one is drawn to a teacher: one minus'
    ' the cosine, frame by frame, between a linear map of its vectors and the'
    ' hidden states of a recogniser of phones that hears the same audio (Mimi,'
    ' 2410.00037; SpeechTokenizer, 2308.16692). Arms differ in the weight of that'
    ' term and in whether the other codebooks quantise what the first leaves over'
    ' (residual) or the same input beside it (split). The recogniser learnt from'
    ' synthetic syllables without words; data, steps and, by seed, batches are'
    ' the same. {} A language model of the first codes stands beside; its bits'
    ' compare nothing: codes that say less cost less. Hypotheses: distillation'
    ' makes the first codebook say more of what is said and less of who says it;'
    ' reconstruction pays for it, and in a split quantiser less. Seeds vary the'
    ' codec; the language models over its codes have one seed, and the teacher'
    ' and the corpus are one draw, so the intervals hold given these.'
)
_WORLD_TEXT = (
    'What the first codebook says is read from its codes alone, by linear probes'
    ' of phones and of the speaker, on speakers or texts that the probe has not'
    ' seen; and its language model is asked which of two sentences is'
    ' grammatical.'
)
_PROMPTS_TEXT = (
    'What the first codebook says is what Whisper, which is no relation of the'
    ' teacher, understands of English prompts that are decoded from its codes'
    ' alone.'
)
_WORLD_OUTCOMES = (
    questions.Outcome(
        'phones',
        'eval/phones/accuracy',
        'share',
        'of frames whose phone a linear probe reads from the first code alone, of'
        ' speakers that it has not heard',
        better='higher',
        margin=0.02,
    ),
    questions.Outcome(
        'speaker',
        'eval/speaker/accuracy',
        'share',
        'of clips whose speaker (of 64) a linear probe reads from how often they'
        ' have each first code',
        margin=0.02,
    ),
    questions.Outcome(
        'pairs',
        'eval/pairs/pairs',
        'share',
        'of sentences that a language model of the first codes finds likelier'
        ' than the same with a verb of the wrong number; chance is 1/2',
        better='higher',
    ),
)
_PROMPTS_OUTCOMES = (
    questions.Outcome(
        'words of the first',
        'eval/codec/wer@1',
        'word error',
        'of Whisper tiny.en on clips from the first code alone',
        margin=0.02,
    ),
    questions.Outcome(
        'words',
        'eval/codec/wer',
        'word error',
        'of the same from all codes',
        margin=0.02,
    ),
)
_OUTCOMES = (
    questions.Outcome(
        'mel',
        'eval/codec/mel',
        'log10',
        'mel distance of reconstructions from all codes',
        margin=0.02,
    ),
    questions.Outcome(
        'mel of the first',
        'eval/codec/mel@1',
        'log10',
        'mel distance of reconstructions from the first code alone',
        margin=0.02,
    ),
    questions.Outcome(
        'bits',
        'eval/test/bits_per_frame',
        'bits/frame',
        'what the first codes cost: of other codes in each arm, so no ranking',
    ),
)


def question(budget: str, variant: str = '') -> questions.Question:
  """The experiment at a budget: 'smoke', 'cpu', 'gpu' or 'pod'."""
  spoken, sizes = speech.CORPORA[variant], _SIZES[budget]
  world = spoken is speech.WORLD
  features = _features(budget, spoken, sizes['teacher'])
  codec = codec_config.get_config(speech.size(budget))

  def arm(name, text, weight, split=False, others=False):
    heard = 'others' if others else 'features'
    stage = _codec(budget, spoken, features, sizes, weight, split, heard)
    return questions.Arm(name, stage, description=text)

  return questions.Question(
      name='semantic_distillation',
      variant=variant,
      title='What does distilling semantics into the first codebook buy?',
      text=_TEXT.format(_WORLD_TEXT if world else _PROMPTS_TEXT),
      arms=(
          arm('residual', 'no teacher: its weight is 0', 0.0),
          arm('residual_1', 'weight 1 (Mimi)', 1.0),
          arm('residual_10', 'weight 10', 10.0),
          arm('split', 'split, no teacher', 0.0, split=True),
          arm('split_1', 'split, weight 1', 1.0, split=True),
          arm('split_10', 'split, weight 10', 10.0, split=True),
          arm(
              'residual_10_others',
              'weight 10, the teacher having heard another clip',
              10.0,
              others=True,
          ),
      ),
      baseline='residual',
      contrasts=(
          ('residual_1', 'residual'),
          ('residual_10', 'residual'),
          ('split', 'residual'),
          ('split_1', 'split'),
          ('split_10', 'split'),
          ('split_10', 'residual_10'),
          ('residual_10_others', 'residual_10'),
      ),
      validate=speech.measure('validation', {}),
      select='',
      test=lambda model: _test(model, budget, spoken, sizes),
      outcomes=(*(_WORLD_OUTCOMES if world else _PROMPTS_OUTCOMES), *_OUTCOMES),
      differences={
          'objective.distillation.weight': _WEIGHT,
          'objective.tokenizer.bottleneck': _SPLIT,
          'data.features': _OTHERS,
      },
      mismatches={},
      seeds=sizes['seeds'],
      row_seconds=1.0,
      bits_per_second=codec.objective.tokenizer.spec.bits_per_second,
      controls=(
          questions.Control(
              'residual_10_others',
              'residual_10',
              *(
                  ('phones', 'lower')
                  if world
                  else ('words of the first', 'higher')
              ),
              'features of another clip say nothing of what is said in this',
          ),
      ),
      null='at these few steps it changes nothing that this measures',
      references=(
          {'known: the text': 'eval/known/text_bits_per_frame'}
          if world
          else {'words, originals': 'eval/codec/wer_original'}
      ),
      listen=speech.hear_first_codes(spoken, budget, sizes['listen']),
  )


def _features(budget, spoken, steps) -> stages.Command:
  """The teacher's hidden states of the clips that the codec learns from.

  In 'features'; in 'others' clips have those of other clips.
  """
  teacher, corpus = speech.phone_recogniser(budget, steps), spoken.corpus(
      budget
  )
  line = (
      'tools/teacher_features.py',
      f'--teacher={stages.output(teacher.name)}',
      f'--corpus={spoken.name}',
      f'--languages={",".join(spoken.languages(budget))}',
  )
  return stages.Command(
      name='teaching',
      inputs=(teacher, corpus),
      lines=(
          (*line, '--out={out}/features'),
          (*line, '--out={out}/others', '--of_other_clips'),
      ),
  )


def _codec(
    budget, spoken, features, sizes, weight, split, heard
) -> stages.Train:
  """The quickstart's codec, with a teacher."""
  settings = codec_config.get_config(speech.size(budget))
  teacher = features.chain['teacher'].config.objective.recogniser
  bottleneck = rvq = settings.objective.tokenizer.bottleneck
  if split:
    split_rvq = bottlenecks.SplitRvq
    both = config.schema(type(rvq)).keys() & config.schema(split_rvq).keys()
    bottleneck = split_rvq(
        semantic=1,
        acoustic=rvq.codebooks - 1,
        **{name: getattr(rvq, name) for name in both},
    )
  settings = config.replace(
      speech.unmeasured(settings, sizes['codec']),
      {
          'data.corpus': spoken.name,
          'data.languages': spoken.languages(budget),
          'data.features': f'{stages.output(features.name)}/{heard}',
          # What differs between the arms:
          'objective.tokenizer.bottleneck': bottleneck,
          'objective.distillation': distillation_lib.Distillation(
              teacher=distillation_lib.Features(width=teacher.width),
              weight=weight,
              comparison='frame',
          ),
      },
  )
  models = {
      **settings.models,
      # The linear map to the teacher's features.
      'distillation': settings.models['codec'],
  }
  return stages.Train(
      name='tokenizer',
      inputs=(spoken.corpus(budget), features),
      config=config.replace(settings, {'models': models}),
  )


def _test(codec, budget, spoken, sizes) -> stages.Together:
  """What the first codes say, how all sound, and a language model of the first."""
  world = spoken is speech.WORLD
  reconstruction = evaluation.Codec(
      corpus=spoken.name,
      split='test',
      languages=spoken.spoken(budget) if world else ('en',),
      limit=sizes['codec_clips'],
      codebooks=(1, 8),
      judges=() if world else ('wer',),
      transcribed=not world,
  )
  first = {
      'of': representations.CodecFrames(codebooks=1),
      'corpus': spoken.name,
      'languages': spoken.spoken(budget),
      'control': False,
      'code': False,
  }
  probes = {
      'phones': evaluation.Probe(
          factor='phone', limit=sizes['phone_clips'], **first
      ),
      'speaker': evaluation.Probe(
          factor=sizes['voice'], limit=sizes['voice_clips'], **first
      ),
  }
  heard = stages.Evaluate(
      name='codec',
      inputs=(codec, spoken.heard(budget)),
      evaluators={'codec': reconstruction, **(probes if world else {})},
  )
  cache = spoken.tokens_of(codec, budget)
  lm = spoken.lm(
      budget,
      cache,
      {
          'objective.decoder.vocabularies': (1024,),
          # One code a frame: a small model does.
          'objective.decoder.backbone.width': sizes['width'],
          'objective.decoder.backbone.layers': sizes['layers'],
          'objective.decoder.backbone.mlp.hidden': 4 * sizes['width'],
          **speech.lasting(sizes['lm']),
      },
  )
  known = evaluation.KnownBits(
      clips=evaluation.TokenClips(split='test', limit=sizes['clips'])
  )
  pairs = evaluation.GrammarPairs(language='sentences', count=sizes['pairs'])
  said = stages.Evaluate(
      name='said',
      inputs=(lm, cache, codec),
      evaluators={
          'test': spoken.bits('test', sizes['clips']),
          **({'known': known, 'pairs': pairs} if world else {}),
      },
  )
  return stages.Together(name='test', inputs=(heard, said))
