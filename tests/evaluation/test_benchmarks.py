"""Folders of sWUGGY, sBLIMP and SALMon: read, and refused where they are none."""

import collections
import pathlib

import pytest

from audiolm_jax.evaluation import benchmarks
from tests.evaluation import benchmark_folders

WORDS = [('cat', 0), ('dog', 4), ('bird', 5), ('fish', 100), ('cow', 20)]


def test_pairs_of_words_are_by_voice_and_count_in_their_bands(tmp_path):
  folder = benchmark_folders.swuggy(tmp_path / 'dev', WORDS)
  pairs = benchmarks.swuggy(folder)
  assert len(pairs) == 10
  first = pairs[0]
  assert first.item == '0' and first.right == folder / 'wcat_A.wav'
  assert first.wrong == folder / 'ncat_A.wav'
  bands = {pair.item: pair.metrics for pair in pairs}
  known = 'swuggy_in_vocabulary'
  # As the challenge's scorer draws them: [0, 1), [1, 5), [5, 20) and so on.
  assert bands == {
      '0': ('swuggy', 'swuggy_frequency_oov'),
      '1': ('swuggy', known, 'swuggy_frequency_1-5'),
      '2': ('swuggy', known, 'swuggy_frequency_6-20'),
      '3': ('swuggy', known, 'swuggy_frequency_>100'),
      '4': ('swuggy', known, 'swuggy_frequency_21-100'),
  }


def test_the_order_of_rows_is_of_no_importance(tmp_path):
  folder = benchmark_folders.swuggy(tmp_path / 'dev', WORDS)
  expected = set(benchmarks.swuggy(folder))
  header, *rows = (folder / 'gold.csv').read_text('utf-8').splitlines()
  text = '\ufeff' + '\n'.join([header, *reversed(rows)])
  (folder / 'gold.csv').write_text(text, 'utf-8')
  assert set(benchmarks.swuggy(folder)) == expected


def test_sentences_are_by_type_and_recordings_may_lie_deeper(tmp_path):
  kinds = [('agreement', 'a'), ('agreement', 'b'), ('npi', 'a')]
  folder = benchmark_folders.sblimp(tmp_path / 'dev', kinds, 'AB')
  deeper = folder / 'wavs' / 'r1_A.wav'
  deeper.parent.mkdir()
  (folder / 'r1_A.wav').rename(deeper)
  pairs = benchmarks.sblimp(folder)
  assert collections.Counter(pair.item for pair in pairs) == {
      'agreement/a/0': 2,
      'agreement/b/1': 2,
      'npi/a/2': 2,
  }
  assert pairs[2].right == deeper and pairs[2].wrong == folder / 'w1_A.wav'
  assert pairs[2].metrics == ('sblimp', 'sblimp_agreement')
  # Two of one name: which is meant?
  benchmark_folders.record(folder / 'other' / 'r1_A.flac', 0)
  with pytest.raises(benchmarks.BenchmarkError, match='has two: .*r1_A'):
    benchmarks.sblimp(folder)


def test_all_parts_of_salmon_or_one(tmp_path, monkeypatch):
  parts = {'bg_alignment': 12, 'speaker_consistency': 2}
  folder = benchmark_folders.salmon(tmp_path / 'salmon', parts)
  pairs = benchmarks.salmon(folder)
  assert [pair.item for pair in pairs[10:13]] == [
      'bg_alignment/10',
      'bg_alignment/11',
      'speaker_consistency/0',
  ]
  assert pairs[-1].metrics == ('salmon_speaker_consistency',)
  assert pairs[-1].right.name == 'sample_1_0.wav'
  one = benchmarks.salmon(folder / 'speaker_consistency')
  assert one == pairs[-2:]
  monkeypatch.chdir(folder / 'speaker_consistency')
  assert [pair.item for pair in benchmarks.salmon('.')] == [
      pair.item for pair in one
  ]


def test_some_items_are_evenly_spaced_with_all_their_voices(tmp_path):
  pairs = benchmarks.swuggy(benchmark_folders.swuggy(tmp_path, WORDS))
  kept = benchmarks.some(pairs, 3)
  assert [pair.item for pair in kept] == ['0', '0', '2', '2', '4', '4']
  assert benchmarks.some(pairs, None) == pairs == benchmarks.some(pairs, 9)


def _line(folder, number, old, new):
  """Changes a line of gold.csv."""
  path = folder / 'gold.csv'
  lines = path.read_text('utf-8').splitlines()
  assert old in lines[number - 1]
  lines[number - 1] = lines[number - 1].replace(old, new)
  path.write_text('\n'.join(lines) + '\n', 'utf-8')


@pytest.mark.parametrize(
    'number, old, new, message',
    [
        (1, 'frequency', 'frequenz', r"no gold.csv of swuggy.*\['frequency'\]"),
        (2, ',1', ',2', "line 2: correct = '2', not 0 or 1"),
        (2, '0,wcat_A', '7,wcat_A', "'7' of voice 'A' has no row .* 0"),
        (3, ',0', ',1', "line 3: '0' has two files of voice 'A' with .* 1"),
        (2, 'A,0,', 'A,few,', 'line 2: .*few.* is no number'),
        (2, 'A,0,', 'A,-1,', "line 2: frequency = '-1' is no number"),
        (2, 'wcat_A', 'gone', 'has no gone.wav or .flac'),
        (4, ',cat', '', 'line 4: expected 8 fields'),
        (4, ',cat', ',cat,cat', 'line 4: expected 8 fields'),
        (4, ',cat', ',"cat', 'gold.csv can not be read'),
    ],
)
def test_a_wrong_row_is_named(tmp_path, number, old, new, message):
  folder = benchmark_folders.swuggy(tmp_path / 'dev', WORDS[:1])
  _line(folder, number, old, new)
  with pytest.raises(benchmarks.BenchmarkError, match=message):
    benchmarks.swuggy(folder)


def test_a_word_without_a_frequency_counts_in_the_whole_only(tmp_path):
  folder = benchmark_folders.swuggy(tmp_path / 'dev', [('cat', '')])
  assert {p.metrics for p in benchmarks.swuggy(folder)} == {('swuggy',)}


def test_a_folder_of_another_benchmark_is_named(tmp_path):
  lexical = benchmark_folders.swuggy(tmp_path / 'lexical' / 'dev', WORDS[:1])
  salmon = benchmark_folders.salmon(tmp_path / 'salmon', {'x_consistency': 1})
  refused = [
      (benchmarks.sblimp, lexical, 'has no .*type.*It is one of swuggy'),
      (benchmarks.swuggy, salmon, 'has no gold.csv. It is one of SALMon'),
      (benchmarks.sblimp, salmon / 'x_consistency', 'It is one of SALMon'),
      (benchmarks.salmon, tmp_path / 'lexical', 'It is one of ZeroSpeech'),
      (benchmarks.swuggy, tmp_path, f'Did you mean {lexical}'),
      (benchmarks.swuggy, tmp_path / 'gone', 'gone is no folder'),
      (benchmarks.salmon, tmp_path / 'gone', 'has no folders, such as'),
  ]
  for read, folder, message in refused:
    with pytest.raises(benchmarks.BenchmarkError, match=message):
      read(folder)
  empty = tmp_path / 'empty'
  empty.mkdir()
  with pytest.raises(benchmarks.BenchmarkError, match='such as lexical/dev'):
    benchmarks.swuggy(empty)


def test_what_is_not_whole_is_refused(tmp_path):
  folder = benchmark_folders.salmon(tmp_path, {'part': 2})
  (folder / 'part' / 'sample_1_1.wav').unlink()
  with pytest.raises(benchmarks.BenchmarkError, match=r'sample 1 .* \[0\]'):
    benchmarks.salmon(folder)
  (folder / 'part' / 'sample_one_1.wav').touch()
  with pytest.raises(benchmarks.BenchmarkError, match='sample_one_1.wav'):
    benchmarks.salmon(folder)
  gold = tmp_path / 'gold'
  benchmark_folders.gold(gold, benchmark_folders.SBLIMP, [])
  with pytest.raises(benchmarks.BenchmarkError, match='has no pair'):
    benchmarks.sblimp(gold)
  (gold / 'gold.csv').write_bytes(b'\xff\xfe\x00')
  with pytest.raises(benchmarks.BenchmarkError, match='can not be read'):
    benchmarks.sblimp(gold)
  path = pathlib.Path(tmp_path / 'cut.wav')
  path.write_bytes(b'RIFF')
  with pytest.raises(benchmarks.BenchmarkError, match='cut.wav'):
    benchmarks.read(path)
