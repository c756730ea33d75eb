"""A corpus tokenised into a cache, with any bound tokenizer."""

from collections.abc import Iterator
from concurrent import futures
import math
import os

import jax
import numpy as np
from rich import progress

from audiolm_jax.data import audio_crops
from audiolm_jax.data import cache_header
from audiolm_jax.data import corpora
from audiolm_jax.data import splits
from audiolm_jax.data import token_cache
from audiolm_jax.models import audio_tokenizer
from audiolm_jax.tokenizers import encoding


def fill(
    tokenizer: audio_tokenizer.AudioTokenizer,
    out: str | os.PathLike,
    *,
    corpus: str,
    workdir: str | os.PathLike,
    languages: tuple[str, ...] = (),
    wanted: tuple[str, ...] = splits.SPLITS,
    batch_seconds: float = 32.0,
    limit: int | None = None,
    shard: tuple[int, int] = (0, 1),
) -> float:
  """Writes what is missing of a token cache, and its header if it is whole.

  Args:
    tokenizer: any; scales and latents are kept as codes are.
    out: directory of the cache.
    corpus: name of a built corpus, or a folder.
    workdir: where the tokenizer comes from, for the cache's header.
    languages: which; empty for all.
    wanted: which splits.
    batch_seconds: most audio of a batch, padding included.
    limit: at most so many clips of each split, the first (of the first
      language; the order within one is a fixed shuffle).
    shard: (index, count): this process's share of the parts.

  Returns:
    The seconds of audio that were tokenised now.

  Raises:
    corpora.CorpusError: if the corpus is not there.
    encoding.TokensError: if `out` holds something else.
  """
  _check(wanted, limit, batch_seconds)
  sources = {
      split: corpora.load_corpus(corpus, split, languages) for split in wanted
  }
  writer = token_cache.Writer(
      out,
      cache_header.Identity.for_tokenizer(
          tokenizer.tokenizer,
          fingerprint=tokenizer.fingerprint(),
          tokenizer=os.fspath(workdir),
          aligned=True,
          corpus=corpora.place(corpus),
          languages=languages,
          clips={k: len(range(len(v))[:limit]) for k, v in sources.items()},
          build=next(iter(sources.values())).build,
      ),
  )
  vectors = tokenizer.code_vectors()
  if vectors is not None:
    token_cache.write_codebooks(out, vectors)
  index, count = shard
  todo = [part for part in writer.missing() if part[1] % count == index]
  total = _write(tokenizer, sources, writer, todo, batch_seconds)
  if not writer.finish():
    print(f'{out}: other shares are still to come.')
  return total


def _write(tokenizer, sources, writer, todo, batch_seconds) -> float:
  """Writes parts; returns the seconds of audio in them."""
  total = 0.0
  with progress.Progress() as bars:
    bar = bars.add_task('tokenise', total=sum(len(p[2]) for p in todo))
    for split, part, members in todo:
      examples = {}
      for i, example in _encode(
          tokenizer, sources[split], members, batch_seconds
      ):
        examples[i] = example
        total += example.samples / tokenizer.spec.sample_rate
        bars.advance(bar)
      writer.write(split, part, [examples[i] for i in members])
  return total


def _check(wanted, limit, batch_seconds):
  """Refuses what no cache can be filled with."""
  if not wanted:
    raise corpora.CorpusError(f'splits: give some of {list(splits.SPLITS)}.')
  for name, value in (('limit', limit), ('batch_seconds', batch_seconds)):
    if value is not None and not 0 < value < math.inf:
      raise corpora.CorpusError(f'{name} = {value}: expected more than 0.')


def _encode(
    tokenizer, corpus, members, batch_seconds
) -> Iterator[tuple[int, encoding.Example]]:
  """Yields (clip index, Example) of the clips, as their batches are done."""
  spec = tokenizer.spec
  batches = audio_crops.whole_clips(
      corpus,
      sample_rate=spec.sample_rate,
      channels=spec.channels,
      batch_seconds=batch_seconds,
      indices=np.asarray(members),
  )
  # One thread reads and resamples the next batch while the device works.
  with futures.ThreadPoolExecutor(1) as reader:
    upcoming = reader.submit(next, batches, None)
    while (batch := upcoming.result()) is not None:
      upcoming = reader.submit(next, batches, None)
      tokens = tokenizer.encode(batch['audio'], batch['num_samples'])
      arrays = {
          name: jax.device_get(getattr(tokens, name))
          for name in encoding.ARRAYS
          if getattr(tokens, name) is not None
      }
      for row, (i, samples) in enumerate(
          zip(batch['id'], batch['num_samples'], strict=True)
      ):
        if i >= 0:
          yield int(i), encoding.Example(
              samples=int(samples),
              factors=corpus.factors(int(i)),
              **{
                  name: values[row, : spec.frames(int(samples))]
                  for name, values in arrays.items()
              },
          )
