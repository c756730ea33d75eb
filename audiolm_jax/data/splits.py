"""Splits that no sentence crosses."""

from collections.abc import Mapping, Sequence
import hashlib
import re

SPLITS = ('train', 'validation', 'test')

_FRACTIONS = {'test': 0.1, 'validation': 0.1}
# Of fewer files, some are held out whatever their hash.
FEW = 100
# A file of more of all audio is not held out, if there is another way.
_MOST_HELD = 0.25


def assign(
    texts: Mapping[str, Sequence[str]], fractions: Mapping[str, float]
) -> dict[str, str]:
  """The split of each prompt, by a hash of the prompts that belong together.

  The result depends on nothing but the arguments.

  Args:
    texts: prompt id -> its texts in all languages; empty ones are ignored.
    fractions: split -> its share of the prompts, 'validation' and 'test'; the
      rest is 'train'.

  Returns:
    prompt id -> split.
  """
  return {
      prompt: _split(group, fractions)
      for prompt, group in groups(texts).items()
  }


def of_files(
    seconds: Mapping[str, float],
    texts: Mapping[str, str],
    explicit: Mapping[str, str],
    divisible: bool = False,
) -> dict[str, str]:
  """The split of each file of a folder.

  That is the one that is said, or the folder train/, validation/ or test/ that
  it is in. If there are neither, a hash of what is said (or of the file's name)
  decides. Of fewer than 100 files the first by that hash are held out, at least
  a tenth of all audio for each split.

  Args:
    seconds: file -> its length.
    texts: file -> what is said in it, '' if that is not known.
    explicit: file -> its split, '' where none is said.
    divisible: whether one that is longer than a quarter of all audio (and has
      no text) is better divided than held out.

  Returns:
    file -> split; {} where whole files can't be held out so.
  """
  chosen = {}
  for name in seconds:
    top = name.split('/')[0]
    if split := explicit.get(name) or (top if top in SPLITS else ''):
      chosen[name] = split
  together = groups({name: [texts[name]] for name in seconds})
  hashed = assign({group: [] for group in together.values()}, _FRACTIONS)
  if not chosen and len(hashed) < FEW:
    lengths = dict.fromkeys(hashed, 0.0)
    for name in seconds:
      lengths[together[name]] += seconds[name]
    hashed = _held_out(lengths, _MOST_HELD)
    # What is short or has a text is better not cut.
    if (
        not divisible
        or min(lengths.values(), default=0) < 4
        or any(texts.values())
    ):
      hashed = hashed or _held_out(lengths, 0.5)
    if not hashed:
      return {}
  return {
      name: chosen.get(name) or hashed.get(together[name], 'train')
      for name in seconds
  }


def groups(texts: Mapping[str, Sequence[str]]) -> dict[str, str]:
  """prompt id -> the least id of those that must be in one split with it.

  Prompts that share a text (in any language; case and punctuation apart) belong
  together, and so on along the chain.

  Args:
    texts: prompt id -> its texts in all languages; empty ones are ignored.
  """
  parent = {prompt: prompt for prompt in texts}

  def root(prompt):
    while parent[prompt] != prompt:
      prompt = parent[prompt]
    return prompt

  first_with: dict[str, str] = {}
  for prompt in sorted(texts):
    for text in texts[prompt]:
      key = normalize(text)
      if key:
        a, b = root(prompt), root(first_with.setdefault(key, prompt))
        # The least id names the group, whatever the order of merging.
        parent[max(a, b)] = min(a, b)
  return {prompt: root(prompt) for prompt in texts}


def position(key: str) -> float:
  """A number in [0, 1) that looks random and is always the same."""
  digest = hashlib.sha256(key.encode()).digest()
  return int.from_bytes(digest[:8], 'big') / 2**64


def normalize(text: str) -> str:
  """Words in lower case, one space apart: equal for what is said alike."""
  return ' '.join(re.findall(r'\w+', text.lower()))


def _split(key: str, fractions: Mapping[str, float]) -> str:
  left = position(key)
  for name, fraction in sorted(fractions.items()):
    if left < fraction:
      return name
    left -= fraction
  return 'train'


def _held_out(seconds: Mapping[str, float], most: float) -> dict[str, str]:
  """group -> 'test' or 'validation'; {} if groups are too few or too long.

  None of more than `most` of all audio is held out.
  """
  total, chosen = sum(seconds.values()), {}
  order = sorted(seconds, key=position)
  for split, fraction in _FRACTIONS.items():
    held = 0.0
    for group in order:
      if held >= fraction * total:
        break
      if group not in chosen and seconds[group] <= most * total:
        chosen[group] = split
        held += seconds[group]
    if held < fraction * total:
      return {}
  return chosen
