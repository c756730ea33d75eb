"""Weights of other projects by name: what each of our parameters is there.

A family (EnCodec, Mimi, Llama, ...) says how its config becomes ours, and lists
one `Entry` for every parameter. Loading and saving go through that list alone,
so that one is the other's inverse, and what the list lacks is an error.
"""

import abc
from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any, Literal, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from audiolm_jax import config
from audiolm_jax.interop import fields
from audiolm_jax.training import mesh as mesh_lib

Arrays = tuple[np.ndarray, ...]
PretrainedError = fields.PretrainedError


class Model(Protocol):
  """What weights are loaded into: a codec, or a language model."""

  def init(self, rng: jax.Array) -> Any:
    """Variables at the start of training."""


@dataclasses.dataclass(frozen=True)
class Layout:
  """One way in which a file may hold an entry.

  Attributes:
    theirs: names of the tensors.
    load: theirs -> ours; raises ValueError where shapes do not fit.
    save: ours -> theirs.
    packed: whether theirs are bytes, rather than floating-point numbers.
  """

  theirs: tuple[str, ...]
  load: Callable[..., Arrays]
  save: Callable[..., Arrays]
  packed: bool = False


@dataclasses.dataclass(frozen=True)
class Entry:
  """Some of our leaves and where they stand in a file.

  Attributes:
    ours: their paths, such as 'params.encoder.layers_0.kernel'.
    layouts: the first one is what `save` writes; loading takes the first one
      that the file has. Without any, the leaves are zero and not stored.
  """

  ours: tuple[str, ...]
  layouts: tuple[Layout, ...] = ()


@dataclasses.dataclass(frozen=True)
class Options:
  """How weights are loaded.

  Attributes:
    weight_norm: keep direction and gain apart, to train on as the original did;
      otherwise they are folded into one kernel.
    streamable: replace reflection by zeros where it alone forbids streaming
      (EnCodec at 24 kHz). Outputs then differ at the start of a row.
    drop_samples: shorten as the original does (DAC's odd strides).
    dtype: of a language model's weights and activations.
  """

  weight_norm: bool = False
  streamable: bool = False
  drop_samples: bool = False
  dtype: Literal['float32', 'bfloat16'] = 'float32'


class Family(abc.ABC):
  """One architecture's config and names.

  Attributes:
    defaults: what keys stand for that a config.json lacks: those that the other
      library gives them. The rest must be there.
    aliases: other names that it takes -> keys.
  """

  defaults: Mapping[str, Any] = {}
  aliases: Mapping[str, str] = {}

  @abc.abstractmethod
  def recognises(self, values: Mapping[str, Any]) -> bool:
    """Whether a config.json is of this family."""

  def build(
      self,
      values: Mapping[str, Any],
      options: Options,
      limits: fields.Limits | None = None,
  ) -> Model:
    """The model of a config.json.

    Args:
      values: its object.
      options: how weights are loaded.
      limits: of sizes, by the weights that are there.

    Raises:
      PretrainedError: naming key and value of what is wrong.
    """
    given = fields.Fields(values, self.defaults, self.aliases, limits)
    try:
      return self.make(given, options)
    except (config.ConfigError, ArithmeticError) as error:
      raise PretrainedError(f'{fields.CONFIG}: {error}') from error

  @abc.abstractmethod
  def make(self, values: fields.Fields, options: Options) -> Model:
    """`build`, of checked values."""

  @abc.abstractmethod
  def entries(self, model: Model) -> list[Entry]:
    """All of the model's leaves."""

  @abc.abstractmethod
  def config_of(self, model: Model) -> dict[str, Any]:
    """The config.json of a model that `build` could have made."""

  def canonical(
      self, model: Model, tensors: Mapping[str, np.ndarray]
  ) -> Mapping[str, np.ndarray]:
    """A file's tensors by the names that `entries` give them.

    For files of which there are several kinds; buffers that say nothing are
    left out.
    """
    del model
    return tensors

  def constants(self, model: Model) -> dict[str, np.ndarray]:
    """Tensors that carry nothing: written, and ignored on loading."""
    del model
    return {}


def load(
    family: Family,
    model: Model,
    tensors: Mapping[str, Any],
    dtype: str = 'float32',
) -> dict[str, Any]:
  """Variables of `model` from a file's tensors.

  Args:
    family: says which tensor goes where.
    model: of its `build`.
    tensors: by name, arrays or what becomes them; each is read when it is
      needed.
    dtype: to hold weights in.

  Raises:
    PretrainedError: listing every tensor that is missing, left over, of the
      wrong shape or type, or not finite.
  """
  tensors = family.canonical(model, tensors)
  entries = family.entries(model)
  problems, chosen = [], []
  used = set(family.constants(model))
  for entry in entries:
    layout = next(
        (x for x in entry.layouts if all(n in tensors for n in x.theirs)), None
    )
    if layout is not None:
      used |= set(layout.theirs)
      chosen.append((entry, layout))
    elif entry.layouts:
      names = ' or '.join(' + '.join(x.theirs) for x in entry.layouts)
      problems.append(f'missing: {names}')
  # Of a model much larger than the file not even shapes are worth making.
  much = len(problems) > len(tensors)
  problems += [f'left over: {n}' for n in sorted(set(tensors) - used)]
  arrays_of_paths = {}
  if not much:
    tree = abstract(model)
    expected = mesh_lib.flat(tree)
    for entry, layout in chosen:
      arrays, wrong = _converted(entry, layout, tensors, expected, dtype)
      arrays_of_paths |= arrays
      problems += wrong
  if problems:
    raise PretrainedError(
        f'{len(problems)} tensors do not fit:\n  ' + '\n  '.join(problems)
    )
  for entry in entries:
    if not entry.layouts:
      arrays_of_paths |= {
          path: np.zeros(*_spec(expected[path])) for path in entry.ours
      }
  return jax.tree_util.tree_map_with_path(
      lambda path, _: arrays_of_paths[mesh_lib.key(path)], tree
  )


def _converted(entry, layout, tensors, expected, dtype):
  """(arrays by path, problems) of an entry that the file holds."""
  given = [np.asarray(tensors[name]) for name in layout.theirs]
  named = list(zip(layout.theirs, given, strict=True))
  wrong = [
      f'wrong type: {name} is {array.dtype}, expected'
      f' {"uint8" if layout.packed else "floating-point numbers"}'
      for name, array in named
      if not (array.dtype == np.uint8 if layout.packed else _is_float(array))
  ]
  if wrong:
    return {}, wrong
  shapes = ', '.join(f'{name} {list(array.shape)}' for name, array in named)
  try:
    with np.errstate(all='ignore'):  # What is not finite is refused below.
      arrays = layout.load(*given)
  except (ValueError, IndexError) as error:
    return {}, [f'wrong shape: {shapes} ({error})']
  converted, problems = {}, []
  for path, array in zip(entry.ours, arrays, strict=True):
    shape, wanted = _spec(expected[path])
    if array.shape != shape:
      problems.append(
          f'wrong shape: {shapes} gives {list(array.shape)} for {path},'
          f' expected {list(shape)}'
      )
      continue
    if wanted == np.float32:
      wanted = jnp.dtype(dtype)
    with np.errstate(over='ignore'):
      array = np.ascontiguousarray(array, wanted)
    if not _finite(array):
      bad = [n for n, x in named if not _finite(x)] or layout.theirs
      problems.append(f'not finite: {", ".join(bad)} gives {path}')
    converted[path] = array
  return converted, problems


def _is_float(array):
  return jnp.issubdtype(array.dtype, np.floating)


def _finite(array):
  """Whether all numbers are, without a copy of them."""
  return not array.size or bool(
      np.isfinite(np.min(array)) and np.isfinite(np.max(array))
  )


def save(
    family: Family, model: Model, variables: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """The tensors of a file that `load` reads back.

  Raises:
    PretrainedError: if the variables are not those of the model, or not finite.
  """
  leaves = {
      key: np.asarray(leaf) for key, leaf in mesh_lib.flat(variables).items()
  }
  expected = mesh_lib.flat(abstract(model))
  wrong = [
      f'{path}: {list(leaves[path].shape) if path in leaves else "missing"},'
      f' expected {list(spec.shape)}'
      for path, spec in expected.items()
      if path not in leaves or leaves[path].shape != spec.shape
  ]
  wrong += [f'{path}: unknown' for path in leaves if path not in expected]
  wrong += [
      f'{p}: not finite' for p, leaf in leaves.items() if not _finite(leaf)
  ]
  if wrong:
    raise PretrainedError('variables do not fit:\n  ' + '\n  '.join(wrong))
  tensors = dict(family.constants(model))
  for entry in family.entries(model):
    for layout in entry.layouts[:1]:
      arrays = layout.save(*[leaves[path] for path in entry.ours])
      tensors |= {
          name: np.ascontiguousarray(array)
          for name, array in zip(layout.theirs, arrays, strict=True)
      }
  return tensors


def check_complete(family: Family, model: Model) -> None:
  """Raises PretrainedError unless the entries cover every leaf just once."""
  covered = [path for e in family.entries(model) for path in e.ours]
  expected = set(mesh_lib.flat(abstract(model)))
  twice = sorted({path for path in covered if covered.count(path) > 1})
  lost = sorted(expected - set(covered)) + sorted(set(covered) - expected)
  if twice or lost:
    raise PretrainedError(f'entries cover twice {twice}, not at all {lost}')


def abstract(model: Model) -> Any:
  """The shapes of a model's variables.

  Raises:
    PretrainedError: if its sizes do not go together.
  """
  try:
    boxed = jax.eval_shape(model.init, jax.random.key(0))
  except (ArithmeticError, TypeError, ValueError) as error:
    raise PretrainedError(
        f'{fields.CONFIG}: sizes do not go together: {error}'
    ) from error
  return nn.meta.unbox(boxed)


def tie(tensors: dict[str, Any], name: str, again: str) -> None:
  """Makes one of a tensor that a file may have under two names, or either.

  Args:
    tensors: of the file; left with `name` only.
    name: of the tensor.
    again: its other name.

  Raises:
    PretrainedError: if both are there and differ.
  """
  if again not in tensors:
    return
  other = tensors.pop(again)
  if not np.array_equal(tensors.setdefault(name, other), other):
    raise PretrainedError(f'{again} is not {name}, though they are one')


def _spec(leaf):
  return leaf.shape, leaf.dtype


# -- entries of the usual layers ----------------------------------------------


def plain(ours: str, theirs: str, axes: Sequence[int] | None = None) -> Entry:
  """One tensor, its axes permuted on the way to ours."""
  back = None if axes is None else tuple(np.argsort(axes))

  def move(x, order):
    return (x if order is None else x.transpose(order),)

  layout = Layout((theirs,), lambda x: move(x, axes), lambda x: move(x, back))
  return Entry((ours,), (layout,))


def linear(ours: str, theirs: str, bias: bool = True) -> list[Entry]:
  """torch.nn.Linear [out, in] at `theirs`; ours has kernel and bias."""
  entries = [plain(f'{ours}.kernel', f'{theirs}.weight', (1, 0))]
  if bias:
    entries.append(plain(f'{ours}.bias', f'{theirs}.bias'))
  return entries


def conv(
    ours: str,
    theirs: str,
    *,
    bias: bool = True,
    transposed: bool = False,
    normed: bool = False,
    stored_normed: bool = False,
) -> list[Entry]:
  """torch.nn.Conv1d [out, in, width], or ConvTranspose1d [in, out, width].

  Args:
    ours: path of the module.
    theirs: name of the module.
    bias: whether it has one.
    transposed: ConvTranspose1d.
    normed: whether ours keeps weight norm: kernel (the direction) and gain.
    stored_normed: whether a file is written with weight norm.
  """
  layouts = _kernel_layouts(theirs, transposed, normed)
  if stored_normed:
    layouts = layouts[1:] + layouts[:1]
  paths = (f'{ours}.kernel', f'{ours}.gain')[: 1 + normed]
  entries = [Entry(paths, tuple(layouts))]
  if bias:
    entries.append(plain(f'{ours}.bias', f'{theirs}.bias'))
  return entries


def _kernel_layouts(theirs, transposed, normed) -> list[Layout]:
  """The ways in which files have a kernel: plain, and with weight norm."""
  axes = (2, 0, 1) if transposed else (2, 1, 0)
  back = tuple(np.argsort(axes))

  def norms(v):
    """[n, 1, 1]: over all axes but torch's first, in double precision."""
    v = v.astype(np.float64)
    return np.sqrt(np.sum(v * v, axis=(1, 2), keepdims=True))

  def load_plain(w):
    kernel = w.transpose(axes)
    return (kernel, norms(w).reshape(-1)) if normed else (kernel,)

  def load_normed(g, v):
    if normed:
      return v.transpose(axes), g.reshape(-1)
    return ((v * (g / norms(v))).transpose(axes),)

  def save_plain(kernel, gain=None):
    v = kernel.transpose(back)
    if gain is None:
      return (v,)
    return ((v * (gain.reshape(-1, 1, 1) / norms(v))).astype(np.float32),)

  def save_normed(kernel, gain=None):
    v = kernel.transpose(back)
    g = norms(v) if gain is None else gain.reshape(-1, 1, 1)
    return g.astype(np.float32), v

  layouts = [Layout((f'{theirs}.weight',), load_plain, save_plain)]
  pairs = (
      # Newer torch, older torch.
      (
          'parametrizations.weight.original0',
          'parametrizations.weight.original1',
      ),
      ('weight_g', 'weight_v'),
  )
  for pair in pairs:
    names = tuple(f'{theirs}.{name}' for name in pair)
    layouts.append(Layout(names, load_normed, save_normed))
  return layouts


def stacked(ours: str, theirs: Sequence[str]) -> Entry:
  """Equal tensors, one a codebook, that ours holds in one."""
  layout = Layout(tuple(theirs), lambda *x: (np.stack(x),), lambda x: tuple(x))
  return Entry((ours,), (layout,))


def prefixed(entries: Sequence[Entry], ours: str, theirs: str) -> list[Entry]:
  """The entries of a part of a model, as those of the whole.

  Args:
    entries: of the part.
    ours: path of its variables.
    theirs: name of the module.
  """
  result = []
  for entry in entries:
    layouts = tuple(
        dataclasses.replace(
            layout, theirs=tuple(f'{theirs}.{name}' for name in layout.theirs)
        )
        for layout in entry.layouts
    )
    paths = tuple(f'{ours}.{path}' for path in entry.ours)
    result.append(Entry(paths, layouts))
  return result
