"""A headless Chromium for tests of pages, over its debugging pipe: no packages, no port.

Protocol: https://chromedevtools.github.io/devtools-protocol/. Messages are JSON, each ended by a zero byte; Chromium
reads them from file descriptor 3 and writes to 4.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

PROGRAM = next((name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), None)
_SWITCHES = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run")
_TIMEOUT_S = 60


class Chromium:
    """A browser with one page. Use it in a `with`.

    requests: the addresses that pages asked for.
    errors: exceptions and messages of the console.
    """

    def __init__(self, profile: Path, switches: Sequence[str] = ()):
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._number, self._left, self._session = 0, b"", None
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # the shell gives the pipes the numbers that Chromium wants
        command = f'exec 7<&{theirs_in} 8>&{theirs_out} && exec "$0" "$@" 3<&7 4>&8'
        self._process = subprocess.Popen(
            ["bash", "-c", command, str(PROGRAM), *_SWITCHES, f"--user-data-dir={profile}", *switches, "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(_TIMEOUT_S)
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, **parameters) -> dict:
        """Call a method of the protocol; its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, address: str) -> None:
        """Open a page."""
        self.call("Page.navigate", url=address)

    def value(self, expression: str):
        """The value of an expression of JavaScript, awaited."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + _TIMEOUT_S
        while not self.value(f"Boolean({expression})"):
            assert time.monotonic() < end, f"{expression}: {self.errors}"
            time.sleep(0.05)

    def choose(self, selector: str, *files: Path) -> None:
        """Choose files in an <input type="file">."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in files])

    def press(self, key: str) -> None:
        """Press a key."""
        code = {"Enter": 13, "ArrowRight": 39}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            parameters = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", **parameters, **(text if kind == "keyDown" else {}))

    def resize(self, width: int, height: int, scale: float = 1, dark: bool = False) -> None:
        """Set the size of the page in CSS pixels, and the colour scheme."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def picture(self, path: Path, kind: str = "png") -> None:
        """Write a picture of what the page shows."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format=kind)["data"]))

    def _read(self) -> dict:
        while b"\0" not in self._left:
            assert select.select([self._in], [], [], _TIMEOUT_S)[0], "Chromium does not answer"
            content = os.read(self._in, 1 << 20)
            assert content, "Chromium ended"
            self._left += content
        message, _, self._left = self._left.partition(b"\0")
        read = json.loads(message)
        parameters = read.get("params", {})
        if read.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif read.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(parameters["exceptionDetails"]))
        elif read.get("method") == "Log.entryAdded":
            self.errors.append(parameters["entry"]["text"])
        return read
