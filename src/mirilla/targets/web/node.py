"""The network of a page in Node.js: the same WebAssembly and JavaScript as in the browser, without the browser."""

from __future__ import annotations

import shutil
import subprocess
import threading
import weakref
from importlib.resources import files
from pathlib import Path

import numpy as np

from mirilla.errors import MirillaError, MissingExtraError, ModelError
from mirilla.model.card import ModelCard
from mirilla.targets.target import Candidates, Floats, Network

PROGRAM = "node"


class MissingNodeError(MissingExtraError):
    """Node.js is not installed."""

    def __init__(self):
        MirillaError.__init__(
            self,
            "Running the network of a web page needs Node.js 16.4 or newer, which is not installed.",
            "Install it with the system's packages (Debian: 'apt install nodejs'), or open the page in a browser.",
        )


def open_page(path: Path, card: ModelCard) -> Network:
    """The network of a page, in a process of its own that ends with it.

    Raises:
        MissingExtraError: Node.js is not installed.
    """
    if shutil.which(PROGRAM) is None:
        raise MissingNodeError
    return _Page(path, len(card.anchors_yxyx), card.spec.num_classes)


class _Page:
    """A process that reads normalised pictures and writes boxes and scores, all float32."""

    def __init__(self, path: Path, anchors: int, classes: int):
        self._path, self._anchors, self._classes = path, anchors, classes
        self._lock = threading.Lock()  # one picture at a time
        driver = files("mirilla.targets.web").joinpath("node.js").read_text("utf-8")
        self._process = subprocess.Popen(
            [PROGRAM, "-e", driver, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        weakref.finalize(self, _end, self._process)

    def __call__(self, pictures: Floats) -> Candidates:
        found = [self._one(np.ascontiguousarray(picture, "<f4").tobytes()) for picture in pictures]
        boxes, scores = (np.stack(arrays) for arrays in zip(*found, strict=True))
        return Candidates(boxes, scores)

    def _one(self, picture: bytes) -> tuple[Floats, Floats]:
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            try:
                self._process.stdin.write(picture)
                self._process.stdin.flush()
            except OSError:
                raise self._error() from None
            columns = 4 + self._classes
            content = self._process.stdout.read(4 * self._anchors * columns)
            if len(content) < 4 * self._anchors * columns:
                raise self._error()
        values = np.frombuffer(content, "<f4")
        split = 4 * self._anchors
        return values[:split].reshape(-1, 4), values[split:].reshape(-1, self._classes)

    def _error(self) -> ModelError:
        _, messages = self._process.communicate()
        lines = messages.decode("utf-8", "replace").strip().splitlines() or ["no message"]
        return ModelError(
            f"{self._path}: Node.js cannot run the page's network ({lines[-1]}).", "Export the model again."
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()
