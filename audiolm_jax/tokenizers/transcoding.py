"""Audio files <-> token files, of any length, and pipes of either."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import math
import os
from typing import Any

from jaxtyping import Float
import numpy as np
import rich.console
from rich import progress

from audiolm_jax import config
from audiolm_jax.audio import checks
from audiolm_jax.audio import files
from audiolm_jax.audio import streams
from audiolm_jax.tokenizers import base as tokenizers_base
from audiolm_jax.tokenizers import encoding
from audiolm_jax.tokenizers import long
from audiolm_jax.tokenizers import token_files


class BitrateError(ValueError):
  """A bitrate that a tokenizer does not have; the message lists what it has."""


@dataclasses.dataclass(frozen=True)
class Source:
  """The tokenizer that a token file comes from.

  Attributes:
    fingerprint: of it and its variables.
    name: where it is, for people.
  """

  fingerprint: str
  name: str = ''


def encode_file(
    coder: long.Coder,
    source: Source,
    path_in: str | os.PathLike,
    path_out: str | os.PathLike,
    *,
    each_channel: bool = False,
    raw: streams.Raw | None = None,
    factors: Mapping[str, str] | None = None,
    show: bool = False,
) -> long.Report:
  """Tokenises an audio file, or stdin ('-'), into a token file or stdout.

  Audio of another rate is resampled; another number of channels is mixed down
  to mono, or copied from mono.

  Args:
    coder: of the tokenizer, with the number of codebooks to keep.
    source: what the file's header says of it.
    path_in: as for `streams.opened`.
    path_out: appears when it is whole.
    each_channel: encode channels apart, as rows of one file.
    raw: of input without a header.
    factors: what is known of the clip, for the file's header.
    show: a progress bar on stderr.

  Raises:
    files.AudioFileError: for audio that can't be read or mixed.
    long.LongFileError: if there is no exact way and no other was allowed.
    config.ConfigError: for `each_channel` with a tokenizer of several channels.
  """
  spec = coder.tokenizer.spec
  if each_channel and spec.channels != 1:
    raise config.ConfigError(
        f'channels apart: this tokenizer takes {spec.channels} at once.'
    )
  with contextlib.ExitStack() as stack:
    stream = stack.enter_context(
        streams.opened(
            path_in,
            rate=spec.sample_rate,
            channels=None if each_channel else spec.channels,
            raw=raw,
        )
    )
    blocks = stream.blocks
    if os.fspath(path_in) != streams.STANDARD_STREAM:
      # A second at a time; the next one is read while one is worked on.
      blocks = stack.enter_context(
          streams.ahead(streams.fixed(blocks, spec.sample_rate))
      )
    bar = _progress(f'encode {path_in}', stream.seconds, show)
    advance = stack.enter_context(bar)
    rows = stream.channels if each_channel else 1
    header = _header(coder, source, rows, factors or {})
    writer = stack.enter_context(token_files.create(path_out, header))
    rows = _rows(blocks, path_in, spec.sample_rate, each_channel, advance)
    return coder.encode(rows, writer.write)


def _header(coder, source, rows, factors) -> token_files.Header:
  return token_files.Header.for_tokenizer(
      coder.tokenizer,
      coder.settings.codebooks,
      fingerprint=source.fingerprint,
      tokenizer=source.name,
      rows=rows,
      factors=dict(factors),
  )


def _rows(
    blocks, path, rate, each_channel, advance
) -> Iterator[Float[np.ndarray, 'R T C']]:
  """Checked blocks [T, C] of a file as rows of a batch."""
  done = 0
  for block in blocks:
    try:
      checks.samples(block, checks.LOUDEST)
    except ValueError as error:
      raise files.AudioFileError(
          f'{path}: after {done / rate:.2f} s: {error}.'
      ) from error
    yield block.T[..., None] if each_channel else block[None]
    done += len(block)
    advance(len(block) / rate)


def decode_file(
    coder: long.Coder,
    source: Source,
    path_in: str | os.PathLike,
    path_out: str | os.PathLike,
    **options: Any,
) -> long.Report:
  """Decodes a token file, or stdin ('-'); see `decode`.

  Raises:
    encoding.TokensError: for a damaged file or another tokenizer's.
    long.LongFileError: if there is no exact way and no other was allowed.
  """
  totals = None
  if os.fspath(path_in) != token_files.STANDARD_STREAM:
    totals = token_files.announced(path_in)
  with token_files.opened(path_in) as reader:
    return decode(
        coder,
        source,
        reader.header,
        reader,
        path_out,
        name=os.fspath(path_in),
        samples=totals and totals[1],
        **options,
    )


def decode(
    coder: long.Coder,
    source: Source,
    header: encoding.Format,
    blocks: Iterable[encoding.Block],
    path_out: str | os.PathLike,
    *,
    name: str,
    samples: int | None = None,
    force: bool = False,
    raw: bool = False,
    show: bool = False,
) -> long.Report:
  """Decodes tokens to a wav or flac file or stdout.

  Args:
    coder: of the tokenizer.
    source: its fingerprint must be that of the tokens.
    header: of the tokens.
    blocks: the tokens.
    path_out: appears when it is whole.
    name: of the tokens, for messages.
    samples: of each row, where known.
    force: decode another tokenizer's tokens, if their shapes fit.
    raw: write samples without a header.
    show: a progress bar on stderr.

  Raises:
    encoding.TokensError: for another tokenizer's tokens.
    long.LongFileError: if there is no exact way and no other was allowed.
  """
  spec = coder.tokenizer.spec
  _check_source(header, source, spec, name, force)
  apart = spec.channels == 1
  if not apart and header.rows != 1:
    raise encoding.TokensError(
        f'{name}: {header.rows} signals of {spec.channels} channels each;'
        ' one file can hold one.'
    )
  with contextlib.ExitStack() as stack:
    seconds = samples and samples / spec.sample_rate
    advance = stack.enter_context(_progress(f'decode {name}', seconds, show))
    channels = header.rows if apart else spec.channels
    writer = stack.enter_context(
        streams.create(
            path_out, spec.sample_rate, channels, samples=samples, raw=raw
        )
    )

    def write(audio: Float[np.ndarray, 'R T C']) -> None:
      if not np.isfinite(audio).all():
        raise encoding.TokensError(
            f'{name}: after {writer.samples / spec.sample_rate:.2f} s it'
            ' sounds like NaN or infinity. The tokenizer is damaged, or its'
            ' latents are far from any that it gives.'
        )
      writer.write(audio[..., 0].T if apart else audio[0])
      advance(audio.shape[1] / spec.sample_rate)

    return coder.decode(blocks, write)


def bitrates(tokenizer: tokenizers_base.Tokenizer) -> dict[int, float]:
  """Codebooks that may be kept -> bits a second; empty for continuous tokens."""
  spec = tokenizer.spec
  if not spec.slots:
    return {}
  bits = np.cumsum([math.log2(v) for v in spec.vocabularies])
  return {
      n: float(spec.frame_rate * bits[n - 1])
      for n in tokenizer.bottleneck.prefixes()
  }


def choose_codebooks(
    tokenizer: tokenizers_base.Tokenizer,
    *,
    kbps: float | None = None,
    codebooks: int | None = None,
) -> int | None:
  """How many codebooks to keep: None for all.

  Args:
    tokenizer: whose.
    kbps: the most that fit into so many kbit/s.
    codebooks: exactly so many.

  Raises:
    BitrateError: if there is no such choice; the message lists all.
  """
  if kbps is None and codebooks is None:
    return None
  rates = bitrates(tokenizer)
  if not rates:
    raise BitrateError('tokens are continuous: there are no bitrates to choose')
  possible = ', '.join(f'{n} ({r / 1000:.4g} kbps)' for n, r in rates.items())
  if kbps is not None and codebooks is not None:
    raise BitrateError('give a bitrate or a number of codebooks, not both')
  if codebooks is not None:
    if codebooks not in rates:
      raise BitrateError(f'{codebooks} codebooks: expected one of {possible}')
    return codebooks
  fitting = [n for n, r in rates.items() if r <= 1000 * kbps * (1 + 1e-6)]
  if not fitting:
    raise BitrateError(
        f'{kbps:g} kbps: less than the least; possible codebooks: {possible}'
    )
  return max(fitting)


def _check_source(header, source, spec, path, force):
  """Refuses tokens that another tokenizer made."""
  made_by = f'{path}: it was made by the tokenizer {header.fingerprint[:12]}'
  if header.tokenizer:
    made_by += f' ({header.tokenizer})'
  if header.fingerprint != source.fingerprint and not force:
    raise encoding.TokensError(
        f'{made_by}, and this is {source.fingerprint[:12]}'
        f' ({source.name or "unnamed"}). Its sound would be another; use that'
        ' tokenizer (or force it).'
    )
  names = ('dimension', 'channels', 'hop', 'segment')
  shapes = [
      {name: getattr(s, name) for name in names}
      | {'vocabularies': s.vocabularies[: header.codebooks]}
      | {'durations': durations}
      for s, durations in ((header.spec, header.durations), (spec, False))
  ]
  differing = [name for name in shapes[0] if shapes[0][name] != shapes[1][name]]
  if differing:
    raise encoding.TokensError(
        f'{made_by}, whose tokens have another shape ({", ".join(differing)}).'
    )
  # Equal fingerprints are of equal specs.
  if header.spec != spec and not force:
    raise encoding.TokensError(
        f'{made_by}, and says of it what is not so: the header is wrong.'
    )


@contextlib.contextmanager
def _progress(text: str, seconds: float | None, show: bool):
  """Yields what takes the seconds of audio done since it was last called."""
  console = rich.console.Console(stderr=True)
  bars = progress.Progress(
      # A file may be named as markup is.
      progress.TextColumn('{task.description}', markup=False),
      progress.BarColumn(),
      progress.TextColumn('{task.completed:.0f} s of audio'),
      progress.TimeRemainingColumn(),
      console=console,
      transient=True,
      # Log files are not a place for bars.
      disable=not show or not console.is_terminal,
  )
  with bars:
    task = bars.add_task(text, total=seconds)
    yield lambda done: bars.advance(task, done)
