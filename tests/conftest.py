"""All tests: on the CPU, with the shared compilation cache, absl flags parsed."""

import gc
import os
import pathlib
import resource

# Before jax is imported anywhere, and for the processes that tests start.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Compiling is most of the time. XLA's older way to emit fusions, in one module
# a program, compiles in 28% of the time (measured on tests/decoders); programs
# are slower, and sums may be in another order.
_FLAGS = (
    '--xla_cpu_use_fusion_emitters=false'
    ' --xla_cpu_parallel_codegen_split_count=1'
)
os.environ['XLA_FLAGS'] = f'{_FLAGS} {os.environ.get("XLA_FLAGS", "")}'

import jax  # noqa: E402
import pytest  # noqa: E402

from audiolm_jax.data import corpora  # noqa: E402
from audiolm_jax.training import launch  # noqa: E402
from tests import costs  # noqa: E402

launch.prepare()

# Kilobytes that a process may have held before it drops compiled programs.
_MOST = 3 * 2**20


_TESTS = pathlib.Path(__file__).parent
# What `pytest -m quick` runs: nothing that trains, few programs.
_QUICK = (
    'audio',
    'models',
    'ops',
    'patterns',
    'comparison/test_blocks.py',
    'comparison/test_charts.py',
    'lab/test_answering.py',
    'lab/test_runner.py',
    'lab/test_runs.py',
    'comparison/test_report.py',
    'comparison/test_statistics.py',
    'comparison/test_trends.py',
    'comparison/test_verdicts.py',
    'comparison/test_votes.py',
    'generation/test_sampling.py',
    'test_config.py',
    'test_facts.py',
    'test_imports.py',
    'test_paths.py',
    'tokenizers/test_windows.py',
    'training/test_checksums.py',
    'training/test_costs.py',
    'training/test_locks.py',
    'training/test_mesh.py',
    'training/test_optimizers.py',
    'training/test_writers.py',
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
  """Marks what is quick, and what is costly."""
  costly = set(costs.listed())
  for item in items:
    if item.nodeid.partition('[')[0] in costly:
      item.add_marker(pytest.mark.costly)
  quick = [_TESTS / name for name in _QUICK]
  assert all(path.exists() for path in quick), 'conftest names what is gone'
  for item in items:
    marks = {mark.name for mark in item.iter_markers()}
    if not marks & {'slow', 'parity', 'costly'} and any(
        item.path.is_relative_to(path) for path in quick
    ):
      item.add_marker(pytest.mark.quick)


@pytest.fixture(scope='module', autouse=True)
def bounded_memory():
  """Drops compiled programs between files where they take much memory.

  All of the tests' programs together are some 7 GB a process.
  """
  yield
  if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > _MOST:
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope='session')
def cache(tmp_path_factory):
  """The cache directory, set for the session, with a tiny eSpeak corpus."""
  with pytest.MonkeyPatch.context() as patch:
    path = tmp_path_factory.mktemp('cache')
    patch.setenv('AUDIOLM_JAX_CACHE', str(path))
    corpora.prepare('espeak_sentences', ('en', 'fr'), limit=12)
    yield path
