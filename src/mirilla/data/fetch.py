"""Fetching WIDER FACE: resumed, retried over mirrors, checked, and unpacked without surprises.

Sizes and MD5 sums are those that public loaders of the data set have recorded for years. Research use only:
the photos' rights belong to their owners.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mirilla.errors import DownloadError
from mirilla.files import explaining, sha256, write_text, writing

MARKER = "mirilla-fetch.json"
MIRRORS = (
    "https://huggingface.co/datasets/CUHK-CSE/wider_face/resolve/main/data/",
    "https://dataset.bj.bcebos.com/wider_face/",
    "http://shuoyang1213.me/WIDERFACE/support/bbx_annotation/",  # the authors' own page: annotations only
)
_CHUNK = 1 << 18
_TIMEOUT_S = 30


@dataclass(frozen=True)
class Archive:
    """A published file. size_bytes, md5: None or empty where not known; then only the zip's own checksums
    count.
    """

    name: str
    size_bytes: int | None = None
    md5: tuple[str, ...] = ()


WIDER_FACE = (
    Archive(
        "wider_face_split.zip",
        None,  # one mirror packed the same annotations anew
        ("0e3767bcf0e326556d407bf5bff5d27c", "a4a898d6193db4b9ef3260a68bad0dc7"),
    ),
    Archive("WIDER_val.zip", 362_752_168, ("dfa7d7e790efa35df3788964cf0bbaea",)),
    Archive("WIDER_train.zip", 1_465_602_149, ("3fedf70df600953d25982bcd13d91ba2",)),
)


class _Bar:
    def advance(self, count: int = 1) -> None: ...

    def note(self, text: str) -> None: ...


@contextmanager
def _no_progress(description: str, total: int | None, unit: str) -> Iterator[_Bar]:
    yield _Bar()


ProgressMaker = Callable[[str, int | None, str], AbstractContextManager]


def fetch_widerface(
    folder: str | os.PathLike[str],
    *,
    mirrors: Sequence[str] = MIRRORS,
    from_dir: str | os.PathLike[str] | None = None,
    archives: Sequence[Archive] = WIDER_FACE,
    checksum: bool = True,
    keep_archives: bool = False,
    attempts: int = 5,
    progress: ProgressMaker = _no_progress,
    echo: Callable[[str], object] = lambda text: None,
    sleep: Callable[[float], object] = time.sleep,
) -> dict[str, str]:
    """Bring WIDER FACE into `folder`: WIDER_train/, WIDER_val/, wider_face_split/.

    What is there already is not fetched again; a broken-off download goes on where it stopped.

    Args:
        mirrors: addresses that the archives' names are appended to, tried in order.
        from_dir: a folder with archives that the user already has; those found there are used and left in
            place.
        checksum: whether the archives must have their published MD5 sums (the zip's own are always checked).
        keep_archives: keep downloaded archives after unpacking.
        attempts: tries per mirror when the connection breaks.

    Returns:
        Archive name -> SHA-256 of the file that was unpacked (also written to mirilla-fetch.json).

    Raises:
        DownloadError: no mirror gives a whole file, or one is not what was published; lists what each mirror
            said.
        MirillaError: the disk is full, or the folder may not be written.
    """
    folder = Path(folder)
    if from_dir is not None and not Path(from_dir).is_dir():
        raise DownloadError(f"{from_dir}: no such folder.", "--from names the folder that holds the .zip files.")
    with explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
    done = _read_marker(folder)
    for archive in archives:
        if archive.name in done and (folder / archive.name.removesuffix(".zip")).is_dir():
            echo(f"{archive.name}: unpacked already.")
            continue
        own = Path(from_dir) / archive.name if from_dir is not None else None
        downloaded = folder / archive.name
        if own is not None and own.is_file():
            echo(f"{archive.name}: taken from {own.parent}.")
            if problem := wrong_with(own, archive, checksum):
                raise DownloadError(
                    f"{own}: {problem}.",
                    "Fetch that file again, or, if it was packed anew on purpose, add --no-checksum.",
                )
            path = own
        elif downloaded.is_file() and not wrong_with(downloaded, archive, checksum):
            path = downloaded
        else:
            path = download(
                archive,
                downloaded,
                mirrors,
                checksum=checksum,
                attempts=attempts,
                progress=progress,
                echo=echo,
                sleep=sleep,
            )
        digest = sha256(path)
        unpack(path, folder, progress=progress)
        done[archive.name] = digest
        write_text(folder / MARKER, json.dumps({"sha256": done}, indent=1) + "\n")
        if path == downloaded and not keep_archives:
            path.unlink()
    return {a.name: done[a.name] for a in archives}


def _read_marker(folder: Path) -> dict[str, str]:
    try:
        content = json.loads((folder / MARKER).read_text("utf-8"))
        return {str(n): str(d) for n, d in content["sha256"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def wrong_with(path: Path, archive: Archive, checksum: bool = True) -> str | None:
    """What is wrong with a file that should be `archive`, in words; None when it is whole."""
    size = path.stat().st_size
    if checksum and archive.size_bytes is not None and size != archive.size_bytes:
        return f"it has {size:,} bytes, but the published file has {archive.size_bytes:,}"
    if checksum and archive.md5:
        with explaining(path), open(path, "rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found not in archive.md5:
            return f"its MD5 sum is {found}, but the published file's is {' or '.join(archive.md5)}"
    if not zipfile.is_zipfile(path):
        return "it is not a whole zip file (its directory at the end is missing)"
    return None


def download(
    archive: Archive,
    path: Path,
    mirrors: Sequence[str],
    *,
    checksum: bool = True,
    attempts: int = 5,
    progress: ProgressMaker = _no_progress,
    echo: Callable[[str], object] = lambda text: None,
    sleep: Callable[[float], object] = time.sleep,
) -> Path:
    """Fetch one archive to `path`; meanwhile it is called `path` + '.part', and a later call goes on with
    that.

    Raises:
        DownloadError: no mirror gives the whole file; lists what each said.
    """
    part = path.with_name(path.name + ".part")
    reasons: list[str] = []
    for mirror in mirrors:
        url = mirror.rstrip("/") + "/" + archive.name
        if not url.startswith(("http://", "https://")):
            raise DownloadError(f"{url}: not an http or https address.", "Mend the mirror's address.")
        for attempt in range(1, attempts + 1):
            try:
                with explaining(part):
                    _transfer(url, part, archive, progress)
            except _Refused as error:
                reasons.append(f"{url}: {error}")
                break
            except _Broken as error:
                if attempt == attempts:
                    reasons.append(f"{url}: {error} ({attempts} attempts)")
                else:
                    echo(f"{url}: {error}; going on in a moment (attempt {attempt + 1} of {attempts}).")
                    sleep(min(2.0 ** (attempt - 1), 30.0))
                continue
            problem = wrong_with(part, archive, checksum)
            if problem is None:
                with explaining(path):
                    os.replace(part, path)
                return path
            part.unlink(missing_ok=True)  # not what was published: nothing of it can be used
            reasons.append(f"{url}: {problem}")
            break
        echo(f"{reasons[-1]}.")
    kept = (
        f" {part.stat().st_size:,} bytes are kept in {part.name}; the same command goes on with them."
        if part.exists()
        else ""
    )
    raise DownloadError(
        f"{archive.name} could not be fetched. " + "; ".join(reasons) + "." + kept,
        "Try again later, name another address with --mirror, or fetch the file by hand and give its "
        "folder with --from.",
    )


class _Refused(Exception):
    """This mirror will not give the file: try the next."""


class _Broken(Exception):
    """The connection broke: try again, and go on where it stopped."""


def _transfer(url: str, part: Path, archive: Archive, progress: ProgressMaker) -> None:
    """One request; appends to `part`. Returns when the body is whole by the server's own count."""
    have = part.stat().st_size if part.exists() else 0
    if archive.size_bytes is not None and have > archive.size_bytes:
        part.unlink()
        have = 0
    request = urllib.request.Request(url, headers={"User-Agent": "mirilla", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            if _total(error.headers.get("Content-Range")) == have:
                return  # nothing was missing
            part.unlink()
            raise _Broken("the server cannot go on where the file stopped; starting over") from error
        if error.code in (408, 425, 429) or error.code >= 500:
            raise _Broken(f"the server answered {error.code} {error.reason}") from error
        raise _Refused(f"the server answered {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise _Broken(f"no connection ({getattr(error, 'reason', error)})") from error
    with response:
        mode = "ab"
        total = int(response.headers.get("Content-Length") or 0) or None
        if response.status == 206:
            start, total_given = _range(response.headers.get("Content-Range"))
            if start != have:
                raise _Refused(f"asked for bytes from {have}, the server sends them from {start}")
            total = total_given or (have + total if total else None)
        else:  # the server does not know ranges: from the beginning
            mode, have = "wb", 0
        size = total or archive.size_bytes
        with open(part, mode) as file, progress(archive.name, size // 10**6 if size else None, "MB") as bar:
            bar.advance(have // 10**6)
            while True:
                try:
                    chunk = response.read(_CHUNK)
                except http.client.IncompleteRead as error:
                    file.write(error.partial)
                    raise _Broken(f"the connection ended after {have + len(error.partial):,} bytes") from error
                except (http.client.HTTPException, OSError) as error:
                    raise _Broken(f"the connection broke after {have:,} bytes ({error})") from error
                if not chunk:
                    break
                file.write(chunk)
                bar.advance((have + len(chunk)) // 10**6 - have // 10**6)
                have += len(chunk)
        if total is not None and have < total:
            raise _Broken(f"the connection ended after {have:,} of {total:,} bytes")


def _range(header: str | None) -> tuple[int, int | None]:
    try:
        span, _, total = (header or "").removeprefix("bytes ").partition("/")
        return int(span.split("-")[0]), int(total) if total.isdigit() else None
    except ValueError:
        return -1, None


def _total(header: str | None) -> int | None:
    total = (header or "").rpartition("/")[2]
    return int(total) if total.isdigit() else None


def unpack(path: Path, folder: Path, progress: ProgressMaker = _no_progress) -> int:
    """Unpack a zip; every member's CRC is checked, and files that are there already with the same size and
    CRC are kept.

    Returns:
        The number of files.

    Raises:
        DownloadError: a member is damaged, or its name leads out of the folder, or it is a link.
        MirillaError: the disk is full.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [(m, _target(m, path, folder)) for m in archive.infolist() if not m.is_dir()]
            needed = sum(m.file_size for m, target in members if not target.exists())
            if needed > shutil.disk_usage(folder).free:
                raise DownloadError(
                    f"{folder}: unpacking {path.name} needs {needed / 1e9:.2f} GB, but only "
                    f"{shutil.disk_usage(folder).free / 1e9:.2f} GB are free.",
                    "Free some space.",
                )
            with progress(f"Unpacking {path.name}", len(members), "files") as bar:
                for member, target in members:
                    if not _same(target, member):
                        with archive.open(member) as source, writing(target) as file:
                            shutil.copyfileobj(source, file, _CHUNK)
                    bar.advance(1)
            return len(members)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DownloadError(f"{path}: the zip file is damaged: {error}.", "Remove it and fetch it again.") from error


def _target(member: zipfile.ZipInfo, path: Path, folder: Path) -> Path:
    name = PurePosixPath(member.filename.replace("\\", "/"))
    mode = member.external_attr >> 16
    if name.is_absolute() or ".." in name.parts or ":" in name.parts[0] or stat.S_ISLNK(mode):
        raise DownloadError(
            f"{path}: it holds '{member.filename}', which would be written outside the folder or is a link.",
            "Do not use this file: it is not the published one.",
        )
    target = folder.joinpath(*name.parts)
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise DownloadError(
            f"{path}: '{member.filename}' would be written outside {folder}, through a link there.",
            "Unpack into an empty folder.",
        )
    return target


def _same(target: Path, member: zipfile.ZipInfo) -> bool:
    if not target.is_file() or target.stat().st_size != member.file_size:
        return False
    crc = 0
    with open(target, "rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc == member.CRC
