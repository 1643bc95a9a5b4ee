"""A browser without a window, driven by the DevTools protocol through two pipes."""

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ('chromium', 'chromium-browser', 'google-chrome')
PATH = next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page; what its scripts throw is in ``errors``.

    Args:
        profile: an empty folder for the browser's own files.
        size: (w, h) of the page in pixels.
    """

    def __init__(self, profile: Path, size: tuple[int, int] = (1200, 900)) -> None:
        requests, self._to = os.pipe()
        self._from, answers = os.pipe()
        flags = (
            '--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run '
            f'--remote-debugging-pipe --window-size={size[0]},{size[1]} --user-data-dir={profile}'
        )
        # The browser reads requests from its file 3 and answers to its file 4.
        shell = f'exec "{PATH}" {flags} about:blank 3<&{requests} 4>&{answers}'
        self._process = subprocess.Popen(
            ['bash', '-c', shell],
            pass_fds=(requests, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(requests)
        os.close(answers)
        self._unread, self._number, self._session = b'', 0, {}
        self.errors: list[str] = []
        target = self('Target.createTarget', url='about:blank')['targetId']
        attached = self('Target.attachToTarget', targetId=target, flatten=True)
        self._session = dict(sessionId=attached['sessionId'])
        self('Runtime.enable')
        self('Page.enable')

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """The browser's answer to a request of the protocol."""
        self._number += 1
        request = dict(id=self._number, method=method, params=params, **self._session)
        os.write(self._to, json.dumps(request).encode() + b'\0')
        while (answer := self._read()).get('id') != self._number:
            if answer.get('method') == 'Runtime.exceptionThrown':
                self.errors.append(json.dumps(answer['params']))
        assert 'error' not in answer, answer
        return answer['result']

    def _read(self) -> dict[str, Any]:
        while b'\0' not in self._unread:
            part = os.read(self._from, 2**20)
            assert part, 'the browser has ended'
            self._unread += part
        message, _, self._unread = self._unread.partition(b'\0')
        return json.loads(message)

    def open(self, path: Path) -> None:
        self('Page.navigate', url=path.resolve().as_uri())
        while self.value('location.protocol + document.readyState') != 'file:complete':
            time.sleep(0.2)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives, as JSON."""
        answer = self('Runtime.evaluate', expression=expression, returnByValue=True)
        assert 'exceptionDetails' not in answer, answer
        return answer['result'].get('value')

    def click(self, selector: str) -> None:
        """Presses and releases the mouse over the middle of an element."""
        box = self.value(f'document.querySelector({selector!r}).getBoundingClientRect().toJSON()')
        place = dict(x=box['x'] + box['width'] / 2, y=box['y'] + box['height'] / 2)
        for kind in ('mousePressed', 'mouseReleased'):
            self('Input.dispatchMouseEvent', type=kind, **place, button='left', clickCount=1)

    def type(self, text: str) -> None:
        self('Input.insertText', text=text)

    def screenshot(self) -> bytes:
        """PNG of what is in sight."""
        return base64.b64decode(self('Page.captureScreenshot', format='png')['data'])

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        os.close(self._to)
        os.close(self._from)
