"""Text normalisation, absent packages, and the judges where installed."""

import importlib.util

import numpy as np
import pytest

from audiolm_jax.evaluation import judges as judges_lib


@pytest.mark.parametrize(
    'text, expected',
    [
        ("Don't press 1, press 2!", "don't press one press two"),
        ('Écoutez: déjà-vu', 'ecoutez deja vu'),
        (
            'you have 21 new/old messages',
            'you have two one new old messages',
        ),
        ('1,204 users', 'one two zero four users'),
        ('the 3rd and 20th', 'the third and twentieth'),
        ('extension 007', 'extension zero zero seven'),
        ("'quoted' [a beep] (laughs) *bell* ok", 'quoted ok'),
        ('50% off & more #', 'five zero percent off and more pound'),
        ('  ... ', ''),
        ('1000000', 'one zero zero zero zero zero zero'),
        ('it’s 110', "it's one one zero"),
    ],
)
def test_normalize(text, expected):
  assert judges_lib.normalize(text) == expected


@pytest.mark.parametrize(
    'texts',
    [
        ('792', 'seven nine two', 'Seven hundred ninety-two', '7 9 2'),
        ('seven hundred and ninety two', '792'),
        ('1995', 'nineteen ninety five', 'nineteen hundred ninety-five'),
        ('2,005', 'two thousand five', 'two thousand and five', '20 05'),
        ('5:20', 'five twenty'),
        ('110000', 'one hundred ten thousand', 'one hundred and ten thousand'),
        ('21st', 'twenty-first'),
        ('555-0100', '5550100', 'five five five zero one zero zero'),
        ('press 10', 'press ten'),
    ],
)
def test_figures_are_what_they_are_read_as(texts):
  """A recogniser writes figures for what a speaker says digit by digit."""
  assert len(set(map(judges_lib.normalize, texts))) == 1


@pytest.mark.parametrize(
    'text',
    [
        "The 1,204th caller's e-mail: 50% of (what?) 12 o'clock",
        'a hundred thousand and one, hundred and two, zero hundred',
        'ten thousand thousand, twenty and ten and',
    ],
)
def test_normalize_is_idempotent(text):
  once = judges_lib.normalize(text)
  assert judges_lib.normalize(once) == once


def test_numbers_of_nothing_are_words():
  for text in ('a hundred and one', 'thousand', 'and', 'zero hundred'):
    assert judges_lib.normalize(text) == text


@pytest.mark.parametrize('name', ['pesq', 'stoi', 'wer'])
def test_an_absent_package_names_the_command(name, monkeypatch):
  real = importlib.util.find_spec
  absent = judges_lib.JUDGES[name].packages
  monkeypatch.setattr(
      importlib.util,
      'find_spec',
      lambda package: None if package in absent else real(package),
  )
  with pytest.raises(judges_lib.MissingJudge) as error:
    judges_lib.JUDGES[name]()
  assert judges_lib.INSTALL in str(error.value)
  assert all(package in str(error.value) for package in absent)
  assert judges_lib.missing((name,)) == {name: judges_lib.INSTALL}


def test_the_command_installs_what_the_judges_import():
  with open('setup.py') as file:
    text = file.read()
  extra = text[text.index('EVAL = [') : text.index(']', text.index('EVAL'))]
  for judge in judges_lib.JUDGES.values():
    for package in judge.packages:
      assert package.replace('_', '-') in extra
  assert "'torch" not in extra


def _speechlike(seconds=2.0, rate=16000):
  """A buzz with moving formants and syllables: enough for PESQ and STOI."""
  rng = np.random.default_rng(0)
  time = np.arange(int(seconds * rate)) / rate
  buzz = np.sign(np.sin(2 * np.pi * 120 * time)) + 0.1 * rng.standard_normal(
      time.size
  )
  syllables = np.clip(np.sin(2 * np.pi * 2.5 * time), 0, 1)
  return (0.3 * buzz * syllables).astype(np.float32)


# These two need the [eval] extra.
@pytest.mark.slow
def test_pesq_and_stoi_prefer_the_better_reconstruction():
  clean = _speechlike()
  noise = np.random.default_rng(1).standard_normal(clean.size)
  for name, best in (('pesq', 4.64), ('stoi', 1.0)):
    judge = judges_lib.JUDGES[name]()
    scores = [
        judge(judges_lib.Clip(clean, clean + level * noise, 16000))[name][0]
        for level in (0.0, 0.01, 0.3)
    ]
    assert scores[0] == pytest.approx(best, abs=0.01)
    assert scores[0] > scores[1] > scores[2]
    # A clip too short to be judged has no score rather than a made-up one.
    short = judges_lib.Clip(clean[:800], clean[:800], 16000)
    assert judge(short) == {}


@pytest.mark.slow
def test_wer_counts_the_originals_errors_too():
  judge = judges_lib.Wer()
  silence = np.zeros(16000, np.float32)
  scores = judge(judges_lib.Clip(silence, silence, 16000, 'three little words'))
  assert set(scores) == {'wer', 'wer_original'}
  assert scores['wer'] == scores['wer_original']
  assert scores['wer'][1] == 3 and scores['wer'][0] >= 3
  assert judge(judges_lib.Clip(silence, silence, 16000, '(beep)')) == {}
