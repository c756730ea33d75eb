"""A page in a headless Chromium, spoken to over pipes: nothing to install."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')


class Page:
  """An open page; `errors` are its uncaught errors."""

  def __init__(self, out, back, url):
    self._out, self._back, self._next = out, back, 0
    self.errors = []
    target = self._send('Target.createTarget', url='about:blank')['targetId']
    self._session = None
    attached = self._send(
        'Target.attachToTarget', targetId=target, flatten=True
    )
    self._session = attached['sessionId']
    self._send('Runtime.enable')
    self._send('Page.enable')
    self._send('Page.navigate', url=url)
    self.until('document.readyState == "complete"')

  def run(self, script: str):
    """The value of an expression (JSON)."""
    result = self._send(
        'Runtime.evaluate',
        expression=script,
        returnByValue=True,
        awaitPromise=True,
        userGesture=True,
    )
    if 'exceptionDetails' in result:
      raise RuntimeError(result['exceptionDetails'])
    return result['result'].get('value')

  def until(self, script: str, seconds: float = 30):
    """Waits until an expression is true, also across a reload."""
    end = time.monotonic() + seconds
    last = None
    while last is not True:
      assert time.monotonic() < end, f'never true: {script}; {last}'
      time.sleep(0.05)
      try:
        last = self.run(f'Boolean({script})')
      except RuntimeError as error:  # The page is being replaced.
        last = error

  def press(self, key: str):
    """A key that a person presses: it goes where the focus is."""
    for kind in ('keyDown', 'keyUp'):
      text = {'text': key} if kind == 'keyDown' and len(key) == 1 else {}
      self._send('Input.dispatchKeyEvent', type=kind, key=key, **text)

  def reload(self):
    self.run('window.isOld = true')
    self._send('Page.reload')
    self.until('!window.isOld && document.readyState == "complete"')

  def download_to(self, folder: pathlib.Path):
    session, self._session = self._session, None
    self._send(
        'Browser.setDownloadBehavior',
        behavior='allow',
        downloadPath=str(folder),
    )
    self._session = session

  def _send(self, method, **params):
    self._next += 1
    message = {'id': self._next, 'method': method, 'params': params}
    if getattr(self, '_session', None):
      message['sessionId'] = self._session
    self._out.write(json.dumps(message).encode() + b'\0')
    self._out.flush()
    while True:
      text = b''
      while not text.endswith(b'\0'):
        byte = self._back.read(1)
        assert byte, 'the browser is gone'
        text += byte
      reply = json.loads(text[:-1])
      if reply.get('method') == 'Runtime.exceptionThrown':
        self.errors.append(reply['params']['exceptionDetails'])
      if reply.get('id') == self._next:
        if 'error' in reply:
          raise RuntimeError(reply)
        return reply['result']


@contextlib.contextmanager
def opened(path: pathlib.Path):
  """The page of a file, closed at the end."""
  to_browser, from_us = os.pipe()
  to_us, from_browser = os.pipe()
  command = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser} >/dev/null 2>&1'
  with tempfile.TemporaryDirectory() as profile:
    process = subprocess.Popen(
        [
            'bash',
            '-c',
            command,
            CHROMIUM,
            '--headless',
            '--no-sandbox',
            '--disable-gpu',
            '--remote-debugging-pipe',
            '--autoplay-policy=no-user-gesture-required',
            f'--user-data-dir={profile}',
            'about:blank',
        ],
        pass_fds=[to_browser, from_browser],
    )
    os.close(to_browser)
    os.close(from_browser)
    with os.fdopen(from_us, 'wb') as out, os.fdopen(to_us, 'rb') as back:
      try:
        yield Page(out, back, path.absolute().as_uri())
      finally:
        process.terminate()
        process.wait(20)
