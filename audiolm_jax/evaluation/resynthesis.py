"""Held-out clips made anew by a generative model: does speed cost quality?

Whatever draws the tokens (autoregression, masked codes, a flow), in however many
steps, the same clips are drawn, made audio by the same tokenizer, and judged alike.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import json
from typing import Annotated, Any, NamedTuple

from jaxtyping import Float, Num
import numpy as np

from audiolm_jax import config
from audiolm_jax import generation
from audiolm_jax.audio import resample
from audiolm_jax.data import clip_conditions
from audiolm_jax.data import factors
from audiolm_jax.data import token_cache
from audiolm_jax.data.speech_world import phones as phones_lib
from audiolm_jax.decoders import masked as masked_lib
from audiolm_jax.evaluation import base as evaluation_base
from audiolm_jax.evaluation import clips as clips_lib
from audiolm_jax.evaluation import distributions
from audiolm_jax.evaluation import encoders
from audiolm_jax.evaluation import metrics
from audiolm_jax.evaluation import phone_errors
from audiolm_jax.evaluation import representations
from audiolm_jax.evaluation import speaking
from audiolm_jax.evaluation import transcripts
from audiolm_jax.evaluation import ways
from audiolm_jax.generation import unmask
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.tokenizers import base as tokenizers_base

_GROUPS = 10  # Of clips, for the jackknife.
_LEAST = 0.1  # Deviation of a feature, over that of all.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resynthesis:
  """Draws held-out clips anew, given what conditions tell of them; judges audio.

  The tokens of each clip are drawn, as many frames as it has, and decoded. What
  they are held against is the clip decoded from its own tokens. For each number
  of steps T there is a score with the suffix `_in_T_steps`, and curves 'SCORE by
  passes' (how often the backbone runs, one run after the other) and 'SCORE by
  GFLOPs a second' (of audio; of one row as long as the longest); without suffix it
  is that of the most steps.

  - `frechet`: distance of the spectral patches of all clips, without its bias of
    first order; items are groups of clips that are left out (the jackknife).
  - `phone_error`, with a judge: edits from what the clips' factors say is said to
    what is heard. `reconstruction/phone_error` is of the clips' own tokens: no
    model of them can be expected to do better.
  - `gap_mel`, with a gap: the mel distance (log10) within the middle of the clip,
    drawn given all other frames (autoregression: those before it). Clips that
    are not longer than two gaps are left out.
  - `joined/phone_error`, with `joined`: of two clips in one row, longer than rows
    of training.
  - `first_gflops`: FLOPs before the first frame can be heard: of autoregression
    those of one frame, of what draws all frames at once all.

  Attributes:
    judge: directory of a recogniser of phones, of clips whose factors have phones
      (speech_world); None for no phone errors.
    clips: which, of a cache of the tokens that the model draws. Its vectors are
      none.
    tokenizer: directory of what decodes; None for where it was when the cache was
      filled.
    codebooks: of a model of the vectors of codes (tools/code_vectors.py): how many
      codes of a frame, which are looked up before they are decoded; clips are of
      the cache of codes. None for any other model.
    steps: T, of models that are sampled in steps; empty for their own number.
      Autoregression of codes takes none.
    gap: in seconds; 0 for none.
    joined: see above; what tells of a clip is `aligned` with its frames.
    sampler: how codes are drawn; latents have none.
    encoder: of spectral patches.
    seed: of all draws.
    batch_size: clips that are drawn at once.
  """

  judge: Annotated[str, config.Path()] | None = None
  clips: clips_lib.TokenClips = clips_lib.TokenClips(split='test', limit=64)
  tokenizer: Annotated[str, config.Path()] | None = None
  codebooks: config.Positive | None = None
  steps: tuple[config.Positive, ...] = ()
  gap: Annotated[float, config.Range(min=0, max=60)] = 0.0
  joined: bool = False
  sampler: generation.Sampler = generation.Sampler()
  encoder: encoders.RandomFeatures = encoders.RandomFeatures()
  seed: config.Count = 0
  batch_size: config.Positive = 32

  def with_data(self, source: Any) -> 'Resynthesis':
    """Itself, with the cache of `source` (config.data) if its clips name none."""
    return dataclasses.replace(self, clips=self.clips.with_data(source))

  def build(self, objective: Any) -> evaluation_base.Evaluator:
    """The evaluator.

    Raises:
      ConfigError: for a model that draws no frames, options that it has no use
        for, conditions that do not fit, or clips that are too few.
      TokensError: for a cache that doesn't fit.
      ModelError: for a judge that is none, or a tokenizer that is another.
    """
    decoder = objective.model[1].module
    self._check(decoder)
    clips = open_clips(self, decoder)
    if len(clips.tokens) < 2:
      raise config.ConfigError('one clip has no distribution: expected more')
    longest = max(len(tokens) for tokens in clips.tokens)
    seconds = longest / clips.tokenizer.spec.frame_rate
    if self.gap and seconds <= 2 * self.gap:
      raise config.ConfigError(
          f'gap = {self.gap:g}: the longest clip has {seconds:g} s, and clips of'
          ' up to two gaps are left out'
      )
    judge = self.judge and speaking.load_judge(self.judge)
    return _Evaluator(self, objective, clips, judge)

  def _check(self, decoder):
    if not isinstance(decoder, ways.DECODERS):
      raise config.ConfigError(
          f'a {type(decoder).__name__} draws no frames of codes or latents'
      )
    faults = {
        f'steps = {self.steps}: a {type(decoder).__name__} is not sampled in'
        ' steps': self.steps
        and not ways.takes_steps(decoder),
        f'codebooks = {self.codebooks}: the model is of codes': (
            self.codebooks is not None and hasattr(decoder, 'vocabularies')
        ),
        f'sampler = {self.sampler}: the model is of latents': (
            self.sampler != generation.Sampler()
            and not hasattr(decoder, 'vocabularies')
        ),
        f'gap = {self.gap:g}: the model fills none': (
            self.gap and not ways.fills(decoder)
        ),
        'joined clips without a judge': self.joined and self.judge is None,
        'a judge, but nothing tells the model what to say': (
            self.judge is not None and not decoder.conditions
        ),
        f'clips.vectors = {self.clips.vectors!r} do nothing': (
            self.clips.vectors is not None
        ),
    }
    for fault, holds in faults.items():
      if holds:
        raise config.ConfigError(f'evaluator of resynthesis: {fault}.')
    if isinstance(decoder, masked_lib.Masked):
      unmask.Plan(sampler=self.sampler)  # Refuses what it has no use for.
    if self.joined:
      others = {
          name
          for name, module in decoder.conditions.items()
          if not isinstance(module.source, factors.Aligned)
      }
      if others:
        raise config.ConfigError(
            f'joined clips: {sorted(others)} tell of whole clips, and two have'
            ' two of each'
        )


class Clips(NamedTuple):
  """Clips that are open.

  Attributes:
    items: their ids.
    tokens: of each: [F, K] codes, or [F, D] latents, as the model has them.
    conditions: of each, by name.
    phones: with times, as speech_world stores them; None where it does not.
    tokenizer: that decodes them.
  """

  items: list[str]
  tokens: list[Num[np.ndarray, 'F *k']]
  conditions: list[dict[str, Any]]
  phones: list[list[tuple[str, float, float]] | None]
  tokenizer: audio_tokenizer.AudioTokenizer

  def rows(self) -> list[tuple[Any, Any, dict[str, Any]]]:
    """As `drawn` takes them, nothing known but what conditions tell."""
    return [
        (tokens, np.zeros(len(tokens), bool), told)
        for tokens, told in zip(self.tokens, self.conditions, strict=True)
    ]


def open_clips(settings: Resynthesis, decoder: Any) -> Clips:
  """The clips of an evaluator, as a decoder sees them.

  Raises:
    ConfigError, TokensError, ModelError: see `Resynthesis.build`.
  """
  chosen = settings.clips
  clips_lib.need_cache(chosen)
  cache = token_cache.TokenCache(
      chosen.cache, chosen.split, chosen.tokenizer_hash
  )
  slots = settings.codebooks or len(getattr(decoder, 'vocabularies', ()))
  available = cache.vocabularies[:slots]
  wanted = tuple(getattr(decoder, 'vocabularies', available))
  where = f'the token cache {chosen.cache}'
  if len(available) < slots or available != wanted:
    raise config.ConfigError(
        f'{where} has codes of {cache.vocabularies or "no vocabularies"}:'
        f' expected the first {slots} to be {wanted or "there"}'
    )
  tokenizer = representations.tokenizer_of(
      wanted, chosen.cache, settings.tokenizer
  )
  if not slots:
    decoder.check_spec(cache.header.spec, where)
  sampler = clip_conditions.ConditionSampler(
      {name: module.source for name, module in decoder.conditions.items()},
      cache,
  )
  items, tokens, conditions, phones = [], [], [], []
  for i in cache.select(chosen.languages, chosen.limit):
    example = cache[i]
    frames = min(example.frames, chosen.max_frames or example.frames)
    if not frames:
      continue
    values = example.latents if not slots else example.codes[:, :slots]
    items.append(example.factors['id'])
    tokens.append(np.asarray(values[:frames]))
    conditions.append(sampler.values(i, frames=frames))
    stored = json.loads(example.factors.get('factors') or '{}')
    phones.append(stored.get('phones'))
  try:  # What does not fit is told before training.
    decoder.prepare(_by_name(decoder, conditions), len(conditions))
  except ValueError as error:
    raise config.ConfigError(f'conditions of the clips: {error}') from error
  if settings.judge is not None and None in phones:
    raise config.ConfigError(
        f'judge = {settings.judge!r}: the clips of {chosen.cache} do not say'
        ' their phones; expected speech_world'
    )
  if settings.codebooks is not None:
    tokens = [tokenizer.codes_to_vectors(codes) for codes in tokens]
    width = tokens[0].shape[-1] if tokens else decoder.dimension
    if width != decoder.dimension:
      raise config.ConfigError(
          f'decoder.dimension = {decoder.dimension}, but vectors of the codes'
          f' of {chosen.cache} have {width}'
      )
  return Clips(items, tokens, conditions, phones, tokenizer)


def said(
    phones: Sequence[tuple[str, float, float]], seconds: float
) -> list[str]:
  """The phones without silence that have ended after so many seconds.

  Args:
    phones: name, begin and end in seconds, as speech_world stores them.
    seconds: of the clip from its beginning.
  """
  silence = phones_lib.PHONES[0]
  return [name for name, _, end in phones if name != silence and end <= seconds]


def decoded(
    clips: Clips,
    tokens: Num[np.ndarray, 'F *k'],
    codebooks: int | None = None,
) -> Float[np.ndarray, 'T']:
  """The audio of a clip's tokens, the mean of its channels.

  Args:
    clips: whose tokenizer decodes.
    tokens: codes, latents, or vectors of codes.
    codebooks: of vectors, which become so many codes.
  """
  tokenizer = clips.tokenizer
  if codebooks is not None:
    tokens = tokenizer.vectors_to_codes(tokens[None], codebooks)[0]
  if tokenizer.spec.dimension is None:
    return speaking.decoded(tokenizer, tokens).mean(axis=1)
  samples = np.array([tokenizer.spec.samples(len(tokens))], np.int32)
  latents = tokenizers_base.Tokens(latents=tokens[None], num_samples=samples)
  return tokenizer.decode(latents)[0][0].mean(axis=1)


def drawn(
    way: ways.Way, decoder: Any, rows: Sequence[Any], settings: Resynthesis
) -> list[Num[np.ndarray, 'F *k']]:
  """The tokens of some rows, in batches of one shape.

  Args:
    way: how.
    decoder: what draws.
    rows: (tokens, known frames, conditions) of each.
    settings: its `seed` and `batch_size`.
  """
  longest = max(len(tokens) for tokens, _, _ in rows)
  found, size = [], settings.batch_size
  for number, start in enumerate(range(0, len(rows), size)):
    part = rows[start : start + size]
    missing = size - len(part) if len(rows) > size else 0
    shape = len(part) + missing, longest, *part[0][0].shape[1:]
    tokens = np.zeros(shape, part[0][0].dtype)
    known = np.zeros(shape[:2], bool)
    for row, (values, given, _) in enumerate(part):
      tokens[row, : len(values)] = values
      known[row, : len(values)] = given
    conditions = [each for *_, each in part] + [{}] * missing
    lengths = [len(values) for values, _, _ in part] + [0] * missing
    batch = ways.Rows(
        tokens, known, np.int32(lengths), _by_name(decoder, conditions)
    )
    # Seeds of one run's batches are no other run's.
    made = np.asarray(way.draw(batch, (settings.seed << 16) + number))
    found += [x[:n] for x, n in zip(made, lengths[: len(part)], strict=False)]
  return found


def _by_name(decoder, conditions) -> dict[str, list[Any]]:
  """Values of each condition, of each row; None where not known."""
  found = {}
  for name, module in decoder.conditions.items():
    values = [row.get(name) for row in conditions]
    # A name that a table lacks is nothing known.
    found[name] = [
        None if v is None or module.source.row(v, strict=False) is None else v
        for v in values
    ]
  return found


class _Evaluator(evaluation_base.Evaluator):

  def __init__(self, settings, objective, clips, judge):
    self._settings, self._objective = settings, objective
    self._clips, self._judge = clips, judge
    self._encoder = settings.encoder.open()
    self._rate = clips.tokenizer.spec.frame_rate

  def run(self, variables) -> Iterator[evaluation_base.Score]:
    settings, clips = self._settings, self._clips
    model = self._objective.bind(variables)
    decoder, rows = model.decoder, clips.rows()
    found = ways.of_model(model, settings.steps, settings.sampler)
    longest = max(len(tokens) for tokens in clips.tokens)
    seconds = longest / self._rate
    most = max(found, key=lambda n: n or 0)
    for steps, way in found.items():
      made = [self._decoded(x) for x in drawn(way, decoder, rows, settings)]
      points = (
          ('passes', float(way.passes(longest))),
          ('GFLOPs a second', way.flops(seconds) / seconds / 1e9),
      )
      suffixes = [] if steps is None else [f'_in_{steps}_steps']
      for score in self._judged(made):
        for suffix in [*suffixes, *([''] if steps == most else [])]:
          yield score._replace(name=score.name + suffix)
        for along in points:
          yield score._replace(along=along)
    way = found[most]
    heard = seconds if way.at_once else 1 / self._rate
    yield evaluation_base.Score(
        'first_gflops', 'model', way.flops(heard) / 1e9, 1.0
    )
    if settings.gap:
      yield from self._gaps(way, decoder)
    if settings.joined:
      yield from self._joined(way, decoder)
    yield from self._ceiling

  def _decoded(self, tokens):
    return decoded(self._clips, tokens, self._settings.codebooks)

  @functools.cached_property
  def _originals(self):
    """The clips from their own tokens."""
    return [self._decoded(tokens) for tokens in self._clips.tokens]

  @functools.cached_property
  def _ceiling(self):
    """Scores of what training does not change."""
    if self._judge is None:
      return []
    return list(self._errors(self._originals, 'reconstruction/'))

  def _judged(self, made):
    """Scores of all clips, drawn in one way."""
    if self._judge is not None:
      yield from self._errors(made)
    yield from self._distances(made)

  def _errors(self, made, prefix=''):
    return self._edits(prefix, self._clips.items, self._said, made)

  @functools.cached_property
  def _said(self):
    """The phones of each clip, as far as it goes."""
    clips = self._clips
    return [
        said(phones, len(tokens) / self._rate)
        for phones, tokens in zip(clips.phones, clips.tokens, strict=True)
    ]

  def _edits(self, prefix, items, spoken, made):
    rate = self._clips.tokenizer.spec.sample_rate
    heard = self._judge.phones(
        [resample.mono(x[:, None], rate, self._judge.sample_rate) for x in made]
    )
    for item, phones, row in zip(items, spoken, heard, strict=True):
      errors = transcripts.align(phones, row)
      yield from phone_errors.parts_of('phone_error', item, errors, prefix)

  @functools.cached_property
  def _patches(self):
    """Of the clips from their own tokens, and what patches are divided by."""
    rate = self._clips.tokenizer.spec.sample_rate
    patches = self._encoder.patches(
        [(x[:, None], rate) for x in self._originals]
    )
    deviation = np.concatenate(patches).std(axis=0)
    # A feature that hardly varies in these clips would outweigh all others.
    least = _LEAST * np.sqrt(np.mean(np.square(deviation)))
    deviation = np.maximum(deviation, max(least, 1e-9))
    return [x / deviation for x in patches], deviation

  def _distances(self, made):
    rate = self._clips.tokenizer.spec.sample_rate
    originals, deviation = self._patches
    patches = self._encoder.patches([(x[:, None], rate) for x in made])
    values = distributions.frechet_without(
        originals,
        [x / deviation for x in patches],
        min(_GROUPS, len(originals)),
    )
    for group, value in enumerate(values):
      item = f'encoder-{self._encoder.hash[:12]}/{group}'
      yield evaluation_base.Score('frechet', item, float(value), 1.0)

  def _gaps(self, way, decoder):
    clips, hop = self._clips, self._clips.tokenizer.spec.hop
    gap = max(round(self._settings.gap * self._rate), 1)
    chosen = [i for i, x in enumerate(clips.tokens) if len(x) > 2 * gap]
    rows, starts = [], {}
    for i in chosen:
      tokens = clips.tokens[i]
      starts[i] = (len(tokens) - gap) // 2
      known = np.ones(len(tokens), bool)
      known[starts[i] : starts[i] + gap] = False
      rows.append((tokens, known, clips.conditions[i]))
    rate = clips.tokenizer.spec.sample_rate
    for i, tokens in zip(
        chosen, drawn(way, decoder, rows, self._settings), strict=True
    ):
      part = slice(starts[i] * hop, (starts[i] + gap) * hop)
      distance = metrics.mel_distance(
          self._originals[i][part], self._decoded(tokens)[part], rate
      )
      yield evaluation_base.Score('gap_mel', clips.items[i], distance, 1.0)

  def _joined(self, way, decoder):
    clips = self._clips
    pairs = [(i, i + 1) for i in range(0, len(clips.items) - 1, 2)]
    rows, items, spoken = [], [], []
    for i, j in pairs:
      tokens = np.concatenate([clips.tokens[i], clips.tokens[j]])
      told = {
          name: np.concatenate([value, clips.conditions[j][name]])
          for name, value in clips.conditions[i].items()
          if name in clips.conditions[j]
      }
      rows.append((tokens, np.zeros(len(tokens), bool), told))
      items.append(f'{clips.items[i]}+{clips.items[j]}')
      spoken.append(self._said[i] + self._said[j])
    made = [self._decoded(x) for x in drawn(way, decoder, rows, self._settings)]
    yield from self._edits('joined/', items, spoken, made)
