"""A pretrained language model of one stream of ids: what other libraries have."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from audiolm_jax.backbones import stack as stack_lib
from audiolm_jax.decoders import decoder as decoder_lib
from audiolm_jax.decoders import ranges
from audiolm_jax.decoders import scores as scores_lib
from audiolm_jax.decoders import starts
from audiolm_jax.interop import fields
from audiolm_jax.patterns import interleaving


@dataclasses.dataclass(frozen=True)
class LanguageModel:
  """A decoder of one slot as a pure function of ids; static, as a codec is.

  `decoder` and `variables['params']` are what `generation` takes, with prompts
  as other libraries take them: whole, the id that texts begin with included
  where there is one. Nothing comes before a prompt's first id. A row without a
  prompt has `begin` as its first id.

  Attributes:
    decoder: the model; its rows start with a given id.
    positions: how many ids a text may have, as its training had it.
    begin: the id that texts begin with, if there is one.
    end: ids that a text ends with.
  """

  decoder: decoder_lib.Decoder
  positions: int = 2048
  begin: int | None = None
  end: tuple[int, ...] = ()

  def __post_init__(self):
    begin = None if self.begin is None else (self.begin,)
    start = starts.Given(begin)
    if self.decoder.start != start:
      object.__setattr__(self, 'decoder', self.decoder.clone(start=start))

  def init(self, rng: Array) -> dict[str, Any]:
    """Random variables."""
    ids = jnp.zeros((1, 1), jnp.int32)
    return {'params': self.decoder.init(rng, ids, method='logits')['params']}

  def logits(
      self,
      variables: Any,
      ids: Int[Array, 'B N'],
      num_frames: Int[Array, 'B'] | None = None,
  ) -> Float[Array, 'B N V']:
    """What each id predicts of the next one (fp32).

    Args:
      variables: as `init` gives them.
      ids: the first of each row is at position 0.
      num_frames: of each row, past which logits are unspecified; None for all.
    """
    return self.decoder.apply(
        {'params': variables['params']}, ids, num_frames, method='logits'
    )

  def score(
      self,
      variables: Any,
      ids: Int[Array, 'B N'],
      num_frames: Int[Array, 'B'] | None = None,
  ) -> scores_lib.Scores:
    """Log-probability of every id after a row's first, which is not scored.

    Args:
      variables: as `init` gives them.
      ids: as `logits` takes them.
      num_frames: of each row; None for all.

    Returns:
      Scores of frames of one slot, [B, N, 1].
    """
    if num_frames is None:
      num_frames = jnp.full(ids.shape[0], ids.shape[1])
    return self.decoder.apply(
        {'params': variables['params']},
        ids[..., None],
        num_frames,
        method='score',
    )

  def initial_state(self, batch: int, cache_length: int) -> Any:
    """What `step` starts from.

    Args:
      batch: rows.
      cache_length: ids that attention without a window keeps in sight.
    """
    return self.decoder.initial_state(batch, cache_length)

  def step(
      self,
      variables: Any,
      state: Any,
      ids: Int[Array, 'B n'],
      mask: Bool[Array, 'B n'] | None = None,
  ) -> tuple[Float[Array, 'B n V'], Any]:
    """`logits` of the next n >= 1 ids of each row.

    Args:
      variables: as `init` gives them.
      state: what the rows have had so far.
      ids: the next ones.
      mask: how many of them each row takes in, as a prefix; None for all.

    Returns:
      Logits, unspecified where masked; the next state.
    """
    if mask is None:
      mask = jnp.ones(ids.shape, bool)
    ranges.check_codes(
        ids[..., None], self.decoder.vocabularies, mask[..., None], 'ids'
    )
    return self.decoder.apply(
        {'params': variables['params']}, state, ids, mask, method=_step
    )

  def roll(self, variables: Any) -> tuple['LanguageModel', dict[str, Any]]:
    """The same model over stacked layers, to train on."""
    return self._with(
        *self.backbone.roll(variables['params']['backbone']), variables
    )

  def unroll(self, variables: Any) -> tuple['LanguageModel', dict[str, Any]]:
    """The inverse of `roll`; steps are faster so."""
    return self._with(
        *self.backbone.unroll(variables['params']['backbone']), variables
    )

  @property
  def backbone(self) -> stack_lib.Stack:
    return self.decoder.backbone

  def with_generation_config(
      self, values: Mapping[str, Any]
  ) -> 'LanguageModel':
    """The same model with the ids that a generation_config.json gives.

    It has the last word in transformers. An id that the vocabulary does not
    have is none, as in config.json.

    Args:
      values: what the file holds.

    Raises:
      fields.PretrainedError: for what is no id.
    """
    ends = {}
    for key, name in (('bos_token_id', 'begin'), ('eos_token_id', 'end')):
      if key not in values:
        continue
      ids = values[key]
      ids = ids if isinstance(ids, list) else [] if ids is None else [ids]
      if any(not isinstance(i, int) or isinstance(i, bool) for i in ids):
        raise fields.PretrainedError(
            f'generation_config.json: {key} = {fields.shown(values[key])}:'
            ' expected an id, a list of ids, or null'
        )
      ends[name] = tuple(
          i for i in ids if 0 <= i < self.decoder.vocabularies[0]
      )
    if 'begin' in ends:
      ends['begin'] = ends['begin'][0] if ends['begin'] else None
    return dataclasses.replace(self, **ends)

  def _with(self, backbone, params, variables):
    decoder = self.decoder.clone(backbone=backbone)
    params = {**variables['params'], 'backbone': params}
    model = dataclasses.replace(self, decoder=decoder)
    return model, {**variables, 'params': params}


def decoder(
    vocabulary: int,
    backbone: stack_lib.Stack,
    tie: bool,
) -> decoder_lib.Decoder:
  """A decoder of one id a step.

  Args:
    vocabulary: how many ids there are.
    backbone: not scanned.
    tie: whether the classifier is the embedding.
  """
  return decoder_lib.Decoder(
      vocabularies=(vocabulary,),
      pattern=interleaving.Parallel(),
      backbone=backbone,
      tie=tie,
  )


def _step(decoder, state, ids, mask):
  """Inside the decoder: logits of all of `ids`, and the next state."""
  exists = jnp.ones((*ids.shape, 1), bool)
  x = decoder.embedding(ids[..., None], jnp.zeros_like(exists, int), exists)
  x = x[:, :, 0] * jnp.asarray(decoder.embedding_scale, x.dtype)
  output = decoder.backbone.transform(x, mask, state)
  return decoder.next_logits(output.y), output.state
