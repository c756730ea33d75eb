"""A hub on this machine: what huggingface_hub asks of one, from folders."""

from collections.abc import Iterator
import contextlib
import hashlib
from http import server
import json
import pathlib
import threading
import urllib.parse

COMMIT = 'c0ffee' + '0' * 34


class _Handler(server.BaseHTTPRequestHandler):

  def do_GET(self):
    self._answer(*self._found())

  def do_HEAD(self):
    self._answer(*self._found(), body=False)

  def log_message(self, *args):
    pass

  def _answer(self, status, headers, data, body=True):
    self.send_response(status)
    headers = {'Content-Length': len(data), 'X-Repo-Commit': COMMIT, **headers}
    for name, value in headers.items():
      self.send_header(name, str(value))
    self.end_headers()
    if body:
      self.wfile.write(data)

  def _found(self):
    """(status, headers, body) of a path."""
    self.server.asked.append(self.path)
    parts = urllib.parse.urlparse(self.path).path.strip('/').split('/')
    api = parts[:2] == ['api', 'models']
    organisation, name, what, revision, *rest = [*parts[2 * api :], *[''] * 4]
    folder = self.server.root / organisation / name
    if not name or not folder.is_dir():
      return 404, {'X-Error-Code': 'RepoNotFound'}, b''
    if revision not in ('main', 'v1', COMMIT):
      return 404, {'X-Error-Code': 'RevisionNotFound'}, b''
    files = sorted(p for p in folder.rglob('*') if p.is_file())
    names = [p.relative_to(folder).as_posix() for p in files]
    if api and what == 'revision':
      siblings = [{'rfilename': n} for n in names]
      facts = {'id': f'{organisation}/{name}', 'sha': COMMIT}
      return 200, {}, json.dumps({**facts, 'siblings': siblings}).encode()
    if api and what == 'tree':
      listed = [
          {'type': 'file', 'path': n, 'size': p.stat().st_size, 'oid': n}
          for n, p in zip(names, files, strict=True)
      ]
      return 200, {}, json.dumps(listed).encode()
    path = '/'.join(part for part in rest if part)
    if what == 'resolve' and path in names:
      data = (folder / path).read_bytes()
      etag = hashlib.sha256(data).hexdigest()
      return 200, {'ETag': f'"{etag}"'}, data
    return 404, {'X-Error-Code': 'EntryNotFound'}, b''


@contextlib.contextmanager
def serving(root: pathlib.Path) -> Iterator[server.ThreadingHTTPServer]:
  """Serves root/ORGANISATION/NAME; `asked` of the server lists paths."""
  hub = server.ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
  hub.root, hub.asked = root, []
  threading.Thread(target=hub.serve_forever, daemon=True).start()
  try:
    yield hub
  finally:
    hub.shutdown()
    hub.server_close()
