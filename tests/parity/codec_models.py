"""torch models with weights and codebooks for which a wrong answer shows.

The usual initialisation of transformers' codecs has codebooks of zeros: one
code for everything, under which any encoder passes.
"""

import itertools
import re

import jax
import numpy as np
import torch

from audiolm_jax import interop
from audiolm_jax.interop import base as interop_base
from audiolm_jax.training import mesh as mesh_lib
from tests.interop import tiny_weights

# A codec beside a language model.
TINY_MIMI = {
    key: value
    for key, value in tiny_weights.MIMI.items()
    if key not in ('model_type', 'sliding_window')
}


def audio(rows, channels, samples, seed=0):
  """[B, T, C]: noise under a slow envelope, each row and channel another."""
  rng = np.random.default_rng(seed)
  x = rng.standard_normal((rows, samples, channels))
  envelope = 0.2 + np.abs(np.sin(np.arange(samples) / samples * 9))
  return (0.3 * x * envelope[:, None]).astype(np.float32)


def randomise(model, seed=0):
  """Moves every weight: no two alike, no bias zero, no scale one."""
  torch.manual_seed(seed)
  for name, value in model.state_dict().items():
    if not value.dtype.is_floating_point or 'init' in name:
      continue
    with torch.no_grad():
      if name.endswith(('original0', 'weight_g')) or 'scale' in name:
        value.mul_(0.7 + 0.6 * torch.rand_like(value))
      elif 'codebook' not in name:
        spread = value.std() if value.numel() > 1 else 0.1
        value.add_(0.3 * spread * torch.randn_like(value))
        if value.ndim == 1:
          value.add_(0.05 * torch.randn_like(value))
  return model.eval()


def residual_codebooks(frames, codebooks):
  """Fills codebooks [V, D] with vectors of what is left of frames [N, D].

  With more codes than frames each frame has one of its own, well apart from the
  others (among many codes in many dimensions the nearest two are else about
  equally far), which leaves most of it for the next level. Frames must then be
  those that are tested with: others are as far from all codes.
  """
  residual = frames
  for codebook in codebooks:
    count, size = len(residual), len(codebook)
    if count <= size:
      chosen = torch.arange(size) % count
      spread = torch.where(torch.arange(size) < count, 0.9, 1.4)[:, None]
    else:
      chosen, spread = torch.randint(count, (size,)), 0.2
    # By dimension: a constant offset is no spread.
    noise = spread * residual.std(0) * torch.randn_like(codebook)
    codebook.copy_(residual[chosen] + noise)
    nearest = torch.cdist(residual, codebook).argmin(-1)
    residual = residual - codebook[nearest]


def spread_out(conv, frames):
  """Moves a last convolution so that its outputs have mean 0 and variance 1.

  Under random weights a frame differs little from the next.

  Args:
    conv: with weight norm or without.
    frames: [N, D] what it gives.
  """
  mean, std = frames.mean(0), frames.std(0)
  with torch.no_grad():
    scales = getattr(conv, 'parametrizations', None)
    weight = conv.weight if scales is None else scales.weight.original0
    weight.div_(std[:, None, None])
    conv.bias.sub_(mean).div_(std)
  return (frames - mean) / std


def used(codes, vocabulary):
  """Asserts that every level of codes [B, F, K] tells frames apart."""
  counts = [len(np.unique(codes[..., k])) for k in range(codes.shape[-1])]
  frames = codes.shape[0] * codes.shape[1]
  assert min(counts) >= min(vocabulary, frames) // 4, counts


def close(actual, expected, tolerance=1e-4):
  """Equal within `tolerance` of the largest value."""
  actual, expected = np.asarray(actual), np.asarray(expected)
  scale = np.abs(expected).max()
  np.testing.assert_allclose(
      actual / scale, expected / scale, rtol=0, atol=tolerance
  )


def outputs(codec):
  """jit(variables, audio, num_samples, codes) -> (latents, codes, decoded)."""

  @jax.jit
  def run(variables, x, num_samples, tokens):
    if codec.segment is None:
      latents = codec.encode_latents(variables['params'], x, num_samples)[0]
    else:
      latents = 0.0
    return (
        latents,
        codec.encode(variables, x, num_samples).codes,
        codec.decode(variables, tokens)[0],
    )

  return run


def assert_permutations_show(directory, run, additive=()):
  """Any two tensors of one shape, exchanged, change what comes out.

  Args:
    directory: with the weights.
    run: variables -> arrays.
    additive: groups of patterns; names that differ only by which one of a group
      they hold are added to each other, so that their order is none.
  """
  config, tensors = interop.files.read(directory)
  (family,) = [f for f in interop.FAMILIES.values() if f.recognises(config)]
  codec = family.build(config, interop.Options())
  variables = interop_base.load(family, codec, tensors)
  flat, tree = jax.tree_util.tree_flatten_with_path(variables)
  places = {mesh_lib.key(path): i for i, (path, _) in enumerate(flat)}
  leaves = [leaf for _, leaf in flat]
  owners = {}
  for entry in family.entries(codec):
    for layout in entry.layouts:
      if all(name in tensors for name in layout.theirs):
        owners |= dict.fromkeys(layout.theirs, (entry, layout))
        break
  names = [n for n in owners if not n.endswith(STATISTICS)]
  reference, swapped = run(variables), 0

  def exchanged(*pair):
    given = dict(zip(pair, (tensors[n] for n in reversed(pair)), strict=True))
    changed = list(leaves)
    for name in pair:
      entry, layout = owners[name]
      arrays = layout.load(*[given.get(n, tensors[n]) for n in layout.theirs])
      for path, array in zip(entry.ours, arrays, strict=True):
        changed[places[path]] = array.astype(np.float32)
    return jax.tree.unflatten(tree, changed)

  def order_free(first, second):
    for group in additive:
      bare = [re.sub('|'.join(group), '*', name) for name in (first, second)]
      if bare[0] == bare[1]:
        return True
    return False

  for first, second in itertools.combinations(names, 2):
    if tensors[first].shape != tensors[second].shape:
      continue
    if order_free(first, second):
      continue
    found = run(exchanged(first, second))
    differs = any(
        np.abs(np.asarray(a) - np.asarray(b)).max()
        > 1e-4 * np.abs(np.asarray(b)).max()
        for a, b in zip(found, reference, strict=True)
    )
    assert differs, f'{first} and {second} can be exchanged'
    swapped += 1
  assert swapped > 20, swapped


# What training needs and inference does not.
STATISTICS = ('cluster_size', 'embed_avg')
