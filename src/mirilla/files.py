"""Atomic writes: a file is written under a temporary name and renamed, so that no half-written file is left."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from mirilla.errors import MirillaError, UsageError

_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.part")  # as tempfile names them
_YOUNG_S = 2.0  # a younger temporary file may not have its lock yet
_REMEDIES = {
    errno.ENOSPC: "Free some space, or write to another disk.",
    errno.EDQUOT: "Your disk quota is exhausted: free some space, or write to another disk.",
    errno.EACCES: "Choose a folder that you have access to, or change its permissions.",
    errno.EPERM: "Choose a folder that you have access to, or change its permissions.",
    errno.EROFS: "The disk is read-only: choose another.",
    errno.ENOENT: "Check the path: the file or folder does not exist.",
    errno.ENOTDIR: "A part of the path is a file, not a folder: choose another path.",
    errno.ENAMETOOLONG: "Shorten the name.",
    errno.EISDIR: "This is a folder, not a file: choose another path.",
}


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO]:
    """Open a temporary file beside `path`; rename it to `path` on success, remove it on any error.

    Raises:
        MirillaError: the folder is not writable or the disk is full; no file is left.
    """
    path = Path(path)
    with explaining(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=".part", dir=path.parent)
        lock = _lock(handle)
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
        finally:
            if lock is not None:
                os.close(lock)


def _lock(handle: int) -> int | None:
    """Lock an open temporary file, so that no other process takes it for a leftover; a handle to close when it is done.

    None on Windows, which cannot rename a file while a handle to it is open.
    """
    if fcntl is None:
        return None
    with contextlib.suppress(OSError):  # some file systems have no locks
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return os.dup(handle)


@cache
def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder, once a process."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not _TEMPORARY.fullmatch(entry.name) or time.time() - entry.stat().st_mtime < _YOUNG_S:
                continue
            with contextlib.suppress(OSError), open(entry.path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(entry.path)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file atomically."""
    with writing(path) as file:
        file.write(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, content.encode())


# Files that are met in place of another: first bytes, what it is, and what to do.
MISTAKEN = (
    (b"version https://git-lfs", "a Git LFS pointer", "Fetch the file itself: git lfs pull"),
    (b"<", "a web page", "Download the file itself."),
    (b"PK\x03\x04", "a ZIP archive", "Unpack it."),
)


def mistaken(content: bytes) -> tuple[str, str] | None:
    """What a file of a wrong kind is, and what to do, by its first bytes; None if it is none of `MISTAKEN`."""
    return next(((what, remedy) for first, what, remedy in MISTAKEN if content.startswith(first)), None)


@contextlib.contextmanager
def explaining(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an OSError in the block into a MirillaError about `path`, with a remedy."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        is_temporary = isinstance(error.filename, str) and ".part" in error.filename
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and isinstance(error.filename2, str):  # where a copy goes
            raise MirillaError(f"{error.filename2}: {reason}.", _REMEDIES[error.errno]) from error
        where = error.filename if isinstance(error.filename, str) and not is_temporary else path
        raise MirillaError(f"{where}: {reason}.", _REMEDIES.get(error.errno or 0)) from error


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file in hexadecimal; the file is read in blocks."""
    with explaining(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], what: str, remedy: str) -> Iterator[None]:
    """Hold a lock file; the operating system releases it when the process ends, even if it is killed.

    Args:
        path: of the lock file, which is created if missing and stays.
        what, remedy: of the error.

    Raises:
        UsageError: another process holds the lock.
        MirillaError: the file cannot be created.
    """
    if fcntl is None:
        yield
        return
    with explaining(path):
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(what, remedy) from error
        yield
    finally:
        os.close(handle)
