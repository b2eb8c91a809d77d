"""Download a published file, with resuming, retries, mirrors and checks."""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mirilla.errors import DownloadError
from mirilla.files import explaining

CHUNK_BYTES = 1 << 18
_TIMEOUT_S = 30
_RETRIED_STATUS = (408, 425, 429)  # and all codes from 500 on


@dataclass(frozen=True)
class Archive:
    """A published zip file.

    Attributes:
        name: its file name.
        size_bytes: its size, if known.
        md5: its possible MD5 sums; if none is known, only the zip's own checksums are checked.
    """

    name: str
    size_bytes: int | None = None
    md5: tuple[str, ...] = ()


class Bar(Protocol):
    """A progress bar."""

    def advance(self, count: int = 1) -> None:
        """Advance by so many units."""


class _NoBar:
    def advance(self, count: int = 1) -> None: ...


@contextmanager
def no_progress(description: str, total: int | None, unit: str) -> Iterator[Bar]:
    """A progress bar that shows nothing."""
    yield _NoBar()


ProgressMaker = Callable[[str, int | None, str], AbstractContextManager[Bar]]


@dataclass(frozen=True)
class Downloader:
    """Downloads archives.

    Attributes:
        mirrors: addresses to which an archive's name is added, tried in order.
        checksum: whether an archive must have its published size and MD5 sum.
        attempts: tries per mirror if the connection breaks.
        progress: makes a progress bar from a description, a total and a unit.
        echo: prints a line.
        sleep: waits for so many seconds.
    """

    mirrors: Sequence[str]
    checksum: bool = True
    attempts: int = 5
    progress: ProgressMaker = no_progress
    echo: Callable[[str], object] = lambda text: None
    sleep: Callable[[float], object] = time.sleep

    def download(self, archive: Archive, path: Path) -> None:
        """Download an archive to `path`.

        Until it is complete, the file is called `path` + '.part'; a later call resumes from there.

        Raises:
            DownloadError: no mirror has the whole file; lists the reason for each.
        """
        part = path.with_name(path.name + ".part")
        reasons: list[str] = []
        for mirror in self.mirrors:
            url = mirror.rstrip("/") + "/" + archive.name
            if not url.startswith(("http://", "https://")):
                raise DownloadError(f"{url}: not an http or https address.", "Correct the mirror's address.")
            reason = self._try_mirror(url, part, archive)
            if reason is None:
                with explaining(path):
                    os.replace(part, path)
                return
            self.echo(f"{url}: {reason}.")
            reasons.append(f"{url}: {reason}")
        kept = ""
        if part.exists():
            kept = f" {part.stat().st_size:,} bytes are kept in {part.name}; the same command resumes from there."
        raise DownloadError(
            f"{archive.name} could not be fetched. {'; '.join(reasons)}.{kept}",
            "Try again later, name another address with --mirror, or fetch the file by hand and give its folder with "
            "--from.",
        )

    def _try_mirror(self, url: str, part: Path, archive: Archive) -> str | None:
        """Download to `part`; returns the reason if that fails."""
        for attempt in range(1, self.attempts + 1):
            try:
                with explaining(part):
                    _transfer(url, part, archive, self.progress, archive.size_bytes if self.checksum else None)
            except _RefusedError as error:
                return str(error)
            except _BrokenError as error:
                if attempt == self.attempts:
                    return f"{error} ({self.attempts} attempts)"
                self.echo(f"{url}: {error}; trying again (attempt {attempt + 1} of {self.attempts}).")
                self.sleep(min(2.0 ** (attempt - 1), 30.0))
            else:
                reason = defect(part, archive, self.checksum)
                if reason is not None:
                    part.unlink(missing_ok=True)  # not the published file: no byte of it can be used
                return reason
        return None


def defect(path: Path, archive: Archive, checksum: bool = True) -> str | None:
    """How a file differs from the published archive, as part of a message; None if it does not."""
    size = path.stat().st_size
    if checksum and archive.size_bytes is not None and size != archive.size_bytes:
        return f"it has {size:,} bytes, but the published file has {archive.size_bytes:,}"
    if checksum and archive.md5:
        with explaining(path), open(path, "rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if md5 not in archive.md5:
            return f"its MD5 sum is {md5}, but the published file's is {' or '.join(archive.md5)}"
    if not zipfile.is_zipfile(path):
        return "it is not a whole zip file (its directory at the end is missing)"
    return None


class _RefusedError(Exception):
    """This mirror does not provide the file: try the next."""


class _BrokenError(Exception):
    """The connection broke: try again and resume."""


def _transfer(url: str, part: Path, archive: Archive, progress: ProgressMaker, limit: int | None) -> None:
    """Send one request and append the answer to `part`; returns when the file has the size that the server states.

    A file that grows beyond `limit` bytes is refused and removed.
    """
    have = part.stat().st_size if part.exists() else 0
    if archive.size_bytes is not None and have > archive.size_bytes:
        part.unlink()
        have = 0
    response = _open(url, have, part)
    if response is None:
        return
    with response:
        have, total = _extent(response, have)
        megabytes = (total or archive.size_bytes or 0) // 10**6 or None
        with open(part, "ab" if have else "wb") as file, progress(archive.name, megabytes, "MB") as bar:
            bar.advance(have // 10**6)
            for chunk in _chunks(response, have):
                if limit is not None and have + len(chunk) > limit:
                    part.unlink()
                    raise _RefusedError(f"it sends more than the published file's {limit:,} bytes")
                file.write(chunk)
                bar.advance((have + len(chunk)) // 10**6 - have // 10**6)
                have += len(chunk)
    if total is not None and have < total:
        raise _BrokenError(f"the connection ended after {have:,} of {total:,} bytes")


def _extent(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """The file's byte at which the body starts, and the file's size if the server gives it."""
    stated = response.headers.get("Content-Length") or ""
    length = (int(stated) if stated.isdecimal() else 0) or None
    if response.status != 206:  # the server does not support ranges: the body is the whole file
        return 0, length
    start, total = _content_range(response.headers.get("Content-Range"))
    if start != have:
        raise _RefusedError(f"requested bytes from {have}, but the server sends them from {start}")
    return have, total or (have + length if length else None)


def _open(url: str, have: int, part: Path) -> http.client.HTTPResponse | None:
    """The answer to a request for the bytes from `have` on; None if there are no more."""
    request = urllib.request.Request(url, headers={"User-Agent": "mirilla", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            if _content_range(error.headers.get("Content-Range"))[1] == have:
                return None
            part.unlink()
            raise _BrokenError("the server cannot resume where the file stopped; starting over") from error
        reason = f"the server answered {error.code} {error.reason}"
        if error.code in _RETRIED_STATUS or error.code >= 500:
            raise _BrokenError(reason) from error
        raise _RefusedError(reason) from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise _BrokenError(f"no connection ({getattr(error, 'reason', error)})") from error


def _chunks(response: http.client.HTTPResponse, have: int) -> Iterator[bytes]:
    """The body in chunks, including what arrives before the connection breaks."""
    while True:
        try:
            chunk = response.read(CHUNK_BYTES)
        except http.client.IncompleteRead as error:
            yield error.partial
            raise _BrokenError(f"the connection ended after {have + len(error.partial):,} bytes") from error
        except (http.client.HTTPException, OSError) as error:
            raise _BrokenError(f"the connection broke after {have:,} bytes ({error})") from error
        if not chunk:
            return
        yield chunk
        have += len(chunk)


def _content_range(header: str | None) -> tuple[int, int | None]:
    """First byte (-1 if there is none) and total of 'bytes 5-9/10' or 'bytes */10'."""
    span, _, total = (header or "").removeprefix("bytes ").partition("/")
    first = span.split("-")[0]
    return int(first) if first.isdecimal() else -1, int(total) if total.isdecimal() else None
