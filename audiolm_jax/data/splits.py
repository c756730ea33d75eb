"""Splits that no sentence crosses."""

from collections.abc import Mapping, Sequence
import hashlib
import re

SPLITS = ('train', 'validation', 'test')


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
