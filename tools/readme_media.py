"""The README's picture and sounds, from a quickstart's report.

  python tools/readme_media.py --workdir=runs/quickstart --out=docs/media

Writes report.png, the first screen of the report in a headless Chromium, and
three Ogg Opus files: a held-out sentence (original.ogg), the same through the
codec (codec.ogg), and a prompt continued by the language model
(continuation.ogg). Together they stay under 300 kB.
"""

import argparse
import base64
import io
import json
import pathlib
import shutil
import subprocess
import sys

import PIL.Image
import soundfile

_SIZE = 1000, 1240  # of the window, in pixels
_COLOURS = 48
_BROWSERS = 'chromium', 'chromium-browser', 'google-chrome'
_MOST_BYTES = 300_000


def sounds(report: dict) -> dict[str, bytes]:
  """File name -> Ogg Opus, of a report's data (report.json).

  Raises:
    LookupError: if it has no sounds of a codec and a language model.
  """
  audio = [
      (section['title'], block['clips'])
      for section in report['sections']
      for block in section['blocks']
      if block['kind'] == 'audio'
  ]
  codec = next((c for t, c in audio if t.endswith('the codec')), None)
  lm = next((c for t, c in audio if t.endswith('the language model')), None)
  if codec is None or lm is None:
    raise LookupError('the report has no sounds of a codec and a model')
  return {
      'original.ogg': _opus(codec[0]['audio']),
      'codec.ogg': _opus(codec[1]['audio']),
      'continuation.ogg': _opus(lm[0]['audio']),
  }


def _opus(uri: str) -> bytes:
  """A data: URI of FLAC as Ogg Opus."""
  flac = io.BytesIO(base64.b64decode(uri.partition(',')[2]))
  samples, rate = soundfile.read(flac)
  ogg = io.BytesIO()
  soundfile.write(ogg, samples, rate, format='OGG', subtype='OPUS')
  return ogg.getvalue()


def screenshot(page: pathlib.Path, out: pathlib.Path) -> None:
  """A picture of a page's first screen, in few colours.

  Raises:
    FileNotFoundError: if there is no Chromium.
  """
  browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
  if browser is None:
    raise FileNotFoundError(f'none of {", ".join(_BROWSERS)} is installed')
  subprocess.run(
      [
          browser,
          '--headless',
          '--no-sandbox',
          '--hide-scrollbars',
          f'--window-size={_SIZE[0]},{_SIZE[1]}',
          f'--screenshot={out.absolute()}',
          page.absolute().as_uri(),
      ],
      check=True,
      capture_output=True,
  )
  picture = PIL.Image.open(out).convert('RGB')
  picture.quantize(_COLOURS).save(out, optimize=True)


def main(arguments: list[str]) -> None:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  options = parser.parse_args(arguments)
  page = options.workdir / 'report.html'
  if not page.exists():
    sys.exit(f'readme_media: no {page}: run tools/quickstart.py first.')
  report = json.loads(page.with_suffix('.json').read_text())
  options.out.mkdir(parents=True, exist_ok=True)
  try:
    for name, data in sounds(report).items():
      (options.out / name).write_bytes(data)
    screenshot(page, options.out / 'report.png')
  except (LookupError, FileNotFoundError) as error:
    sys.exit(f'readme_media: {error}')
  sizes = {p.name: p.stat().st_size for p in sorted(options.out.iterdir())}
  print(', '.join(f'{name} {size} bytes' for name, size in sizes.items()))
  if sum(sizes.values()) > _MOST_BYTES:
    sys.exit(f'readme_media: {sum(sizes.values())} bytes > {_MOST_BYTES}')


if __name__ == '__main__':
  main(sys.argv[1:])
