"""What a program costs: FLOPs by a walk over its jaxpr.

`compiled.cost_analysis()` counts the body of a scan once, whatever its length;
here it counts as often as it runs. Multiplications and additions of matrix
products, convolutions and Fourier transforms are counted, elementwise work is
not. Dead code is removed first, as the compiler does.
"""

import functools
import math
import re
from typing import Any

import jax
from jax.interpreters import partial_eval
import numpy as np

from audiolm_jax.ops import linear_maps


def flops(function, *args, while_trips: int = 1) -> float:
  """FLOPs of `function(*args)`; args may be ShapeDtypeStructs.

  Args:
    function: anything that `jax.make_jaxpr` traces.
    *args: its arguments.
    while_trips: how often the body of each while loop runs.
  """
  return jaxpr_flops(jax.make_jaxpr(function)(*args), while_trips)


def jaxpr_flops(closed: Any, while_trips: int = 1) -> float:
  """FLOPs of a ClosedJaxpr."""
  jaxpr = closed.jaxpr
  jaxpr, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
  return _count(jaxpr, while_trips)


def _count(jaxpr, trips) -> float:
  total = 0.0
  for eqn in jaxpr.eqns:
    name, params = eqn.primitive.name, eqn.params
    if name in _COSTS:
      total += _COSTS[name](eqn)
    elif name == 'scan':
      total += params['length'] * _count(params['jaxpr'].jaxpr, trips)
    elif name == 'while':
      body = _count(params['body_jaxpr'].jaxpr, trips)
      total += trips * (body + _count(params['cond_jaxpr'].jaxpr, trips))
    elif name == 'cond':
      total += max(_count(b.jaxpr, trips) for b in params['branches'])
    else:
      total += sum(_count(j, trips) for j in _inner(params))
  return total


def _inner(params):
  """Jaxprs that an equation calls once: pjit, remat, custom_vjp, ..."""
  for value in params.values():
    inner = getattr(value, 'jaxpr', value)
    if hasattr(inner, 'eqns'):
      yield inner


def _dot_general(eqn) -> float:
  (contract, _), _ = eqn.params['dimension_numbers']
  shape = eqn.invars[0].aval.shape
  inner = math.prod(shape[d] for d in contract)
  return 2.0 * eqn.outvars[0].aval.size * inner


def _ragged_dot(eqn) -> float:
  """Every row meets one group, so groups never multiply the work."""
  numbers = eqn.params['ragged_dot_dimension_numbers']
  (contract, _), _ = numbers.dot_dimension_numbers
  shape = eqn.invars[0].aval.shape
  inner = math.prod(shape[d] for d in contract)
  size = eqn.outvars[0].aval.size
  if set(numbers.lhs_ragged_dimensions) & set(contract):
    size /= eqn.outvars[0].aval.shape[0]
  return 2.0 * size * inner


def _conv(eqn) -> float:
  """Only products of an input sample with a tap: no padding, no holes."""
  params = eqn.params
  numbers = params['dimension_numbers']
  lhs, rhs = (v.aval.shape for v in eqn.invars)
  out = eqn.outvars[0].aval.shape
  pairs = 1.0
  for i, (low, _) in enumerate(params['padding']):
    size = lhs[numbers.lhs_spec[2 + i]]
    taps = rhs[numbers.rhs_spec[2 + i]]
    hole = params['lhs_dilation'][i]
    first = (
        np.arange(out[numbers.out_spec[2 + i]]) * params['window_strides'][i]
    )
    if taps > len(first):  # loop over the shorter side
      first, step, n = (
          np.arange(taps) * params['rhs_dilation'][i],
          params['window_strides'][i],
          len(first),
      )
    else:
      step, n = params['rhs_dilation'][i], taps
    hits = 0
    for k in range(n):
      at = first + k * step - low
      hits += np.sum((at >= 0) & (at <= (size - 1) * hole) & (at % hole == 0))
    pairs *= hits
  batch, features = out[numbers.out_spec[0]], out[numbers.out_spec[1]]
  return 2.0 * batch * features * rhs[numbers.rhs_spec[1]] * pairs


def _fft(eqn) -> float:
  """5 n log2 n for a complex transform, half of it for a real one."""
  lengths = eqn.params['fft_lengths']
  n = math.prod(lengths)
  real = 'RFFT' in eqn.params['fft_type'].name
  shape = eqn.invars[0].aval.shape
  batch = math.prod(shape[: len(shape) - len(lengths)])
  return (2.5 if real else 5.0) * batch * n * math.log2(max(n, 2))


def _product_of_rows(eqn) -> float:
  """Rows of the first input times a matrix each."""
  return 2.0 * eqn.outvars[0].aval.size * eqn.invars[0].aval.shape[-1]


def _product_over_rows(eqn) -> float:
  """Outer products of rows of the first two inputs, summed."""
  x, y = (v.aval for v in eqn.invars[:2])
  return 2.0 * x.size * y.shape[-1]


def _linear_map(eqn) -> float:
  """What the map itself computes, where nothing has transposed it."""
  function = functools.partial(linear_maps.evaluate, **eqn.params)
  shapes = (v.aval for v in eqn.invars)
  return flops(
      function, *(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in shapes)
  )


# Their asynchronous forms start with '-start'.
_COLLECTIVES = (
    'all-gather',
    'all-reduce',
    'all-to-all',
    'collective-permute',
    'reduce-scatter',
)
_COSTS = {
    'ragged_rows': _product_of_rows,
    'ragged_weights': _product_over_rows,
    'dot_general': _dot_general,
    'ragged_dot_general': _ragged_dot,
    'ragged_dot': _ragged_dot,
    'conv_general_dilated': _conv,
    'fft': _fft,
    linear_maps.NAME: _linear_map,
}


def memory(compiled: Any) -> dict[str, int]:
  """Bytes a compiled program needs: arguments, outputs, temporaries, total."""
  analysis = compiled.memory_analysis()
  if analysis is None:
    return {}
  sizes = {
      'arguments': analysis.argument_size_in_bytes,
      'outputs': analysis.output_size_in_bytes,
      'temporaries': analysis.temp_size_in_bytes,
  }
  shared = analysis.alias_size_in_bytes
  return {**sizes, 'total': sum(sizes.values()) - shared}


def collectives(text: str) -> dict[str, tuple[int, int]]:
  """What devices exchange in one run: {kind: (count, bytes of each's arrays)}.

  An array's bytes are those of the larger side: what an all-gather gives, what
  a reduce-scatter takes. Bodies of loops count as often as they run, where the
  compiler knows it.

  Args:
    text: of a compiled program, `compiled.as_text()`.
  """
  computations, entry = {}, None
  for line in text.splitlines():
    head = re.match(r'(ENTRY )?%?([\w.\-]+) .*\{$', line)
    if head and not line.startswith(' '):
      lines = computations.setdefault(head[2], [])
      entry = head[2] if head[1] else entry
    elif line.startswith(' '):
      lines.append(line)
  total: dict[str, tuple[int, int]] = {}

  def add(name, times):
    for line in computations.get(name, ()):
      match = re.search(rf'= (.*?) ({"|".join(_COLLECTIVES)})(-start)?\(', line)
      if match:
        sizes = [_bytes(*x) for x in re.findall(r'(\w+)\[([\d,]*)\]', match[1])]
        # Some of those that only start list what goes in before what comes out.
        if match[3] and match[2] == 'all-gather':
          sizes = sizes[len(sizes) // 2 :]
        elif match[3] and match[2] == 'collective-permute':
          sizes = sizes[:1]
        size = sum(sizes)
        if match[2] == 'reduce-scatter':
          size *= _group(line)
        count, before = total.get(match[2], (0, 0))
        total[match[2]] = (count + times, before + times * size)
      inner = times * _trips(line, computations)
      for key, called in re.findall(
          r'(calls|to_apply|body|condition|branch_computations)='
          r'(\{[^}]*\}|%?[\w.\-]+)',
          line,
      ):
        if key == 'to_apply' and match:
          continue
        for one in re.findall(r'[\w.\-]+', called):
          add(one, inner)

  add(entry, 1)
  return total


def _trips(line, computations):
  """How often what an instruction calls runs: once, if it is not a loop."""
  known = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
  if known:
    return int(known[1])
  condition = re.search(r' while\(.*condition=%?([\w.\-]+)', line)
  if not condition:
    return 1
  # Loops of a scan count from 0 to the one constant of their condition.
  lines = '\n'.join(computations.get(condition[1], ()))
  bounds = re.findall(r'= s32\[\]\S* constant\((\d+)\)', lines)
  return int(bounds[0]) if len(bounds) == 1 else 1


def _bytes(kind, shape):
  size = math.prod(int(n) for n in shape.split(',') if n)
  bits = re.search(r'\d+', kind)
  return size * (int(bits[0]) if bits else 8) // 8


def _group(line):
  """Devices that take part in a collective with each other."""
  iota = re.search(r'replica_groups=\[\d+,(\d+)\]', line)
  if iota:
    return int(iota[1])
  first = re.search(r'replica_groups=\{\{([\d,]*)\}', line)
  return len(first[1].split(',')) if first else 1


def readable(number: float, unit: str = '') -> str:
  """1234567 -> '1.23 M'."""
  for prefix in ('', 'k', 'M', 'G', 'T', 'P'):
    if abs(number) < 1000 or prefix == 'P':
      return f'{number:.3g} {prefix}{unit}'.rstrip()
    number /= 1000
  raise AssertionError('unreachable')
