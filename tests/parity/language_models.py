"""transformers' language models with weights for which a wrong answer shows.

Each check compares logits or ids of one pair of models; `Pair` compiles what
they share once.
"""

import itertools
import re

import jax
import numpy as np
import torch

from audiolm_jax import generation
from audiolm_jax import interop
from audiolm_jax.streaming import testing
from audiolm_jax.training import mesh as mesh_lib
from tests.parity import codec_models

_LENGTHS = np.array([17, 9, 4])
_CHUNK = 5


def randomise(model, seed=0):
  """Moves every weight: no two alike, no bias zero, no scale one."""
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, value in model.named_parameters():
      noise = torch.randn(value.shape, generator=generator)
      is_bias = name.endswith('bias') or 'sinks' in name
      if value.ndim == 1 or is_bias:
        value.copy_(0.4 * noise + (0 if is_bias else 1))
      elif re.search('embed|wte|wpe', name):
        value.copy_(0.7 * noise)
      else:
        value.copy_(noise * (2 / sum(value.shape[-2:])) ** 0.5 * 1.2)
  return model.eval()


class Pair:
  """The same weights in transformers and here.

  Attributes:
    theirs: transformers' model.
    directory: where it was saved.
    model: ours.
    variables: likewise.
  """

  def __init__(self, theirs, directory):
    self.theirs, self.directory = theirs, directory
    theirs.save_pretrained(directory)
    self.model, self.variables = interop.load_pretrained(directory)
    quick = testing.quick_options()
    self.logits = jax.jit(self.model.logits, compiler_options=quick)
    self.step = jax.jit(self.model.step, compiler_options=quick)
    self.score = jax.jit(self.model.score, compiler_options=quick)

  def ids(self, rows=3, length=17, seed=0):
    size = self.model.decoder.vocabularies[0]
    return np.random.default_rng(seed).integers(0, size, (rows, length))

  def expected(self, ids, mask=None, positions=None):
    given = {'input_ids': torch.from_numpy(ids)}
    if mask is not None:
      given['attention_mask'] = torch.from_numpy(mask.astype(np.int64))
      given['position_ids'] = torch.from_numpy(positions)
    with torch.no_grad():
      return self.theirs(**given).logits.numpy()


def check_whole(pair):
  """Whole rows, and rows padded on the right or (theirs) on the left."""
  ids = pair.ids()
  length = ids.shape[1]
  found = np.asarray(pair.logits(pair.variables, ids, _LENGTHS))
  plain = pair.logits(pair.variables, ids, np.full(3, length))
  expected = pair.expected(ids)
  codec_models.close(plain, expected)
  at = np.arange(length)
  right = at < _LENGTHS[:, None]
  expected = pair.expected(ids, right, np.where(right, at, 0))
  codec_models.close(found[right], expected[right])
  left = at >= length - _LENGTHS[:, None]
  shifted, back = np.zeros_like(ids), np.zeros_like(found)
  positions = np.maximum(at - (length - _LENGTHS[:, None]), 0)
  for row, n in enumerate(_LENGTHS):
    shifted[row, length - n :] = ids[row, :n]
  expected = pair.expected(shifted, left, positions)
  for row, n in enumerate(_LENGTHS):
    back[row, :n] = expected[row, length - n :]
  codec_models.close(found[right], back[right])


def check_steps(pair):
  """With a cache: one id at a time, and in chunks that end with the rows."""
  ids = pair.ids()
  length = ids.shape[1]
  expected = pair.expected(ids)
  state, found = pair.model.initial_state(len(ids), length), []
  for n in range(length):
    logits, state = pair.step(pair.variables, state, ids[:, n : n + 1])
    found.append(logits)
  codec_models.close(np.concatenate(found, axis=1), expected)
  state, found = pair.model.initial_state(len(ids), length), []
  padded = np.pad(ids, ((0, 0), (0, -length % _CHUNK)))
  mask = np.arange(padded.shape[1]) < _LENGTHS[:, None]
  for n in range(0, length, _CHUNK):
    here = slice(n, n + _CHUNK)
    logits, state = pair.step(
        pair.variables, state, padded[:, here], mask[:, here]
    )
    found.append(logits)
  found = np.concatenate(found, axis=1)[:, :length]
  mask = mask[:, :length]
  codec_models.close(found[mask], expected[mask])
  # The rows go on from where each ended.
  at = np.minimum(_LENGTHS, length - 1)
  logits, _ = pair.step(
      pair.variables, state, np.take_along_axis(ids, at[:, None], axis=1)
  )
  short = _LENGTHS < length
  codec_models.close(
      np.asarray(logits)[short, 0], expected[np.arange(len(ids)), at][short]
  )


def check_scores(pair):
  """Of what follows the first id, which nothing comes before."""
  ids = pair.ids()
  scores = pair.score(pair.variables, ids, _LENGTHS)['frames']
  logits = torch.from_numpy(pair.expected(ids)[:, :-1]).log_softmax(-1)
  chosen = torch.from_numpy(ids[:, 1:, None])
  expected = logits.gather(-1, chosen).numpy()
  mask = np.asarray(scores.mask)
  for row, length in enumerate(_LENGTHS):
    found = np.asarray(scores.log_prob)[row]
    codec_models.close(found[1:length], expected[row, : length - 1])
    assert mask[row, 1:length].all()
    assert not mask[row, 0] and not found[0] and not mask[row, length:].any()


def check_greedy(pair, tokens=64):
  """Prompts as users give them, up to where two ids are about equally likely.

  With the begin id and without, of one id, of none, and of different lengths:
  one batch here, each by itself there.
  """
  size, begin = pair.model.decoder.vocabularies[0], pair.model.begin
  random = np.random.default_rng(5).integers
  prompts = [
      [begin, *random(0, size, 5)],
      random(0, size, 6),
      random(0, size, 1),
      [begin],
      [begin, begin, *random(0, size, 7)],
      [],
  ]
  found = generate(pair, prompts, tokens).codes[..., 0]
  pair.theirs.generation_config.eos_token_id = None
  pair.theirs.generation_config.pad_token_id = 0
  compared = 0
  for row, prompt in enumerate(prompts):
    given = torch.from_numpy(np.array([prompt if len(prompt) else [begin]]))
    with torch.no_grad():
      expected = pair.theirs.generate(
          given,
          attention_mask=torch.ones_like(given),
          do_sample=False,
          max_new_tokens=tokens,
      ).numpy()
    first = given.shape[1]
    assert expected.shape[1] == first + tokens
    np.testing.assert_array_equal(found[row, :first], given[0])
    top = np.sort(pair.expected(expected)[0, :-1], axis=-1)[:, -2:]
    margin = top[:, 1] - top[:, 0]
    for n in range(first, first + tokens):
      if found[row, n] != expected[0, n]:
        assert margin[n - 1] < 1e-3, (row, n, margin[n - 1])
        break
      compared += 1
  assert compared >= 4 * tokens, compared


def check_ends(pair, tokens=20):
  """Rows end before the first of several ids, as generation_config says."""
  prompts = [[pair.model.begin, 5, 7], [9], [2, 2, 4, 11]]
  free = generate(pair, prompts, tokens).codes
  ends = [int(free[0, 7, 0]), int(free[1, 6, 0])]
  pair.theirs.generation_config.eos_token_id = ends
  pair.theirs.generation_config.pad_token_id = 0
  pair.theirs.save_pretrained(pair.directory)
  model, _ = interop.load_pretrained(pair.directory)
  assert model.end == tuple(ends)
  found = generate(pair, prompts, tokens, generation.Stop(model.end))
  num_frames = np.asarray(found.num_frames)
  for row, prompt in enumerate(prompts):
    ids = torch.tensor([prompt])
    with torch.no_grad():
      expected = pair.theirs.generate(
          ids,
          attention_mask=torch.ones_like(ids),
          do_sample=False,
          max_new_tokens=tokens,
      )[0].numpy()
    if expected[-1] in ends:
      expected = expected[:-1]
    np.testing.assert_array_equal(
        found.codes[row, : num_frames[row], 0], expected
    )
  assert (num_frames[:2] < [3 + tokens, 1 + tokens]).all()


def generate(pair, prompts, tokens, stop=None):
  """Greedily generated: each row's prompt and so many more ids."""
  num_frames = np.array([len(prompt) for prompt in prompts])
  padded = np.zeros((len(prompts), num_frames.max(), 1), np.int32)
  for row, prompt in enumerate(prompts):
    padded[row, : len(prompt), 0] = prompt
  inputs = generation.continue_prompts(
      padded, num_frames, num_frames.max() + tokens
  )
  decoder, params = pair.model.decoder, pair.variables['params']

  @jax.jit(compiler_options=testing.quick_options())
  def run(params):
    return generation.generate(
        decoder,
        params,
        *inputs[:2],
        np.maximum(num_frames, 1) + tokens,
        jax.random.key(0),
        generation.Sampler(temperature=0.0),
        prompt_frames=inputs[2],
        stop=stop,
    )

  return jax.device_get(run(params))


def check_saved(pair, directory, family):
  """What we write is what transformers wrote, and it loads it."""
  interop.save_pretrained(directory, pair.model, pair.variables, family)
  again = type(pair.theirs).from_pretrained(directory)
  wanted = pair.theirs.state_dict()
  assert set(again.state_dict()) == set(wanted)
  for name, value in again.state_dict().items():
    np.testing.assert_array_equal(value, wanted[name], err_msg=name)
  ids = torch.from_numpy(pair.ids())
  with torch.no_grad():
    np.testing.assert_allclose(
        again(ids).logits, pair.theirs(ids).logits, rtol=1e-5, atol=1e-5
    )


def check_exchanges(pair, free=None):
  """Any two of our weights of one shape, exchanged, change the logits."""
  ids = pair.ids()
  check_exchanged(
      lambda variables: pair.logits(variables, ids, _LENGTHS)[0],
      pair.variables,
      free,
  )


def check_exchanged(run, variables, free=None, same=False):
  """Any two weights of one shape, exchanged, change what comes out.

  Args:
    run: variables -> an array.
    variables: with weights that differ.
    free: pattern of names that add nothing to what comes out, so that
      exchanging two of them shows nothing.
    same: whether some are copies of each other.
  """
  reference = np.asarray(run(variables))
  flat, tree = jax.tree_util.tree_flatten_with_path(variables)
  names = [mesh_lib.key(path) for path, _ in flat]
  leaves = [leaf for _, leaf in flat]
  swapped = 0
  for i, j in itertools.combinations(range(len(leaves)), 2):
    if leaves[i].shape != leaves[j].shape:
      continue
    if np.array_equal(leaves[i], leaves[j]):
      assert same, f'{names[i]} is {names[j]}'
      continue
    if free and all(re.search(free, names[n]) for n in (i, j)):
      continue
    changed = list(leaves)
    changed[i], changed[j] = leaves[j], leaves[i]
    found = np.asarray(run(jax.tree.unflatten(tree, changed)))
    difference = np.abs(found - reference).max() / np.abs(reference).max()
    assert difference > 1e-4, f'{names[i]} and {names[j]} can be exchanged'
    swapped += 1
  assert swapped > 20, swapped


def check_mid_size(pair, directory, family):
  """All but the exchanges, which small models are for."""
  check_whole(pair)
  check_steps(pair)
  check_greedy(pair)
  check_saved(pair, directory, family)
