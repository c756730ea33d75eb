"""Adds up the votes of blind tests, and writes them into their report.

  python tools/listen.py votes-*.json --report=runs/x/report.json

The files are saved by the 'Save votes' button of a report's page, one or more a
listener. Prints, for each section of the report that was voted on, the strength
of each arm (log odds to be preferred over an average arm, by Davidson's model of
pairs with ties) with 95% intervals, and how far votes can be trusted: side bias,
answers that changed, rings of preferences. With --report, votes about another
report are refused, and the tables are written into it.
"""

import argparse
import pathlib
import sys

from audiolm_jax.comparison import report as report_lib
from audiolm_jax.comparison import statistics
from audiolm_jax.comparison import votes as votes_lib

COLUMNS = ('arm', 'strength', 'preferred', 'no difference', 'not preferred')
SECTION = 'Blind test: '


def tables(votes: list[votes_lib.Vote]) -> dict[str, tuple[list, str]]:
  """section -> rows under `COLUMNS`, and what to know about them.

  Raises:
    votes.VotesError: naming a section whose arms no votes connect.
  """
  result = {}
  for section in sorted({vote.section for vote in votes}):
    count = votes_lib.count([v for v in votes if v.section == section])
    try:
      fitted = votes_lib.strengths(count.votes)
    except votes_lib.VotesError as error:
      raise votes_lib.VotesError(f'{section}: {error}') from error
    rows = [
        [arm, statistics.Interval(s, low, high, len(count.votes)), w, t, lost]
        for arm, s, low, high, w, t, lost in zip(
            fitted.arms,
            fitted.strength,
            fitted.low,
            fitted.high,
            fitted.wins,
            fitted.ties,
            fitted.losses,
            strict=True,
        )
    ]
    result[section] = rows, _caption(count, fitted)
  return result


def _caption(count, fitted) -> str:
  people = len({vote.listener for vote in count.votes})
  text = (
      f'{len(count.votes)} votes of {people} listener(s) on'
      f' {len({vote.item for vote in count.votes})} items. Strength: log odds to'
      f' be preferred over an average arm; 95% intervals: {fitted.method}.'
  )
  low, high = count.left_interval
  if count.left == count.left:
    text += f' Side A was preferred in {count.left:.0%} [{low:.0%}, {high:.0%}]'
    text += ': a side bias.' if not low <= 0.5 <= high else '.'
  if count.repeats:
    text += (
        f' {count.repeats} pairs were answered again, {count.changed} of them'
        ' otherwise; the last answer counts.'
    )
  if count.circles:
    text += f' In {count.circles} items preferences go round in a ring.'
  if fitted.unbounded:
    text += (
        f' Won or lost everything: {", ".join(fitted.unbounded)}; only a faint'
        ' prior bounds the strength.'
    )
  return text


def check(votes: list[votes_lib.Vote], report: report_lib.Report) -> None:
  """Refuses votes on what a report does not hold.

  Raises:
    votes.VotesError: naming the first such vote.
  """
  arms = {
      (section['title'], block['title']): {c['label'] for c in block['clips']}
      for section in report.data['sections']
      for block in section['blocks']
      if block['kind'] == 'comparison'
  }
  for vote in votes:
    if not {vote.left, vote.right} <= arms.get(
        (vote.section, vote.item), set()
    ):
      raise votes_lib.VotesError(f'the report has nothing of {vote}')


def main(arguments: list[str]) -> None:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('votes', nargs='+', type=pathlib.Path)
  parser.add_argument('--report', type=pathlib.Path)
  options = parser.parse_args(arguments)
  report = None
  try:
    if options.report:
      report = report_lib.Report.read(options.report)
      if not report.id:
        raise votes_lib.VotesError(f'{options.report} has nothing to vote on')
    name, votes = votes_lib.read(options.votes, report and report.id)
    if report:
      check(votes, report)
    if not votes:
      raise votes_lib.VotesError('there are no votes')
    results = tables(votes)
  except (votes_lib.VotesError, OSError) as error:
    sys.exit(f'listen: {error}')
  for section, (rows, caption) in results.items():
    print(f'{section} (report {name})')
    lines = [COLUMNS] + [
        (arm, strength.format(2), *map(str, counts))
        for arm, strength, *counts in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
      cells = zip(line, widths, strict=True)
      print('  ' + '  '.join(f'{cell:<{width}}' for cell, width in cells))
    print(f'  {caption}')
    if report:
      report.clear(SECTION + section)
      report.add_table(SECTION + section, COLUMNS, rows, caption)
  if report:
    report.write(options.report.with_suffix('.html'))


if __name__ == '__main__':
  main(sys.argv[1:])
