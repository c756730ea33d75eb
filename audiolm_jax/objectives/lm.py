"""Autoregressive language modelling of token frames."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import functools
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax import generation
from audiolm_jax.data import factors
from audiolm_jax.data import token_cache
from audiolm_jax.decoders import conditioners
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import initial
from audiolm_jax.decoders import ranges
from audiolm_jax.decoders import segmented
from audiolm_jax.decoders.heads import independent
from audiolm_jax.generation import segments
from audiolm_jax.objectives import base as objectives_base
from audiolm_jax.objectives import likelihood
from audiolm_jax.ops import sharding
from audiolm_jax.streaming import base as streaming_base

_DECODERS = (decoder_lib.Decoder, segmented.Staged)
# Of conditions: by name, one for each row; None for none.
Values = Mapping[str, Sequence[Any]]


@functools.partial(jax.jit, static_argnames='decoder')
def score(
    decoder: decoder_lib.Decoder,
    params: Any,
    codes: Int[Array, 'B F K'],
    num_frames: Int[Array, 'B'],
    conditions: conditioners.Conditions | None = None,
) -> decoder_lib.Scores:
  """`decoder.score` compiled, without dropout."""
  scores = decoder.apply(
      {'params': params}, codes, num_frames, None, conditions, method='score'
  )
  return sharding.whole(scores)


@functools.partial(jax.jit, static_argnames=('decoder', 'batch'))
def context(
    decoder: decoder_lib.Decoder,
    params: Any,
    conditions: conditioners.Conditions | None,
    batch: int,
) -> streaming_base.Context:
  """`decoder.context` compiled, without dropout."""
  return decoder.apply({'params': params}, conditions, batch, method='context')


@dataclasses.dataclass(frozen=True)
class LM(objectives_base.Objective):
  """Negative log-likelihood of every code of every valid frame.

  One model, 'lm'. Batches hold `codes` [B, F, K], `num_frames` [B] in frames, and
  what `factors.flatten` makes of the decoder's conditions.
  Dropout, that of conditions, and a head that trains on a part of the steps are
  at work in training only; the last one's metrics are unbiased estimates.

  Attributes:
    decoder: the model, of frames: 'tokens' or 'stages'.
    frames: F of training's crops.
    frame_rate: frames a second, for throughput and durations.
    codebooks: directory of the token cache whose codec's vectors the code
      embeddings and an independent head start from; None starts from random
      ones.
    load_balance: weight of the loss that spreads steps over experts, if the
      backbone has any (2101.03961, eq. 4).
    router_z: weight of the loss that keeps their router's logits small
      (2202.08906, eq. 5).
  """

  decoder: Annotated[Any, config.Kind(lambda: decoders.LM_KINDS)]
  frames: Annotated[int, config.Range(min=1)] = 256
  frame_rate: Annotated[float, config.Range(min=0)] = 50.0
  codebooks: Annotated[str, config.Path()] | None = None
  load_balance: Annotated[float, config.Range(min=0)] = 0.01
  router_z: Annotated[float, config.Range(min=0)] = 0.001

  def __post_init__(self):
    if not isinstance(self.decoder, _DECODERS):
      raise config.ConfigError(
          f'config.objective.decoder is a {type(self.decoder).__name__}, which'
          " does not decode frames: expected kind 'tokens' or 'stages'."
      )

  def facts(self, key: str) -> list[config.Fact]:
    """What data and evaluators may also say; see `config.Fact`."""
    found = [
        config.Fact('frame rate', f'{key}.frame_rate', self.frame_rate),
        config.Fact('length of a row', f'{key}.frames', self.frames),
        config.Fact(
            'codes a frame',
            f'{key}.decoder.vocabularies, number of',
            len(self.decoder.vocabularies),
        ),
        config.Fact(
            'vocabularies',
            f'{key}.decoder.vocabularies',
            tuple(self.decoder.vocabularies),
        ),
    ]
    if self.codebooks is not None:
      found += token_cache.facts(self.codebooks, f'{key}.codebooks')
    return found

  @property
  def loss_weights(self) -> dict[str, float]:
    names = likelihood.loss_names(self.decoder.backbone)
    return {'nll': 1.0, **{name: getattr(self, name) for name in names}}

  def init(self, rng: Array) -> objectives_base.Variables:
    batch = self.example_batch(1)
    variables = self.decoder.init(
        rng,
        batch['codes'],
        batch['num_frames'],
        conditions=self._conditions(batch),
        method='score',
    )
    return {'lm': {'params': variables['params'], 'state': {}}}

  @property
  def conditions(self) -> dict[str, Any]:
    modules = self.decoder.conditions
    return {name: module.source for name, module in modules.items()}

  def initial_values(self) -> dict[str, Any]:
    if self.codebooks is None:
      return {}
    vectors = token_cache.read_codebooks(self.codebooks)
    sizes = (vectors.shape[1],) * len(self.decoder.vocabularies)
    if len(vectors) < len(sizes) or self.decoder.vocabularies != sizes:
      raise config.ConfigError(
          f'config.objective.codebooks = {self.codebooks!r} has'
          f' {len(vectors)} codebooks of {vectors.shape[1]}, but'
          f' config.objective.decoder.vocabularies ='
          f' {self.decoder.vocabularies}.'
      )
    width = self.decoder.backbone.width
    values = initial.from_codebooks(vectors[: len(sizes)], width)
    apart = isinstance(self.decoder.head, independent.Independent)
    if self.decoder.tie or not apart:
      del values['head']
    return {'lm': {'params': values}}

  def example_batch(self, batch_size: int) -> objectives_base.Batch:
    slots = len(self.decoder.vocabularies)
    nothing = {
        name: source.prepare([None] * batch_size)
        for name, source in sorted(self.conditions.items())
    }
    return {
        'codes': np.zeros((batch_size, self.frames, slots), np.int32),
        'num_frames': np.zeros(batch_size, np.int32),
        'id': np.zeros(batch_size, np.int32),
        **factors.flatten(nothing),
    }

  def _conditions(self, batch):
    return factors.unflatten(batch, sorted(self.decoder.conditions))

  def __call__(
      self,
      variables: objectives_base.Variables,
      batch: objectives_base.Batch,
      rng: Array,
  ) -> objectives_base.Output:
    scores = self.decoder.apply(
        {'params': variables['lm']['params']},
        batch['codes'],
        batch['num_frames'],
        conditions=self._conditions(batch),
        rngs=likelihood.rngs(rng),
        method='score',
    )
    frames = jnp.sum(batch['num_frames']).astype(jnp.float32)
    nats = likelihood.nats_by_slot(scores, frames)
    nats = {slot: nats[slot] for slot in self.decoder.predicted}
    count = frames * len(nats)
    losses = likelihood.loss_terms(scores.losses, scores.steps)
    return objectives_base.Output(
        terms={'nll': (sum(nats.values()), count), **losses},
        metrics=likelihood.bits_metrics('bits_per_frame', nats, frames),
    )

  def bind(self, variables: objectives_base.Variables) -> 'BoundLM':
    params = nn.meta.unbox(variables['lm']['params'])
    stage = isinstance(self.decoder, segmented.Staged)
    bound = BoundStage if stage else BoundLM
    return bound(self.decoder, params, self.frame_rate)

  def audio_seconds(self, batch: objectives_base.Batch) -> float:
    return float(np.sum(batch['num_frames'])) / self.frame_rate


@dataclasses.dataclass(frozen=True)
class BoundLM:
  """A token LM with its parameters: what `audiolm_jax.load` returns.

  Attributes:
    decoder: the model.
    params: its parameters.
    frame_rate: frames a second.
  """

  decoder: decoder_lib.Decoder
  params: Any
  frame_rate: float

  def score(
      self,
      codes: Int[Array, 'B F K'],
      num_frames: Int[Array, 'B'] | None = None,
      conditions: Values | None = None,
  ) -> decoder_lib.Scores:
    """Log-probabilities of frames; compiles once for each shape.

    Args:
      codes: of B rows.
      num_frames: frames of each, F for all if not given.
      conditions: by name, B values (None for none), as a condition's source
        takes them; what is not given is the null condition.

    Raises:
      ValueError: if codes or lengths are out of range, or conditions do not
        fit.
    """
    codes, num_frames = self._check(codes, num_frames)
    prepared = self._prepare(conditions, len(codes))
    return score(self.decoder, self.params, codes, num_frames, prepared)

  def bits_per_frame(
      self,
      codes: Int[Array, 'B F K'],
      num_frames: Int[Array, 'B'] | None = None,
      conditions: Values | None = None,
  ) -> Float[np.ndarray, 'B']:
    """Bits a frame of each row (NaN for an empty one); see `score`."""
    scores = self.score(codes, num_frames, conditions)
    scored = np.asarray(scores.mask)[:, :, self.decoder.predicted[0]]
    return likelihood.row_bits(scores.log_prob, scored.sum(axis=1))

  def _prepare(self, conditions, rows):
    """Conditions as arrays; one that is not given is that of no row."""
    modules, conditions = self.decoder.conditions, conditions or {}
    if not set(conditions) <= set(modules):
      raise ValueError(
          f'conditions {sorted(conditions)}, but the model has'
          f' {sorted(modules)}'
      )
    found = {}
    for name, module in modules.items():
      values = conditions.get(name, [None] * rows)
      if len(values) != rows:
        raise ValueError(f'{name}: {len(values)} values for {rows} rows')
      found[name] = module.source.prepare(values)
    return found

  def _contexts(self, conditions, rows, options):
    """Options of `generation` with what conditions have become."""
    if 'context' in options or not self.decoder.conditions:
      if conditions:
        raise ValueError('conditions beside a context, or of a model without')
      return options
    prepared = self._prepare(conditions, rows)
    found = {'context': context(self.decoder, self.params, prepared, rows)}
    if 'guidance' in options:
      found['null_context'] = context(self.decoder, self.params, None, 1)
    return options | found

  @functools.cached_property
  def _unrolled(self):
    """The decoder and its parameters as steps want them, made once."""
    return generation.unroll(self.decoder, self.params)

  def cast(self, kind: Literal['bfloat16', 'int8']) -> 'BoundLM':
    """The same model with weights in fewer bits; see `generation.cast`."""
    return dataclasses.replace(self, params=generation.cast(self.params, kind))

  def generate(
      self,
      prompt: Int[Array, 'B P K'],
      frames: int,
      *,
      num_frames: Int[Array, 'B'] | None = None,
      seed: int = 0,
      sampler: generation.Sampler | None = None,
      temperature: float = 1.0,
      top_k: int | None = None,
      top_p: float = 1.0,
      min_p: float = 0.0,
      conditions: Values | None = None,
      **options,
  ) -> Int[np.ndarray, 'B F K']:
    """Continues prompts.

    Args:
      prompt: the frames to continue; P = 0 for none.
      frames: F, length of the result, prompt included; at least P.
      num_frames: frames of each row's prompt, P for all if not given.
      seed: the same seed gives the same codes.
      sampler: how codes are drawn; None for the four that follow.
      temperature: see `generation.Sampler`.
      top_k: likewise.
      top_p: likewise.
      min_p: likewise.
      conditions: see `score`.
      **options: `guidance` (of a model with conditions, or with the next two),
        `context`, `null_context`, `stop`, `cache_length` and `sink_tokens` of
        `generation.generate`.

    Returns:
      Each row's prompt and its continuation, F frames in all; 0 after a `stop`.

    Raises:
      ValueError: if frames < P, codes or lengths are out of range, or conditions
        do not fit.
    """
    prompt, num_frames = self._check(prompt, num_frames)
    rows, given_frames, _ = prompt.shape
    if frames < given_frames:
      raise ValueError(f'frames = {frames} < the prompt has: {given_frames}')
    if sampler is None:
      sampler = generation.Sampler(temperature, top_k, top_p, min_p)
    given, given_mask, most = generation.continue_prompts(
        prompt, num_frames, frames
    )
    found = generation.generate(
        *self._unrolled,
        given,
        given_mask,
        np.full(rows, frames, np.int32),
        jax.random.key(seed),
        sampler,
        prompt_frames=most,
        **self._contexts(conditions, rows, options),
    )
    return np.asarray(found.codes)

  def stream(
      self,
      prompt: Int[Array, 'P K'],
      frames: int | None,
      *,
      seed: int = 0,
      sampler: generation.Sampler | None = None,
      conditions: Values | None = None,
      **options,
  ) -> Iterator[Int[np.ndarray, 'K']]:
    """The frames of `generate` for one row, each as soon as it is known.

    Args:
      prompt: the frames to continue, which come first.
      frames: how many in all; None for no end, which needs a `cache_length`.
      seed: see `generate`.
      sampler: likewise.
      conditions: likewise, of one row.
      **options: likewise.

    Raises:
      ValueError: if frames < P, codes are out of range, conditions do not fit,
        or the pattern cannot go on without an end.
    """
    codes, _ = self._check(np.asarray(prompt)[None], None)
    if frames is not None and frames < len(prompt):
      raise ValueError(f'frames = {frames} < the prompt has: {len(prompt)}')
    key = jax.random.key(seed)
    return generation.stream(
        *self._unrolled,
        codes[0],
        frames,
        key,
        sampler or generation.Sampler(),
        **self._contexts(conditions, 1, options),
    )

  def _check(self, codes, num_frames):
    """Host arrays, checked: JAX would clip what is out of range silently."""
    codes = np.asarray(codes)
    vocabularies = self.decoder.vocabularies
    if codes.ndim == 3:
      num_frames = likelihood.row_lengths(num_frames, codes.shape, 'codes')
    ranges.check_frames(codes, num_frames, vocabularies)
    return codes.astype(np.int32), num_frames


class BoundStage(BoundLM):
  """A stage of frames: it goes on from another stage's codes, frame for frame."""

  def generate(
      self,
      codes: Int[Array, 'B F K'],
      *,
      num_frames: Int[Array, 'B'] | None = None,
      shown: Int[Array, 'B'] | None = None,
      seed: int = 0,
      sampler: generation.Sampler | None = None,
      conditions: Values | None = None,
  ) -> Int[np.ndarray, 'B F K']:
    """Fills the slots that the stage predicts.

    Args:
      codes: of all frames; what is to be predicted counts for nothing.
      num_frames: frames of each row, F for all if not given.
      shown: of how many leading frames (a prompt) all slots are given; 0 for
        all rows if not given.
      seed: the same seed gives the same codes.
      sampler: how codes are drawn; None for the model's own distribution.
      conditions: see `score`.

    Raises:
      ValueError: if codes, lengths or shown are out of range.
    """
    codes, num_frames = self._check(codes, num_frames)
    if shown is None:
      shown = np.zeros_like(num_frames)
    shown = np.asarray(shown)
    if (shown < 0).any() or (shown > num_frames).any():
      raise ValueError(f'{shown} frames are given of {num_frames}')
    mask = np.arange(codes.shape[1])[:, None] < shown[:, None, None]
    mask = np.broadcast_to(mask, codes.shape).copy()
    predicted = list(self.decoder.predicted)
    observed = np.setdiff1d(np.arange(codes.shape[2]), predicted)
    mask[..., observed] = True
    found, _ = segments.generate_stage(
        *self._unrolled,
        codes,
        mask,
        num_frames,
        jax.random.key(seed),
        sampler or generation.Sampler(),
        **self._contexts(conditions, len(codes), {}),
    )
    return np.asarray(found)
