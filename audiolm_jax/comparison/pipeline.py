"""The report of a whole pipeline: a codec, its tokens, an LM, what it says."""

import json
import os
import pathlib
from typing import Any

import jax
import numpy as np

from audiolm_jax.comparison import codec as codec_report
from audiolm_jax.comparison import listening
from audiolm_jax.comparison import report as report_lib
from audiolm_jax.data import token_cache
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import bits as bits_lib
from audiolm_jax.evaluation import clips as clips_lib
from audiolm_jax.evaluation import codec as codec_evaluation
from audiolm_jax.objectives import likelihood
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.training import writers

REPORT = 'report.html'
SUMMARY = 'summary.json'
_MODEL = 'language model'
_TITLE = (
    'audiolm_jax: speech, tokens, and what a small language model makes of them'
)
# Less training than this cannot make an intelligible codec.
_ENOUGH_SECONDS = 1800.0
_PROMPT_SECONDS, _TOTAL_SECONDS = 1.5, 5.0
_TEMPERATURE, _TOP_P = 0.9, 0.95


def write(
    workdir: str | os.PathLike,
    tokenizer: Any,
    lm: Any,
    *,
    clips: int = 60,
    listen: int = 4,
) -> dict[str, Any]:
  """Evaluates, generates, and writes report.html and summary.json.

  Args:
    workdir: with the work directories `tokenizer` and `lm` and the token cache
      `tokens` in it.
    tokenizer: the bound tokenizer of `workdir/tokenizer`.
    lm: the bound LM of `workdir/lm`.
    clips: held-out clips that the codec is scored on.
    listen: held-out clips to listen to.

  Returns:
    The summary.

  Raises:
    encoding.TokensError: if the cache is not there, or another tokenizer's.
  """
  workdir = pathlib.Path(workdir)
  cache = token_cache.TokenCache(
      workdir / 'tokens', 'test', tokenizer.fingerprint()
  )
  corpus = cache.header.corpus, cache.header.languages
  held_out = codec_evaluation.held_out(
      *corpus,
      limit=clips,
      codebooks=(len(lm.decoder.vocabularies),),
  )
  groups = [_codec_scores(held_out, tokenizer)]
  bits = _lm_bits(workdir, lm, cache.header)
  report = report_lib.Report(
      _TITLE,
      f'{_what(_audio_seconds(workdir / "tokenizer"))} {_verdict(bits)}',
  )
  heard = codec_evaluation.held_out(
      *corpus, limit=listen, codebooks=held_out.codebooks, seconds=2.0
  )
  _add_reconstructions(report, heard, tokenizer)
  _add_continuations(report, continuations(cache, tokenizer, lm, listen))
  codec_report.add_to(report, groups, str(workdir))
  _add_bits(report, bits)
  _add_curves(report, workdir)
  _add_run(report, workdir, _stages(workdir))
  summary = {
      'run': report_lib.provenance(),
      'stage_seconds': _stages(workdir),
      'corpus': cache.header.corpus,
      'codec': groups,
      'lm_bits_per_frame': bits,
  }
  report.write(workdir / REPORT)
  writers.write_atomically(workdir / SUMMARY, json.dumps(summary, indent=2))
  return summary


def _what(trained: float) -> str:
  """What a listener should expect, given the codec's training."""
  if trained < _ENOUGH_SECONDS:
    return (
        f'The codec saw {trained:.0f} s of audio: too little to be'
        ' intelligible, and the language model models its noise. This run'
        ' shows only that every stage works.'
    )
  return (
      'An intelligible codec and a babbling language model: minutes of'
      f' training on two cores ({trained / 3600:.1f} h of audio, with'
      ' repetition). The codec keeps the words and blurs the voice; the'
      ' language model continues a prompt with speech-like sounds that mean'
      ' nothing.'
  )


def _verdict(bits: dict[str, dict[str, float]]) -> str:
  """Whether the language model predicts more than counts do."""
  (best, least), *_ = sorted(
      ((name, row['all']) for name, row in bits.items() if name != _MODEL),
      key=lambda pair: pair[1],
  )
  own = bits[_MODEL]['all']
  return (
      f'On held-out clips the language model needs {own:.2f} bits a frame and'
      f' the {best} {least:.2f}: it'
      f' {"beats" if own < least else "does not beat"} counting.'
  )


def _audio_seconds(run: pathlib.Path) -> float:
  """Seconds of audio that a codec's training drew, at most."""
  config = json.loads((run / 'config.json').read_text())
  return config['steps'] * config['batch_size'] * config['data']['crop_seconds']


def _stages(workdir) -> dict[str, float]:
  path = workdir / 'stages.json'
  if not path.exists():
    return {}
  stages = json.loads(path.read_text())
  return {name: stage['seconds'] for name, stage in stages.items()}


def _codec_scores(held_out, tokenizer) -> dict[str, Any]:
  evaluator = held_out.build(None)
  scores = list(evaluator.score(tokenizer))
  languages = ', '.join(held_out.languages) or 'all languages'
  seconds = sum(len(clip['audio']) for clip in evaluator.clips(tokenizer.spec))
  return codec_report.results(
      scores,
      tokenizer.spec,
      languages,
      seconds / tokenizer.spec.sample_rate,
  )


def _lm_bits(workdir, lm, header) -> dict[str, dict[str, float]]:
  """{model: {'all': bits/frame, 'codebook 0': ...}} on whole test clips."""
  clips = clips_lib.TokenClips(
      cache=str(workdir / 'tokens'),
      split='test',
      tokenizer_hash=header.fingerprint,
  )
  objective = likelihood.NLL(lm.decoder, rate=lm.frame_rate)
  evaluator = bits_lib.Bits(clips=clips, baselines=True).build(objective)
  means = evaluation_base.summarize(
      evaluator.run({'lm': {'params': lm.params}})
  )
  columns = {'all': ''} | {
      f'codebook {k}': f'_codebook_{k}'
      for k in range(len(lm.decoder.vocabularies))
  }
  return {
      model: {
          column: means[f'{prefix}bits_per_frame{suffix}']
          for column, suffix in columns.items()
      }
      for model, prefix in {
          'unigram': 'unigram/',
          'interpolated bigram': 'bigram/',
          _MODEL: '',
      }.items()
  }


def _add_run(report, workdir, stages):
  section = 'What was run'
  facts = report_lib.provenance()
  if stages:
    facts['seconds'] = ', '.join(f'{k} {v:.0f}' for k, v in stages.items())
  report.add_facts(section, facts)
  for run in ('tokenizer', 'lm'):
    text = (workdir / run / 'config.json').read_text()
    report.add_code(section, text, title=f'{run}/config.json')


def _add_curves(report, workdir):
  section = 'Training'
  # One chart each: these do not compare.
  for run, name, caption in (
      ('tokenizer', 'term/mel', 'Codec: multi-scale log mel distance.'),
      ('tokenizer', 'term/complex', 'Codec: complex spectral distance.'),
      ('lm', 'bits_per_frame', 'Language model: bits a frame, with dropout.'),
  ):
    series = report_lib.loss_curves(workdir / run, (name,))
    report.add_curves(section, series, f'{caption} On training batches.')


def _add_bits(report, bits):
  columns = list(next(iter(bits.values())))
  report.add_table(
      'Language model: held-out clips',
      ['bits a frame', *columns],
      [
          [model, *[f'{values[c]:.2f}' for c in columns]]
          for model, values in bits.items()
      ],
      'Lower is better. All three score the same positions: every code of every'
      ' frame of whole test clips. Counts are from the train split, their'
      ' smoothing is tuned on validation. A bigram sees the same codebook one'
      ' frame before.',
  )


def _add_reconstructions(report, held_out, tokenizer):
  section = 'Listen: the codec'
  for item in held_out.build(None).reconstruct(tokenizer):
    clips = {'original': item.original}
    for n, audio in sorted(item.estimates.items(), reverse=True):
      clips[codec_report.count(n)] = audio
    clip = item.clip
    report.add_audio(
        section,
        clip.get('text') or clip['id'],
        clips,
        item.sample_rate,
        f'{clip["id"]}, {clip.get("language", "")}',
    )


def _add_continuations(report, items):
  section = 'Listen: the language model'
  listening.add_side_by_side(report, section, {_MODEL: items}, '')


def continuations(
    cache: token_cache.TokenCache, tokenizer: Any, lm: Any, prompts: int
) -> list[listening.Item]:
  """Prompts from a cache's clips, each with one continuation.

  Args:
    cache: with clips that the LM did not learn from.
    tokenizer: the bound tokenizer of the cache.
    lm: the bound LM.
    prompts: how many.
  """
  spec = tokenizer.spec
  prompt = round(_PROMPT_SECONDS * spec.frame_rate)
  total = round(_TOTAL_SECONDS * spec.frame_rate)
  slots = len(lm.decoder.vocabularies)
  long = np.flatnonzero(cache.frames >= 2 * prompt)
  if not len(long):
    long = np.argsort(-cache.frames)
  count = min(prompts, len(long))
  examples = [cache[int(long[i * len(long) // prompts])] for i in range(count)]
  prompt = min(prompt, *[len(e.codes) for e in examples])
  codes = lm.generate(
      np.stack([e.codes[:prompt, :slots] for e in examples]),
      total,
      seed=0,
      temperature=_TEMPERATURE,
      top_p=_TOP_P,
  )
  num_samples = np.full(len(examples), spec.samples(total), np.int32)
  audio, _ = tokenizer.decode(
      tokenizers_base.Tokens(num_samples=num_samples, codes=codes)
  )
  audio = np.asarray(jax.device_get(audio))
  seconds = prompt / spec.frame_rate
  return [
      listening.Item(
          example.factors['id'],
          audio[row, :, 0],
          spec.sample_rate,
          f'{seconds:.1f} s of'
          f' {example.factors.get("text") or example.factors["id"]}'
          f' ({example.factors.get("language", "")}), then the model at'
          f' temperature {_TEMPERATURE}, top-p {_TOP_P}, seed 0.',
          seconds,
      )
      for row, example in enumerate(examples)
  ]
