"""Judges a trained codec on held-out sentences, and updates its report.

  pip install -e '.[eval]'
  python tools/evaluate_codec.py --workdir=runs/quickstart [--clips=100] \
      [--languages=en,fr,es,it,ru] [--opus=6,12,24]

Looks for the codec in WORKDIR/tokenizer (or WORKDIR itself), reconstructs test
clips of each language at several numbers of codebooks, prints a table with the
originals' scores beside, writes WORKDIR/codec_evaluation.json and the scores of
every clip to WORKDIR/codec_evaluation.jsonl, and renews the codec's part of
WORKDIR/report.html and summary.json where they are. Languages that the codec
was not trained on are marked as unseen. With --opus the same clips also go
through Opus at these bitrates. Word errors are counted for English only; its
clips are transcribed sentences of at least a second. Without [eval] it gives
the distances and errors of f0, and says what is missing. About 3 minutes on 2
cores; with five languages and three bitrates of Opus some 20 minutes of CPU
time.
"""

import functools
import json
import math
import pathlib
import sys

from absl import app
from absl import flags
import rich.console
import rich.table

from audiolm_jax import assembly as assembly_lib
from audiolm_jax import config
from audiolm_jax import data
from audiolm_jax.models import loading
from audiolm_jax.comparison import codec as codec_report
from audiolm_jax.comparison import report as report_lib
from audiolm_jax.data import corpora
from audiolm_jax.evaluation import codec as codec_evaluation
from audiolm_jax.evaluation import judges as judges_lib
from audiolm_jax.evaluation import opus
from audiolm_jax.training import checkpoints
from audiolm_jax.training import writers

_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'A quickstart directory, or a codec run.', required=True
)
_CORPUS = flags.DEFINE_string(
    'corpus', None, 'Its test split is used; default: the one it trained on.'
)
_LANGUAGES = flags.DEFINE_list(
    'languages',
    [],
    'Each is a group of its own; default: en, fr and es of a corpus that is'
    ' built by language.',
)
_CLIPS = flags.DEFINE_integer(
    'clips', 100, 'At most so many of each language.', lower_bound=1
)
_CODEBOOKS = flags.DEFINE_list(
    'codebooks', [], 'Numbers of codebooks; default: 1, 2, 4, ... all.'
)
_OPUS = flags.DEFINE_list('opus', [], 'Bitrates of Opus in kbit/s.')

# A recogniser's error rate on fewer sentences is mostly chance.
_FEWEST = 60
# What the table needs.
_COLUMNS = 120


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  workdir = pathlib.Path(_WORKDIR.value)
  run = workdir / 'tokenizer' if (workdir / 'tokenizer').exists() else workdir
  page, summary = workdir / 'report.html', workdir / 'summary.json'
  try:
    # What can't be renewed is told before an hour's work, not after.
    _renewable(page, report_lib.Report.read)
    _renewable(summary, lambda path: dict(json.loads(path.read_text())))
    groups, scores = _evaluate(run)
  except (
      config.ConfigError,
      corpora.CorpusError,
      checkpoints.CheckpointError,
  ) as error:
    sys.exit(f'evaluate_codec: {error}')
  writers.write_atomically(
      workdir / 'codec_evaluation.json', json.dumps(groups, indent=2)
  )
  writers.write_atomically(workdir / 'codec_evaluation.jsonl', ''.join(scores))
  _print(groups)
  if page.exists():
    report = report_lib.Report.read(page)
    codec_report.add_to(report, groups, _WORKDIR.value)
    report.write(page)
    print(f'Renewed the section "{codec_report.SECTION}" of {page}.')
  if summary.exists():
    values = json.loads(summary.read_text()) | {'codec': groups}
    writers.write_atomically(summary, json.dumps(values, indent=2))
  for name, command in judges_lib.missing().items():
    print(f'{name} is missing: {command} adds it.')


def _renewable(path, read):
  """Raises ConfigError if a file is there and can't be read."""
  if not path.exists():
    return
  try:
    read(path)
  except (OSError, ValueError, TypeError) as error:
    raise config.ConfigError(
        f'{path} is damaged ({error}). Remove it and what belongs to it.'
    ) from error


def _evaluate(run):
  """(results of each language, lines of item scores)."""
  _others()  # Wrong bitrates are told at once.
  bound = loading.load(run)
  trained = assembly_lib.read(run).data
  corpus = _CORPUS.value or trained.corpus
  absent = judges_lib.missing()
  present = [name for name in judges_lib.JUDGES if name not in absent]
  evaluators = {}
  # All clips first: what is missing is told before an hour's work, not after.
  for language in _languages(corpus):
    english = language.startswith('en')
    settings = codec_evaluation.held_out(
        corpus,
        (language,) if corpus in corpora.BUILDERS else (),
        limit=_CLIPS.value,
        codebooks=_codebooks(bound.spec),
        judges=tuple(n for n in present if english or n != 'wer'),
    )
    evaluators[language] = codec_evaluation.CodecEvaluator(settings)
    evaluators[language].clips(bound.spec)
  groups, lines = [], []
  for language, evaluator in evaluators.items():
    clips = evaluator.clips(bound.spec)
    seconds = sum(len(c['audio']) for c in clips) / bound.spec.sample_rate
    print(f'{language}: {len(clips)} clips, {seconds:.0f} s', flush=True)
    if language.startswith('en') and len(clips) < _FEWEST:
      print(f'  fewer than {_FEWEST} sentences: take WER as a rough guess')
    scores = list(evaluator.score(bound))
    others = list(evaluator.compare(bound.spec, _others()))
    group = codec_report.results(
        scores,
        bound.spec,
        language,
        seconds,
        others=others,
        unseen=bool(trained.languages) and language not in trained.languages,
    )
    groups.append(group)
    lines += [
        json.dumps({'group': language, **score._asdict()}) + '\n'
        for score in scores + others
    ]
  return groups, lines


def _languages(corpus) -> list[str]:
  """The groups of clips; one of a corpus that is not built by language."""
  if corpus in corpora.BUILDERS:
    return _LANGUAGES.value or ['en', 'fr', 'es']
  if _LANGUAGES.value:
    raise config.ConfigError(
        f'--languages: {corpus} can not be filtered by them.'
    )
  clips = data.load_corpus(corpus, 'test')
  known = {clips[i]['language'] for i in range(len(clips))}
  return [known.pop() or 'all' if len(known) == 1 else 'all']


def _others():
  """The codecs to compare with, by name."""
  found = {}
  for text in _OPUS.value:
    try:
      rate = float(text)
    except ValueError:
      rate = math.nan
    if not opus.LEAST <= 1000 * rate <= opus.MOST:
      raise config.ConfigError(
          f'--opus={text}: expected kbit/s, {opus.LEAST / 1000:g} to'
          f' {opus.MOST / 1000:g}.'
      )
    found[f'Opus {text} kbit/s'] = functools.partial(
        opus.encode_decode, bits_per_second=round(1000 * rate)
    )
  return found


def _codebooks(spec) -> tuple[int, ...]:
  total = len(spec.slots)
  wrong = [n for n in _CODEBOOKS.value if not n.isdecimal() or int(n) < 1]
  if wrong:
    raise config.ConfigError(
        f'--codebooks={wrong[0]}: expected numbers from 1 to {total}.'
    )
  if _CODEBOOKS.value:
    return tuple(map(int, _CODEBOOKS.value))
  return tuple(n for n in (1, 2, 4, 8, 16, 32) if n <= total)


def _print(groups):
  report = report_lib.Report('')
  codec_report.add_to(report, groups, _WORKDIR.value)
  console = rich.console.Console()
  # Into a file it would cut the figures to 80 columns.
  console.width = max(console.width, _COLUMNS)
  for block in report.data['sections'][0]['blocks']:
    if block['kind'] != 'table':
      continue
    table = rich.table.Table(box=None)
    for i, column in enumerate(block['columns']):
      table.add_column(column, justify='right' if i else 'left', no_wrap=True)
    for row in block['rows']:
      table.add_row(*[cell['text'] for cell in row])
    console.print(table)


if __name__ == '__main__':
  app.run(main)
