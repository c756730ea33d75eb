"""A person's own folder: what it may look like, and what is said of it."""

import os

import numpy as np
import pytest
import soundfile

from audiolm_jax.audio import files
from audiolm_jax.data import building
from audiolm_jax.data import corpora
from audiolm_jax.data import splits

RATE = 8000


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
  monkeypatch.setenv('AUDIOLM_JAX_CACHE', str(tmp_path / 'cache'))


def noise(seconds=0.5, seed=0, rate=RATE):
  """Half a second that is good enough for a corpus."""
  shape = (round(seconds * rate), 1)
  return np.random.default_rng(seed).uniform(-0.3, 0.3, shape)


@pytest.fixture(name='root')
def _root(tmp_path):
  """Six good clips."""
  root = tmp_path / 'my own'
  for i in range(6):
    files.write(root / f'c{i}.wav', noise(seed=i), RATE)
  return root


def _clips(root, split):
  corpus = corpora.load_corpus(str(root), split)
  return [corpus[i] for i in range(len(corpus))]


def _all(root):
  """id -> clip of all splits."""
  (card,) = corpora.card(str(root))
  return {c['id']: c for split in card.totals for c in _clips(root, split)}


def _build(root):
  """(ids of the clips, what was left out: id -> reason)."""
  (card,) = corpora.prepare(str(root))
  return set(_all(root)), {r['id']: r['reason'] for r in card.rejected}


GOOD = {f'c{i}.wav' for i in range(6)}


def test_what_cannot_be_used_is_left_out_and_named(root):
  good = root / 'c0.wav'
  os.mkfifo(root / 'pipe.wav')
  (root / 'dangling.wav').symlink_to(root / 'nowhere.wav')
  (root / 'loop.wav').symlink_to(root / 'loop.wav')
  (root / 'folder.wav').mkdir()
  (root / 'empty.wav').touch()
  (root / 'two.wav').write_bytes(b'\0\1')
  (root / 'text.flac').write_text('not audio')
  (root / '._c1.wav').write_bytes(b'what macOS leaves behind')
  (root / '.hidden').mkdir()
  (root / '.hidden/h.wav').write_bytes(good.read_bytes())
  odd = os.fsencode(root) + b'/caf\xe9.wav'
  with open(odd, 'wb') as file:
    file.write(good.read_bytes())
  (root / 'aside').symlink_to(root.parent)
  for name, content in {
      'latin': 'café'.encode('latin-1'),
      'binary': b'\0\1\2',
      'long': b'x' * (2**20 + 1),
  }.items():
    (root / f'{name}.wav').write_bytes(good.read_bytes())
    (root / f'{name}.txt').write_bytes(content)
  (root / 'beside.wav').write_bytes(good.read_bytes())
  (root / 'beside.txt').mkdir()
  (root / 'waits.wav').write_bytes(good.read_bytes())
  os.mkfifo(root / 'waits.txt')
  # These are good, though they look odd.
  for name in ('UPPER.WAV', 'it\'s a "name".wav', 'new\nline.wav', 'é.wav'):
    (root / name).write_bytes(good.read_bytes())
  (root / 'UPPER.TXT').write_text('\ufeffHi there')
  (root / 'link.wav').symlink_to(good)
  found, left_out = _build(root)
  assert found == GOOD | {
      'UPPER.WAV',
      'it\'s a "name".wav',
      'new\nline.wav',
      'é.wav',
      'link.wav',
  }
  assert _all(root)['UPPER.WAV']['text'] == 'Hi there'
  for name, reason in {
      'pipe.wav': 'not a file',
      'dangling.wav': 'No such file',
      'loop.wav': 'symbolic links',
      'folder.wav': 'folder',
      'empty.wav': 'empty',
      'two.wav': 'decoded',
      'text.flac': 'decoded|empty|rate',
      '._c1.wav': 'hidden',
      '.hidden/h.wav': 'hidden',
      'caf\\udce9.wav': 'UTF-8',
      'aside': 'link to a folder',
      'latin.wav': 'latin.txt.*line 1.*UTF-8',
      'binary.wav': 'binary.txt.*zero byte',
      'long.wav': 'long.txt.*1048577 bytes',
      'beside.wav': 'beside.txt.*not a file',
      'waits.wav': 'waits.txt.*not a file',
  }.items():
    with pytest.raises(AssertionError, match=reason):
      raise AssertionError(left_out.pop(name))
  assert not left_out
  (card,) = corpora.card(str(root))
  assert '\\n' not in str(card) and 'caf\\udce9.wav' in str(card)


@pytest.mark.parametrize(
    'content, message',
    [
        ('file,text\nc1.wav,café\n'.encode('latin-1'), 'line 2.*UTF-8'),
        (b'\x89PNG\r\n\x1a\n', 'line 1.*UTF-8'),
        (b'file,text\nc1.wav,a\0b\n', 'line 2.*zero byte'),
        (b'file,text\nc1.wav,' + b'x' * 140000, 'line 2.*131072'),
        (b'path,text\nc1.wav,hi\n', "no column 'file'.*'path'"),
        (b'file,text,text\nc1.wav,hi,ho\n', "'text' twice"),
        (b'file,split\nc1.wav,dev\n', "line 2.*split 'dev'.*validation"),
        (b'file,text\nc1.wav,one, two\n', 'line 2.*3 cells.*2'),
        (b'file,text\nc1.wav,"one\nc2.wav,two\n', 'line 2.*quote'),
        (b'file,text\nc1.wav,"one\nc2.wav,"two"\n', 'line 2.*quote'),
    ],
)
def test_a_table_that_cannot_be_read_ends_it(root, content, message):
  (root / 'metadata.csv').write_bytes(content)
  with pytest.raises(corpora.CorpusError, match=message) as error:
    corpora.prepare(str(root))
  assert 'metadata.csv' in str(error.value)


def test_a_table_that_is_no_file_ends_it(root):
  (root / 'metadata.csv').mkdir()
  with pytest.raises(corpora.CorpusError, match='metadata.csv.*not a file'):
    corpora.prepare(str(root))


def test_metadata_that_does_nothing_is_said(root):
  (root / 'c5.txt').write_text('from beside')
  (root / 'metadata.csv').write_text(
      'file,text,transcript,language\n'
      'c0.wav,zero,x,en\n'
      '.\\c1.wav,one,x,en\n'
      'c2.wav,two,x\n'
      'c0.wav,null,x,en\n'
      'c5.wav,five,x,en\n'
      ',nobody,x,en\n'
  )
  (root / 'metadata.tsv').write_text('file\ttext\nc1.wav\tone\n')
  found, left_out = _build(root)
  assert found == GOOD
  clips = _all(root)
  assert [clips[f'c{i}.wav']['text'] for i in (0, 1, 2, 5)] == [
      'zero',
      '',
      'two',
      'five',
  ]
  assert left_out.keys() == {
      "metadata.csv column 'transcript'",
      'metadata.csv line 3',
      'metadata.csv line 5',
      'metadata.csv line 7',
      'metadata.tsv',
      'c5.txt',
  }
  assert "mean 'c1.wav'" in left_out['metadata.csv line 3']
  assert 'line 2' in left_out['metadata.csv line 5']
  with pytest.raises(building.RejectedClipError, match='metadata'):
    (root / 'new.wav').write_bytes((root / 'c0.wav').read_bytes())
    corpora.prepare(str(root), strict=True)


def test_names_are_compared_as_people_see_them(root):
  """macOS decomposes letters in file names; tables are typed."""
  (root / 'cafe\u0301.wav').write_bytes((root / 'c0.wav').read_bytes())
  (root / 'metadata.csv').write_text('file,text\n./caf\u00e9.wav,hello\n')
  _, left_out = _build(root)
  assert not left_out
  assert _all(root)['cafe\u0301.wav']['text'] == 'hello'


@pytest.mark.parametrize('what', ['bad audio', 'bad transcript'])
def test_the_only_clip_of_a_split_may_be_bad(root, what):
  bad = root / 'validation/bad.wav'
  bad.parent.mkdir()
  if what == 'bad audio':
    bad.write_bytes(b'\0\1')
  else:
    bad.write_bytes((root / 'c0.wav').read_bytes())
    bad.with_suffix('.txt').write_bytes(b'\xff')
  (root / 'test').mkdir()
  for i in range(6):
    where = root / ('test' if i == 5 else 'train')
    where.mkdir(exist_ok=True)
    (root / f'c{i}.wav').rename(where / f'c{i}.wav')
  (card,) = corpora.prepare(str(root))
  assert card.totals.keys() == {'train', 'test'}
  assert 'validation/bad.wav' in str(card)
  with pytest.raises(corpora.CorpusError, match="no split 'validation'"):
    corpora.load_corpus(str(root), 'validation')


def test_nothing_usable_is_an_error_that_says_why(tmp_path):
  root = tmp_path / 'empty'
  root.mkdir()
  with pytest.raises(corpora.CorpusError, match=r'no usable clip.*\.wav'):
    corpora.prepare(str(root))
  (root / 'a.wav').write_bytes(b'text')
  with pytest.raises(corpora.CorpusError, match='(?s)no usable.*a.wav: '):
    corpora.prepare(str(root))


@pytest.mark.parametrize('change', ['text', 'audio', 'table', 'mended'])
def test_a_changed_folder_is_a_changed_corpus(root, change):
  (root / 'c1.txt').write_text('old text')
  (root / 'metadata.csv').write_text('file,speaker\nc1.wav,ann\n')
  (root / 'later.wav').symlink_to(root.parent / 'nothing yet.wav')
  _build(root)
  before = _all(root)
  stat = (root / 'c1.wav').stat()
  match change:
    case 'text':
      (root / 'c1.txt').write_text('new text')
    case 'audio':
      files.write(root / 'c1.wav', noise(seed=9), RATE)
      assert (root / 'c1.wav').stat().st_size == stat.st_size
    case 'table':
      (root / 'metadata.csv').write_text('file,speaker\nc1.wav,bob\n')
    case 'mended':
      (root.parent / 'nothing yet.wav').write_bytes(
          (root / 'c0.wav').read_bytes()
      )
  with pytest.raises(corpora.CorpusError, match='not built'):
    corpora.load_corpus(str(root), 'train')
  _build(root)
  after = _all(root)
  if change == 'mended':
    assert 'later.wav' in after
  else:
    name = {'table': 'speaker'}.get(change, change)
    assert not np.array_equal(before['c1.wav'][name], after['c1.wav'][name])


@pytest.mark.parametrize('count', [1, 2, 3, 5])
def test_folders_of_few_files_have_all_splits(tmp_path, count):
  root = tmp_path / 'few'
  for i in range(count):
    files.write(root / f'{i}.wav', noise(6.0, seed=i), RATE)
  (card,) = corpora.prepare(str(root))
  assert list(card.totals) == list(splits.SPLITS)
  total = sum(t['seconds'] for t in card.totals.values())
  assert total == pytest.approx(6.0 * count)
  assert card.totals['train']['seconds'] >= total / 2
  assert card.totals['test']['seconds'] >= 1


def test_a_bad_file_does_not_cost_a_split(tmp_path):
  """Which of a few files are held out is settled after they were read."""
  root = tmp_path / 'few'
  for i in range(12):
    files.write(root / f'{i}.wav', noise(seed=i), RATE)
  for i in range(9):
    (root / f'{i}.wav').write_bytes(b'bad')
  (card,) = corpora.prepare(str(root))
  assert {s: t['clips'] for s, t in card.totals.items()} == dict.fromkeys(
      splits.SPLITS, 1
  )


def test_long_recordings_become_clips(tmp_path):
  root = tmp_path / 'long'
  long = noise(90.0)
  soundfile_path = root / 'talk.flac'
  root.mkdir()
  soundfile.write(soundfile_path, long, RATE)
  for i in range(3):
    files.write(root / f'short{i}.wav', noise(30.0, seed=i + 1), RATE)
  (root / 'talk.txt').write_text('all that is said in 90 seconds')
  (root / 'short0.txt').write_text('what is said in 30')
  (card,) = corpora.prepare(str(root))
  clips = _all(root)
  assert {n for n in clips if 'short' in n} == {
      f'short{i}.wav' for i in range(3)
  }
  assert clips['short0.wav']['text'] == 'what is said in 30'
  pieces = sorted(n for n in clips if 'talk' in n)
  assert len(pieces) == 5
  # One recording is in one split, and nothing of it is lost.
  starts = {n: float(n.split('@')[1].split('-')[0]) for n in pieces}
  whole = np.concatenate(
      [clips[n]['audio'] for n in sorted(pieces, key=starts.get)]
  )
  np.testing.assert_allclose(whole, long, atol=1 / 32768)
  where = [s for s in card.totals for c in _clips(root, s) if 'talk' in c['id']]
  assert len(set(where)) == 1
  # Its transcript is of none of the clips.
  assert not any(clips[n]['text'] for n in pieces)
  assert {r['id'] for r in card.rejected} == {'the transcript of talk.flac'}


def test_one_long_recording_is_a_corpus(tmp_path):
  root = tmp_path / 'one'
  files.write(root / 'talk.wav', noise(200.0), RATE)
  (card,) = corpora.prepare(str(root))
  seconds = {s: t['seconds'] for s, t in card.totals.items()}
  assert seconds == pytest.approx(
      {'train': 160.0, 'validation': 20.0, 'test': 20.0}
  )
  clips = _all(root)
  assert max(len(c['audio']) for c in clips.values()) <= 20 * RATE
  # What is held out is the end, so that no clip has neighbours on both sides.
  assert {c['id'] for c in _clips(root, 'test')} == {'talk.wav@180.0-200.0s'}


def test_unknown_names_are_told_what_there_is(root):
  for languages in (None, ('en',)):
    with pytest.raises(
        corpora.CorpusError, match="no corpus.*'typo'.*asterisk_prompts"
    ):
      corpora.load_corpus('typo', 'train', languages)
  with pytest.raises(corpora.CorpusError, match=r'languages.*\(\)'):
    corpora.load_corpus(str(root), 'train', ('en',))
  # None of these is looked for by a name of the catalogue, or on a network.
  for name in ('/no/such', '../x', 'my wavs', 'x/', 'a=b', 'hf:x', '$%', ''):
    with pytest.raises(corpora.CorpusError, match='no corpus'):
      corpora.load_corpus(name, 'train', ('en',))
  for name in ('caf\udce9', 'a\0b', 'x' * 5000, '~nobody/x'):
    with pytest.raises(corpora.CorpusError, match='no corpus'):
      corpora.load_corpus(name, 'train')
  with pytest.raises(corpora.CorpusError, match='a file, not a folder'):
    corpora.load_corpus(str(root / 'c0.wav'), 'train')


def test_what_is_cut_off_is_left_out_unless_it_is_long(root):
  files.write(root / 'talk.wav', noise(60.0), RATE)
  for name in ('c0.wav', 'talk.wav'):
    data = (root / name).read_bytes()
    (root / name).write_bytes(data[: len(data) * 5 // 6])
  found, left_out = _build(root)
  assert 'ends after 0.42 of 0.50 s' in left_out['c0.wav']
  files_found = {name.split('@')[0] for name in found}
  assert files_found == GOOD - {'c0.wav'} | {'talk.wav'}
  # An hour whose recorder stopped is not thrown away.
  talk = sum(
      len(c['audio']) for n, c in _all(root).items() if n.startswith('talk')
  )
  assert talk / RATE == pytest.approx(50.0, abs=0.01)
  (root / 'c0.wav').unlink()
  with pytest.raises(building.RejectedClipError, match='talk.wav.*ends after'):
    corpora.prepare(str(root), strict=True)
