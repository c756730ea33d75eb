"""Names of the layers of decoders in the style of Vocos."""

from audiolm_jax import streaming
from audiolm_jax.interop import base as interop_base
from audiolm_jax.interop import seanet as seanet_names


def residual_convs(ours: str, theirs: str) -> list[interop_base.Entry]:
  """Of `parts.vocos.residual_convs`."""
  entries = []
  for i in (0, 1):
    here = f'{ours}.body.layers_{3 * i}'
    entries += seanet_names.norm(here, f'{theirs}.norm{i + 1}')
    entries += interop_base.conv(
        f'{ours}.body.layers_{3 * i + 2}', f'{theirs}.conv{i + 1}'
    )
  return entries


def attention(
    ours: str, theirs: str, names: tuple[str, ...]
) -> list[interop_base.Entry]:
  """Query, key, value and output as 1x1 convolutions with biases."""
  entries = []
  for name, place in zip(('query', 'key', 'value', 'out'), names, strict=True):
    entries += [
        matrix(f'{ours}.{name}', f'{theirs}.{place}.weight'),
        interop_base.plain(f'{ours}.{name}_bias', f'{theirs}.{place}.bias'),
    ]
  return entries


def matrix(ours: str, theirs: str) -> interop_base.Entry:
  """A 1x1 convolution [out, in, 1] that ours has as a matrix [in, out]."""
  layout = interop_base.Layout(
      (theirs,), lambda w: (w[:, :, 0].T,), lambda w: (w.T[:, :, None],)
  )
  return interop_base.Entry((ours,), (layout,))


def convnext(
    layer: streaming.Serial, ours: str, theirs: str
) -> list[interop_base.Entry]:
  """A stack of ConvNeXt blocks whose norms have tables."""
  entries = []
  for i in range(len(layer.layers)):
    here, there = f'{ours}.layers_{i}.body', f'{theirs}.{i}'
    entries += interop_base.conv(f'{here}.layers_0', f'{there}.dwconv')
    entries += conditional_norm(f'{here}.layers_1', f'{there}.norm')
    entries += interop_base.linear(f'{here}.layers_2', f'{there}.pwconv1')
    entries += interop_base.linear(f'{here}.layers_4', f'{there}.pwconv2')
    entries.append(
        interop_base.plain(f'{here}.layers_5.scale', f'{there}.gamma')
    )
  return entries


def conditional_norm(ours: str, theirs: str) -> list[interop_base.Entry]:
  """Tables of scales and offsets."""
  return [
      interop_base.plain(f'{ours}.scale', f'{theirs}.scale.weight'),
      interop_base.plain(f'{ours}.bias', f'{theirs}.shift.weight'),
  ]
