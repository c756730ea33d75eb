"""torch models of DAC's kind, with weights and codebooks that tell things apart."""

import functools

import jax
import numpy as np
import torch

from audiolm_jax.tokenizers import base as tokenizers_base
from tests import margin_rule
from tests.parity import codec_models


def randomise(model, gain=0.6, seed=0):
  """Every weight its own; `gain` keeps signals from growing on their way."""
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, value in model.named_parameters():
      noise = torch.randn(value.shape, generator=generator)
      if 'codebook' in name:
        continue
      if name.endswith(('original0', 'weight_g')):
        noise = gain * (1 + 0.3 * noise.clamp(-2, 2))
      elif name.endswith('alpha') or 'norm.weight' in name:
        noise = 1 + 0.3 * noise.clamp(-2, 2)
      elif value.ndim > 1:
        noise *= gain * value[0].numel() ** -0.5
      else:
        noise *= 0.1
      value.copy_(noise)
  return model.eval()


def fill_codebooks(quantisers, latents):
  """Codes near what each level sees of latents [B, D, F]."""
  generator = torch.Generator().manual_seed(1)
  residual = latents
  with torch.no_grad():
    for level in quantisers:
      stride = getattr(level, 'stride', 1)
      pooled = torch.nn.functional.avg_pool1d(residual, stride, stride)
      projected = level.in_proj(pooled).transpose(1, 2)
      projected = projected.reshape(-1, projected.shape[-1])
      codebook = level.codebook.weight
      chosen = torch.randint(
          len(projected), (len(codebook),), generator=generator
      )
      noise = torch.randn(codebook.shape, generator=generator)
      spread = 0.3 * projected.std(0)
      codebook.copy_(projected[chosen] + spread * noise)
      residual = residual - level(residual)[0]


def outputs(codec):
  """jit(variables, x, num_samples, codes) -> (latents, codes, margins, audio)."""

  @functools.partial(
      jax.jit, compiler_options={'xla_backend_optimization_level': 0}
  )
  def run(variables, x, num_samples, codes):
    params, state = variables['params'], variables['state']
    latents, mask = codec.encode_latents(params, x, num_samples)
    given = {'params': params['bottleneck'], 'state': state}
    found = codec.bottleneck.quantise(given, latents, mask)
    tokens = tokenizers_base.Tokens(num_samples=num_samples, codes=codes)
    audio, kept = codec.decode(variables, tokens)
    return latents, found.codes, found.margins, audio[..., 0], kept

  return run


def assert_same(run, variables, x, num_samples, reference):
  """Rows of a padded batch are what the reference makes of each by itself.

  Args:
    run: from `outputs`.
    variables: of our codec.
    x: [B, T, 1]; overwritten by NaN past the ends.
    num_samples: of the rows.
    reference: [1, T, 1] -> (latents [F, D], codes [N, K], audio [T]).

  Returns:
    our audio [B, T], zero past the ends, and the codes.
  """
  expected = [
      reference(x[row : row + 1, :length])
      for row, length in enumerate(num_samples)
  ]
  x = np.where(
      np.arange(x.shape[1])[:, None] < num_samples[:, None, None], x, np.nan
  )
  size = max(len(codes) for _, codes, _ in expected)
  codes = np.stack(
      [np.pad(c, ((0, size - len(c)), (0, 0))) for _, c, _ in expected]
  )
  latents, found, margins, audio, kept = map(
      np.asarray, run(variables, x.astype(np.float32), num_samples, codes)
  )
  margin_rule.assert_same_codes(found, codes, margins)
  for row, (their_latents, _, their_audio) in enumerate(expected):
    own = latents[row, : len(their_latents)]
    codec_models.close(own, their_latents)
    error = np.abs(own - their_latents).max() / np.abs(their_latents).max()
    same = min(kept[row], len(their_audio))
    codec_models.close(audio[row, :same], their_audio[:same])
    print(f'row {row}: latents off by {error:.1e}')
  return audio, kept, codes


def latents(model, hop, vocabulary, most=100_000):
  """What a model's encoder says of noise: enough frames for its codebooks."""
  size = min(max(60, 2 * vocabulary) * hop, most - most % hop)
  x = codec_models.audio(1, 1, size, seed=3).transpose(0, 2, 1)
  with torch.no_grad():
    return model.encoder(torch.from_numpy(x))
