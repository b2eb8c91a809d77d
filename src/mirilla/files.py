"""Files written beside and moved into place, so that nothing half-written is ever found."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mirilla.errors import MirillaError


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO]:
    """Open a temporary file beside `path`; on success move it there, on any error remove it.

    Raises:
        MirillaError: the folder is missing or not writable, or the disk is full; nothing is left behind.
    """
    path = Path(path)
    with explaining(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=".part", dir=path.parent)
        try:
            encoding = None if "b" in mode else "utf-8"
            with os.fdopen(handle, mode, encoding=encoding) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a whole file atomically."""
    with writing(path) as file:
        file.write(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Write a whole UTF-8 text file atomically."""
    write_bytes(path, content.encode())


@contextlib.contextmanager
def explaining(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn the operating system's errors about `path` into a MirillaError with a remedy."""
    try:
        yield
    except OSError as error:
        remedies = {
            errno.ENOSPC: "Free some space, or write to another disk.",
            errno.EDQUOT: "Your quota is used up: free some space, or write to another disk.",
            errno.EACCES: "Choose a folder that you may use, or change its permissions.",
            errno.EPERM: "Choose a folder that you may use, or change its permissions.",
            errno.EROFS: "The disk is read-only: choose another.",
            errno.ENOENT: "Check the path: the file or folder does not exist.",
            errno.ENOTDIR: "A file stands where a folder is needed: choose another path.",
            errno.EISDIR: "A folder stands where a file is needed: choose another path.",
        }
        reason = os.strerror(error.errno) if error.errno else str(error)
        where = error.filename if isinstance(error.filename, str) and ".part" not in error.filename else path
        raise MirillaError(f"{where}: {reason}.", remedies.get(error.errno or 0)) from error


def sha256(path: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with explaining(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
