"""How well a tokenizer reconstructs held-out clips, item by item.

A clip of a corpus may hold a `target` beside its `audio`, of the same shape:
what comes out is compared with that, as in training (`objectives.Codec`).
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
from typing import Any

import numpy as np

from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax.audio import resample
from audiolm_jax.data import corpora
from audiolm_jax.data import pipeline
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import judges as judges_lib
from audiolm_jax.evaluation import metrics
from audiolm_jax.evaluation import opus
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.tokenizers import base as tokenizers_base

# (Frames, rows) of batches, which cost alike. Few, as each shape is compiled
# for the encoder and for every number of codebooks.
_BUCKETS = ((256, 8), (1024, 2))
_AUDIO = {'audio', 'target'}  # Of clips.


@dataclasses.dataclass(frozen=True)
class Codec:
  """Distances (and judges, if asked for) of reconstructions to originals.

  Scores of every clip: 'mel', 'stft', 'si_sdr' (evaluation.metrics), and those
  of the judges; each with the suffix '@n' where only the first n codebooks are
  decoded. Of the whole corpus, as item 'corpus': 'usage_k' and 'entropy_k' of
  codebook k. Clips that cannot have a score (a silent reference for SI-SDR, no
  speech for PESQ) have none.

  Attributes:
    corpus: as `data.load_corpus` takes it.
    split: of the corpus.
    languages: which ones; empty for all.
    limit: at most so many clips, evenly spaced over the split.
    codebooks: numbers of codebooks to decode from; empty for all of them only.
    judges: of `judges.JUDGES`; all but f0 need the [eval] extra.
    transcribed: whether to leave out clips without a transcript.
    min_seconds: shorter clips are left out.
  """

  corpus: corpora.Name = 'asterisk_prompts'
  split: str = 'validation'
  languages: tuple[str, ...] = ()
  limit: config.Positive | None = None
  codebooks: config.Sizes = ()
  judges: tuple[str, ...] = ()
  transcribed: bool = False
  min_seconds: config.NonNegative = 0.25

  def build(self, objective: Any) -> 'CodecEvaluator':
    """An evaluator of what `objective.bind` makes of variables.

    Raises:
      judges.MissingJudge: naming the command that adds it.
      corpora.CorpusError: if the corpus is not built.
    """
    return CodecEvaluator(self, objective)


def held_out(
    corpus: str,
    languages: tuple[str, ...] = (),
    *,
    seconds: float = 1.0,
    **options: Any,
) -> Codec:
  """Settings for the test clips of a corpus, whatever it knows of them.

  Transcribed ones where most are, and long ones where there are any.

  Args:
    corpus: as `data.load_corpus` takes it.
    languages: which ones; empty for all.
    seconds: what is long.
    **options: other fields of `Codec`.

  Raises:
    corpora.CorpusError: if the corpus is not built.
  """
  clips = data.load_corpus(corpus, 'test', languages or None)
  said, long = [], []
  for clip in (clips[i] for i in range(len(clips))):
    said.append(bool(judges_lib.normalize(clip.get('text', ''))))
    long.append(len(clip['audio']) >= seconds * clip['sample_rate'])
  transcribed = 2 * sum(said) >= len(said)
  if transcribed:
    long = np.logical_and(long, said)
  return Codec(
      corpus=corpus,
      split='test',
      languages=languages,
      transcribed=transcribed,
      min_seconds=seconds if any(long) else 0.0,
      **options,
  )


@dataclasses.dataclass(frozen=True)
class Reconstruction:
  """One clip through the tokenizer.

  Attributes:
    clip: the corpus entry (id, text, language, ...), audio aside.
    original: [T] at `sample_rate`, one channel after the other if many: the
      clip's target, which is its audio if it has no other.
    estimates: number of codebooks -> [T].
    codes: [F, K] all codes, or None for continuous tokens.
    sample_rate: in Hz.
  """

  clip: dict[str, Any]
  original: np.ndarray
  estimates: dict[int, np.ndarray]
  codes: np.ndarray | None
  sample_rate: int


class CodecEvaluator(evaluation_base.Evaluator):
  """See `Codec`; `score` takes a bound tokenizer, as `audiolm_jax.load` gives."""

  def __init__(self, settings: Codec, objective: Any = None):
    self.settings = settings
    self._objective = objective
    # By sample rate and channels.
    self._clips: dict[tuple[int, int], list[dict[str, Any]]] = {}
    self._judges = [_judge(name) for name in settings.judges]

  def run(self, variables):
    yield from self.score(self._objective.bind(variables))

  def score(
      self, bound: audio_tokenizer.AudioTokenizer
  ) -> Iterator[evaluation_base.Score]:
    """Scores of every clip, then of the corpus."""
    vocabularies = bound.spec.vocabularies
    counts = [np.zeros(v, np.int64) for v in vocabularies]
    for item in self.reconstruct(bound):
      total = max(item.estimates)
      estimates = {
          '' if n == total else f'@{n}': estimate
          for n, estimate in item.estimates.items()
      }
      rate = item.sample_rate
      yield from self._scores(item.clip, item.original, rate, estimates)
      if item.codes is not None:
        more = metrics.code_counts(
            item.codes[None], np.array([len(item.codes)]), vocabularies
        )
        counts = [a + b for a, b in zip(counts, more, strict=True)]
    for slot, of in enumerate(metrics.code_statistics(counts)):
      yield evaluation_base.Score(f'usage_{slot}', 'corpus', of.usage, 1.0)
      yield evaluation_base.Score(f'entropy_{slot}', 'corpus', of.entropy, 1.0)

  def compare(
      self,
      spec: tokenizers_base.Spec,
      codecs: Mapping[str, Callable[[np.ndarray, int], opus.Coded]],
  ) -> Iterator[evaluation_base.Score]:
    """Scores of other codecs on the same clips, mono.

    Args:
      spec: of the tokenizer that they stand beside.
      codecs: name -> function of audio [T] and its rate in Hz.

    Yields:
      The scores of every clip with the suffix '@name', and 'bits@name', whose
      weight is seconds.
    """
    rate = spec.sample_rate
    for clip in self.clips(spec):
      audio, original = (clip[k].mean(axis=1) for k in ('audio', 'target'))
      coded_by = {f'@{n}': code(audio, rate) for n, code in codecs.items()}
      for suffix, coded in coded_by.items():
        seconds = len(original) / rate
        yield evaluation_base.Score(
            f'bits{suffix}', clip['id'], coded.bits, seconds
        )
      estimates = {suffix: coded.audio for suffix, coded in coded_by.items()}
      yield from self._scores(clip, original, rate, estimates)

  def reconstruct(
      self, bound: audio_tokenizer.AudioTokenizer
  ) -> Iterator[Reconstruction]:
    """Every clip through the tokenizer, in batches of few shapes."""
    spec = bound.spec
    clips = self.clips(spec)
    numbers = self._codebooks(spec)
    num_samples = [len(clip['audio']) for clip in clips]
    frames = spec.frames(np.asarray(num_samples, np.int64))
    bounds, sizes = pipeline.doubled(_BUCKETS, max(frames))
    for limit, size, indices in pipeline.buckets(frames, bounds, sizes):
      # Rows of length 0 fill the last batch of a bucket: one shape for all.
      audio = np.zeros((size, limit * spec.hop, spec.channels), np.float32)
      valid = np.zeros(size, np.int32)
      for row, i in enumerate(indices):
        audio[row, : num_samples[i]] = clips[i]['audio']
        valid[row] = num_samples[i]
      tokens = bound.encode(audio, valid)
      decoded = {n: bound.decode(_first(tokens, n))[0] for n in numbers}
      for row, i in enumerate(indices):
        yield Reconstruction(
            clip={k: v for k, v in clips[i].items() if k not in _AUDIO},
            original=clips[i]['target'].T.ravel(),
            estimates={
                n: whole[row, : num_samples[i]].T.ravel()
                for n, whole in decoded.items()
            },
            codes=None
            if tokens.codes is None
            else tokens.codes[row, : frames[i]],
            sample_rate=spec.sample_rate,
        )

  def _codebooks(self, spec) -> tuple[int, ...]:
    total = max(len(spec.slots), 1)
    wrong = [n for n in self.settings.codebooks if n > total]
    if wrong:
      raise config.ConfigError(
          f'codebooks = {self.settings.codebooks}: the tokenizer has {total}.'
      )
    # All of them are always decoded: their scores have the plain names.
    return tuple(sorted({*self.settings.codebooks, total}))

  def clips(self, spec) -> list[dict[str, Any]]:
    """The clips and their targets at the tokenizer's rate; read once, few.

    Raises:
      config.ConfigError: if no clip is left, or a target has another shape.
    """
    key = spec.sample_rate, spec.channels
    if key not in self._clips:
      settings = self.settings
      corpus = data.load_corpus(
          settings.corpus, settings.split, settings.languages or None
      )
      chosen = np.arange(len(corpus))
      if settings.transcribed or settings.min_seconds:
        chosen = [i for i in chosen if self._wanted(corpus[i])]
      picks = evaluation_base.spaced(len(chosen), settings.limit)
      chosen = [chosen[i] for i in picks]
      if not len(chosen):
        raise config.ConfigError(f'no clip of {settings} is left to evaluate')
      clips = []
      for i in chosen:
        clip = dict(corpus[int(i)])
        if np.shape(clip.get('target', clip['audio'])) != clip['audio'].shape:
          raise config.ConfigError(
              f'the target of clip {clip["id"]} is'
              f' {list(clip["target"].shape)}, its audio'
              f' {list(clip["audio"].shape)}: expected one shape'
          )
        for name in clip.keys() & _AUDIO:
          audio = resample.resample(
              clip[name], clip['sample_rate'], spec.sample_rate
          )
          clip[name] = resample.remix(audio, spec.channels)
        clip.setdefault('target', clip['audio'])
        clips.append(clip)
      self._clips[key] = clips
    return self._clips[key]

  def _wanted(self, clip) -> bool:
    seconds = len(clip['audio']) / clip['sample_rate']
    said = judges_lib.normalize(clip.get('text', ''))
    return seconds >= self.settings.min_seconds and bool(
        said or not self.settings.transcribed
    )

  def _scores(
      self, clip, original, rate, estimates
  ) -> Iterator[evaluation_base.Score]:
    """Of each of the clip's estimates {suffix of the names: [T]}."""
    text = clip.get('text', '')
    for suffix, estimate in estimates.items():
      values = {
          'mel': (metrics.mel_distance(original, estimate, rate), 1.0),
          'stft': (metrics.stft_distance(original, estimate), 1.0),
      }
      ratio = metrics.si_sdr(original, estimate)
      if not np.isnan(ratio):
        values['si_sdr'] = (ratio, 1.0)
      factors = clip.get('factors', '')
      judged = judges_lib.Clip(original, estimate, rate, text, factors)
      for judge in self._judges:
        values |= judge(judged)
      for metric, (total, weight) in values.items():
        yield evaluation_base.Score(
            metric + suffix, clip['id'], float(total), weight
        )


def _first(tokens, n):
  """The tokens of the first n codebooks; continuous ones are all."""
  if tokens.codes is None:
    return tokens
  return tokens.replace(codes=tokens.codes[..., :n])


def _judge(name):
  if name not in judges_lib.JUDGES:
    raise config.ConfigError(
        f'judges = {name!r}: expected one of {sorted(judges_lib.JUDGES)}.'
    )
  return judges_lib.JUDGES[name]()
