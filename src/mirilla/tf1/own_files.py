"""Write files where others may have files too: replace only what an earlier run wrote and nobody has changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import TracebackType

from mirilla.errors import DataError
from mirilla.files import explaining, write_bytes, write_text

RECORD = "mirilla-tf1.json"


class OwnFiles:
    """The files below a folder that Mirilla has written, listed in mirilla-tf1.json there.

    Use it in a `with` block; the list is written at the end of it, also after an error.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._written = _read_record(folder / RECORD)  # path relative to the folder -> SHA-256
        self._changed = False

    def __enter__(self) -> OwnFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self._changed:
            write_text(self.folder / RECORD, json.dumps({"sha256": self._written}, indent=0) + "\n")

    def write(self, path: Path, content: bytes) -> None:
        """Write a file; one with the same content is kept.

        Raises:
            DataError: a file is there that Mirilla did not write, or that was changed afterwards.
        """
        if path.exists() and self._content(path) == content:
            return
        self.require_writable(path)
        write_bytes(path, content)
        self.add(path, content)

    def require_writable(self, path: Path) -> None:
        """Check that a path is free, or holds a file that Mirilla wrote and nobody has changed.

        Raises:
            DataError: it does not.
        """
        if path.exists() and self._written.get(self._name(path)) != _digest(self._content(path)):
            raise DataError(
                f"{path}: this file exists, and Mirilla did not write it, or it was changed since.",
                "Move it away, or work in another folder.",
            )

    def add(self, path: Path, content: bytes | None = None) -> None:
        """Record a file that has been written; its content is read if it is not given."""
        self._written[self._name(path)] = _digest(self._content(path) if content is None else content)
        self._changed = True

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _content(self, path: Path) -> bytes:
        with explaining(path):
            return path.read_bytes()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_record(path: Path) -> dict[str, str]:
    try:
        content = json.loads(path.read_text("utf-8"))
        return {str(name): str(digest) for name, digest in content["sha256"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
